"""Descriptors: the agent gets three, and none of another's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from tests.service import CLI, Service, outside, program


def test_descriptors_of_the_caller_do_not_pass(service: Service, workspace: Path, victim: Path) -> None:
    """A file and a directory that the owner's shell left open, inheritable."""
    code = """
        names = sorted(os.listdir("/proc/self/fd"), key=int)
        report([names, [os.readlink(f"/proc/self/fd/{name}") for name in names[:-1]]])
    """
    opened = [os.open(victim, os.O_RDONLY), os.open(victim.parent, os.O_RDONLY), os.open("/", os.O_RDONLY)]
    leaked = [os.dup2(fd, number) for fd, number in zip(opened, (50, 51, 900), strict=True)]
    try:
        result = subprocess.run(
            [CLI, "run", "--", *program(code)],
            cwd=workspace,
            env=service.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=leaked,
            check=True,
        )
    finally:
        for fd in (*opened, *leaked):
            os.close(fd)
    names, targets = json.loads(result.stdout)
    assert names == ["0", "1", "2", "3"]  # 3 is the listing's own
    assert all(target.startswith("pipe:") for target in targets), targets


def test_the_init_holds_nothing_either(service: Service, workspace: Path) -> None:
    """What PID 1 keeps open its children could reopen through /proc/1/fd."""
    code = 'report({name: os.readlink(f"/proc/1/fd/{name}") for name in os.listdir("/proc/1/fd")})'
    held = service.python(code, cwd=workspace)
    assert set(held) <= {"0", "1", "2"}, held


def test_the_inherited_pipes_lead_nowhere_else(service: Service, workspace: Path, victim: Path) -> None:
    """Standard input is a regular file of the owner's: inside it is a pipe, not that file."""
    code = """
        report([os.readlink("/proc/self/fd/0"), attempt(os.ftruncate, 0, 0), attempt(write, "/proc/self/fd/0", "x")])
    """
    with victim.open("r+b") as stream:
        result = subprocess.run(
            [CLI, "run", "--", *program(code)],
            cwd=workspace,
            env=service.environment,
            stdin=stream,
            capture_output=True,
            check=True,
        )
    target, truncated, _written = json.loads(result.stdout)
    assert target.startswith("pipe:")
    assert truncated == "EINVAL"
    assert victim.read_text() == "the owner's secret\n"


def test_no_descriptor_can_be_received_from_a_host_process(service: Service, workspace: Path) -> None:
    """SCM_RIGHTS could carry a directory of the host: a helper in the workspace or a shown folder is not reached."""
    shown = service.folder("shown")
    for place, flags in ((workspace / "socket", ()), (shown / "socket", ("-r", str(shown)))):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(place))
            server.listen()
            code = f"report(attempt(socket.socket(socket.AF_UNIX).connect, {str(place)!r}))"
            assert service.python(code, *flags, cwd=workspace) == "ECONNREFUSED"
            server.settimeout(0)
            assert not _has_client(server)
            assert outside(code) == "OK"


def _has_client(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_a_socket_cannot_be_named_as_a_file_to_show(service: Service, workspace: Path) -> None:
    place = service.folder() / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        for flag in ("-r", "--read-file", "-w"):
            result = service.run("run", flag, str(place), "--", "true", cwd=workspace)
            assert result.returncode in (125, 126), result
            assert str(place).encode() in result.stderr


def test_dev_has_no_device_of_the_machine(service: Service, workspace: Path) -> None:
    code = """
        devices = {}
        for top, _names, files in os.walk("/dev"):
            for name in files:
                mode = os.lstat(f"{top}/{name}")
                if stat.S_ISBLK(mode.st_mode):
                    devices[name] = "block"
                elif stat.S_ISCHR(mode.st_mode):
                    devices[name] = f"{os.major(mode.st_rdev)}:{os.minor(mode.st_rdev)}"
        made = [attempt(os.mknod, name, kind | 0o666, os.makedev(*device)) for name, kind, device in
                (("disk", stat.S_IFBLK, (254, 0)), ("mem", stat.S_IFCHR, (1, 1)), ("null", stat.S_IFCHR, (1, 3)))]
        report([devices, made])
    """
    devices, made = service.python(code, cwd=workspace)
    allowed = {"1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2"}
    assert set(devices.values()) <= allowed, devices
    assert set(made) <= {"EPERM", "EACCES"}


def test_a_memory_file_cannot_be_executed_where_the_kernel_can_forbid_it(service: Service, workspace: Path) -> None:
    code = """
        setting = "/proc/sys/vm/memfd_noexec"
        result = {"scope": read(setting).strip() if os.path.exists(setting) else ""}
        result["loosened"] = attempt(write, setting, "0") if result["scope"] else "EROFS"
        with open("/bin/true", "rb") as file:
            program = file.read()
        MFD_CLOEXEC, MFD_EXEC = 1, 0x10
        ctypes.set_errno(0)
        fd = _libc.syscall(ctypes.c_long(NR["memfd_create"]), b"x", ctypes.c_long(MFD_CLOEXEC | MFD_EXEC))
        result["executable"] = errno.errorcode[ctypes.get_errno()] if fd < 0 else "OK"
        report(result)
    """
    result = service.python(code, cwd=workspace)
    assert result["loosened"] in ("EROFS", "EACCES", "EPERM")
    if result["scope"] == "2":
        assert result["executable"] == "EACCES"
