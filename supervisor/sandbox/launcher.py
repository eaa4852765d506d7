"""The launcher: the only process with privilege. A fork server and reference monitor, single-threaded.

Run as a program (``python -IS …/launcher.py`` through its entry script) with a SOCK_SEQPACKET control socket. The
parent never reads a plan: it passes the plan's socket on to a child (`child`), which reads, checks and executes it.

Control messages, daemon to launcher (JSON; each answered by one message with the same ``seq``)::

    session {id, base} + plan socket     start a sandbox            → {pid, has_base} + pidfd
    prepare {base} + base's socket       build a base ahead         → {}
    exec    {id, exec} + plan socket     one more command in it     → {pid} + pidfd
    review  {id} + plan socket           detached overlays          → {}
    probe   + answer socket              the layers, found as root  → {}
    hand    {uid} + hand socket          the owner's hand           → {pid} + pidfd
    idmap   {owner, agent}               a mapping for mounts       → {} + user namespace descriptor
    store   {uid, gid} + directory       make and give away an owner's directory
    remove  {name} + owner's store       remove a session's staged files
    signal  {id, signal, exec?}          to PID 1 (the init forwards it)
    freeze | thaw | kill {id}            the whole tree
    continue {id}                        SIGCONT to every process inside

and launcher to daemon, unasked: ``{"event": "exit", "id", "exec", "status", "oom_kills"}``.

``base`` is the daemon's name for what a base consists of, down to device and inode of each source. A session whose base
was built ahead gets it (``has_base``), and its plan comes without one. Bases are dropped when the machine's mounts
change: they hold clones of what was mounted when they were built.

When the daemon dies every session is frozen at once and killed after `TAKE_BACK_S`; when the launcher dies every
PID 1 dies with it (PR_SET_PDEATHSIG). Standard library only; started before gRPC.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import pwd
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from supervisor.config import SERVICE_ACCOUNT
from supervisor.errors import DeskwardenError, LaunchError, RefusedError, to_wire
from supervisor.linux import caps, cgroup, prctl, seqpacket
from supervisor.linux.clone import NEW_SANDBOX, CloneFlags, clone3, new_id_mapping, setns
from supervisor.sandbox import child
from supervisor.sandbox.confine import AGENT_UID_FIRST, AGENT_UID_LAST, die_with_launcher

# How long frozen sessions wait for a restarted daemon (ARCHITECTURE.md, "When a process dies").
TAKE_BACK_S: Final = 10.0
# Small static inits, in order of preference; opened once, at start.
INITS: Final = ("/usr/bin/tini-static", "/usr/bin/catatonit", "/usr/bin/dumb-init", "/usr/bin/tini")
# Owner on disk of an overlay's own files in root's sessions, where id 0 stands for the agent.
UNOWNED_ID: Final = AGENT_UID_LAST + 1
HAND_MODULE: Final = "supervisor.workspace.hand"
# How many profiles (with their limits) are held ready, and how long a session waits for a base that is being built.
BASES: Final = 3
BASE_WAIT_S: Final = 0.25


@dataclass(slots=True)
class Tree:
    """A running sandbox (or one `exec` in it, or a hand): its first process and, where there is one, its cgroup."""

    key: str
    pid: int
    pidfd: int
    kind: str
    cgroup_fd: int = -1
    cgroup_name: str = ""
    frozen: bool = False


@dataclass(slots=True)
class Spare:
    """A cloned sandbox that waits for its plan; the socket arrives through `gate`. Not ready: it builds a base."""

    pid: int
    pidfd: int
    gate: socket.socket
    cgroup_fd: int
    cgroup_name: str
    is_ready: bool = True


class Launcher:
    """Serve one daemon's control socket until it ends."""

    def __init__(self, control: socket.socket, rootless: bool) -> None:
        self._control = control
        self._rootless = rootless
        self._trees: dict[str, Tree] = {}
        self._lifeline_r, self._lifeline_w = os.pipe2(os.O_CLOEXEC)
        self._init_fd = _open_init()
        self._cgroups_fd, self.cgroup_finding = _open_cgroups()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._mounts_fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll.register(self._mounts_fd, select.POLLPRI)
        self._by_pidfd: dict[int, Tree] = {}
        self._farewell = False
        self._spare: Spare | None = None
        self._bases: dict[str, Spare] = {}
        self._count = 0

    def serve(self) -> None:
        """Answer until the daemon says farewell or dies; then end every session."""
        seqpacket.send_json(
            self._control,
            {
                "event": "ready",
                "cgroup": self._cgroups_fd >= 0,
                "cgroup_finding": self.cgroup_finding,
                "controllers": list(self._controllers()),
            },
        )
        while self._wait_once(None if self._spare else 0):
            pass
        if self._spare is not None:
            self._drop(self._spare)
        self._drop_bases()
        self._end_all()

    def _controllers(self) -> tuple[str, ...]:
        return cgroup.available_controllers(self._cgroups_fd) if self._cgroups_fd >= 0 else ()

    def _wait_once(self, timeout_ms: int | None) -> bool:
        events = self._poll.poll(timeout_ms)
        if not events and timeout_ms == 0:
            with contextlib.suppress(LaunchError):  # the next session asks again, and hears why
                self._spare = self._make_spare()
            events = self._poll.poll(None)
        if any(fd == self._mounts_fd for fd, _events in events):
            self._drop_bases()  # before a session of the same round takes one
        for fd, _events in events:
            if fd == self._mounts_fd:
                continue
            if fd == self._control.fileno():
                if not self._answer_one():
                    return False
            else:
                self._reap(self._by_pidfd[fd])
        return True

    def _answer_one(self) -> bool:
        try:
            received = seqpacket.receive_json(self._control)
        except (OSError, ValueError):
            return False
        if received is None:
            return False
        request, fds = received
        answer: dict[str, Any] = {"seq": request.get("seq")}
        out: tuple[int, ...] = ()
        close_after: list[int] = []
        try:
            out, close_after, more = self._do(request, fds)
            answer |= more
        except DeskwardenError as error:
            answer["error"] = to_wire(error)
        except OSError as error:
            step = f"launcher: {request.get('do')}"
            answer["error"] = to_wire(LaunchError(step, error.errno or 0, str(error.strerror or error)))
        except (KeyError, TypeError, ValueError, LookupError) as error:
            answer["error"] = to_wire(RefusedError(f"launcher refused {request.get('do')}: {error}"))
        finally:
            seqpacket.close_all(fds)
        try:
            seqpacket.send_json(self._control, answer, out)
        except OSError:
            return False
        finally:
            seqpacket.close_all(close_after)
        return not self._farewell

    def _do(self, request: dict[str, Any], fds: list[int]) -> tuple[tuple[int, ...], list[int], dict[str, Any]]:
        """Carry out one request; returns descriptors to send, those of them to close after, and fields."""
        what = request["do"]
        if what == "session":
            tree, has_base = self._session(request, fds)
            return (tree.pidfd,), [], {"pid": tree.pid, "has_base": has_base}
        if what in ("exec", "hand"):
            tree = {"exec": self._exec, "hand": self._hand}[what](request, fds)
            return (tree.pidfd,), [], {"pid": tree.pid}
        if what in ("review", "probe"):
            self._helper(str(what), fds)
        elif what == "idmap":
            mapping = self._idmap(request)
            return (mapping,), [mapping], {}
        elif what == "store":
            self._store(request, fds)
        elif what in ("freeze", "thaw"):
            return (), [], {"bound_ms": self._set_frozen(self._tree(request), what == "freeze")}
        else:
            self._do_quietly(str(what), request, fds)
        return (), [], {}

    def _do_quietly(self, what: str, request: dict[str, Any], fds: list[int]) -> None:
        """Carry out a request that has nothing to answer."""
        if what == "prepare":
            self._prepare(str(request["base"]), fds)
        elif what == "remove":
            self._remove(fds, str(request["name"]))
        elif what == "signal":
            self._signal(request)
        elif what == "continue":
            signal_all_inside(self._tree(request).pidfd, signal.SIGCONT)
        elif what == "kill":
            self._kill(self._tree(request))
        elif what == "farewell":
            self._farewell = True
        else:
            raise RefusedError(f"launcher: unknown request {what!r}")

    # ---- starting ----

    def _session(self, request: dict[str, Any], fds: list[int]) -> tuple[Tree, bool]:
        key = str(request["id"])
        if key in self._trees or not key.isalnum():
            raise RefusedError(f"launcher: bad session id {key!r}")
        based = self._take_base(str(request.get("base") or ""))
        spare = based or self._take_spare()
        self._limit(spare.cgroup_fd, request.get("limits") or {})
        try:
            seqpacket.send(spare.gate, child.PLAN, (fds[0],))
        except OSError:
            self._drop(spare)
            raise
        spare.gate.close()
        tree = Tree(key, spare.pid, spare.pidfd, "session", spare.cgroup_fd, spare.cgroup_name)
        return self._keep(tree), based is not None

    def _prepare(self, base: str, fds: list[int]) -> None:
        """Have a spare build *base* ahead; the oldest of more than `BASES` goes."""
        if base in self._bases:
            return
        spare = self._take_spare()
        spare.is_ready = False
        self._bases[base] = spare
        with contextlib.suppress(OSError):  # it died: `_take_base` finds out
            seqpacket.send(spare.gate, child.BASE, (fds[0],))
        while len(self._bases) > BASES:
            self._drop(self._bases.pop(next(iter(self._bases))))

    def _take_base(self, base: str) -> Spare | None:
        """Return the spare that has built *base*, waiting a moment for one that is at it; None when there is none."""
        spare = self._bases.pop(base, None)
        if spare is None or (spare.is_ready and _is_alive(spare)):
            return spare
        with contextlib.suppress(OSError):
            spare.gate.settimeout(BASE_WAIT_S)
            if not spare.is_ready and seqpacket.receive(spare.gate)[0] == child.BASE and _is_alive(spare):
                spare.gate.settimeout(None)
                return spare
        self._drop(spare)
        return None

    def _take_spare(self) -> Spare:
        spare, self._spare = self._spare, None
        if spare is not None and not _is_alive(spare):
            self._drop(spare)
            spare = None
        return spare or self._make_spare()

    def _make_spare(self) -> Spare:
        """Clone the next sandbox ahead of its plan: new namespaces cost more than most of what follows.

        It has seen no session, and waits on its gate; when the launcher dies the gate closes and it exits.
        """
        self._count += 1
        cgroup_fd, name = self._new_cgroup(f"c{self._count}")
        ours, theirs = seqpacket.pair()
        try:
            pid, pidfd = clone3(NEW_SANDBOX, cgroup_fd if cgroup_fd >= 0 else None)
        except OSError as error:
            ours.close()
            theirs.close()
            self._drop_cgroup(cgroup_fd, name)
            raise LaunchError("create namespaces", error.errno or 0) from error
        if pid == 0:
            child.start_spare(theirs, self._init_fd, self._lifeline_r, self._rootless)
        theirs.close()
        return Spare(pid, pidfd, ours, cgroup_fd, name)

    def _drop_bases(self) -> None:
        while self._bases:
            self._drop(self._bases.popitem()[1])

    def _drop(self, spare: Spare) -> None:
        spare.gate.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(spare.pidfd, signal.SIGKILL)
        os.waitpid(spare.pid, 0)
        os.close(spare.pidfd)
        self._drop_cgroup(spare.cgroup_fd, spare.cgroup_name)

    def _exec(self, request: dict[str, Any], fds: list[int]) -> Tree:
        target = self._trees[str(request["id"])]
        cgroup_fd = target.cgroup_fd if target.cgroup_fd >= 0 else None
        pid, pidfd = clone3(0, cgroup_fd)
        if pid == 0:
            child.start_exec(
                socket.socket(fileno=fds[0]), target.pidfd, self._lifeline_r, self._rootless, _wait_for_inner
            )
        return self._keep(Tree(f"{target.key}/{request['exec']}", pid, pidfd, "exec"))

    def _hand(self, request: dict[str, Any], fds: list[int]) -> Tree:
        uid = int(request["uid"])
        pid, pidfd = clone3(0)
        if pid == 0:
            _become_hand(socket.socket(fileno=fds[0]), uid, self._lifeline_r, self._rootless)
        return self._keep(Tree(f"hand{uid}/{pid}", pid, pidfd, "hand"))

    def _helper(self, what: str, fds: list[int]) -> None:
        pid, pidfd = clone3(0)
        if pid == 0:
            start = child.start_review if what == "review" else child.start_probe
            start(socket.socket(fileno=fds[0]))
        self._keep(Tree(f"{what}/{pid}", pid, pidfd, what))

    def _remove(self, fds: list[int], name: str) -> None:
        pid, pidfd = clone3(0)
        if pid == 0:
            child.remove_stage(fds[0], name)
        self._keep(Tree(f"remove{pid}/{name}", pid, pidfd, "remove"))

    def _keep(self, tree: Tree) -> Tree:
        self._trees[tree.key] = tree
        self._by_pidfd[tree.pidfd] = tree
        self._poll.register(tree.pidfd, select.POLLIN)
        return tree

    def _idmap(self, request: dict[str, Any]) -> int:
        (owner, owner_group), (agent, agent_group) = request["owner"], request["agent"]
        if self._rootless or not AGENT_UID_FIRST <= int(agent) <= AGENT_UID_LAST:
            raise RefusedError(f"launcher: no mapping to uid {agent}: want one of the agents' pool")
        return new_id_mapping(id_map(int(owner), int(agent)), id_map(int(owner_group), int(agent_group)))

    def _store(self, request: dict[str, Any], fds: list[int]) -> None:
        uid, gid = int(request["uid"]), int(request["gid"])
        name = str(uid)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fds[0])
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fds[0])
        try:
            if not self._rootless:
                os.fchown(directory, uid, gid)
        finally:
            os.close(directory)

    # ---- cgroups ----

    def _new_cgroup(self, name: str) -> tuple[int, str]:
        if self._cgroups_fd < 0:
            return -1, ""
        os.mkdir(name, 0o755, dir_fd=self._cgroups_fd)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._cgroups_fd), name

    @staticmethod
    def _limit(fd: int, limits: dict[str, Any]) -> None:
        for key, value in limits.items() if fd >= 0 else ():
            if key in ("memory.max", "memory.swap.max", "pids.max", "cpu.weight", "io.weight"):
                cgroup.set_limit(fd, key, str(int(value)))

    def _drop_cgroup(self, fd: int, name: str) -> None:
        if fd < 0:
            return
        os.close(fd)
        deadline = time.monotonic() + 2
        while True:
            try:
                os.rmdir(name, dir_fd=self._cgroups_fd)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return
                time.sleep(0.001)

    # ---- signals and ends ----

    def _tree(self, request: dict[str, Any]) -> Tree:
        key = str(request["id"])
        if request.get("exec"):
            key = f"{key}/{request['exec']}"
        tree = self._trees.get(key)
        if tree is None:
            raise LookupError(f"no running session {key}")
        return tree

    def _signal(self, request: dict[str, Any]) -> None:
        tree = self._tree(request)
        number = int(request["signal"])
        if tree.kind == "exec":
            _signal_children(tree.pid, number)
        else:
            signal.pidfd_send_signal(tree.pidfd, number)

    def _set_frozen(self, tree: Tree, frozen: bool) -> float:
        start = time.monotonic()
        if tree.cgroup_fd >= 0:
            cgroup.set_frozen(tree.cgroup_fd, frozen)
        else:
            signal_all_inside(tree.pidfd, signal.SIGSTOP if frozen else signal.SIGCONT)
        tree.frozen = frozen
        return (time.monotonic() - start) * 1000

    def _kill(self, tree: Tree) -> None:
        if tree.cgroup_fd >= 0 and tree.kind == "session":
            cgroup.kill(tree.cgroup_fd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(tree.pidfd, signal.SIGKILL)

    def _reap(self, tree: Tree) -> None:
        _pid, status = os.waitpid(tree.pid, 0)
        self._poll.unregister(tree.pidfd)
        del self._by_pidfd[tree.pidfd]
        del self._trees[tree.key]
        os.close(tree.pidfd)
        oom_kills = cgroup.oom_kills(tree.cgroup_fd) if tree.cgroup_fd >= 0 else 0
        self._drop_cgroup(tree.cgroup_fd, tree.cgroup_name)
        if tree.kind in ("review", "probe"):
            return
        session, _, execution = tree.key.partition("/")
        event = {"event": "exit", "kind": tree.kind, "id": session, "exec": execution, "pid": tree.pid}
        event["oom_kills"] = oom_kills
        with contextlib.suppress(OSError):
            seqpacket.send_json(self._control, event | {"status": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        """The daemon is gone: freeze everything now; kill what nobody took back in time."""
        sessions = [tree for tree in self._trees.values() if tree.kind == "session"]
        self._poll.unregister(self._control)
        if not self._farewell:
            for tree in sessions:
                with contextlib.suppress(OSError):
                    self._set_frozen(tree, True)
            deadline = time.monotonic() + TAKE_BACK_S
            while self._trees and (left := deadline - time.monotonic()) > 0:
                self._wait_once(int(left * 1000) + 1)
        for tree in list(self._trees.values()):
            self._kill(tree)
        deadline = time.monotonic() + 2
        while self._trees and time.monotonic() < deadline:
            self._wait_once(50)
        if self._cgroups_fd >= 0:
            _remove_cgroups(self._cgroups_fd)
            os.close(self._cgroups_fd)
        for fd in (self._lifeline_r, self._lifeline_w, self._init_fd, self._mounts_fd):
            os.close(fd)


def id_map(on_disk: int, agent: int) -> str:
    """Return the id map of a layer: what *on_disk* owns, the agent owns; everybody else stays who they are.

    An id without a mapping could be neither written nor created (EOVERFLOW), so shared groups are mapped too. Root
    needs an id on disk, since the overlay makes its work directory and copies up as root: its own, or, when that one
    is the agent's, one that nobody has.
    """
    spans = [(on_disk, agent, 1), (on_disk + 1, on_disk + 1, AGENT_UID_FIRST - on_disk - 1)]
    spans.append((0, 0, on_disk) if on_disk else (UNOWNED_ID, 0, 1))
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in spans)


def _open_init() -> int:
    for path in INITS:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_PATH | os.O_CLOEXEC)
    raise RefusedError(f"no init found: want one of {', '.join(INITS)}", "apt-get install tini")


def _open_cgroups() -> tuple[int, str]:
    """Return a directory for the sessions' cgroups, or -1 and why there is none."""
    root = cgroup.hierarchy()
    if root is None:
        return -1, "no cgroup v2 hierarchy is mounted"
    base = f"{root}{cgroup.own_group().rstrip('/')}"
    path = f"{base}/deskwarden-{os.getpid()}"
    _sweep_cgroups(base)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        fd = cgroup.open_dir(path)
    except OSError as error:
        return -1, f"no delegated cgroup directory ({path}: {os.strerror(error.errno or 0)})"
    if base != root:
        with contextlib.suppress(OSError):  # without controllers the limits are rlimits, and the report says so
            _enable_controllers(base, fd)
    return fd, ""


def _enable_controllers(base: str, sessions_fd: int) -> None:
    """Have the kernel limit the groups below *sessions_fd*, as far as *base* was given controllers (Delegate=yes).

    Only a group without processes hands controllers on (cgroups(7), "no internal processes"): the daemon and this
    launcher move to one of their own. A group that somebody else runs in, such as a login's, is left as it is.
    """
    base_fd = cgroup.open_dir(base)
    try:
        wanted = cgroup.offered_controllers(base_fd)
        if not set(wanted) <= set(cgroup.available_controllers(base_fd)):
            members = cgroup.processes(base_fd)
            if members <= {os.getpid(), os.getppid()}:
                with contextlib.suppress(FileExistsError):
                    os.mkdir("service", 0o755, dir_fd=base_fd)
                service_fd = cgroup.open_dir(f"{base}/service")
                try:
                    for pid in members:
                        cgroup.move(service_fd, pid)
                finally:
                    os.close(service_fd)
                cgroup.enable_controllers(base_fd, wanted)
        cgroup.enable_controllers(sessions_fd, cgroup.available_controllers(base_fd))
    finally:
        os.close(base_fd)


def _sweep_cgroups(base: str) -> None:
    """Remove the groups of launchers that were killed; one that still holds a process stays (EBUSY)."""
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            prefix, _, pid = name.partition("-")
            if prefix == "deskwarden" and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                for below in [entry.path for entry in os.scandir(f"{base}/{name}") if entry.is_dir()]:
                    with contextlib.suppress(OSError):
                        os.rmdir(below)
                with contextlib.suppress(OSError):
                    os.rmdir(f"{base}/{name}")


def _remove_cgroups(fd: int) -> None:
    path = os.readlink(f"/proc/self/fd/{fd}")
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _is_alive(spare: Spare) -> bool:
    """Return whether nobody killed it: the kernel, out of memory, or an administrator."""
    poll = select.poll()
    poll.register(spare.pidfd, select.POLLIN)
    return not poll.poll(0)


def _wait_for_inner(pid: int) -> int:
    """Wait for an `exec`'s inner process; a death by signal N becomes 128+N, as a shell says it."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _signal_children(pid: int, number: int) -> None:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for word in file.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), number)


def signal_all_inside(pidfd: int, number: int) -> None:
    """Signal every process of the pid namespace of *pidfd* but its init, in one kernel pass (kill(2), pid -1)."""
    pid = os.fork()
    if pid == 0:
        try:
            setns(pidfd, CloneFlags.NEWPID)
            inner = os.fork()
            if inner == 0:
                with contextlib.suppress(OSError):
                    os.kill(-1, number)
                os._exit(0)
            os.waitpid(inner, 0)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _become_hand(sock: socket.socket, uid: int, lifeline: int, rootless: bool) -> None:
    """Turn this forked child into the hand of *uid*: its ids and groups, no capabilities.

    Without an exec: that would leave it dumpable for as long as its imports take, and its owner could take the daemon's
    socket from it meanwhile (pidfd_getfd(2)).
    """

    def body() -> None:
        child.reset({sock.fileno(), lifeline})
        hand = importlib.import_module(HAND_MODULE)
        caps.drop_bounding()
        if not rootless:
            account = pwd.getpwuid(uid)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(uid, uid, uid)
        caps.drop_all()
        prctl.set_no_new_privs()
        prctl.set_dumpable(False)
        prctl.set_name("deskwarden-hand")
        die_with_launcher(lifeline)
        os.environ |= {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        gc.enable()
        hand.main(sock.detach())

    child.run_guarded(sock, body)


def main(control_fd: int, rootless: bool) -> None:
    """Serve the daemon at the other end of *control_fd*, which started this program."""
    _prepare_process()
    _serve(socket.socket(fileno=control_fd), rootless)


def main_listening() -> None:
    """Serve one daemon after another on systemd's socket (sd_listen_fds(3)); the entry of the launcher's own unit.

    Only the service account may connect: the socket's mode says so, and SO_PEERCRED is checked as well.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("launcher: want one socket from systemd (deskwarden-launcher.socket)")
    allowed_uid = pwd.getpwnam(SERVICE_ACCOUNT).pw_uid
    _prepare_process()
    listener = socket.socket(fileno=3)
    listener.set_inheritable(False)
    while True:
        control, _address = listener.accept()
        if seqpacket.peer_of(control).uid == allowed_uid:
            _serve(control, rootless=False)
        control.close()


def _prepare_process() -> None:
    child.reset_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # the daemon ends sessions in order, then says farewell
    # A collection in a child would copy every page of this process that it visits.
    gc.collect()
    gc.freeze()
    gc.disable()
    prctl.set_dumpable(False)


def _serve(control: socket.socket, rootless: bool) -> None:
    control.set_inheritable(False)
    try:
        Launcher(control, rootless).serve()
    except DeskwardenError as error:
        with contextlib.suppress(OSError):
            seqpacket.send_json(control, {"event": "failed", "error": to_wire(error)})
