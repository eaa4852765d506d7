"""The classifier as it runs: confined by the real kernel, fed through descriptors."""

from __future__ import annotations

import errno
import gzip
import io
import os
import signal
import socket
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from supervisor.linux import seqpacket
from supervisor.policy import classifier


def compiled(*more: str) -> bytes:
    rules = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    for name in (*classifier.SYSTEM_CALLS, *more):
        rules.add_rule(pyseccomp.ALLOW, name)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def start(program: bytes, hook: Any = None) -> tuple[socket.socket, int]:
    ours, theirs = seqpacket.pair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            if hook is not None:
                classifier.classify = hook
            classifier.main(theirs.detach())
        finally:
            os._exit(7)
    theirs.close()
    seqpacket.send(ours, program)
    return ours, pid


@pytest.fixture
def worker() -> Iterator[socket.socket]:
    ours, pid = start(compiled())
    assert seqpacket.receive_json(ours) == ({"ready": True}, [])
    yield ours
    ours.close()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7  # it came to its end; the kernel did not kill it


def ask(worker: socket.socket, paths: list[Path], **fields: Any) -> list[dict[str, Any]]:
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        request = {"id": 5, "names": [path.name for path in paths], **fields}
        seqpacket.send_json(worker, request, tuple(fds))
        received = seqpacket.receive_json(worker)
    finally:
        seqpacket.close_all(fds)
    assert received is not None
    answer, _ = received
    assert answer["id"] == 5
    files: list[dict[str, Any]] = answer["files"]
    return files


def test_documents_are_classified_in_confinement(worker: socket.socket, tmp_path: Path) -> None:
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", "<sst><si><t>DE89 3704 0044 0532 0130 00</t></si></sst>")
    contents = {
        "a.csv": b"name,SSN\nx,536-90-4399\n",
        "b.xlsx": book.getvalue(),
        "c.txt.gz": gzip.compress(b"nothing here"),
        "d.txt": "card 4111 1111 1111 1111".encode("utf-16"),
        "e.pdf": b"%PDF-1.4",
        "f.txt": b"a patient; Top Secret",
        "g": b"",
        "h.bin": os.urandom(100_000),
    }
    paths = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        paths.append(tmp_path / name)
    files = ask(worker, paths, markers={"phi": ["patient"]})
    assert [one["classes"] for one in files[:7]] == [
        {"national-id": 1},
        {"iban": 1},
        {},
        {"payment-card": 1},
        {},
        {"phi": 1},
        {},
    ]
    assert [one["complete"] for one in files] == [True, True, True, True, False, True, True, False]
    assert files[0]["evidence"] == ["US social security number: 1"]
    assert files[0]["bytes"] == len(contents["a.csv"])


def test_what_fails_or_comes_too_late_is_incomplete(worker: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (late,) = ask(worker, [tmp_path / "a"], budget_ms=0)
    assert (late["complete"], late["why"]) == (False, "the time was up")
    seqpacket.send_json(worker, {"id": 5, "names": ["a", "b"]}, ())
    received = seqpacket.receive_json(worker)
    assert received is not None
    assert [one["complete"] for one in received[0]["files"]] == [False, False]
    (folder,) = ask(worker, [tmp_path])
    assert folder["why"] == f"not readable: {os.strerror(errno.EISDIR)}"


def test_a_bomb_costs_its_own_file_alone(worker: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * (200 << 20)))
    (tmp_path / "good").write_bytes(b"DE89370400440532013000")
    bomb, good = ask(worker, [tmp_path / "bomb.gz", tmp_path / "good"])
    assert not bomb["complete"]
    assert good["classes"] == {"iban": 1}


def test_a_rare_encoding_leads_to_no_import(worker: socket.socket, tmp_path: Path) -> None:
    for number, encoding in enumerate(("cp037", "rot13", "zlib", "nonsense", "iso-8859-15", "../x")):
        with zipfile.ZipFile(tmp_path / str(number), "w") as archive:
            archive.writestr("mimetype", "x")
            archive.writestr("content.xml", f'<?xml version="1.0" encoding="{encoding}"?><a>text</a>')
    files = ask(worker, [tmp_path / str(number) for number in range(6)])
    assert [one["complete"] for one in files] == [False] * 6


@pytest.mark.parametrize("attack", ["open", "socket", "fork", "exec", "write", "kill"])
def test_taken_over_it_can_do_nothing_but_answer(attack: str) -> None:
    def hook(_request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        match attack:
            case "open":
                os.open("/etc/passwd", os.O_RDONLY)
            case "socket":
                socket.socket()
            case "fork":
                os.fork()
            case "exec":
                os.execv("/bin/true", ["true"])
            case "write":
                os.write(fds[0], b"x")
            case "kill":
                os.kill(os.getppid(), 0)
        return {"id": 5, "files": []}

    ours, pid = start(compiled(), hook)
    assert seqpacket.receive_json(ours) is not None
    with tempfile.TemporaryFile() as file:
        seqpacket.send_json(ours, {"id": 5, "names": []}, (file.fileno(),))
        assert seqpacket.receive_json(ours) is None
    ours.close()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGSYS


def test_landlock_holds_where_a_filter_lets_too_much_through() -> None:
    def hook(_request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        try:
            os.open("/etc/passwd", os.O_RDONLY)
        except OSError as error:
            return {"id": error.errno}
        return {"id": 0}

    ours, pid = start(compiled("openat"), hook)
    assert seqpacket.receive_json(ours) is not None
    seqpacket.send_json(ours, {"id": 5})
    assert seqpacket.receive_json(ours) == ({"id": errno.EACCES}, [])
    ours.close()
    os.waitpid(pid, 0)


@pytest.mark.parametrize("program", [b"x", b"\0" * 8, b"\xff" * 16])
def test_without_a_valid_filter_it_does_not_serve(program: bytes) -> None:
    ours, pid = start(program)
    assert seqpacket.receive_json(ours) is None
    ours.close()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
