"""Unified hunks of two texts, as bytes; bounded in time for any input. Pure, standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CONTEXT: Final = 3
# SequenceMatcher is quadratic at worst; beyond this the differing middle is shown as replaced, which is as true.
_MATCH_LINES: Final = 20_000

Opcode = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class TextDiff:
    """The differing parts of two texts, as `difflib` opcodes over their lines."""

    old: list[bytes]
    new: list[bytes]
    opcodes: list[Opcode]

    @property
    def removed(self) -> int:
        """Return how many lines went."""
        return sum(i2 - i1 for tag, i1, i2, _, _ in self.opcodes if tag != "equal")

    @property
    def added(self) -> int:
        """Return how many lines came."""
        return sum(j2 - j1 for tag, _, _, j1, j2 in self.opcodes if tag != "equal")

    @property
    def similarity(self) -> int:
        """Return the share of bytes that both have, in percent; 100 only for equal texts."""
        kept = sum(len(line) for tag, i1, i2, _, _ in self.opcodes if tag == "equal" for line in self.old[i1:i2])
        whole = max(sum(map(len, self.old)), sum(map(len, self.new)))
        if not self.removed and not self.added:
            return 100
        return min(99, kept * 100 // whole) if whole else 100

    def hunks(self) -> Iterator[bytes]:
        """Yield the hunks, with `@@` headers."""
        for group in _grouped(self.opcodes):
            (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
            yield b"@@ -%s +%s @@\n" % (_range(i1, i2), _range(j1, j2))
            for tag, a1, a2, b1, b2 in group:
                if tag == "equal":
                    yield from (_line(b" ", line) for line in self.old[a1:a2])
                else:
                    yield from (_line(b"-", line) for line in self.old[a1:a2])
                    yield from (_line(b"+", line) for line in self.new[b1:b2])


def compare_texts(old: bytes, new: bytes) -> TextDiff:
    """Compare two texts line by line."""
    a, b = old.split(b"\n"), new.split(b"\n")
    a, b = _with_ends(a), _with_ends(b)
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    opcodes: list[Opcode] = [("equal", 0, head, 0, head)] if head else []
    for tag, i1, i2, j1, j2 in _middle(middle_a, middle_b):
        opcodes.append((tag, i1 + head, i2 + head, j1 + head, j2 + head))
    if tail:
        opcodes.append(("equal", len(a) - tail, len(a), len(b) - tail, len(b)))
    return TextDiff(a, b, opcodes)


def _with_ends(lines: list[bytes]) -> list[bytes]:
    """Give each line its newline back; the last has none when the text does not end in one."""
    ended = [line + b"\n" for line in lines[:-1]]
    return ended + ([lines[-1]] if lines[-1] else [])


def _middle(a: list[bytes], b: list[bytes]) -> list[Opcode]:
    if not a and not b:
        return []
    if len(a) + len(b) > _MATCH_LINES or not a or not b:
        return [("replace", 0, len(a), 0, len(b))]
    return list(difflib.SequenceMatcher(None, a, b).get_opcodes())


def _grouped(opcodes: list[Opcode]) -> Iterator[list[Opcode]]:
    """Group the differences with `CONTEXT` equal lines around them."""
    group: list[Opcode] = []
    for number, (tag, i1, i2, j1, j2) in enumerate(opcodes):
        if tag != "equal":
            group.append((tag, i1, i2, j1, j2))
            continue
        is_last = number == len(opcodes) - 1
        if group and (is_last or i2 - i1 > 2 * CONTEXT):
            keep = min(CONTEXT, i2 - i1)
            yield [*group, ("equal", i1, i1 + keep, j1, j1 + keep)]
            group = []
        if not is_last:
            keep = min(CONTEXT, i2 - i1) if not group else i2 - i1
            group.append(("equal", i2 - keep, i2, j2 - keep, j2))
    if any(tag != "equal" for tag, *_ in group):
        yield group


def _range(start: int, end: int) -> bytes:
    count = end - start
    if count == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + 1 if count else start, count)


def _line(sign: bytes, line: bytes) -> bytes:
    return sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"
