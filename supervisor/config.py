"""Where Deskwarden keeps its sockets and its state, per mode. Values only; `daemon` makes the directories."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = "deskwarden"


class Places:
    """The directories of one service. No dataclass: importing that module costs every launch 8 ms.

    Attributes:
        runtime: Sockets; gone after a reboot.
        state: The database, logs, owners' stores with staged work and undo steps.
    """

    __slots__ = ("runtime", "state")

    def __init__(self, runtime: str, state: str) -> None:
        self.runtime = runtime
        self.state = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Places) and (self.runtime, self.state) == (other.runtime, other.state)

    def __hash__(self) -> int:
        return hash((self.runtime, self.state))

    @property
    def launch_socket(self) -> str:
        """The socket that starts sessions and answers the owner's verbs."""
        return f"{self.runtime}/launch.sock"

    @property
    def agents(self) -> str:
        """The daemon's own directory for the sockets of sessions; each is shown in its sandbox only."""
        return f"{self.runtime}/agents"


SYSTEM_CONFIG = "/etc/deskwarden"
SYSTEM_PLACES = Places("/run/deskwarden", "/var/lib/deskwarden")


def system_places(environment: Mapping[str, str]) -> Places:
    """Return the system service's directories; root may move them for a second instance (tests)."""
    return Places(
        environment.get("DESKWARDEN_SYSTEM_RUNTIME_DIR", SYSTEM_PLACES.runtime),
        environment.get("DESKWARDEN_SYSTEM_STATE_DIR", SYSTEM_PLACES.state),
    )


def system_config(environment: Mapping[str, str]) -> str:
    """Return where IT's configuration is; root may move it for a second instance (tests), nobody else."""
    return environment.get("DESKWARDEN_SYSTEM_CONFIG_DIR", SYSTEM_CONFIG)


def rootless_places(environment: Mapping[str, str], uid: int) -> Places:
    """Return the caller's own directories (XDG Base Directory Specification).

    Without XDG_RUNTIME_DIR (no login session) the runtime directory is below /tmp; the daemon and the CLI both check
    that it belongs to the caller and to nobody else.
    """
    runtime = environment.get("DESKWARDEN_RUNTIME_DIR")
    if not runtime:
        base = environment.get("XDG_RUNTIME_DIR", "")
        runtime = f"{base}/deskwarden" if base.startswith("/") and os.path.isdir(base) else ""
    state = environment.get("DESKWARDEN_STATE_DIR")
    if not state:
        base = environment.get("XDG_STATE_HOME", "")
        state = f"{base if base.startswith('/') else _home(environment, uid) + '/.local/state'}/deskwarden"
    return Places(runtime or _shared_runtime(uid, state), state)


def managed_policies(environment: Mapping[str, str]) -> str:
    """Return the directory of what IT decided; root may move it for a second instance (tests)."""
    return f"{system_config(environment)}/policies/managed"


def own_configuration(environment: Mapping[str, str], uid: int) -> str:
    """Return the directory of a person's own configuration (XDG Base Directory Specification)."""
    base = environment.get("XDG_CONFIG_HOME", "")
    return f"{base if base.startswith('/') else _home(environment, uid) + '/.config'}/deskwarden"


def _shared_runtime(uid: int, state: str) -> str:
    """Return a directory below /tmp, or below the state when somebody else took that name: nobody is locked out so."""
    path = f"/tmp/deskwarden-{uid}"
    try:
        status = os.lstat(path)
    except OSError:
        return path
    return path if status.st_uid == uid and status.st_mode & 0o170000 == 0o040000 else f"{state}/run"


def _home(environment: Mapping[str, str], uid: int) -> str:
    home = environment.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd  # only without HOME: the launch verb imports nothing that it does not need

    return pwd.getpwuid(uid).pw_dir
