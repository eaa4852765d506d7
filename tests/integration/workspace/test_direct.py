"""Mode `direct` in a real session: what runs later and exists is read-only everywhere in the folder, work goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, serving

pytestmark = pytest.mark.integration

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
REFUSED = {"EROFS", "EACCES", "EBUSY", "EPERM"}


@pytest.fixture(scope="module")
def direct() -> Iterator[Service]:
    with serving() as one:
        yield one


def _repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README").write_text("hello\n", encoding="utf-8")
    for args in (["init", "-q", "-b", "main"], ["add", "README"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*GIT, *args], cwd=folder, check=True)
    return folder


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the owner's\n", encoding="utf-8")


def _read(folder: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def test_what_runs_later_in_subfolders_and_nested_repositories_is_read_only(direct: Service) -> None:
    folder = _repository(direct.folder())
    _repository(folder / "vendor/lib")
    names = ["tests/conftest.py", "web/package.json", "a/b/.envrc", "vendor/lib/.git/config", ".git/info/exclude"]
    names += ["vendor/lib/.git/hooks/pre-push.sample", ".git/modules/m/config", "docs/.vscode/tasks.json"]
    _write(folder, *(name for name in names if not (folder / name).exists()))
    before = _read(folder, names)
    assert len(before) == len(names)
    code = """
        results = {}
        for name in NAMES:
            write("mine")
            results[name] = [attempt(write, name), attempt(os.unlink, name), attempt(os.rename, "mine", name),
                             attempt(os.link, name, "other"), attempt(os.rename, os.path.dirname(name), "moved")]
        results["new"] = [attempt(write, name) for name in
            (".git/info/attributes", ".git/hooks/pre-commit", "vendor/lib/.git/hooks/post-merge")]
        results["top"] = [attempt(os.rename, name, "moved") for name in ("vendor", "a", "web", "docs", ".git")]
        report(results)
    """
    results = direct.python(code, "--mode", "direct", cwd=folder, NAMES=names)
    assert {name: got for name, got in results.items() if not set(got) <= REFUSED | {"EXDEV"}} == {}
    assert _read(folder, names) == before


def test_the_agents_own_work_goes_on(direct: Service) -> None:
    folder = _repository(direct.folder())
    _repository(folder / "vendor/lib")
    _write(folder, "tests/conftest.py", ".claude/settings.json", ".claude/worktrees/one/.envrc")
    code = """
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "safe.directory=*"]
        for place in (".", "vendor/lib"):
            write(place + "/README")
            subprocess.run([*git, "commit", "-qam", "second"], cwd=place, check=True)
            subprocess.run([*git, "checkout", "-qb", "side"], cwd=place, check=True)
        for name in ("tests/test_x.py", ".claude/worktrees/one/main.py", ".claude/worktrees/two"):
            write(name)
        report([attempt(write, name) for name in (".claude/settings.json", ".claude/worktrees/one/.envrc")])
    """
    results = direct.python(code, "--mode", "direct", cwd=folder)
    assert set(results) <= REFUSED
    for place in (folder, folder / "vendor/lib"):
        log = subprocess.run(["git", "log", "--format=%s"], cwd=place, check=True, capture_output=True, text=True)
        assert log.stdout.split() == ["second", "first"]
    assert (folder / ".claude/worktrees/one/main.py").is_file()


def test_a_folder_named_through_a_symlink_is_protected_too(direct: Service) -> None:
    folder = _repository(direct.folder())
    _write(folder, ".github/workflows/ci.yml", "deploy/.envrc")
    link = direct.folder() / "link"
    link.symlink_to(folder)
    code = "report([attempt(write, name) for name in ('.github/workflows/ci.yml', 'deploy/.envrc', '.git/config')])"
    assert set(direct.python(code, "--mode", "direct", "-C", str(link), cwd=folder)) <= REFUSED


def test_more_names_than_mounts_start_and_are_named(direct: Service) -> None:
    folder = direct.folder()
    _write(folder, *(f"node_modules/m{n}/package.json" for n in range(400)), "package.json", "web/package.json")
    code = """
        names = ["package.json", "web/package.json", *(f"node_modules/m{n}/package.json" for n in range(400))]
        report([attempt(write, name) for name in names])
    """
    results = direct.python(code, "--mode", "direct", cwd=folder)
    assert set(results[:2]) <= REFUSED
    assert results.count("OK") > 200
    [session] = [one for one in direct.json("ps", "--all") if one["workspace"] == str(folder)]
    findings = direct.json("show", session["id"])["report"]["findings"]
    assert any("not protected in mode direct" in one and "too many" in one for one in findings), findings
