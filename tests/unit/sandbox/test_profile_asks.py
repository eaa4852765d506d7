"""The manifest that a profile carries: held against the manifest's own rules, merged as any other value."""

from __future__ import annotations

import pytest

from supervisor.daemon.profile_manifest import of_profile
from supervisor.errors import DeskwardenError
from supervisor.policy.capability import Capability, Kind
from supervisor.sandbox.plan import Owner
from supervisor.sandbox.profile_source import Origin, ProfileFile, Resolved, find_profiles, resolve

REPORTS = """\
asks:
  capabilities:
    reports: {kind: file, selector: "~/reports/**", ops: [read], justification: It sums up the reports.}
"""
OWNER = Owner(1000, 1000, "alice", "/home/alice")


def _made(text: str, parent: str = "") -> Resolved:
    files = [ProfileFile("mine", Origin.USER, "mine.yaml", f"name: mine\ndescription: d\n{text}".encode())]
    if parent:
        above = f"name: above\ndescription: d\n{parent}"
        files.append(ProfileFile("above", Origin.USER, "above.yaml", above.encode()))
    return resolve("mine", [*find_profiles(None), *files])


def test_it_becomes_a_manifest_that_nobody_signed_or_agreed_to() -> None:
    standing = of_profile(_made(REPORTS).profile, "Python3.11", OWNER)
    assert (standing.signed_by, standing.consented, standing.manifest.name) == ((), False, "python3-11")
    assert standing.entry_for(Capability(Kind.FILE, "/home/alice/reports/q1.csv", ("read",))) is not None
    assert standing.entry_for(Capability(Kind.FILE, "/home/alice/reports/q1.csv", ("write",))) is None
    assert standing.manifest.duration_max_s == 1200


def test_its_digest_is_the_same_each_time_and_another_for_other_asks() -> None:
    one, other = _made(REPORTS).profile, _made(REPORTS.replace("reports/**", "private/**")).profile
    digest = of_profile(one, "tool", OWNER).manifest.digest
    assert of_profile(one, "tool", OWNER).manifest.digest == digest
    assert of_profile(other, "tool", OWNER).manifest.digest != digest


def test_a_child_narrows_what_its_parent_asks_for() -> None:
    text = "extends: above\nasks:\n  duration_max: 5m\n  capabilities:\n    reports: null\n"
    asks = _made(text, REPORTS).profile.asks
    assert (asks.capabilities, asks.duration_max_s) == ((), 300)


def test_the_packaged_profiles_ask_for_nothing() -> None:
    for name in ("strict", "coding", "data", "desktop"):
        assert resolve(name, find_profiles(None)).profile.asks.capabilities == ()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("~/reports/**", "~/../etc", "holds the name"),
        ("~/reports/**", "reports", "not absolute"),
        ("ops: [read]", "ops: [run]", "run is no operation on file"),
        ("ops: [read], ", "", "missing: ops"),
        ("kind: file", "kind: clipboard", "clipboard"),
        ("It sums up the reports.", "Because", "too short|minLength"),
        ("reports: {", "Reports!: {", "Reports!"),
        ("capabilities:", "roles: [agent-root!]\n  capabilities:", "roles"),
    ],
)
def test_what_no_manifest_may_hold_is_refused_at_its_place(old: str, new: str, why: str) -> None:
    with pytest.raises(DeskwardenError, match=why) as caught:
        _made(REPORTS.replace(old, new))
    assert caught.value.message.startswith("mine.yaml:")
