"""What the agent changed is found, in both modes, and nothing else is."""

from __future__ import annotations

import os
import time

import pytest

from supervisor.workspace.area import Baseline
from tests.integration.workspace.bench import KINDS
from tests.integration.workspace.conftest import MakeBench

pytestmark = pytest.mark.integration

SETUP = """
mkdir -p d/deep e keep src
echo 1 > f; echo 2 > d/x; echo 3 > d/y; echo deep > d/deep/z; echo 4 > e/old; echo k > keep/k; echo p > pure
ln -s f link; echo long enough to be told apart > src/a; head -c 300000 /dev/urandom > big
"""


def test_every_kind_of_change_is_found(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent(
        """
        echo more >> f; echo new > n; rm d/y; chmod 700 keep/k; ln -sfn n link; mv src/a src/b
        rm pure; mkdir pure; echo in > pure/in; rm -r e; echo now a file > e; setfattr -n user.tag -v 1 big
        mkdir empty
        """
    )
    assert bench.kinds() == {
        b"f": "modified",
        b"n": "added",
        b"d/y": "deleted",
        b"keep/k": "mode",
        b"link": "modified",
        b"src/b": "renamed",
        b"pure": "type",
        b"pure/in": "added",
        b"e": "type",
        b"e/old": "deleted",
        b"big": "metadata",
        b"empty": "added",
    }
    assert next(c.old_path for c in bench.scan() if c.path == b"src/b") == b"src/a"


def test_an_untouched_workspace_has_no_change(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent("cat f d/x >/dev/null; ls -lR . >/dev/null")
    assert bench.scan() == []


def test_times_alone_and_contents_put_back_are_no_change(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent("touch f d d/x; echo 9 > keep/k; echo k > keep/k; echo x > new; rm new; mkdir t; rmdir t")
    assert bench.scan() == []


def test_a_renamed_directory_shows_its_files_as_renamed(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    # Where the overlay refuses (rootless) mv(1) copies: both have to look the same here.
    bench.agent("mv d d2; mv d2/deep d2/shallow; mv src/a d2/a")
    found = {change.path: (change.kind, change.old_path) for change in bench.scan()}
    assert found == {
        b"d": ("deleted", b""),
        b"d/deep": ("deleted", b""),
        b"d2": ("added", b""),
        b"d2/shallow": ("added", b""),
        b"d2/a": ("renamed", b"src/a"),
        b"d2/x": ("renamed", b"d/x"),
        b"d2/y": ("renamed", b"d/y"),
        b"d2/shallow/z": ("renamed", b"d/deep/z"),
    }


def test_a_directory_renamed_over_a_deleted_one_is_compared_file_by_file(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir one two; echo a > one/same; echo b > one/own; echo a > two/same; echo c > two/other")
    bench.agent("rm -r one; mv two one")
    assert bench.kinds() == {b"one/own": "deleted", b"one/other": "renamed", b"two": "deleted", b"two/same": "deleted"}


def test_two_directories_that_changed_places_are_compared_by_contents(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir one two; for n in 1 2 3; do echo one$n > one/$n; echo two$n > two/$n; done")
    bench.agent("mv one t; mv two one; mv t two")
    assert bench.kinds() == {b"%s/%d" % (d, n): "modified" for d in (b"one", b"two") for n in (1, 2, 3)}


def test_a_recreated_directory_hides_what_was_in_it(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent("rm -rf d; mkdir d; echo 2 > d/x; echo other > d/y")
    assert bench.kinds() == {b"d/y": "modified", b"d/deep": "deleted", b"d/deep/z": "deleted"}


@pytest.mark.parametrize("kind", [*KINDS, "system-other-ext4"], indirect=True)
def test_a_rename_with_an_edit_is_known_by_its_inode(make_bench: MakeBench) -> None:
    bench = make_bench("seq 100 > numbers")
    bench.agent("mv numbers digits; echo 101 >> digits")
    [change] = bench.scan()
    assert (change.kind, change.path, change.old_path) == ("renamed", b"digits", b"numbers")


def test_likeness_alone_is_no_rename(make_bench: MakeBench) -> None:
    bench = make_bench("seq 100 > numbers")
    bench.agent("seq 101 > digits; rm numbers")
    assert bench.kinds() == {b"digits": "added", b"numbers": "deleted"}


def test_names_of_any_bytes_survive_scan_and_json(make_bench: MakeBench) -> None:
    bench = make_bench("""mkdir $'n\\xff'; echo 1 > $'n\\xff/a\\nb'""")
    bench.agent("""echo 2 > $'n\\xff/a\\nb'; echo 3 > 'a: b, c\\d'; echo 4 > $'\\xe9'; echo 5 > -n; echo 6 > ' '""")
    names = {b"n\xff/a\nb", b"a: b, c\\d", b"\xe9", b"-n", b" "}
    changes = bench.scan()
    assert {change.path for change in changes} == names


def test_host_edits_are_conflicts_only_where_the_agent_changed_too(make_bench: MakeBench) -> None:
    bench = make_bench(
        "mkdir d; for n in inplace replaced deleted moved chmod untouched own d/gone; do echo 1 > $n; done"
    )
    bench.agent(
        "for n in inplace replaced deleted moved chmod own; do echo agent >> $n; done; rm -r d; echo a > created"
    )
    bench.host(
        """
        echo host >> inplace; echo host > .t; mv .t replaced; rm deleted; mv moved elsewhere; chmod 600 chmod
        echo host >> untouched; echo host > created; echo host >> d/gone
        """
    )
    conflicts = {change.path for change in bench.scan() if change.conflict}
    assert conflicts == {b"inplace", b"replaced", b"deleted", b"moved", b"chmod", b"created", b"d/gone"}
    assert b"own" in bench.kinds()
    assert b"untouched" not in bench.kinds()


def test_the_same_edit_on_both_sides_is_no_change(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("echo 2 > f; echo n > new; rm -f gone")
    bench.host("echo 2 > f; echo n > new")
    assert bench.scan() == []


def test_a_clock_set_back_makes_every_touch_of_an_existing_file_a_conflict(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo 2 > g")
    bench.agent("echo 2 > f; rm g; echo n > new")
    later = bench.baseline.realtime_minus_boottime_ns + 3_600_000_000_000
    bench.baseline = Baseline(bench.baseline.started_ns, later)
    assert {c.path: bool(c.conflict) for c in bench.scan()} == {b"f": True, b"g": True, b"new": False}
    assert all("clock went back" in c.conflict for c in bench.scan() if c.conflict)


def test_special_files_are_refused_and_setuid_is_noted(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo 2 > g; mkfifo was_fifo")
    bench.agent(
        """
        mkfifo pipe; rm f; mkfifo f; chmod 4755 g; echo x > suid; chmod 6755 suid; rm was_fifo
        perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => "sock", Listen => 1) or die'
        """
    )
    found = {change.path: change for change in bench.scan()}
    assert {path for path, change in found.items() if change.refused} == {b"pipe", b"f", b"sock", b"was_fifo"}
    assert found[b"suid"].notes == ("setuid, setgid dropped",)


def test_wider_modes_acls_and_files_that_run_later_are_held(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir -p .git/hooks; echo 1 > f; chmod 640 f; echo 2 > x; chmod 644 x; echo 3 > g; chmod 600 g")
    bench.agent(
        """
        chmod 666 f; chmod 755 x; setfacl -m u:0:r g; echo h > .git/hooks/post-checkout; echo e > .envrc
        echo w > world; chmod 666 world; mkdir open; chmod 777 open; echo fine > fine
        """
    )
    held = {change.path for change in bench.scan() if change.held}
    assert held == {b"f", b"g", b".git/hooks/post-checkout", b".envrc", b"world", b"open"}


def test_a_symlink_that_makes_another_folder_run_later_is_held_and_not_applied(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir .github; echo 1 > .github/README; echo 2 > kept; ln -s a link")
    bench.agent(
        """
        mkdir vsc gh; echo t > vsc/tasks.json; ln -s vsc .vscode
        rm -r .github; ln -s gh .github; mkdir gh/workflows; echo w > gh/workflows/ci.yml; ln -sfn kept link
        """
    )
    assert {change.path for change in bench.scan() if change.held} == {b".vscode", b".github"}
    bench.apply()
    assert (bench.lower / "vsc/tasks.json").exists()
    assert os.readlink(bench.lower / "link") == "kept"
    assert not os.path.lexists(bench.lower / ".vscode")
    assert not (bench.lower / ".github").is_symlink()


def test_a_bare_repository_of_any_name_runs_nothing_after_an_apply(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir docs; echo 1 > docs/text")
    bench.agent(
        """
        mkdir -p docs/fix/objects docs/fix/refs docs/fix/hooks docs/plain; echo 'ref: refs/heads/x' > docs/fix/HEAD
        git config -f docs/fix/config core.repositoryformatversion 0; git config -f docs/fix/config core.worktree .
        git config -f docs/fix/config core.fsmonitor 'touch ran; false'
        echo x > docs/fix/hooks/post-checkout; echo more >> docs/text; echo mine > docs/plain/config
        """
    )
    bench.agent("cd docs/fix; git status >/dev/null; test -e ran; rm -f ran index*")
    held = {change.path for change in bench.scan() if change.held}
    assert held == {b"docs/fix/HEAD", b"docs/fix/config", b"docs/fix/hooks/post-checkout"}
    bench.apply()
    bench.host("cd docs/fix; git status >/dev/null 2>&1 || true; test ! -e ran")
    assert (bench.lower / "docs/plain/config").read_text() == "mine\n"


def test_a_repository_made_in_two_steps_is_held_at_the_one_that_completes_it(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir fix")
    bench.agent("echo 'ref: refs/heads/x' > fix/HEAD; echo '[core]' > fix/config")
    assert not [change for change in bench.scan() if change.held]
    bench.apply()
    bench.agent("mkdir fix/objects fix/refs")
    assert {change.path for change in bench.scan() if change.held} == {b"fix/objects", b"fix/refs"}


def test_an_unreadable_file_is_read_and_left_unreadable(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("echo 2 > f; chmod 0 f; echo secret > n; chmod 0 n")
    found = {change.path: change for change in bench.scan()}
    assert found[b"f"].kind == "modified"
    assert found[b"n"].digest
    assert os.stat("n", dir_fd=bench.area.upper_fd).st_mode & 0o777 == 0


def test_a_directory_that_cannot_be_entered_is_named_not_skipped(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d; echo 1 > d/f")
    bench.agent("echo 2 > d/f; chmod 0 d")
    [change] = bench.scan()
    assert (change.path, bool(change.refused)) == (b"d", True)
    bench.agent("chmod 755 d")


def test_a_symlink_planted_as_a_parent_is_never_followed(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir dir; echo 1 > dir/passwd")
    bench.agent("mv dir dir2; ln -s /etc dir")
    found = {change.path: change for change in bench.scan()}
    assert found[b"dir"].kind == "type"
    assert found[b"dir"].new is not None
    assert found[b"dir"].new.target == b"/etc"
    assert found[b"dir2/passwd"].old_path == b"dir/passwd"
    assert set(found) == {b"dir", b"dir2", b"dir2/passwd"}


def test_a_reserved_name_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench()
    name = ".deskwarden-" + "0" * 32
    bench.agent(f"mkdir {name}; echo x > {name}/x")
    [change] = bench.scan()
    assert "reserved" in change.refused


def test_discarded_changes_stay_hidden_until_changed_again(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo 2 > g; echo moved contents > old; echo keep > keep")
    bench.agent("echo 2 >> f; rm g; mv old new; mkdir d; echo n > d/n; echo k >> keep")
    bench.discard(b"f", b"g", b"new", b"d")
    assert bench.kinds() == {b"keep": "modified"}
    bench.agent("echo 3 >> f; echo back > g; echo again >> d/n")
    assert bench.kinds() == {b"keep": "modified", b"f": "modified", b"g": "modified", b"d/n": "added"}


@pytest.mark.parametrize("kind", ["system", "system-other-ext4", "rootless-other-fs"], indirect=True)
def test_cost_follows_the_changes_not_the_folder(make_bench: MakeBench) -> None:
    make = (
        "import os\nfor d in range(100):\n os.makedirs(f'p/{d}')\n"
        " for n in range(1000): open(f'p/{d}/{n}', 'w').close()"
    )
    bench = make_bench(f'/usr/bin/python3 -c "{make}"; mkdir q; echo 1 > q/f')
    bench.agent("echo 2 > q/f; echo 1 > p/1/1; rm p/2/2; mkdir p/new; echo n > p/new/n")
    started = time.perf_counter()
    changes = bench.scan()
    elapsed = time.perf_counter() - started
    assert len(changes) == 5
    listing = time.perf_counter()
    count = sum(len(files) for _, _, files in os.walk(bench.lower))
    # A walk of the folder is the least that a scan by comparison would cost.
    assert count == 100_001
    assert elapsed < (time.perf_counter() - listing) / 2


DEEP = (
    "python3 -c '\nimport os\nfor _ in range(3000): os.mkdir(chr(100)); os.chdir(chr(100))\nopen(chr(120), chr(119))'"
)
DEEPER = DEEP.replace("open(", "open(chr(121), chr(119)); open(").replace("os.mkdir(chr(100)); ", "")


def test_a_tree_too_deep_to_follow_is_refused_whole_and_the_rest_is_applied(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir there")
    bench.agent(f"mkdir -p new/sub; echo 1 > new/sub/f; echo 1 > plain; cd new; {DEEP}; cd ../there; {DEEP}")
    changes = bench.scan()
    assert {change.path for change in changes if change.refused} == {b"new", b"there/d"}
    assert all("deep" in change.refused for change in changes if change.refused)
    assert b" there/d |   folder  [refused: holds folders nested" in bench.stat()
    assert {change.path for change in bench.apply().applied} == {b"plain"}
    assert sorted(os.listdir(bench.lower)) == ["plain", "there"]
    assert os.listdir(bench.lower / "there") == []
    bench.discard(b"new")
    assert [change.path for change in bench.scan()] == [b"there/d"]


def test_a_tree_too_deep_to_follow_is_not_deleted_in_part(make_bench: MakeBench) -> None:
    bench = make_bench(f"mkdir a; echo 1 > a/f; cd a; {DEEP}")
    bench.agent("rm -rf a; echo now a file > a")
    [change] = bench.scan()
    assert (change.path, change.kind) == (b"a", "type")
    assert "deep" in change.refused
    assert bench.apply().applied == []
    assert sorted(os.listdir(bench.lower / "a")) == ["d", "f"]


def test_below_an_existing_deep_tree_only_what_is_too_deep_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(DEEP)
    bench.agent(f"echo 2 > d/d/near; {DEEPER}")
    found = {change.path: bool(change.refused) for change in bench.scan()}
    assert found == {b"d/d/near": False, b"/".join([b"d"] * 101): True}
    assert {change.path for change in bench.apply().applied} == {b"d/d/near"}


def test_a_remounted_workspace_shows_the_same(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent(
        "echo more >> f; rm d/y; mv src/a src/b; rm -rf e; mkdir e; echo x > e/x; mv keep kept; echo n > kept/n"
    )
    before = [(change.path, change.kind, change.old_path) for change in bench.scan()]
    bench.remount()
    assert [(change.path, change.kind, change.old_path) for change in bench.scan()] == before
    bench.apply()
    assert bench.scan() == []
    bench.remount()
    assert bench.scan() == []


def test_an_agents_worktrees_are_projects_not_settings(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir -p .claude/worktrees/old; echo 1 > .claude/worktrees/old/main.py")
    bench.agent(
        """
        cd .claude/worktrees; mkdir -p new/src; echo 2 > old/main.py; echo x > new/src/main.py
        echo x > new/.envrc; mkdir new/.claude; echo x > new/.claude/settings.json; echo x > ../settings.json
        """
    )
    files = {change.path: bool(change.held) for change in bench.scan() if not change.is_directory}
    assert files == {
        b".claude/settings.json": True,
        b".claude/worktrees/new/.claude/settings.json": True,
        b".claude/worktrees/new/.envrc": True,
        b".claude/worktrees/new/src/main.py": False,
        b".claude/worktrees/old/main.py": False,
    }
    bench.apply()
    assert (bench.lower / ".claude/worktrees/new/src/main.py").read_text() == "x\n"
    assert not (bench.lower / ".claude/settings.json").exists()


LINKED = """
mkdir -p scripts cfg/vsc git-hooks .git sub/deep real .git/hooks far
ln -s scripts/env .envrc; ln -s cfg/vsc .vscode; ln -s ../../git-hooks/check .git/hooks/pre-commit; ln -s /etc .zed
ln -s ../real/x sub/conftest.py; ln -s ../far/y sub/deep/.envrc; ln -s later package.json; ln -s loop .npmrc
ln -s .npmrc loop; ln -s "$PWD/scripts/abs" .mcp.json; ln -s ../"$(basename "$PWD")"/scripts/up .nvmrc
for f in scripts/env scripts/abs scripts/up git-hooks/check real/x far/y scripts/plain cfg/vsc/tasks.json; do
echo 1 > $f; done; echo 1 > cfg/vsc/notes; echo 1 > sub/plain
"""


def test_what_a_link_on_the_real_disk_makes_run_is_held(make_bench: MakeBench) -> None:
    bench = make_bench(LINKED)
    bench.agent(
        """
        for f in scripts/env scripts/abs scripts/up git-hooks/check real/x scripts/plain cfg/vsc/tasks.json \\
        cfg/vsc/notes sub/plain; do echo 2 > $f; done; echo made > later; echo no link > loop2
        """
    )
    held = {change.path: change.held for change in bench.scan() if change.held}
    running = [b"scripts/env", b"scripts/abs", b"scripts/up", b"git-hooks/check", b"real/x", b"cfg/vsc/tasks.json"]
    assert held.keys() == {*running, b"later"}
    assert held[b"scripts/env"].endswith("by the link '.envrc' on the real disk")
    bench.apply()
    assert (bench.lower / "scripts/env").read_text() == "1\n"
    assert (bench.lower / "scripts/plain").read_text() == "2\n"


def test_a_target_deleted_or_moved_is_held_too(make_bench: MakeBench) -> None:
    bench = make_bench(LINKED)
    bench.agent("rm scripts/env; mv cfg/vsc/tasks.json scripts/t; echo x > scripts/n; mv scripts/n git-hooks/check")
    assert {change.path for change in bench.scan() if change.held} == {b"scripts/env", b"scripts/t", b"git-hooks/check"}


def test_a_link_in_the_way_of_a_link_is_held(make_bench: MakeBench) -> None:
    bench = make_bench(LINKED)
    bench.agent("rm -r cfg; mkdir -p evil/vsc; echo x > evil/vsc/tasks.json; ln -s evil cfg")
    held = {change.path for change in bench.scan() if change.held}
    assert {b"cfg", b"cfg/vsc/tasks.json"} <= held
    assert not os.path.islink(bench.lower / "cfg")
    bench.apply()
    assert not os.path.islink(bench.lower / "cfg")
