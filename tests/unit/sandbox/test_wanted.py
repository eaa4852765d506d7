"""What a launch asks the hand for, and which answers are refused."""

from __future__ import annotations

import pytest

from supervisor.errors import RefusedError
from supervisor.sandbox import profile_source, wanted
from supervisor.sandbox.plan import Source
from supervisor.sandbox.profile import Ceiling

HOME = "/home/o"


def _check(path: str, purpose: str = "read", ceiling: Ceiling | None = None) -> None:
    source = Source(path, "directory", purpose, 0)
    wanted.check_opened([source], HOME, ["/var/lib/deskwarden"], ceiling or Ceiling(), [path])


@pytest.mark.parametrize(
    "path",
    [
        "/home/o/.ssh",
        "/home/o/.ssh/keys",
        "/home/o/.config",  # holds .config/gh
        "/home/o",
        "/home",
        "/etc/shadow",
        "/var/lib/deskwarden",
        "/var/lib/deskwarden/stores/1000",
        "/var/lib",
        "/home/other/.aws",
    ],
)
def test_a_path_that_resolves_to_a_secret_or_to_our_own_state_is_refused(path: str) -> None:
    with pytest.raises(RefusedError, match="no agent may see"):
        _check(path)


@pytest.mark.parametrize("path", ["/home/o/other-project", "/srv/data", "/home/o/.pyenv", "/opt/tool"])
def test_ordinary_paths_pass(path: str) -> None:
    _check(path)


def test_a_workspace_that_is_a_credential_store_is_refused() -> None:
    with pytest.raises(RefusedError):
        _check("/home/o/.gnupg", "workspace")


def test_the_ceiling_holds_for_what_a_person_names() -> None:
    with pytest.raises(RefusedError, match="/srv/payroll"):
        _check("/srv/payroll/2026", ceiling=Ceiling(forbidden_read=(b"/srv/payroll",)))


def test_protected_names_lie_in_the_workspace() -> None:
    items = wanted.protected_items(profile_source.load_profile("coding"), "/w")
    assert {"path": "/w/.git/hooks", "purpose": "protected"} in items
