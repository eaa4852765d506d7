"""How sensitive a secret is: by its name and by the classes that its owner gave it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from supervisor.policy.capability import Level
from supervisor.policy.secrets_in_text import PRODUCTION_SECRET

_WORD: Final = re.compile(r"[A-Za-z]+")
_PRODUCTION: Final = frozenset({"prod", "prd", "production", "live"})


def judge_secret(name: str, classes: Iterable[str]) -> tuple[Level, tuple[str, ...], tuple[str, ...]]:
    """Return level, classes (sorted) and why; no secret is less than confidential."""
    found = set(classes)
    why = [f"its owner says {one}" for one in sorted(found)]
    if words := sorted({word.lower() for word in _WORD.findall(name)} & _PRODUCTION):
        found.add(PRODUCTION_SECRET)
        why.append(f"{words[0]} in its name")
    level = Level.RESTRICTED if PRODUCTION_SECRET in found else Level.CONFIDENTIAL
    return level, tuple(sorted(found)), tuple(why)
