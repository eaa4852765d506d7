"""What kind of machine this is, by name: the kernel, root or rootless, container, WSL. Standard library only."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INITIAL_MAP: Final = ["0", "0", "4294967295"]
_NESTED: Final = {
    "docker": "start the container with --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined",
    "podman": "start the container with --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined",
    "lxc": "set security.nesting=true for the container",
    "systemd-nspawn": "start it with --capability=all --system-call-filter=@mount @keyring bpf",
    "WSL1": "WSL1 has no Linux kernel: wsl --set-version <distribution> 2",
    "WSL2": "update with wsl --update; systemd=true in /etc/wsl.conf gives cgroup delegation",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that explain what the probes find."""

    kernel: str
    architecture: str
    mode: str  # system or rootless
    container: str  # docker, podman, lxc, systemd-nspawn, another name, or ""
    wsl: str  # WSL1, WSL2 or ""
    apparmor_limits_user_namespaces: bool

    def hint(self) -> str:
        """Return what helps on this kind of machine, or ``""``."""
        return _NESTED.get(self.wsl) or _NESTED.get(self.container) or ""


def is_initial_root() -> bool:
    """Return whether this is uid 0 of the machine, not of a user namespace."""
    return os.geteuid() == 0 and _text("/proc/self/uid_map").split() == _INITIAL_MAP


def identify() -> Machine:
    """Return what this machine is."""
    release = platform.release()
    markers = {
        "systemd": _text("/run/systemd/container"),
        "environ": _container_variable(),
        "cgroup": _text("/proc/1/cgroup"),
        "dockerenv": "docker" if Path("/.dockerenv").exists() else "",
        "containerenv": "podman" if Path("/run/.containerenv").exists() else "",
    }
    return Machine(
        kernel=release,
        architecture=platform.machine(),
        mode="system" if is_initial_root() else "rootless",
        container=name_container(markers),
        wsl=name_wsl(release),
        apparmor_limits_user_namespaces=_text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1",
    )


def name_container(markers: Mapping[str, str]) -> str:
    """Return the container's kind from the markers that `identify` reads. Pure.

    Source: systemd's Container Interface; the files that Docker and Podman leave.
    """
    said = (markers.get("systemd") or markers.get("environ") or "").strip().lower()
    if said in ("lxc", "lxc-libvirt"):
        return "lxc"
    if said and said not in ("wsl", "oci"):
        return said
    if kind := markers.get("containerenv") or markers.get("dockerenv"):
        return kind
    cgroup = markers.get("cgroup", "")
    for kind, word in (("docker", "docker"), ("podman", "libpod"), ("lxc", "/lxc"), ("kubernetes", "kubepods")):
        if word in cgroup:
            return kind
    return "container" if said == "oci" else ""


def name_wsl(release: str) -> str:
    """Return WSL1 or WSL2 from the kernel's release, or ``""``. Pure."""
    if "microsoft" not in release.lower():
        return ""
    return "WSL1" if re.search(r"^[34]\.\d+\.\d+-\d+-Microsoft", release) else "WSL2"


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release such as ``6.1.0-18-amd64``. Pure."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _container_variable() -> str:
    values = _text("/proc/1/environ").split("\0")
    return next((value.removeprefix("container=") for value in values if value.startswith("container=")), "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
