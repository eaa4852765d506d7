"""Messages between processes: whole or refused, bodies only in memfds and bounded."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from supervisor.linux import seqpacket

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = seqpacket.pair()
    with one, other:
        yield one, other


def test_a_large_message_travels_in_a_memfd_with_its_descriptors(ends: Ends) -> None:
    value = {"text": "x" * (1 << 20)}
    fd = os.open("/dev/null", os.O_RDONLY)
    seqpacket.send_json(ends[0], value, (fd,))
    os.close(fd)
    received = seqpacket.receive_json(ends[1])
    assert received is not None
    assert received[0] == value
    assert os.readlink(f"/proc/self/fd/{received[1][0]}") == "/dev/null"
    seqpacket.close_all(received[1])


def test_a_body_above_the_limit_is_refused(ends: Ends) -> None:
    seqpacket.send_json(ends[0], {"text": "x" * (1 << 20)})
    with pytest.raises(ValueError, match="at most"):
        seqpacket.receive_json(ends[1], limit_bytes=1 << 19)


def test_a_body_that_could_block_its_reader_is_refused(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    seqpacket.send(ends[0], b"@memfd", (read_end,))
    with pytest.raises(ValueError, match="should be a memfd"):
        seqpacket.receive_json(ends[1])
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("payload", [b"[1]", b"nothing", b'"x"', b"\xff\xfe", b"@memfd"])
def test_what_is_no_object_is_refused_and_its_descriptors_are_closed(ends: Ends, payload: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    seqpacket.send(ends[0], payload, (0,) if payload != b"@memfd" else ())
    with pytest.raises(ValueError, match=r"."):
        seqpacket.receive_json(ends[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_message_above_the_packet_limit_is_not_sent_cut(ends: Ends) -> None:
    with pytest.raises(ValueError, match="at most"):
        seqpacket.send(ends[0], b"x" * (seqpacket.MAX_MESSAGE_BYTES + 1))


def test_what_was_sent_before_the_peer_closed_unread_is_still_received(ends: Ends) -> None:
    seqpacket.send(ends[0], b"unread by the other side")
    seqpacket.send(ends[1], b"{}")
    ends[1].close()
    received = seqpacket.receive_json(ends[0])
    assert received is not None
    assert received[0] == {}


def test_the_peer_is_who_the_kernel_says(ends: Ends) -> None:
    peer = seqpacket.peer_of(ends[0])
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
