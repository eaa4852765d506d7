"""deskwardend: the daemon. ``--system`` as root for everybody, else rootless for the caller."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from typing import Final

# Imported before privilege is given up: a checkout in a private home cannot be read afterwards.
from supervisor.clock import now_ns
from supervisor.daemon import approvers, bootstrap, log
from supervisor.daemon.bootstrap import Foundation
from supervisor.daemon.brokerage import Brokerage
from supervisor.daemon.server import Server
from supervisor.errors import DeskwardenError, to_wire
from supervisor.policy.bundle_source import Bundle, default_directory, read_bundle
from supervisor.sandbox import profile_source
from supervisor.sandbox.layers import with_controllers
from supervisor.sandbox.machine import kernel_version
from supervisor.sandbox.profile import Ceiling
from supervisor.session import quota
from supervisor.session.channel import Channel
from supervisor.session.hands import Hands
from supervisor.session.launch import Machine
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.profiles import Profiles
from supervisor.session.service import SessionService
from supervisor.session.state import State

_logger = logging.getLogger(__name__)

# How soon what a full disk did not take is tried again.
_FLUSH_S: Final = 2.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deskwardend", description="Deskwarden's daemon.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--system", action="store_true", help="serve every user; needs root")
    mode.add_argument("--rootless", action="store_true", help="serve the caller only (default)")
    parser.add_argument("--launcher", metavar="SOCKET", help="with --system: the launcher runs apart, here")
    parser.add_argument("--only-uid", type=int, help="with --system: serve this uid only")
    parser.add_argument("--idle-exit", type=float, metavar="SECONDS", help="end after this long without sessions")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the daemon until SIGTERM, or until it is idle; returns the exit code."""
    args = _parser().parse_args(argv)
    limit = log.set_up(logging.DEBUG if args.verbose else logging.INFO)
    if args.system and not args.launcher and os.geteuid() != 0:
        _report(args.ready_fd, "--system needs root", "sudo deskwardend --system, or without it: deskwardend")
        return 125
    if not args.system and os.geteuid() == 0:
        _report(args.ready_fd, "root has no rootless mode: an agent is never root", "deskwardend --system")
        return 125
    try:
        profile_source.hold_packaged_directory()
        profiles = Profiles()
        profiles.warm()
        bundle = read_bundle(default_directory())
        approvers.schema()
        people = approvers.Reader(approvers.places(os.environ, not args.system))
        if args.launcher:
            foundation = bootstrap.join(args.launcher, os.environ)
        else:
            foundation = bootstrap.lay(not args.system, args.only_uid, os.environ)
        asyncio.run(_serve(foundation, profiles, bundle, people, limit, args.idle_exit, args.ready_fd))
    except DeskwardenError as error:
        _report(args.ready_fd, error.message, error.next_step, error)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _report(args.ready_fd, f"{where}{error.strerror or error}", "deskwarden doctor")
        return 125
    return 0


def _report(ready_fd: int | None, message: str, next_step: str, error: DeskwardenError | None = None) -> None:
    sys.stderr.write(f"deskwardend: {message}\n" + (f"  next: {next_step}\n" if next_step else ""))
    if ready_fd is not None:
        value = to_wire(error or DeskwardenError(message, next_step))
        with contextlib.suppress(OSError):
            os.write(ready_fd, json.dumps(value).encode())


async def _serve(
    foundation: Foundation,
    profiles: Profiles,
    bundle: Bundle,
    people: approvers.Reader,
    limit: log.Limit,
    idle_exit_s: float | None,
    ready_fd: int | None,
) -> None:
    places = foundation.places
    launcher = LauncherClient(Channel(foundation.launcher))
    await launcher.start()
    stop = asyncio.Event()
    lost: list[str] = []

    def on_lost() -> None:
        lost.append("launcher")
        stop.set()

    launcher.on_lost = on_lost
    reading = asyncio.create_task(launcher.read(), name="launcher")
    state = State(f"{places.state}/state.db")
    if shortage := state.shortage():
        _logger.error("%s; no session starts until it is solved; what there is can be reviewed", shortage)
    for record in state.mark_lost():
        _logger.warning("session %s was left by a daemon that died; its staged work is kept", record.id)
    stores_fd = os.open(f"{places.state}/stores", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    machine = Machine(
        rootless=foundation.rootless,
        has_cgroup=launcher.has_cgroup,
        controllers=launcher.controllers,
        kernel=kernel_version(os.uname().release),
        owned_places=(places.state, places.runtime),
        ceiling=Ceiling(),
        client=foundation.client,
    )
    layers = with_controllers(foundation.layers, launcher.controllers)
    hands = Hands(launcher, stores_fd)
    service = SessionService(launcher, hands, state, machine, f"{places.state}/logs", layers, profiles)
    brokerage = Brokerage(foundation, service, launcher, hands, bundle, people)
    await brokerage.start()
    server = Server(service, brokerage, foundation)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(), name="server")
    watching = [
        asyncio.create_task(quota.watch(service, stores_fd), name="quota"),
        asyncio.create_task(limit.watch(), name="log"),
        asyncio.create_task(_keep_written(state), name="state"),
    ]
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    notify_systemd("READY=1")
    _logger.info("ready: %s, started_ns=%d", places.launch_socket, now_ns())
    await _until_done(stop, server, service, state, idle_exit_s)
    notify_systemd("STOPPING=1")
    serving.cancel()
    for task in watching:
        task.cancel()
    foundation.remove_socket()
    if not lost:
        launcher.on_lost = lambda: None  # from here on its end is the answer to our farewell
        await service.end_all()
        await brokerage.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await reading
    state.close()
    if lost:
        raise DeskwardenError(
            "the launcher died; its sessions died with it, staged work is kept", "deskwarden ps --all"
        )


def notify_systemd(state: str) -> None:
    """Tell systemd a change of state, when it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


async def _keep_written(state: State) -> None:
    """Write what a full disk did not take, and hold the reserve again, as soon as there is room; until cancelled."""
    while True:
        if state.is_written or state.flush():
            state.hold_ballast()
        await asyncio.sleep(_FLUSH_S)


async def _until_done(
    stop: asyncio.Event, server: Server, service: SessionService, state: State, idle_exit_s: float | None
) -> None:
    """Wait for a signal, the launcher's death, or the idle time. What is not written yet is no idleness."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5 if idle_exit_s is not None else None):
                await stop.wait()
        if service.live_count or server.connections or not state.is_written:
            server.last_activity = loop.time()
        elif idle_exit_s is not None and loop.time() - server.last_activity > idle_exit_s:
            return
