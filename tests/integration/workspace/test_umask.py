"""The owner's umask of 002 in a real session: what only a group of the owner's own may write is not held."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.workspace.private_group import NONE, private_group
from tests.service import Service, serving

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def serviced() -> Iterator[Service]:
    with serving() as one:
        yield one


def test_group_writable_files_are_held_unless_the_group_is_the_owners_alone(serviced: Service) -> None:
    folder = serviced.folder()
    folder.chmod(0o755)
    code = """
        os.umask(0o002)
        write("new"); os.mkdir("sub"); write("sub/f"); write("all"); os.chmod("all", 0o666)
        report(True)
    """
    serviced.python(code, cwd=folder)
    held = {path for path, change in serviced.changes().items() if change["held"]}
    is_private = private_group(os.geteuid()) != NONE
    assert held == ({"all"} if is_private else {"new", "sub", "sub/f", "all"})
    serviced.run("apply", cwd=folder)
    assert (folder / "sub/f").exists() == is_private
    assert not (folder / "all").exists()
