"""The FUSE protocol as bytes: sizes of linux/fuse.h, and what comes out is what the kernel reads."""

from __future__ import annotations

import errno
import stat
import struct

import pytest

from supervisor.linux import fuse
from supervisor.linux.fuse import Node, Opcode


def _request(opcode: int, body: bytes = b"", node: int = 3) -> bytes:
    return struct.pack("=IIQQIIII", 40 + len(body), opcode, 7, node, 1000, 1000, 42, 0) + body


def test_a_look_up_names_what_was_wanted() -> None:
    request = fuse.parse(_request(Opcode.LOOKUP, b"id_rsa\0"))
    assert (request.node, request.uid, request.pid, request.name) == (3, 1000, 42, b"id_rsa")


def test_a_request_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 40"):
        fuse.parse(_request(Opcode.LOOKUP)[:39])


def test_a_refusal_carries_the_negative_errno() -> None:
    request = fuse.parse(_request(Opcode.OPENDIR))
    assert struct.unpack("=IiQ", fuse.refusal(request, errno.EACCES)) == (16, -errno.EACCES, 7)


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (fuse.init_answer, 16 + 64),
        (fuse.statfs_answer, 16 + 80),
        (fuse.open_answer, 16 + 16),
        (lambda one: fuse.attr_answer(one, Node(3, stat.S_IFDIR)), 16 + 16 + 88),
        (lambda one: fuse.answer(one, Node(3, stat.S_IFREG).entry), 16 + 128),
    ],
)
def test_answers_have_the_sizes_of_the_header_file(made: object, size: int) -> None:
    data = made(fuse.parse(_request(1)))  # type: ignore[operator]
    assert (len(data), struct.unpack_from("=I", data)[0]) == (size, size)


def test_a_listing_goes_on_where_the_last_one_ended() -> None:
    entries = [(b"%d" % number, Node(number, stat.S_IFDIR)) for number in range(2, 12)]
    room = 3 * (128 + 32)

    def count(offset: int) -> int:
        body = struct.pack("=QQ2IQ2I", 0, offset, room, 0, 0, 0, 0)
        return (len(fuse.readdirplus_answer(fuse.parse(_request(Opcode.READDIRPLUS, body)), entries)) - 16) // 160

    assert [count(offset) for offset in (0, 3, 9, 10)] == [3, 3, 1, 0]
