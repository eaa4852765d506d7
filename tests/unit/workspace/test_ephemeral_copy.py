from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import ConflictError, RefusedError, UsageError
from supervisor.linux import seqpacket
from supervisor.workspace import ephemeral_copy
from supervisor.workspace.ephemeral_copy import answer_copy, answer_drop_copy, answer_read_copy, drop_copies
from supervisor.workspace.resolving import answer_resolve
from supervisor.workspace.review import answer_recover


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("home", "store"):
        (tmp_path / name).mkdir()
    return tmp_path / "home"


@pytest.fixture
def store_fd(home: Path) -> Iterator[int]:
    fd = os.open(home.parent / "store", os.O_RDONLY)
    yield fd
    drop_copies(fd, [])
    os.close(fd)


@pytest.fixture
def asked(home: Path, store_fd: int) -> Callable[[str], dict[str, Any]]:
    def ask(target: str, name: str = "g1") -> dict[str, Any]:
        answer, fds = answer_resolve({"target": target, "home": str(home)}, [store_fd])
        seqpacket.close_all(fds)
        return {"id": name, "root": answer["root"], "items": answer["items"]}

    return ask


Asked = Callable[..., dict[str, Any]]


def copies(home: Path) -> list[str]:
    folder = home.parent / "store/grants"
    return sorted(os.listdir(folder)) if folder.exists() else []


def write(home: Path, names: str) -> None:
    for name in names.split():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"contents of {name}")


def test_the_copy_holds_exactly_the_files_under_their_names_read_only(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "f/q1/a.xlsx f/q1/secret.txt f/q2/b.xlsx")
    os.setxattr(home / "f/q1/a.xlsx", "user.note", b"x")
    (home / "f/q1/a.xlsx").chmod(0o4777)
    os.utime(home / "f/q1/a.xlsx", ns=(10, 20))
    answer, fds = answer_copy(asked("~/f/*/*.xlsx"), [store_fd])
    try:
        root = Path(f"/proc/self/fd/{fds[0]}")
        found = {str(path.relative_to(root)): path for path in root.rglob("*")}
        assert set(found) == {"q1", "q2", "q1/a.xlsx", "q2/b.xlsx"}
        assert found["q1/a.xlsx"].read_text() == "contents of f/q1/a.xlsx"
        assert {oct(path.stat().st_mode & 0o7777) for path in found.values() if path.is_file()} == {"0o400"}
        assert {oct(path.stat().st_mode & 0o7777) for path in (*found.values(), root) if path.is_dir()} == {"0o500"}
        assert os.listxattr(found["q1/a.xlsx"]) == []
        assert found["q1/a.xlsx"].stat().st_mtime_ns == 20
        assert found["q1/a.xlsx"].stat().st_ino != (home / "f/q1/a.xlsx").stat().st_ino
        assert [item["path"] for item in answer["items"]] == ["q1/a.xlsx", "q2/b.xlsx"]
        assert [os.read(fd, 100) for fd in fds[1:]] == [b"contents of f/q1/a.xlsx", b"contents of f/q2/b.xlsx"]
    finally:
        seqpacket.close_all(fds)


def test_a_later_write_to_the_original_does_not_reach_the_copy(home: Path, store_fd: int, asked: Asked) -> None:
    (home / "a").write_bytes(b"old" * 100_000)
    _, fds = answer_copy(asked("~/a"), [store_fd])
    with open(home / "a", "r+b") as file:
        file.write(b"new")
    assert os.pread(fds[1], 6, 0) == b"oldold"
    assert os.fstat(fds[1]).st_size == 300_000
    seqpacket.close_all(fds)


def _grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, 1)


def _same_size(path: Path) -> None:
    mtime = os.stat(path).st_mtime_ns
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(mtime, mtime))  # ctime can't be set back


def _replace(path: Path) -> None:
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _link_above(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "attack",
    [_grow, _shrink, _same_size, _replace, _link, _link_above, _fifo, Path.unlink],
    ids=lambda one: one.__name__,
)
def test_a_file_that_is_not_what_was_asked_for_fails_the_whole_copy(
    home: Path, store_fd: int, asked: Asked, attack: Callable[[Path], None]
) -> None:
    write(home, "f/a f/b f/c")
    request = asked("~/f/*")
    attack(home / "f/b")
    with pytest.raises(ConflictError, match=r"f/[ab]:"):
        answer_copy(request, [store_fd])
    assert copies(home) == []


def test_a_file_that_changes_while_it_is_copied_fails_the_copy(
    home: Path, store_fd: int, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, "f/a f/b")
    real = ephemeral_copy.copy_contents

    def racing(source: int, target: int) -> None:
        real(source, target)
        _grow(home / "f/b")

    monkeypatch.setattr(ephemeral_copy, "copy_contents", racing)
    with pytest.raises(ConflictError, match="f/b: it changed"):
        answer_copy(asked("~/f/*"), [store_fd])
    assert copies(home) == []


def test_the_bounds_hold_before_anything_is_made(home: Path, store_fd: int, asked: Asked) -> None:
    (home / "sparse").write_bytes(b"")
    os.truncate(home / "sparse", ephemeral_copy.MAX_BYTES + 1)
    with pytest.raises(RefusedError, match="bytes to copy"):
        answer_copy(asked("~/sparse"), [store_fd])
    write(home, "a")
    request = asked("~/a")
    for items in ([], request["items"] * 4097):
        with pytest.raises(RefusedError, match="files to copy"):
            answer_copy(request | {"items": items}, [store_fd])
    assert copies(home) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", ".x", "a" * 65, "a\n", "a\0"])
def test_an_id_that_leaves_the_store_is_refused(store_fd: int, name: str) -> None:
    for answer in (answer_copy, answer_drop_copy, answer_read_copy):
        with pytest.raises(UsageError, match="grant id"):
            answer({"id": name, "items": [], "root": "/"}, [store_fd])


def test_an_item_outside_the_root_is_refused(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "f/a g/b")
    request = asked("~/f/a")
    for path in (str(home / "g/b"), f"{home}/f/../g/b", f"{home}/f"):
        request["items"][0]["path"] = path
        with pytest.raises(UsageError, match="not below"):
            answer_copy(request, [store_fd])
    assert copies(home) == []


def test_an_id_is_used_once(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "a")
    seqpacket.close_all(answer_copy(asked("~/a"), [store_fd])[1])
    with pytest.raises(ConflictError, match="has a copy already"):
        answer_copy(asked("~/a"), [store_fd])
    assert copies(home) == ["g1"]


def test_a_dropped_copy_is_gone_and_dropping_again_says_so(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "f/a/b/c f/x")
    seqpacket.close_all(answer_copy(asked("~/f/*"), [store_fd])[1])
    assert answer_drop_copy({"id": "g1"}, [store_fd]) == ({"removed": True}, [])
    assert answer_drop_copy({"id": "g1"}, [store_fd]) == ({"removed": False}, [])
    assert copies(home) == []


def test_recovery_removes_what_no_living_grant_needs(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "f/a")
    for name in ("g1", "g2", "g3"):
        seqpacket.close_all(answer_copy(asked("~/f/a", name), [store_fd])[1])
    assert answer_recover({}, [store_fd])[0]["copies_dropped"] == 0
    assert answer_recover({"grants": ["g2"]}, [store_fd])[0]["copies_dropped"] == 2
    assert copies(home) == ["g2"]


def test_items_of_a_copy_can_be_read_and_not_what_lies_beside_it(home: Path, store_fd: int, asked: Asked) -> None:
    write(home, "f/a")
    made, fds = answer_copy(asked("~/f/a"), [store_fd])
    seqpacket.close_all(fds)
    answer, fds = answer_read_copy({"id": "g1", "items": made["items"]}, [store_fd])
    assert answer == {"opened": [0], "changed": []}
    assert os.read(fds[0], 100) == b"contents of f/a"
    seqpacket.close_all(fds)
    for path in ("../../../../home/f/a", str(home / "f/a")):
        answer, fds = answer_read_copy({"id": "g1", "items": [made["items"][0] | {"path": path}]}, [store_fd])
        assert (answer["opened"], fds) == ([], [])
