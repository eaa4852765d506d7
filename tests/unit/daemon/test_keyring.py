"""The machine's keys: root's files only. Run as root, since no other can make such files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.daemon.keyring import ManagedKeys, own_keys
from supervisor.identity.keys import new_key
from supervisor.identity.trust import Role, TrustedKey, trusted_key_bytes

KEY = TrustedKey(new_key().public, frozenset((Role.PUBLISHER,)), "acme", 2_000_000_000)
ROOT = os.geteuid() == 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    keys = tmp_path / "policies/managed/keys"
    keys.mkdir(parents=True)
    for one in (tmp_path, *keys.parents, keys):
        if tmp_path in (one, *one.parents):
            one.chmod(0o755)
    (keys / "acme.json").write_bytes(trusted_key_bytes(KEY))
    (keys / "acme.json").chmod(0o644)
    return keys


def _reader(place: Path) -> ManagedKeys:
    return ManagedKeys(rootless=False, environment={"DESKWARDEN_SYSTEM_CONFIG_DIR": str(place.parents[2])})


def test_only_files_of_root_are_the_machines(place: Path) -> None:
    found = _reader(place).read()
    if ROOT:
        assert (found.managed, found.problems) == ((KEY,), ())
    else:
        assert found.managed == ()
        assert "want root" in found.problems[0]


@pytest.mark.parametrize("name", ["acme.json", ".", "..", "../.."])
def test_what_others_may_write_is_left_out_by_name(place: Path, name: str) -> None:
    (place / name).chmod(0o777)
    found = _reader(place).read()
    assert found.managed == ()
    assert ("others may write it" if ROOT else "want root") in found.problems[0]


def test_a_link_is_no_key_file(place: Path) -> None:
    (place / "acme.json").rename(place.parent / "elsewhere.json")
    (place / "acme.json").symlink_to(place.parent / "elsewhere.json")
    found = _reader(place).read()
    assert found.managed == ()
    assert found.problems


def test_an_ordinary_user_cannot_move_the_place() -> None:
    reader = ManagedKeys(rootless=True, environment={"DESKWARDEN_SYSTEM_CONFIG_DIR": "/tmp"})
    assert reader._base == "/etc/deskwarden"


def test_the_owners_broken_file_is_named_and_the_others_count() -> None:
    text = trusted_key_bytes(KEY).decode()
    files = [
        {"path": "/k/a.json", "problem": "", "text": text},
        {"path": "/k/b.json", "problem": "", "text": text.replace("acme", "ac/me")},
        {"path": "/k/c.json", "problem": "not a regular file", "text": ""},
    ]
    found = own_keys(files)
    assert found.own == (KEY,)
    assert [problem.split(":")[0] for problem in found.problems] == ["/k/b.json", "/k/c.json"]
