from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.workspace.target import Target, parse_target, problem_with


@pytest.mark.parametrize(
    ("text", "prefix", "tail"),
    [
        ("~", "/home/o", ()),
        ("~/", "/home/o", ()),
        ("~/a/b.txt", "/home/o/a/b.txt", ()),
        ("~/a/", "/home/o/a", ()),
        ("/srv/x/**", "/srv/x", ("**",)),
        ("~/f/*.xlsx", "/home/o/f", ("*.xlsx",)),
        ("~/f/q*/r/*.x*", "/home/o/f", ("q*", "r", "*.x*")),
        ("/a/[b]?", "/a/[b]?", ()),
        ("/**", "/", ("**",)),
    ],
)
def test_a_target_is_taken_apart_before_its_first_star(text: str, prefix: str, tail: tuple[str, ...]) -> None:
    assert parse_target(text, "/home/o") == Target(prefix, tail)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "~root/x",
        "~root",
        "/a/../etc/passwd",
        "/a/./b",
        "/a//b",
        "/a/..",
        "~/../other",
        "/a\0b",
        "/a\nb",
        "/a\x7fb",
        "/a\x9bb",
        "/a\u202eb",
        "/a\u2028b",
        "/cafe\u0301",
        "/a\udcffb",
        "/a/**/b",
        "/a/b**",
        "/a/***",
        "/a/*/**",
        "/" + "x" * 4095,
        "/x" * 65,
        "$HOME/x",
        "/" + "é" * 2048,
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text, "/home/o")
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["/proc/1/environ", "/sys/x", "/dev/mem", "/dev", "/proc/*/environ", "/sys/**"])
def test_the_kernels_own_files_are_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_target(text, "/home/o")


@given(st.text(st.sampled_from("/~.*a\0\n\udc80\u202eé"), max_size=24))
def test_every_text_is_a_target_or_refused_by_name(text: str) -> None:
    try:
        target = parse_target(text, "/home/o")
    except DeskwardenError:
        return
    segments = [*target.prefix.split("/")[1:], *target.tail]
    assert target.prefix.startswith("/")
    assert "*" not in target.prefix
    assert ".." not in segments
    assert all(problem_with(segment) == "" for segment in segments if segment)
