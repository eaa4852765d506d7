from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from supervisor.workspace.change import Change, ancestors, is_below
from supervisor.workspace.journal import Meta, Operation, Outcome, Plan
from supervisor.workspace.marks import Marks
from tests.unit.workspace.versions import make_version

names = st.binary(min_size=1, max_size=30).filter(lambda raw: b"\0" not in raw)


@given(path=names, old_path=names, target=names, value=st.binary(max_size=20))
def test_a_change_survives_json_whatever_its_names(path: bytes, old_path: bytes, target: bytes, value: bytes) -> None:
    new = make_version("symlink", target=target)
    old = make_version().with_xattrs((("user.x", value),))
    change = Change(path, "renamed", old, new, old_path, staged=False, notes=("n",), held="h")
    assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change


@given(path=names)
def test_plan_outcome_and_marks_survive_json(path: bytes) -> None:
    operation = Operation(0, path, "put", None, make_version(), b"p", staged=False)
    plan = Plan(Meta("s", path, "n"), 1, b".deskwarden-1", 2, (operation,), {path: (1, 2, 3)}, {path: 4}, 5)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    outcome = Outcome({0: make_version(), 1: None}, {2: "why"})
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    marks = Marks({path: (1, 2)}, {path: (1, 0)}, {3: 4}, {path: (1, 2, 3)}, {path: (-1, 2)})
    assert Marks.from_json(json.loads(json.dumps(marks.to_json()))) == marks


def test_below_is_by_component() -> None:
    assert is_below(b"a/b", b"a")
    assert is_below(b"a", b"a")
    assert not is_below(b"ab", b"a")
    assert ancestors(b"a/b/c") == [b"a", b"a/b"]
