"""A real hand on disks that misbehave: `hand_driver.py DIRECTORY`, as root, in a mount namespace of its own.

Prints one JSON object: what came of each request, and how long it took.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from supervisor.errors import DeskwardenError, from_wire
from supervisor.linux import seqpacket
from supervisor.workspace import hand

FUSE_SERVER = Path(__file__).parents[1] / "cli/fuse_server.py"


def mount_tmpfs(where: Path, options: str) -> None:
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(where), b"tmpfs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount tmpfs")


def start_hand(limit_s: int) -> tuple[socket.socket, int]:
    """Fork a hand; *limit_s* is what each request may take."""
    ours, theirs = seqpacket.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        hand._ASKED_BY_AGENTS = {what: (handler, limit_s) for what, (handler, _) in hand._ASKED_BY_AGENTS.items()}  # type: ignore[misc]
        hand.main(theirs.detach())
        os._exit(0)
    theirs.close()
    return ours, pid


def ask(to: socket.socket, do: str, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
    """Send one request as the daemon does; an answer that never comes is ``{"died": true}``."""
    ours, theirs = seqpacket.pair()
    started = time.monotonic()
    seqpacket.send_json(to, {"do": do, **fields}, (theirs.fileno(), *fds))
    theirs.close()
    with ours:
        received = seqpacket.receive_json(ours)
    took = {"took_s": time.monotonic() - started}
    if received is None:
        return {"died": True} | took
    message, out = received
    seqpacket.close_all(out)
    if "error" in message:
        error: DeskwardenError = from_wire(message["error"])
        return {"error": type(error).__name__, "message": error.message, "next": error.next_step} | took
    return dict(message["ok"]) | took


def main(directory: str) -> None:
    """Run every case."""
    base = Path(directory)
    home = base / "home"
    home.mkdir()
    mount_tmpfs(base / "store", "size=1m,mode=700")
    mount_tmpfs(home / "many", "size=200m")
    (home / "tree/fuse").mkdir(parents=True)
    server = subprocess.Popen([sys.executable, str(FUSE_SERVER), str(home / "tree/fuse")], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    server.send_signal(signal.SIGSTOP)
    to, pid = start_hand(2)
    store = os.open(base / "store", os.O_PATH)
    ask(to, "store", (store,))
    results: dict[str, Any] = {}
    try:
        for name in ("a", "b"):
            (home / name).write_bytes(os.urandom(700_000))
        found = ask(to, "resolve", target="~/*", home=str(home))
        results["full"] = ask(to, "copy", id="g1", root=found["root"], items=found["items"])
        results["left"] = os.listdir(base / "store/grants")
        results["hangs"] = ask(to, "resolve", target="~/tree/fuse/x", home=str(home))
        results["around"] = ask(to, "resolve", target="~/tree", home=str(home))
        results["pattern"] = ask(to, "resolve", target="~/tree/*/x", home=str(home))
        results["after"] = ask(to, "resolve", target="~/a", home=str(home))
        to.close()
        os.waitpid(pid, 0)
        to, pid = start_hand(30)
        ask(to, "store", (store,))
        folder = os.open(home / "many", os.O_RDONLY)
        for number in range(100_001):
            os.mknod(f"{number:06}.txt", dir_fd=folder)
        results["many"] = ask(to, "resolve", target="~/many", home=str(home))
        results["many_pattern"] = ask(to, "resolve", target="~/many/*.txt", home=str(home))
        results["many"].pop("items", None)
    finally:
        to.close()
        os.waitpid(pid, 0)
        server.kill()
        server.wait()
    print(json.dumps(results))  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main(sys.argv[1])
