"""What is refused before anybody is asked for it."""

from __future__ import annotations

import pytest

from supervisor.errors import RefusedError
from supervisor.session.file_resolver import check_grantable

_RULES = (("/", "read"), ("/home/o", "write"))
_READ_ONLY_RULES = (("/etc", "read"),)


@pytest.mark.parametrize("selector", ["/home/o/x/**", "/srv/data/**"])
def test_reading_is_open_wherever_the_session_may_read(selector: str) -> None:
    check_grantable(_RULES, ("read",), selector, "tree")


def test_reading_outside_of_every_rule_is_refused_with_the_way_to_start_it() -> None:
    with pytest.raises(RefusedError, match="cannot be read") as caught:
        check_grantable(_READ_ONLY_RULES, ("read",), "/srv/data/**", "tree")
    assert "-r /srv/data" in caught.value.next_step


def test_writing_where_the_session_may_only_read_is_refused_with_the_way_to_start_it() -> None:
    with pytest.raises(RefusedError, match="cannot be written") as caught:
        check_grantable(_RULES, ("read", "write"), "/srv/data/**", "tree")
    assert "-w /srv/data" in caught.value.next_step


@pytest.mark.parametrize(
    ("selector", "kind", "folder"),
    [("/home/o/x/a.txt", "file", "/home/o/x"), ("/home/o/x/*.txt", "pattern", "/home/o/x")],
)
def test_writing_less_than_a_folder_is_refused_and_the_folder_named(selector: str, kind: str, folder: str) -> None:
    with pytest.raises(RefusedError, match="only a whole folder") as caught:
        check_grantable(_RULES, ("write",), selector, kind)
    assert caught.value.next_step == f"ask for {folder}/**"


def test_writing_a_folder_is_refused_before_it_is_asked_since_nothing_here_grants_it() -> None:
    with pytest.raises(RefusedError, match="not given them to change"):
        check_grantable(_RULES, ("write",), "/home/o/x/**", "tree")
