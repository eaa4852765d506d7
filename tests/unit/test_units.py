"""The systemd units load without a complaint and stay as hardened as stated here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"

# The exposure level of `systemd-analyze security`, times ten, that each service must not exceed. The launcher and the
# user's service start the sandboxes, which inherit what is set on them: the files say what is left out, and why.
THRESHOLDS = {"deskwarden.service": 30, "deskwarden-launcher.service": 70, "deskwarden-user.service": 80}

PROGRAMS = ("usr/bin/deskwardend", "usr/lib/deskwarden/launcher")
TARGETS = ("sysinit.target", "basic.target", "sockets.target", "shutdown.target", "multi-user.target")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root directory with the units, the programs they start (empty), and the targets they name."""
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    for unit in UNITS.glob("*.s[eo]*"):
        if unit.suffix in {".service", ".socket"} and not unit.name.startswith("deskwarden-user"):
            shutil.copy(unit, directory)
    for target in TARGETS:
        (directory / target).write_text(f"[Unit]\nDescription={target}\n")
    for program in PROGRAMS:
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    names = [path.name for path in (root / "etc/systemd/system").glob("deskwarden*")]
    assert names
    return run("systemd-analyze", "verify", "--man=no", f"--root={root}", *names)


def test_system_units_load_without_a_complaint(system: Path) -> None:
    done = verify(system)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "good", "bad"),
    [
        ("deskwarden.service", "LockPersonality=yes", "LockPersonalty=yes"),
        ("deskwarden-launcher.service", "KillSignal=SIGKILL", "KillSignal=SIGKIL"),
        ("deskwarden.service", "deskwardend", "deskwarded"),
        ("deskwarden.socket", "ListenSequentialPacket", "ListenSeqPacket"),
    ],
)
def test_a_wrong_word_in_a_unit_is_complained_about(system: Path, unit: str, good: str, bad: str) -> None:
    path = system / "etc/systemd/system" / unit
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad))
    assert verify(system).stderr


def test_user_units_load_without_a_complaint(tmp_path: Path) -> None:
    # For user units there is no --root: the copies name a program that exists instead.
    copies = []
    for unit in sorted(UNITS.glob("deskwarden-user.*")):
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/usr/bin/deskwardend", "/bin/true"))
        copies.append(str(copy))
    assert len(copies) == 2
    done = run("systemd-analyze", "verify", "--user", "--man=no", *copies, XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_every_service_has_a_threshold() -> None:
    assert {path.name for path in UNITS.glob("*.service")} == THRESHOLDS.keys()


@pytest.mark.parametrize(("unit", "threshold"), THRESHOLDS.items())
def test_service_stays_as_hardened_as_stated(unit: str, threshold: int) -> None:
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(UNITS / unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_daemon_has_no_capability_and_an_account_of_its_own() -> None:
    daemon = (UNITS / "deskwarden.service").read_text().splitlines()
    assert "CapabilityBoundingSet=" in daemon
    assert "User=deskwarden" in daemon


def test_launcher_keeps_no_capability_beyond_its_needs() -> None:
    text = (UNITS / "deskwarden-launcher.service").read_text()
    kept = set(" ".join(re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)).split())
    # systemd passes over a name that it does not know.
    known = {line.split()[0].upper() for line in run("systemd-analyze", "capability").stdout.splitlines()[1:] if line}
    assert kept
    assert kept < known
    assert not kept & {"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_BPF", "CAP_MAC_ADMIN", "CAP_NET_RAW"}


MOUNT_NAMESPACE = [
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateNetwork",
    "ProtectProc",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "BindPaths",
    "BindReadOnlyPaths",
    "RootDirectory",
    "DynamicUser",
]


@pytest.mark.parametrize("unit", THRESHOLDS)
def test_no_service_gets_a_mount_namespace_of_its_own(unit: str) -> None:
    # Descriptors from another mount namespace cannot be mounted: every launch would fail with EINVAL.
    settings = {line.split("=")[0] for line in (UNITS / unit).read_text().splitlines() if not line.startswith("#")}
    assert not settings & set(MOUNT_NAMESPACE)


def test_sysusers_file_makes_the_daemons_account(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(UNITS / "deskwarden.sysusers"))
    assert done.returncode == 0, done.stderr
    assert "deskwarden" in done.stdout + done.stderr


def test_tmpfiles_file_makes_the_directories(tmp_path: Path) -> None:
    # Whoever runs the test may give files to nobody else: the directories are made for that account.
    text = re.sub(
        r"\broot root\b",
        f"{os.getuid()} {os.getgid()}",
        (UNITS / "deskwarden.tmpfiles").read_text(),
    )
    mine = tmp_path / "mine.conf"
    mine.write_text(text)
    root = tmp_path / "root"
    root.mkdir()
    done = run("systemd-tmpfiles", "--create", f"--root={root}", str(mine))
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("run/deskwarden", "run/deskwarden-launcher", "etc/deskwarden/policies/managed"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o755
