"""The fields of a client's request, read strictly: the right type or a `UsageError` that names the field."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from supervisor.errors import UsageError


def is_word(value: object) -> bool:
    """Return whether the kernel takes it as an argument or a name: no NUL, and bytes that are no UTF-8 only escaped."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def word(value: object, what: str) -> str:
    """Return a word; an empty one for null."""
    if value is None:
        return ""
    if not isinstance(value, str) or not is_word(value):
        raise UsageError(f"{what}: want a word, without NUL and half characters")
    return value


def flag(value: object, what: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{what}: want true or false")
    return bool(value)


def strings(value: object, what: str) -> list[str]:
    if not isinstance(value, list) or not all(map(is_word, value)):
        raise UsageError(f"{what}: want a list of words, without NUL and half characters")
    return value


def mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{what}: want names and values")
    return value


def overrides(value: object) -> Mapping[str, str | None]:
    words = mapping(value, "--env")
    if not all(is_word(name) and (word is None or is_word(word)) for name, word in words.items()):
        raise UsageError("--env: want names, each with a word or nothing, without NUL and half characters")
    return words


def environment(value: object) -> Mapping[str, str]:
    """What is no word is left out: the profile's allow-list would not pass it on either."""
    return {key: word for key, word in mapping(value, "environment").items() if is_word(key) and is_word(word)}


def session(request: Mapping[str, Any]) -> str:
    return word(request.get("session"), "SESSION") or "last"


def absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{what} {path!r}: want an absolute path")
    return os.path.normpath(path)


def number(value: object, what: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise UsageError(f"{what} {value!r}: want a whole number from {least} to {most}")
    return value
