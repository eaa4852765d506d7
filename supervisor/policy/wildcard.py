"""`*` within one segment of a path, matched in linear time. Standard library only: the hand uses it too."""

from __future__ import annotations


def matches(pattern: str, name: str) -> bool:
    """Tell whether *name* is what *pattern* describes, each ``*`` standing for any run of characters."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    last = others.pop()
    end = len(name) - len(last)
    if end < len(first) or not name.startswith(first) or not name.endswith(last):
        return False
    at = len(first)
    for part in others:
        found = name.find(part, at, end)
        if found == -1:
            return False
        at = found + len(part)
    return True


def matches_visible(pattern: str, name: str) -> bool:
    """As `matches`, but a leading dot is matched by a dot alone: ``*`` does not reach hidden names."""
    return (not name.startswith(".") or pattern.startswith(".")) and matches(pattern, name)
