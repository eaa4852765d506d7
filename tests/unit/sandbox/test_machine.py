"""Containers, WSL and kernels are recognised by name."""

from __future__ import annotations

import pytest

from supervisor.sandbox.machine import Machine, kernel_version, name_container, name_wsl


@pytest.mark.parametrize(
    ("markers", "kind"),
    [
        ({}, ""),
        ({"cgroup": "0::/init.scope\n"}, ""),
        ({"dockerenv": "docker"}, "docker"),
        ({"containerenv": "podman", "environ": "oci"}, "podman"),
        ({"environ": "podman"}, "podman"),
        ({"systemd": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"environ": "lxc"}, "lxc"),
        ({"systemd": "docker"}, "docker"),
        ({"cgroup": "0::/system.slice/docker-0123.scope"}, "docker"),
        ({"cgroup": "0::/kubepods.slice/x"}, "kubernetes"),
        ({"environ": "oci"}, "container"),
        ({"systemd": "wsl"}, ""),
    ],
)
def test_container_is_named_from_its_markers(markers: dict[str, str], kind: str) -> None:
    assert name_container(markers) == kind


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("4.4.0-19041-Microsoft", "WSL1"),
        ("5.15.153.1-microsoft-standard-WSL2", "WSL2"),
        ("6.6.36.6-microsoft-standard-WSL2+", "WSL2"),
        ("6.1.0-18-amd64", ""),
    ],
)
def test_wsl_is_named_from_the_kernel_release(release: str, kind: str) -> None:
    assert name_wsl(release) == kind


def test_kernel_version_reads_what_distributions_write() -> None:
    assert kernel_version("6.1.0-18-amd64") == (6, 1)
    assert kernel_version("6.18.44-fc") > (6, 1) > kernel_version("5.15.153.1-microsoft-standard-WSL2")
    assert kernel_version("unknown") == (0, 0)


def test_hint_prefers_wsl_over_the_container_inside_it() -> None:
    assert "wsl --update" in Machine("5.15", "x86_64", "rootless", "docker", "WSL2", False).hint()
    assert "--privileged" in Machine("6.1", "x86_64", "system", "docker", "", False).hint()
    assert Machine("6.1", "x86_64", "system", "", "", False).hint() == ""
