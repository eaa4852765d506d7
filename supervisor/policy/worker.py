"""The policy worker: a program that holds the Rego engine and nothing else, and answers the daemon.

The launcher forks it, drops its ids and capabilities and calls `main`. Then it gives up the rest itself: memory, CPU,
files (Landlock without a rule), every system call that answering does not need. Native code that reads a policy and an
agent's words runs here; when it dies or hangs, the answer is deny.

Frames on the SOCK_SEQPACKET socket, each whole; the daemon's first is the seccomp program::

    s PROGRAM                  → r JSON         confined: what is in force
    l ID JSON (or @memfd)      → d ID JSON      {modules, data, revision} loaded; else x, and the old one stays
    e ID INPUT                 → d ID DECISION  or x ID TEXT
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
from typing import Final

from supervisor.linux import seqpacket

# The engine's allocator (mimalloc) would take 1 GiB of address space at once, in which no limit counts any more;
# it looks when the engine is imported.
os.environ["MIMALLOC_ARENA_RESERVE"] = "0"

from supervisor.policy import confinement
from supervisor.policy.regorus_engine import RegoError, RegorusEngine

ID_BYTES: Final = 8
# For its whole life; a decision takes a fraction of a millisecond, the daemon ends one that takes a second.
CPU_S: Final = 3600
_MAX_LOAD_BYTES: Final = 16 << 20
_LIMITS: Final = (
    (resource.RLIMIT_CPU, CPU_S),
    (resource.RLIMIT_NOFILE, 64),
)


def main(fd: int) -> None:
    """Confine this process, then serve on the inherited socket *fd* until the daemon hangs up."""
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as sock:
        if confine(sock):
            serve(sock)


def confine(sock: socket.socket) -> bool:
    """Give up everything but the socket; returns False when the daemon hung up before it sent the program.

    Raises:
        OSError: The kernel refuses the program. Nothing is served then.
        ValueError: The first frame is no program.
    """
    payload, fds = seqpacket.receive(sock)
    seqpacket.close_all(fds)
    if not payload:
        return False
    if payload[:1] != b"s":
        raise ValueError(f"policy worker: first frame {payload[:1]!r}, want the seccomp program")
    abi = confinement.confine(payload[1:], _LIMITS)
    seqpacket.send(sock, b"r" + json.dumps({"landlock": abi, "seccomp": True}).encode())
    return True


def serve(sock: socket.socket) -> None:
    """Answer until the daemon hangs up."""
    engine: RegorusEngine | None = None
    while True:
        payload, fds = seqpacket.receive(sock)
        if not payload:
            return
        kind, number, body = payload[:1], payload[1 : 1 + ID_BYTES], payload[1 + ID_BYTES :]
        try:
            if kind == b"e":
                answer = _evaluate(engine, body)
            elif kind == b"l":
                engine, answer = _load(body, fds)
            else:
                raise RegoError(f"unknown frame {kind!r}")
            _send(sock, b"d" + number, answer)
        except MemoryError:
            _send(sock, b"x" + number, b"out of memory")
        except (RegoError, ValueError, KeyError, TypeError) as error:
            _send(sock, b"x" + number, f"{error}".encode("utf-8", "replace"))
        finally:
            seqpacket.close_all(fds)


def _evaluate(engine: RegorusEngine | None, document: bytes) -> bytes:
    if engine is None:
        raise RegoError("no policy is loaded")
    return engine.evaluate(document)


def _load(body: bytes, fds: list[int]) -> tuple[RegorusEngine, bytes]:
    value, _rest = seqpacket.decode_json(body, fds, _MAX_LOAD_BYTES)
    engine = RegorusEngine(value["modules"], value["data"])
    gc.collect()
    gc.freeze()  # what stays is never looked at again: no pause in an answer
    return engine, json.dumps({"revision": value["revision"]}).encode()


def _send(sock: socket.socket, head: bytes, body: bytes) -> None:
    room = seqpacket.MAX_MESSAGE_BYTES - len(head)
    if len(body) > room:
        head, body = b"x" + head[1:], f"an answer of {len(body)} bytes, at most {room} are sent".encode()
    seqpacket.send(sock, head + body)
