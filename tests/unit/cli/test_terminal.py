"""What an agent prints reaches the owner's terminal only as drawing."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.terminal import MAX_SEQUENCE_BYTES, OutputFilter

BOTH = pytest.mark.parametrize("interactive", [True, False], ids=["live", "recorded"])


def filtered(data: bytes, *, interactive: bool = True, utf8: bool = True) -> bytes:
    output = OutputFilter(interactive=interactive, utf8=utf8)
    return output.feed(data) + output.flush()


DRAWING = {
    "text": b"plain text\r\n\ttab\b \x07",
    "utf8": "Grüße, 日本語, \U0001f600".encode(),
    "line drawing by shift": b"\x0elqqk\x0f",
    "line drawing by set": b"\x1b(0lqqk\x1b(B",
    "colours": b"\x1b[1;31mred\x1b[38;2;1;2;3m\x1b[48:2::1:2:3m\x1b[4:3m\x1b[0m\x1b[m",
    "cursor": b"\x1b[H\x1b[12;40H\x1b[3A\x1b[B\x1b[10C\x1b[2D\x1b[5G\x1b[7d\x1b[s\x1b[u\x1b7\x1b8\x1bM\x1bD\x1bE",
    "erase": b"\x1b[J\x1b[1J\x1b[2J\x1b[K\x1b[1K\x1b[2K\x1b[4X",
    "insert and delete": b"\x1b[2L\x1b[3M\x1b[4P\x1b[5@\x1b[4h\x1b[4l",
    "scroll region": b"\x1b[2;20r\x1b[r\x1b[3S\x1b[2T",
    "tabs and repeat": b"\x1bH\x1b[g\x1b[3g\x1b[2I\x1b[2Z\x1b[9b",
    "alternate screen": b"\x1b[?1049h\x1b[?1049l",
    "cursor look": b"\x1b[?25l\x1b[?25h\x1b[?12h\x1b[2 q\x1b[34h",
    "wrap and synchronised update": b"\x1b[?7l\x1b[?2026h\x1b[?2026l",
    "soft reset": b"\x1b[!p",
}

TALKING = {
    "bracketed paste": b"\x1b[?2004h\x1b[?2004l",
    "mouse": b"\x1b[?1000h\x1b[?1002h\x1b[?1003h\x1b[?1006h",
    "focus": b"\x1b[?1004h",
    "application keys": b"\x1b[?1h",
    "keypad": b"\x1b=\x1b>",
}

HOSTILE = {
    "clipboard": b"\x1b]52;c;ZXZpbA==\x07",
    "clipboard ended by ST": b"\x1b]52;c;ZXZpbA==\x1b\\",
    "title": b"\x1b]0;title\x07\x1b]2;title\x07",
    "tmux title": b"\x1bktitle\x1b\\",
    "link": b"\x1b]8;;http://example.org\x07",
    "palette and colour query": b"\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x1b\\",
    "notification": b"\x1b]9;hello\x07\x1b]777;notify;a;b\x07",
    "iterm file": b"\x1b]1337;File=inline=1:AAAA\x07",
    "device control": b"\x1bP$qm\x1b\\",
    "termcap query": b"\x1bP+q544e\x1b\\",
    "user-defined keys": b"\x1bP0;1|17/0a\x1b\\",
    "sixel": b"\x1bPq#0;2;0;0;0\x1b\\",
    "kitty graphics": b"\x1b_Ga=q,i=1;AAAA\x1b\\",
    "privacy message": b"\x1b^x\x1b\\",
    "start of string": b"\x1bXx\x1b\\",
    "device attributes": b"\x1b[c\x1b[0c\x1b[>c\x1b[=c\x1bZ",
    "status and cursor reports": b"\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n\x1b[?996n",
    "mode query": b"\x1b[?2004$p\x1b[4$p",
    "version query": b"\x1b[>q\x1b[>0q",
    "parameters query": b"\x1b[x\x1b[1x",
    "screen checksum": b"\x1b[1;1;1;1;1;1*y",
    "window reports": b"\x1b[18t\x1b[21t\x1b[22;0t\x1b[3;10;10t",
    "answerback": b"\x05",
    "media copy": b"\x1b[i\x1b[5i\x1b[?5i",
    "locator": b"\x1b[1;2'z\x1b['|\x1b[1'{",
    "kitty keyboard": b"\x1b[>1u\x1b[=1;1u\x1b[?u\x1b[<u",
    "modifyOtherKeys": b"\x1b[>4;2m\x1b[?4m\x1b[>4n",
    "keyboard lock, local echo, line mode": b"\x1b[2h\x1b[12l\x1b[20h",
    "scrollback": b"\x1b[3J",
    "full reset": b"\x1bc",
    "vt52 mode": b"\x1b[?2l",
    "column mode": b"\x1b[?3h",
    "mode save": b"\x1b[?2004s\x1b[?2004r",
    "ambiguous mouse encodings": b"\x1b[?9h\x1b[?1001h\x1b[?1005h\x1b[?1015h",
    "in-band resize and colour reports": b"\x1b[?2048h\x1b[?2031h",
    "eight-bit answers": b"\x1b G",
    "encoding change": b"\x1b%@\x1b%G",
    "locking shifts": b"\x1bn\x1bo\x1b|\x1b}\x1b~\x1bN\x1bO",
    "rectangles": b"\x1b[1;1;2;2;1;5;5;1$v",
    "margins": b"\x1b[?69h\x1b[1;2s",
    "leds": b"\x1b[1q",
    "long repeat": b"\x1b[99999999b",
    "other controls": b"\x00\x01\x11\x13\x18\x1a\x7f",
}


@BOTH
@pytest.mark.parametrize("data", DRAWING.values(), ids=DRAWING)
def test_drawing_passes_unchanged(data: bytes, interactive: bool) -> None:
    assert filtered(data, interactive=interactive) == data


@pytest.mark.parametrize("data", TALKING.values(), ids=TALKING)
def test_what_makes_a_terminal_send_passes_only_in_a_live_session(data: bytes) -> None:
    assert filtered(data, interactive=True) == data
    assert filtered(data, interactive=False) == b""


@BOTH
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_sequence_leaves_nothing_and_spares_its_neighbours(data: bytes, interactive: bool) -> None:
    assert filtered(b"before" + data + b"after", interactive=interactive) == b"beforeafter"


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_sequence_leaves_nothing_byte_by_byte(data: bytes) -> None:
    output = OutputFilter(interactive=True)
    parts = [output.feed(bytes((byte,))) for byte in b"a" + data + b"z"]
    assert b"".join(parts) + output.flush() == b"az"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x9b5n", "\ufffd5n".encode()),
        (b"\xc2\x9b5n", "\ufffd5n".encode()),
        (b"\x9d52;c;x\x9c", "\ufffd52;c;x\ufffd".encode()),
        (b"\xc0\x9b", "\ufffd\ufffd".encode()),
        (b"\xe0\x82\x9b", "\ufffd\ufffd\ufffd".encode()),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd".encode()),
        (b"caf\xe9 \xff", "caf\ufffd \ufffd".encode()),
        (b"cut \xe6\x97", "cut \ufffd".encode()),
    ],
)
def test_eight_bit_controls_and_damaged_utf8_are_replaced(data: bytes, expected: bytes) -> None:
    assert filtered(data) == expected


def test_without_utf8_the_bytes_of_eight_bit_controls_are_replaced() -> None:
    # 日 holds 0x97, and Û holds 0x9b, CSI to such a terminal.
    assert filtered("é日Û5n".encode(), utf8=False) == b"\xc3\xa9\xe6?\xa5\xc3?5n"


def test_mode_list_keeps_only_its_allowed_modes() -> None:
    assert filtered(b"\x1b[?1049;2;25h") == b"\x1b[?1049;25h"


def test_sequence_interrupted_by_a_control_is_dropped_and_the_rest_is_text() -> None:
    assert filtered(b"\x1b[3\n1m") == b"\n1m"


def test_string_cancelled_by_a_new_sequence_does_not_swallow_it() -> None:
    assert filtered(b"\x1b]52;c;x\x1b[1mbold") == b"\x1b[1mbold"


def test_endless_sequence_is_dropped_in_constant_memory() -> None:
    output = OutputFilter()
    assert output.feed(b"\x1b[") == b""
    for _ in range(100):
        assert output.feed(b"1;" * MAX_SEQUENCE_BYTES) == b""
        assert len(output._pending) <= MAX_SEQUENCE_BYTES
    assert output.feed(b"mtext") == b"text"


def test_unfinished_sequence_is_dropped_at_the_end() -> None:
    output = OutputFilter()
    assert output.feed(b"text\x1b[1") == b"text"
    assert output.flush() == b""
    assert output.feed(b"mnext") == b"mnext"


def test_restore_undoes_the_modes_that_were_left_on() -> None:
    output = OutputFilter(interactive=True)
    output.feed(b"\x1b[?1049h\x1b[?25l\x1b[?1000;1006h\x1b[?2004h\x1b[?2004l")
    restored = output.restore()
    assert restored.startswith(b"\x1b[?1049l")
    assert b"\x1b[?25h" in restored
    assert b"\x1b[?1000l" in restored
    assert b"\x1b[?1006l" in restored
    assert b"2004" not in restored
    assert output.restore() == b""


def test_restore_writes_nothing_after_plain_text() -> None:
    output = OutputFilter(interactive=True)
    output.feed(b"plain\r\n")
    assert output.restore() == b""


# An independent reading of what may come out: the whole output is made of these, in UTF-8 without C1 controls.
ALLOWED = re.compile(
    r"(?:[^\x00-\x06\x10-\x1f\x7f-\x9f]"
    r"|\x1b\[[0-9:;]*m"
    r"|\x1b\[[0-9]{0,4}[@A-DEFGILMPSTXZ`abdeg]"
    r"|\x1b\[[0-9]{0,4}(;[0-9]{0,4})?[Hfr]"
    r"|\x1b\[[0-2]?[JK]|\x1b\[[su]|\x1b\[(4|34)[hl]|\x1b\[[0-6]? q|\x1b\[!p"
    r"|\x1b\[\?(1|5|6|7|12|25|47|66|100[023467]|104[789]|2004|2026)(;[0-9;]+)?[hl]"
    r"|\x1b[78DEHM=>]|\x1b[()*+][0AB])*"
)

PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([*DRAWING.values(), *TALKING.values(), *HOSTILE.values()]),
    st.sampled_from(
        [b"\x1b", b"[", b"\x1b[", b"?", b"]", b"P", b"\x9b", b"\xc2", b"\x07", b"\x1b\\", b"52;c;", b"1;", b"h", b"m"]
    ),
)
STREAMS = st.lists(PIECES, max_size=20).map(b"".join)


@given(data=STREAMS, cuts=st.lists(st.integers(0, 400), max_size=8), interactive=st.booleans())
def test_no_forbidden_sequence_comes_out_however_the_stream_is_cut(
    data: bytes, cuts: list[int], interactive: bool
) -> None:
    output = OutputFilter(interactive=interactive)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    result = b"".join(output.feed(data[start:end]) for start, end in itertools.pairwise(edges))
    result += output.flush()
    assert ALLOWED.fullmatch(result.decode("utf-8", "strict"))
    assert result == filtered(data, interactive=interactive)
    if not interactive:
        assert not re.search(rb"\x1b\[\?(1|66|100\d|2004)[;hl]|\x1b[=>]", result)


@given(data=STREAMS)
def test_filtering_twice_changes_nothing(data: bytes) -> None:
    once = filtered(data)
    assert filtered(once) == once


@given(data=STREAMS)
def test_without_utf8_no_eight_bit_control_comes_out(data: bytes) -> None:
    assert not re.search(rb"[\x80-\x9f]", filtered(data, utf8=False))
