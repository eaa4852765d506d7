"""From one process with the caller's rights to two: the launcher keeps privilege, the daemon has none.

Order: directories and lock → layers probed → listening socket → (rootless: own user and mount namespace) → launcher
started → the daemon gives up uid and capabilities. All of it before asyncio, before any thread, before gRPC.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from supervisor.config import SERVICE_ACCOUNT, Places, rootless_places, system_places
from supervisor.daemon import agent_client
from supervisor.errors import LaunchError, RefusedError, ServiceError
from supervisor.linux import caps, mount, prctl, seqpacket
from supervisor.linux.clone import CloneFlags, map_own_ids, unshare
from supervisor.sandbox.layers import LayerState, State
from supervisor.sandbox.plan import Owner
from supervisor.sandbox.probe import probe_all
from supervisor.sandbox.workers import PROGRAMS, site_directories

_BACKLOG: Final = 128


@dataclass(slots=True)
class Foundation:
    """What the daemon starts from; owns the sockets."""

    places: Places
    rootless: bool
    listener: socket.socket
    launcher: socket.socket
    launcher_pid: int
    layers: tuple[LayerState, ...]
    only_uid: int | None
    owner: Owner | None
    lock_fd: int
    socket_inode: tuple[int, int] | None
    client: agent_client.Shown

    def remove_socket(self) -> None:
        """Take the socket's name away at an orderly end: only our own, never systemd's or a later daemon's."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if inode_of(self.places.launch_socket) == self.socket_inode:
                os.unlink(self.places.launch_socket)


def owner_of(uid: int, environment: Mapping[str, str] | None = None) -> Owner:
    """Return the account of *uid*.

    Raises:
        RefusedError: There is none, so nobody can say where its home is.
    """
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        raise RefusedError(f"uid {uid} has no account", "create one: useradd") from None
    home = (environment or {}).get("HOME") or account.pw_dir
    return Owner(uid, account.pw_gid, account.pw_name, os.path.realpath(home))


def lay(rootless: bool, only_uid: int | None, environment: Mapping[str, str]) -> Foundation:
    """Do everything that needs the caller's rights, and give them up.

    Raises:
        DeskwardenError: With what is missing and how to get it.
    """
    _raise_open_files()
    uid, gid = os.geteuid(), os.getegid()
    places = rootless_places(environment, uid) if rootless else system_places(environment)
    account = None if rootless else _service_account()
    _make_runtime(places, account)
    lock_fd = _make_state(places, account)
    layers = probe_all()
    owner = owner_of(uid, environment) if rootless else None
    listener, inode = _listen(places, account, only_uid)
    if rootless:
        enter_own_namespaces(uid, gid)
    launcher, launcher_pid = start_launcher(rootless)
    client = agent_client.hold(places.agents)
    give_up_privilege(account)
    return Foundation(
        places, rootless, listener, launcher, launcher_pid, layers, only_uid, owner, lock_fd, inode, client
    )


def join(launcher_socket: str, environment: Mapping[str, str]) -> Foundation:
    """Start as the unprivileged half of the system service: the launcher is a unit of its own, reached by its socket.

    Raises:
        DeskwardenError: Not the service account, or the launcher cannot be reached.
    """
    _raise_open_files()
    places = system_places(environment)
    if os.geteuid() != _service_account().pw_uid:
        raise RefusedError(f"--launcher is for the account {SERVICE_ACCOUNT}", "as root, leave --launcher out")
    lock_fd = _make_state(places, None)
    _make_private(places.agents, None)
    listener, inode = _listen(places, None, None)
    launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        launcher.connect(launcher_socket)
    except OSError as error:
        step = f"connect to the launcher at {launcher_socket}"
        raise LaunchError(step, error.errno or 0, "", "systemctl status deskwarden-launcher") from error
    pid = seqpacket.peer_of(launcher).pid
    layers = _ask_layers(launcher)
    client = agent_client.hold(places.agents)
    caps.drop_all()
    _lock_down()
    return Foundation(places, False, listener, launcher, pid, layers, None, None, lock_fd, inode, client)


def _raise_open_files() -> None:
    """Take all that the hard limit allows: each session holds some, and the usual soft limit is there for select(2)."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ask_layers(launcher: socket.socket) -> tuple[LayerState, ...]:
    """Have the launcher probe; it answers on a socket of its own, before anything else is asked."""
    ours, theirs = seqpacket.pair()
    with ours:
        with theirs:
            seqpacket.send_json(launcher, {"seq": 0, "do": "probe"}, (theirs.fileno(),))
        received = seqpacket.receive_json(ours)
    if received is None:
        raise ServiceError("the launcher died while it probed the layers", "systemctl status deskwarden-launcher")
    return _layers_from(received[0]["layers"])


def _service_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SERVICE_ACCOUNT)
    except KeyError:
        raise RefusedError(
            f"the system account {SERVICE_ACCOUNT!r} does not exist; the daemon never runs as root",
            f"useradd --system --no-create-home --shell /usr/sbin/nologin {SERVICE_ACCOUNT}",
        ) from None


def _make_runtime(places: Places, account: pwd.struct_passwd | None) -> None:
    """Make the sockets' directory: for everybody in system mode, else private."""
    os.makedirs(places.runtime, mode=0o700 if account is None else 0o755, exist_ok=True)
    if os.lstat(places.runtime).st_uid != os.geteuid():
        raise RefusedError(f"{places.runtime} belongs to another user", "remove it, or set XDG_RUNTIME_DIR")
    _make_private(places.agents, account)
    if account is None:
        os.chmod(places.runtime, 0o700)
        return
    # It stays root's, which is what clients trust; the daemon, without root by then, may take its socket away.
    os.chown(places.runtime, 0, account.pw_gid)
    os.chmod(places.runtime, 0o775)  # noqa: S103 - the group is the daemon's own


def _make_private(path: str, account: pwd.struct_passwd | None) -> None:
    """Make a directory that is the daemon's alone."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chmod(path, 0o700)
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _make_state(places: Places, account: pwd.struct_passwd | None) -> int:
    """Make the state's directories, private; returns the lock on them (one daemon at a time)."""
    for path in (places.state, f"{places.state}/stores", f"{places.state}/logs"):
        _make_private(path, account)
    lock_fd = os.open(f"{places.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        raise ServiceError(f"another daemon already uses {places.state}", "deskwarden status") from None
    return lock_fd


def _layers_from(items: list[dict[str, str]]) -> tuple[LayerState, ...]:
    return tuple(LayerState(item["name"], State(item["state"]), item["detail"], item["remedy"]) for item in items)


def _listen(
    places: Places, account: pwd.struct_passwd | None, only_uid: int | None
) -> tuple[socket.socket, tuple[int, int] | None]:
    """Return the listening socket: systemd's (sd_listen_fds(3)), or a new one and its inode."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=3), None
    path = places.launch_socket
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # For a caller whose XDG_RUNTIME_DIR differs (su, cron): the state is the same, so this daemon is theirs.
    with open(f"{places.state}/socket", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    # By the umask, not afterwards by name: the directory is not root's alone.
    before = os.umask(0o177 if account is None or only_uid is not None else 0o111)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener, inode_of(path)


def inode_of(path: str) -> tuple[int, int]:
    """Return device and inode of a name itself, not of what it may point to."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def enter_own_namespaces(uid: int, gid: int) -> None:
    """Rootless: become root of a user namespace of one's own; the host's later mounts still show.

    Raises:
        LaunchError: The kernel or the distribution does not let an ordinary user do it.
    """
    try:
        unshare(CloneFlags.NEWUSER | CloneFlags.NEWNS)
        map_own_ids(0, uid, 0, gid)
        mount.set_propagation("/", mount.MS_REC | mount.MS_SLAVE)
    except OSError as error:
        raise LaunchError("create a user namespace", error.errno or 0, "", "deskwarden doctor") from error


def start_launcher(rootless: bool, programs: Mapping[str, str] = PROGRAMS) -> tuple[socket.socket, int]:
    """Start the launcher as a program of its own; returns its control socket and pid.

    Args:
        programs: Name → module of the workers; tests have others.
    """
    ours, theirs = seqpacket.pair()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = (
        f"import sys; sys.path.insert(0, {root!r}); from supervisor.sandbox.launcher import main; "
        f"main({theirs.fileno()}, {rootless}, {site_directories()!r}, {dict(programs)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", start],
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        env={"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        start_new_session=True,
    )
    theirs.close()
    process.returncode = 0  # reaped by whoever waits for the pid; Popen must not warn
    return ours, process.pid


def give_up_privilege(account: pwd.struct_passwd | None) -> None:
    """Become the service account (system mode); no capability and no new privilege in either mode."""
    caps.drop_bounding()
    if account is not None:
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    caps.drop_all()
    _lock_down()


def _lock_down() -> None:
    prctl.set_no_new_privs()
    prctl.set_dumpable(False)
    os.umask(0o077)


def read_peer_level(path: str) -> int:
    """Return how many pid namespaces deep a process is, seen from here; 0 when it is gone.

    Args:
        path: A status file (proc_pid_status(5)) or a pidfd's fdinfo (pidfd_open(2)): both have a line ``NSpid``.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return len(line.split()) - 1
    except OSError:
        pass
    return 0
