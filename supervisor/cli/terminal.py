"""What an agent prints, made safe for the owner's terminal (`plain_text` is for single words).

`OutputFilter` lets through what a program needs to draw, as an allow-list of complete sequences: a sequence that is not
listed, not well formed or not finished never reaches the terminal, so terminals that read odd bytes differently see
nothing odd. Dropped on purpose:

- every string sequence (OSC, DCS, APC, PM, SOS, titles): clipboard, key definitions, images, file transfer; links too,
  because their target is not what is shown, and titles, because they outlive the agent
- whatever makes the terminal answer (DA, DSR, CPR, DECRQM, XTVERSION, window reports, ENQ): the answer is typed into
  the agent or, once it has ended, into the owner's shell. Programs that ask for the cursor position go without
- what changes the meaning of keys beyond ncurses (kitty keyboard, modifyOtherKeys, keyboard lock), media copy, the
  owner's scrollback (ED 3), full reset, VT52 mode, another character encoding, C1 controls in either form

Modes that make the terminal *send* (mouse, focus, bracketed paste, application keys) pass only where someone reads the
answer, `interactive`: `run` and `attach`, not `logs`, `diff` and `replay`. `restore` undoes what the agent left on.

Standard library only. Follows ECMA-48, DEC STD 070 and xterm's ctlseqs.
"""

from __future__ import annotations

import functools
import re
from typing import Final

MAX_SEQUENCE_BYTES: Final = 128  # the longest in use, an SGR with several true colours, is below 100

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()

_CONTROLS: Final = rb"\x07\x08\t\n\x0b\x0c\r\x0e\x0f"
# UTF-8 as in RFC 3629: no overlong form, no surrogate, and without U+0080 to U+009F, the C1 controls.
_UTF8: Final = (
    rb"\xc2[\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_UTF8_PREFIX: Final = (
    rb"[\xc2-\xf4]|\xe0[\xa0-\xbf]|\xed[\x80-\x9f]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]?"
    rb"|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?"
)
_NUMBER: Final = rb"[0-9]{0,4}"  # a repeat count of ten digits would keep a terminal busy
# Final byte by final byte: colours; cursor movement, insert, delete, scroll, repeat, tabs; position and scroll region;
# erase without the scrollback; save and restore the cursor (with parameters these mean something else); insert mode and
# cursor blink; cursor shape; soft reset.
_CSI: Final = (
    rb"[0-9:;]{0,100}m|" + _NUMBER + rb"[@A-GILMPSTXZ`abdeg]|" + _NUMBER + rb"(?:;" + _NUMBER + rb")?[Hfr]"
    rb"|[012]?[JK]|[su]|(?:4|34)[hl]|[0-6]? q|!p"
)
# Save, restore, index, next line, tab stop, reverse index; the character sets that draw lines.
_ESCAPE: Final = rb"[78DEHM]|[()*+][0AB]"
_KEYPAD: Final = rb"[=>]"

_SCREEN_MODES: Final = frozenset((b"5", b"6", b"7", b"12", b"25", b"47", b"1047", b"1048", b"1049", b"2026"))
# Application cursor keys, keypad, mouse (clicks, drags, motion, in the unambiguous encoding), focus, wheel, paste.
_INPUT_MODES: Final = frozenset((b"1", b"66", b"1000", b"1002", b"1003", b"1004", b"1006", b"1007", b"2004"))
_NORMALLY_ON: Final = frozenset((b"7", b"25"))
_ALTERNATE_SCREEN: Final = frozenset((b"47", b"1047", b"1049"))
_SAVED_CURSOR: Final = b"1048"  # not a state: setting saves, resetting restores


@functools.cache
def _clean_run(*, utf8: bool, interactive: bool) -> re.Pattern[bytes]:
    """Bytes that pass as they are.

    Nothing follows the outer group, so it never backtracks. No possessive quantifiers here, although they would say
    so: in Python 3.11.2, Debian 12's, they accept half an alternative (CPython gh-106052).
    """
    wide = _UTF8 if utf8 else rb"[\xa0-\xff]"
    escape = _ESCAPE + (rb"|" + _KEYPAD if interactive else rb"")
    return re.compile(
        rb"(?:[\x20-\x7e" + _CONTROLS + rb"]+|(?:" + wide + rb")+|\x1b(?:\[(?:" + _CSI + rb")|" + escape + rb"))*"
    )


@functools.cache
def _unfinished(*, utf8: bool) -> re.Pattern[bytes]:
    """What may become a sequence or a character with the next bytes."""
    escape = rb"\x1b(?:[\x20-\x2f]*|\[[\x30-\x3f]*[\x20-\x2f]*)"
    return re.compile(escape + (rb"|" + _UTF8_PREFIX if utf8 else rb""))


_MODES: Final = re.compile(rb"\x1b\[\?([0-9;]{1,100})([hl])")
# A whole sequence that is not on the list, or as much of one as is well formed.
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]?|[\x20-\x2f]*[\x30-\x7e]?)")
_STRING_OPENERS: Final = frozenset(b"]PX^_k")  # OSC DCS SOS PM APC; ESC k is the title of screen and tmux
_STRING_END: Final = re.compile(rb"[\x18\x1a\x1b]")
_OSC_END: Final = re.compile(rb"[\x07\x18\x1a\x1b]")
_OVERLONG_END: Final = re.compile(rb"[^\x20-\x3f]")


class OutputFilter:
    """Passes on the drawing part of a byte stream, cut anywhere; see the module for what is dropped.

    Args:
        interactive: Whether what the terminal sends reaches the program: true for a live session only.
        utf8: Whether the terminal reads UTF-8. If not, the bytes 0x80 to 0x9f are controls to it and are replaced.
    """

    def __init__(self, *, interactive: bool = False, utf8: bool = True) -> None:
        self._clean = _clean_run(utf8=utf8, interactive=interactive)
        self._unfinished = _unfinished(utf8=utf8)
        self._modes = _SCREEN_MODES | _INPUT_MODES if interactive else _SCREEN_MODES
        self._replacement = _REPLACEMENT if utf8 else b"?"
        self._pending = b""
        self._string_end: re.Pattern[bytes] | None = None
        self._overlong = False
        self._changed: set[bytes] = set()
        self._styled = False

    def feed(self, data: bytes) -> bytes:
        """Return what of *data*, and of what was held back before, may be written to the terminal now."""
        data = self._pending + data
        self._pending = b""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self._string_end is not None:
                at = self._skip_string(data, at, self._string_end)
            elif self._overlong:
                at = self._skip_overlong(data, at)
            else:
                end = self._clean_end(data, at)
                if end > at:
                    out.append(data[at:end])
                at = self._special(data, end, out) if end < len(data) else end
        result = b"".join(out)
        self._styled = self._styled or b"\x1b" in result or b"\x0e" in result
        return result

    def flush(self) -> bytes:
        """End the stream: an unfinished sequence is dropped, an unfinished character replaced."""
        left, self._pending = self._pending, b""
        self._string_end, self._overlong = None, False
        return self._replacement if left and left[0] != 0x1B else b""

    def restore(self) -> bytes:
        """Return what puts the terminal back: modes the agent left changed, colours, line drawing, scroll region."""
        if not self._styled:
            return b""
        # Leaving the alternate screen first brings the owner's screen back before anything else is reset on it.
        order = sorted(self._changed, key=lambda mode: (mode not in _ALTERNATE_SCREEN, mode))
        modes = b"".join(b"\x1b[?" + mode + (b"h" if mode in _NORMALLY_ON else b"l") for mode in order)
        self._changed.clear()
        self._styled = False
        # The scroll region's reset moves the cursor: it is put between save and restore.
        return modes + b"\x1b7\x1b[r\x1b8\x1b[m\x1b[4l\x0f\x1b(B" + (b"\x1b>" if b"1" in self._modes else b"")

    def _clean_end(self, data: bytes, at: int) -> int:
        found = self._clean.match(data, at)
        return found.end() if found else at

    def _special(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Deal with the first byte that does not pass as it is; return where to go on."""
        if self._unfinished.fullmatch(data, at):
            if len(data) - at <= MAX_SEQUENCE_BYTES:
                self._pending = data[at:]
            else:
                self._overlong = True
            return len(data)
        if data[at] != 0x1B:
            if data[at] < 0x80:
                return at + 1
            out.append(self._replacement)
            # A C1 control in UTF-8 is one character of two bytes.
            return at + (2 if data[at] == 0xC2 and 0x80 <= data[at + 1] <= 0x9F else 1)
        if data[at + 1] in _STRING_OPENERS:
            self._string_end = _OSC_END if data[at + 1] in b"]k" else _STRING_END
            return at + 2
        modes = _MODES.match(data, at)
        if modes:
            out.append(self._set_modes(modes[1], modes[2]))
            return modes.end()
        sequence = _SEQUENCE.match(data, at)
        return sequence.end() if sequence is not None else at + 1

    def _set_modes(self, numbers: bytes, final: bytes) -> bytes:
        """Return the sequence that sets only those of the modes that are allowed, and note them for `restore`."""
        allowed = [number for number in numbers.split(b";") if number in self._modes]
        for number in allowed:
            if number == _SAVED_CURSOR:
                continue
            if (final == b"h") == (number in _NORMALLY_ON):
                self._changed.discard(number)
            else:
                self._changed.add(number)
        return b"\x1b[?" + b";".join(allowed) + final if allowed else b""

    def _skip_string(self, data: bytes, at: int, end: re.Pattern[bytes]) -> int:
        found = end.search(data, at)
        if found is None:
            return len(data)
        self._string_end = None
        # ESC begins the terminator, or a new sequence that cancels the string: it is read again either way.
        return found.start() if found[0] == b"\x1b" else found.end()

    def _skip_overlong(self, data: bytes, at: int) -> int:
        found = _OVERLONG_END.search(data, at)
        if found is None:
            return len(data)
        self._overlong = False
        return found.end() if 0x40 <= data[found.start()] <= 0x7E else found.start()
