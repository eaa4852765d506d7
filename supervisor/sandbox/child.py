"""What the launcher's children do: read a plan, build, confine, exec. Every path ends in exec or `os._exit`.

Standard library only. The child answers on the socket that brought the plan: one message ``prepared`` (with a session's
mount namespace, and the terminal's master, when there is one), then end-of-file when exec worked, or an ``error``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import termios
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from supervisor.errors import DeskwardenError, LaunchError, NotFoundError, RefusedError, to_wire
from supervisor.linux import seqpacket
from supervisor.linux.clone import CloneFlags, setns, unshare
from supervisor.linux.execve import fexecve
from supervisor.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from supervisor.sandbox import confine, removal
from supervisor.sandbox.operations import Context, Keyring, Limits, MakeRoot, Operation, Overlay, open_terminal
from supervisor.sandbox.probe import probe_all

_STDIO_COUNT: Final = 3
# What the launcher says at a spare's gate, each with a socket; a spare answers BASE when it has built one.
BASE: Final = b"base"
PLAN: Final = b"plan"

# What Python and the launcher itself changed; `reset_signals` did the rest when the launcher started.
LAUNCHER_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


def reset_signals() -> None:
    """Set every signal to its default, whatever was inherited (nohup, a shell's trap)."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)


def run_guarded(sock: socket.socket, body: Callable[[], None]) -> NoReturn:
    """Run *body*; report what it raises on *sock*; end in `os._exit` whatever happens."""
    try:
        body()
        os._exit(0)
    except DeskwardenError as error:
        _report(sock, error)
    except BaseException as error:  # noqa: BLE001 - a forked child: nothing may unwind into the parent's frames
        _report(sock, LaunchError("launch", getattr(error, "errno", 0) or 0, f"{type(error).__name__}: {error}"))
    finally:
        os._exit(125)


def _report(sock: socket.socket, error: DeskwardenError) -> None:
    with contextlib.suppress(OSError):
        seqpacket.send_json(sock, {"event": "error", "error": to_wire(error)})


def reset(keep: set[int]) -> None:
    """Close everything but *keep* and 0–2, reset oom score, signals and environment: nothing is inherited."""
    low = 3
    for fd in sorted(keep | {1 << 20}):
        if fd > low:
            os.closerange(low, min(fd, 1 << 20))
        low = fd + 1
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(_STDIO_COUNT):
        os.dup2(null, fd)
    os.close(null)
    for number in LAUNCHER_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
    os.umask(0o022)
    for name in list(os.environ):
        del os.environ[name]


def receive_plan(sock: socket.socket) -> tuple[dict[str, Any], dict[int, int]]:
    """Return a plan and its descriptors, by the index that the plan has for each (in order, unless it says)."""
    received = seqpacket.receive_json(sock)
    if received is None:
        os._exit(125)
    plan, received_fds = received
    # Descriptors 0-2 are the agent's: a source must never sit there.
    fds = [fd if fd >= _STDIO_COUNT else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDIO_COUNT) for fd in received_fds]
    indices = plan.get("indices", list(range(len(fds))))
    if not isinstance(indices, list) or len(set(indices)) != len(fds) or any(type(one) is not int for one in indices):
        raise RefusedError("launcher refused the plan: want one index for each descriptor that came with it")
    return plan, dict(zip(indices, fds, strict=True))


def acquire(operations: list[Operation], context: Context) -> None:
    """Clone every source, in the launcher's mount namespace; a failure is said as one of the launch."""
    try:
        context.acquire(operations)
    except OSError as error:
        raise LaunchError("clone the mounts of the plan's descriptors", error.errno or 0) from error


def _execute_all(operations: list[Operation], context: Context, fail_at: int | None, first: int = 0) -> None:
    for number, operation in enumerate(operations, first):
        try:
            if number == fail_at:
                raise OSError(errno.EIO, "failed by the test")
            operation.execute(context)
        except OSError as error:
            detail = str(error.strerror or "") if error.errno != errno.ENOENT else ""
            where = os.fsdecode(error.filename) if error.filename else ""
            text = f"{where}: {detail}" if where and detail else detail or where
            raise LaunchError(operation.describe(), error.errno or 0, text) from error


class _Site:
    """The place where a sandbox is built: the launcher's mount namespace, where sources are, and the sandbox's own."""

    def __init__(self) -> None:
        self._outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self.mounts = -1
        self._steps = 0
        self.context = Context({})

    @property
    def has_base(self) -> bool:
        return self.mounts >= 0

    def receive_base(self, sock: socket.socket, fail_at: int | None = None) -> None:
        """Leave the host's tree for a new root, as the message on *sock* says."""
        plan, fds = receive_plan(sock)
        base = confine.check_base(plan, fds)
        self.context.fds = fds
        acquire(base, self.context)
        unshare(CloneFlags.NEWNS)
        self.mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        _execute_all(base, self.context, fail_at)
        self._steps = len(base)
        seqpacket.close_all(list(fds.values()))

    def build_session(self, operations: list[Operation], fds: Mapping[int, int], fail_at: int | None) -> list[str]:
        """Build on the base; returns the findings. Sources are cloned where they are, and attached inside."""
        self.context.fds = fds
        setns(self._outside, CloneFlags.NEWNS)
        acquire(operations, self.context)
        setns(self.mounts, CloneFlags.NEWNS)
        os.close(self._outside)
        _execute_all(operations, self.context, fail_at, self._steps)
        return self.context.findings


def start_spare(gate: socket.socket, init_fd: int, lifeline: int, rootless: bool) -> NoReturn:
    """Wait, as PID 1 of new namespaces, for the socket that brings a plan; exit when the launcher is gone.

    Before that a socket with a base may come. It is built at once and said to be, so that the launcher knows; one that
    cannot be built ends this spare, and the next session hears why when it tries the same.
    """
    try:
        reset({gate.fileno(), init_fd, lifeline})
        site = _Site()
        payload, fds = seqpacket.receive(gate)
        if payload == BASE:
            with socket.socket(fileno=fds[0]) as sock:
                site.receive_base(sock)
            seqpacket.send(gate, BASE)
            payload, fds = seqpacket.receive(gate)
        if not payload:
            os._exit(0)
        gate.close()
    except BaseException:  # noqa: BLE001 - a forked child: nothing may unwind into the parent's frames
        os._exit(125)
    start_session(socket.socket(fileno=fds[0]), site, init_fd, lifeline, rootless)


def start_session(sock: socket.socket, site: _Site, init_fd: int, lifeline: int, rootless: bool) -> NoReturn:
    """Build the sandbox as its PID 1 and exec the init, which starts the agent."""

    def body() -> None:
        plan, fds = receive_plan(sock)
        operations, confinement = confine.check_plan(plan, fds, rootless)
        confine.check_builds_on_base(operations)
        if not site.has_base:
            site.receive_base(sock, plan.get("fail_at"))
        findings = site.build_session(operations, fds, plan.get("fail_at"))
        command = _Command.of(plan, fds)
        master = command.connect(confinement)
        command.enter_directory()
        program = command.find_program()
        answer = {"event": "prepared", "mounts": True, "findings": findings, "program": program}
        answer["stubs"] = site.context.stubs_device >= 0
        stubs_device = site.context.stubs_device
        out = tuple(fd for fd in (site.mounts, stubs_device, -1 if master is None else master) if fd >= 0)
        seqpacket.send_json(sock, answer, out)
        for fd in (*out, *fds.values()):
            if fd not in command.stdio:
                os.close(fd)
        confine.confine(confinement, lifeline)
        argv = [b"init", b"-g", b"--", *command.argv]
        fexecve(init_fd, argv, command.environment)

    run_guarded(sock, body)


def start_exec(
    sock: socket.socket, target_pidfd: int, lifeline: int, rootless: bool, target_status: Callable[[int], int]
) -> NoReturn:
    """Join a running sandbox and exec one more command in it, under the same confinement.

    *target_status* waits for the inner process and turns its end into an exit code for this one.
    """

    def body() -> None:
        reset({sock.fileno(), target_pidfd, lifeline})
        plan, fds = receive_plan(sock)
        operations, confinement = confine.check_plan(plan, fds, rootless)
        for operation in operations:
            if not isinstance(operation, Limits | Keyring):
                raise RefusedError(f"launcher refused the plan: an exec mounts nothing, not even {operation.op}")
        spaces = CloneFlags.NEWNS | CloneFlags.NEWPID | CloneFlags.NEWNET | CloneFlags.NEWIPC
        setns(target_pidfd, spaces | CloneFlags.NEWUTS | CloneFlags.NEWCGROUP)
        pid = os.fork()
        if pid:
            seqpacket_fd = sock.fileno()
            os.close(seqpacket_fd)
            for fd in fds.values():
                os.close(fd)
            os._exit(target_status(pid))
        run_guarded(sock, lambda: inner(plan, fds, operations, confinement))

    def inner(
        plan: dict[str, Any], fds: dict[int, int], operations: list[Operation], confinement: confine.Confinement
    ) -> None:
        _execute_all(operations, Context(fds), None)
        command = _Command.of(plan, fds)
        master = command.connect(confinement)
        command.enter_directory()
        program = command.find_program()
        answer = {"event": "prepared", "mounts": False, "findings": [], "program": program}
        seqpacket.send_json(sock, answer, (master,) if master is not None else ())
        if master is not None:
            os.close(master)
        confine.confine(confinement, lifeline)
        os.execve(program, command.argv, command.environment_map())

    run_guarded(sock, body)


def start_review(sock: socket.socket) -> NoReturn:
    """Make the overlays of a review, detached, and hand their descriptors out. Nothing of a user's runs here."""

    def body() -> None:
        reset({sock.fileno()})
        plan, fds = receive_plan(sock)
        operations = confine.check_operations(plan, fds)
        context = Context(fds)
        acquire(operations, context)
        # A tree of its own, in case layers have to be attached: nobody else is to see that.
        unshare(CloneFlags.NEWNS)
        MakeRoot().execute(context)
        made = []
        for operation in operations:
            if not isinstance(operation, Overlay) or not operation.detached:
                raise RefusedError(
                    f"launcher refused the plan: a review has detached overlays only, not {operation.op}"
                )
            try:
                made.append(operation.mount_detached(context))
            except OSError as error:
                raise LaunchError(operation.describe(), error.errno or 0, str(error.strerror or "")) from error
        seqpacket.send_json(sock, {"event": "prepared", "findings": context.findings}, tuple(made))

    run_guarded(sock, body)


def start_probe(sock: socket.socket) -> NoReturn:
    """Probe the layers with the launcher's rights, for a daemon that has none to try with."""

    def body() -> None:
        reset({sock.fileno()})
        layers = [
            {"name": layer.name, "state": str(layer.state), "detail": layer.detail, "remedy": layer.remedy}
            for layer in probe_all()
        ]
        seqpacket.send_json(sock, {"event": "prepared", "layers": layers})

    run_guarded(sock, body)


class _Command:
    """What to run: argv, environment, directory, and the three descriptors or a terminal."""

    def __init__(self, plan: dict[str, Any], fds: Mapping[int, int]) -> None:
        command = plan.get("command")
        if not isinstance(command, dict) or not command.get("argv"):
            raise RefusedError("launcher refused the plan: it names no command")
        self.argv = [os.fsencode(item) for item in command["argv"]]
        self.variables: dict[str, str] = dict(command.get("environment", {}))
        self.directory: str = command.get("directory", "/")
        self.umask = int(command.get("umask", 0o022))
        terminal = command.get("terminal")
        self.terminal: tuple[int, int] | None = (int(terminal[0]), int(terminal[1])) if terminal else None
        indices = [] if self.terminal else command.get("stdio", [])
        if not self.terminal and (len(indices) != _STDIO_COUNT or not all(index in fds for index in indices)):
            raise RefusedError("launcher refused the plan: it names neither a terminal nor three descriptors")
        self.stdio = [fds[index] for index in indices]

    @classmethod
    def of(cls, plan: dict[str, Any], fds: Mapping[int, int]) -> _Command:
        return cls(plan, fds)

    @property
    def environment(self) -> list[bytes]:
        return [os.fsencode(f"{key}={value}") for key, value in self.variables.items()]

    def environment_map(self) -> dict[bytes, bytes]:
        return {os.fsencode(key): os.fsencode(value) for key, value in self.variables.items()}

    def connect(self, confinement: confine.Confinement) -> int | None:
        """Put the descriptors in place, as a session of its own; returns the terminal's master, if there is one."""
        os.setsid()
        os.umask(self.umask)
        master = None
        stdio = self.stdio
        if self.terminal:
            owner = (0, 0) if confinement.inner_userns else (confinement.uid, confinement.gid)
            master, slave = open_terminal(*self.terminal, *owner)
            stdio = [slave] * _STDIO_COUNT
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        if self.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.close(stdio[0])
        return master

    def enter_directory(self) -> None:
        try:
            os.chdir(os.fsencode(self.directory))
        except OSError as error:
            raise LaunchError(f"enter {self.directory}", error.errno or 0) from error

    def find_program(self) -> str:
        """Return the path of the program as the agent will see it.

        Raises:
            NotFoundError: Nothing of that name is in the sandbox.
            RefusedError: It is there but cannot be executed.
        """
        name = os.fsdecode(self.argv[0])
        path = self.variables.get("PATH", os.defpath)
        candidates = [name] if "/" in name else [os.path.join(part or ".", name) for part in path.split(":")]
        found = ""
        for candidate in candidates:
            try:
                mode = os.stat(candidate).st_mode
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(mode) and mode & 0o111:
                return candidate
            found = found or candidate
        if found:
            raise RefusedError(
                f"{found}: not an executable file", "make it executable, or run it through its interpreter"
            )
        raise NotFoundError(
            f"{name}: command not found in the sandbox",
            f"deskwarden run -r DIR_OF_{os.path.basename(name) or 'COMMAND'} … shows one more directory",
        )


def remove_stage(store_fd: int, session: str) -> NoReturn:
    """Remove what *session* has below an owner's store; as root, as the overlay's work files are.

    Exit code 0: nothing of it is left.
    """
    try:
        reset({store_fd})
        flags = os.O_RDONLY | os.O_DIRECTORY
        removal.remove_session(openat2(store_fd, b"sessions", flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), session)
        os._exit(0)
    finally:
        os._exit(1)
