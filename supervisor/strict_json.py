"""JSON that means one thing: parsed without duplicate keys, floats or deep nesting, and written canonically (RFC 8785).

Everything that is signed, hashed or decided on goes through here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import Any, Final, NoReturn

import rfc8785

from supervisor.errors import UsageError

# regorus refuses about 128 (its "recursion limit exceeded"); nothing of ours nests a tenth of it.
MAX_DEPTH: Final = 32
# What every JSON reader keeps exactly (RFC 8785, section 3.2.2.3; ECMAScript's safe integers).
MAX_INTEGER: Final = 2**53 - 1


def parse(data: bytes, limit_bytes: int, what: str) -> Any:
    """Parse one JSON text strictly.

    Args:
        what: Its name in a complaint, such as ``manifest``.

    Raises:
        UsageError: Too large, no JSON, no UTF-8, a key twice, a number that is no whole one, nested too deeply.
    """
    if len(data) > limit_bytes:
        raise UsageError(f"{what}: {len(data)} bytes, at most {limit_bytes} are read")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_key_twice,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
            parse_int=_whole,
        )
        _check_text(value, 0)
    except (ValueError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{what}: {text}") from error
    return value


def canonical(value: Any) -> bytes:
    """Return *value* in the JSON Canonicalization Scheme (RFC 8785)."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """Return ``sha256:`` and the hexadecimal SHA-256 of the canonical form."""
    return digest_of(canonical(value))


def digest_of(data: bytes) -> str:
    """Return ``sha256:`` and the hexadecimal SHA-256 of *data*."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def plain(value: Any) -> Any:
    """Return a dataclass (or what holds some) as JSON-able values: tuples as lists, enumerations as their words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, int) else value.value
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice!r} stands twice")
    return value


def _no_fraction(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]}: want a whole number")


def _whole(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"{text[:40]}: want a whole number of at most {MAX_INTEGER}")
    return int(text)


def _check_text(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        value.encode("utf-8")  # half of a surrogate pair is a ValueError
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth + 1)
            _check_text(item, depth + 1)
