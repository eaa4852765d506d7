"""What a manifest document may hold: the published schema, then what no schema can say."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final

import jsonschema

from supervisor.errors import UsageError
from supervisor.policy.capability import OPERATIONS, Kind
from supervisor.policy.selector import parse_selector
from supervisor.timestamp import parse_utc

SCHEMA: Final = "deskwarden.manifest/1"
SCHEMA_STEP: Final = "deskwarden manifest schema"

Where = tuple[str | int, ...]


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return the published schema. The first call reads the file: a daemon makes it before it gives rights up."""
    text = resources.files("supervisor.policy").joinpath("manifest.schema.json").read_bytes()
    value: Mapping[str, Any] = json.loads(text)
    return value


def problems(value: Any) -> Iterable[tuple[Where, str]]:
    """Say what is wrong with the document *value*, with its place; the first is the one to tell."""
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(value))
    if problem is not None:
        yield _schema_place(problem), _schema_text(problem)
        return
    for where, kind, selector in _selectors(value):
        try:
            parsed = parse_selector(kind, selector)
        except UsageError as error:
            yield where, f"{error.message}; {error.next_step}"
            continue
        if where[0] == "binaries" and parsed.is_pattern:
            yield where, "want one program, no pattern"
    yield from _contradictions(value)


def place(where: Where) -> str:
    """Return *where* as people write it: ``capabilities[0].selector``."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{ascii(part)[1:-1][:80]}" for part in where)
    return words.removeprefix(".") or "the manifest"


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def _schema_place(problem: jsonschema.ValidationError) -> Where:
    return (*problem.absolute_path, *_unknown(problem)[:1])


def _unknown(problem: jsonschema.ValidationError) -> list[str]:
    """Return the fields that a closed object does not have."""
    rule, found = problem.schema, problem.instance
    if problem.validator != "additionalProperties" or not isinstance(rule, dict) or not isinstance(found, dict):
        return []
    return sorted(found.keys() - rule["properties"].keys())


def _schema_text(problem: jsonschema.ValidationError) -> str:
    rule: Mapping[str, Any] = problem.schema if isinstance(problem.schema, dict) else {}
    if _unknown(problem):
        return f"unknown field; known are: {', '.join(sorted(rule['properties']))}"
    if problem.validator == "required" and isinstance(problem.instance, dict):
        return f"missing: {', '.join(name for name in rule['required'] if name not in problem.instance)}"
    about = f"; want {rule['description']}" if "description" in rule else ""
    seen = ascii(problem.instance)[:80]
    if problem.validator in ("const", "enum", "type", "minimum", "maximum"):
        return f"{seen}: want {problem.validator} {json.dumps(problem.validator_value)}{about}"
    return f"{seen}: breaks {problem.validator}{about}"


def _selectors(value: Mapping[str, Any]) -> Iterable[tuple[Where, Kind, str]]:
    for index, entry in enumerate(value["capabilities"]):
        yield ("capabilities", index, "selector"), Kind(entry["kind"]), entry["selector"]
    for index, binary in enumerate(value.get("binaries", ())):
        yield ("binaries", index, "path"), Kind.EXEC, binary["path"]
    for index, to in enumerate(value.get("egress", ())):
        yield ("egress", index, "host"), Kind.NETWORK, f"{to['host']}:{to['port']}"
        if "sni_pin" in to:
            yield ("egress", index, "sni_pin"), Kind.NETWORK, f"{to['sni_pin']}:{to['port']}"
    for index, call in enumerate(value.get("calls", ())):
        yield ("calls", index, "agent"), Kind.AGENT, call["agent"]


def _contradictions(value: Mapping[str, Any]) -> Iterable[tuple[Where, str]]:
    ids: set[str] = set()
    for index, entry in enumerate(value["capabilities"]):
        where: Where = ("capabilities", index)
        known = OPERATIONS[Kind(entry["kind"])]
        if wrong := sorted(set(entry["ops"]) - set(known)):
            yield (*where, "ops"), f"{wrong[0]} is no operation on {entry['kind']}; known are: {', '.join(known)}"
        if entry["id"] in ids:
            yield (*where, "id"), f"the id {entry['id']} stands twice"
        ids.add(entry["id"])
    times: dict[str, int] = {}
    for name in ("not_before", "expires"):
        try:
            times[name] = parse_utc(value[name])
        except UsageError as error:
            yield (name,), error.message
    if len(times) == 2 and times["expires"] <= times["not_before"]:
        yield ("expires",), "want a time after not_before"
    if (value["seq"] == 1) != ("prev_digest" not in value):
        yield ("seq",), "number 1 has no prev_digest, every other has the digest of the one before"
