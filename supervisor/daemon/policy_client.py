"""The daemon's side of the policy worker: an `Engine` that answers in time or says deny, and starts a new worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from supervisor.errors import RefusedError
from supervisor.linux import seqpacket
from supervisor.policy.bundle_source import Bundle
from supervisor.policy.engine import EngineError
from supervisor.session.channel import Channel
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)

# A decision takes a third of a millisecond; a busy machine may keep the worker from running for longer than that.
DEADLINE_S: Final = 1.0
LOAD_DEADLINE_S: Final = 10.0
# So many questions wait in the worker; further ones wait here, in turn, and their deadline has not begun.
IN_FLIGHT: Final = 16
_BACK_OFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
_ID_BYTES: Final = 8
_NEXT: Final = "deskwarden status tells whether the policy worker is up"

Start = Callable[[], Awaitable[Channel]]


class WorkerEngine:
    """Evaluate in a worker process.

    Args:
        start: Starts a worker (the launcher does) and returns our end of its socket.
        kill: Ends the worker that runs now, at once; may be called when there is none.
        seccomp: Its program, of `worker_filter`.
    """

    def __init__(self, start: Start, kill: Callable[[], None], seccomp: bytes, deadline_s: float = DEADLINE_S) -> None:
        self._start, self._kill, self._seccomp = start, kill, seccomp
        self._deadline_s = deadline_s
        self._channel: Channel | None = None
        self._bundle: Bundle | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._changing = asyncio.Lock()  # a load and a restart never mix
        self._tasks = Tasks()
        self._closed = False
        self.restarts = 0

    @property
    def revision(self) -> str:
        """The revision of the bundle that answers, or empty when none was ever loaded."""
        return self._bundle.revision if self._bundle else ""

    async def load(self, bundle: Bundle) -> None:
        """Let *bundle* answer from now on; starts the first worker.

        Raises:
            RefusedError: It is broken. The one that was loaded before goes on answering.
            EngineError: The worker died or does not answer; it is started again with the bundle it had.
        """
        async with self._changing:
            if self._channel is None:
                await self._connect()
            await self._load(bundle)
            self._bundle = bundle

    async def evaluate(self, document: bytes) -> bytes:
        """Return the decision's JSON; see `Engine`."""
        if self._bundle is None:
            raise EngineError("no policy is loaded", _NEXT)
        async with self._room:
            return await self._ask(b"e", document, self._deadline_s)

    def close(self) -> None:
        """End the worker; every later question is an error."""
        self._closed = True
        self._drop("the policy worker was stopped")

    async def _connect(self) -> None:
        channel = await self._start()
        try:
            async with asyncio.timeout(LOAD_DEADLINE_S):
                await channel.send(b"s" + self._seccomp)
                payload, fds = await channel.receive()
            seqpacket.close_all(fds)
            if payload[:1] != b"r":
                raise EngineError("the policy worker could not confine itself", _NEXT)
        except (OSError, TimeoutError) as error:
            channel.close()
            self._kill()
            raise EngineError(f"the policy worker does not start: {str(error) or 'too slow'}", _NEXT) from error
        except BaseException:
            channel.close()
            self._kill()
            raise
        self._channel = channel
        # One standing reader: registering for each answer costs more than evaluating a small policy.
        asyncio.get_running_loop().add_reader(channel.sock.fileno(), self._readable, channel)

    async def _load(self, bundle: Bundle) -> None:
        value = {"modules": dict(bundle.modules), "data": bundle.document, "revision": bundle.revision}
        payload = json.dumps(value, separators=(",", ":")).encode()
        fds: list[int] = []
        if len(payload) > seqpacket.MAX_MESSAGE_BYTES - 1 - _ID_BYTES:
            fds.append(seqpacket.memfd_of(payload))
            payload = b"@memfd"
        try:
            await self._ask(b"l", payload, LOAD_DEADLINE_S, tuple(fds))
        except _AnsweredError as error:
            raise RefusedError(f"policy {bundle.path}: {error.message}", "deskwarden policy check DIR") from error
        finally:
            for fd in fds:
                os.close(fd)

    async def _ask(self, kind: bytes, body: bytes, deadline_s: float, fds: tuple[int, ...] = ()) -> bytes:
        channel = self._channel
        if channel is None:
            raise EngineError("the policy worker is being started again", "ask again in a second")
        number = next(self._numbers).to_bytes(_ID_BYTES, "big")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(deadline_s):
                await channel.send(kind + number + body, fds)
                return await future
        except TimeoutError:
            self._lost(channel, f"no answer within {deadline_s * 1000:.0f} ms")
            raise EngineError(f"the policy did not answer within {deadline_s * 1000:.0f} ms", _NEXT) from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._lost(channel, str(error))
            raise EngineError(f"the policy could not be asked: {error}", _NEXT) from error
        finally:
            self._waiting.pop(number, None)

    def _readable(self, channel: Channel) -> None:
        """Deliver every answer that lies there."""
        while True:
            try:
                payload, fds = seqpacket.receive(channel.sock)
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                self._lost(channel, str(error))
                return
            seqpacket.close_all(fds)
            if not payload:
                self._lost(channel, "it died")
                return
            future = self._waiting.get(payload[1 : 1 + _ID_BYTES])
            if future is None or future.done():
                continue  # whoever asked was cancelled
            if payload[:1] == b"d":
                future.set_result(payload[1 + _ID_BYTES :])
            else:
                text = payload[1 + _ID_BYTES :].decode("utf-8", "replace")
                future.set_exception(_AnsweredError(f"the policy raised: {text}", _NEXT))

    def _lost(self, channel: Channel, why: str) -> None:
        """Kill what is left of the worker and start another, once, however many noticed."""
        if channel is not self._channel:
            return
        _logger.warning("policy worker: %s; starting another", why)
        self._drop(f"the policy worker was lost: {why}")
        if not self._closed:
            self._tasks.spawn(self._restart(), "restart the policy worker")

    def _drop(self, why: str) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(channel.sock.fileno())
            channel.close()
            self._kill()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(EngineError(why, _NEXT))

    async def _restart(self) -> None:
        for pause_s in itertools.chain(_BACK_OFF_S, itertools.repeat(_BACK_OFF_S[-1])):
            await asyncio.sleep(pause_s)
            async with self._changing:
                if self._closed or self._channel is not None:
                    return
                self.restarts += 1
                try:
                    await self._connect()
                    if self._bundle is not None:
                        await self._load(self._bundle)
                    return
                except (EngineError, RefusedError, OSError) as error:
                    _logger.warning("policy worker: %s", error)
                    self._drop("the policy worker does not start")


class _AnsweredError(EngineError):
    """The worker lives and says that the policy raised."""
