"""Pipes: bytes go through as they are, ends are seen at both sides, and nothing is held up for ever."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.service import CLI, DEADLINE_S, Service, program, wait_until

MEGABYTE = 1 << 20


def test_fifty_megabytes_go_through_unchanged(service: Service, workspace: Path) -> None:
    data = os.urandom(MEGABYTE) * 50
    result = service.run("run", "--", "cat", input=data, cwd=workspace)
    assert result.returncode == 0
    assert len(result.stdout) == len(data)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_a_regular_file_as_input_goes_through_unchanged(service: Service, workspace: Path) -> None:
    source = service.folder() / "data"
    source.write_bytes(os.urandom(3 * MEGABYTE + 17))
    with source.open("rb") as stream:
        result = subprocess.run(
            [CLI, "run", "--", "cat"],
            cwd=workspace,
            env=service.environment,
            stdin=stream,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
    assert result.stdout == source.read_bytes()


def test_every_byte_value_and_an_escape_sequence_pass_a_pipe(service: Service, workspace: Path) -> None:
    data = bytes(range(256)) + b"\x1b]52;c;QUFB\x07\x1b[6n"
    assert service.run("run", "--", "cat", input=data, cwd=workspace).stdout == data


def test_input_ends_when_it_is_empty(service: Service, workspace: Path) -> None:
    result = service.run("run", "--", "sh", "-c", "cat; echo after", input=b"", cwd=workspace)
    assert result.stdout == b"after\n"


def test_input_ends_when_it_is_closed(service: Service, workspace: Path) -> None:
    """`deskwarden run … <&-`: descriptor 0 does not exist."""
    command = 'exec "$0" run -- sh -c "cat; echo after" <&-'
    result = subprocess.run(
        ["/bin/sh", "-c", command, CLI],
        cwd=workspace,
        env=service.environment,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, b"after\n"), result


def test_output_that_is_closed_does_not_hang_the_run(service: Service, workspace: Path) -> None:
    for closing in (">&-", "2>&-", ">&- 2>&-"):
        command = f'"$0" run -- sh -c "echo out; echo err >&2; exit 3" {closing}'
        result = subprocess.run(
            ["/bin/sh", "-c", command, CLI],
            cwd=workspace,
            env=service.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert result.returncode == 3, (closing, result)


def test_standard_error_is_apart(service: Service, workspace: Path) -> None:
    result = service.run("run", "--", "sh", "-c", "echo out; echo err >&2", cwd=workspace)
    assert result.stdout == b"out\n"
    assert b"err\n" in result.stderr
    assert b"out" not in result.stderr.replace(b"without", b"")


def test_a_lot_on_both_outputs_at_once_arrives_whole(service: Service, workspace: Path) -> None:
    code = """
        def fill(fd, byte):
            left = 5 << 20
            while left:
                left -= os.write(fd, byte * min(left, 65536))
        child = os.fork()
        fill(1 if child else 2, b"o" if child else b"e")
        if child:
            os.waitpid(child, 0)
    """
    result = service.run("run", "--json", "--", *program(code), cwd=workspace)
    assert result.stdout.count(b"o") == 5 << 20
    assert result.stderr.count(b"e" * 4096) == (5 << 20) // 4096


def test_a_reader_that_leaves_ends_the_run(service: Service, workspace: Path) -> None:
    """`deskwarden run -- yes | head -1`"""
    running = service.spawn("run", "--", "yes", cwd=workspace)
    assert running.stdout is not None
    assert running.stdout.readline() == b"y\n"
    running.stdout.close()
    assert running.wait(20) in (-13, 128 + 13)
    session = service.session()["id"]
    wait_until("the session ends", lambda: service.session(session)["state"] == "ended", 15)


def test_an_agent_that_does_not_read_does_not_stop_its_own_output(service: Service, workspace: Path) -> None:
    code = "sys.stdout.write('x' * 200000)\nsys.stdout.flush()\ntime.sleep(0.2)\nprint('end')"
    result = service.run("run", "--", *program(code), input=bytes(8 * MEGABYTE), cwd=workspace)
    assert result.returncode == 0
    assert result.stdout.endswith(b"end\n")
    assert len(result.stdout) == 200000 + 4


def test_a_signal_gets_past_input_that_nobody_reads(service: Service, workspace: Path) -> None:
    """Ctrl-C must work although megabytes of input are waiting in front of it."""
    code = """
        signal.signal(signal.SIGINT, lambda number, frame: sys.exit(9))
        print("ready", flush=True)
        time.sleep(60)
    """
    source = service.folder() / "data"
    source.write_bytes(bytes(50 * MEGABYTE))
    with source.open("rb") as stream:
        running = service.spawn("run", "--", *program(code), cwd=workspace, stdin=stream)
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 9


def test_a_dialogue_line_by_line_works(service: Service, workspace: Path) -> None:
    running = service.spawn("run", "--", "cat", cwd=workspace)
    assert running.stdin is not None
    assert running.stdout is not None
    for number in range(20):
        running.stdin.write(b"line %d\n" % number)
        running.stdin.flush()
        assert running.stdout.readline() == b"line %d\n" % number
    running.stdin.close()
    assert running.wait(20) == 0


def test_what_a_left_over_child_prints_late_is_not_waited_for(service: Service, workspace: Path) -> None:
    """The agent ends; a daemon that it left holds the pipe: it ends with the session."""
    result = service.run("run", "--", "sh", "-c", "(sleep 30; echo late) & echo now", cwd=workspace, timeout_s=15)
    assert (result.returncode, result.stdout) == (0, b"now\n")


def test_long_arguments_pass(service: Service, workspace: Path) -> None:
    long = "x" * 120_000
    result = service.run("run", "--", "sh", "-c", 'printf %s "$1" | wc -c', "sh", long, cwd=workspace)
    assert result.stdout.strip() == b"120000"


def test_arguments_that_are_not_utf8_pass(service: Service, workspace: Path) -> None:
    result = service.run("run", "--", "printf", "%s", b"\xff\xfe raw", cwd=workspace)
    assert result.stdout == b"\xff\xfe raw"
