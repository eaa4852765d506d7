"""`deskwarden doctor`: the words for what was found."""

from __future__ import annotations

import argparse
import json

import pytest

from supervisor.cli import doctor
from supervisor.sandbox.layers import LAYERS, LayerState, State
from supervisor.sandbox.machine import Machine
from supervisor.sandbox.profile_source import load_profile

CODING = load_profile("coding")
PLAIN = Machine("6.1.0-18-amd64", "x86_64", "rootless", "", "", False)
UBUNTU = Machine("5.15.0-1-generic", "x86_64", "rootless", "docker", "", True)


def states(**changed: LayerState) -> list[LayerState]:
    found = {name: LayerState(name, State.PRESENT, "works", "") for name in LAYERS}
    return list((found | {state.name: state for state in changed.values()}).values())


OVERLAY = LayerState("overlay", State.NEEDS, "ENODEV: No such device", "modprobe overlay")
LIMITS = LayerState("cgroup-limits", State.NEEDS, "not delegated", "Delegate=yes")


def test_table_marks_required_layers_and_gives_the_remedy() -> None:
    text = "\n".join(doctor.table(PLAIN, states(a=OVERLAY), CODING))
    assert "* overlay" in text
    assert "→ modprobe overlay" in text
    assert "coding cannot run here: overlay missing" in text
    assert "doctor --for-it" in text


def test_table_says_what_the_default_profile_goes_without() -> None:
    text = "\n".join(doctor.table(PLAIN, states(a=LIMITS), CODING))
    assert "coding can run here." in text
    assert "Without: cgroup-limits." in text


def test_note_for_it_holds_only_what_is_missing() -> None:
    lines = doctor.note_for_it(PLAIN, states(a=OVERLAY, b=LIMITS), CODING)
    text = "\n".join(lines)
    assert text.index("cannot start without") < text.index("overlay") < text.index("enforce more with")
    assert "modprobe overlay" in text
    assert "landlock" not in text
    assert "Nothing is missing." in doctor.note_for_it(PLAIN, states(), CODING)


def test_old_kernel_container_and_apparmor_are_named() -> None:
    text = "\n".join(doctor.table(UBUNTU, states(a=OVERLAY), CODING))
    assert "inside docker" in text
    assert "older than 6.1" in text
    assert "AppArmor" in text
    assert "--privileged" in text


def test_json_has_every_layer_and_the_verdict() -> None:
    value = json.loads(json.dumps(doctor.as_json(PLAIN, states(a=OVERLAY, b=LIMITS), CODING)))
    assert value["can_run"] is False
    assert value["missing_required"] == ["overlay"]
    assert value["missing_preferred"] == ["cgroup-limits"]
    assert [layer["name"] for layer in value["layers"]] == list(LAYERS)


@pytest.mark.parametrize(("changed", "code"), [({}, 0), ({"a": LIMITS}, 0), ({"a": OVERLAY}, 1)])
def test_exit_code_says_whether_the_default_profile_could_run(
    changed: dict[str, LayerState], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_all", lambda: tuple(states(**changed)))
    assert doctor.run(argparse.Namespace(managed=False, for_it=False, json=True)) == code
    assert json.loads(capsys.readouterr().out)["can_run"] is (code == 0)


@pytest.mark.parametrize("as_json", [True, False])
def test_managed_says_plainly_that_nothing_is(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(argparse.Namespace(managed=True, for_it=False, json=as_json)) == 1
    assert "not managed" in capsys.readouterr().out
