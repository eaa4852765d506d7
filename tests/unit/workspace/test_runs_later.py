from __future__ import annotations

import pytest

from supervisor.workspace.runs_later import RunsLater, compile_pattern

HELD = [
    b".git/hooks/pre-commit",
    b"sub/.git/hooks/post-merge",
    b".git/config",
    b".git/modules/a/b/config",
    b".git/worktrees/w/config.worktree",
    b"vendor/bare.git/hooks/update",
    b"hooks/pre-push",
    b"sub/.git",
    b".gitattributes",
    b"a/b/.gitmodules",
    b".envrc",
    b".vscode/tasks.json",
    b".idea/runConfigurations/x.xml",
    b".mcp.json",
    b".claude/settings.json",
    b"sub/.codex/config.toml",
    b".cursor/mcp.json",
    b".gemini/settings.json",
    b".bashrc",
    b".config/fish/config.fish",
    b"tests/conftest.py",
    b"sitecustomize.py",
    b"lib/evil.pth",
    b"package.json",
    b"web/package.json",
    b".npmrc",
    b".yarnrc.yml",
    b".python-version",
    b".pre-commit-config.yaml",
    b".husky/pre-commit",
    b".github/workflows/ci.yml",
    b".gitlab-ci.yml",
    b".config/autostart/x.desktop",
    b".config/systemd/user/x.service",
    b".venv/bin/activate",
    b"node_modules/.bin/tsc",
    b"n\nl/\xff/.envrc",
]
FREE = [
    b"README.md",
    b"src/main.py",
    b"Makefile",
    b"AGENTS.md",
    b".git/objects/ab/cdef",
    b".git/refs/heads/main",
    b".gitignore",
    b"hooks/README",
    b"src/hooks/use-thing.ts",
    b"my.envrc.md",
    b".vscode/notes.txt",
    b"xconftest.py",
    b"package.json.md",
]


@pytest.mark.parametrize("path", HELD)
def test_what_runs_later_is_held(path: bytes) -> None:
    assert RunsLater().why(path).startswith("runs later: ")


@pytest.mark.parametrize("path", FREE)
def test_what_the_owner_runs_knowingly_is_free(path: bytes) -> None:
    assert RunsLater().why(path) == ""


def test_configuration_adds_patterns_and_takes_none_away() -> None:
    rules = RunsLater().extend([b"deploy/", b"**/*.service"], "named by IT")
    assert rules.why(b"deploy/run.sh") == "runs later: named by IT"
    assert rules.why(b"a/b.service") == "runs later: named by IT"
    assert rules.why(b".envrc")
    assert not RunsLater().why(b"deploy/run.sh")


@pytest.mark.parametrize("pattern", [b"", b"/abs", b"{a", b"a}", b"{{a}}"])
def test_a_bad_pattern_is_named(pattern: bytes) -> None:
    with pytest.raises(ValueError, match="pattern"):
        RunsLater().extend([pattern])


def test_a_star_stays_within_one_component() -> None:
    assert compile_pattern(b"a/*.py").fullmatch(b"a/b.py")
    assert not compile_pattern(b"a/*.py").fullmatch(b"a/b/c.py")


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (b"/w/main/.git", b"config"),
        (b"/w/main/.git", b"hooks/pre-commit"),
        (b"/w/main/.git", b"worktrees/wt/config.worktree"),
        (b"/w/main/.git", b"info/attributes"),
        (b"/w/main/.git", b"modules/sub/hooks/post-checkout"),
        (b"/w/bare.git", b"config"),
        (b"/w/.vscode", b"tasks.json"),
    ],
)
def test_the_folders_own_name_counts(folder: bytes, path: bytes) -> None:
    assert RunsLater().in_folder(folder).why(path)


def test_the_name_of_an_ordinary_folder_changes_nothing() -> None:
    assert not RunsLater().in_folder(b"/w/project").why(b"config")
    assert not RunsLater().in_folder(b"/w/.claude/work").why(b"notes.txt")
