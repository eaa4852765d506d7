"""rtnetlink(7): bring the loopback interface up in a new network namespace."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

NETLINK_ROUTE: Final = 0
RTM_NEWLINK: Final = 16
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLMSG_ERROR: Final = 2
IFF_UP: Final = 1
LOOPBACK_INDEX: Final = 1


def set_loopback_up() -> None:
    """Set ``lo`` up; a new network namespace always has it at index 1.

    Raises:
        OSError: What the kernel answered, e.g. EPERM.
    """
    ifinfomsg = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, LOOPBACK_INDEX, IFF_UP, IFF_UP)
    header = struct.pack("=IHHII", 16 + len(ifinfomsg), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as link:
        link.sendto(header + ifinfomsg, (0, 0))
        answer = link.recv(4096)
    kind = struct.unpack_from("=IHHII", answer)[1]
    error = struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
    if error:
        raise OSError(-error, f"set lo up: {os.strerror(-error)}")
