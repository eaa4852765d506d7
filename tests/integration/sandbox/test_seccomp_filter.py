"""The compiled filter on the real kernel: every forbidden call is tried raw, real toolchains run under it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.linux.prctl import set_no_new_privs
from supervisor.linux.seccomp import load_filter
from supervisor.sandbox.profile import SeccompRules
from supervisor.sandbox.seccomp_filter import compile_filter, load_table

pytestmark = pytest.mark.integration

HIGH = 0x5A5A5A5A_00000000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
MACHINE = platform.machine()


def number_of(name: str) -> int:
    import pyseccomp

    number = int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
    return load_table().numbers.get(name, number) if number == -1 else number


def errno_of(number: int, *arguments: int) -> int:
    """Return the errno of a raw system call with 64-bit arguments, 0 when it succeeded."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_ulong(value & (1 << 64) - 1) for value in arguments))
    return ctypes.get_errno() if result == -1 else 0


def under_filter(program: bytes, body: Callable[[], object]) -> object:
    """Run *body* in a child under *program* and return its JSON-able result, or the signal that ended it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            set_no_new_privs()
            load_filter(program)
            os.write(write_end, json.dumps(body()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return signal.Signals(-status).name
    assert status == 0, "the child failed"
    return json.loads(data)


@pytest.fixture(scope="module")
def program() -> bytes:
    return compile_filter(SeccompRules(), MACHINE)


DENIED = [
    (call, group.errno_name)
    for group in load_table().deny
    if not group.only_in
    for call in group.calls
    if number_of(call) >= 0
]


@pytest.mark.parametrize(("call", "errno_name"), DENIED, ids=[call for call, _ in DENIED])
def test_denied_call_answers_its_errno_whatever_the_arguments(program: bytes, call: str, errno_name: str) -> None:
    number = number_of(call)
    results = under_filter(program, lambda: [errno_of(number, *([0] * 6)), errno_of(number, *([HIGH] * 6))])
    assert results == [getattr(errno, errno_name)] * 2


def test_call_that_stands_nowhere_is_enosys(program: bytes) -> None:
    unlisted = [number_of("ustat"), number_of("sysfs"), number_of("modify_ldt")] if MACHINE == "x86_64" else []
    for number in [*unlisted, 461, 999]:
        assert under_filter(program, lambda number=number: errno_of(number)) == errno.ENOSYS


@pytest.mark.parametrize("high", [0, HIGH])
@pytest.mark.parametrize("command", [0x5412, 0x541C, 0x5423, 0x40086602, 0x401C5820])
def test_terminal_injection_and_project_changes_are_refused(program: bytes, command: int, high: int) -> None:
    assert under_filter(program, lambda: errno_of(number_of("ioctl"), 0, command | high, 0)) == errno.EPERM


def test_every_other_ioctl_reaches_the_kernel(program: bytes) -> None:
    near = [0x5411, 0x5413, 0x541B, 0x541D, 0x5422, 0x5424, 0x40086601, 0x401C5821, 0]
    results = under_filter(program, lambda: [errno_of(number_of("ioctl"), -1, command, 0) for command in near])
    assert results == [errno.EBADF] * len(near)


@pytest.mark.parametrize("high", [0, HIGH])
def test_only_four_socket_families_exist(program: bytes, high: int) -> None:
    families = [*range(64), 255, 0x7FFFFFFF, 0xFFFFFFFF]
    results = under_filter(program, lambda: [errno_of(number_of("socket"), f | high, 1, 0) for f in families])
    assert isinstance(results, list)
    refused = {family for family, result in zip(families, results, strict=True) if result == errno.EAFNOSUPPORT}
    allowed = set(families) - refused
    assert allowed in ({1, 2, 10, 16}, {1, 2, 16}), "10 is missing where the kernel has no IPv6"


@pytest.mark.parametrize("high", [0, HIGH])
def test_netlink_is_route_only(program: bytes, high: int) -> None:
    protocols = range(32)
    results = under_filter(
        program, lambda: [errno_of(number_of("socket"), 16 | high, 3, protocol | high) for protocol in protocols]
    )
    assert results == [0] + [errno.EPROTONOSUPPORT] * 31


@pytest.mark.parametrize("high", [0, HIGH])
def test_socketpair_is_unix_only(program: bytes, high: int) -> None:
    pair = (ctypes.c_int * 2)()
    address = ctypes.addressof(pair)
    results = under_filter(
        program,
        lambda: [errno_of(number_of("socketpair"), family | high, 1, 0, address) for family in (1, 2, 16, 30, 40)],
    )
    assert results == [0] + [errno.EAFNOSUPPORT] * 4


NAMESPACES = [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]


@pytest.mark.parametrize("high", [0, HIGH])
@pytest.mark.parametrize("flag", NAMESPACES)
def test_clone_makes_no_namespace(program: bytes, flag: int, high: int) -> None:
    assert under_filter(program, lambda: errno_of(number_of("clone"), flag | signal.SIGCHLD | high, 0)) == errno.EPERM


@pytest.mark.parametrize("flag", [*NAMESPACES, 0x80, 0x100000, 1 << 32, 1 << 63])
def test_unshare_makes_no_namespace_now_or_later(program: bytes, flag: int) -> None:
    assert under_filter(program, lambda: errno_of(number_of("unshare"), flag)) == errno.EPERM


def test_unshare_of_files_still_works(program: bytes) -> None:
    assert under_filter(program, lambda: errno_of(number_of("unshare"), 0x400)) == 0


def test_personality_only_asks_or_turns_randomisation_off(program: bytes) -> None:
    values = [0xFFFFFFFF, 0, 0x40000, HIGH, 0x0400000, 0x0020000, 0x8, 0x0400000 | HIGH]
    results = under_filter(program, lambda: [errno_of(number_of("personality"), value) for value in values])
    assert results == [0, 0, 0, 0] + [errno.EPERM] * 4


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and int 0x80 exist on x86_64 only")
def test_x32_call_kills_the_process(program: bytes) -> None:
    assert under_filter(program, lambda: errno_of(0x40000000 | 39)) == "SIGSYS"


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and int 0x80 exist on x86_64 only")
def test_int80_kills_the_process(program: bytes, tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text(
        "#include <unistd.h>\n"
        'int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20));'
        ' return write(1, "alive", 5) != 5; }\n'
    )
    subprocess.run(["gcc", "-o", tmp_path / "old", source], check=True)
    if subprocess.run([tmp_path / "old"], capture_output=True, check=False).stdout != b"alive":
        pytest.skip("this kernel has no 32-bit emulation")
    result = run_under(program, [str(tmp_path / "old")], tmp_path)
    assert result.returncode == -signal.SIGSYS


def test_kill_is_for_the_whole_process_not_one_thread(program: bytes) -> None:
    def body() -> str:
        import threading

        thread = threading.Thread(target=lambda: errno_of(0x40000000 | 39))
        thread.start()
        thread.join()
        return "alive"

    assert MACHINE != "x86_64" or under_filter(program, body) == "SIGSYS"


def test_allow_extra_opens_debugging_and_nothing_else() -> None:
    program = compile_filter(SeccompRules(allow_extra=("ptrace",)), MACHINE)
    results = under_filter(
        program,
        lambda: [errno_of(number_of("ptrace"), 0, 0, 0, 0), errno_of(number_of("process_vm_readv"), 1, 0, 0, 0, 0, 0)],
    )
    assert results == [0, errno.EPERM]  # PTRACE_TRACEME


def test_deny_extra_wins_over_the_allow_list() -> None:
    program = compile_filter(SeccompRules(deny_extra=("memfd_create", "socket")), MACHINE)
    calls = [("memfd_create", (0, 0)), ("socket", (1, 1, 0)), ("getpid", ())]
    results = under_filter(program, lambda: [errno_of(number_of(name), *arguments) for name, arguments in calls])
    assert results == [errno.EPERM, errno.EPERM, 0]


def run_under(program: bytes, command: list[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    def confine() -> None:
        set_no_new_privs()
        load_filter(program)

    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        preexec_fn=confine,
        timeout=120,
        check=False,
    )


C_PROGRAM = """
#include <pthread.h>
void *body(void *argument) { return argument; }
int main(void) { pthread_t t; return pthread_create(&t, 0, body, 0) || pthread_join(t, 0); }
"""
GIT_STEPS = """
git init -q r && cd r && echo a > a && git add a
git -c user.name=a -c user.email=a@b commit -qm a && git gc -q && git status && git log -p | cat
"""
PYTHON_STEPS = """
import asyncio, multiprocessing, sqlite3, subprocess, tempfile, threading
asyncio.run(asyncio.sleep(0))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=queue.put, args=(1,))
process.start()
assert queue.get() == 1
process.join()
subprocess.run(["true"], check=True)
sqlite3.connect("x.db").execute("create table t (a)")
"""
NODE_STEPS = """
const { Worker } = require("worker_threads");
new Worker("1", { eval: true }).on("exit", () => {
  const watcher = require("fs").watch(".");
  require("child_process").execSync("true");
  watcher.close();
});
"""
MAKEFILE = "all: p q\np q: p.c\n\tgcc -pthread -o $@ $<\n"
TOOLS: dict[str, tuple[str, ...]] = {
    "sh": ("sh", "-c", "ls -la / | sort | head -3 && mkfifo f && test -p f && sleep 0.01"),
    "git": ("sh", "-ec", GIT_STEPS),
    "gcc": ("sh", "-ec", "gcc -O2 -pthread -o p p.c && ./p"),
    "make": ("make", "-j4"),
    "python": (sys.executable, "-c", PYTHON_STEPS),
    "pip": ("sh", "-ec", "/usr/bin/python3 -m venv v && v/bin/pip list"),  # installs pip's own wheel
    "node": ("node", "-e", NODE_STEPS),
    "java": ("java", "-XX:+UseG1GC", "-version"),
    "tar": ("sh", "-ec", "tar czf a.tgz p.c && tar xzf a.tgz && touch -h p.c && cp --reflink=auto p.c q.c"),
}


@pytest.mark.parametrize("name", TOOLS)
def test_real_tool_runs_under_the_filter(program: bytes, name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None and name not in ("python", "pip"):
        pytest.skip(f"{name} is not installed")
    (tmp_path / "p.c").write_text(C_PROGRAM)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    result = run_under(program, list(TOOLS[name]), tmp_path)
    assert result.returncode == 0, result.stderr.decode(errors="replace")[-2000:]


def test_nested_bubblewrap_runs_where_user_namespaces_are_allowed(program: bytes, tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    command = [
        "bwrap",
        "--unshare-user",
        "--unshare-pid",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]
    nested = compile_filter(SeccompRules(user_namespaces=True), MACHINE)
    assert run_under(program, command, tmp_path).returncode != 0
    result = run_under(nested, command, tmp_path)
    assert result.returncode == 0, result.stderr.decode(errors="replace")


def _try_setid(directory: str) -> dict[str, int]:
    """Try every way to a setuid or setgid file; returns the errno of each, 0 where it worked."""
    libc, where, o_creat, o_tmpfile = (
        ctypes.CDLL(None, use_errno=True),
        os.fsencode(directory),
        0x41,
        0x400001 | 0x10000,
    )
    at_fdcwd = ctypes.c_int(-100)
    plain = where + b"/plain"
    os.close(os.open(plain, os.O_CREAT | os.O_WRONLY, 0o755))
    fd = os.open(plain, os.O_RDONLY)

    def call(name: str, *arguments: object) -> int:
        ctypes.set_errno(0)
        return ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0

    return {
        "chmod": call("chmod", plain, 0o4755),
        "chmod setgid": call("chmod", plain, 0o2755),
        "fchmod": call("fchmod", fd, 0o4755),
        "fchmodat": call("fchmodat", at_fdcwd, plain, 0o6755, 0),
        "creat": call("creat", where + b"/a", 0o4755),
        "open": call("open", where + b"/b", o_creat, 0o4755),
        "openat": call("openat", at_fdcwd, where + b"/c", o_creat, 0o2755),
        "open O_TMPFILE": call("open", where, o_tmpfile, 0o4755),
        "mknod": call("mknod", where + b"/d", 0o104755, 0),
    }


def test_in_a_real_folder_no_file_gets_a_setuid_or_setgid_bit(program: bytes, tmp_path: Path) -> None:
    direct = compile_filter(SeccompRules(direct=True), MACHINE)
    (tmp_path / "direct").mkdir()
    (tmp_path / "staged").mkdir()
    refused = under_filter(direct, lambda: _try_setid(str(tmp_path / "direct")))
    assert set(refused.values()) == {errno.EPERM}, refused
    assert {path.name for path in (tmp_path / "direct").iterdir()} == {"plain"}
    assert (tmp_path / "direct/plain").stat().st_mode & 0o7777 == 0o755
    works = under_filter(program, lambda: _try_setid(str(tmp_path / "staged")))
    assert works["chmod"] == works["creat"] == works["openat"] == 0, works


def test_in_a_real_folder_openat2_falls_back_to_openat(tmp_path: Path) -> None:
    direct = compile_filter(SeccompRules(direct=True), MACHINE)
    assert under_filter(direct, lambda: errno_of(437, 0, 0, 0, 0, 0, 0)) == errno.ENOSYS
    assert under_filter(direct, lambda: os.close(os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR, 0o644))) is None
