"""A manifest as people write it: YAML with comments, into the JSON document that is signed.

The one place where ``~/`` is expanded, to the home of whoever writes: what is signed names one path only. Complaints
are ``path:line:column: what``.
"""

from __future__ import annotations

from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import UsageError
from supervisor.policy.capability import Kind
from supervisor.policy.manifest import Manifest, parse
from supervisor.policy.manifest_schema import SCHEMA, SCHEMA_STEP, place, problems
from supervisor.policy.selector import parse_selector
from supervisor.strict_yaml import read_yaml
from supervisor.timestamp import format_utc

TEMPLATE_DAYS: Final = 90  # a quarter: when the owner is asked again anyway

_TEMPLATE: Final = """\
# What {name} is, who answers for it, and the most it may ever ask for.
# Check it:  deskwarden manifest check {path}
# Sign it:   deskwarden manifest sign {path} --key KEY --role owner
# Fields:    deskwarden manifest schema
schema: {schema}
name: {name}
version: 0.1.0
class_claim: user-owned          # or service, system: a claim only
publisher: {user}                # the name of the key that signs as publisher
owner:
  user: {user}                   # the name of the key that signs as owner
#   team: finance
purpose: Say in a sentence what this agent is for.

# What it may ask for. What is not here is denied; what is here is still decided each time.
capabilities:
  - id: work
    kind: file                   # file, exec, secret, net, agent.call
    selector: ~/work/**          # * is a part of one name and never a leading dot; /** at the end is a whole tree
    ops: [read]                  # file: read, write; exec: run; secret: use; net: connect; agent.call: spawn
    label_max: internal          # public, internal, confidential, restricted
    justification: It reads the files it works on.
#   - id: api
#     kind: net
#     selector: api.example.com:443
#     ops: [connect]
#     justification: It asks the model there.
duration_max_s: 1200             # the longest that one grant lasts: 20 minutes

# roles: [agent-viewer]
# data_labels: [payment-card]
# binaries:
#   - path: ~/.local/bin/{name}
#     sha256: {zeros}
# calls:
#   - agent: other-agent
#     max_depth: 1
# rollback:
#   kind: workspace

not_before: {not_before}
expires: {expires}
seq: 1                           # one more each time; then with the digest of the one before:
# prev_digest: sha256:{zeros}
"""


def template(name: str, user: str, path: str, now_s: int) -> str:
    """Return a commented manifest to start from, valid as it is."""
    return _TEMPLATE.format(
        name=name,
        user=user,
        path=path,
        schema=SCHEMA,
        zeros="0" * 64,
        not_before=format_utc(now_s),
        expires=format_utc(now_s + TEMPLATE_DAYS * 86400),
    )


def read_source(data: bytes, path: str, home: str) -> bytes:
    """Return the canonical JSON (RFC 8785) of the manifest in YAML: the payload to sign.

    Args:
        home: What ``~/`` at the start of a path stands for.

    Raises:
        UsageError: ``path:line:column: what`` for anything that `manifest.parse` would refuse.
    """
    document = read_yaml(data, path, SCHEMA_STEP)
    value = _expanded(document.value, home)
    for where, text in problems(value):
        raise document.error(where, f"{place(where)}: {text}")
    try:
        return strict_json.canonical(value)
    except ValueError as error:
        raise document.error((), str(error)) from error


def read_manifest(data: bytes, path: str, home: str) -> Manifest:
    """Return the manifest that signing *data* would give."""
    return parse(read_source(data, path, home))


def _expanded(value: Any, home: str) -> Any:
    """Return a copy with ``~/`` expanded where a path stands; what does not fit the schema stays as it is."""
    if not isinstance(value, dict):
        return value
    result = dict(value)
    for field, key in (("capabilities", "selector"), ("binaries", "path")):
        if isinstance(items := value.get(field), list):
            result[field] = [_item(item, key, home) for item in items]
    return result


def _item(item: Any, key: str, home: str) -> Any:
    if not isinstance(item, dict) or item.get("kind", "file") not in ("file", "exec"):
        return item
    text = item.get(key)
    if not isinstance(text, str) or not text.startswith("~/"):
        return item
    next_step = "set HOME to the absolute path of your home, or write the path out"
    try:
        if parse_selector(Kind.FILE, home).is_pattern:
            raise UsageError(f"{home[:120]!a}: holds a *")
    except UsageError as error:
        raise UsageError(f"~/ cannot be expanded: HOME is {error.message}", next_step) from error
    return item | {key: f"{home}{text[1:]}"}
