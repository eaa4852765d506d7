"""A JSON Schema as a function that is fast enough for every decision (jsonschema takes milliseconds, this tens of µs).

For our own schemas only: a keyword that is not known here is an error when compiling, so nothing is passed over. Tests
hold it against jsonschema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[Any], None]

_KNOWN: Final = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "uniqueItems"),
        *("enum", "const", "minimum", "maximum", "minLength", "maxLength", "pattern", "$ref"),
        *("$schema", "$id", "$defs", "title", "description"),
    }
)


def compile_schema(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None, at: str = "") -> Check:
    """Return the check for *schema*; it raises ValueError with the place and what was expected.

    Raises:
        ValueError: The schema has a keyword that is not known here, or an object that is not closed.
        KeyError: A number, text or list without bounds.
    """
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    if "$ref" in schema:
        return compile_schema(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions, at)
    if unknown := set(schema) - _KNOWN:
        raise ValueError(f"schema {at or 'root'}: unknown keyword {min(unknown)!r}")
    if "const" in schema or "enum" in schema:
        return _one_of(schema.get("enum", [schema.get("const")]), at)
    kind = schema["type"]
    if kind == "object":
        return _object(schema, definitions, at)
    if kind == "array":
        return _array(schema, definitions, at)
    if kind == "boolean":
        return _boolean(at)
    return _integer(schema, at) if kind == "integer" else _text(schema, at)


def _one_of(values: list[Any], at: str) -> Check:
    allowed = {(type(value), value) for value in values}

    def check(value: Any) -> None:
        if isinstance(value, dict | list) or (type(value), value) not in allowed:
            raise ValueError(f"{at}: {_shown(value)}, want {' or '.join(map(str, values))}")

    return check


def _object(schema: Mapping[str, Any], definitions: Mapping[str, Any], at: str) -> Check:
    if schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"]):
        raise ValueError(f"schema {at or 'root'}: want a closed object with every property required")
    parts = {
        name: compile_schema(body, definitions, f"{at}.{name}" if at else name)
        for name, body in schema["properties"].items()
    }
    names = parts.keys()

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise ValueError(f"{at or 'document'}: {_shown(value)}, want an object")
        if value.keys() != names:
            odd = min(map(str, value.keys() ^ names))
            raise ValueError(f"{at or 'document'}: {'unknown' if odd in value else 'missing'} key {odd[:40]!r}")
        for name, part in parts.items():
            part(value[name])

    return check


def _array(schema: Mapping[str, Any], definitions: Mapping[str, Any], at: str) -> Check:
    item = compile_schema(schema["items"], definitions, f"{at}[]")
    least, most = schema.get("minItems", 0), schema["maxItems"]
    unique = schema.get("uniqueItems", False)

    def check(value: Any) -> None:
        if type(value) is not list or not least <= len(value) <= most:
            raise ValueError(f"{at}: {_shown(value)}, want a list of {least} to {most}")
        for entry in value:
            item(entry)
        if unique and any(entry in value[:index] for index, entry in enumerate(value)):
            raise ValueError(f"{at}: an entry stands twice")

    return check


def _integer(schema: Mapping[str, Any], at: str) -> Check:
    least, most = int(schema["minimum"]), int(schema["maximum"])

    def check(value: Any) -> None:
        if type(value) is not int or not least <= value <= most:  # a bool is an int to isinstance
            raise ValueError(f"{at}: {_shown(value)}, want a whole number from {least} to {most}")

    return check


def _text(schema: Mapping[str, Any], at: str) -> Check:
    shortest, longest = int(schema.get("minLength", 0)), int(schema["maxLength"])
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None

    def check(value: Any) -> None:
        if type(value) is not str or not shortest <= len(value) <= longest:
            raise ValueError(f"{at}: {_shown(value)}, want a text of {shortest} to {longest} characters")
        if pattern is not None and not pattern.fullmatch(value):
            raise ValueError(f"{at}: {_shown(value)} does not match {pattern.pattern}")

    return check


def _boolean(at: str) -> Check:
    def check(value: Any) -> None:
        if type(value) is not bool:
            raise ValueError(f"{at}: {_shown(value)}, want true or false")

    return check


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else f"{text[:60]}…"
