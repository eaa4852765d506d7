"""A plan as bubblewrap's arguments: every mount has its counterpart, in order, or it is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bench import rival
from supervisor.sandbox import operations
from supervisor.sandbox.operations import Bind, MakeDirectory, MakeSymlink, MountFs, Overlay, WriteFile, to_json


def _plan(*items: operations.Operation) -> dict[str, Any]:
    return {
        "base": [to_json(item) for item in items[:1]],
        "operations": [to_json(item) for item in items[1:]],
        "seccomp": base64.b64encode(b"filter").decode(),
        "command": {"argv": ["true", "--dev"], "environment": {"A": "b c"}, "directory": "/w"},
    }


def _mounts(*items: operations.Operation) -> list[str]:
    words = rival.arguments(_plan(*items), exists=lambda path: path == "/proc/keys").words
    return words[words.index("ALL") + 1 : words.index("--chdir")]


def test_every_namespace_is_unshared_and_the_filter_is_loaded() -> None:
    given = rival.arguments(_plan())
    assert "--unshare-all" in given.words
    assert "--die-with-parent" in given.words
    assert given.contents[int(given.words[given.words.index("--seccomp") + 1])] == b"filter"


def test_the_command_comes_last_untouched() -> None:
    assert rival.arguments(_plan()).words[-3:] == ["--", "true", "--dev"]


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (MakeDirectory("/w/.ssh", 0), ["--perms", "0000", "--dir", "/w/.ssh"]),
        (MakeSymlink("/bin", "usr/bin"), ["--symlink", "usr/bin", "/bin"]),
        (MountFs("proc", "/proc"), ["--proc", "/proc"]),
        (
            MountFs("tmpfs", "/tmp", {"mode": "1777", "size": "4096"}),
            ["--size", "4096", "--perms", "1777", "--tmpfs", "/tmp"],
        ),
        (MountFs("tmpfs", "/tmp", {"size": "50%"}), ["--tmpfs", "/tmp"]),
        (Bind(0, "/usr", "/usr"), ["--ro-bind", "/usr", "/usr"]),
        (Bind(0, "/w", "/real/w", read_only=False), ["--bind", "/real/w", "/w"]),
        (Overlay([0], "/w", "/w", {}, stage=1), ["--bind", "/w", "/w"]),
        (Overlay([0, 1], "/r", "/r", {}, read_only=True), ["--ro-bind", "/r", "/r"]),
        (MakeDirectory("/dev"), ["--dev", "/dev"]),
        (Bind(0, "/dev/null", "/dev/null", read_only=False, device=True), []),
        (Bind(0, "/proc/keys", "/dev/null", device=True, if_exists=True), ["--ro-bind", "/dev/null", "/proc/keys"]),
        (Bind(0, "/proc/none", "/dev/null", device=True, if_exists=True), []),
    ],
)
def test_an_operation_has_this_counterpart(operation: operations.Operation, words: list[str]) -> None:
    assert _mounts(operation) == words


def test_the_order_of_mounts_is_kept() -> None:
    words = _mounts(Bind(0, "/a", "/a"), MountFs("tmpfs", "/a/b"), Bind(1, "/a/b/c", "/a/b/c"))
    assert [word for word in words if word.startswith("/")] == ["/a", "/a", "/a/b", "/a/b/c", "/a/b/c"]


def test_a_written_file_travels_in_a_descriptor_of_its_own() -> None:
    given = rival.arguments(_plan(WriteFile("/etc/passwd", "one"), WriteFile("/etc/group", "two")))
    numbers = [int(given.words[at + 1]) for at, word in enumerate(given.words) if word == "--file"]
    assert [given.contents[number] for number in numbers] == [b"one", b"two"]


def test_an_operation_without_a_counterpart_is_refused_not_left_out() -> None:
    plan = _plan()
    plan["operations"] = [{"op": "teleport", "path": "/x"}]
    with pytest.raises(ValueError, match="teleport"):
        rival.arguments(plan)


def test_what_bubblewrap_has_no_word_for_is_a_known_list() -> None:
    known = set(operations._CLASSES)
    assert known >= rival._SKIPPED
    assert known - rival._SKIPPED == {"directory", "symlink", "file", "mount", "bind", "overlay", "hostname", "stub"}
