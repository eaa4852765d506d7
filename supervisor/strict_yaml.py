"""YAML that says no more than JSON could, with the place of every value.

For files that people write. No aliases, anchors or tags, no key twice; ``off``, ``yes``, ``1:30``, ``0777`` are words;
``true``, ``false``, ``null`` and whole numbers (decimal or 0x) are not. A complaint is ``path:line:column: what``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from supervisor.errors import UsageError

MAX_FILE_BYTES: Final = 64 * 1024
MAX_YAML_DEPTH: Final = 16

_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,18}|0x[0-9a-f]{1,16}")

Position = tuple[int, int]
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file, with the place of each value."""

    value: Any
    positions: Mapping[Where, Position]
    path: str
    next_step: str

    def error(self, where: Where, text: str, next_step: str = "") -> UsageError:
        """Return the error that points at *where*, or at the nearest value around it."""
        while where and where not in self.positions:
            where = where[:-1]
        line, column = self.positions.get(where, (1, 1))
        return UsageError(f"{self.path}:{line}:{column}: {text}", next_step or self.next_step)


def read_yaml(data: bytes, path: str, next_step: str) -> Document:
    """Parse one YAML document strictly.

    Args:
        next_step: What a complaint tells to type, such as ``deskwarden profile schema``.

    Raises:
        UsageError: ``path:line:column: what`` for anything that is not plain, bounded YAML.
    """
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path}:1:1: {len(data)} bytes, at most {MAX_FILE_BYTES} are read", "make the file smaller")
    try:
        loader = _StrictLoader(data.decode("utf-8"))
        node = loader.get_single_node()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise UsageError(f"{path}:{line}:{column}: not UTF-8 text", "save the file as UTF-8") from error
    except RecursionError as error:
        raise UsageError(f"{path}:1:1: nested too deeply", next_step) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise UsageError(f"{path}:{line}:{column}: {error.problem or error.context}", next_step) from error
    except yaml.reader.ReaderError as error:
        text = f"character {error.character!r} at offset {error.position}: {error.reason}"
        raise UsageError(f"{path}:1:1: {text}", next_step) from error
    positions: dict[Where, Position] = {}
    value = _Construction(positions, path, next_step).of(node, ()) if node is not None else None
    return Document(value, positions, path, next_step)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's reader and parser, with aliases, anchors and tags refused. `_scalar` decides what a plain word means."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.composer.ComposerError(None, None, "tags are not allowed", event.start_mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class _Construction:
    """Values out of nodes; notes the place of each."""

    positions: dict[Where, Position]
    path: str
    next_step: str

    def of(self, node: yaml.Node, where: Where) -> Any:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.positions[where] = (line, column)
        if len(where) > MAX_YAML_DEPTH:
            too_deep = f"{self.path}:{line}:{column}: nested more than {MAX_YAML_DEPTH} deep"
            raise UsageError(too_deep, self.next_step)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item, (*where, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = f"{self.path}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise UsageError(f"{at}: a key must be a word", self.next_step)
            if key_node.value in result:
                raise UsageError(f"{at}: the key {key_node.value!r} stands twice", "keep one of them")
            result[key_node.value] = self.of(value_node, (*where, key_node.value))
        return result


def _scalar(node: Any) -> str | int | bool | None:
    text = str(node.value)
    if node.style is not None:  # quoted or block: a word
        return text
    if text in ("", "null", "~"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    return text
