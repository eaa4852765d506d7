"""The table of layers and what it says when one is missing."""

from __future__ import annotations

import pytest

from supervisor.errors import LayerMissingError
from supervisor.sandbox.layers import LAYERS, LayerState, State, check_required, missing
from supervisor.sandbox.probe import _PROBES

PRESENT = [LayerState(name, State.PRESENT, "", "") for name in LAYERS]


def test_every_layer_has_a_probe_and_every_probe_a_layer() -> None:
    assert set(_PROBES) == set(LAYERS)


def test_nothing_is_missing_when_all_are_present() -> None:
    assert missing(LAYERS, PRESENT) == ()


def test_missing_keeps_the_order_asked_for_and_the_state_found() -> None:
    needs = LayerState("overlay", State.NEEDS, "ENODEV", "modprobe overlay")
    states = [needs if state.name == "overlay" else state for state in PRESENT if state.name != "seccomp"]
    found = missing(["seccomp", "landlock", "overlay"], states)
    assert [state.name for state in found] == ["seccomp", "overlay"]
    assert found[0].detail == "not probed"
    assert found[1] is needs


def test_unknown_layer_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="lanlock"):
        missing(["lanlock"], PRESENT)


def test_missing_required_layer_is_refused_with_kernel_and_next_step() -> None:
    states = [
        LayerState("landlock", State.NEEDS, "not built in", "add lsm=landlock") if state.name == "landlock" else state
        for state in PRESENT
    ]
    with pytest.raises(LayerMissingError) as caught:
        check_required(["seccomp", "landlock"], states)
    assert "landlock: not built in; Linux 5.13 has it" in caught.value.message
    assert caught.value.next_step == "add lsm=landlock"
    assert caught.value.exit_code == 126


def test_required_layers_that_are_present_pass() -> None:
    check_required(["seccomp", "landlock"], PRESENT)
