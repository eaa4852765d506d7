"""One end of a spliced connection, over a real socket pair."""

from __future__ import annotations

import asyncio
import socket

from supervisor.daemon.splice import BUFFER_BYTES, Budget, Side


def test_a_budget_counts_what_is_owed() -> None:
    budget = Budget(100.0, 10.0)
    assert budget.take(10) == 0.0
    assert 0.4 < budget.take(50) <= 0.5


async def connected(side: Side) -> socket.socket:
    """Connect *side*; return the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: side, ours)
    return theirs


async def read_all(sock: socket.socket) -> int:
    size = 0
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
        size += len(data)
    return size


def test_what_is_under_way_arrives_after_close_and_a_late_abort_is_nothing() -> None:
    async def run() -> None:
        lost = asyncio.Event()
        side = Side(lambda _: None, lost.set)
        with await connected(side) as other:
            side.write(b"x" * (4 << 20))
            side.close()
            side.write(b"late")
            assert await read_all(other) == 4 << 20
            await lost.wait()
            await asyncio.sleep(0)
            side.abort()
            side.close()

    asyncio.run(run())


def test_an_end_reads_only_while_the_other_is_taken_from() -> None:
    async def run() -> None:
        writer = Side(lambda _: None, lambda: None)
        reader = Side(writer.write, lambda: None)
        with await connected(reader) as source, await connected(writer) as sink:
            writer.attach(reader)
            sent = 0
            data = b"x" * 65536
            try:
                while sent < 64 << 20:
                    sent += await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(source, data), 1.0) or 65536
            except TimeoutError:
                pass
            # What two socket pairs and one buffer hold, far below what was to be sent.
            assert BUFFER_BYTES < sent < 8 << 20
            source.close()
            assert sent <= await asyncio.wait_for(read_some(sink, sent), 30)
            reader.abort()
            writer.abort()

    asyncio.run(run())


async def read_some(sock: socket.socket, least: int) -> int:
    size = 0
    while size < least:
        size += len(await asyncio.get_running_loop().sock_recv(sock, 1 << 20))
    return size
