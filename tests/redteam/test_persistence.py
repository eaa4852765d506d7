"""Persistence: what the host would run after the session is held back, and caches are each session's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.service import Service, outside

GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": "/usr/bin:/bin",
}


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, env=GIT, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(workspace: Path) -> Path:
    git("init", "-q", "-b", "main", cwd=workspace)
    (workspace / "README").write_text("hello\n", encoding="utf-8")
    git("add", "README", cwd=workspace)
    git("commit", "-q", "-m", "first", cwd=workspace)
    return workspace


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, path.read_bytes() if path.is_file() else b"")
    return found


# Made by the agent where nothing was before.
FRESH = [
    ".claude/settings.json",
    ".codex/config.toml",
    ".mcp.json",
    ".cursor/mcp.json",
    ".gemini/settings.json",
    ".vscode/tasks.json",
    ".vscode/settings.json",
    ".idea/workspace.xml",
    ".envrc",
    ".devcontainer/devcontainer.json",
    ".github/workflows/ci.yml",
    ".gitlab-ci.yml",
    ".pre-commit-config.yaml",
    ".husky/pre-commit",
    ".gitattributes",
    ".gitmodules",
    "package.json",
    ".npmrc",
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "venv/lib/python3.11/site-packages/evil.pth",
    ".venv/bin/activate",
    ".python-version",
    "node_modules/.bin/eslint",
    ".cargo/config.toml",
    "sub/dir/.envrc",
    "sub/.git/config",
    "sub/.git/hooks/post-checkout",
    ".bashrc",
    "autostart/x.desktop",
    ".config/systemd/user/x.service",
]


def test_names_that_run_later_leave_no_ghost_and_are_held(service: Service, workspace: Path) -> None:
    """CVE-2026-25725: a protected file that was missing at launch was created by the agent."""
    code = """
        for name in NAMES:
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            write(name)
        write("harmless.txt")
        report(True)
    """
    service.python(code, cwd=workspace, NAMES=FRESH)
    assert list(workspace.iterdir()) == []
    changes = service.changes()
    not_held = [name for name in FRESH if not changes[name]["held"]]
    assert not_held == []
    result = service.run("apply", cwd=workspace)
    assert result.returncode == 1, result
    files = [str(path.relative_to(workspace)) for path in workspace.rglob("*") if path.is_file()]
    assert files == ["harmless.txt"]


HOOKS_AND_CONFIG = {
    "hook": "write('.git/hooks/pre-commit'); os.chmod('.git/hooks/pre-commit', 0o755)",
    "hook replaced by rename": "write('x'); os.chmod('x', 0o755); os.rename('x', '.git/hooks/pre-push')",
    "hook as a symlink": "os.symlink('../../evil.sh', '.git/hooks/post-merge')",
    "hooks as a symlink": "shutil.move('.git/hooks', '.git/h'); os.symlink('../evil', '.git/hooks')",
    "hooks path": "subprocess.run(['git', 'config', 'core.hooksPath', 'evil'], check=True)",
    "file system monitor": "subprocess.run(['git', 'config', 'core.fsmonitor', './evil.sh'])",
    "ssh command": "subprocess.run(['git', 'config', 'core.sshCommand', './evil.sh'], check=True)",
    "external diff": "subprocess.run(['git', 'config', 'diff.external', './evil.sh'], check=True)",
    "filter": "subprocess.run(['git', 'config', 'filter.x.clean', './evil.sh'], check=True)",
    "include": "subprocess.run(['git', 'config', 'include.path', '../evil.cfg'], check=True)",
    "worktree configuration": "write('.git/config.worktree')",
    "attributes": "os.makedirs('.git/info', exist_ok=True); write('.git/info/attributes')",
    "git directory elsewhere": "shutil.move('.git', 'g'); write('.git', 'gitdir: g')",
    "git directory renamed and made anew": "shutil.move('.git', '.git2'); os.makedirs('.git/hooks'); "
    "write('.git/hooks/pre-commit'); os.chmod('.git/hooks/pre-commit', 0o755); shutil.copy('.git2/HEAD', '.git/HEAD')",
    "bare repository": "subprocess.run(['git', 'init', '-q', '--bare', 'evil.git'], check=True); "
    "write('evil.git/hooks/post-update')",
}


@pytest.mark.parametrize("attack", HOOKS_AND_CONFIG)
def test_git_hooks_and_configuration_are_not_applied_unasked(service: Service, repository: Path, attack: str) -> None:
    before = _snapshot(repository)
    code = f"""
        import shutil  # move: renaming a directory of the real disk is EXDEV in a rootless overlay, programs copy then
        {HOOKS_AND_CONFIG[attack]}
        report(True)
    """
    service.python(code, cwd=repository)
    assert _snapshot(repository) == before
    held = [path for path, change in service.changes().items() if change["held"]]
    assert held
    assert service.run("apply", cwd=repository).returncode == 1
    after = _snapshot(repository)
    for name in (".git/config", *(name for name in before if name.startswith(".git/hooks"))):
        assert after.get(name) == before[name], name
    active = [name for name in after if name.startswith(".git/hooks/") and not name.endswith(".sample")]
    assert active == []
    assert git("config", "--file", ".git/config", "--list", cwd=repository).count("evil") == 0


def test_a_worktrees_repository_is_held_like_any_other(service: Service, repository: Path) -> None:
    """Hooks and configuration are in the main checkout's .git, which a session in a worktree writes too."""
    worktree = repository.parent / "worktree"
    git("worktree", "add", "-q", str(worktree), cwd=repository)
    before = _snapshot(repository)
    code = """
        common = subprocess.run(["git", "rev-parse", "--git-common-dir"], capture_output=True, text=True).stdout.strip()
        write(f"{common}/hooks/pre-commit")
        os.chmod(f"{common}/hooks/pre-commit", 0o755)
        with open(f"{common}/config", "a") as file:
            file.write("[diff]\\n\\texternal = ./evil.sh\\n")
        write(f"{common}/config.worktree")
        os.makedirs(f"{common}/info", exist_ok=True)
        write(f"{common}/info/attributes")
        report(common)
    """
    assert service.python(code, cwd=worktree) == str(repository / ".git")
    assert _snapshot(repository) == before
    service.run("apply", cwd=worktree)
    after = _snapshot(repository)
    names = (".git/config", ".git/hooks/pre-commit", ".git/config.worktree", ".git/info/attributes")
    assert {name: after.get(name) for name in names} == {name: before.get(name) for name in names}


def test_a_crafted_worktree_file_is_refused(service: Service, repository: Path) -> None:
    """CVE-2026-55607: `.git` names another repository of the owner, or a directory made for the purpose."""
    crafted = service.folder()
    other = repository / ".git"
    fake = service.folder("fake") / "worktrees" / "x"
    fake.mkdir(parents=True)
    (fake / "gitdir").write_text("/elsewhere/.git\n", encoding="utf-8")
    for target in (other, f"{other}/worktrees/none", fake, "/etc", "../" * 10 + "etc"):
        (crafted / ".git").write_text(f"gitdir: {target}\n", encoding="utf-8")
        result = service.run("run", "--", "sh", "-c", f"ls {target}", cwd=crafted)
        assert result.returncode == 126, result
        assert b"worktree" in result.stderr


# ---- direct mode ----


@pytest.fixture
def protected(repository: Path) -> Path:
    for name in (".claude/settings.json", ".mcp.json", ".envrc", ".vscode/tasks.json", ".github/workflows/ci.yml"):
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the owner's\n", encoding="utf-8")
    return repository


def test_in_direct_mode_what_runs_later_is_read_only(service: Service, protected: Path) -> None:
    before = _snapshot(protected)
    code = """
        results = {}
        for name in (".git/hooks/pre-commit", ".git/config", ".claude/settings.json", ".claude/new", ".mcp.json",
                     ".envrc", ".vscode/tasks.json", ".github/workflows/new.yml"):
            results[name] = [attempt(write, name), attempt(os.unlink, name), attempt(os.chmod, name, 0o777)]
        for name in (".git/hooks", ".git/config", ".claude", ".mcp.json", ".vscode", ".github/workflows"):
            results["rename " + name] = [attempt(os.rename, name, "gone")]
            results["replace " + name] = [attempt(os.rename, "README", name)]
        report(results)
    """
    refused = service.python(code, "--mode", "direct", cwd=protected)
    good = {"EROFS", "EACCES", "EBUSY", "ENOENT", "EPERM", "EISDIR", "EXDEV"}
    assert {name: result for name, result in refused.items() if not set(result) <= good} == {}
    assert _snapshot(protected) == before


@pytest.mark.parametrize("ancestor", [".git", ".github"])
def test_in_direct_mode_an_ancestor_of_a_protected_path_cannot_be_renamed(
    service: Service, protected: Path, ancestor: str
) -> None:
    """`mv .git .git2; mkdir .git`: the protected names would be new ones, which nothing guards."""
    before = _snapshot(protected)
    code = """
        renamed = attempt(os.rename, ANCESTOR, ANCESTOR + "2")
        attempt(os.makedirs, ".git/hooks")
        report([renamed, attempt(write, ".git/hooks/pre-commit"), attempt(write, ".git/config")])
    """
    renamed, *written = service.python(code, "--mode", "direct", cwd=protected, ANCESTOR=ancestor)
    assert _snapshot(protected) == before
    assert renamed in ("EBUSY", "EACCES", "EXDEV")
    assert set(written) <= {"EROFS", "EACCES"}


def test_direct_mode_says_what_it_cannot_protect(service: Service, workspace: Path) -> None:
    result = service.run("run", "--mode", "direct", "-v", "--", "true", cwd=workspace)
    assert b"protect" in result.stderr, result.stderr


# ---- caches and temporary places ----

CACHES = [
    ".cache/pip/x",
    ".cache/uv/x",
    ".cache/go-build/x",
    ".npm/x",
    ".local/bin/x",
    ".cargo/registry/x",
    ".cargo/bin/x",
    ".bashrc",
    ".profile",
    ".config/fish/config.fish",
    ".ssh/authorized_keys",
]


def test_caches_and_the_home_are_the_sessions_own(service: Service, workspace: Path) -> None:
    real = {name: Path(service.home, name) for name in CACHES}
    before = {name: path.read_bytes() if path.exists() else None for name, path in real.items()}
    code = """
        home = os.path.expanduser("~")
        for name in NAMES:
            attempt(os.makedirs, os.path.dirname(f"{home}/{name}"), exist_ok=True)
            attempt(write, f"{home}/{name}")
        found = [attempt(write, place + "/deskwarden-poison") for place in ("/tmp", "/var/tmp", "/dev/shm")]
        report(found)
    """
    assert service.python(code, cwd=workspace, NAMES=CACHES) == ["OK"] * 3
    assert {name: path.read_bytes() if path.exists() else None for name, path in real.items()} == before
    later = """
        home = os.path.expanduser("~")
        poison = [f"{place}/deskwarden-poison" for place in ("/tmp", "/var/tmp", "/dev/shm")]
        report([name for name in [*poison, *(f"{home}/{name}" for name in NAMES)] if os.path.exists(name)
                and "planted" in read(name)])
    """
    assert service.python(later, cwd=workspace, NAMES=CACHES) == []
    assert outside(later, NAMES=[]) == []


def test_two_sessions_at_once_share_no_temporary_place(service: Service, workspace: Path) -> None:
    """The same owner, the same folder: neither sees the other's files, processes, or queues."""
    first = service.start_session("--", "sh", "-c", "echo x > /tmp/one; echo x > one; exec sleep 60", cwd=workspace)
    try:
        code = """
            pids = [name for name in os.listdir("/proc") if name.isdigit()]
            report([os.listdir("/dev/shm"), os.path.exists("/tmp/one"), os.path.exists("one"), len(pids)])
        """
        assert service.python(code, cwd=workspace) == [[], False, False, 2]
    finally:
        service.run("kill", first)


HOOKS = {
    "LD_PRELOAD": "/evil.so",
    "LD_AUDIT": "/evil.so",
    "LD_LIBRARY_PATH": "/evil",
    "GCONV_PATH": "/evil",
    "NODE_OPTIONS": "--require /evil.js",
    "PYTHONSTARTUP": "/evil.py",
    "PYTHONPATH": "/evil",
    "PYTHONHOME": "/evil",
    "BASH_ENV": "/evil.sh",
    "ENV": "/evil.sh",
    "GIT_SSH_COMMAND": "/evil.sh",
    "GIT_EXTERNAL_DIFF": "/evil.sh",
    "GIT_CONFIG_COUNT": "1",
    "PERL5OPT": "-Mevil",
    "RUBYOPT": "-revil",
    "JAVA_TOOL_OPTIONS": "-javaagent:/evil.jar",
    "PROMPT_COMMAND": "/evil.sh",
    "BASH_FUNC_ls%%": "() { /evil.sh; }",
}


def test_variables_that_load_code_do_not_pass(service: Service, workspace: Path) -> None:
    harmless = {name: value for name, value in HOOKS.items() if name not in ("LD_PRELOAD", "PYTHONHOME")}
    result = service.run("run", "--", "env", cwd=workspace, env=harmless)
    names = {line.partition(b"=")[0].decode() for line in result.stdout.splitlines()}
    assert names & set(HOOKS) == set()


@pytest.mark.parametrize("name", HOOKS)
def test_variables_that_load_code_cannot_be_asked_for(service: Service, workspace: Path, name: str) -> None:
    result = service.run("run", "--env", f"{name}={HOOKS[name]}", "--", "true", cwd=workspace)
    assert result.returncode == 126, result
    assert name.encode() in result.stderr


def test_a_preload_set_inside_has_no_effect_outside(service: Service, workspace: Path) -> None:
    result = service.run(
        "run", "--", "env", "LD_PRELOAD=/evil.so", "BASH_ENV=x", "bash", "-c", "echo $LD_PRELOAD", cwd=workspace
    )
    assert result.stdout == b"/evil.so\n"
    assert "LD_PRELOAD" not in os.environ
    with (
        open(f"/proc/{service.status()['launcher_pid']}/maps", encoding="utf-8")
        if os.geteuid() == 0
        else open(os.devnull, encoding="utf-8") as maps
    ):
        assert "evil" not in maps.read()
