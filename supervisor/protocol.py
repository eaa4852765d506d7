"""The words between the CLI and the daemon on ``launch.sock``: SOCK_SEQPACKET, one message a packet.

A packet that starts with ``{`` is JSON; any other starts with a one-byte frame type and carries bytes of a terminal or
a pipe. The client sends one request, then frames; the daemon answers frames and one last JSON message.
Standard library only.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

STDIN: Final = b"i"  # client → agent; empty: end of file
STDOUT: Final = b"o"
STDERR: Final = b"e"
WINDOW: Final = b"w"  # client → daemon: rows and columns, two unsigned shorts
SIGNAL: Final = b"s"  # client → daemon: one byte, the signal's number
DETACH: Final = b"d"  # client → daemon: leave the agent running
TAKEN: Final = b"t"  # daemon → client: the agent has taken one frame of input
SUSPENDED: Final = b"z"  # daemon → client: the foreground job stopped (Ctrl-Z); client → daemon: go on

FRAME_BYTES: Final = 65536
# Frames of input that a client sends ahead of TAKEN: so nothing waits behind input that the agent does not read,
# neither a signal nor the output that must be taken first.
INPUT_AHEAD: Final = 16
# The launch request carries the caller's environment and argv: as much as execve(2) takes.
MAX_REQUEST_BYTES: Final = 4 << 20
