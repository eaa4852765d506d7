"""Files that a program on the host runs or obeys later, without being asked: their changes are shown apart and held.

One list. A pattern matches the path relative to the folder, as bytes and unnormalised, because that is how the kernel
looks names up: `*` and `?` stay within one component, `**/` stands for any directories or none, a trailing `/` for
everything below. A symlink is held where a rule names a directory: `.vscode -> vsc` makes `vsc/tasks.json` run. Rules
that begin with `**/` see the folder's whole path, so `~/.config/fish` is held as a folder of its own too.
Standard library only.

Where the line is: held is what runs, or makes something run, when its owner does something else than building or
starting the project: opens the folder, enters it, saves, commits, lints, formats, installs, looks at the editor's list
of tests, starts another agent, logs in. That is settings and hooks, seldom edited. Some run nothing by themselves, but
name a plugin, a helper or an interpreter that is run.

What is *not* in the list, and why. Source code, tests, and the files of build tools and task runners (Makefile,
justfile, Taskfile.yml, CMakeLists.txt, build.rs, setup.py, Cargo.toml, Gemfile, build.gradle, vite.config.js,
noxfile.py) run when their owner builds, which is what he gave the agent the work for; an IDE that builds on opening
runs the sources just as well. `pyproject.toml` can name plugins too, but is edited all day: a list that holds
everything is waved through unread. Files that only instruct another agent (AGENTS.md, CLAUDE.md, .cursorrules) are
text, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

_GIT: Final = "git runs or obeys it"
_EDITOR: Final = "an editor or IDE runs or obeys it"
_AGENT: Final = "configures an AI agent on the host"
_SHELL: Final = "a shell reads it at start"
_PYTHON: Final = "Python or pytest loads it unasked"
_PACKAGES: Final = "a package manager runs or obeys it"
_CI: Final = "a CI service runs it"
_INTERPRETER: Final = "an interpreter runs it at start"
_LINTER: Final = "a linter or formatter loads the plugins it names, often on save"
_TESTS: Final = "a test runner loads it, and an editor that lists the tests"
_LOGIN: Final = "the desktop or systemd starts it"
_TOOL: Final = "a tool runs or obeys it on entering the folder"

RULES: Final[tuple[tuple[bytes, str], ...]] = (
    # git: the repository, worktrees and submodules below .git, a `.git` file pointing elsewhere, and a bare layout
    (b"**/.git", _GIT),
    (b"**/.git/hooks/", _GIT),
    (b"**/.git/config", _GIT),
    (b"**/.git/config.worktree", _GIT),
    (b"**/.git/info/attributes", _GIT),
    (b"**/.git/commondir", _GIT),
    (b"**/.git/gitdir", _GIT),
    (b"**/.git/objects/info/alternates", _GIT),
    (b"**/.git/modules/**/config", _GIT),
    (b"**/.git/modules/**/hooks/", _GIT),
    (b"**/.git/modules/**/{config.worktree,commondir,info/attributes}", _GIT),
    (b"**/.git/{rebase-merge,rebase-apply,sequencer}/", "git runs the commands in it when the operation goes on"),
    (b"**/.git/{worktrees,modules}/**/{rebase-merge,rebase-apply,sequencer}/", "git runs the commands in it"),
    (b"**/.git/worktrees/**/config.worktree", _GIT),
    (b"**/.git/worktrees/**/commondir", _GIT),
    (b"**/.git/worktrees/**/gitdir", _GIT),
    (b"**/*.git/hooks/", _GIT),
    (b"**/*.git/config", _GIT),
    (b"hooks/{applypatch-msg,commit-msg,post-*,pre-*,prepare-commit-msg,push-to-checkout,update}", _GIT),
    (b"**/.gitattributes", _GIT),
    (b"**/.gitmodules", _GIT),
    (b"**/.gitconfig", _GIT),
    (b"**/.config/git/", _GIT),
    (b"**/.husky/", _GIT),
    (b"**/.githooks/", _GIT),
    (b"**/.pre-commit-config.{yaml,yml}", _GIT),
    (b"**/.pre-commit-hooks.yaml", _GIT),
    (b"**/{lefthook,.lefthook}{,-local}.{yml,yaml,toml,json}", _GIT),
    (b"**/.{lintstaged,commitlint,husky}rc*", _GIT),
    (b"**/{lint-staged,commitlint,husky}.config.*", _GIT),
    (b"**/{.gitlint,captainhook.json,grumphp.yml,grumphp.yml.dist}", _GIT),
    (b"**/.overcommit.yml", _GIT),
    (b"**/{.simple-git-hooks,simple-git-hooks}.*", _GIT),
    (b"**/.hg/hgrc", "Mercurial runs or obeys it"),
    (b"**/.jj/repo/config.toml", "Jujutsu runs or obeys it"),
    # editors
    (b"**/.vscode/{tasks,settings,launch,extensions,mcp}.json", _EDITOR),
    (b"**/*.code-workspace", _EDITOR),
    (b"**/.idea/", _EDITOR),
    (b"**/.devcontainer/", _EDITOR),
    (b"**/.devcontainer.json", _EDITOR),
    (b"**/.{vimrc,nvimrc,nvim.lua,exrc,lvimrc,local.vimrc,vimspector.json,gdbinit,lldbinit}", _EDITOR),
    (b"**/.{dir-locals.el,dir-locals-2.el,emacs}", _EDITOR),
    (b"**/{.vim,.emacs.d,.config/nvim,.config/emacs,.config/helix,.config/zed}/", _EDITOR),
    (b"**/*.sublime-project", _EDITOR),
    (b"**/.fleet/", _EDITOR),
    (b"**/.run/*.xml", _EDITOR),
    (b"**/.project", _EDITOR),
    (b"**/.zed/{settings,tasks,debug}.json", _EDITOR),
    (b"**/.helix/", _EDITOR),
    (b"**/.{vs,theia,bsp,externalToolBuilders,ruby-lsp}/", _EDITOR),
    (b"**/{.lsp/config.edn,.factorypath,.neoconf.json,.luarc.json,.luarc.jsonc,.merlin,.ycm_extra_conf.py}", _EDITOR),
    (b"**/{hie.yaml,omnisharp.json,rust-analyzer.toml,.rust-analyzer.toml,analysis_options.yaml}", _EDITOR),
    (b"**/{apollo,graphql,relay,svelte,tailwind}.config.*", _EDITOR),
    (b"**/.graphqlrc*", _EDITOR),
    # linters and formatters; those whose settings name no code (ruff, clang-format, gofmt …) are not here
    (b"**/.{eslintrc,prettierrc,stylelintrc,babelrc,remarkrc,textlintrc,alexrc,oxlintrc}*", _LINTER),
    (b"**/{eslint,prettier,stylelint,babel,oxlint,xo,dprint}.config.*", _LINTER),
    (b"**/{tslint,dprint,.dprint}.json", _LINTER),
    (b"**/{cspell,.cspell,cspell.config,.cspell.config}.{js,cjs,mjs,ts}", _LINTER),
    (b"**/.markdownlint.{cjs,mjs,js}", _LINTER),
    (b"**/.markdownlint-cli2.*", _LINTER),
    (b"**/{treefmt,.treefmt}.toml", _LINTER),
    (b"**/{.pylintrc,pylintrc}{,.toml}", _LINTER),
    (b"**/{mypy,.mypy}.ini", _LINTER),
    (b"**/{.flake8,setup.cfg,tox.ini,.sqlfluff,.lintr,.luacheckrc,.scalafix.conf,.tflint.hcl}", _LINTER),
    (b"**/{.ansible-lint,.prospector,.golangci,.custom-gcl}{,.yml,.yaml,.toml,.json}", _LINTER),
    (b"**/{ansible.cfg,.config/ansible-lint.yml}", _LINTER),
    (b"**/.{rubocop*,solargraph,standard,erb-lint,erb_lint,haml-lint,slim-lint}.yml", _LINTER),
    (b"**/{.erb_linters,.phan}/", _LINTER),
    (b"**/.yardopts", _LINTER),
    (b"**/{.php-cs-fixer,.php_cs}{,.dist}{,.php}", _LINTER),
    (b"**/{phpstan.neon,phpstan.dist.neon,psalm.xml,phpcs.xml,.phpcs.xml,ecs.php}{,.dist}", _LINTER),
    (b"**/.{formatter,credo}.exs", _LINTER),
    # test runners: as conftest.py
    (b"**/{jest,vitest,playwright,cypress,ava}.config.*", _TESTS),
    (b"**/{karma,wdio}.conf.*", _TESTS),
    (b"**/vitest.workspace.*", _TESTS),
    (b"**/.{mocha,nyc,c8,tap}rc*", _TESTS),
    (b"**/{pytest,.pytest}.{ini,toml}", _TESTS),
    (b"**/{.coveragerc,.busted,.luacov,.simplecov,.proverc,.config/nextest.toml}", _TESTS),
    (b"**/{phpunit.xml,phpunit.dist.xml}{,.dist}", _TESTS),
    # agents on the host
    (b"**/{.mcp,mcp}.json", _AGENT),
    (b"**/.{claude,codex,cursor,gemini,windsurf,aider,continue,opencode,kiro,roo}/", _AGENT),
    (b"**/.{agents,amazonq,amp,antigravity,augment,codebuddy,copilot,crush,factory,forge,goose,grok,iflow}/", _AGENT),
    (b"**/.{junie,kilocode,kimi,lingma,openhands,pi,qodo,qwen,rovodev,serena,tabnine,trae,vibe,warp}/", _AGENT),
    (b"**/.{cline,clinerules,claude-plugin,zencoder}/", _AGENT),
    (b"**/{.claude,gemini-extension,conductor}.json", _AGENT),
    (b"**/.aider.conf.yml", _AGENT),
    (b"**/{opencode,crush,.crush}.json", _AGENT),
    (b"**/.github/{copilot,agents,hooks,skills}/", _AGENT),
    # shells and what they run on entering a directory
    (b"**/.{bashrc,bash_profile,bash_login,bash_logout,bash_aliases,profile,zshrc,zshenv,zprofile,zlogin}", _SHELL),
    (b"**/.{zlogout,kshrc,mkshrc,cshrc,tcshrc,login,inputrc,xprofile,xinitrc,xsession,xsessionrc}", _SHELL),
    (b"**/.config/{fish,nushell,zsh}/", _SHELL),
    (b"**/.local/bin/", "a shell finds it as a command"),
    (b"**/.{envrc,env.fish,autoenv,autoenv.sh,autoenv.zsh,direnvrc}", _TOOL),
    (b"**/.env", "often plain data, but autoenv runs it as a shell script on entering the folder"),
    (b"**/{.direnv,.config/direnv}/", _TOOL),
    (b"**/{mise,.mise,.rtx}{,.*}.toml", _TOOL),
    (b"**/mise/config{,.*}.toml", _TOOL),
    (b"**/{.mise,.config/mise}/", _TOOL),
    (b"**/devbox.json", _TOOL),
    (b"**/.{tool-versions,python-version,ruby-version,node-version,nvmrc,sdkmanrc}", _TOOL),
    (b"**/{devenv,devenv.local,shell,flake}.nix", _TOOL),
    (b"**/{devenv.yaml,devenv.local.yaml,.prototools,pkgx.yaml,.pkgx.yaml}", _TOOL),
    (b"**/{.shadowenv.d,.flox}/", _TOOL),
    (b"**/.{tmux.conf,screenrc,wgetrc,curlrc,netrc,gdbearlyinit}", _TOOL),
    (b"**/.ssh/", "ssh or sshd obeys it"),
    (b"**/.gnupg/", "gpg obeys it"),
    (b"**/.docker/config.json", "docker runs the helpers it names"),
    (b"**/.kube/config", "kubectl runs the helpers it names"),
    (b"**/.aws/config", "the AWS tools run the helpers it names"),
    (b"**/.terraformrc", "terraform runs the helpers it names"),
    (b"**/.terraform/", "terraform, and an editor with it, runs the providers in it"),
    (b"**/.{bazelrc,bazeliskrc}", "bazel obeys it"),
    (b"**/{latexmkrc,.latexmkrc}", "latexmk runs it, often on save"),
    (b"**/.{Rprofile,Renviron,RData,octaverc,ghci,irbrc,pryrc,iex.exs,ocamlinit,erlang,perldb,user.ini}", _INTERPRETER),
    (b"**/{renv/activate.R,.julia/config/startup.jl}", _INTERPRETER),
    (b"**/.rspec", "rspec loads what it names, often from an editor"),
    # Python
    (b"**/conftest.py", _PYTHON),
    (b"**/{sitecustomize,usercustomize}.py", _PYTHON),
    (b"**/*.pth", _PYTHON),
    (b"**/pyvenv.cfg", _PYTHON),
    (b"**/{.venv,venv,env,.env}/bin/", _PYTHON),
    (b"**/.pdbrc", _PYTHON),
    (b"**/.ipython/", _PYTHON),
    (b"**/.jupyter/", _PYTHON),
    (b"**/jupyter_*config.{py,json}", _PYTHON),
    (b"**/{ipython_config.py,matplotlibrc}", _PYTHON),
    # packages
    (b"**/{package,composer,deno}.json", _PACKAGES),
    (b"**/{deno.jsonc,pnpm-workspace.yaml,.bowerrc,.pdm-python}", _PACKAGES),
    (b"**/{nuget,NuGet,Nuget}.{config,Config}", _PACKAGES),
    (b"**/.{sbt,jvm}opts", _PACKAGES),
    (b"**/.{npmrc,yarnrc,yarnrc.yml,pnpmfile.cjs,pnpmfile.mjs,pypirc,condarc,gemrc,bundle/config}", _PACKAGES),
    (b"**/.yarn/{plugins,releases}/", _PACKAGES),
    (b"**/.pnp.{cjs,loader.mjs}", _PACKAGES),
    (b"**/bunfig.toml", _PACKAGES),
    (b"**/node_modules/.bin/", _PACKAGES),
    (b"**/.cargo/config{,.toml}", _PACKAGES),
    (b"**/{pip,.pip}/pip.conf", _PACKAGES),
    (b"**/{pip.conf,uv.toml}", _PACKAGES),
    (b"**/{rust-toolchain,rust-toolchain.toml}", _PACKAGES),
    (b"**/{gradle,maven,.mvn}/wrapper/", _PACKAGES),
    (b"**/.mvn/", _PACKAGES),
    # CI
    (b"**/.github/{workflows,actions}/", _CI),
    (b"**/.gitlab-ci.{yml,yaml}", _CI),
    (b"**/.gitlab/", _CI),
    (b"**/.{circleci,buildkite,woodpecker,gitea,forgejo,teamcity,ci}/", _CI),
    (b"**/.{travis,drone,woodpecker,appveyor,cirrus}.{yml,yaml}", _CI),
    (b"**/{Jenkinsfile,bitbucket-pipelines.yml,appveyor.yml,wercker.yml,codemagic.yaml,bitrise.yml}", _CI),
    (b"**/azure-pipelines*.{yml,yaml}", _CI),
    (b"**/{.semaphore,.tekton,.builds,.azure-pipelines,.pipelines,.harness,zuul.d,.zuul.d}/", _CI),
    (b"**/{.build.yml,buildspec.yml,cloudbuild.yaml,.readthedocs.yaml,.readthedocs.yml,.packit.yaml,.zuul.yaml}", _CI),
    (b"**/{netlify.toml,vercel.json}", _CI),
    (b"**/{renovate.json,.renovaterc,.github/dependabot.yml}", _CI),
    # login
    (b"**/*.desktop", _LOGIN),
    (b"**/autostart/", _LOGIN),
    (b"**/{systemd,.config/systemd}/user/", _LOGIN),
    (b"**/.config/environment.d/", _LOGIN),
    (b"**/.pam_environment", _LOGIN),
    (b"**/.local/share/dbus-1/", _LOGIN),
    (b"**/.{crontab,forward,procmailrc}", _LOGIN),
)


# An agent's worktrees lie in its settings directory, but each is a whole project: the list counts anew from its root.
_AGENTS: Final = (b".claude", b".codex", b".cursor")
_AGENTS_WORKTREE: Final = re.compile(rb"(?:.*/)?\.(?:claude|codex|cursor)/worktrees/[^/]+(?=/|\Z)", re.DOTALL)


@dataclass(frozen=True)
class RunsLater:
    """The list in force: the built-in rules, and what configuration adds. Nothing takes a rule away."""

    rules: tuple[tuple[bytes, str], ...] = RULES
    below: bytes = b""

    def extend(self, patterns: Iterable[bytes], title: str = "named by configuration") -> RunsLater:
        """Return the list with *patterns* added.

        Raises:
            ValueError: a pattern is empty, absolute, or holds an unbalanced brace.
        """
        added = tuple((pattern, title) for pattern in patterns)
        for pattern, _ in added:
            compile_pattern(pattern)
        return RunsLater(self.rules + added, self.below)

    def in_folder(self, folder: bytes) -> RunsLater:
        """Return the list for paths in *folder*, an absolute path that counts too; ``x.git`` counts as ``.git``."""
        worktree = _AGENTS_WORKTREE.match(folder)
        parts = folder[worktree.end() if worktree else 0 :].split(b"/")
        return RunsLater(self.rules, b"/".join(b".git" if part.endswith(b".git") else part for part in parts if part))

    def why(self, path: bytes) -> str:
        """Return why a change of *path* is held, or an empty string."""
        title = self._names.title(*self._placed(path))
        return f"runs later: {title}" if title else ""

    def why_link(self, path: bytes) -> str:
        """Return why a symlink at *path* is held: it would lead to what a rule names below it. Else an empty string."""
        title = self._directories.title(*self._placed(path))
        return f"runs later: what it leads to, {title}" if title else ""

    def covers(self, path: bytes) -> bool:
        """Tell whether everything below the directory *path* runs later."""
        if _AGENTS_WORKTREE.fullmatch(self.below + b"/" + path if self.below else path):
            return False
        return bool(self._trees.title(*self._placed(path)))

    def _placed(self, path: bytes) -> tuple[bytes, bytes]:
        """Return *path* and the folder that it counts in: what lies in an agent's worktree counts from there."""
        if b"worktrees/" in path or self.below.endswith(b"/worktrees"):
            whole = self.below + b"/" + path if self.below else path
            worktree = _AGENTS_WORKTREE.match(whole)
            if worktree and worktree.end() < len(whole):
                return whole[worktree.end() + 1 :], b""
        return path, self.below

    @cached_property
    def _names(self) -> _Matcher:
        return _Matcher(self.rules)

    @cached_property
    def _trees(self) -> _Matcher:
        return _Matcher(tuple(rule for rule in self.rules if rule[0].endswith(b"/")))

    @cached_property
    def _directories(self) -> _Matcher:
        return _Matcher(tuple((above, title) for pattern, title in self.rules for above in directories_of(pattern)))


def worktrees_of(path: bytes) -> bytes:
    """Return where the agent whose settings directory is *path* keeps its worktrees; empty for other directories."""
    return path + b"/worktrees" if path.rpartition(b"/")[2] in _AGENTS else b""


class _Matcher:
    """Some rules, with one expression for the common case that none matches."""

    def __init__(self, rules: tuple[tuple[bytes, str], ...]) -> None:
        self._rules = rules
        floating = _alternatives(pattern[3:] for pattern, _ in rules if is_floating(pattern))
        self._floating = re.compile(b"(?:.*/)?(?:%s)" % floating, re.DOTALL)
        anchored = [_expression(pattern) for pattern, _ in rules if not is_floating(pattern)]
        self._anchored = re.compile(b"|".join(anchored or [b"(?!)"]), re.DOTALL)

    def title(self, path: bytes, below: bytes) -> str:
        """Return the title of the first rule for *path* in the folder *below*, or an empty string."""
        whole = below + b"/" + path if below else path
        # What begins anywhere matches the whole path wherever it matches a part of it.
        near = {path, below.rpartition(b"/")[2] + b"/" + path} if below else {path}
        if not path or (not self._floating.fullmatch(whole) and not any(map(self._anchored.fullmatch, near))):
            return ""
        return next(
            title
            for pattern, title in self._rules
            if any(map(compile_pattern(pattern).fullmatch, (whole,) if is_floating(pattern) else near))
        )


def _alternatives(patterns: Iterable[bytes]) -> bytes:
    """Return one expression for any of *patterns*, by first letter: most names match none, and fail at that."""
    by_first: dict[bytes, list[bytes]] = {}
    for one in (one for pattern in patterns for one in _spelled_out(pattern)):
        if one and not one.startswith(b"/"):
            first = b"" if one[:1] in (b"*", b"?") else re.escape(one[:1])
            by_first.setdefault(first, []).append(_expression(one)[len(first) :])
    return b"|".join(b"%s(?:%s)" % (first, b"|".join(rest)) for first, rest in by_first.items()) or b"(?!)"


def is_floating(pattern: bytes) -> bool:
    """Tell whether a pattern may begin at any directory."""
    return pattern.startswith(b"**/") and len(pattern) > 3


def directories_of(pattern: bytes) -> list[bytes]:
    """Return patterns for the directories that lie above what *pattern* names, where they have a name of their own."""
    found = []
    for one in _spelled_out(pattern):
        parts = one.rstrip(b"/").split(b"/")
        for end in range(1, len(parts)):
            above = parts[:end]
            if set(above) <= {b"**", b""}:
                continue
            # Any directories or none: all that lies below the last name.
            found.append(b"/".join(above[:-1]) + b"/" if above[-1] == b"**" else b"/".join(above))
    return list(dict.fromkeys(found))


def _spelled_out(pattern: bytes) -> list[bytes]:
    """Return the patterns without braces that *pattern* stands for."""
    head, brace, rest = pattern.partition(b"{")
    if not brace:
        return [pattern]
    choices, _, tail = rest.partition(b"}")
    return [head + choice + end for choice in choices.split(b",") for end in _spelled_out(tail)]


@cache
def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """Turn a pattern of the list into an expression for `fullmatch`.

    Raises:
        ValueError: the pattern is empty, absolute, or holds an unbalanced brace.
    """
    return re.compile(_expression(pattern), re.DOTALL)


def _expression(pattern: bytes) -> bytes:
    if not pattern or pattern.startswith(b"/"):
        raise ValueError(f"pattern {pattern!r}: expected a path relative to the folder")
    body, rest, depth = [], pattern, 0
    while rest:
        if rest.startswith(b"**/"):
            body.append(b"(?:.*/)?")
            rest = rest[3:]
            continue
        char, rest = rest[:1], rest[1:]
        if char == b"{":
            depth += 1
        elif char == b"}":
            depth -= 1
        if depth not in (0, 1):
            raise ValueError(f"pattern {pattern!r}: unbalanced or nested braces")
        body.append(_piece(char, depth))
    if depth:
        raise ValueError(f"pattern {pattern!r}: unbalanced brace")
    if pattern.endswith(b"/"):
        body[-1] = b"(?:/.*)?"
    return b"".join(body)


def _piece(char: bytes, depth: int) -> bytes:
    if char == b",":
        return b"|" if depth else b","
    return {b"*": b"[^/]*", b"?": b"[^/]", b"{": b"(?:", b"}": b")"}.get(char) or re.escape(char)
