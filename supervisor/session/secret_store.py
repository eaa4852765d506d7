"""Secrets at rest: secrets.db, one row a secret, its value sealed with its owner's data key.

What stands beside the value (owner, name, version, source, hosts, classes) is bound to it: a row that was changed by
hand does not open. Values are never logged and in no error. Python's own copies of a value cannot all be overwritten;
the daemon is not dumpable, so neither a core dump nor another process of its account has its memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from supervisor import strict_json
from supervisor.clock import now_ns
from supervisor.errors import ConflictError, RefusedError, ServiceError, UsageError
from supervisor.session.secret_keys import Keys

MAX_VALUE_BYTES: Final = 64 << 10
MAX_SECRETS: Final = 256
_MAX_NAME: Final = 128
_MAX_LISTED: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_HOST: Final = re.compile(
    r"(?=.{1,253}(:|$))[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?"
)
_CLASS: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_NONCE_BYTES: Final = 12
# Versions are never used twice, also not after a removal: a grant is for one.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secret (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    owner_uid INTEGER NOT NULL,
    name TEXT NOT NULL,
    about BLOB NOT NULL,
    sealed BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    used_ns INTEGER NOT NULL,
    UNIQUE (owner_uid, name)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a secret beside its value.

    Attributes:
        source: Which `secret_sources.Source` makes the value of what is kept.
        hosts: Where the network door adds it; then no agent is given it.
    """

    source: str
    hosts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret, without its value. *used_ns*: 0 when it never was."""

    owner_uid: int
    name: str
    version: int
    about: About
    created_ns: int
    used_ns: int


class SecretStore:
    """All secrets of all owners. Every call may block on the disk: call it in a thread."""

    def __init__(self, path: str, keys: Keys) -> None:
        self._path = path
        self._keys = keys
        self._lock = threading.Lock()
        self._open_db: sqlite3.Connection | None = None

    def put(self, owner_uid: int, name: str, about: About, body: bytes) -> int:
        """Keep a secret in place of what had its name; returns its version.

        Raises:
            RefusedError: The owner has too many.
        """
        with self._database() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                version = self._put(db, owner_uid, name, about, body)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return version

    def _put(self, db: sqlite3.Connection, owner_uid: int, name: str, about: About, body: bytes) -> int:
        db.execute("DELETE FROM secret WHERE owner_uid = ? AND name = ?", (owner_uid, name))
        (count,) = db.execute("SELECT count(*) FROM secret WHERE owner_uid = ?", (owner_uid,)).fetchone()
        if count >= MAX_SECRETS:
            raise RefusedError(f"you have {count} secrets, the most there may be", "deskwarden secret rm NAME")
        made = db.execute(
            "INSERT INTO secret (owner_uid, name, about, sealed, created_ns, used_ns) VALUES (?, ?, ?, x'', ?, 0)",
            (owner_uid, name, _about_bytes(about), now_ns()),
        )
        version = int(made.lastrowid or 0)
        sealed = self._seal(owner_uid, name, version, about, body)
        db.execute("UPDATE secret SET sealed = ? WHERE version = ?", (sealed, version))
        return version

    def find(self, owner_uid: int, name: str) -> Secret | None:
        """Return what is known of a secret, or None."""
        return next((one for one in self.all_of(owner_uid) if one.name == name), None)

    def all_of(self, owner_uid: int) -> list[Secret]:
        """Return an owner's secrets by name."""
        with self._database() as db:
            rows = db.execute(
                "SELECT name, version, about, created_ns, used_ns FROM secret WHERE owner_uid = ? ORDER BY name",
                (owner_uid,),
            ).fetchall()
        return [
            Secret(owner_uid, name, version, _about_of(about), made, used) for name, version, about, made, used in rows
        ]

    def remove(self, owner_uid: int, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        with self._database() as db:
            gone = db.execute("DELETE FROM secret WHERE owner_uid = ? AND name = ?", (owner_uid, name))
            return gone.rowcount == 1

    def open(self, owner_uid: int, name: str, version: int) -> tuple[About, bytes]:
        """Note a use of exactly that version, and return what is kept.

        Raises:
            ConflictError: It was set anew or removed.
            ServiceError: It does not open.
        """
        chosen = (owner_uid, name, version)
        with self._database() as db:
            where = "WHERE owner_uid = ? AND name = ? AND version = ?"
            db.execute(f"UPDATE secret SET used_ns = ? {where}", (now_ns(), *chosen))  # noqa: S608 - fixed text
            row = db.execute(f"SELECT about, sealed FROM secret {where}", chosen).fetchone()  # noqa: S608
        if row is None:
            raise ConflictError(f"the secret {name} was changed or removed since it was granted", "ask again")
        about = _about_of(row[0])
        return about, self._unseal(owner_uid, name, version, about, row[1])

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._open_db is not None:
                self._open_db.close()
                self._open_db = None

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.Error, OSError) as error:
                raise ServiceError(f"{self._path} cannot be used: {error}", "free space there: df") from error

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open_db is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")
            db.executescript(_SCHEMA)
            self._open_db = db
        return self._open_db

    def _seal(self, owner_uid: int, name: str, version: int, about: About, body: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        key = self._keys.key_of(owner_uid)
        try:
            return nonce + AESGCM(key).encrypt(nonce, body, _bound(owner_uid, name, version, about))
        finally:
            key[:] = bytes(len(key))

    def _unseal(self, owner_uid: int, name: str, version: int, about: About, sealed: bytes) -> bytes:
        key = self._keys.key_of(owner_uid)
        try:
            bound = _bound(owner_uid, name, version, about)
            return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise ServiceError(
                f"the secret {name} does not open: it or its key was changed", f"deskwarden secret set {name}"
            ) from None
        finally:
            key[:] = bytes(len(key))


def check_name(name: str) -> str:
    """Refuse what is no name of a secret.

    Raises:
        UsageError: It is none.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise UsageError(
            f"secret {name[:_MAX_NAME]!r}: want letters, digits, . _ - and / between, at most {_MAX_NAME}",
            "deskwarden secret list",
        )
    return name


def check_about(source: str, hosts: Iterable[str], classes: Iterable[str]) -> About:
    """Return what is known of a secret, if it can be that.

    Raises:
        UsageError: It cannot.
    """
    about = About(source, tuple(sorted(set(hosts))), tuple(sorted(set(classes))))
    for what, words, form in (("--host", about.hosts, _HOST), ("--class", about.classes, _CLASS)):
        if len(words) > _MAX_LISTED:
            raise UsageError(f"{what}: {len(words)} of them, at most {_MAX_LISTED}")
        for word in words:
            if not form.fullmatch(word):
                raise UsageError(
                    f"{what} {word[:80]!r}: want {'a host' if what == '--host' else 'a class'}, lower case"
                )
    return about


def _bound(owner_uid: int, name: str, version: int, about: About) -> bytes:
    return strict_json.canonical(
        {"owner": owner_uid, "name": name, "version": version, "about": strict_json.plain(about)}
    )


def _about_bytes(about: About) -> bytes:
    return strict_json.canonical(strict_json.plain(about))


def _about_of(data: bytes) -> About:
    value = strict_json.parse(data, len(data), "secret")
    return About(str(value["source"]), tuple(value["hosts"]), tuple(value["classes"]))
