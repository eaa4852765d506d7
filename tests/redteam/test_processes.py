"""Processes: only the sandbox's own can be seen, and nothing in the kernel's toolbox reaches beyond them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path

import pytest

from tests.service import PATIENCE, Service, outside, program, wait_until


def test_no_process_of_the_host_is_visible(service: Service, workspace: Path) -> None:
    code = """
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        known = [1, os.getpid()]
        report([pids == known, os.getppid(), attempt(os.listdir, f"/proc/{HOST}"), attempt(os.kill, HOST, 0)])
    """
    only_own, parent, listed, signalled = service.python(code, cwd=workspace, HOST=service.status()["launcher_pid"])
    assert only_own
    assert parent == 1
    # A pid of the host means nothing inside, or another process.
    assert (listed, signalled) == ("ENOENT", "ESRCH")


def test_kill_minus_one_ends_the_sandbox_only(service: Service, workspace: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        result = service.run("run", "--", *program("report(attempt(os.kill, -1, 9))"), cwd=workspace)
        assert bystander.poll() is None
        assert service.status()["pid"]
        bystander.kill()
    assert result.returncode in (0, 137)


REACHING = """
    def traceme():
        # In a child of its own: whoever is its parent becomes its tracer.
        child = os.fork()
        if child == 0:
            os._exit(0 if syscall("ptrace", 0, 0, 0, 0) == "OK" else 1)
        return "OK" if os.waitpid(child, 0)[1] == 0 else "EPERM"
    target = TARGET
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 16)
    fd = os.pidfd_open(target)
    results = {
        "attach": syscall("ptrace", 16, target, 0, 0),
        "seize": syscall("ptrace", 0x4206, target, 0, 0),
        "traceme": traceme(),
        "vm_readv": syscall("process_vm_readv", target, vector, 1, vector, 1, 0),
        "vm_writev": syscall("process_vm_writev", target, vector, 1, vector, 1, 0),
        "getfd": syscall("pidfd_getfd", fd, 0, 0),
        "kcmp": syscall("kcmp", os.getpid(), target, 0, 0, 0),
    }
    report(results)
"""


def test_other_processes_cannot_be_traced_read_or_robbed_of_descriptors(service: Service, workspace: Path) -> None:
    """Not even those of the sandbox itself: its init is the target."""
    inside = service.python(REACHING, cwd=workspace, TARGET=1)
    assert set(inside.values()) == {"EPERM"}, inside
    with subprocess.Popen(["sleep", "60"]) as bystander:
        unconfined = outside(REACHING, TARGET=bystander.pid)
        bystander.kill()
    assert unconfined["traceme"] == "OK"
    assert unconfined["kcmp"] != "EPERM"


def test_the_launchers_memory_is_not_in_the_init(service: Service, workspace: Path) -> None:
    """PID 1 is another program: what the launcher knew went with its memory."""
    code = """
        report([os.readlink("/proc/1/exe"), read("/proc/1/comm").strip(), len(read("/proc/1/environ"))])
    """
    exe, comm, _size = service.python(code, cwd=workspace)
    assert "python" not in exe
    assert "python" not in comm


@pytest.mark.skipif(os.geteuid() != 0, reason="a rootless daemon is its owner's, who may look into it from outside")
def test_the_daemon_and_the_launcher_cannot_be_read_by_their_own_uid(service: Service) -> None:
    """Not dumpable: their /proc files belong to root, although the daemon has a uid of its own."""
    status = service.status()
    for pid in (status["pid"], status["launcher_pid"]):
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    with open(f"/proc/{status['pid']}/status", encoding="utf-8") as file:
        lines = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert lines["Uid"].split()[0] != "0"
    assert [int(lines[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 4


FORBIDDEN = {
    "io_uring_setup": "1, 0",
    "bpf": "0, 0, 0",
    "perf_event_open": "0, 0, -1, -1, 0",
    "userfaultfd": "1",
    "syslog": "3, 0, 0",
    "fanotify_init": "0, 0",
    "init_module": "0, 0, b''",
    "swapon": "b'/x', 0",
    "reboot": "0xfee1dead, 672274793, 0x89abcdef, 0",
    "clock_settime": "0, struct.pack('qq', 0, 0)",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_kernel_facilities_without_use_for_agents_are_refused(service: Service, workspace: Path, name: str) -> None:
    assert service.python(f"report(syscall({name!r}, {FORBIDDEN[name]}))", cwd=workspace) == "EPERM"


def test_io_uring_works_outside_so_its_refusal_means_something() -> None:
    code = """
        buffer = ctypes.create_string_buffer(256)
        report([syscall("io_uring_setup", 1, buffer), syscall("userfaultfd", 1)])
    """
    assert "OK" in outside(code)


# Machine code: eax = a number of the 32-bit table, int 0x80, return eax.
INT80 = """
    import mmap
    def run(code):
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        child = os.fork()
        if child == 0:
            result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
            os._exit(0 if result >= 0 else 100)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    def int80(number, first=0):
        arguments = b"\\xb8" + struct.pack("i", number) + b"\\xbb" + struct.pack("i", first)
        return run(b"\\x53" + arguments + b"\\x31\\xc9\\xcd\\x80\\x5b\\xc3")
    def x32(number):
        child = os.fork()
        if child == 0:
            result = _libc.syscall(ctypes.c_long(number | 0x40000000))
            os._exit(0 if result != -1 else ctypes.get_errno())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # getpid, socketcall(SOCKET), mount of i386; getpid of x32
    report({"getpid": int80(20), "socketcall": int80(102, 1), "mount": int80(21), "x32": x32(39)})
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has foreign system call tables to enter by")
def test_foreign_system_call_tables_kill(service: Service, workspace: Path) -> None:
    inside = service.python(INT80, cwd=workspace)
    assert set(inside.values()) == {-31}, inside  # SIGSYS
    assert outside(INT80)["getpid"] != -31


SHELLS = {
    "sh": ["/bin/sh", "-c", "{}"],
    "bash": ["/bin/bash", "-c", "{}"],
    "bash-login": ["/bin/bash", "-lc", "{}"],
    "perl": ["/usr/bin/perl", "-e", 'system("{}")'],
    "detached": ["/usr/bin/setsid", "--wait", "/bin/sh", "-c", "{}"],
    "nested": ["/bin/sh", "-c", "exec bash -c 'sh -c \"{}\"'"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_descendant_has_the_same_confinement(service: Service, workspace: Path, shell: str) -> None:
    """codex #12800: a shell's own fork path lost the wrapper for later commands."""
    command = [part.replace("{}", "cat /proc/self/status") for part in SHELLS[shell]]
    result = service.run("run", "--", *command, cwd=workspace)
    said = dict(line.split(b":\t") for line in result.stdout.splitlines() if b":\t" in line)
    assert (int(said[b"CapEff"], 16), said[b"NoNewPrivs"], said[b"Seccomp"]) == (0, b"1", b"2")


def test_a_second_command_has_the_same_confinement(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    try:
        code = """
            me = status()
            report([me["CapEff"], me["CapBnd"], me["NoNewPrivs"], me["Seccomp"], me["Uid"].split()[0],
                    syscall("mount", b"none", b"/tmp", b"tmpfs", 0, 0), attempt(write, "/usr/planted"),
                    attempt(os.listdir, os.path.expanduser("~/.ssh")), sorted(os.listdir("/proc/self/fd"))])
        """
        result = service.run("exec", session, "--", *program(code))
        assert result.returncode == 0, result
        eff, bound, no_new_privs, seccomp, uid, mounted, written, stub, fds = json.loads(result.stdout)
        assert (int(eff, 16), int(bound, 16), no_new_privs, seccomp) == (0, 0, "1", "2")
        assert int(uid) == service.session(session)["agent_uid"]
        assert (mounted, stub) == ("EPERM", "EACCES")
        assert written in ("EROFS", "EACCES")
        assert fds == ["0", "1", "2", "3"]
    finally:
        service.run("kill", session)


def test_nothing_outlives_the_session(service: Service, workspace: Path) -> None:
    """Double fork, own session id, all signals ignored: still gone with the agent."""
    code = """
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.close(0), os.close(1), os.close(2)
                    while True:
                        time.sleep(1)
                os._exit(0)
        time.sleep(0.1)
        report(status()["NSpid"] if "NSpid" in status() else "")
    """
    service.python(code, cwd=workspace)
    session = service.session()
    assert session["state"] == "ended"
    assert _pids_of(session["agent_uid"], workspace) == []


def _pids_of(uid: int, workspace: Path) -> list[int]:
    """Return the host's processes that still have the session's working directory."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/cwd") == str(workspace) and os.stat(f"/proc/{name}").st_uid == uid:
                    found.append(int(name))
            except OSError:
                continue
    return found


def test_an_agent_cannot_touch_its_own_cgroup(service: Service, workspace: Path) -> None:
    code = """
        mounts = [line for line in read("/proc/self/mountinfo").splitlines() if " - cgroup" in line]
        tried = [attempt(write, f"/sys/fs/cgroup{part}/cgroup.procs", "0") for part in ("", "/unified", "/..")]
        report([mounts, tried, attempt(os.listdir, "/sys"), read("/proc/self/cgroup")])
    """
    mounts, tried, listed, groups = service.python(code, cwd=workspace)
    assert mounts == []
    assert set(tried) == {"ENOENT"}
    assert listed == "ENOENT"
    assert "0::/\n" in groups or "0::/.." not in groups


def test_keys_and_kernel_addresses_are_masked(service: Service, workspace: Path) -> None:
    code = """
        names = ["keys", "key-users", "kallsyms", "kcore", "timer_list", "sched_debug"]
        report({name: read(f"/proc/{name}") for name in names if os.path.exists(f"/proc/{name}")})
    """
    assert set(service.python(code, cwd=workspace).values()) == {""}


def test_the_key_ring_is_closed_and_new(service: Service, workspace: Path) -> None:
    """Another keyring of the owner holds secrets; keyctl reaches it by uid, not only by session."""
    code = """
        report([syscall("keyctl", 0, -3, 0), syscall("keyctl", 0, -4, 0),
                syscall("add_key", b"user", b"n", b"v", 1, -3), syscall("request_key", b"user", b"n", 0, 0)])
    """
    assert set(service.python(code, cwd=workspace)) == {"EPERM"}


def test_personality_cannot_weaken_address_randomisation(service: Service, workspace: Path) -> None:
    code = "report([syscall('personality', value) for value in (0x0400000, 0x0200000, 0x100000000 | 0x0400000)])"
    assert service.python(code, cwd=workspace) == ["EPERM"] * 3


def test_a_core_dump_leaves_nothing(service: Service, workspace: Path) -> None:
    code = "import resource\nreport(resource.getrlimit(resource.RLIMIT_CORE))"
    assert service.python(code, cwd=workspace) == [1, 1]
    before = set(os.listdir(workspace))
    result = service.run("run", "--", *program("os.abort()"), cwd=workspace)
    assert result.returncode == 128 + 6
    assert set(os.listdir(workspace)) == before
    assert service.changes() == {}


def test_a_fork_bomb_ends_with_its_session(service: Service, workspace: Path) -> None:
    """It runs into its limit, other sessions start meanwhile, and `kill` ends all of it."""
    code = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("go", flush=True)
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    """
    session = service.start_session("--pids", "60", "--", *program(code), cwd=workspace)
    time.sleep(0.5)
    start = time.monotonic()
    other = service.run("run", "--", "true", cwd=service.folder())
    assert other.returncode == 0, other
    assert time.monotonic() - start < 10 * PATIENCE
    assert service.run("kill", session).returncode == 0
    uid = service.session(session)["agent_uid"]
    wait_until("all of the bomb is gone", lambda: _pids_of(uid, workspace) == [])
