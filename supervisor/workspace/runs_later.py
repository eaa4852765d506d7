"""Files that a program on the host runs or obeys later, without being asked: their changes are shown apart and held.

One list. A pattern matches the path relative to the folder, as bytes and unnormalised, because that is how the kernel
looks names up: `*` and `?` stay within one component, `**/` stands for any directories or none, a trailing `/` for
everything below. Standard library only.

What is *not* in the list, and why: source code and the files of build tools (Makefile, justfile, Taskfile.yml,
CMakeLists.txt, build.rs, setup.py, Cargo.toml) run when their owner runs the build, which is what he gave the agent
the work for; so do tests. `conftest.py` is in although pytest is run knowingly: editors run test discovery on save.
Files that only instruct another agent (AGENTS.md, CLAUDE.md, .cursorrules) are text, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_GIT: Final = "git runs or obeys it"
_EDITOR: Final = "an editor or IDE runs or obeys it"
_AGENT: Final = "configures an AI agent on the host"
_SHELL: Final = "a shell reads it at start"
_PYTHON: Final = "Python or pytest loads it unasked"
_PACKAGES: Final = "a package manager runs or obeys it"
_CI: Final = "a CI service runs it"
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
    (b"**/.git/worktrees/**/config.worktree", _GIT),
    (b"**/.git/worktrees/**/commondir", _GIT),
    (b"**/.git/worktrees/**/gitdir", _GIT),
    (b"**/*.git/hooks/", _GIT),
    (b"**/*.git/config", _GIT),
    (b"hooks/{applypatch-msg,commit-msg,post-*,pre-*,prepare-commit-msg,push-to-checkout,update}", _GIT),
    (b"**/.gitattributes", _GIT),
    (b"**/.gitmodules", _GIT),
    (b"**/.gitconfig", _GIT),
    (b"**/.husky/", _GIT),
    (b"**/.githooks/", _GIT),
    (b"**/.pre-commit-config.{yaml,yml}", _GIT),
    (b"**/.pre-commit-hooks.yaml", _GIT),
    (b"**/{lefthook,.lefthook}{,-local}.{yml,yaml,toml,json}", _GIT),
    (b"**/.lintstagedrc*", _GIT),
    (b"**/.hg/hgrc", "Mercurial runs or obeys it"),
    (b"**/.jj/repo/config.toml", "Jujutsu runs or obeys it"),
    # editors
    (b"**/.vscode/{tasks,settings,launch,extensions,mcp}.json", _EDITOR),
    (b"**/*.code-workspace", _EDITOR),
    (b"**/.idea/", _EDITOR),
    (b"**/.devcontainer/", _EDITOR),
    (b"**/.devcontainer.json", _EDITOR),
    (b"**/.{vimrc,nvimrc,nvim.lua,exrc,lvimrc,dir-locals.el,emacs,gdbinit,lldbinit}", _EDITOR),
    (b"**/.zed/{settings,tasks,debug}.json", _EDITOR),
    (b"**/.helix/", _EDITOR),
    (b"**/.eslintrc.{js,cjs,mjs}", _EDITOR),
    (b"**/{eslint,prettier,stylelint}.config.{js,cjs,mjs,ts,mts,cts}", _EDITOR),
    (b"**/.prettierrc.{js,cjs,mjs,ts}", _EDITOR),
    # agents on the host
    (b"**/.mcp.json", _AGENT),
    (b"**/.{claude,codex,cursor,gemini,windsurf,aider,continue,opencode,kiro,roo}/", _AGENT),
    (b"**/.claude.json", _AGENT),
    (b"**/.aider.conf.yml", _AGENT),
    (b"**/{opencode,crush,.crush}.json", _AGENT),
    (b"**/.github/copilot/", _AGENT),
    # shells and what they run on entering a directory
    (b"**/.{bashrc,bash_profile,bash_login,bash_logout,bash_aliases,profile,zshrc,zshenv,zprofile,zlogin}", _SHELL),
    (b"**/.{zlogout,kshrc,mkshrc,cshrc,tcshrc,login,inputrc,xprofile,xinitrc,xsession,xsessionrc}", _SHELL),
    (b"**/.config/{fish,nushell,zsh}/", _SHELL),
    (b"**/.{envrc,env.fish,autoenv,autoenv.zsh,direnvrc}", _TOOL),
    (b"**/.config/direnv/", _TOOL),
    (b"**/{mise,.mise}{,.local}.toml", _TOOL),
    (b"**/.{tool-versions,python-version,ruby-version,node-version,nvmrc,sdkmanrc}", _TOOL),
    (b"**/{devenv,shell,flake}.nix", _TOOL),
    (b"**/.{tmux.conf,screenrc,wgetrc,curlrc,netrc,gdbearlyinit}", _TOOL),
    (b"**/.ssh/", "ssh or sshd obeys it"),
    (b"**/.gnupg/", "gpg obeys it"),
    (b"**/.docker/config.json", "docker runs the helpers it names"),
    (b"**/.kube/config", "kubectl runs the helpers it names"),
    (b"**/.aws/config", "the AWS tools run the helpers it names"),
    # Python
    (b"**/conftest.py", _PYTHON),
    (b"**/{sitecustomize,usercustomize}.py", _PYTHON),
    (b"**/*.pth", _PYTHON),
    (b"**/pyvenv.cfg", _PYTHON),
    (b"**/{.venv,venv,env,.env}/bin/", _PYTHON),
    (b"**/.pdbrc", _PYTHON),
    (b"**/.ipython/", _PYTHON),
    (b"**/.jupyter/", _PYTHON),
    # packages
    (b"**/package.json", _PACKAGES),
    (b"**/.{npmrc,yarnrc,yarnrc.yml,pnpmfile.cjs,pnpmfile.mjs,pypirc,condarc,gemrc,bundle/config}", _PACKAGES),
    (b"**/.yarn/{plugins,releases}/", _PACKAGES),
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
    (b"**/{Jenkinsfile,azure-pipelines.yml,bitbucket-pipelines.yml,appveyor.yml}", _CI),
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
        """Return the list for paths in *folder*, whose own name counts too: ``.git``, ``x.git``, ``.vscode``."""
        name = folder.rstrip(b"/").rpartition(b"/")[2]
        return RunsLater(self.rules, b".git" if name.endswith(b".git") else name)

    def why(self, path: bytes) -> str:
        """Return why a change of *path* is held, or an empty string."""
        for whole in (path, self.below + b"/" + path) if self.below else (path,):
            if self._any.fullmatch(whole) is not None:
                return next(f"runs later: {title}" for one, title in self._each if one.fullmatch(whole) is not None)
        return ""

    @cached_property
    def _each(self) -> tuple[tuple[re.Pattern[bytes], str], ...]:
        return tuple((compile_pattern(pattern), title) for pattern, title in self.rules)

    @cached_property
    def _any(self) -> re.Pattern[bytes]:
        """One expression for the common case that no rule matches."""
        return re.compile(b"|".join(b"(?:%s)" % one.pattern for one, _ in self._each), re.DOTALL)


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """Turn a pattern of the list into an expression for `fullmatch`.

    Raises:
        ValueError: the pattern is empty, absolute, or holds an unbalanced brace.
    """
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
    return re.compile(b"".join(body), re.DOTALL)


def _piece(char: bytes, depth: int) -> bytes:
    if char == b",":
        return b"|" if depth else b","
    return {b"*": b"[^/]*", b"?": b"[^/]", b"{": b"(?:", b"}": b")"}.get(char) or re.escape(char)
