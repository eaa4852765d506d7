"""A private Deskwarden service for tests: started for the uid that runs the tests, driven through the real CLI.

`Service` owns a base directory (sockets, state, a home for an ordinary user, folders for workspaces), the daemon that
it starts there, and every program that a test starts through it; `close` ends all of them, each by its own pid, and
removes the directory. Nothing of the machine's own Deskwarden is touched.

Code that attacks from inside is plain Python text: `Service.python` runs it in a sandbox, `outside` runs the same
text on the host, so that a test can show that the attack works where nothing stops it. What both may use stands in
`PRELUDE`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import pwd
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CLI: Final = str(CHECKOUT / ".venv/bin/deskwarden")
DAEMON: Final = str(CHECKOUT / ".venv/bin/deskwardend")
PYTHON: Final = "/usr/bin/python3"  # the one that every sandbox shows
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A run that hangs is a failed test, not a hanging test run.
# Of the harness only, not of what a test states; more than 1 where the machine is emulated (scripts/test-kernel).
PATIENCE: Final = float(os.environ.get("DESKWARDEN_TEST_PATIENCE", "1"))
DEADLINE_S: Final = 60.0 * PATIENCE
# Other owners than root that every Debian and Ubuntu has (base-passwd); their homes hold nothing.
OTHER_OWNERS: Final = ("nobody", "news")

PRELUDE: Final = """\
import ctypes, errno, fcntl, json, os, platform, signal, socket, stat, struct, subprocess, sys, time

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Numbers by architecture: asm/unistd_64.h, asm-generic/unistd.h; from 424 on they are the same everywhere.
_X86 = dict(mount=165, umount2=166, pivot_root=155, chroot=161, setns=308, unshare=272, ptrace=101, keyctl=250,
    add_key=248, request_key=249, bpf=321, perf_event_open=298, userfaultfd=323, open_by_handle_at=304, kcmp=312,
    process_vm_readv=310, process_vm_writev=311, personality=135, syslog=103, fanotify_init=300, mknodat=259,
    memfd_create=319, init_module=175, swapon=167, reboot=169, clock_settime=227)
_ARM = dict(mount=40, umount2=39, pivot_root=41, chroot=51, setns=268, unshare=97, ptrace=117, keyctl=219,
    add_key=217, request_key=218, bpf=280, perf_event_open=241, userfaultfd=282, open_by_handle_at=265, kcmp=272,
    process_vm_readv=270, process_vm_writev=271, personality=92, syslog=116, fanotify_init=262, mknodat=33,
    memfd_create=279, init_module=105, swapon=224, reboot=142, clock_settime=112)
NR = dict(_X86 if platform.machine() == "x86_64" else _ARM, io_uring_setup=425, open_tree=428, move_mount=429,
    fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_open=434, clone3=435, pidfd_getfd=438, mount_setattr=442)

def syscall(name, *arguments):
    "Make a raw system call; returns OK or the errno's name."
    ctypes.set_errno(0)
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    number = NR[name] if isinstance(name, str) else name
    if _libc.syscall(ctypes.c_long(number), *words) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "OK"

def attempt(function, *arguments, **fields):
    "Call a function; returns OK or the errno's name."
    try:
        function(*arguments, **fields)
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else str(error)
    return "OK"

def write(path, text="planted by the agent"):
    with open(path, "w") as file:
        file.write(text)

def read(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")

def status(pid="self"):
    "Return /proc/PID/status as a mapping."
    return dict(line.split(":\\t", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":\\t" in line)

def report(value):
    "The last line that goes out is the test's."
    print(json.dumps(value), flush=True)

"""


def program(code: str, **values: object) -> list[str]:
    """Return the command that runs *code*, with *values* as names that it may use."""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return [PYTHON, "-I", "-c", PRELUDE + given + textwrap.dedent(code)]


def reported(result: subprocess.CompletedProcess[bytes]) -> Any:
    """Return what the code reported; a failure shows everything that the program said."""
    output, errors = (stream.decode(errors="replace") for stream in (result.stdout, result.stderr))
    said = f"exit {result.returncode}\n{output}\n{errors}"
    assert result.returncode == 0, said
    lines = result.stdout.splitlines()
    assert lines, said
    return json.loads(lines[-1])


def outside(code: str, cwd: str | os.PathLike[str] = "/", own_mounts: bool = False, **values: object) -> Any:
    """Run *code* on the host, unconfined; returns what it reported.

    Args:
        own_mounts: In a mount namespace of its own, as root of it, so that it can mount and leaves nothing.
    """
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    prefix = ["unshare", *root, "--mount", "--propagation", "private"] if own_mounts else []
    command = [*prefix, *program(code, **values)]
    return reported(subprocess.run(command, cwd=cwd, capture_output=True, timeout=DEADLINE_S, check=False))


def wait_until(what: str, condition: Any, timeout_s: float = 10.0 * PATIENCE) -> float:
    """Wait until *condition()* is true; returns how long it took, fails with *what* when it never is."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - start


def is_gone(pid: int) -> bool:
    """Return whether the process has ended (a zombie has)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Terminal:
    """A program on a terminal of its own, as a person sits before it."""

    def __init__(self, command: list[str], cwd: str, environment: Mapping[str, str], size: tuple[int, int]) -> None:
        self.output = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                # The window has its size before the program can ask for it.
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                os.chdir(cwd)
                os.execve(command[0], command, dict(environment))
            finally:
                os._exit(125)
        os.set_blocking(self._master, False)
        self._code: int | None = None

    def send(self, data: bytes) -> None:
        """Type."""
        os.write(self._master, data)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as dragging its corner does."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes, timeout_s: float = 20.0 * PATIENCE) -> bytes:
        """Wait until *text* is on the screen; returns what came before and with it, and takes that off `output`."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            left = deadline - time.monotonic()
            assert left > 0, f"never saw {text!r}; the screen: {self.output!r}"
            if not self._read(left) and text not in self.output:
                raise AssertionError(f"ended without {text!r}; the screen: {self.output!r}")
        at = self.output.index(text) + len(text)
        seen, self.output = self.output[:at], self.output[at:]
        return seen

    def settings(self) -> list[Any]:
        """Return the terminal's settings (termios)."""
        return termios.tcgetattr(self._master)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the program has ended
            return False
        self.output += data
        return bool(data)

    def wait_exit(self, timeout_s: float = 20.0 * PATIENCE) -> int:
        """Wait for the end; returns the exit code, as a shell says it. The rest of the screen is in `output`."""
        deadline = time.monotonic() + timeout_s
        while self._code is None:
            self._read(0.02)
            pid, raw = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(raw)
                self._code = status if status >= 0 else 128 - status
            assert self._code is not None or time.monotonic() < deadline, f"still runs; the screen: {self.output!r}"
        while self._read(0.0) and select.select([self._master], [], [], 0)[0]:
            pass
        return self._code

    def close(self) -> None:
        """End the program, and the terminal."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                os.kill(self.pid, signal.SIGKILL)
                self.wait_exit()
        with contextlib.suppress(OSError):
            os.close(self._master)


class Service:
    """A daemon of its own for the uid that runs the tests, and the CLI that talks to it.

    Args:
        daemon: Start the daemon now. Without it the first `run` starts one, as for a person.
        idle_exit_s: After how long without sessions a daemon that the CLI started ends.
        prefix: Words before the daemon's own: limits, or another mount namespace.
    """

    def __init__(self, daemon: bool = True, idle_exit_s: float = 5.0, prefix: tuple[str, ...] = ()) -> None:
        self.prefix = prefix
        self.is_system = os.geteuid() == 0
        self.base = tempfile.mkdtemp(prefix="deskwarden-t-", dir="/tmp")
        os.chmod(self.base, 0o755)  # root's: the daemon's own account must get through to its state
        self.runtime, self.state = f"{self.base}/run", f"{self.base}/state"
        self.home = pwd.getpwuid(os.geteuid()).pw_dir if self.is_system else f"{self.base}/home"
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        nowhere = f"{self.base}/no-system-service"
        self.environment = {
            "PATH": PATH,
            "HOME": self.home,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "SHELL": "/bin/bash",
            "DESKWARDEN_SYSTEM_RUNTIME_DIR": self.runtime if self.is_system else nowhere,
            "DESKWARDEN_SYSTEM_STATE_DIR": self.state if self.is_system else nowhere,
            "DESKWARDEN_RUNTIME_DIR": self.runtime,
            "DESKWARDEN_STATE_DIR": self.state,
            "DESKWARDEN_IDLE_EXIT": str(idle_exit_s),
        }
        self._programs: list[subprocess.Popen[bytes]] = []
        self._terminals: list[Terminal] = []
        self._daemon: subprocess.Popen[bytes] | None = None
        self._launchers: list[int] = []
        self._folders = 0
        if daemon:
            self.start()

    # ---- the daemon ----

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        ready_r, ready_w = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, ready_r)
            log = stack.enter_context(open(f"{self.base}/daemon.log", "ab"))
            try:
                self._daemon = subprocess.Popen(
                    [*self.prefix, DAEMON, "--system" if self.is_system else "--rootless", "--ready-fd", str(ready_w)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment,
                    pass_fds=(ready_w,),
                    start_new_session=True,
                )
            finally:
                os.close(ready_w)
            assert select.select([ready_r], [], [], DEADLINE_S)[0], "the daemon is not ready"
            answer = os.read(ready_r, 65536)
        assert answer == b"ready\n", f"{answer!r}\n{self.log()}"
        self._launchers.append(os.pidfd_open(self.status()["launcher_pid"]))

    def status(self) -> dict[str, Any]:
        """Return ``status --json``."""
        value: dict[str, Any] = self.json("status")
        return value

    def log(self) -> str:
        """Return what the daemon wrote to its log."""
        return Path(f"{self.base}/daemon.log").read_text(encoding="utf-8", errors="replace")

    def signal_daemon(self, number: int) -> None:
        """Signal the daemon."""
        assert self._daemon is not None
        self._daemon.send_signal(number)

    def wait_daemon(self, timeout_s: float = 30.0 * PATIENCE) -> int:
        """Wait for the daemon's end; returns its exit code."""
        assert self._daemon is not None
        return self._daemon.wait(timeout_s)

    def stop(self) -> None:
        """End the daemon in order, and wait until its launcher is gone too."""
        if self._daemon is not None:
            if self._daemon.poll() is None:
                self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        else:
            self._stop_own_start()
        for pidfd in self._launchers:
            if not select.select([pidfd], [], [], 20)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._launchers.clear()
        self._daemon = None

    def _stop_own_start(self) -> None:
        """End a daemon that the CLI started; the service itself says its pid."""
        answer = self.run("status", "--json")
        if answer.returncode:
            return
        status = json.loads(answer.stdout)
        with contextlib.suppress(ProcessLookupError):
            daemon, launcher = os.pidfd_open(status["pid"]), os.pidfd_open(status["launcher_pid"])
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            select.select([daemon], [], [], 30)
            os.close(daemon)
            self._launchers.append(launcher)

    def tidy(self) -> None:
        """End the programs and terminals that were started, the daemon goes on; for the end of each test."""
        for terminal in self._terminals:
            terminal.close()
        self._terminals.clear()
        for running in self._programs:
            if running.poll() is None:
                running.kill()
            running.wait()
            for stream in (running.stdin, running.stdout, running.stderr):
                with contextlib.suppress(OSError, ValueError):
                    if stream is not None:
                        stream.close()
        self._programs.clear()

    def close(self) -> None:
        """End everything that was started here and remove the base directory."""
        self.tidy()
        self.stop()
        # An overlay's work directory has no permission at all, not even its owner's.
        subprocess.run(["chmod", "--recursive", "u+rwX", self.base], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    # ---- folders ----

    def folder(self, name: str = "", within: str = "") -> Path:
        """Make a new folder, owned by the caller: a workspace, or a place that must stay untouched."""
        self._folders += 1
        path = Path(within or self.base) / f"f{self._folders}" / (name or "work")
        path.mkdir(parents=True)
        return path

    # ---- the CLI ----

    def run(
        self,
        *args: str | bytes,
        input: bytes | None = None,  # noqa: A002  # as subprocess calls it
        cwd: str | bytes | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the CLI to its end: no terminal, output captured as bytes; *env* is added to the usual environment."""
        return subprocess.run(
            [CLI, *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            cwd=cwd,
            env=self.environment | dict(env or {}),
            timeout=timeout_s,
            check=False,
        )

    def json(self, *args: str, cwd: str | os.PathLike[str] = "/") -> Any:
        """Run a verb with ``--json``; returns the value it printed.

        Exit code 1 says that something was left alone (a conflict, a held file), and is an answer too.
        """
        result = self.run(args[0], "--json", *args[1:], cwd=cwd)
        assert result.returncode in (0, 1), (result.returncode, result.stdout, result.stderr)
        return json.loads(result.stdout)

    def spawn(
        self,
        *args: str,
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start the CLI with pipes and return; it is ended with this service at the latest."""
        running = subprocess.Popen(
            [CLI, *args],
            cwd=cwd,
            env=self.environment | dict(env or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._programs.append(running)
        return running

    def start_session(self, *args: str, cwd: str | os.PathLike[str] = "/") -> str:
        """Start a session and leave it running (``run -d``); returns its id."""
        result = self.run("run", "-d", *args, cwd=cwd)
        assert result.returncode == 0, result
        return result.stdout.decode().strip()

    def python(self, code: str, *flags: str, cwd: str | os.PathLike[str], **values: object) -> Any:
        """Run *code* (see `program`) as an agent in *cwd*; returns what it reported. *flags* are those of ``run``."""
        return reported(self.run("run", *flags, "--", *program(code, **values), cwd=cwd))

    def pty_run(
        self,
        *args: str,
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (24, 80),
        executable: str = CLI,
    ) -> Terminal:
        """Start the CLI (or another *executable*) on a terminal of its own."""
        terminal = Terminal([executable, *args], os.fspath(cwd), self.environment | dict(env or {}), size)
        self._terminals.append(terminal)
        return terminal

    def session(self, word: str = "last") -> dict[str, Any]:
        """Return ``show --json``."""
        value: dict[str, Any] = self.json("show", word)
        return value

    def changes(self, word: str = "last") -> dict[str, dict[str, Any]]:
        """Return what a session changed, by path."""
        return {change["path"]: change for change in self.json("diff", word)}


@contextlib.contextmanager
def serving(daemon: bool = True, prefix: tuple[str, ...] = ()) -> Iterator[Service]:
    """Start a service for the time of a ``with``; the body of a fixture."""
    service = Service(daemon, prefix=prefix)
    try:
        yield service
    finally:
        service.close()


class OtherOwner:
    """Another user of the same system service; to be made as root only.

    The CLI is run from a copy that this user may read: the checkout may lie in a private home.
    """

    def __init__(self, service: Service, name: str) -> None:
        self.account = pwd.getpwnam(name)
        self._service = service
        copy = Path(service.base) / "program"
        if not copy.exists():
            for part in ("supervisor", "sandbox_profiles"):
                shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        start = "from supervisor.cli.main import main; sys.exit(main())"
        self._start = f"import sys; sys.path.insert(0, {str(copy)!r}); {start}"

    def folder(self) -> Path:
        """Make a private folder of this user."""
        path = self._service.folder()
        os.chown(path, self.account.pw_uid, self.account.pw_gid)
        path.chmod(0o700)
        return path

    def run(self, *args: str, cwd: str | os.PathLike[str] = "/") -> subprocess.CompletedProcess[bytes]:
        """Run the CLI as this user."""
        environment = self._service.environment | {"HOME": self.account.pw_dir}
        environment |= {f"DESKWARDEN_{what}_DIR": f"{self._service.base}/nothing" for what in ("RUNTIME", "STATE")}
        return self.run_program(PYTHON, "-IS", "-c", self._start, *args, cwd=cwd, env=environment)

    def run_program(
        self, *command: str, cwd: str | os.PathLike[str] = "/", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any program as this user."""
        ids = [f"--reuid={self.account.pw_uid}", f"--regid={self.account.pw_gid}", "--clear-groups"]
        return subprocess.run(
            ["setpriv", *ids, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=cwd,
            env=env,
            timeout=DEADLINE_S,
            check=False,
        )

    def python(self, code: str, *flags: str, cwd: str | os.PathLike[str], **values: object) -> Any:
        """Run *code* as an agent of this user; returns what it reported."""
        return reported(self.run("run", *flags, "--", *program(code, **values), cwd=cwd))
