"""Recorded decisions, made again by another policy: which would change. Pure over the documents that were decided on.

The document holds what was known then, so roles are those of then; what a bundle changes in roles.json is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import UsageError
from supervisor.policy.decide import MAX_DOCUMENT_BYTES, read_decision
from supervisor.policy.expired import RULE
from supervisor.policy.matrix import summary

# What the daemon answers by itself, whatever the policy.
_OWN: Final = "engine:"
_DURATIONS: Final = (("request", "duration_s"), ("agent", "manifest", "duration_max_s"))


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recorded decision beside the new one; *changed* when effect, rules, approvers or terms differ.

    Attributes:
        problem: Why it could not be made again; then *new* is empty.
    """

    request: str
    at_ns: int
    old: str
    new: str
    problem: str = ""

    @property
    def changed(self) -> bool:
        return not self.problem and self.old != self.new


def replay(entries: Iterable[Mapping[str, Any]], evaluate: Callable[[bytes], bytes]) -> Iterator[Replayed]:
    """Make each decision of the journal again.

    Args:
        entries: Journal entries of kind ``decision``.
        evaluate: The other policy, strict: it raises ValueError or UsageError for what it cannot answer.
    """
    for entry in entries:
        body, request, at_ns = entry["body"], str(entry["subject"]), int(entry["at_ns"])
        old = _recorded(body)
        text = str(body.get("document", ""))
        raw = text.encode()
        if not raw or strict_json.digest_of(raw) != body["input_digest"]:
            yield Replayed(request, at_ns, old, "", "its document was not kept" if not raw else "it was changed")
            continue
        if any(reason["code"].startswith(_OWN) for reason in body["reasons"]) or RULE in body["rules"]:
            yield Replayed(request, at_ns, old, "", "the service answered it, not the policy")
            continue
        try:
            yield Replayed(request, at_ns, old, _made_again(raw, evaluate))
        except (ValueError, UsageError) as error:
            yield Replayed(request, at_ns, old, "deny engine:error", str(error)[:300])


def _made_again(raw: bytes, evaluate: Callable[[bytes], bytes]) -> str:
    document = strict_json.parse(raw, MAX_DOCUMENT_BYTES, "document")
    decision = read_decision(evaluate(raw))
    effect, names = summary(decision)
    return _text(effect, names, strict_json.plain(decision.obligations), document)


def _recorded(body: Mapping[str, Any]) -> str:
    names = {*body["rules"], *(f"~{reason['code']}" for reason in body["observed"])}
    names |= {clause["id"] for clause in (body["quorum"] or {}).get("clauses", ())}
    return _text(body["effect"], sorted(names), body["obligations"], {})


def _text(effect: str, names: Iterable[str], duties: Mapping[str, Any] | None, document: Mapping[str, Any]) -> str:
    """Return a decision as words: ``allow low-risk 900s copy``."""
    words = [str(effect), *names]
    if duties is not None:
        words.append(f"{min([duties['ttl_s'], *_limits(document)])}s")
        words += [name for name in ("copy", "read_only", "always") if duties[name]]
    return " ".join(words)


def _limits(document: Mapping[str, Any]) -> Iterator[int]:
    """Yield the durations that no policy may exceed; see `decide`."""
    for path in _DURATIONS:
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, int):
            yield value
