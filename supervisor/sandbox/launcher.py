"""The launcher: the only process with privilege. A fork server and reference monitor, single-threaded.

Run as a program (``python -IS …/launcher.py`` through its entry script) with a SOCK_SEQPACKET control socket. The
parent never reads a plan: it passes the plan's socket on to a child (`child`), which reads, checks and executes it.

Control messages, daemon to launcher (JSON; each answered by one message with the same ``seq``)::

    session {id, base} + plan socket     start a sandbox            → {pid, has_base} + pidfd
    build   {base} + base's socket       build a base ahead         → {}
    exec    {id, exec} + plan socket     one more command in it     → {pid} + pidfd
    grant   {id} + plan socket           mounts into it while it runs   → {}
    withdraw {id} + plan socket          takes mounts back, with a proof → {} (``ended`` when it has ended)
    review  {id} + plan socket           detached overlays          → {}
    probe   + answer socket              the layers, found as root  → {}
    hand    {uid} + hand socket          the owner's hand           → {pid} + pidfd
    worker  {program, uid} + its socket  one of `workers.PROGRAMS`  → {pid} + pidfd
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
import gc
import importlib
import os
import pwd
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from supervisor.config import SERVICE_ACCOUNT
from supervisor.errors import DeskwardenError, LaunchError, RefusedError, to_wire
from supervisor.linux import caps, cgroup, prctl, seqpacket
from supervisor.linux.clone import clone3, new_id_mapping
from supervisor.sandbox import child, live, withdrawal, workers
from supervisor.sandbox.confine import AGENT_UID_FIRST, AGENT_UID_LAST, die_with_launcher
from supervisor.sandbox.probes.surroundings import INIT_PROGRAMS, find_init
from supervisor.sandbox.processes import signal_all_inside
from supervisor.sandbox.session_groups import NO_GROUP, Group, SessionGroups
from supervisor.sandbox.spares import Spares

# How long frozen sessions wait for a restarted daemon (ARCHITECTURE.md, "When a process dies").
TAKE_BACK_S: Final = 10.0
# Owner on disk of an overlay's own files in root's sessions, where id 0 stands for the agent.
UNOWNED_ID: Final = AGENT_UID_LAST + 1
HAND_MODULE: Final = "supervisor.workspace.hand"


@dataclass(slots=True)
class Tree:
    """A running sandbox (or one `exec` in it, or a hand): its first process and, where there is one, its cgroup."""

    key: str
    pid: int
    pidfd: int
    kind: str
    group: Group = NO_GROUP
    frozen: bool = False


class Launcher:
    """Serve one daemon's control socket until it ends."""

    def __init__(
        self,
        control: socket.socket,
        rootless: bool,
        site: tuple[str, ...] = (),
        programs: Mapping[str, str] = workers.PROGRAMS,
    ) -> None:
        self._control = control
        self._rootless = rootless
        self._site = site
        self._programs = programs
        self._trees: dict[str, Tree] = {}
        self._lifeline_r, self._lifeline_w = os.pipe2(os.O_CLOEXEC)
        self._init_fd = _open_init()
        self._groups = SessionGroups()
        self._spares = Spares(self._groups, self._start_spare)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._mounts_fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll.register(self._mounts_fd, select.POLLPRI)
        self._by_pidfd: dict[int, Tree] = {}
        self._farewell = False

    def serve(self) -> None:
        """Answer until the daemon says farewell or dies; then end every session."""
        seqpacket.send_json(
            self._control,
            {
                "event": "ready",
                "cgroup": bool(self._groups),
                "cgroup_finding": self._groups.finding,
                "controllers": list(self._groups.controllers),
            },
        )
        while self._wait_once(None if self._spares.has_bare else 0):
            pass
        self._spares.drop_all()
        self._end_all()

    def _wait_once(self, timeout_ms: int | None) -> bool:
        events = self._poll.poll(timeout_ms)
        if not events and timeout_ms == 0:
            self._spares.make_bare()
            events = self._poll.poll(None)
        if any(fd == self._mounts_fd for fd, _events in events):
            self._spares.drop_bases()  # before a session of the same round takes one
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
        if what in ("exec", "hand", "worker"):
            tree = {"exec": self._exec, "hand": self._hand, "worker": self._worker}[what](request, fds)
            return (tree.pidfd,), [], {"pid": tree.pid}
        if what == "withdraw":
            return (), [], {"ended": not self._withdraw(request, fds)}
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
        if what == "build":
            self._spares.build(str(request["base"]), fds[0])
        elif what == "grant":
            self._grant(request, fds)
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
        spare, has_base = self._spares.take(str(request.get("base") or ""))
        try:
            spare.group.limit(request.get("limits") or {})
            seqpacket.send(spare.gate, child.PLAN, (fds[0],))
        except BaseException:
            self._spares.drop(spare)
            raise
        spare.gate.close()
        return self._keep(Tree(key, spare.pid, spare.pidfd, "session", spare.group)), has_base

    def _start_spare(self, gate: socket.socket) -> NoReturn:
        child.start_spare(gate, self._init_fd, self._lifeline_r, self._rootless)

    def _exec(self, request: dict[str, Any], fds: list[int]) -> Tree:
        target = self._trees[str(request["id"])]
        pid, pidfd = clone3(0, target.group.fd if target.group else None)
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

    def _worker(self, request: dict[str, Any], fds: list[int]) -> Tree:
        name, uid = str(request["program"]), workers.check_uid(request.get("uid"), self._rootless)
        module = self._programs.get(name)
        if module is None:
            raise RefusedError(f"launcher: no worker {name!r:.40}; want one of {', '.join(self._programs)}")
        pid, pidfd = clone3(workers.NAMESPACES)
        if pid == 0:
            sock = socket.socket(fileno=fds[0])
            workers.start_worker(sock, name, module, self._site, uid, self._lifeline_r, self._rootless)
        return self._keep(Tree(f"worker-{name}/{pid}", pid, pidfd, "worker"))

    def _helper(self, what: str, fds: list[int]) -> None:
        pid, pidfd = clone3(0)
        if pid == 0:
            start = child.start_review if what == "review" else child.start_probe
            start(socket.socket(fileno=fds[0]))
        self._keep(Tree(f"{what}/{pid}", pid, pidfd, what))

    def _running(self, request: dict[str, Any]) -> Tree | None:
        tree = self._trees.get(str(request["id"]))
        return tree if tree is not None and tree.kind == "session" else None

    def _grant(self, request: dict[str, Any], fds: list[int]) -> None:
        target = self._running(request)
        if target is None:
            raise LookupError(f"no running session {request['id']}")
        pid, pidfd = clone3(0)
        if pid == 0:
            live.start_grant(socket.socket(fileno=fds[0]), target.pidfd)
        self._keep(Tree(f"grant{pid}/{target.key}", pid, pidfd, "grant"))

    def _withdraw(self, request: dict[str, Any], fds: list[int]) -> bool:
        """Start taking mounts back; returns whether there is a session to take them from."""
        target = self._running(request)
        if target is None:
            return False
        pid, pidfd = clone3(0)
        if pid == 0:
            site = withdrawal.Site(target.pidfd, target.group.fd, target.frozen)
            withdrawal.start_withdrawal(socket.socket(fileno=fds[0]), site)
        self._keep(Tree(f"withdraw{pid}/{target.key}", pid, pidfd, "withdraw"))
        return True

    def _after_withdrawal(self, session: str, failed: bool) -> None:
        """Let the session go on, unless somebody else has it frozen, or another withdrawal is under way."""
        target = self._trees.get(session)
        others = any(tree.kind == "withdraw" and tree.key.endswith(f"/{session}") for tree in self._trees.values())
        if target is None or others or not (target.group or target.frozen or failed):
            return
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self._set_frozen(target, target.frozen)

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
        if tree.group:
            cgroup.set_frozen(tree.group.fd, frozen)
        else:
            signal_all_inside(tree.pidfd, signal.SIGSTOP if frozen else signal.SIGCONT)
        tree.frozen = frozen
        return (time.monotonic() - start) * 1000

    def _kill(self, tree: Tree) -> None:
        if tree.group and tree.kind == "session":
            cgroup.kill(tree.group.fd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(tree.pidfd, signal.SIGKILL)

    def _reap(self, tree: Tree) -> None:
        _pid, status = os.waitpid(tree.pid, 0)
        self._poll.unregister(tree.pidfd)
        del self._by_pidfd[tree.pidfd]
        del self._trees[tree.key]
        os.close(tree.pidfd)
        oom_kills = cgroup.oom_kills(tree.group.fd) if tree.group else 0
        self._groups.drop(tree.group)
        session, _, execution = tree.key.partition("/")
        if tree.kind == "withdraw":
            self._after_withdrawal(execution, status != 0)
        if tree.kind in ("review", "probe", "grant", "withdraw"):
            return
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
        self._groups.close()
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
    path = find_init()
    if path is None:
        raise RefusedError(f"no init found: want one of {', '.join(INIT_PROGRAMS)}", "apt-get install tini")
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _wait_for_inner(pid: int) -> int:
    """Wait for an `exec`'s inner process; a death by signal N becomes 128+N, as a shell says it."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _signal_children(pid: int, number: int) -> None:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for word in file.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), number)


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


def main(
    control_fd: int, rootless: bool, site: tuple[str, ...] = (), programs: Mapping[str, str] = workers.PROGRAMS
) -> None:
    """Serve the daemon at the other end of *control_fd*, which started this program.

    Args:
        site: Where workers find third-party packages.
        programs: Name → module of the workers; the starter's word, never a request's.
    """
    _prepare_process()
    _serve(socket.socket(fileno=control_fd), rootless, site, programs)


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
            _serve(control, False, workers.site_directories(), workers.PROGRAMS)
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


def _serve(control: socket.socket, rootless: bool, site: tuple[str, ...], programs: Mapping[str, str]) -> None:
    control.set_inheritable(False)
    try:
        Launcher(control, rootless, site, programs).serve()
    except DeskwardenError as error:
        with contextlib.suppress(OSError):
            seqpacket.send_json(control, {"event": "failed", "error": to_wire(error)})
