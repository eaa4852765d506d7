"""Where Deskwarden keeps its sockets and its state, per mode. Values only; `daemon` makes the directories."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

SERVICE_ACCOUNT = "deskwarden"


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one service.

    Attributes:
        runtime: Sockets; gone after a reboot.
        state: The database, logs, owners' stores with staged work and undo steps.
    """

    runtime: str
    state: str

    @property
    def launch_socket(self) -> str:
        """The socket that starts sessions and answers the owner's verbs."""
        return f"{self.runtime}/launch.sock"


SYSTEM_PLACES = Places("/run/deskwarden", "/var/lib/deskwarden")


def system_places(environment: Mapping[str, str]) -> Places:
    """Return the system service's directories; root may move them for a second instance (tests)."""
    return Places(
        environment.get("DESKWARDEN_SYSTEM_RUNTIME_DIR", SYSTEM_PLACES.runtime),
        environment.get("DESKWARDEN_SYSTEM_STATE_DIR", SYSTEM_PLACES.state),
    )


def rootless_places(environment: Mapping[str, str], uid: int) -> Places:
    """Return the caller's own directories (XDG Base Directory Specification).

    Without XDG_RUNTIME_DIR (no login session) the runtime directory is below /tmp; the daemon and the CLI both check
    that it belongs to the caller and to nobody else.
    """
    runtime = environment.get("DESKWARDEN_RUNTIME_DIR")
    if not runtime:
        base = environment.get("XDG_RUNTIME_DIR", "")
        runtime = f"{base}/deskwarden" if base.startswith("/") and os.path.isdir(base) else f"/tmp/deskwarden-{uid}"
    state = environment.get("DESKWARDEN_STATE_DIR")
    if not state:
        base = environment.get("XDG_STATE_HOME", "")
        state = f"{base if base.startswith('/') else _home(environment, uid) + '/.local/state'}/deskwarden"
    return Places(runtime, state)


def _home(environment: Mapping[str, str], uid: int) -> str:
    home = environment.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd  # only without HOME: the launch verb imports nothing that it does not need

    return pwd.getpwuid(uid).pw_dir
