"""One end of a spliced connection: bounded buffers, and a budget of bytes. The relay joins two of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

CHUNK_BYTES: Final = 32768
BUFFER_BYTES: Final = 65536
# For what is under way to an end that does not read.
CLOSING_S: Final = 5.0

# All ends of one thread read into the same memory: what was read is copied before the next one reads.
_chunk: Final = memoryview(bytearray(CHUNK_BYTES))


class Budget:
    """A token bucket: so many a second, after a burst."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = time.monotonic()

    def take(self, count: float) -> float:
        """Take *count*; returns the seconds to wait before the next, 0.0 while there is some left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second) - count
        self._at = now
        return 0.0 if self._left >= 0 else -self._left / self._per_second


class Side(asyncio.BufferedProtocol):
    """Reads when neither its reader, its budget nor anybody who holds it is against it."""

    def __init__(
        self, on_data: Callable[[bytes], None], on_lost: Callable[[], None], budget: Budget | None = None
    ) -> None:
        self._on_data = on_data
        self._on_lost = on_lost
        self._budget = budget
        self._transport: asyncio.Transport | None = None
        self._against: set[str] = set()
        self._full = False
        self._is_lost = False
        self._other: Side | None = None

    def attach(self, other: Side) -> None:
        """From now on *other* reads only while this end's buffer is not full."""
        self._other = other
        if self._full:
            other.hold("reader")

    @property
    def is_connected(self) -> bool:
        """Whether there is, or was, a transport to write to."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of a stream socket it is one
        self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
        if self._against:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _chunk

    def buffer_updated(self, nbytes: int) -> None:
        wait = self._budget.take(nbytes) if self._budget else 0.0
        if wait:
            self.hold("budget")
            asyncio.get_running_loop().call_later(wait, self.go_on, "budget")
        self._on_data(bytes(_chunk[:nbytes]))

    def eof_received(self) -> bool:
        self._on_lost()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._on_lost()

    def pause_writing(self) -> None:
        self._full = True
        if self._other:
            self._other.hold("reader")

    def resume_writing(self) -> None:
        self._full = False
        if self._other:
            self._other.go_on("reader")

    def hold(self, why: str) -> None:
        """Stop reading until `go_on` with the same word."""
        self._against.add(why)
        if self._transport:
            self._transport.pause_reading()

    def go_on(self, why: str) -> None:
        """Read again unless something else is against it."""
        self._against.discard(why)
        if self._transport and not self._against and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send *data*; nothing when it is closed."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close after what is under way was sent."""
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport and not self._is_lost:  # asyncio takes no abort after that
            self._transport.abort()
