"""Who approves is what root wrote, whole and unambiguous; anything else changes nothing, and says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon.approvers import NAME, Place, Reader, parse, read
from supervisor.errors import DeskwardenError, UsageError
from supervisor.identity.keys import new_key

ANN = {"human": "ann", "teams": {"finance": "lead"}, "uids": [2001], "review_by": "2099-01-31"}


def document(*people: dict[str, Any]) -> bytes:
    return json.dumps({"schema": "deskwarden.approvers/1", "people": list(people)}).encode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "managed"
    folder.mkdir(mode=0o755)
    return Place(str(folder), os.geteuid())


def write(place: Place, data: bytes, mode: int = 0o644) -> None:
    Path(place.path).write_bytes(data)
    os.chmod(place.path, mode)


def test_a_person_is_known_by_account_and_by_key_whether_whole_or_by_id() -> None:
    whole, by_id = new_key().public, new_key().public
    found = parse(document(ANN | {"keys": [whole.pem, by_id.keyid]}), "f")
    assert found.directory.of_uid(2001).human == "ann"
    for key in (whole, by_id):
        person = found.directory.of_key(key.keyid)
        assert person is not None
        assert person.human == "ann"
    assert dict(found.keys) == {whole.keyid: whole}


def test_two_people_with_one_account_one_key_or_one_name_are_refused() -> None:
    key = new_key().public
    for first, second in (
        ({}, {"human": "bea"}),
        ({"uids": [], "keys": [key.pem]}, {"human": "bea", "uids": [], "keys": [key.keyid]}),
        ({}, {"human": "Ann", "uids": [7]}),
    ):
        with pytest.raises(UsageError, match="stands twice"):
            parse(document(ANN | first, ANN | first | second), "f")


@pytest.mark.parametrize(
    "change",
    [
        {"human": "uid:1000"},
        {"human": "ann\n"},
        {"human": ""},
        {"teams": {"owner": ""}},
        {"teams": {"finance\n": ""}},
        {"teams": {"finance": "lead\n"}},
        {"keys": [f"sha256:{'0' * 64}\n"]},
        {"teams": ["finance"]},
        {"uids": [-1]},
        {"uids": [True]},
        {"uids": "2001"},
        {"keys": ["-----BEGIN PRIVATE KEY-----"]},
        {"keys": ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]},
        {"review_by": "2026-02-30"},
        {"review_by": ""},
        {"nickname": "a"},
    ],
)
def test_what_is_not_of_the_schema_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        parse(document(ANN | change), "f")


def test_a_file_that_somebody_else_could_have_written_does_not_count(place: Place) -> None:
    write(place, document(ANN), 0o664)
    with pytest.raises(DeskwardenError, match="others may write"):
        read(place)
    write(place, document(ANN))
    with pytest.raises(DeskwardenError, match="belongs to"):
        read(Place(place.folder, os.geteuid() + 1))
    os.chmod(place.folder, 0o777)
    with pytest.raises(DeskwardenError, match="others may write"):
        read(place)


def test_a_link_a_pipe_and_a_linked_folder_do_not_count(place: Place, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(document(ANN))
    os.symlink(tmp_path / "real.json", place.path)
    with pytest.raises(DeskwardenError):
        read(place)
    os.unlink(place.path)
    os.mkfifo(place.path)
    with pytest.raises(DeskwardenError, match="no regular file"):
        read(place)
    os.unlink(place.path)
    write(place, document(ANN))
    os.symlink(place.folder, tmp_path / "linked")
    with pytest.raises(DeskwardenError):
        read(Place(str(tmp_path / "linked"), place.owner_uid))


def test_a_broken_file_leaves_the_last_good_one_and_a_missing_one_leaves_nobody(place: Place) -> None:
    reader = Reader((place,))
    assert reader.read()
    assert reader.approvers.directory.people == ()
    write(place, document(ANN))
    assert reader.read()
    assert (reader.path, reader.problem) == (place.path, "")
    write(place, document(ANN)[:-1])
    assert not reader.read()
    assert [one.human for one in reader.approvers.directory.people] == ["ann"]
    assert NAME in reader.problem
    os.unlink(place.path)
    assert reader.read()
    assert (reader.approvers.directory.people, reader.problem) == ((), "")


def test_the_first_place_that_has_a_file_counts_alone(place: Place, tmp_path: Path) -> None:
    own = Place(str(tmp_path), os.geteuid())
    write(own, document(ANN | {"human": "own"}))
    os.chmod(tmp_path, 0o755)
    reader = Reader((place, own))
    assert reader.read()
    assert reader.path == own.path
    write(place, document(ANN), 0o666)
    assert not reader.read()  # a managed file that cannot be trusted does not give way to the person's own
    write(place, document(ANN))
    assert reader.read()
    assert [one.human for one in reader.approvers.directory.people] == ["ann"]
