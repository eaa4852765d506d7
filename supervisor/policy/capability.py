"""What is asked for and what is given: a kind, a selector in canonical form, operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Kind(StrEnum):
    """What a capability is for; the words of the manifest."""

    FILE = "file"
    EXEC = "exec"
    SECRET = "secret"  # noqa: S105 - the kind's name
    NETWORK = "net"
    AGENT = "agent.call"


OPERATIONS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.FILE: ("read", "write"),
    Kind.EXEC: ("run",),
    Kind.SECRET: ("use",),
    Kind.NETWORK: ("connect",),
    Kind.AGENT: ("spawn",),
}


class Level(IntEnum):
    """How sensitive data is; each includes the care for those below."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @property
    def word(self) -> str:
        """The word in manifests, policies and tables."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Level:
        """Return the level of that word.

        Raises:
            KeyError: There is none.
        """
        return cls[word.upper()]


class Assurance(IntEnum):
    """What a vote proves."""

    A0 = 0  # something with the owner's uid outside every sandbox
    A1 = 1  # fresh authentication
    A2 = 2  # a security key touched over the digest
    A3 = 3  # another device or person


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that may be done.

    Attributes:
        selector: ``file``: an absolute canonical path whose segments may hold ``*``, or ending in ``/**`` (a tree);
            ``exec``: the path of a program; ``secret``: its name; ``net``: ``host:port``; ``agent.call``: the agent.
        operations: Sorted, without repetition, of `OPERATIONS`.
    """

    kind: Kind
    selector: str
    operations: tuple[str, ...]
