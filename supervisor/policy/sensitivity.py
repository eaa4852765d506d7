"""How sensitive a resource is: path rules, labels and what the classifier found, combined into one level. Pure.

Rules are data, ``sensitivity.json``; an owner or IT adds to them (`Rules.extended`) and never takes one away. A label
(xattr ``user.deskwarden.level``, ``user.deskwarden.classes``) raises; a word that is no level counts as the highest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import UsageError
from supervisor.policy.capability import Level
from supervisor.policy.wildcard import matches

_LIMIT_BYTES: Final = 1 << 18
_CLASS: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MOST_EVIDENCE: Final = 20
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class PathRule:
    """A run of a path's components, each of which may hold ``*``, in lower case; what lies below is as sensitive."""

    components: tuple[str, ...]
    level: Level
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContentRule:
    """From *least* findings of *data_class* on, a text has that level and *also* these classes."""

    data_class: str
    least: int
    level: Level
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force; `watched` goes to the hand, `markers` to the classifier."""

    paths: tuple[PathRule, ...]
    contents: tuple[ContentRule, ...]
    markers: Mapping[str, tuple[str, ...]]

    @property
    def watched(self) -> tuple[tuple[str, ...], ...]:
        """The path rules as component patterns."""
        return tuple(rule.components for rule in self.paths)

    def extended(self, more: Rules) -> Rules:
        """Return both; each can only add to what the other finds."""
        markers = {name: (*self.markers.get(name, ()), *words) for name, words in more.markers.items()}
        return replace(
            self,
            paths=self.paths + more.paths,
            contents=self.contents + more.contents,
            markers={**self.markers, **markers},
        )


@dataclass(frozen=True, slots=True)
class Content:
    """What the classifier said of one file."""

    name: str
    classes: Mapping[str, int]
    complete: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The fields of `request.Resource` that are found out here."""

    level: Level
    classes: tuple[str, ...]
    complete: bool
    evidence: tuple[str, ...]


def default_rules() -> Rules:
    """Return the rules that come with Deskwarden."""
    data = (resources.files("supervisor.policy") / "sensitivity.json").read_bytes()
    return parse_rules(data, "sensitivity.json")


def parse_rules(data: bytes, what: str) -> Rules:
    """Read rules strictly.

    Raises:
        UsageError: An unknown field, level or class name; a pattern that matches everything.
    """
    value = strict_json.parse(data, _LIMIT_BYTES, what)
    try:
        _only(value, {"schema", "paths", "contents", "markers"})
        if value["schema"] != 1:
            raise ValueError(f"schema {value['schema']!r}, want 1")
        return Rules(
            tuple(rule for entry in value["paths"] for rule in _path_rules(entry)),
            tuple(_content_rule(entry) for entry in value["contents"]),
            {_class(name): tuple(_word(word) for word in words) for name, words in value["markers"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{what}: {type(error).__name__}: {error}", "see supervisor/policy/sensitivity.json"
        ) from error


def judge(
    rules: Rules,
    paths: Iterable[str],
    labels: Iterable[tuple[str, str]],
    contents: Iterable[Content],
    *,
    complete: bool = True,
) -> Sensitivity:
    """Combine everything that is known of a resource.

    Args:
        paths: Canonical paths of the files asked for, and of the sensitive places in a tree.
        labels: (level, classes) as they stand in the xattrs: untrusted text.
        complete: Whether the hand saw all of it.
    """
    level, classes, evidence = Level.PUBLIC, set[str](), list[str]()
    for path in paths:
        for rule in _rules_of(rules, path):
            level = max(level, rule.level)
            classes |= set(rule.classes)
            _note(evidence, f"{rule.level.word} by its path: {path[-_SHOWN:]}")
    for word, names in labels:
        if word:
            level = max(level, _label_level(word))
            _note(evidence, f"labelled {_shown(word)}")
        classes |= {name for name in names.split(",") if _CLASS.fullmatch(name)}
    for content in contents:
        level = max(level, _judge_content(rules, content, classes, evidence))
        complete = complete and content.complete
        if not content.complete:
            _note(evidence, f"not wholly read: {content.name[-_SHOWN:]}: {content.why}")
    return Sensitivity(level, tuple(sorted(classes)), complete, tuple(evidence))


def path_matches(components: tuple[str, ...], path: str) -> bool:
    """Tell whether a run of the path's components is what a rule describes, whatever their case."""
    parts = path.lower().strip("/").split("/")
    return any(
        all(matches(one, part) for one, part in zip(components, parts[at:], strict=False))
        for at in range(len(parts) - len(components) + 1)
    )


def _rules_of(rules: Rules, path: str) -> Iterable[PathRule]:
    return (rule for rule in rules.paths if path_matches(rule.components, path))


def _judge_content(rules: Rules, content: Content, classes: set[str], evidence: list[str]) -> Level:
    level = Level.PUBLIC
    for rule in rules.contents:
        count = content.classes.get(rule.data_class, 0)
        if count >= rule.least:
            level = max(level, rule.level)
            classes |= {rule.data_class, *rule.also}
            _note(evidence, f"{rule.data_class} ({count}) in {content.name[-_SHOWN:]}")
    return level


def _label_level(word: str) -> Level:
    try:
        return Level.of(word.strip())
    except KeyError:
        return Level.RESTRICTED


def _shown(word: str) -> str:
    return repr(word[:_SHOWN])


def _note(evidence: list[str], text: str) -> None:
    if len(evidence) < _MOST_EVIDENCE and text not in evidence:
        evidence.append(text)


def _path_rules(entry: Any) -> Iterable[PathRule]:
    _only(entry, {"match", "level", "classes"})
    for pattern in entry["match"]:
        components = tuple(str(pattern).lower().split("/"))
        if not all(component.strip("*") for component in components):
            raise ValueError(f"{pattern!r}: a component without a letter matches everything")
        yield PathRule(components, Level.of(entry["level"]), tuple(map(_class, entry["classes"])))


def _content_rule(entry: Any) -> ContentRule:
    _only(entry, {"class", "least", "level", "also"})
    if type(entry["least"]) is not int or entry["least"] < 1:
        raise ValueError(f"least {entry['least']!r}, want a whole number from 1")
    return ContentRule(
        _class(entry["class"]), entry["least"], Level.of(entry["level"]), tuple(map(_class, entry["also"]))
    )


def _class(name: str) -> str:
    if not _CLASS.fullmatch(name):
        raise ValueError(f"class {name!r}: want small letters, digits and -")
    return name


def _word(word: str) -> str:
    if not 3 <= len(word) <= 100:
        raise ValueError(f"marker {word!r}: want 3 to 100 characters")
    return word.lower()


def _only(entry: Any, fields: set[str]) -> None:
    if set(entry) != fields:
        raise ValueError(f"fields {sorted(entry)}, want {sorted(fields)}")
