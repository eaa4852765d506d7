"""A worker that says what it can reach; the launcher of the tests has it in its table."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import yaml

from supervisor.linux import seqpacket
from supervisor.linux.caps import CapData, CapHeader
from supervisor.linux.libc import libc
from supervisor.linux.prctl import PR_GET_DUMPABLE, prctl

_PR_GET_NO_NEW_PRIVS = 39


def main(fd: int) -> None:
    """Say it once, then wait to be hung up."""
    sock = socket.socket(fileno=fd)
    seqpacket.send_json(
        sock,
        {
            "ids": [*os.getresuid(), *os.getresgid()],
            "groups": os.getgroups(),
            "capabilities": _capabilities(),
            "no_new_privs": prctl(_PR_GET_NO_NEW_PRIVS),
            "dumpable": prctl(PR_GET_DUMPABLE),
            "files": os.listdir("/"),
            "write": _attempt(lambda: os.mkdir("/x")),
            "connect": _attempt(lambda: socket.socket().connect((b"127.0.0.1", 1))),
            "interfaces": [name for _index, name in socket.if_nameindex()],
            "descriptors": [number for number in range(64) if _is_open(number) and number != fd],
            "library": yaml.safe_load("[1, 2]"),
        },
    )
    sock.recv(1)


def _capabilities() -> list[int]:
    header, data = CapHeader(0x20080522, 0), (CapData * 2)()
    libc.capget(ctypes.byref(header), ctypes.byref(data))
    return [value for item in data for value in (item.effective, item.permitted, item.inheritable)]


def _attempt(action: Callable[[], Any]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "OK"


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
