"""Secrets at rest: sealed, bound to owner, name and version, unreadable to others, and useless when changed by hand."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.errors import ConflictError, RefusedError, ServiceError, UsageError
from supervisor.session import secret_store
from supervisor.session.secret_keys import FileKeys
from supervisor.session.secret_store import About, SecretStore, check_about, check_name

VALUE = b"s3cr3t-value-that-must-not-show"
KEPT = About("kept")


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return opened(tmp_path)


def opened(path: Path) -> SecretStore:
    (path / "machine-id").write_text("0123456789abcdef")
    return SecretStore(str(path / "secrets.db"), FileKeys(str(path / "keys"), str(path / "machine-id")))


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path / "secrets.db")) as db:
        db.execute(statement, values)
        db.commit()


def test_what_was_set_comes_back_also_for_a_daemon_that_started_anew(tmp_path: Path, store: SecretStore) -> None:
    version = store.put(7, "db/main", KEPT, VALUE)
    store.close()
    assert opened(tmp_path).open(7, "db/main", version) == (KEPT, VALUE)


def test_no_file_has_the_value_and_none_is_readable_by_others(tmp_path: Path, store: SecretStore) -> None:
    store.put(7, "db", KEPT, VALUE)
    files = [one for one in tmp_path.rglob("*") if one.is_file() and one.name != "machine-id"]
    assert {one.name for one in files} >= {"secrets.db", "7.key", "machine.key"}
    for file in files:
        assert VALUE not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_another_owners_secret_of_the_same_name_is_another_secret(store: SecretStore) -> None:
    version = store.put(7, "db", KEPT, VALUE)
    assert store.find(8, "db") is None
    with pytest.raises(ConflictError):
        store.open(8, "db", version)
    assert not store.remove(8, "db")
    assert store.find(7, "db") is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE secret SET owner_uid = 8",
        "UPDATE secret SET name = 'low'",
        "UPDATE secret SET version = 99",
        """UPDATE secret SET about = CAST('{"classes":[],"hosts":[],"source":"kept"}' AS BLOB)""",
        "UPDATE secret SET sealed = zeroblob(60)",
        "UPDATE secret SET sealed = x''",
    ],
)
def test_a_row_that_was_changed_by_hand_does_not_open(tmp_path: Path, store: SecretStore, statement: str) -> None:
    store.put(8, "other", KEPT, b"x")
    store.remove(8, "other")
    store.put(7, "db", About("kept", ("api.example.com",)), VALUE)
    edit(tmp_path, statement)
    owner = 8 if "owner_uid" in statement else 7
    (found,) = store.all_of(owner)
    with pytest.raises(ServiceError, match="does not open") as caught:
        store.open(owner, found.name, found.version)
    assert VALUE.decode() not in str(caught.value)


def test_keys_of_another_machine_do_not_open(tmp_path: Path, store: SecretStore) -> None:
    version = store.put(7, "db", KEPT, VALUE)
    (tmp_path / "machine-id").write_text("fedcba9876543210")
    with pytest.raises(ServiceError, match="not sealed on this machine"):
        store.open(7, "db", version)


def test_a_version_is_never_used_twice_not_even_after_a_removal(store: SecretStore) -> None:
    first = store.put(7, "db", KEPT, b"one")
    second = store.put(7, "db", KEPT, b"two")
    store.remove(7, "db")
    third = store.put(7, "db", KEPT, b"three")
    assert first < second < third
    with pytest.raises(ConflictError, match="changed or removed"):
        store.open(7, "db", first)


def test_the_same_value_is_sealed_differently_each_time(tmp_path: Path, store: SecretStore) -> None:
    for name in ("a", "b"):
        store.put(7, name, KEPT, VALUE)
    with closing(sqlite3.connect(tmp_path / "secrets.db")) as db:
        (one,), (other,) = db.execute("SELECT sealed FROM secret").fetchall()
    assert one[:12] != other[:12]
    assert one[12:] != other[12:]


def test_a_use_is_noted_and_a_failed_one_leaves_the_secret(store: SecretStore) -> None:
    version = store.put(7, "db", KEPT, VALUE)
    (before,) = store.all_of(7)
    store.open(7, "db", version)
    (after,) = store.all_of(7)
    assert (before.used_ns, after.used_ns > after.created_ns) == (0, True)


def test_an_owner_cannot_fill_the_store(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_store, "MAX_SECRETS", 2)
    for name in ("a", "b"):
        store.put(7, name, KEPT, VALUE)
    with pytest.raises(RefusedError, match="2 secrets"):
        store.put(7, "c", KEPT, VALUE)
    store.put(7, "b", KEPT, b"replaced, so not one more")
    store.put(8, "c", KEPT, VALUE)
    assert [one.name for one in store.all_of(7)] == ["a", "b"]


def test_a_link_in_the_place_of_the_database_is_not_followed(tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "secrets.db")
    with pytest.raises(ServiceError):
        opened(tmp_path).put(7, "db", KEPT, VALUE)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "a/../b", "a b", "a\n", "*", "ä", "-x", "a" * 129])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize(
    "host", ["", "http://x", "a b", "x\n", "-a.com", "A.com", "*.com", "a..b", "a:port", "a" * 300]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError):
        check_about("kept", [host], [])
    assert check_about("kept", ["api.example.com:8443"], ["pii"]).hosts == ("api.example.com:8443",)
