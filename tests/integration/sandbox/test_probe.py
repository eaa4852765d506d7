"""The probes on the real kernel: they find what is here, end in time and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervisor.linux import cgroup, landlock
from supervisor.sandbox import probe as probe_module
from supervisor.sandbox.layers import LAYERS, State, missing
from supervisor.sandbox.machine import is_initial_root, kernel_version
from supervisor.sandbox.probe import probe, probe_all
from supervisor.sandbox.probes.surroundings import find_init, is_static
from supervisor.sandbox.profile_source import load_profile, packaged_directory

pytestmark = pytest.mark.integration

ROOT_ONLY = {"overlay-index", "idmapped-mounts", "agent-uid", "fanotify-mark", "memfd-noexec"}


def traces() -> tuple[list[str], list[str], list[str], list[str]]:
    """What a probe could leave: mounts, open descriptors, temporary files, cgroups."""
    hierarchy = cgroup.hierarchy()
    groups = [str(path) for path in Path(hierarchy).rglob("deskwarden-probe-*")] if hierarchy else []
    temporary = sorted(name for name in os.listdir("/tmp") if "probe" in name)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return mounts, sorted(os.listdir("/proc/self/fd")), temporary, groups


def test_every_layer_is_judged_once_in_time_with_a_reason_and_leaves_nothing() -> None:
    before, started = traces(), time.monotonic()
    states = probe_all()
    assert time.monotonic() - started < 10
    assert [state.name for state in states] == list(LAYERS)
    for state in states:
        assert state.detail, state
        assert bool(state.remedy) == (state.state is not State.PRESENT), state
    assert traces() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_default_profile_can_run_here() -> None:
    assert missing(load_profile("coding").requires, probe_all()) == ()


def test_landlock_layers_agree_with_the_abi() -> None:
    abi = landlock.abi_version()
    needed = {"landlock-refer": 2, "landlock-truncate": 3, "landlock-net": 4, "landlock-ioctl": 5, "landlock-scope": 6}
    for name, version in needed.items():
        assert (probe(name).state is State.PRESENT) == (abi >= version), name


@pytest.mark.parametrize("name", sorted(ROOT_ONLY))
def test_layer_of_the_system_mode_names_the_system_service_to_an_ordinary_user(name: str) -> None:
    state = probe(name)
    if is_initial_root():
        assert "system service" not in state.remedy
    elif kernel_version(os.uname().release) < tuple(map(int, LAYERS[name].since.split("."))):
        assert LAYERS[name].since in f"{state.detail} {state.remedy}"
    else:
        assert state.state is State.NEEDS
        assert "system service" in state.remedy


def test_probe_that_hangs_is_absent_and_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()

    def hang() -> str:
        os.fork()
        signal.pause()
        return ""

    monkeypatch.setitem(probe_module._PROBES, "pidfd", hang)  # type: ignore[misc]
    started = time.monotonic()
    state = probe("pidfd", timeout_s=0.3)
    assert time.monotonic() - started < 2
    assert state.state is State.ABSENT
    assert "no answer within 0.3 s" in state.detail
    os.close(write_end)
    os.set_blocking(read_end, False)
    time.sleep(0.05)
    assert os.read(read_end, 1) == b"", "a child of the probe still holds the pipe"
    os.close(read_end)


def test_probe_that_dies_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    monkeypatch.setitem(probe_module._PROBES, "pidfd", die)  # type: ignore[misc]
    assert probe("pidfd").state is State.ABSENT


def test_refused_system_calls_are_named_not_raised() -> None:
    """Under our own filter, as in a hardened container, every probe still gives an answer."""
    code = """
import json, platform
from supervisor.linux.prctl import set_no_new_privs
from supervisor.linux.seccomp import load_filter
from supervisor.sandbox.probe import probe_all
from supervisor.sandbox.profile import SeccompRules
from supervisor.sandbox.seccomp_filter import compile_filter
program = compile_filter(SeccompRules(), platform.machine())
set_no_new_privs(); load_filter(program)
print(json.dumps({state.name: state.state for state in probe_all()}))
"""
    root = packaged_directory().parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    states = json.loads(run.stdout)
    assert set(states) == set(LAYERS)
    assert states["mount-namespace"] == states["overlay"] == states["keyring"] == "needs"
    assert states["landlock"] == states["no-new-privs"] == "present"


def test_init_program_is_found_and_its_linkage_known() -> None:
    found = find_init()
    assert found is not None
    described = subprocess.run(["file", "-L", found], capture_output=True, text=True, check=False)
    if described.returncode == 0:
        assert is_static(found) == ("statically linked" in described.stdout or "static-pie" in described.stdout)
    assert not is_static(os.path.realpath(sys.executable))
