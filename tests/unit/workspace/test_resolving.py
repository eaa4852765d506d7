from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import RefusedError, UsageError
from supervisor.linux import seqpacket
from supervisor.workspace import census, survey
from supervisor.workspace.resolving import BATCH, answer_read_items, answer_resolve

Resolve = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("home", "store"):
        (tmp_path / name).mkdir()
    return tmp_path / "home"


@pytest.fixture
def resolve(home: Path) -> Iterator[Resolve]:
    store = os.open(home.parent / "store", os.O_RDONLY)

    def ask(target: str, **fields: Any) -> dict[str, Any]:
        answer, fds = answer_resolve({"do": "resolve", "target": target, "home": str(home), **fields}, [store])
        answer["contents"] = [os.read(fd, 100) for fd in fds]
        seqpacket.close_all(fds)
        return answer

    yield ask
    os.close(store)


def names(answer: dict[str, Any]) -> list[str]:
    return [os.path.basename(item["path"]) for item in answer["items"]]


def left(answer: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["why"] for one in answer["left_out"]}


def test_a_file_is_named_by_its_real_path_and_identity(home: Path, resolve: Resolve) -> None:
    (home / "real").mkdir()
    (home / "real/a.txt").write_text("hello")
    (home / "link").symlink_to("real")
    answer = resolve("~/link/a.txt")
    status = os.stat(home / "real/a.txt")
    assert answer["kind"] == "file"
    assert answer["selector"] == str(home / "real/a.txt")
    (item,) = answer["items"]
    assert (item["device"], item["inode"], item["size"]) == (status.st_dev, status.st_ino, 5)
    assert (item["ctime_ns"], item["uid"]) == (status.st_ctime_ns, os.geteuid())
    assert answer["contents"] == [b"hello"]


def test_a_folder_is_a_tree_also_without_stars(home: Path, resolve: Resolve) -> None:
    (home / "d/e").mkdir(parents=True)
    (home / "d/e/x").write_bytes(b"12")
    (home / "d/.hidden").write_bytes(b"345")
    for target in ("~/d", "~/d/", "~/d/**"):
        answer = resolve(target)
        assert (answer["kind"], answer["selector"]) == ("tree", f"{home}/d/**")
        assert (answer["files"], answer["bytes"], answer["complete"]) == (2, 5, True)


def test_a_pattern_holds_the_files_that_it_matches_and_no_others(home: Path, resolve: Resolve) -> None:
    for name in ("f/q1/a.xlsx", "f/q1/b.txt", "f/q2/c.xlsx", "f/q2/.d.xlsx", "f/z/e.xlsx", "f/.q3/g.xlsx"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    answer = resolve("~/f/q*/*.xlsx")
    assert (answer["kind"], answer["selector"]) == ("pattern", f"{home}/f/q*/*.xlsx")
    assert names(answer) == ["a.xlsx", "c.xlsx"]
    assert answer["contents"] == [b"f/q1/a.xlsx", b"f/q2/c.xlsx"]
    assert names(resolve("~/f/*/*.xlsx")) == ["a.xlsx", "c.xlsx", "e.xlsx"]
    assert names(resolve("~/f/*/a.xlsx")) == ["a.xlsx"]


def test_what_a_pattern_matches_and_is_no_file_is_left_out_by_name(home: Path, resolve: Resolve) -> None:
    (home / "a").write_text("a")
    (home / "link").symlink_to("/etc/passwd")
    os.mkfifo(home / "fifo")
    (home / "folder").mkdir()
    (home / "st*r").write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "sock"))
    with open(os.fsencode(home) + b"/bad\xff", "wb"):
        pass
    (home / "nl\n").write_text("")
    answer = resolve("~/*")
    assert names(answer) == ["a"]
    assert left(answer) == {
        "link": "a link",
        "fifo": "a FIFO",
        "folder": "a folder",
        "sock": "a socket",
        "st*r": "its name holds a *",
        r"bad\xff": "not UTF-8",
        r"nl\n": "holds the control character U+000A",
    }


def test_a_linked_folder_in_the_middle_of_a_pattern_is_not_followed(home: Path, resolve: Resolve) -> None:
    (home / "x").mkdir()
    (home / "x/in").symlink_to("/etc")
    answer = resolve("~/x/*/passwd")
    assert answer["items"] == []
    assert left(answer) == {"in": "a link"}


def test_a_link_swapped_in_for_a_literal_segment_after_a_star_is_not_followed(home: Path, resolve: Resolve) -> None:
    (home / "x/a").mkdir(parents=True)
    (home / "x/a/etc").symlink_to("/etc")
    assert resolve("~/x/*/etc/passwd")["items"] == []


@pytest.mark.parametrize("target", ["/", "/**", "/home", "/home/**", "/*", "/home/*"])
def test_the_whole_machine_is_refused(resolve: Resolve, target: str) -> None:
    with pytest.raises(RefusedError, match="too wide"):
        resolve(target)


def test_what_holds_the_home_is_refused(home: Path, resolve: Resolve) -> None:
    for target in (home.parent, home.parent.parent):
        with pytest.raises(RefusedError, match="too wide"):
            resolve(f"{target}/*/*")


def test_links_into_the_kernels_file_systems_are_refused(home: Path, resolve: Resolve) -> None:
    (home / "p").symlink_to("/proc")
    (home / "self").symlink_to("/proc/self/root/etc/hostname")
    for target in ("~/p/1/environ", "~/p/**", "~/p/*", "~/self"):
        with pytest.raises(RefusedError):
            resolve(target)


def test_deskwardens_own_state_is_refused_however_it_is_named(home: Path, resolve: Resolve) -> None:
    store = home.parent / "store"
    (store / "state.db").write_text("")
    (home / "s").symlink_to(store)
    for target in (f"{store}/state.db", f"{store}/**", "~/s/state.db", "~/s", "~/s/*"):
        with pytest.raises(RefusedError, match="own"):
            resolve(target)


def test_a_tree_or_file_that_the_daemon_names_as_its_own_is_refused(home: Path, resolve: Resolve) -> None:
    (home / "a/b").mkdir(parents=True)
    (home / "a/b/key").write_text("")
    (home / "other").hardlink_to(home / "a/b/key")
    key, folder = os.stat(home / "a/b/key"), os.stat(home / "a/b")
    for status in (key, folder):
        own = [[status.st_dev, status.st_ino]]
        for target in ("~/a", "~/a/b/*", "~/a/b/key"):
            with pytest.raises(RefusedError, match="own files"):
                resolve(target, forbidden=own)
    with pytest.raises(RefusedError, match="own files"):
        resolve("~/other", forbidden=[[key.st_dev, key.st_ino]])
    above = os.stat(home / "a")
    with pytest.raises(RefusedError, match="lie in it"):
        resolve("~/a", above=[[above.st_dev, above.st_ino]])


def test_a_tree_that_holds_the_store_is_refused_but_a_pattern_beside_it_is_not(home: Path) -> None:
    (home / ".local/state").mkdir(parents=True)
    (home / "a.txt").write_text("")
    store = os.open(home / ".local/state", os.O_RDONLY)
    request = {"target": "~/**", "home": str(home)}
    with pytest.raises(RefusedError, match="lie in it"):
        answer_resolve(request, [store])
    answer, fds = answer_resolve(request | {"target": "~/*.txt"}, [store])
    seqpacket.close_all(fds)
    os.close(store)
    assert names(answer) == ["a.txt"]


def test_another_users_file_is_refused_and_left_out(home: Path, resolve: Resolve) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away is for root")
    (home / "f").mkdir()
    for name in ("mine", "theirs"):
        (home / "f" / name).write_text("")
    os.chown(home / "f/theirs", 4242, 4242)
    with pytest.raises(RefusedError, match="another user"):
        resolve("~/f/theirs")
    for target in ("~/f/*", "~/f"):
        answer = resolve(target)
        assert names(answer) == ["mine"]
        assert left(answer) == {"theirs": "belongs to another user (4242)"}
    os.chown(home / "f", 4242, 4242)
    with pytest.raises(RefusedError, match="another user"):
        resolve("~/f")


def test_what_the_owner_may_not_read_is_refused_and_left_out(home: Path, resolve: Resolve) -> None:
    if os.geteuid() == 0:
        pytest.skip("modes do not bind as root")
    (home / "f").mkdir()
    (home / "f/a").write_text("")
    (home / "f/closed").write_text("")
    (home / "f/closed").chmod(0)
    (home / "f/shut").mkdir(0)
    with pytest.raises(RefusedError, match="not readable"):
        resolve("~/f/closed")
    assert left(resolve("~/f/*")) == {"closed": "not readable", "shut": "a folder"}
    tree = resolve("~/f")
    assert not tree["complete"]
    assert left(tree) == {"shut": "not readable"}
    (home / "f/shut").chmod(0o700)


def test_what_is_not_there_is_said(resolve: Resolve, home: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        resolve("~/nothing")
    (home / "file").write_text("")
    with pytest.raises(UsageError, match="no folder"):
        resolve("~/file/**")
    os.mkfifo(home / "fifo")
    with pytest.raises(RefusedError, match="a FIFO"):
        resolve("~/fifo")


def test_labels_of_files_and_of_what_lies_above_are_told(home: Path, resolve: Resolve) -> None:
    (home / "d/e").mkdir(parents=True)
    (home / "d/e/x").write_text("")
    os.setxattr(home / "d", "user.deskwarden.level", b"confidential")
    os.setxattr(home / "d/e/x", "user.deskwarden.classes", b"phi,pii")
    for target in ("~/d/e/x", "~/d/e/*", "~/d", "~/d/e"):
        assert resolve(target)["labels"] == [["", "phi,pii"], ["confidential", ""]], target
    assert resolve("~/d/e/x")["items"][0]["label"] == ["", "phi,pii"]


def test_sensitive_places_of_a_tree_are_named(home: Path, resolve: Resolve) -> None:
    for name in ("w/.SSH/k", "w/a/db.kdbx", "w/.config/google-chrome/x", "w/plain"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("")
    watched = [[".ssh"], ["*.kdbx"], [".config", "google-chrome"], ["w", "plain"]]
    expected = {".SSH", "a/db.kdbx", ".config/google-chrome", "plain"}
    assert set(resolve("~/w", watched=watched)["sensitive"]) == expected


def test_more_matches_than_the_bound_are_refused_and_a_larger_tree_is_incomplete(
    home: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_BUDGET_S", 600.0)  # a busy machine is not what is tested here
    folder = home / "many"
    folder.mkdir()
    for number in range(survey.MAX_ITEMS + 1):
        os.close(os.open(folder / f"{number}.txt", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(RefusedError, match="more than 4096 files"):
        resolve("~/many/*.txt")
    tree = resolve("~/many")
    assert (tree["files"], len(tree["items"]), tree["complete"]) == (survey.MAX_ITEMS + 1, survey.MAX_ITEMS, False)
    (folder / "0.txt").unlink()
    answer = resolve("~/many/*.txt")
    assert len(answer["items"]) == survey.MAX_ITEMS
    assert len(answer["contents"]) == BATCH
    assert resolve("~/many")["complete"]


def test_a_tree_nested_too_deeply_is_incomplete(home: Path, resolve: Resolve) -> None:
    (home / "deep" / "/".join("d" * (survey.MAX_DEPTH + 5))).mkdir(parents=True)
    answer = resolve("~/deep")
    assert not answer["complete"]
    assert [one["why"] for one in answer["left_out"]] == ["more than 64 folders deep"]


def test_items_are_opened_in_batches_and_what_changed_is_named(home: Path, resolve: Resolve) -> None:
    for name in ("a", "b", "c", "d"):
        (home / name).write_text(name)
    items = resolve("~/*")["items"]
    (home / "a").write_text("longer")  # grown
    (home / "b").unlink()
    (home / "c").unlink()
    (home / "c").symlink_to("d")
    answer, fds = answer_read_items({"items": items}, [])
    try:
        assert answer["opened"] == [3]
        assert [os.path.basename(one["path"]) for one in answer["changed"]] == ["a", "b", "c"]
        assert os.read(fds[0], 10) == b"d"
    finally:
        seqpacket.close_all(fds)
    with pytest.raises(UsageError, match="at most 128"):
        answer_read_items({"items": items * 40}, [])


def test_a_fifo_in_the_place_of_an_item_makes_nobody_wait(home: Path, resolve: Resolve) -> None:
    (home / "a").write_text("")
    items = resolve("~/*")["items"]
    (home / "a").unlink()
    os.mkfifo(home / "a")
    started = time.monotonic()
    answer, fds = answer_read_items({"items": items}, [])
    assert (answer["opened"], fds) == ([], [])
    assert time.monotonic() - started < 1


def test_an_item_can_be_held_to_be_mounted(home: Path, resolve: Resolve) -> None:
    (home / "t").mkdir()
    tree = resolve("~/t")
    item = {"path": str(home / "t"), "device": tree["device"], "inode": tree["inode"]}
    answer, fds = answer_read_items({"items": [item], "held": True}, [])
    assert answer["opened"] == [0]
    assert os.fstat(fds[0]).st_ino == os.stat(home / "t").st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(fds[0], 1)
    seqpacket.close_all(fds)
