"""Killed at every step of an apply, an undo or a recovery, the folder ends exactly old or exactly new."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable

import pytest

from supervisor.workspace.transaction import Observer
from tests.integration.workspace.bench import OWNER, Bench, tree
from tests.integration.workspace.conftest import MakeBench

pytestmark = pytest.mark.integration

SETUP = """
mkdir -p d/deep e src; echo 1 > f; echo 2 > d/x; echo 3 > d/deep/y; echo 4 > e/old; ln -s f link
echo long enough to be told apart > src/a; echo mode > m; echo was a file > turns; echo l > h1; ln h1 h2
setfattr -n user.before -v old f; touch -d 2020-01-01 f d/x d/deep/y e/old src/a m turns h1
"""
AGENT = """
echo more >> f; rm -r d/deep; chmod 755 m; ln -sfn d link; mv src/a src/b; rm turns; mkdir turns; echo in > turns/in
rm -r e; echo now a file > e; mkdir -p n1/n2; echo n > n1/n2/n; chmod 750 src; rm h1 h2; echo both > h1; ln h1 h2
"""


class _Points:
    """Kills the process that observes at the chosen point; counts them when none is chosen."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.names = at, list[str]()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def _killed(action: Callable[[Observer], object], at: int) -> bool:
    """Run *action* in a child that dies at point *at*; tell whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            action(_Points(at))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _recovered(bench: Bench) -> None:
    bench.recover()
    assert bench.recover() == []
    assert [name for name in os.listdir(bench.lower) if name.startswith(".")] == []
    assert all(info.state != "open" for info in bench.steps())


def _started(make_bench: MakeBench) -> tuple[Bench, dict[bytes, tuple[object, ...]], dict[bytes, tuple[object, ...]]]:
    bench = make_bench(SETUP)
    old = tree(bench.lower)
    bench.agent(AGENT)
    return bench, old, tree(f"{bench.root}/ro")


def test_apply_killed_at_every_step_ends_old_or_new(make_bench: MakeBench) -> None:
    bench, old, new = _started(make_bench)
    changes = bench.scan()
    committed: list[bool] = []
    for at in range(1000):
        if not _killed(lambda observe, changes=changes: bench.apply(changes=changes, observe=observe), at):
            break
        _recovered(bench)
        now = tree(bench.lower)
        assert now in (old, new), at
        committed.append(now == new)
        if now == new:
            bench.undo(bench.steps()[-1].number)
            assert tree(bench.lower) == old, at
            changes = bench.scan()
        assert not any(change.conflict for change in changes)
    names = _Points()
    bench.undo(bench.steps()[-1].number)
    bench.apply(observe=names)
    assert len(committed) == len(names.names)
    # One moment parts the two: the commit mark.
    assert committed == [at >= names.names.index("after the commit mark") for at in range(len(committed))]
    assert sum(committed) > 30


def test_undo_killed_at_every_step_ends_old_or_new(make_bench: MakeBench) -> None:
    bench, old, new = _started(make_bench)
    step = bench.apply().step_id
    outcomes = set()
    for at in range(1000):
        if not _killed(lambda observe, step=step: bench.undo(step, observe=observe), at):
            break
        _recovered(bench)
        now = tree(bench.lower)
        assert now in (old, new), at
        outcomes.add(now == old)
        if now == old:
            bench.undo(bench.steps()[-1].number)
            assert tree(bench.lower) == new, at
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    "moment", ["before put 14", "after writing the plan", "after staging 12", "after writing what was done"]
)
def test_a_recovery_killed_at_every_step_is_finished_by_the_next(make_bench: MakeBench, moment: str) -> None:
    bench, old, new = _started(make_bench)
    names = _Points()
    bench.apply(observe=names)
    bench.undo(1)
    at, reached = names.names.index(moment), 0
    for second in range(1000):
        assert _killed(lambda observe: bench.apply(observe=observe), at)
        killed_again = _killed(bench.recover, second)
        _recovered(bench)
        now = tree(bench.lower)
        assert now == (new if at >= names.names.index("after the commit mark") else old)
        if now == new:
            bench.undo(bench.steps()[-1].number)
        reached += killed_again
        if not killed_again:
            break
    assert reached >= 2


def test_an_error_at_every_step_leaves_the_old_state_at_once(make_bench: MakeBench) -> None:
    bench, old, _ = _started(make_bench)
    names = _Points()
    bench.apply(observe=names)
    bench.undo(1)
    for at, name in enumerate(names.names):
        if name == "after writing what was done":
            break
        changes = bench.scan()
        with pytest.raises(OSError, match="No space"):
            bench.apply(changes=changes, observe=_full_disk_at(at))
        assert tree(bench.lower) == old, name
        assert bench.recover() == [], name
        assert len(bench.steps()) == 2


def _full_disk_at(at: int) -> Observer:
    seen = _Points()

    def observe(name: str) -> None:
        seen(name)
        if len(seen.names) - 1 == at:
            raise OSError(errno.ENOSPC, "No space left on device", name)

    return observe


def test_a_step_whose_folder_is_missing_waits(make_bench: MakeBench) -> None:
    bench, _, new = _started(make_bench)
    names = _Points()
    bench.apply(observe=names)
    bench.undo(1)
    assert _killed(lambda observe: bench.apply(observe=observe), names.names.index("after the commit mark"))
    found, bench.open_folder = bench.open_folder, _no_folder  # type: ignore[method-assign]
    assert [one.end for one in bench.recover()] == ["folder missing"]
    bench.open_folder = found  # type: ignore[method-assign]
    assert [one.end for one in bench.recover()] == ["finished"]
    assert tree(bench.lower) == new


def _no_folder(path: bytes) -> int:
    raise FileNotFoundError(errno.ENOENT, "not mounted", path)


def test_what_the_host_did_between_crash_and_recovery_is_kept(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo 1 > g; echo 1 > late")
    bench.agent("echo agent > f; echo agent > g; echo agent > late; echo n > n")
    names: list[str] = []

    def die(name: str) -> None:
        names.append(name)
        if name == "after put 1":
            os.kill(os.getpid(), signal.SIGKILL)

    assert _killed(lambda _: bench.apply(observe=die), 0)
    bench.host("echo host > late; echo host > n; echo host >> f")
    bench.recover()
    found = {name: (bench.lower / name).read_text() for name in ("f", "g", "late", "n")}
    assert found == {"f": "agent\nhost\n", "g": "agent\n", "late": "host\n", "n": "host\n"}
    assert {c.path for c in bench.undo(1).conflicts} >= {b"f"}
    assert (bench.lower / "f").read_text() == "agent\nhost\n"


def test_an_apply_first_ends_a_step_that_a_crash_left_open(make_bench: MakeBench) -> None:
    bench, _, new = _started(make_bench)
    names = _Points()
    bench.apply(observe=names)
    bench.undo(1)
    assert _killed(lambda observe: bench.apply(observe=observe), names.names.index("before put 14"))
    bench.agent("echo later > later")
    assert [change.path for change in bench.apply(b"later").applied] == [b"later"]
    assert {path: entry for path, entry in tree(bench.lower).items() if path != b"later"} == new
    assert bench.recover() == []


def test_old_versions_reach_a_store_that_was_moved_to_another_disk_after_a_crash(make_bench: MakeBench) -> None:
    bench, old, new = _started(make_bench)
    names = _Points()
    bench.apply(observe=names)
    bench.undo(1)
    assert _killed(lambda observe: bench.apply(observe=observe), names.names.index("after writing what was done"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        shutil.copytree(f"/proc/{os.getpid()}/fd/{bench.store_fd}/", elsewhere, dirs_exist_ok=True)
        subprocess.run(["chown", "-R", str(OWNER), elsewhere], check=True)
        moved = os.open(elsewhere, os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(moved, bench.store_fd, inheritable=False)
        os.close(moved)
        _recovered(bench)
        assert tree(bench.lower) == new
        bench.undo(bench.steps()[-1].number)
        assert tree(bench.lower) == old
