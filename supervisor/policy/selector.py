r"""What a selector means: which names it matches, which other selectors it covers, which it overlaps.

One canonical spelling each, and no other is read:

===========  ==========================================================================================================
file, exec   an absolute path. ``*`` stands for any run of characters within one name, and **never for a leading dot**
             (``/a/*`` leaves ``/a/.ssh`` out; ``/a/.*`` names it). ``/**`` at the end, and only there, is the whole
             tree: the directory itself and all below it, names with a leading dot included. ``?``, ``[``, ``{`` and
             ``\`` are letters like others. A name that really holds a ``*`` can't be selected alone
secret       names with ``/`` between them, ``*`` and ``/**`` as above
net          ``host:port``: a name in small ASCII letters whose first label may be ``*`` (exactly one label, at least
             two more follow), or an IP address as RFC 5952 spells it
agent.call   an agent's name, or ``spiffe://DOMAIN/agent/CLASS/NAME``; no patterns
===========  ==========================================================================================================

Paths are names as the owner's hand resolved them: a link, a ``..`` or another spelling never gets here. Pure.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from supervisor.errors import UsageError
from supervisor.policy.capability import Capability, Kind

MAX_SELECTOR_BYTES: Final = 4095  # PATH_MAX without its NUL
MAX_NAME_BYTES: Final = 255  # NAME_MAX

_TREE: Final = "**"
# Control, format (bidirectional, zero width), surrogate, private, unassigned; line and paragraph separators.
_FORBIDDEN_CATEGORIES: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]*")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_AGENT: Final = re.compile(
    r"(?:spiffe://[a-z0-9](?:[a-z0-9.-]{0,253}[a-z0-9])?/agent/(?:system|service|user-owned)/)?[a-z][a-z0-9-]{0,62}"
)
_PATH_STEP: Final = "write an absolute path; * stands for a part of one name, /** at the end for a whole tree"
_NETWORK_STEP: Final = "write host:port, such as api.example.com:443 or *.example.com:443"


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector in parts.

    Attributes:
        segments: Names or patterns, the most general first (for ``net``: the port, then labels from the right).
        tree: Whether everything below counts too.
    """

    kind: Kind
    text: str
    segments: tuple[str, ...]
    tree: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether it can match more than one name."""
        return self.tree or any("*" in segment for segment in self.segments)


@functools.lru_cache(maxsize=1024)
def parse_selector(kind: Kind, text: str) -> Selector:
    """Read one selector.

    Raises:
        UsageError: It is not in the one canonical spelling; the message names what is wrong with it.
    """
    _check_text(text)
    if kind in (Kind.FILE, Kind.EXEC):
        return _path_selector(kind, text)
    if kind is Kind.SECRET:
        return _secret_selector(text)
    if kind is Kind.NETWORK:
        return Selector(kind, text, _network_segments(text))
    if not _AGENT.fullmatch(text):
        _refuse(text, "want an agent's name or spiffe://DOMAIN/agent/CLASS/NAME", "write the name of its manifest")
    return Selector(kind, text, (text,))


def matches(selector: str, path: str) -> bool:
    """Return whether *path*, a name on this machine and no pattern, is in the ``file`` or ``exec`` *selector*.

    Raises:
        UsageError: One of them is not canonical. It is no answer: False would let it past a deny.
    """
    wide = parse_selector(Kind.FILE, selector)
    _check_text(path)
    if path == "/":
        return wide.tree and not wide.segments
    if not path.startswith("/"):
        _refuse(path, "is not absolute", _PATH_STEP)
    names = tuple(path[1:].split("/"))
    _check_names(path, names)
    return _covers(wide, Selector(Kind.FILE, path, names))


def covers(wide: str, narrow: str, kind: Kind = Kind.FILE) -> bool:
    """Return whether everything that *narrow* matches is matched by *wide*; exact, never only probable.

    Raises:
        UsageError: One of them is not canonical.
    """
    return _covers(parse_selector(kind, wide), parse_selector(kind, narrow))


def overlaps(one: str, other: str, kind: Kind = Kind.FILE) -> bool:
    """Return whether some name is matched by both.

    Raises:
        UsageError: One of them is not canonical.
    """
    a, b = parse_selector(kind, one), parse_selector(kind, other)
    if len(a.segments) > len(b.segments):
        a, b = b, a
    if not a.tree and (len(a.segments) != len(b.segments)):
        return False
    return all(map(_segments_overlap, a.segments, b.segments))


def capability_covers(wide: Capability, narrow: Capability) -> bool:
    """Return whether *narrow* is a part of *wide*: same kind, no further operation, no further name.

    Raises:
        UsageError: A selector is not canonical.
    """
    return (
        wide.kind is narrow.kind
        and set(narrow.operations) <= set(wide.operations)
        and covers(wide.selector, narrow.selector, wide.kind)
    )


def capabilities_overlap(one: Capability, other: Capability) -> bool:
    """Return whether some operation on some name is in both."""
    return (
        one.kind is other.kind
        and not set(one.operations).isdisjoint(other.operations)
        and overlaps(one.selector, other.selector, one.kind)
    )


def _covers(wide: Selector, narrow: Selector) -> bool:
    same_depth = len(wide.segments) == len(narrow.segments) and not narrow.tree
    if not (same_depth or (wide.tree and len(wide.segments) <= len(narrow.segments))):
        return False
    return all(map(_segment_covers, wide.segments, narrow.segments))


def _segment_covers(wide: str, narrow: str) -> bool:
    """Whether *wide* matches every name that *narrow* does.

    A star of *narrow* is read as one letter that no fixed part of *wide* holds, so only a star of *wide* can take it,
    and what takes that letter takes any other text. Hence the same function answers for names and for patterns.
    """
    first, *pieces = wide.split("*")
    if not pieces:
        return wide == narrow
    if wide[0] == "*" and narrow[0] == ".":
        return False
    last = pieces.pop()
    at, end = len(first), len(narrow) - len(last)
    if at > end or not narrow.startswith(first) or not narrow.endswith(last):
        return False
    for piece in pieces:
        at = narrow.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _segments_overlap(one: str, other: str) -> bool:
    """Whether some name matches both: with a star in each, what is fixed at both ends decides."""
    if "*" not in one:
        return _segment_covers(other, one)
    if "*" not in other:
        return _segment_covers(one, other)
    if (one[0] == "*" and other[0] == ".") or (other[0] == "*" and one[0] == "."):
        return False
    heads = one.partition("*")[0], other.partition("*")[0]
    tails = one.rpartition("*")[2], other.rpartition("*")[2]
    shorter_head, shorter_tail = min(map(len, heads)), min(map(len, tails))
    same_head = heads[0][:shorter_head] == heads[1][:shorter_head]
    return same_head and tails[0][len(tails[0]) - shorter_tail :] == tails[1][len(tails[1]) - shorter_tail :]


def _path_selector(kind: Kind, text: str) -> Selector:
    if text.startswith("~"):
        _refuse(text, "a ~ is not expanded here", _PATH_STEP)
    if not text.startswith("/"):
        _refuse(text, "is not absolute", _PATH_STEP)
    names, tree = _without_tree(tuple(text[1:].split("/")))
    _check_names(text, names)
    _check_stars(text, names)
    for name in names:
        if "$" in name:
            _refuse(text, "variables ($) are not expanded", _PATH_STEP)
        if name.startswith("~"):
            _refuse(text, "a name that starts with ~ may be expanded elsewhere", _PATH_STEP)
    return Selector(kind, text, names, tree)


def _secret_selector(text: str) -> Selector:
    names, tree = _without_tree(tuple(text.split("/")))
    if not names or not all(_SECRET_NAME.fullmatch(name) for name in names):
        _refuse(text, "want names of letters, digits, . _ - with / between them", "deskwarden manifest schema")
    _check_stars(text, names)
    return Selector(Kind.SECRET, text, names, tree)


def _without_tree(names: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    return (names[:-1], True) if names[-1] == _TREE else (names, False)


def _network_segments(text: str) -> tuple[str, ...]:
    host, _, port = text.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        _refuse(text, "want a port from 1 to 65535 after the last colon", _NETWORK_STEP)
    labels = host.split(".")
    if host.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return (port, _address(text, host))
    named = labels[1:] if labels[0] == "*" else labels
    if len(labels) != len(named) and len(named) < 2:
        _refuse(text, "a * stands for one label before at least two others", _NETWORK_STEP)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in named):
        _refuse(text, "want a host name in small ASCII letters, digits and -, without a dot at its end", _NETWORK_STEP)
    return (port, *reversed(labels))


def _address(text: str, host: str) -> str:
    """Return the IP address, which must be spelled in the one usual way (RFC 5952; dotted quad)."""
    try:
        if not host.startswith("["):
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(host)
            usual = str(address)
        else:
            six = ipaddress.IPv6Address(host[1:-1])
            address, usual = six, f"[{six}]"
            # ::ffff:0:0/96 is IPv4 in other words, ::/96 was (RFC 4291, section 2.5.5); ::1 lies in it
            if six.ipv4_mapped or six.scope_id or 1 < int(six) < 2**32:
                _refuse(text, "an IPv6 address with an IPv4 address or a zone in it", _NETWORK_STEP)
    except ValueError:
        _refuse(text, "is no IP address", _NETWORK_STEP)
    if address.is_unspecified:
        _refuse(text, "names no machine, or this one", _NETWORK_STEP)
    if usual != host:
        _refuse(text, f"want the address as {usual}", _NETWORK_STEP)
    return host


def _check_text(text: str) -> None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        _refuse(text, "is not UTF-8", "rename the file")
    if not 0 < size <= MAX_SELECTOR_BYTES:
        _refuse(text, f"{size} bytes, want 1 to {MAX_SELECTOR_BYTES}", _PATH_STEP)
    if text.isascii() and text.isprintable():
        return
    for character in text:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
            name = unicodedata.name(character, "a control character")
            _refuse(text, f"holds U+{ord(character):04X} ({name})", "leave it out: it cannot be seen or is not fixed")
    if not unicodedata.is_normalized("NFC", text):
        _refuse(text, "is not in Unicode's composed form (NFC)", "type the name anew, or rename the file")


def _check_names(text: str, names: Sequence[str]) -> None:
    for name in names:
        if not name:
            _refuse(text, "holds // or ends in /", _PATH_STEP)
        if name in (".", ".."):
            _refuse(text, f"holds the name {name}", _PATH_STEP)
        if len(name.encode("utf-8")) > MAX_NAME_BYTES:
            _refuse(text, f"holds a name of more than {MAX_NAME_BYTES} bytes", _PATH_STEP)


def _check_stars(text: str, names: Sequence[str]) -> None:
    if any(_TREE in name for name in names):
        _refuse(text, "** may only be the whole last name", _PATH_STEP)


def _refuse(text: str, why: str, next_step: str) -> NoReturn:
    shown = ascii(text if len(text) <= 120 else f"{text[:120]}…")
    raise UsageError(f"{shown}: {why}", next_step)
