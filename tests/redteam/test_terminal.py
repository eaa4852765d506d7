"""Terminal: what an agent prints or types never reaches the owner's shell as a command."""

from __future__ import annotations

import os
import pty
import shlex
import termios
from pathlib import Path

import pytest

from tests.service import CLI, PYTHON, Service, program

# Clipboard, title, device control, application command, queries, media copy, scrollback, reset, C1, screen's title.
HOSTILE = {
    "clipboard": b"\x1b]52;c;cm0gLXJmIH4K\x07",
    "title": b"\x1b]0;owned\x07",
    "link": b"\x1b]8;;http://evil.example/\x1b\\click\x1b]8;;\x1b\\",
    "device control": b'\x1bP$q"p\x1b\\',
    "application command": b"\x1b_Gf=32;AAAA\x1b\\",
    "privacy message": b"\x1b^evil\x1b\\",
    "identify": b"\x1b[c\x1b[>c\x1b[=c",
    "report position": b"\x1b[6n",
    "report status": b"\x1b[5n",
    "report title": b"\x1b[21t",
    "report mode": b"\x1b[?2026$p",
    "media copy": b"\x1b[5i",
    "erase scrollback": b"\x1b[3J",
    "full reset": b"\x1bc",
    "keyboard": b"\x1b[>1u",
    "enquiry": b"\x05",
    "8-bit": "\x9d52;c;QUFB\x9c".encode(),
    "screen title": b"\x1bkevil\x1b\\",
}


@pytest.fixture(scope="module")
def printed(service: Service) -> str:
    """A session that printed all of it, and staged a file that holds all of it."""
    folder = service.folder()
    data = b"BEGIN " + b" ".join(HOSTILE.values()) + b" END\n"
    code = """
        sys.stdout.buffer.write(DATA)
        with open("evil.txt", "wb") as file:
            file.write(DATA)
        with open("evil\\x1b]52;c;QUFB\\x07name", "wb") as file:
            file.write(b"x")
    """
    result = service.run("run", "--", *program(code, DATA=data), cwd=folder)
    assert result.returncode == 0, result
    assert data in result.stdout  # a pipe gets it as it is: that is the program's own output
    return str(service.session()["id"])


def _assert_harmless(screen: bytes) -> None:
    for name, sequence in HOSTILE.items():
        assert sequence not in screen, f"{name} reached the terminal: {screen!r}"
    for opener in (b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b^", b"\x1bk", b"\x1bc", b"\x05", b"\x1b[6n", b"\x1b[c", b"\x9d"):
        assert opener not in screen, f"{opener!r} reached the terminal: {screen!r}"


@pytest.mark.parametrize("verb", [["logs"], ["diff"], ["diff", "--stat"], ["ps", "--all"], ["show"]])
def test_hostile_output_is_filtered_when_it_is_looked_at(service: Service, printed: str, verb: list[str]) -> None:
    words = verb if verb[0] == "ps" else [*verb, printed]
    terminal = service.pty_run(*words, env={"PAGER": "cat"}, size=(50, 200))
    assert terminal.wait_exit() == 0
    _assert_harmless(terminal.output)
    if verb[0] == "logs":
        assert b"BEGIN" in terminal.output
        assert b"END" in terminal.output


def test_hostile_output_is_filtered_while_it_is_printed(service: Service, workspace: Path) -> None:
    data = b"BEGIN " + b" ".join(HOSTILE.values()) + b" END\n"
    code = "sys.stdout.buffer.write(DATA)\nsys.stdout.flush()\nsys.stderr.buffer.write(DATA)"
    terminal = service.pty_run("run", "--", *program(code, DATA=data), cwd=workspace)
    assert terminal.wait_exit() == 0
    assert terminal.output.count(b"BEGIN") == 2
    _assert_harmless(terminal.output)


def test_a_sequence_cut_in_two_writes_is_filtered_too(service: Service, workspace: Path) -> None:
    code = """
        for byte in b"BEGIN \\x1b]52;c;QUFB\\x07 \\x1b[6n END":
            os.write(1, bytes([byte]))
            time.sleep(0.005)
    """
    terminal = service.pty_run("run", "--", *program(code), cwd=workspace)
    assert terminal.wait_exit() == 0
    _assert_harmless(terminal.output)
    assert b"END" in terminal.output


def test_names_and_arguments_of_an_agent_are_escaped_in_tables(service: Service, workspace: Path) -> None:
    service.run("run", "--", "true", "\x1b]52;c;QUFB\x07", "\nforged line", cwd=workspace)
    for verb in (["ps", "--all"], ["show"]):
        terminal = service.pty_run(*verb, size=(50, 300))
        assert terminal.wait_exit() == 0
        _assert_harmless(terminal.output)
        assert b"\nforged line" not in terminal.output


PUSH = """
    import termios
    TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
    request = 16 if platform.machine() == "x86_64" else 29
    byte = ctypes.create_string_buffer(b"x")
    tried = [syscall(request, 0, number, byte) for number in (TIOCSTI, TIOCLINUX, TIOCSETD)]
    tried += [syscall(request, 0, number | 1 << 32, byte) for number in (TIOCSTI, TIOCLINUX, TIOCSETD)]
    report(tried)
"""


def test_nothing_can_be_typed_into_a_terminal(service: Service, workspace: Path) -> None:
    """CVE-2017-5226 and CVE-2023-28100; the kernel looks at the low 32 bits of the request only."""
    terminal = service.pty_run("run", "--", *program(PUSH), cwd=workspace)
    assert terminal.wait_exit() == 0
    assert b"[" + b", ".join([b'"EPERM"'] * 6) + b"]" in terminal.output, terminal.output


@pytest.mark.skipif(
    not os.path.exists("/proc/sys/dev/tty/legacy_tiocsti")
    or Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() != "1",
    reason="this kernel refuses TIOCSTI to everybody (dev.tty.legacy_tiocsti = 0)",
)
def test_outside_typing_into_a_terminal_works(service: Service) -> None:
    """So the refusal above is the sandbox's."""
    terminal = service.pty_run(*program(PUSH)[1:], executable=PYTHON)
    assert terminal.wait_exit() == 0
    assert b'["OK"' in terminal.output


def test_the_agents_terminal_is_its_own(service: Service, workspace: Path) -> None:
    """Not the owner's device, a session of its own, and no way to the owner's by any name."""
    code = """
        report([os.ttyname(0), os.getsid(0) == os.getpid() or os.getsid(0) == 1, os.tcgetpgrp(0) == os.getpgrp(),
                sorted(os.listdir("/dev/pts")), attempt(os.open, "/dev/console", os.O_RDWR),
                attempt(os.open, "/dev/tty0", os.O_RDWR), attempt(os.open, "/dev/tty1", os.O_RDWR)])
    """
    terminal = service.pty_run("run", "--", *program(code), cwd=workspace)
    assert terminal.wait_exit() == 0
    expected = b'["/dev/pts/0", true, true, ["0", "ptmx"], "ENOENT", "ENOENT", "ENOENT"]'
    assert expected in terminal.output, terminal.output


def test_a_run_without_terminal_has_none_to_open(service: Service, workspace: Path) -> None:
    """With pipes the caller's terminal must not be reachable as /dev/tty."""
    code = "report([attempt(os.open, '/dev/tty', os.O_RDWR), sorted(os.listdir('/dev/pts'))])"
    # The CLI itself has a terminal; its input and output are pipes.
    line = f"echo | {shlex.join([CLI, 'run', '--', *program(code)])} | cat"
    terminal = service.pty_run("-c", line, executable="/bin/sh", cwd=workspace)
    assert terminal.wait_exit() == 0
    assert b'["ENXIO", ["ptmx"]]' in terminal.output, terminal.output


def test_settings_of_the_owners_terminal_are_as_before(service: Service, workspace: Path) -> None:
    """The agent leaves echo off, raw mode and application keys on."""
    code = """
        import termios, tty
        tty.setraw(0)
        sys.stdout.write("\\x1b[?1049h\\x1b[?25l\\x1b[?1000h\\x1b[?2004h\\x1b[31m")
        sys.stdout.flush()
    """
    terminal = service.pty_run("run", "--", *program(code), cwd=workspace)
    assert terminal.wait_exit() == 0
    fresh = pty.openpty()
    assert terminal.settings()[:4] == termios.tcgetattr(fresh[1])[:4]
    for fd in fresh:
        os.close(fd)
    for taken_back in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?2004l", b"\x1b[m"):
        assert taken_back in terminal.output, terminal.output
