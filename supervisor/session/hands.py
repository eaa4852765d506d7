"""The owners' hands: one small process per owner, started on first use, asked with a deadline."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.errors import ServiceError, from_wire
from supervisor.linux import seqpacket
from supervisor.session.channel import Channel
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.tasks import Tasks

# Opening is a few dozen system calls; a file system that does not answer in this time is hung.
OPEN_DEADLINE_S: Final = 20.0
REVIEW_DEADLINE_S: Final = 600.0


@dataclass(slots=True)
class Hand:
    """A running hand; `gone` once it was killed or died."""

    uid: int
    pid: int
    pidfd: int
    channel: Channel
    store_fd: int
    end: Callable[[], None]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: bool = False

    async def ask(
        self, do: str, fds: tuple[int, ...] = (), deadline_s: float = REVIEW_DEADLINE_S, **fields: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Send one request; returns the answer and its descriptors (the caller's).

        Raises:
            DeskwardenError: What the hand could not do; ServiceError when it is late (and then killed) or gone.
        """
        ours, theirs = seqpacket.pair()
        answer = Channel(ours)
        try:
            try:
                await self.channel.send_json({"do": do, **fields}, (theirs.fileno(), *fds))
            except OSError as error:
                self.gone = True
                raise ServiceError("your hand process is gone", "run the command again: it is started anew") from error
            finally:
                theirs.close()
            async with asyncio.timeout(deadline_s):
                received = await answer.receive_json()
        except TimeoutError:
            self.kill()
            raise ServiceError(
                f"a file system did not answer within {deadline_s:.0f} s ({do})", "look for a hung mount: df"
            ) from None
        finally:
            answer.close()
        if received is None:
            raise ServiceError(f"your hand process died while asked to {do}", "run the command again")
        message, out = received
        if "error" in message:
            seqpacket.close_all(out)
            raise from_wire(message["error"])
        return message["ok"], out

    def kill(self) -> None:
        """End a hand that hangs; the next request starts another."""
        self.gone = True
        self.end()


class Hands:
    """All hands of this daemon."""

    def __init__(self, launcher: LauncherClient, stores_fd: int) -> None:
        self._launcher = launcher
        self._stores_fd = stores_fd
        self._hands: dict[int, Hand] = {}
        self._starting: dict[int, asyncio.Lock] = {}
        self._running: dict[int, Hand] = {}
        self._tasks = Tasks()
        # The grants in force of an owner: their copies are kept when a hand starts anew.
        self.living_grants: Callable[[int], list[str]] = lambda _uid: []

    async def of(self, uid: int, gid: int) -> Hand:
        """Return the owner's hand, starting one when there is none."""
        async with self._starting.setdefault(uid, asyncio.Lock()):
            hand = self._hands.get(uid)
            if hand is None or hand.gone:
                hand = self._hands[uid] = await self._start(uid, gid)
            return hand

    async def _start(self, uid: int, gid: int) -> Hand:
        await self._launcher.ask("store", (self._stores_fd,), uid=uid, gid=gid)
        store_fd = os.open(str(uid), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._stores_fd)
        ours, theirs = seqpacket.pair()
        try:
            answer, fds = await self._launcher.ask("hand", (theirs.fileno(),), uid=uid)
        except BaseException:
            ours.close()
            os.close(store_fd)
            raise
        finally:
            theirs.close()
        pid = int(answer["pid"])
        hand = Hand(uid, pid, fds[0], Channel(ours), store_fd, lambda: self._end(f"hand{uid}/{pid}"))
        self._running[pid] = hand
        await hand.ask("store", (store_fd,), OPEN_DEADLINE_S)
        # What a crash left half applied becomes wholly old or wholly new; no grant of an earlier hand is in force.
        await hand.ask("recover", grants=self.living_grants(uid))
        return hand

    def _end(self, key: str) -> None:
        """Have the launcher kill it: another uid's process is out of the daemon's reach."""
        self._tasks.spawn(self._launcher.ask("kill", id=key), f"kill {key}", may_fail=True)  # it may be gone by itself

    def ended(self, pid: int) -> None:
        """Forget the hand that had *pid*; another may have taken its place meanwhile."""
        hand = self._running.pop(pid, None)
        if hand is None:
            return
        hand.gone = True
        if self._hands.get(hand.uid) is hand:
            del self._hands[hand.uid]
        hand.channel.close()
        os.close(hand.pidfd)
        os.close(hand.store_fd)
