"""The kernel's side of a FUSE file system, as far as a place needs it that answers every open with EACCES.

The protocol of linux/fuse.h at minor version 31 (Linux 5.4), read and written in the machine's byte order. What a
request says comes from whoever makes the system call: names are at most 255 bytes, everything else is numbers.
Standard library only.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from supervisor.linux import mount

DEVICE: Final = "/dev/fuse"
# FUSE_MIN_READ_BUFFER; a smaller read is refused. Enough as long as `_MAX_WRITE` is one page.
BUFFER_BYTES: Final = 8192
ROOT_ID: Final = 1
# What the kernel may keep for itself without asking again, in seconds.
FOREVER_S: Final = 1 << 40
_MAX_WRITE: Final = 4096
_MAJOR, _MINOR = 7, 31
_DO_READDIRPLUS: Final = 1 << 13

# struct fuse_in_header, fuse_out_header, fuse_attr, fuse_entry_out without its attr, fuse_attr_out likewise,
# fuse_init_out, the first word of fuse_access_in, fuse_read_in, fuse_dirent, fuse_notify_inval_entry_out, fuse_kstatfs.
_IN: Final = struct.Struct("=IIQQIIII")
_OUT: Final = struct.Struct("=IiQ")
_ATTR: Final = struct.Struct("=6Q10I")
_ENTRY: Final = struct.Struct("=4Q2I")
_ATTR_OUT: Final = struct.Struct("=Q2I")
_INIT: Final = struct.Struct("=4I2H2I2H8I")
_WORD: Final = struct.Struct("=I")
_READ: Final = struct.Struct("=QQ2IQ2I")
_DIRENT: Final = struct.Struct("=QQ2I")
_INVAL_ENTRY: Final = struct.Struct("=Q2I")
_STATFS: Final = struct.Struct("=5Q4I6I")
_NOTIFY_INVAL_ENTRY: Final = 3


class Opcode(IntEnum):
    """enum fuse_opcode, those that are told apart here."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36
    BATCH_FORGET = 42
    READDIRPLUS = 44


# The kernel wants no answer to these.
UNANSWERED: Final = frozenset({Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET})


@dataclass(frozen=True, slots=True)
class Request:
    """What the kernel asks. *pid* is that of the caller in the pid namespace of whoever mounted it, or 0."""

    opcode: int
    unique: int
    node: int
    uid: int
    pid: int
    body: bytes

    @property
    def name(self) -> bytes:
        """The name of a LOOKUP."""
        return self.body.partition(b"\0")[0]

    @property
    def mask(self) -> int:
        """The mask of an ACCESS (R_OK, W_OK, X_OK)."""
        return int(_WORD.unpack_from(self.body)[0]) if len(self.body) >= _WORD.size else 0


@dataclass(frozen=True, slots=True)
class Node:
    """A file or directory: what kind it is, and no more."""

    number: int
    mode: int

    @property
    def attributes(self) -> bytes:
        """Its struct fuse_attr: owned by nobody in particular, empty, of the beginning of time."""
        links = 2 if stat.S_ISDIR(self.mode) else 1
        return _ATTR.pack(self.number, 0, 0, 0, 0, 0, 0, 0, 0, self.mode, links, 0, 0, 0, 4096, 0)

    @property
    def entry(self) -> bytes:
        """Its struct fuse_entry_out; the kernel keeps it until it is told otherwise."""
        return _ENTRY.pack(self.number, 0, FOREVER_S, FOREVER_S, 0, 0) + self.attributes


def open_device() -> int:
    """Open a connection to be; the caller owns it. Its end is the file system's end: ENOTCONN for whoever asks."""
    return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def mount_detached(device_fd: int, source: str, attributes: int) -> int:
    """Return a mount of the file system behind *device_fd*, attached nowhere; the caller owns it.

    Requests of everybody in the caller's user namespace, or one below it, reach the server (``allow_other``); the
    kernel judges nothing by modes itself, so what is not answered with yes is refused.
    """
    options: dict[str, str | bytes | None] = {
        "source": source,
        "fd": str(device_fd),
        "rootmode": "40555",
        "user_id": "0",
        "group_id": "0",
        "allow_other": None,
    }
    return mount.new_mount("fuse", options, attributes)


def parse(data: bytes) -> Request:
    """Return the request in *data*.

    Raises:
        ValueError: It is cut short, which no kernel sends.
    """
    if len(data) < _IN.size:
        raise ValueError(f"a FUSE request of {len(data)} bytes, expected at least {_IN.size}")
    _length, opcode, unique, node, uid, _gid, pid, _more = _IN.unpack_from(data)
    return Request(opcode, unique, node, uid, pid, data[_IN.size :])


def answer(request: Request, body: bytes = b"") -> bytes:
    """Return the answer that it worked."""
    return _OUT.pack(_OUT.size + len(body), 0, request.unique) + body


def refusal(request: Request, error_number: int) -> bytes:
    """Return the answer that it did not."""
    return _OUT.pack(_OUT.size, -error_number, request.unique)


def init_answer(request: Request) -> bytes:
    """Return the answer to INIT: no writing, no caches of contents; directories come with what is in them."""
    flags = _DO_READDIRPLUS
    body = _INIT.pack(_MAJOR, _MINOR, 0, flags, 0, 0, _MAX_WRITE, 1, 1, 0, *([0] * 8))
    return answer(request, body)


def open_answer(request: Request) -> bytes:
    """Return the answer to OPENDIR that it is open."""
    return answer(request, bytes(16))


def attr_answer(request: Request, node: Node) -> bytes:
    """Return the answer to GETATTR."""
    return answer(request, _ATTR_OUT.pack(FOREVER_S, 0, 0) + node.attributes)


def statfs_answer(request: Request) -> bytes:
    """Return the answer to STATFS: a file system without a block, which df(1) passes over."""
    return answer(request, _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0, *([0] * 6)))


def readdirplus_answer(request: Request, entries: Iterable[tuple[bytes, Node]]) -> bytes:
    """Return the answer to READDIRPLUS: as many of *entries* as the caller has room for, from where it is."""
    _handle, offset, room, *_rest = _READ.unpack_from(request.body)
    body = b""
    for number, (name, node) in enumerate(entries, 1):
        if number <= offset:
            continue
        dirent = _DIRENT.pack(node.number, number, len(name), node.mode >> 12) + name
        one = node.entry + dirent.ljust(-(-len(dirent) // 8) * 8, b"\0")
        if len(body) + len(one) > room:
            break
        body += one
    return answer(request, body)


def forget_entry(parent: int, name: bytes) -> bytes:
    """Return the notice that *name* in the directory *parent* is to be asked for anew."""
    body = _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
    return _OUT.pack(_OUT.size + len(body), _NOTIFY_INVAL_ENTRY, 0) + body
