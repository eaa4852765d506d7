"""Paths as a person types them, relative to the area that they lie in."""

from __future__ import annotations

import pytest

from supervisor.errors import UsageError
from supervisor.session.review import paths_in_area
from supervisor.session.session import shell_code

AREAS = ["/w/project", "/w/notes"]


@pytest.mark.parametrize(
    ("path", "cwd", "area", "expected"),
    [
        ("a.txt", "/w/project", AREAS[0], ["a.txt"]),
        ("a.txt", "/w/project/sub", AREAS[0], ["sub/a.txt"]),
        ("../a.txt", "/w/project/sub", AREAS[0], ["a.txt"]),
        (".", "/w/project", AREAS[0], [""]),
        ("sub/a.txt", "/elsewhere", AREAS[0], ["sub/a.txt"]),
        ("/w/notes/n", "/w/project", AREAS[0], []),
        ("/w/notes/n", "/w/project", AREAS[1], ["n"]),
    ],
)
def test_a_path_is_found_in_its_area(path: str, cwd: str, area: str, expected: list[str]) -> None:
    assert paths_in_area([path], cwd, AREAS, area) == expected


@pytest.mark.parametrize("path", ["/etc/passwd", "../../x", "/w/projectile"])
def test_a_path_outside_of_every_area_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="outside of"):
        paths_in_area([path], "/w/project", AREAS, AREAS[0])


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_a_death_by_signal_is_said_as_a_shell_says_it(status: int, code: int) -> None:
    assert shell_code(status) == code
