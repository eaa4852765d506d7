"""On a terminal a patch is text and nothing else; elsewhere it is the bytes it was."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists, sampled_from

from supervisor.cli.diff import shown

PATCH = b"""diff --git a/x b/x
--- a/x
+++ b/x
@@ -1 +1 @@
-old \\n line\t1
+\x1b[1Anew\r \x1b[2K\xe2\x80\xaeright \xe2\x80\x8bto\xc2\x9b\xff\x00 left
\\ No newline at end of file
"""
HOSTILE = [
    b"\x1b",
    b"[2J",
    b"\r",
    b"\x00",
    b"\n",
    b"\t",
    b"\\",
    b"x",
    b"\xc2\x9b",
    b"\xff",
    "\u202e\u200b\u0301é".encode(),
]
SHOWN_LINE = "+^[[1Anew^M ^[[2K<U+202E>right <U+200B>to<U+009B><FF>^@ left"


def test_what_is_not_seen_is_spelled_out_and_the_rest_is_as_it_was() -> None:
    lines = PATCH.split(b"\n")
    assert shown(PATCH, coloured=False).split(b"\n") == [*lines[:5], SHOWN_LINE.encode(), *lines[6:]]


def test_plain_text_of_any_script_is_untouched() -> None:
    text = "+größe 你好 \t C:\\new\\x1b re.compile(r'\\d') <U+202E>\n ok\n".encode()
    assert shown(text, coloured=False) == text


def test_a_long_line_is_shown_whole() -> None:
    line = b"+" + b"a\r\xc3\xa9" * 5000
    assert shown(line, coloured=False) == b"+" + "a^Mé".encode() * 5000


@given(lists(sampled_from(HOSTILE)).map(b"".join) | binary())
def test_no_control_of_any_bytes_passes(body: bytes) -> None:
    text = shown(body, coloured=False).decode()
    assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []
    assert text.count("\n") == body.count(b"\n")
    coloured = shown(body, coloured=True).decode()
    assert re.sub(r"\x1b\[(?:32|31|36|7|27)?m", "", coloured) == text


def test_colours_end_with_their_line() -> None:
    assert shown(b"+a\n-b\n@@ c\n d", coloured=True) == b"\x1b[32m+a\x1b[m\n\x1b[31m-b\x1b[m\n\x1b[36m@@ c\x1b[m\n d"


def _on_a_terminal(body: bytes, **environ: str) -> bytes:
    ours, theirs = pty.openpty()
    code = "import sys; from supervisor.cli.diff import show; show(sys.stdin.buffer.read())"
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", **environ}
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=theirs, env=env) as process:
        os.close(theirs)
        process.communicate(body, timeout=30)
        seen = b""
        # Its end is EIO once nobody holds the other side.
        while block := _read(ours):
            seen += block
    os.close(ours)
    assert process.returncode == 0
    return seen.replace(b"\r\n", b"\n")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


def test_a_terminal_gets_the_spelled_out_form_in_colour_unless_told_not_to() -> None:
    assert _on_a_terminal(PATCH, PAGER="cat") == shown(PATCH, coloured=True)
    assert _on_a_terminal(PATCH, PAGER="cat", NO_COLOR="1") == shown(PATCH, coloured=False)
    assert _on_a_terminal(PATCH, PAGER="cat", TERM="dumb") == shown(PATCH, coloured=False)


def test_a_pager_gets_the_spelled_out_form_too(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho paged; exec cat >"$OUT"\n')
    pager.chmod(0o755)
    long = PATCH * 100
    assert _on_a_terminal(long, PAGER=str(pager), OUT=str(tmp_path / "out")) == b"paged\n"
    assert (tmp_path / "out").read_bytes() == shown(long, coloured=True)


def test_a_pipe_gets_the_patch_as_it_is() -> None:
    code = "import sys; from supervisor.cli.diff import show; show(sys.stdin.buffer.read())"
    result = subprocess.run([sys.executable, "-c", code], input=PATCH, capture_output=True, check=True)
    assert result.stdout == PATCH


@pytest.mark.parametrize("pager", ["", "no-such-pager-here"])
def test_without_a_pager_it_is_printed(pager: str) -> None:
    long = b"+\r\n" * 100
    assert _on_a_terminal(long, PAGER=pager, NO_COLOR="1") == b"+^M\n" * 100
