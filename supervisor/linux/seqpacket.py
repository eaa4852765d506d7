"""unix(7) SOCK_SEQPACKET with SCM_RIGHTS: whole messages and descriptors between Deskwarden's processes."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

# Below the default wmem_max of 212,992 bytes; larger bodies travel in a memfd.
MAX_MESSAGE_BYTES: Final = 131072
# SCM_MAX_FD, include/net/scm.h.
MAX_FDS: Final = 253
# What a larger body may hold; a diff of a huge session stays below.
MAX_BODY_BYTES: Final = 256 << 20
SO_PEERPIDFD: Final = 77


class Peer(namedtuple("Peer", "pid uid gid")):  # noqa: PYI024 - typing costs the launch verb 3 ms
    """Who is at the other end, in the kernel's word (SO_PEERCRED)."""

    __slots__ = ()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair, both ends close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def peer_of(sock: socket.socket) -> Peer:
    """Return the credentials that the peer had when it connected."""
    return Peer(*struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


def peer_pidfd(sock: socket.socket) -> int | None:
    """Return a pidfd of the peer (Linux 6.5), or None on an older kernel."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
    except OSError:
        return None
    return int(struct.unpack("=i", raw)[0])


def send(sock: socket.socket, payload: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one message with *fds*; the caller keeps its own copies."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(payload)} bytes: at most {MAX_MESSAGE_BYTES}")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message; the caller owns the descriptors (close-on-exec). An empty payload is the end.

    Raises:
        ValueError: The message or its descriptors were cut.
    """
    space = socket.CMSG_SPACE(MAX_FDS * 4)
    try:
        payload, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer closed without reading all that we sent; said once, what it sent before is still in the queue.
        payload, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = array.array("i")
            whole.frombytes(data[: len(data) - len(data) % 4])
            fds.extend(whole)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise ValueError("message cut: larger than the protocol allows")
    return payload, fds


def send_json(sock: socket.socket, value: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send *value* as one JSON message; a large one travels in a memfd that comes first among the descriptors."""
    payload = json.dumps(value, separators=(",", ":")).encode()
    if len(payload) <= MAX_MESSAGE_BYTES:
        send(sock, payload, fds)
        return
    body = memfd_of(payload)
    try:
        send(sock, b"@memfd", (body, *fds))
    finally:
        os.close(body)


def memfd_of(payload: bytes) -> int:
    """Return a memfd that holds *payload*, the caller's."""
    body = os.memfd_create("deskwarden-message", os.MFD_CLOEXEC)
    try:
        with open(body, "wb", closefd=False) as file:
            file.write(payload)
    except BaseException:
        os.close(body)
        raise
    return body


def receive_json(sock: socket.socket, limit_bytes: int = MAX_BODY_BYTES) -> tuple[dict[str, Any], list[int]] | None:
    """Receive what `send_json` sent; None at the end of the stream. The caller owns the descriptors."""
    payload, fds = receive(sock)
    if not payload:
        close_all(fds)
        return None
    return decode_json(payload, fds, limit_bytes)


def decode_json(payload: bytes, fds: list[int], limit_bytes: int = MAX_BODY_BYTES) -> tuple[dict[str, Any], list[int]]:
    """Turn a received message into its value and the descriptors that are left.

    Raises:
        ValueError: No JSON object, or a body that is larger than *limit_bytes* or no memfd.
    """
    try:
        if payload == b"@memfd" and fds:
            payload = _read_body(fds.pop(0), limit_bytes)
        value = json.loads(payload)
    except ValueError:
        close_all(fds)
        raise
    if not isinstance(value, dict):
        close_all(fds)
        raise ValueError("message is no JSON object")  # noqa: TRY004 - malformed input, not a programmer's mistake
    return value, fds


def _read_body(fd: int, limit_bytes: int) -> bytes:
    """Read a memfd; anything else could block its reader (a pipe, a file on FUSE)."""
    try:
        check_memfd(fd)
        size = os.lseek(fd, 0, os.SEEK_END)  # a confined worker has no stat
        if size > limit_bytes:
            raise ValueError(f"the body of a message has {size} bytes: at most {limit_bytes}")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def check_memfd(fd: int) -> None:
    """Refuse a descriptor that could block its reader.

    Raises:
        ValueError: It is no memfd.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # EINVAL for all but memfds and tmpfs files (fcntl(2))
    except OSError:
        raise ValueError("what should be a memfd is none") from None


def close_all(fds: list[int]) -> None:
    """Close every descriptor of *fds* and empty the list."""
    while fds:
        os.close(fds.pop())
