"""``deskwarden logs``: what a session printed, filtered when it goes to a terminal.

Cursor movement and erasing pass, as in `run`: without them the log of a full-screen program can't be read. So an agent
can overwrite what it printed before. Nothing is decided on a log; `diff` shows every byte, `logs … | cat -v` does here.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
from collections.abc import Callable

from supervisor.cli import conversation, interrupt, service
from supervisor.cli.terminal import OutputFilter
from supervisor.errors import ServiceError, from_wire
from supervisor.linux import seqpacket

HELP = "show what a session printed"

# Takes what was printed; the last time nothing, and that it is the end.
Show = Callable[[bytes, bool], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("session", metavar="SESSION", nargs="?", default="last")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")


def run(args: argparse.Namespace) -> int:
    """Print it; Ctrl-C, which ends ``-f``, gives the terminal back as it was."""
    values = _Values() if args.json else None
    show: Show = values or (_on_terminal() if os.isatty(1) else _raw)
    try:
        with interrupt.raised():
            _carry(args, show)
    finally:
        show(b"", True)
    if values is not None:
        values.print_at_least_one()
    return 0


def _carry(args: argparse.Namespace, show: Show) -> None:
    with service.connect() as sock:
        seqpacket.send_json(sock, {"verb": "logs", "session": args.session, "follow": args.follow})
        while True:
            payload, fds = seqpacket.receive(sock)
            if not payload:
                raise ServiceError("the daemon hung up", f"deskwarden logs {args.session}")
            if payload[:1] not in (b"{", b"@"):
                show(payload[1:], False)
                continue
            message, fds = seqpacket.decode_json(payload, fds)
            seqpacket.close_all(fds)
            if message["event"] == "error":
                raise from_wire(message["error"])
            return


def _raw(data: bytes, _is_end: bool) -> None:
    conversation.write_all(1, data)


def _on_terminal() -> Show:
    one = OutputFilter()
    return lambda data, is_end: conversation.write_all(1, one.flush() + one.restore() if is_end else one.feed(data))


class _Values:
    """One object a line; bytes that are no UTF-8 as lone surrogates, as in every JSON of ours."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._any = False

    def __call__(self, data: bytes, is_end: bool) -> None:
        text = self._decoder.decode(data, is_end)
        if text:
            self._print(text)

    def print_at_least_one(self) -> None:
        """Print an empty output for a session that printed nothing: no line at all would be no JSON."""
        if not self._any:
            self._print("")

    def _print(self, text: str) -> None:
        self._any = True
        print(json.dumps({"output": text}), flush=True)
