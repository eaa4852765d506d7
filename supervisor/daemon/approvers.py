"""The file of those who approve, ``approvers.json``: who they are, their teams, accounts and keys.

Only what root wrote counts (rootless: or the owner, where root wrote none): another owner, a file that others may
write, a symbolic link are refused. A file that turns out broken leaves the last good one in force; a file that is gone
leaves nobody. Schema: approvers.schema.json.
"""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from typing import Any, Final

import jsonschema

from supervisor import strict_json
from supervisor.broker.people import Directory, Person
from supervisor.config import managed_policies, own_configuration
from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.identity.keys import PublicKey, parse_public

NAME: Final = "approvers.json"
MAX_BYTES: Final = 1 << 20
_STEP: Final = "correct the file; what it may hold: approvers.schema.json"


@dataclass(frozen=True, slots=True)
class Approvers:
    """What one file says.

    Attributes:
        keys: The keys whose public half stands in the file, by id; of the others the ids alone are known.
    """

    directory: Directory = field(default_factory=Directory)
    keys: Mapping[str, PublicKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the file may lie, and the only uid whose file counts, as it is seen from here."""

    folder: str
    owner_uid: int

    @property
    def path(self) -> str:
        """The file."""
        return f"{self.folder}/{NAME}"


def places(environment: Mapping[str, str], rootless: bool) -> tuple[Place, ...]:
    """Return where to look, the first that has one counts. Called before a user namespace changes how uids look.

    In a rootless daemon's namespace its owner is 0, and root, who is not mapped, the overflow uid
    (user_namespaces(7)). Others are that too: but in a folder of root's, root alone makes and moves files.
    """
    if not rootless:
        return (Place(managed_policies(environment), 0),)
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        unmapped = int(file.read())
    return Place(managed_policies({}), unmapped), Place(own_configuration(environment, os.geteuid()), 0)


def read(place: Place) -> Approvers | None:
    """Return what the file says, or None where there is none.

    Raises:
        RefusedError: Somebody else could have written it.
        UsageError: It is not well formed, or says two things at once.
    """
    data = _read_bytes(place)
    return None if data is None else parse(data, place.path)


def parse(data: bytes, what: str) -> Approvers:
    """Return what *data* says.

    Raises:
        UsageError: It is not well formed, or says two things at once.
    """
    value = strict_json.parse(data, MAX_BYTES, what)
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(value))
    if problem is not None:
        where = problem.json_path.removeprefix("$.")[:80]
        raise UsageError(f"{what}: {ascii(where)[1:-1]}: {ascii(problem.instance)[:80]} is not as it must be", _STEP)
    keys: dict[str, PublicKey] = {}
    people = tuple(_person(entry, what, keys) for entry in value["people"])
    _refuse_doubles(people, what)
    return Approvers(Directory(people), keys)


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return the published schema. The first call reads the file: a daemon makes it before it gives rights up."""
    value: Mapping[str, Any] = json.loads(
        resources.files("supervisor.daemon").joinpath("approvers.schema.json").read_bytes()
    )
    return value


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def _person(entry: Mapping[str, Any], what: str, keys: dict[str, PublicKey]) -> Person:
    human = entry["human"]
    try:
        date.fromisoformat(entry["review_by"])
    except ValueError:
        raise UsageError(f"{what}: {human}: review_by {entry['review_by']}: no such day", _STEP) from None
    ids = []
    for text in entry.get("keys", ()):
        if text.startswith("sha256:"):
            ids.append(text)
            continue
        key = parse_public(text.encode(), f"{what}: a key of {human}")
        keys[key.keyid] = key
        ids.append(key.keyid)
    return Person(human, entry["teams"], tuple(entry.get("uids", ())), tuple(ids), entry["review_by"])


def _refuse_doubles(people: tuple[Person, ...], what: str) -> None:
    """Two people with one account or key would be one vote that counts twice, or nobody knows whose."""
    holders: dict[tuple[str, object], str] = {}
    for person in people:
        for thing in _things(person):
            if thing in holders:
                raise UsageError(
                    f"{what}: the {thing[0]} {thing[1]} stands twice, for {holders[thing]} and {person.human}", _STEP
                )
            holders[thing] = person.human


def _things(person: Person) -> Iterator[tuple[str, object]]:
    yield "name", person.human.casefold()
    yield from (("uid", uid) for uid in person.uids)
    yield from (("key", key) for key in person.keys)


def _read_bytes(place: Place) -> bytes | None:
    try:
        folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(
            f"{place.folder}: {error.strerror}", "it must be a directory that the service may read"
        ) from error
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hold us
        try:
            fd = os.open(NAME, flags, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(f"{place.path}: {error.strerror}", "it must be a plain file, mode 0644") from error
        with os.fdopen(fd, "rb") as file:
            _check_owner(place.folder, os.fstat(folder), place.owner_uid)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise RefusedError(f"{place.path}: is no regular file", "it must be a plain file, mode 0644")
            _check_owner(place.path, found, place.owner_uid)
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(folder)


def _check_owner(path: str, found: os.stat_result, owner_uid: int) -> None:
    if found.st_uid != owner_uid:
        raise RefusedError(f"{path}: belongs to uid {found.st_uid}, want {owner_uid}", f"chown root {path}")
    if found.st_mode & 0o022:
        seen = stat.S_IMODE(found.st_mode)
        raise RefusedError(f"{path}: others may write it (mode {seen:04o})", f"chmod go-w {path}")


class Reader:
    """The approvers in force, read anew when told to.

    Attributes:
        path: The file that is in force, or an empty word.
        problem: Why the newest file is not in force; an empty word when it is.
    """

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._places = places
        self.approvers = Approvers()
        self.path = ""
        self.problem = ""

    @property
    def folders(self) -> tuple[str, ...]:
        """Where a file may appear."""
        return tuple(place.folder for place in self._places)

    def read(self) -> bool:
        """Read the file; returns whether what is in force is what lies there. Without a file nobody is an approver."""
        try:
            found, path = Approvers(), ""
            for place in self._places:
                if (there := read(place)) is not None:
                    found, path = there, place.path
                    break
        except (DeskwardenError, OSError) as error:
            self.problem = error.message if isinstance(error, DeskwardenError) else str(error)
            return False
        self.approvers, self.path, self.problem = found, path, ""
        return True
