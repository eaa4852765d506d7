from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import UsageError
from supervisor.policy.capability import Level
from supervisor.policy.sensitivity import Content, default_rules, judge, parse_rules

RULES = default_rules()


@pytest.mark.parametrize(
    ("path", "level", "classes"),
    [
        ("/home/o/.ssh/config", Level.RESTRICTED, ("credential-store",)),
        ("/home/o/.SSH", Level.RESTRICTED, ("credential-store",)),
        ("/home/o/w/vault.kdbx", Level.RESTRICTED, ("credential-store",)),
        ("/home/o/.config/google-chrome-beta/Default/x", Level.RESTRICTED, ("credential-store",)),
        ("/home/o/key/id_ed25519", Level.RESTRICTED, ("credential-store",)),
        ("/srv/app/.env.production", Level.RESTRICTED, ("secret",)),
        ("/srv/Payroll-2026/q1.xlsx", Level.CONFIDENTIAL, ("pii",)),
        ("/srv/hr/list.txt", Level.CONFIDENTIAL, ("pii",)),
        ("/srv/finance/hr/list.txt", Level.CONFIDENTIAL, ("pii",)),
        ("/home/o/finance/q2.xlsx", Level.INTERNAL, ()),
        ("/home/o/key/id_ed25519.pub", Level.PUBLIC, ()),
        ("/home/o/thrift/chr.txt", Level.PUBLIC, ()),
        ("/home/o/environment/.envrc", Level.PUBLIC, ()),
        ("/home/o/.config/nvim/init.lua", Level.PUBLIC, ()),
    ],
)
def test_a_path_has_the_level_of_its_strictest_rule(path: str, level: Level, classes: tuple[str, ...]) -> None:
    found = judge(RULES, [path], [], [])
    assert (found.level, found.classes) == (level, classes)
    assert bool(found.evidence) == (level > Level.PUBLIC)


@pytest.mark.parametrize(
    ("classes", "level", "expected"),
    [
        ({"iban": 1}, Level.INTERNAL, ("iban",)),
        ({"iban": 2}, Level.CONFIDENTIAL, ("iban",)),
        ({"payment-card": 1}, Level.CONFIDENTIAL, ("payment-card",)),
        ({"payment-card": 10}, Level.RESTRICTED, ("payment-card",)),
        ({"national-id": 3}, Level.CONFIDENTIAL, ("national-id", "pii")),
        ({"private-key": 1}, Level.RESTRICTED, ("private-key", "secret")),
        ({"email-address": 49, "phi": 2}, Level.PUBLIC, ()),
        ({"email-address": 50}, Level.CONFIDENTIAL, ("email-address", "pii")),
        ({"unheard-of": 1000}, Level.PUBLIC, ()),
    ],
)
def test_counts_decide_what_contents_mean(classes: dict[str, int], level: Level, expected: tuple[str, ...]) -> None:
    found = judge(RULES, [], [], [Content("q1.xlsx", classes, complete=True)])
    assert (found.level, found.classes, found.complete) == (level, expected, True)


def test_evidence_names_the_class_and_the_file() -> None:
    found = judge(RULES, [], [], [Content("q1.xlsx", {"payment-card": 3}, complete=True)])
    assert found.evidence == ("payment-card (3) in q1.xlsx",)


@given(st.sampled_from(["public", "internal", "confidential", "restricted", "", "RESTRICTED ", "nonsense", "\ufffd"]))
def test_a_label_raises_and_never_lowers(word: str) -> None:
    for path, least in (("/x", Level.PUBLIC), ("/hr/x", Level.CONFIDENTIAL), ("/.ssh/x", Level.RESTRICTED)):
        assert judge(RULES, [path], [(word, "")], []).level >= least
    if word in ("nonsense", "\ufffd"):
        assert judge(RULES, [], [(word, "")], []).level is Level.RESTRICTED


def test_labels_add_classes_that_are_words_and_no_others() -> None:
    found = judge(RULES, [], [("internal", "pii,phi,,UPPER,a b,x\n," + "y" * 99)], [])
    assert (found.level, found.classes) == (Level.INTERNAL, ("phi", "pii"))


def test_what_was_not_wholly_read_is_said() -> None:
    found = judge(RULES, [], [], [Content("a", {}, complete=True), Content("b.pdf", {}, complete=False, why="PDF")])
    assert (found.complete, found.evidence) == (False, ("not wholly read: b.pdf: PDF",))
    assert not judge(RULES, [], [], [], complete=False).complete


def test_evidence_is_bounded() -> None:
    assert len(judge(RULES, [f"/hr/{at}" for at in range(1000)], [], []).evidence) == 20


def test_further_rules_only_add() -> None:
    more = {
        "schema": 1,
        "paths": [{"match": ["skunk/*works"], "level": "restricted", "classes": ["project-x"]}],
        "contents": [],
        "markers": {"phi": ["befund"], "project-x": ["skunkworks"]},
    }
    rules = RULES.extended(parse_rules(json.dumps(more).encode(), "extra"))
    assert judge(rules, ["/a/skunk/NetWorks/x"], [], []).classes == ("project-x",)
    assert judge(rules, ["/a/.ssh/x"], [], []).level is Level.RESTRICTED
    assert {"patient", "befund"} <= set(rules.markers["phi"])
    assert ("skunk", "*works") in rules.watched


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"extra": 1},
        {"paths": [{"match": ["*"], "level": "restricted", "classes": []}]},
        {"paths": [{"match": ["a/**"], "level": "restricted", "classes": []}]},
        {"paths": [{"match": ["a"], "level": "secretest", "classes": []}]},
        {"paths": [{"match": ["a"], "level": "internal", "classes": ["A b"]}]},
        {"paths": [{"match": ["a"], "level": "internal"}]},
        {"paths": 7},
        {"contents": [{"class": "iban", "least": 0, "level": "internal", "also": []}]},
        {"contents": [{"class": "iban", "least": True, "level": "internal", "also": []}]},
        {"markers": {"phi": ["a"]}},
        {"markers": []},
    ],
)
def test_broken_rules_are_refused_by_name(change: dict[str, object]) -> None:
    value = {"schema": 1, "paths": [], "contents": [], "markers": {}} | change
    with pytest.raises(UsageError, match="my rules"):
        parse_rules(json.dumps(value).encode(), "my rules")
