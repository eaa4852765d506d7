"""The classifier: a program without rights that reads documents of unknown make through descriptors it is handed.

Forked by the launcher, its uid and capabilities already dropped. The first message is its seccomp filter, an array of
struct sock_filter; the answer is ``{"ready": true}``. Then, over and over: a JSON message ``{id, names, markers,
budget_ms}`` with one descriptor a name, answered by ``{id, files}``, for each file ``{classes, evidence, complete, why,
bytes}``. A file that fails, is too large or comes after the time is up has ``complete: false``. No value that was found
ever leaves. Whoever asks kills it when it is late: a file system may hang its read.
"""

from __future__ import annotations

import codecs
import contextlib
import encodings.cp437
import encodings.utf_8
import encodings.utf_16
import encodings.utf_16_be
import encodings.utf_16_le
import functools
import os
import resource
import socket
import sys
import time
from types import ModuleType
from typing import Any, Final, NoReturn

from supervisor.linux import seqpacket
from supervisor.policy import confinement
from supervisor.policy.detectors import Markers, Scanner
from supervisor.policy.document_text import Document

# What it calls once it is confined. Loaded beforehand: every module, codec and table, since it can open nothing then.
SYSTEM_CALLS: Final = (
    "read",
    "pread64",
    "recvmsg",
    "sendmsg",
    "close",
    "fstat",
    "lseek",
    "fcntl",  # F_GET_SEALS of a message's memfd
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "brk",
    "futex",
    "clock_gettime",
    "getrandom",
    "rt_sigreturn",
    "restart_syscall",
    "exit",
    "exit_group",
)
CODECS: Final = (encodings.cp437, encodings.utf_8, encodings.utf_16, encodings.utf_16_le, encodings.utf_16_be)
_MAX_FILES: Final = 200
_MAX_BUDGET_MS: Final = 60_000
_MAX_EVIDENCE: Final = 16


class _NoImport:
    """Refuses to import: a document that names a rare encoding must not lead to an open(2), which kills."""

    def find_spec(self, name: str, _path: object = None, _target: ModuleType | None = None) -> NoReturn:
        raise ModuleNotFoundError(f"no import of {name} in confinement", name=name)


def main(fd: int) -> None:
    """Serve on the inherited socket *fd* until the other side closes it."""
    with socket.socket(fileno=fd) as sock:
        program, fds = seqpacket.receive(sock)
        seqpacket.close_all(fds)
        if not program:
            return
        confine(program)
        seqpacket.send_json(sock, {"ready": True})
        while (received := seqpacket.receive_json(sock)) is not None:
            request, fds = received
            try:
                answer = classify(request, fds)
            finally:
                seqpacket.close_all(fds)
            seqpacket.send_json(sock, answer)


def confine(program: bytes) -> None:
    """Give up everything but reading what is handed over and answering.

    Raises:
        OSError, ValueError: The kernel refuses the filter; the program then ends without having served.
    """
    for codec in CODECS:
        codecs.lookup(codec.__name__.rpartition(".")[2])  # kept by the interpreter from now on
    sys.meta_path[:] = [_NoImport()]
    confinement.confine(program, ((resource.RLIMIT_NPROC, 0),))


def classify(request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Answer one request; descriptors beyond the names, and names without one, are files that could not be read."""
    names = [str(name) for name in request.get("names", ())][:_MAX_FILES]
    budget_ms = min(int(request.get("budget_ms", _MAX_BUDGET_MS)), _MAX_BUDGET_MS)
    until = time.monotonic() + budget_ms / 1000
    markers: Markers = {
        str(data_class): tuple(str(word).lower() for word in words)
        for data_class, words in dict(request.get("markers", {})).items()
    }
    files = [_file(fds[at] if at < len(fds) else -1, markers, until) for at in range(len(names))]
    return {"id": request.get("id"), "files": files}


def _file(fd: int, markers: Markers, until: float) -> dict[str, Any]:
    document = Document(functools.partial(_pread, fd))
    scanner = Scanner(markers)
    why = ""
    try:
        for text in document.texts():
            scanner.feed(text)
            if time.monotonic() > until:
                why = "the time was up"
                break
    except OSError as error:
        why = f"not readable: {error.strerror}"
    except Exception as error:  # noqa: BLE001 - hostile bytes: whatever they break makes this one file incomplete
        why = f"not readable: {type(error).__name__}"
    hits: list[Any] = []
    with contextlib.suppress(MemoryError):
        hits = list(scanner.finish())
    classes: dict[str, int] = {}
    for hit in hits:
        classes[hit.data_class] = classes.get(hit.data_class, 0) + hit.count
    why = why or document.why
    return {
        "classes": classes,
        "evidence": [hit.describe() for hit in hits[:_MAX_EVIDENCE]],
        "complete": not why,
        "why": why,
        "bytes": document.bytes_read,
    }


def _pread(fd: int, count: int, offset: int) -> bytes:
    """Read without asking the file system anything else: fstat(2) on FUSE is refused to other users."""
    return os.pread(fd, count, offset)
