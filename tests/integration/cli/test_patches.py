"""What ``deskwarden diff`` prints is git's own form: the same lines, taken by `git apply`, with the same result."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import PATH, Service

LINES = b"".join(b"%d\n" % number for number in range(60))
OTHER = b"".join(b"%d\n" % (number * 7 % 61 + 1000) for number in range(60))
ODD_NAMES = (b"a b", b'q"x', b"\xff\xfe", b"t\tab", b"back\\slash", "ü".encode(), b"nl\nx", b" first", b"last ")

# What is there before, and what the agent does.
CASES: dict[str, tuple[dict[bytes, bytes], str]] = {
    "modified": ({b"a": LINES}, "sed -i s/^7$/x/ a"),
    "at both ends": ({b"a": LINES}, "sed -i -e '1s/.*/x/' -e '60s/.*/y/' a"),
    "new": ({b"a": b"1\n"}, "echo 1 > b; mkdir -p d/e; echo 2 > d/e/f"),
    "new and empty": ({b"a": b"1\n"}, ": > empty"),
    "new and executable": ({b"a": b"1\n"}, "echo 1 > b; chmod 755 b"),
    "deleted": ({b"a": b"1\n", b"d/x": b"2\n"}, "rm a; rm -r d"),
    "deleted and empty": ({b"a": b""}, "rm a"),
    "mode": ({b"a": b"1\n"}, "chmod +x a"),
    "mode and contents": ({b"a": b"1\n"}, "chmod +x a; echo 2 >> a"),
    "no newline at the end": (
        {b"a": b"1\n2", b"b": b"3\n", b"c": b"4", b"e": b"5\n6"},
        "printf '1\\n3' > a; printf 3 > b; echo 4 > c; printf 7 > d; rm e",
    ),
    "emptied and filled": ({b"a": b"1\n2", b"b": b""}, ": > a; echo 1 > b"),
    "carriage returns": ({b"a": b"1\r\n2\r\n"}, "printf '1\\r\\n3\\r\\n' > a"),
    "odd names changed": (dict.fromkeys(ODD_NAMES, b"1\n"), 'for f in *; do echo 2 >> "$f"; done'),
    "odd names new": ({b"a": b"1\n"}, "echo 1 > 'new file'; echo 2 > 'n\"q'; echo 3 > $'\\xfe n'; echo 4 > $'t\\t'"),
    "odd names deleted": (dict.fromkeys(ODD_NAMES, b"1\n"), "rm -- *"),
    "below odd folders": ({b"a b/ c": b"1\n", b"\xff/x": b"2\n"}, "echo 3 >> 'a b/ c'; echo 4 >> $'\\xff/x'"),
    "symlinks": ({b"a": b"1\n", b"f": b"1\n"}, "ln -s a l; rm f; ln -s nowhere f"),
    "a folder becomes a file": ({b"d/x": b"1\n"}, "rm -r d; echo 2 > d"),
    "a file becomes a folder": ({b"d": b"1\n"}, "rm d; mkdir d; echo 2 > d/x"),
    "held": ({b"a": b"1\n"}, "echo 1 > .envrc; echo 2 >> a"),
    "contents that look like a patch": (
        {b"a": b"-- 1\n++ 2\n"},
        "printf -- '-- 3\\n++ 2\\n@@ -1 +1 @@\\n-1\\n+2\\ndiff --git a/x b/x\\n' > a",
    ),
    "a file called dev/null": ({b"dev/null": b"1\n"}, "echo 2 >> dev/null; echo 3 > b"),
}
# Told in words of ours beside the patch, or found by git in another way: the result is compared, not the lines.
MORE_CASES: dict[str, tuple[dict[bytes, bytes], str]] = {
    "renamed": ({b"a": LINES, b"b c": OTHER}, "mv a z; mkdir d; mv 'b c' 'd/e f'; sed -i s/^1007$/x/ 'd/e f'"),
    "renamed, odd names": ({b"a\xff": LINES, b"b": OTHER}, "mv $'a\\xff' $'b\"\\xfe'; mv b 'c '"),
    "renamed and executable": ({b"a": LINES}, "chmod +x a; mv a b"),
    "names changed places": ({b"a": LINES, b"b": OTHER}, "mv a c; mv b a; mv c b"),
    "a mode that git does not tell, before another file": ({b"a": b"1\n"}, "chmod 600 a; echo 1 > b"),
    "a mode that git does not tell, and contents": ({b"a": b"1\n"}, "chmod 600 a; echo 2 >> a; echo 1 > b"),
}


def _git(folder: Path, *words: str, patch: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    settings = [
        "core.quotePath=true",
        "core.abbrev=7",
        "user.name=t",
        "user.email=t@example.org",
        "core.hooksPath=/dev",
    ]
    flags = [part for setting in settings for part in ("-c", setting)]
    environment = {"PATH": PATH, "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": f"{folder}.git"}
    environment["GIT_WORK_TREE"] = str(folder)
    return subprocess.run(
        ["git", *flags, *words], cwd=folder, env=environment, input=patch, capture_output=True, check=False, timeout=60
    )


def _changed(service: Service, folder: Path, case: tuple[dict[bytes, bytes], str]) -> tuple[Path, bytes]:
    """Let an agent change the folder; returns a copy from before, and the patch."""
    files, script = case
    for name, contents in files.items():
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, symlinks=True)
    done = service.run("run", "--", "bash", "-c", script, cwd=folder)
    assert done.returncode == 0, done
    return copy, service.run("diff", cwd=folder).stdout


def _tree(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return what git keeps of a folder: names, contents, and who may execute."""
    found = {}
    for directory, _folders, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            is_link = os.path.islink(path)
            body = os.readlink(path) if is_link else Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(folder))] = (0 if is_link else status.st_mode & 0o100, body)
    return found


@pytest.mark.parametrize("what", [*CASES, *MORE_CASES])
def test_git_takes_the_patch_and_makes_the_same_of_it(service: Service, workspace: Path, what: str) -> None:
    copy, patch = _changed(service, workspace, (CASES | MORE_CASES)[what])
    assert _git(copy, "init", "-q").returncode == 0
    checked = _git(copy, "apply", "--check", "-", patch=patch)
    assert checked.returncode == 0, (checked.stderr, patch)
    assert _git(copy, "apply", "-", patch=patch).returncode == 0
    service.run("apply", "--held", cwd=workspace)
    assert _tree(copy) == _tree(workspace), patch


@pytest.mark.parametrize("what", [*CASES, "binary"])
def test_the_patch_is_line_for_line_gits_own(service: Service, workspace: Path, what: str) -> None:
    binary = {b"a": b"\0\1", b"gone": b"\0\3", b"moded": b"\0\4"}
    script = "printf '\\0\\2' > a; printf '\\0' > new; rm gone; printf '\\0' > moded; chmod 755 moded"
    copy, patch = _changed(service, workspace, (CASES | {"binary": (binary, script)})[what])
    assert _git(copy, "init", "-q").returncode == 0
    assert _git(copy, "add", "-A").returncode == 0
    assert _git(copy, "commit", "-qm", "before").returncode == 0
    service.run("apply", "--held", cwd=workspace)
    os.rename(f"{copy}.git", f"{workspace}.git")
    assert _git(workspace, "add", "-A").returncode == 0
    wanted = _git(workspace, "diff", "--cached", "--no-renames", "HEAD").stdout
    ours = b"".join(line for line in patch.splitlines(keepends=True) if not line.startswith(b"deskwarden: "))
    assert ours == wanted


def test_a_binary_makes_git_refuse_the_whole_patch_rather_than_skip_it(service: Service, workspace: Path) -> None:
    """As with git's own patches: a file that is silently left out would be worse."""
    copy, patch = _changed(service, workspace, ({b"a": b"\0\1", b"b": b"1\n"}, "printf '\\0\\2' > a; echo 2 > b"))
    assert _git(copy, "init", "-q").returncode == 0
    result = _git(copy, "apply", "-", patch=patch)
    assert result.returncode == 1
    assert b"cannot apply binary patch to 'a' without full index line" in result.stderr
    assert (copy / "b").read_bytes() == b"1\n"


def test_a_large_file_that_was_moved_and_changed_is_not_shown_as_moved_whole(service: Service, workspace: Path) -> None:
    """Of the same size, and too large for a patch: a reviewer would take it for untouched."""
    script = "printf x | dd of=large bs=1 seek=3000000 conv=notrunc status=none; mv large moved; mv whole kept"
    _copy, patch = _changed(service, workspace, ({b"large": b"1\n" * 3_000_000, b"whole": b"2\n" * 3_000_000}, script))
    assert b"similarity index 100%\nrename from whole\nrename to kept\n" in patch
    assert patch.count(b"similarity index 100%") == 1
    assert b" and b/moved differ\n" in patch
    assert b"deskwarden: file moved: too large to be compared here\n" in patch
