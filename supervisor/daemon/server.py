"""``launch.sock``: accept, learn from the kernel who it is, and answer verbs. Handlers are thin: `session` decides."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from typing import Any, Final

from supervisor import protocol
from supervisor.daemon import verbs
from supervisor.daemon.bootstrap import Foundation, owner_of, read_peer_level
from supervisor.daemon.brokerage import Brokerage
from supervisor.daemon.conversation import Conversation
from supervisor.daemon.log import from_uid
from supervisor.errors import DeskwardenError, RefusedError, ServiceError, UsageError, to_wire
from supervisor.linux import seqpacket
from supervisor.session.channel import Channel, wait_readable
from supervisor.session.service import Caller, SessionService

_logger = logging.getLogger(__name__)

# Of one owner at a time: more than a desktop needs, less than the daemon has descriptors for.
MAX_CONNECTIONS: Final = 1024
REQUEST_DEADLINE_S: Final = 10.0


class Server:
    """The accepting loop, and one task a connection."""

    def __init__(self, service: SessionService, brokerage: Brokerage, foundation: Foundation) -> None:
        self._service = service
        self._brokerage = brokerage
        self._foundation = foundation
        self._own_level = read_peer_level("/proc/self/status")
        self._by_uid: Counter[int] = Counter()
        self.last_activity = asyncio.get_running_loop().time()

    async def serve(self) -> None:
        """Accept until cancelled."""
        listener = self._foundation.listener
        listener.setblocking(False)
        while True:
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                await wait_readable(listener.fileno())
                continue
            except OSError as error:  # EMFILE and its kind: give the others time to end
                _logger.warning("accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            self._service.spawn(self._converse(sock), "connection")

    async def _converse(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        uid = seqpacket.peer_of(sock).uid
        self._by_uid[uid] += 1
        try:
            caller = self._identify(sock)
            if self._by_uid[uid] > MAX_CONNECTIONS:
                raise ServiceError(f"you have {MAX_CONNECTIONS} connections open", "end some: deskwarden ps")
            request, fds = await self._receive_request(channel)
            seqpacket.close_all(fds)  # no verb takes descriptors from a client
            handler = verbs.HANDLERS.get(str(request.get("verb")))
            if handler is None:
                raise UsageError(f"unknown verb {request.get('verb')!r}", "deskwarden --help")
            talk = Conversation(channel, caller, self._service, self._brokerage, self._foundation)
            await handler(talk, request)
        except DeskwardenError as error:
            await _say_error(channel, error)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except Exception as error:  # the boundary of a connection: a bug answers this client and serves the next
            _logger.exception("connection of uid %d", uid, extra=from_uid(uid))
            await _say_error(channel, ServiceError(f"internal error: {type(error).__name__}: {error}", "see the log"))
        finally:
            self._by_uid[uid] -= 1
            channel.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._by_uid.total()

    @staticmethod
    async def _receive_request(channel: Channel) -> tuple[dict[str, Any], list[int]]:
        """Return the one request of a connection.

        Raises:
            UsageError: It is none, too large, or did not come in time.
        """
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                received = await channel.receive_json(protocol.MAX_REQUEST_BYTES)
        except TimeoutError:
            raise UsageError(f"no request within {REQUEST_DEADLINE_S:.0f} s", "use the deskwarden command") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not a request: {error}", "use the deskwarden command") from error
        if received is None:
            raise ConnectionResetError
        return received

    def _level_of(self, sock: socket.socket, peer: seqpacket.Peer) -> int:
        """Return how many pid namespaces deep the peer is, by its pidfd where there is one: no reuse fools that."""
        pidfd = seqpacket.peer_pidfd(sock)
        if pidfd is None:
            return read_peer_level(f"/proc/{peer.pid}/status")
        try:
            return read_peer_level(f"/proc/self/fdinfo/{pidfd}")
        finally:
            os.close(pidfd)

    def _identify(self, sock: socket.socket) -> Caller:
        """Return who connected, by SO_PEERCRED alone; refuse agents and, in rootless mode, other users."""
        peer = seqpacket.peer_of(sock)
        if self._level_of(sock, peer) != self._own_level:
            raise RefusedError("this socket answers no process inside a sandbox or another pid namespace")
        if self._foundation.rootless:
            if peer.uid != 0 or self._foundation.owner is None:  # the owner's uid is 0 in our user namespace
                raise RefusedError("this daemon serves its own user only", "start your own: deskwarden run")
            return Caller(self._foundation.owner)
        if self._foundation.only_uid not in (None, peer.uid):
            raise RefusedError("this daemon serves another user", "start your own: deskwarden run")
        return Caller(owner_of(peer.uid))


async def _say_error(channel: Channel, error: DeskwardenError) -> None:
    try:
        await channel.send_json({"event": "error", "error": to_wire(error)})
    except OSError:
        _logger.debug("the client left before its error: %s", error)
