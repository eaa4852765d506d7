"""Names for sessions, requests and grants: short, unguessable enough, easy to type."""

from __future__ import annotations

import re
import secrets
from typing import Final

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


def new_session_id() -> str:
    """Return eight characters without look-alikes; starts with a letter, so it is never taken for a number."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(7))


def new_id(prefix: str) -> str:
    """Return *prefix* and eight characters, for requests (``r``), grants (``g``) and rules (``u``)."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(8))


def is_session_name(name: str) -> bool:
    """Return whether *name* may be given with --name: it must be usable in a shell and as a host name."""
    return _NAME.fullmatch(name) is not None and name != "last"
