from __future__ import annotations

import pytest

from supervisor.workspace.runs_later import RULES, RunsLater, compile_pattern

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
    b".git/commondir",
    b".git/rebase-merge/git-rebase-todo",
    b".git/rebase-apply/0001",
    b".git/sequencer/todo",
    b".git/worktrees/w/rebase-merge/git-rebase-todo",
    b".git/modules/m/info/attributes",
    b".Rprofile",
    b".Renviron",
    b".octaverc",
    b".ghci",
    b".irbrc",
    b".pryrc",
    b".iex.exs",
    b".ocamlinit",
    b".env",
    b"sub/.env",
    b".autoenv.sh",
    b".direnv/bin/x",
    b".mise/config.toml",
    b".config/mise/config.toml",
    b"mise.production.toml",
    b".rtx.toml",
    b"devbox.json",
    b".local/bin/ls",
    b".terraformrc",
    b".bazelrc",
    b".pylintrc",
    b"pylintrc",
    b".eslintrc",
    b".eslintrc.json",
    b".prettierrc.yaml",
    b".stylelintrc.js",
    b".rubocop.yml",
    b".rspec",
    b".babelrc.json",
    b".vim/plugin/x.vim",
    b".config/nvim/init.lua",
    b".emacs.d/init.el",
    b".dir-locals-2.el",
    b".local.vimrc",
    b".vimspector.json",
    b"x.sublime-project",
    b".fleet/run.json",
    b".run/app.run.xml",
    b".project",
    b".config/git/config",
    b".overcommit.yml",
    b".simple-git-hooks.json",
    b"simple-git-hooks.cjs",
    b".pnp.cjs",
    b".claude/worktrees/one/.envrc",
    b".claude/worktrees/one/.claude/settings.json",
    b".codex/worktrees/1a2b/repo/.git/hooks/pre-commit",
    b"sub/.cursor/worktrees/one/web/package.json",
    b".claude/worktrees/one/.git",
    b".claude/worktrees/one/hooks/pre-commit",
    b".claude/worktrees/one",
    b".claude/worktrees",
    b".claude/agents/worktrees/one/notes.txt",
    b".gemini/worktrees/one/notes.txt",
    # on a commit
    *(b"lint-staged.config.mjs", b"commitlint.config.js", b".commitlintrc.json", b".huskyrc", b".gitlint"),
    # on a save: linters, formatters, language servers
    *(b".flake8", b"mypy.ini", b".mypy.ini", b"setup.cfg", b"tox.ini", b".pylintrc.toml", b".sqlfluff"),
    *(b".markdownlint.cjs", b".markdownlint-cli2.yaml", b".markdownlint-cli2.jsonc", b".remarkrc.mjs", b".textlintrc"),
    *(b".formatter.exs", b"apps/a/.formatter.exs", b".credo.exs", b".solargraph.yml", b".rubocop_todo.yml"),
    *(b"latexmkrc", b".latexmkrc", b".luacheckrc", b".lintr", b".golangci.yml", b"phpstan.neon.dist", b"ansible.cfg"),
    *(b"tailwind.config.ts", b"svelte.config.js", b"hie.yaml", b".bsp/sbt.json", b".vs/tasks.vs.json", b"treefmt.toml"),
    *(b"cspell.config.mjs", b".oxlintrc.json", b"tslint.json", b"rust-analyzer.toml", b"analysis_options.yaml"),
    # for an editor's list of tests
    *(b"jest.config.ts", b"web/vitest.config.mts", b"vitest.workspace.js", b"playwright.config.ts", b".mocharc.cjs"),
    *(b"karma.conf.js", b"cypress.config.js", b"pytest.ini", b".coveragerc", b"phpunit.xml.dist", b".simplecov"),
    # for another agent
    *(b".qwen/settings.json", b".trae/mcp.json", b".junie/x", b".factory/x", b".amp/settings.json", b".agents/x"),
    *(
        b".windsurf/hooks.json",
        b".continue/config.yaml",
        b".roo/mcp.json",
        b".cline/x",
        b".clinerules/hooks/PreToolUse",
    ),
    *(b".aider/x", b".github/hooks/x.json", b"mcp.json", b".claude-plugin/marketplace.json"),
    # at an interpreter's start, on installing, in CI
    *(b".RData", b"renv/activate.R", b".perldb", b"jupyter_notebook_config.py", b"matplotlibrc", b".terraform/p/x"),
    *(b"composer.json", b"deno.json", b"pnpm-workspace.yaml", b"NuGet.Config", b".jvmopts", b"azure-pipelines-pr.yml"),
    *(b"netlify.toml", b".tekton/push.yaml", b".readthedocs.yaml"),
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
    b".git/HEAD",
    b".git/index",
    b".env.md",
    b".environment",
    b"run/app.run.xml",
    b"local/bin/x",
    b"vim/x.vim",
    b".claude/worktrees/one/src/main.py",
    b".codex/worktrees/1a2b/repo/README.md",
    b"sub/.cursor/worktrees/one/Makefile",
    b".claude/worktrees/one/.codex/worktrees/two/x",
    # the build, and what is edited all day
    *(b"pyproject.toml", b"setup.py", b"Cargo.toml", b"build.rs", b"go.mod", b"tsconfig.json", b"Gemfile", b"Rakefile"),
    *(b"vite.config.ts", b"webpack.config.js", b"rollup.config.mjs", b"next.config.js", b"postcss.config.js"),
    *(b"gulpfile.js", b"Gruntfile.js", b"noxfile.py", b"tasks.py", b"dodo.py", b"fabfile.py", b"justfile"),
    *(b"CMakeLists.txt", b"build.gradle", b"pom.xml", b"build.sbt", b"build.zig", b"mix.exs", b"Taskfile.yml"),
    *(b"Dockerfile", b"docker-compose.yml", b"Vagrantfile", b"tests/test_x.py", b"src/app.test.ts"),
    # instructions, and settings that name no code
    *(b"CLAUDE.md", b"GEMINI.md", b".cursorrules", b".github/copilot-instructions.md", b".aider.chat.history.md"),
    *(b"ruff.toml", b".clang-format", b".editorconfig", b".yamllint", b".markdownlint.json", b"i18n/global.json"),
]
LINKS_HELD = [
    *(b".vscode", b".cargo", b".github", b".venv", b"venv", b"node_modules", b".config", b".docker", b".zed", b".yarn"),
    *(
        b".hg",
        b".jj",
        b".aws",
        b".kube",
        b".run",
        b".local",
        b".bundle",
        b"hooks",
        b"systemd",
        b"sub/.vscode",
    ),
    b".claude/worktrees/one/.vscode",
    *(b".jj/repo", b".config/systemd", b".git/info", b".git/modules", b".git/modules/m", b".git/worktrees/w", b"x.git"),
]
LINKS_FREE = [b"src", b"lib64", b"node_modules/left-pad", b"a/vscode", b"vscode", b"docs/latest", b"sub/hooks", b"user"]


@pytest.mark.parametrize("path", HELD)
def test_what_runs_later_is_held(path: bytes) -> None:
    assert RunsLater().why(path).startswith("runs later: ")


@pytest.mark.parametrize("path", FREE)
def test_what_the_owner_runs_knowingly_is_free(path: bytes) -> None:
    assert RunsLater().why(path) == ""


@pytest.mark.parametrize("path", LINKS_HELD)
def test_a_symlink_in_place_of_a_directory_that_a_rule_names_is_held(path: bytes) -> None:
    assert RunsLater().why_link(path).startswith("runs later: ")


@pytest.mark.parametrize("path", LINKS_FREE)
def test_other_symlinks_are_free(path: bytes) -> None:
    assert RunsLater().why_link(path) == ""


def test_a_symlink_in_place_of_a_configured_directory_is_held() -> None:
    rules = RunsLater().extend([b"deploy/{prod,test}/hooks/x.sh"])
    assert all(rules.why_link(path) for path in (b"deploy", b"deploy/prod", b"deploy/test/hooks"))
    assert not any(rules.why_link(path) for path in (b"deploy/dev", b"sub/deploy"))


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in RULES])
def test_every_directory_in_a_rule_is_one_that_a_symlink_may_not_take(pattern: bytes) -> None:
    name = pattern.replace(b"**/", b"some/where/").replace(b"*", b"x").replace(b"?", b"x").rstrip(b"/")
    while b"{" in name:
        head, _, rest = name.partition(b"{")
        name = head + rest.partition(b"}")[0].split(b",")[-1] + rest.partition(b"}")[2]
    rules = RunsLater()
    assert rules.why(name)
    own = name.removeprefix(b"some/where/")
    above = [name[: -len(own)] + b"/".join(own.split(b"/")[:n]) for n in range(1, own.count(b"/") + 1)]
    assert [path for path in above if not rules.why(path) and not rules.why_link(path)] == []


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


@pytest.mark.parametrize("path", [path for path in HELD if b"worktrees" not in path])
def test_the_quick_look_misses_nothing_that_a_rule_names(path: bytes) -> None:
    """`why` looks at all rules in one expression first; each rule by itself must say the same."""
    assert any(compile_pattern(pattern).fullmatch(path) for pattern, _ in RULES) == bool(RunsLater().why(path))


def test_a_choice_of_nothing_in_a_configured_pattern_is_harmless() -> None:
    rules = RunsLater().extend([b"**/{x.hook,}", b"**/{a,/b}.run", b"**/?.job"])
    assert all(map(rules.why, (b"x.hook", b"sub/a.run", b"sub/1.job")))
    assert not any(map(rules.why, (b"src", b"22.job")))


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
        (b"/w/main/.git/info", b"attributes"),
        (b"/w/main/.git/hooks", b"post-checkout"),
        (b"/w/main/.git/modules/m", b"config"),
        (b"/w/bare.git", b"config"),
        (b"/w/bare.git/hooks", b"update"),
        (b"/w/hooks", b"pre-commit"),
        (b"/w/.vscode", b"tasks.json"),
        (b"/w/.vscode/", b"tasks.json"),
        (b"/home/u/.config/fish", b"config.fish"),
        (b"/home/u/.config/fish/functions", b"ls.fish"),
        (b"/home/u/.docker", b"config.json"),
        (b"/w/.github/workflows", b"ci.yml"),
        (b"/w/.yarn/plugins", b"x.cjs"),
        (b"/w/.claude/work", b"notes.txt"),
        (b"/w/.claude/worktrees", b"notes.txt"),
        (b"/w/.claude/worktrees/one", b".envrc"),
        (b"/w/.claude/worktrees/one/.vscode", b"tasks.json"),
    ],
)
def test_the_folders_own_path_counts(folder: bytes, path: bytes) -> None:
    assert RunsLater().in_folder(folder).why(path)


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (b"/w/project", b"config"),
        (b"/w/.claude/worktrees/one", b"notes.txt"),
        (b"/w/.claude/worktrees/one/src", b"main.py"),
        (b"/home/u/.claude/worktrees", b"one/main.py"),
        (b"/home/u/.codex", b"worktrees/1a2b/repo/main.py"),
        (b"/home/u/.cursor/worktrees/repo/1a2b", b"main.py"),
        (b"/w/.config/thing", b"main.py"),
        (b"/w/a/hooks/b", b"pre-commit"),
    ],
)
def test_a_path_without_a_name_of_the_list_changes_nothing(folder: bytes, path: bytes) -> None:
    assert not RunsLater().in_folder(folder).why(path)


def test_a_symlink_counts_with_the_folders_path_too() -> None:
    assert RunsLater().in_folder(b"/home/u/.config").why_link(b"systemd")
    assert RunsLater().in_folder(b"/w/.git").why_link(b"info")
    assert not RunsLater().in_folder(b"/w/project").why_link(b"info")


def test_only_a_tree_of_the_list_is_covered_as_a_whole() -> None:
    rules = RunsLater()
    assert all(map(rules.covers, (b".git/hooks", b"a/.venv/bin", b".claude", b".github/workflows", b".claude/agents")))
    assert not any(map(rules.covers, (b".git", b".vscode", b"src", b".claude/worktrees/one", b"node_modules")))


def test_configuration_still_counts_in_a_folder_and_only_from_its_root() -> None:
    rules = RunsLater().extend([b"deploy/"]).in_folder(b"/srv/deploy/app")
    assert rules.why(b"deploy/run.sh")
    assert not rules.why(b"src/run.sh")
