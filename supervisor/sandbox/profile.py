"""A sandbox profile as a value, the ceiling above it, and the environment that it makes.

Values and pure functions; reading files is `profile_source`. Paths are bytes; sizes are bytes, durations seconds, None
is "no limit". What no profile may ever show or pass stands here in tables. Standard library only.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from supervisor.errors import RefusedError

NETWORK_MODES: Final = ("off", "profile", "open")  # each allows more than the one before


@dataclass(frozen=True, slots=True)
class Workspace:
    """Modes that --mode may choose, and the one without it."""

    modes: tuple[str, ...]
    default_mode: str


@dataclass(frozen=True, slots=True)
class Files:
    """What is shown read-only: absolute *system* and *read*; *etc* globs below /etc; others below the owner's home."""

    system: tuple[bytes, ...]
    etc: tuple[bytes, ...]
    home_read: tuple[bytes, ...]
    read: tuple[bytes, ...]
    ask: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """Names (or globs ending in ``*``) taken over from the caller, and fixed values."""

    passed: tuple[str, ...]
    fixed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may use; None is no limit."""

    memory_bytes: int | None
    pids: int | None
    open_files: int | None
    file_size_bytes: int | None
    staged_bytes: int | None
    tmp_bytes: int | None
    wall_time_s: int | None


@dataclass(frozen=True, slots=True)
class SeccompRules:
    """What a profile changes about the reviewed list of system calls."""

    user_namespaces: bool = False
    allow_extra: tuple[str, ...] = ()
    deny_extra: tuple[str, ...] = ()
    direct: bool = False  # not from a profile: the workspace is the real folder, so what is made there is on the disk


@dataclass(frozen=True, slots=True)
class AskedFor:
    """One capability that a profile's agents ask for; *selector* may begin with ``~/``, the owner's home."""

    id: str
    kind: str
    selector: str
    operations: tuple[str, ...]
    label_max: str
    justification: str


@dataclass(frozen=True, slots=True)
class Asks:
    """The manifest that a profile carries, for agents without one of their own."""

    capabilities: tuple[AskedFor, ...] = ()
    duration_max_s: int = 1200
    roles: tuple[str, ...] = ()

    def entries(self) -> list[dict[str, object]]:
        """Return the capabilities as a manifest lists them."""
        return [
            {
                "id": one.id,
                "kind": one.kind,
                "selector": one.selector,
                "ops": list(one.operations),
                "label_max": one.label_max,
                "justification": one.justification,
            }
            for one in self.capabilities
        ]


@dataclass(frozen=True, slots=True)
class Profile:
    """An effective profile, after `extends`; *lineage* names it and its parents, nearest first."""

    name: str
    description: str
    lineage: tuple[str, ...]
    requires: tuple[str, ...]
    preferred: tuple[str, ...]
    workspace: Workspace
    files: Files
    protected: tuple[bytes, ...]
    runs_later: tuple[bytes, ...]
    environment: Environment
    network: str
    devices: tuple[str, ...]
    limits: Limits
    seccomp: SeccompRules
    asks: Asks = Asks()


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What no profile, flag or project file may go above; comes from managed policy. Empty and None mean "no limit"."""

    network: str = "open"
    modes: frozenset[str] = frozenset({"staged", "direct"})
    max_limits: Mapping[str, int] = field(default_factory=dict)  # keys are the field names of Limits
    forbidden_read: tuple[bytes, ...] = ()  # absolute, or below the owner's home
    required_layers: frozenset[str] = frozenset()
    user_namespaces: bool = True


_ADMIN: Final = "ask your IT administrator, or choose another profile: deskwarden profile list"


def _paths(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split())


# Below the owner's home: what opens other doors. No profile shows these, nor anything above or below them.
SECRETS_IN_HOME: Final = _paths(
    """
    .ssh .aws .gnupg .azure .kube .docker .netrc .npmrc .pypirc .yarnrc .yarnrc.yml .git-credentials
    .config/git/credentials .config/gcloud .config/gh .config/hub .config/containers .config/op .config/deskwarden
    .cargo/credentials .cargo/credentials.toml .gem/credentials .m2/settings.xml .gradle/gradle.properties
    .password-store .local/share/keyrings .local/share/kwalletd .local/share/deskwarden .local/state/deskwarden
    .mozilla .thunderbird .config/google-chrome .config/chromium .config/BraveSoftware .config/microsoft-edge .pki
    .terraform.d .vault-token .databrickscfg .pgpass .my.cnf .bash_history .zsh_history .python_history
    """
)
SECRETS_IN_ETC: Final = _paths(
    """
    shadow shadow- gshadow gshadow- sudoers sudoers.d ssh ssl/private krb5.keytab security/opasswd deskwarden
    wireguard NetworkManager/system-connections wpa_supplicant ppp/chap-secrets ppp/pap-secrets apt/auth.conf
    apt/auth.conf.d crypttab cryptsetup-keys.d polkit-1 systemd/credstore
    """
)
# Absolute: made by the sandbox itself, or holding the state of other people and services.
NEVER_READ: Final = _paths("/ /dev /proc /sys /run /tmp /root /home /boot /etc /var /var/lib/deskwarden /var/log")

_LOADS_CODE: Final = """
    LD_* GLIBC_TUNABLES GCONV_PATH LOCPATH NLSPATH GETCONF_DIR MALLOC_TRACE HOSTALIASES LOCALDOMAIN RES_OPTIONS
    RESOLV_HOST_CONF NIS_PATH PYTHONSTARTUP PYTHONHOME PYTHONPATH PYTHONUSERBASE PYTHONINSPECT PYTHONBREAKPOINT
    PYTHONWARNINGS PYTHONPLATLIBDIR PYTHONEXECUTABLE NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE NPM_CONFIG_*
    npm_config_* BUN_OPTIONS BASH_ENV ENV BASH_FUNC_* BASHOPTS SHELLOPTS PS4 PROMPT_COMMAND ZDOTDIR IFS GIT_*
    SSH_ASKPASS* PERL5OPT PERL5LIB PERLLIB PERL5DB RUBYOPT RUBYLIB BUNDLE_GEMFILE GEM_PATH JAVA_TOOL_OPTIONS
    JDK_JAVA_OPTIONS _JAVA_OPTIONS MAVEN_OPTS GRADLE_OPTS CLASSPATH DOTNET_STARTUP_HOOKS CORECLR_* COR_* LUA_INIT*
    LUA_PATH* LUA_CPATH* PHPRC PHP_INI_SCAN_DIR LESSOPEN LESSCLOSE VIMINIT EXINIT GTK_MODULES GTK_PATH
    GIO_EXTRA_MODULES GST_PLUGIN_* QT_PLUGIN_PATH QT_QPA_PLATFORM_PLUGIN_PATH RUSTC_WRAPPER
    RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_BUILD_* GOFLAGS MAKEFLAGS MFLAGS OPENSSL_CONF OPENSSL_ENGINES
    OPENSSL_MODULES R_PROFILE R_ENVIRON JULIA_LOAD_PATH ERL_AFLAGS ERL_FLAGS ERL_ZFLAGS
"""
_OPENS_DOOR: Final = """
    SSH_AUTH_SOCK SSH_AGENT_PID GPG_AGENT_INFO DBUS_SESSION_BUS_ADDRESS DBUS_SYSTEM_BUS_ADDRESS XDG_RUNTIME_DIR
    XAUTHORITY KRB5CCNAME DOCKER_HOST NOTIFY_SOCKET LISTEN_* SUDO_* CREDENTIALS_DIRECTORY
"""
_NEVER_PASSED: Final = (
    ("it makes programs load code or options that the sandbox did not choose", tuple(_LOADS_CODE.split())),
    ("it leads to a service or credential of yours outside the sandbox", tuple(_OPENS_DOOR.split())),
    ("Deskwarden sets it itself", ("DESKWARDEN_*",)),
)
_PASSED_AFTER_ALL: Final = ("GIT_AUTHOR_*", "GIT_COMMITTER_*", "GIT_TERMINAL_PROMPT")


def forbidden_name(name: str) -> str:
    """Return why the environment variable *name* never enters a sandbox, or ``""``."""
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in _PASSED_AFTER_ALL):
        return ""
    for reason, patterns in _NEVER_PASSED:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return reason
    return ""


def build_environment(
    profile: Profile, source: Mapping[str, str], overrides: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Return the agent's environment, built from nothing: what passes, then the profile's values, then *overrides*.

    Args:
        source: The caller's environment.
        overrides: ``--env``: a value, or None to take the caller's.

    Raises:
        RefusedError: An override names a variable that never passes, or is no name at all.
    """
    result = {
        name: value
        for name, value in sorted(source.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in profile.environment.passed)
        and not forbidden_name(name)
        and _is_pair(name, value)
    }
    result |= dict(profile.environment.fixed)
    for name, given in (overrides or {}).items():
        value = source.get(name) if given is None else given
        if reason := forbidden_name(name):
            raise RefusedError(f"--env {name}: never passed into a sandbox: {reason}", f"leave --env {name} out")
        if not _is_pair(name, value or ""):
            raise RefusedError(f"--env {name!r}: not a variable's name and value", "write --env NAME=VALUE")
        if value is not None:
            result[name] = value
    return result


def _is_pair(name: str, value: str) -> bool:
    return name.isascii() and name.isidentifier() and "\0" not in value


def is_within(path: bytes, area: bytes) -> bool:
    """Return whether *path* is *area* or lies below it."""
    return path == area or path.startswith(area.rstrip(b"/") + b"/")


def secret_in_home(path: bytes) -> bytes | None:
    """Return the credential store that showing *path* (below the home) would show, or None."""
    return next((secret for secret in SECRETS_IN_HOME if is_within(path, secret) or is_within(secret, path)), None)


def secret_in_etc(pattern: bytes) -> bytes | None:
    """Return the secret below /etc that the glob *pattern* would show, or None: part by part, as a shell would."""
    parts = pattern.split(b"/")
    for secret in SECRETS_IN_ETC:
        if all(fnmatch.fnmatchcase(name, part) for name, part in zip(secret.split(b"/"), parts, strict=False)):
            return secret
    return None


def never_read(path: bytes) -> bytes | None:
    """Return what may not be shown at the absolute *path*, or None: a place itself, one above it, or a secret."""
    parts = path.split(b"/")
    if parts[1] in (b"proc", b"sys", b"dev"):
        return path
    if parts[1] == b"etc" and len(parts) > 2:
        return secret_in_etc(b"/".join(parts[2:]))
    home = 3 if parts[1] == b"home" else 2 if parts[1] == b"root" else 0
    if home and len(parts) > home:
        return secret_in_home(b"/".join(parts[home:]))
    return next((place for place in NEVER_READ if is_within(place, path)), None)


def check_ceiling(profile: Profile, ceiling: Ceiling) -> None:
    """Refuse a profile that goes above the ceiling; the message names the field.

    Raises:
        RefusedError: The first field that does, with the value seen and the most that is allowed.
    """
    if NETWORK_MODES.index(profile.network) > NETWORK_MODES.index(ceiling.network):
        _refuse(profile, "network.mode", profile.network, ceiling.network)
    for mode in profile.workspace.modes:
        if mode not in ceiling.modes:
            _refuse(profile, "workspace.modes", mode, ", ".join(sorted(ceiling.modes)))
    _check_limits(profile, ceiling)
    for name in ("system", "home_read", "read"):
        for path in getattr(profile.files, name):
            for area in ceiling.forbidden_read:
                if is_within(path, area) or is_within(area, path):
                    _refuse(profile, f"files.{name}", _text(path), f"nothing that shows {_text(area)}")
    if lacking := sorted(ceiling.required_layers - set(profile.requires)):
        _refuse(profile, "requires", f"no {lacking[0]}", f"that {lacking[0]} is required")
    if profile.seccomp.user_namespaces and not ceiling.user_namespaces:
        _refuse(profile, "seccomp.user_namespaces", "true", "false")


def _check_limits(profile: Profile, ceiling: Ceiling) -> None:
    known = {item.name for item in fields(Limits)}
    for name, most in sorted(ceiling.max_limits.items()):
        if name not in known:
            raise ValueError(f"the ceiling limits {name!r}, which is none of {', '.join(sorted(known))}")
        value: int | None = getattr(profile.limits, name)
        if value is None or value > most:
            _refuse(profile, f"limits.{name}", "none" if value is None else str(value), str(most))


def _refuse(profile: Profile, where: str, seen: str, most: str) -> None:
    raise RefusedError(f"profile {profile.name}: {where} is {seen}; the managed policy allows {most}", _ADMIN)


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
