"""What a probe says: present with a detail, absent, or in need of something. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 5.0

# What a probe returns: the detail, when the layer is present. Everything else is raised.
Probe = Callable[[], str]

AS_ROOT: Final = "install the system service: it runs as root"
APPARMOR: Final = (
    "Ubuntu's AppArmor limit: install the package's AppArmor profile, or "
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)


class Needs(Exception):
    """The layer can be had here."""

    def __init__(self, detail: str, remedy: str = "") -> None:
        super().__init__(detail)
        self.remedy = remedy


class Absent(Exception):
    """This kernel does not do it."""


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise Absent(text)


def sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
