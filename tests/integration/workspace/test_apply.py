"""What was applied is on the real disk exactly as the agent left it, and nothing of the host's is overwritten."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.errors import UsageError
from supervisor.workspace.private_group import NONE, private_group
from tests.integration.workspace.bench import OWNER, tree
from tests.integration.workspace.conftest import MakeBench

pytestmark = pytest.mark.integration

SETUP = """
mkdir -p d/deep e src; echo 1 > f; echo 2 > d/x; echo 3 > d/deep/y; echo 4 > e/old; ln -s f link
echo long enough to be told apart > src/a; echo mode > m; echo was a file > turns; head -c 100000 /dev/urandom > big
setfattr -n user.before -v old f; touch -d 2020-01-01 f d/x d/deep/y e/old src/a m turns big
touch -h -d 2020-01-01 link; touch -d 2020-01-02 d d/deep e src .
"""
AGENT = """
echo more >> f; setfattr -n user.after -v new f; rm -r d/deep; chmod 755 m; ln -sfn d link; mv src/a src/b
rm turns; mkdir turns; echo in > turns/in; rm -r e; echo now a file > e; mkdir -p n1/n2; echo n > n1/n2/n; mkdir empty
chmod 750 src; touch -d 2021-01-01 n1/n2/n f
"""


def test_after_apply_the_folder_is_what_the_agent_saw(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent(AGENT)
    merged = tree(f"{bench.root}/ro")
    result = bench.apply()
    assert (result.conflicts, result.held, result.refused) == ([], [], [])
    assert tree(bench.lower) == merged
    assert bench.scan() == []


def test_undo_gives_the_folder_back_to_the_byte_with_times_and_attributes(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    before = tree(bench.lower, directory_times=True)
    bench.agent(AGENT)
    step = bench.apply().step_id
    result = bench.undo(step)
    assert result.conflicts == []
    assert tree(bench.lower, directory_times=True) == before
    assert [info.state for info in bench.steps()] == ["undone", "applied"]


def test_an_undo_can_be_undone_but_no_step_twice(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent(AGENT)
    step = bench.apply().step_id
    applied = tree(bench.lower)
    back = bench.undo(step).step_id
    with pytest.raises(Exception, match="undone already"):
        bench.undo(step)
    assert bench.undo(back).conflicts == []
    assert tree(bench.lower) == applied
    assert [info.state for info in bench.steps()] == ["applied", "undone", "applied"]
    assert bench.scan() == []


def test_undo_by_path_leaves_the_rest(make_bench: MakeBench) -> None:
    bench = make_bench(SETUP)
    bench.agent(AGENT)
    step = bench.apply().step_id
    bench.undo(step, b"f", b"src")
    assert (bench.lower / "f").read_text() == "1\n"
    assert (bench.lower / "src/a").exists()
    assert not (bench.lower / "src/b").exists()
    assert (bench.lower / "n1/n2/n").exists()
    assert bench.steps()[0].state == "partly undone"
    assert bench.undo(step).conflicts == []
    assert (bench.lower / "e/old").read_text() == "4\n"
    assert bench.steps()[0].state == "undone"


def test_undo_leaves_alone_what_changed_since(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo 2 > g; mkdir d")
    bench.agent("echo agent > f; echo agent > g; echo n > d/n; mkdir new; echo a > new/a")
    step = bench.apply().step_id
    bench.host("echo host >> f; rm d/n; echo own > new/own")
    result = bench.undo(step)
    assert {change.path for change in result.conflicts} == {b"f", b"d/n", b"new"}
    assert (bench.lower / "f").read_text() == "agent\nhost\n"
    assert (bench.lower / "g").read_text() == "2\n"
    assert os.listdir(bench.lower / "new") == ["own"]


def test_apply_by_path_brings_new_folders_along(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("echo 2 > f; mkdir -p a/b; echo x > a/b/x; echo y > a/b/y")
    assert [change.path for change in bench.apply(b"a/b/x").applied] == [b"a", b"a/b", b"a/b/x"]
    assert sorted(bench.kinds()) == [b"a/b/y", b"f"]
    with pytest.raises(UsageError, match="no change at"):
        bench.apply(b"nothing")


def test_a_session_applies_again_and_again(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d; echo 1 > d/f; echo 1 > g")
    for number in range(4):
        bench.agent(f"echo {number} >> d/f; echo {number} > d/n{number}; mv g h; mv h g; echo {number} >> g")
        result = bench.apply()
        assert result.conflicts == []
        assert tree(bench.lower) == tree(f"{bench.root}/ro")
    bench.agent("rm d/n0 d/f; rmdir empty 2>/dev/null || true")
    assert bench.kinds() == {b"d/n0": "deleted", b"d/f": "deleted"}
    bench.apply()
    assert bench.scan() == []


def test_a_renamed_folder_stays_applied_in_later_scans(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d; echo 1 > d/x; echo 2 > d/y")
    bench.agent("mv d d2")
    bench.apply()
    assert sorted(os.listdir(bench.lower / "d2")) == ["x", "y"]
    assert bench.scan() == []


def test_held_changes_are_applied_only_when_named_or_confirmed(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir -p .git/hooks; echo 1 > f")
    bench.agent("echo h > .git/hooks/pre-commit; echo e > .envrc; mkdir sub; echo e > sub/.envrc; echo 2 > f")
    result = bench.apply()
    assert [change.path for change in result.held] == [b".envrc", b".git/hooks/pre-commit", b"sub/.envrc"]
    assert not (bench.lower / ".envrc").exists()
    assert [change.path for change in bench.apply(b".git").held] == [b".git/hooks/pre-commit"]
    assert bench.apply(b".envrc").held == []
    assert (bench.lower / ".envrc").exists()
    bench.apply(b".git", confirm_held=True)
    assert (bench.lower / ".git/hooks/pre-commit").exists()
    assert set(bench.kinds()) == {b"sub/.envrc"}


def test_a_conflict_stays_and_only_what_depends_on_it_stays_too(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d; echo 1 > d/a; echo 2 > d/b; echo 3 > f; echo 4 > g")
    bench.agent("rm -r d; echo agent > f; echo agent > g; echo sub > new")
    bench.host("echo host > d/a; echo host > f")
    result = bench.apply()
    assert {change.path: change.conflict.split()[0] for change in result.conflicts} == {
        b"d": "depends",
        b"d/a": "changed",
        b"f": "changed",
    }
    assert (bench.lower / "f").read_text() == "host\n"
    assert os.listdir(bench.lower / "d") == ["a"]
    assert (bench.lower / "g").read_text() == "agent\n"


def test_what_the_host_or_the_agent_did_after_the_review_is_a_conflict(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d; for n in a b c e; do echo 1 > $n; done; echo 1 > d/f")
    bench.agent(
        "for n in a b c e; do echo agent > $n; done; echo n > n; echo m > m; rm -r d; echo late > late; echo z > z"
    )
    reviewed = bench.scan()
    bench.host("echo host >> a; echo x > .t; mv .t b; rm c; echo host > n; ln -s /etc m; echo host > d/own")
    bench.agent("echo evil > late; rm z")
    result = bench.apply(changes=reviewed)
    assert {change.path for change in result.conflicts} == {b"a", b"b", b"c", b"n", b"m", b"d", b"late", b"z"}
    assert {change.path for change in result.applied} == {b"e", b"d/f"}
    assert (bench.lower / "a").read_text() == "1\nhost\n"
    assert os.listdir(bench.lower / "d") == ["own"]
    assert os.readlink(bench.lower / "m") == "/etc"
    assert not (bench.lower / "late").exists()


@pytest.mark.parametrize("moment", ["after the commit mark", "after writing the plan", "after staging 0"])
def test_a_host_edit_in_the_middle_of_an_apply_is_never_lost(make_bench: MakeBench, moment: str) -> None:
    bench = make_bench("echo 1 > inplace; echo 1 > replaced; echo 1 > gone; mkdir d; echo 1 > d/f; echo 1 > other")
    bench.agent("echo a > inplace; echo a > replaced; rm gone; rm -r d; echo n > created; echo a > other")

    def interfere(name: str) -> None:
        if name == moment:
            for path, text in (("inplace", "h"), ("gone", "h"), ("created", "h"), ("d/own", "h"), (".t", "h")):
                (bench.lower / path).write_text(text)
            (bench.lower / ".t").rename(bench.lower / "replaced")

    result = bench.apply(observe=interfere)
    assert {change.path for change in result.conflicts} >= {b"inplace", b"replaced", b"gone", b"created", b"d"}
    for path in ("inplace", "replaced", "gone", "created", "d/own"):
        assert (bench.lower / path).read_text() == "h"
    assert (bench.lower / "other").read_text() == "a\n"
    assert not [name for name in os.listdir(bench.lower) if name.startswith(".deskwarden")]


def test_a_symlink_the_host_put_above_a_file_is_not_followed(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir d out; echo 1 > d/f; echo mine > out/f")
    bench.agent("echo agent > d/f; echo n > d/n")
    reviewed = bench.scan()
    bench.host("mv d d.old; ln -s out d")
    result = bench.apply(changes=reviewed)
    assert {change.path for change in result.conflicts} == {b"d/f", b"d/n"}
    assert os.listdir(bench.lower / "out") == ["f"]
    assert (bench.lower / "out/f").read_text() == "mine\n"


def test_a_symlink_the_agent_planted_as_a_parent_is_applied_as_a_link_only(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir dir; echo 1 > dir/f")
    outside = Path(bench.base) / "first"
    bench.agent(f"mv dir dir2; ln -s {outside} dir; echo 2 > dir/f 2>/dev/null || true; rm -f {outside}/f")
    assert bench.apply().conflicts == []
    assert os.readlink(bench.lower / "dir") == str(outside)
    assert os.listdir(outside) == []
    assert (bench.lower / "dir2/f").exists()


def test_hard_links_among_the_changes_stay_links(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; echo shared > h1; ln h1 h2; ln h1 stays")
    bench.agent("echo 2 > n1; ln n1 n2; ln n1 n3; rm h1 h2; echo other > h1; ln h1 h2")
    assert bench.apply().conflicts == []
    inodes = {name: (bench.lower / name).stat().st_ino for name in ("n1", "n2", "n3", "h1", "h2", "stays")}
    assert inodes["n1"] == inodes["n2"] == inodes["n3"] != inodes["h1"] == inodes["h2"] != inodes["stays"]
    assert (bench.lower / "n1").stat().st_nlink == 3
    bench.agent("echo agent >> stays")
    assert bench.apply().conflicts == []


def test_hard_links_are_undone_one_by_one(make_bench: MakeBench) -> None:
    bench = make_bench("echo shared > h1; ln h1 h2")
    bench.agent("rm h1 h2; echo other > h1; ln h1 h2")
    step = bench.apply().step_id
    assert bench.undo(step, b"h1").conflicts == []
    assert bench.undo(step, b"h2").conflicts == []
    assert (bench.lower / "h2").read_text() == "shared\n"


def test_holes_stay_holes_and_come_back_by_undo(make_bench: MakeBench) -> None:
    bench = make_bench("truncate -s 64M old; printf end | dd of=old bs=1 seek=33554432 conv=notrunc status=none")
    before = tree(bench.lower)
    bench.agent("truncate -s 200M sparse; printf x | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none; rm old")
    step = bench.apply().step_id
    applied = (bench.lower / "sparse").stat()
    assert applied.st_size == 200 << 20
    assert applied.st_blocks * 512 < 1 << 20
    bench.undo(step)
    assert tree(bench.lower) == before
    assert (bench.lower / "old").stat().st_blocks * 512 < 1 << 20


def test_setuid_and_overlay_attributes_never_arrive(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent(
        """
        echo x > suid; chmod 6755 suid; echo t > t; setfattr -n user.kept -v yes t; mkdir sticky; chmod 1755 sticky
        setfattr -n user.overlay.opaque -v y t 2>/dev/null || true
        """
    )
    bench.apply()
    assert (bench.lower / "suid").stat().st_mode & 0o7777 == 0o755
    assert os.listxattr(bench.lower / "t") == ["user.kept"]


def test_an_acl_arrives_only_when_named(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("setfacl -m u:0:r f")
    assert [change.path for change in bench.apply().held] == [b"f"]
    assert os.listxattr(bench.lower / "f") == []
    bench.apply(b"f")
    assert os.listxattr(bench.lower / "f") == ["system.posix_acl_access"]
    assert bench.scan() == []


def test_special_files_are_not_applied_and_stop_nothing(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("mkfifo pipe; mkdir d; mkfifo d/pipe; echo n > d/n; echo 2 > f")
    result = bench.apply()
    assert [change.path for change in result.refused] == [b"d/pipe", b"pipe"]
    assert sorted(os.listdir(bench.lower)) == ["d", "f"]
    assert os.listdir(bench.lower / "d") == ["n"]


def test_an_unreadable_file_is_applied_as_it_is(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f")
    bench.agent("echo 2 > f; chmod 0 f; echo n > n; chmod 0 n; chmod 0755 .")
    result = bench.apply()
    assert result.conflicts == []
    for name in ("f", "n"):
        assert (bench.lower / name).stat().st_mode & 0o777 == 0
        assert os.stat(name, dir_fd=bench.area.upper_fd).st_mode & 0o777 == 0
    assert set(bench.kinds()) == {b"f", b"n"}
    assert all("can't be compared" in change.refused for change in bench.scan())
    assert bench.undo(result.step_id).conflicts == []
    assert (bench.lower / "f").read_text() == "1\n"
    assert not (bench.lower / "n").exists()


def test_files_keep_their_owner_and_setgid_folders_their_group(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; mkdir shared; chmod 2775 shared; echo 1 > shared/old")
    bench.agent("echo 2 > f; mkdir shared/sub; echo n > shared/sub/n; echo 2 > shared/old")
    bench.apply(confirm_held=True)
    assert (bench.lower / "f").stat().st_uid == OWNER
    assert (bench.lower / "shared/sub").stat().st_mode & 0o7777 == 0o2755


def test_names_of_any_bytes_are_applied_and_undone(make_bench: MakeBench) -> None:
    bench = make_bench("""mkdir $'n\\xff'; echo 1 > $'n\\xff/a\\nb'; echo gone > $'\\xfe'""")
    before = tree(bench.lower)
    bench.agent("""echo 2 > $'n\\xff/a\\nb'; echo 3 > 'a: b, c\\d'; mv $'\\xfe' $'\\xfd'; echo 5 > -n""")
    step = bench.apply().step_id
    assert set(os.listdir(os.fsencode(bench.lower))) == {b"n\xff", b"a: b, c\\d", b"\xfd", b"-n"}
    bench.undo(step)
    assert tree(bench.lower) == before


def test_a_full_disk_leaves_the_old_state_and_no_ghost(make_bench: MakeBench) -> None:
    bench = make_bench("echo 1 > f; head -c 2000000 /dev/zero > half; mkdir d; echo x > d/x", lower_size="4m")
    before = tree(bench.lower)
    bench.agent("rm d/x; echo 2 > f; head -c 1500000 /dev/urandom > a; head -c 1500000 /dev/urandom > b; mv half whole")
    with pytest.raises(OSError, match="No space left"):
        bench.apply()
    assert tree(bench.lower) == before
    assert bench.steps() == []
    assert bench.apply(b"f").conflicts == []
    assert (bench.lower / "f").read_text() == "2\n"


def test_the_diff_is_a_patch_that_git_and_patch_accept(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(
        "seq 200 > n; printf 'no end' > noend; echo gone > gone; echo mode > m; ln -s n link; mkdir 'a b';"
        "echo 1 > 'a b/c d'; seq 50 > moved; printf 'a\\0b' > bin; mkdir d; echo x > d/x; echo old > $'caf\\xc3\\xa9'"
    )
    copy = tmp_path / "copy"
    shutil.copytree(bench.lower, copy, symlinks=True)
    bench.agent(
        """
        sed -i -e 5d -e 's/^100$/hundred/' -e '$a last' n; printf 'still no end' > noend; rm gone; chmod 755 m
        ln -sfn m link; echo 2 >> 'a b/c d'; mv moved arrived; echo 51 >> arrived; rm -r d; echo file > d
        mkdir e; echo new > e/new; : > nothing; echo new >> $'caf\\xc3\\xa9'; printf 'tab\\there' > $'t\\tb'
        """
    )
    patch = bench.diff()
    subprocess.run(["git", "init", "-q", copy], check=True)
    subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], cwd=copy, input=patch, check=True)
    shutil.rmtree(copy / ".git")
    wanted = {path: (entry[0], entry[1]) for path, entry in tree(f"{bench.root}/ro").items()}
    got = {path: (entry[0], entry[1]) for path, entry in tree(copy).items()}
    assert got == wanted


def test_patch_accepts_a_plain_edit(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench("seq 30 > n; mkdir d; printf x > d/x")
    copy = tmp_path / "copy"
    shutil.copytree(bench.lower, copy)
    bench.agent("sed -i 12,14d n; printf 'x\\ny' > d/x; echo a > a")
    subprocess.run(["patch", "-s", "-p1"], cwd=copy, input=bench.diff(), check=True)
    assert {p: e[1] for p, e in tree(copy).items()} == {p: e[1] for p, e in tree(f"{bench.root}/ro").items()}


def test_binary_large_held_and_conflicting_files_are_named_not_dumped(make_bench: MakeBench) -> None:
    bench = make_bench("printf 'a\\0b' > bin; echo 1 > f")
    bench.agent("printf 'a\\0c' > bin; echo 2 > f; echo e > .envrc; head -c 10000000 /dev/urandom | base64 > large")
    bench.host("echo h > f")
    diff, stat = bench.diff(), bench.stat()
    assert b"Binary files a/bin and b/bin differ\n" in diff
    assert b"deskwarden: file large: too large to be compared here\n" in diff
    assert b"Binary files /dev/null and b/large differ\n" in diff
    assert b"deskwarden: held: .envrc: runs later" in diff
    assert b"deskwarden: conflict: f: changed on the real disk" in diff
    assert b"[held: runs later" in stat
    assert b"4 files changed, 2 insertions(+), 1 deletion(-)\n" in stat
    assert len(diff) < 2000


def test_a_folder_that_its_owner_may_not_write_stops_the_apply_by_name(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir shut open; echo 1 > shut/f; echo 1 > open/f")
    bench.agent("echo 2 > shut/f; echo 2 > open/f")
    bench.host("chmod 555 shut")
    before = tree(bench.lower)
    with pytest.raises(PermissionError) as caught:
        bench.apply()
    assert caught.value.filename == b"shut/f"
    assert tree(bench.lower) == before
    assert bench.apply(b"open").conflicts == []


def test_a_folder_renamed_while_the_real_one_lives_on_is_undone(make_bench: MakeBench) -> None:
    bench = make_bench("mkdir -p d/sub; echo 1 > d/x; echo 2 > d/sub/y; touch -d 2020-01-01 d/x d/sub/y d/sub d .")
    before = tree(bench.lower, directory_times=True)
    bench.agent("mv d d2; echo more >> d2/x")
    step = bench.apply().step_id
    assert sorted(os.listdir(bench.lower)) == ["d2"]
    assert bench.undo(step).conflicts == []
    assert tree(bench.lower, directory_times=True) == before


RUNNING = [".envrc", "a/conftest.py", "package.json", ".git/config", ".git/commondir", ".git/hooks/pre-commit"]
RUNNING += ["bare/config", "bare/hooks/update", ".vscode"]


def test_deletions_that_change_what_runs_are_held_and_others_are_not(make_bench: MakeBench) -> None:
    bench = make_bench(
        f"""
        mkdir -p a vsc .git/hooks .git/objects/ab bare/hooks bare/objects bare/refs; touch bare/HEAD vsc/x
        ln -s vsc .vscode
        for f in {" ".join(RUNNING[:-1])} .git/objects/ab/c .git/index.lock plain; do echo 1 > $f; done
        """
    )
    bench.agent(f"rm -r {' '.join(RUNNING)} .git/objects/ab .git/index.lock plain; rmdir .git/hooks")
    found = {change.path: bool(change.held) for change in bench.scan() if not change.is_directory}
    assert {path for path, held in found.items() if held} == {os.fsencode(path) for path in RUNNING}
    result = bench.apply()
    assert [change.path for change in result.conflicts] == [b".git/hooks"]
    left = [os.path.lexists(bench.lower / path) for path in RUNNING]
    assert all(left)
    assert not any((bench.lower / path).exists() for path in ("plain", ".git/objects/ab", ".git/index.lock"))
    bench.apply(confirm_held=True)
    assert not any(os.path.lexists(bench.lower / path) for path in [*RUNNING, ".git/hooks"])


def test_the_custom_of_umask_002_needs_no_word_where_the_group_is_the_owners_alone(make_bench: MakeBench) -> None:
    bench = make_bench("umask 022; mkdir d; echo 1 > d/old")
    bench.agent(
        "umask 002; echo 2 > d/new; mkdir d/sub; echo 3 > d/sub/f; chmod 664 d/old; echo 4 > all; chmod 666 all"
    )
    is_private = private_group(OWNER) != NONE
    held = {change.path for change in bench.scan() if change.held}
    assert held == ({b"all"} if is_private else {b"all", b"d/new", b"d/old", b"d/sub", b"d/sub/f"})
    bench.apply()
    assert (bench.lower / "d/new").exists() == is_private
    assert not (bench.lower / "all").exists()


def test_an_old_version_is_moved_into_the_store_only_when_nothing_else_leads_to_it(make_bench: MakeBench) -> None:
    bench = make_bench("for f in plain gone closed linked; do echo old > $f; done; ln linked other; chmod 0 closed")
    inodes = {name: (bench.lower / name).lstat().st_ino for name in ("plain", "gone", "closed", "linked")}
    bench.agent("rm -f gone closed; for f in plain linked; do echo new > $f; done")
    step = bench.apply().step_id
    flags = os.O_RDONLY | os.O_DIRECTORY
    kept_fd = os.open(b"steps/%06d/old" % step, flags, dir_fd=bench.store_fd)
    kept = {os.stat(name, dir_fd=kept_fd).st_ino for name in os.listdir(kept_fd)}
    contents = {os.open(name, os.O_RDONLY, dir_fd=kept_fd) for name in os.listdir(kept_fd)}
    assert [os.read(fd, 10) for fd in contents] == [b"old\n"] * 4
    for fd in (*contents, kept_fd):
        os.close(fd)
    can_move = not bench.kind.endswith("other-fs")
    assert kept & set(inodes.values()) == ({inodes["plain"], inodes["gone"]} if can_move else set())
    bench.host("echo host >> other")
    bench.undo(step)
    assert (bench.lower / "closed").lstat().st_mode & 0o777 == 0
    bench.host("chmod 600 closed")
    assert [(bench.lower / name).read_text() for name in inodes] == ["old\n"] * 4
