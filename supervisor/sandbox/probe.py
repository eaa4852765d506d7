"""Find out what this machine has by doing it: each layer is really made, used and read back.

Every probe runs in a child of its own, inside namespaces of its own, with a deadline, so nothing it made outlives it;
the one thing outside namespaces, a cgroup directory, is removed by name. Call from a single-threaded process.
Root or not is one code: without CAP_SYS_ADMIN a probe enters a user namespace first, as the rootless daemon does.
Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from supervisor.linux import cgroup, clone, keyring, landlock, mount, mountinfo, netlink, prctl, seccomp
from supervisor.linux.clone import CloneFlags
from supervisor.linux.libc import check, libc, syscall
from supervisor.sandbox.layers import LAYERS, LayerState, State
from supervisor.sandbox.machine import is_initial_root

TIMEOUT_S: Final = 5.0
SYSTEM_OVERLAY: Final = {"index": "on", "nfs_export": "on", "redirect_dir": "on", "metacopy": "off", "xino": "on"}
INIT_PROGRAMS: Final = ("tini-static", "catatonit", "dumb-init", "tini")
PROGRAM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman"

_AS_ROOT: Final = "install the system service: it runs as root"
_APPARMOR: Final = (
    "Ubuntu's AppArmor limit: install the package's AppArmor profile, or "
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)
_SPARE_UID: Final = 61_234
_NOBODY: Final = 65_534

# What a probe returns: the detail, when the layer is present. Everything else is raised.
Probe = Callable[[], str]


class _Needs(Exception):
    """The layer can be had here."""

    def __init__(self, detail: str, remedy: str = "") -> None:
        super().__init__(detail)
        self.remedy = remedy


class _Absent(Exception):
    """This kernel does not do it."""


def probe_all(timeout_s: float = TIMEOUT_S) -> tuple[LayerState, ...]:
    """Probe every layer of the table, in its order; never raises for what it finds."""
    return tuple(probe(name, timeout_s) for name in LAYERS)


def probe(name: str, timeout_s: float = TIMEOUT_S) -> LayerState:
    """Probe one layer in a child of its own; a probe that is late or dies is an absent layer.

    Raises:
        KeyError: No such layer.
    """
    layer, action = LAYERS[name], _PROBES[name]
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(name, action, write_end)
    os.close(write_end)
    try:
        answer = _read_until(read_end, time.monotonic() + timeout_s)
    finally:
        os.close(read_end)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _remove_cgroup(pid)
    if not answer:
        return LayerState(name, State.ABSENT, f"the probe gave no answer within {timeout_s:g} s", layer.remedy)
    state, detail, remedy = json.loads(answer)
    return LayerState(name, State(state), detail, remedy)


def _child(name: str, action: Probe, write_end: int) -> None:
    try:
        os.setsid()
        prctl.set_pdeathsig(signal.SIGKILL)
        os.write(write_end, json.dumps(_judge(name, action)).encode())
    finally:
        os._exit(0)


def _judge(name: str, action: Probe) -> tuple[str, str, str]:
    remedy = LAYERS[name].remedy
    try:
        return State.PRESENT, action(), ""
    except _Needs as needs:
        return State.NEEDS, str(needs), needs.remedy or remedy
    except _Absent as absent:
        return State.ABSENT, str(absent), _kernel_remedy(name)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        detail = f"{code}: {error.strerror}"
        if error.errno in (errno.EPERM, errno.EACCES):
            return State.NEEDS, detail, remedy if is_initial_root() else _permission_remedy(remedy)
        if error.errno in (errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.EROFS):
            return State.NEEDS, detail, remedy
        return State.ABSENT, detail, _kernel_remedy(name)


def _permission_remedy(remedy: str) -> str:
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return _APPARMOR
    return remedy


def _kernel_remedy(name: str) -> str:
    layer = LAYERS[name]
    return f"Linux {layer.since} or later; {layer.remedy}" if layer.since != "-" else layer.remedy


def _read_until(fd: int, deadline: float) -> bytes:
    answer = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        part = os.read(fd, 65536)
        if not part:
            break
        answer += part
        if answer.endswith(b"]"):
            break
    return answer


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


# Places that vanish with the child.


def _enter(flags: int) -> None:
    """Enter new namespaces, through a user namespace of our own when we may not otherwise."""
    try:
        clone.unshare(flags)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        clone.unshare(CloneFlags.NEWUSER | flags)
        clone.map_own_ids(0, uid, 0, gid)


def _scratch(size: str = "16m") -> str:
    """Mount a private tmpfs over the temporary directory of this child alone; returns its path."""
    place = tempfile.gettempdir()
    _enter(CloneFlags.NEWNS)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    fd = mount.new_mount("tmpfs", {"size": size, "mode": "0700"})
    mount.move_mount(fd, mount.AT_FDCWD, place)
    os.close(fd)
    return place


def _overlay(tree: int | None = None) -> tuple[str, str]:
    """Mount an overlay in the scratch place as sessions do, over the detached *tree* if given; (merged, lower)."""
    place = _scratch()
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{place}/{name}")
    # Another file system than the upper's, else the kernel needs no xino and does not show it.
    fd = mount.new_mount("tmpfs", {"size": "1m"})
    if tree is None:
        Path(f"/proc/self/fd/{fd}/old").write_text("lower")
    # Attached, since an overlay takes no detached layer before Linux 6.15.
    mount.move_mount(fd if tree is None else tree, mount.AT_FDCWD, f"{place}/lower")
    os.close(fd)
    options: dict[str, str | bytes | None] = {
        "lowerdir": f"{place}/lower",
        "upperdir": f"{place}/upper",
        "workdir": f"{place}/work",
    }
    options |= SYSTEM_OVERLAY if is_initial_root() else {"userxattr": None}
    fd = mount.new_mount("overlay", options)
    mount.move_mount(fd, mount.AT_FDCWD, f"{place}/merged")
    os.close(fd)
    return f"{place}/merged", f"{place}/lower"


def _in_grandchild(body: Callable[[], None]) -> None:
    """Run *body* in a fork (PID 1 after unshare of the pid namespace); its OSError is raised here."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            body()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 255 or code < 0:
        raise _Absent(f"it does not hold (exit {code})")
    if code:
        raise OSError(code, os.strerror(code))


def _expect(holds: bool, text: str) -> None:
    if not holds:
        raise _Absent(text)


# Namespaces.


def _namespace(kind: str, flag: CloneFlags) -> Probe:
    def action() -> str:
        before = os.readlink(f"/proc/self/ns/{kind}")
        _enter(flag)
        _expect(os.readlink(f"/proc/self/ns/{kind}") != before, "unshare left the old namespace in place")
        return "made"

    return action


def _pid_namespace() -> str:
    _enter(CloneFlags.NEWPID)

    def body() -> None:
        if os.getpid() != 1:
            raise OSError(errno.EINVAL, "the first process is not PID 1")

    _in_grandchild(body)
    return "made; the first process is PID 1"


def _net_namespace() -> str:
    _enter(CloneFlags.NEWNET)
    netlink.set_loopback_up()
    names = [name for _, name in socket.if_nameindex()]
    _expect("lo" in names, "no loopback interface")
    return "made; only lo is inside" if names == ["lo"] else f"made; inside: {', '.join(names)}"


def _user_namespace() -> str:
    """As an ordinary user would; the namespace must give its capabilities (Ubuntu's AppArmor may take them)."""
    if os.geteuid() == 0 and is_initial_root():
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        prctl.set_dumpable(True)
    uid, gid = os.geteuid(), os.getegid()
    try:
        clone.unshare(CloneFlags.NEWUSER)
        clone.map_own_ids(0, uid, 0, gid)
        clone.unshare(CloneFlags.NEWNS)
    except OSError as error:
        raise _user_namespace_refusal(error) from error
    return "ordinary users can make one"


def _user_namespace_refusal(error: OSError) -> Exception:
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return _Needs("kernel.apparmor_restrict_unprivileged_userns=1", _APPARMOR)
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return _Needs("kernel.unprivileged_userns_clone=0", "sysctl -w kernel.unprivileged_userns_clone=1")
    if _sysctl("user/max_user_namespaces") == "0":
        return _Needs("user.max_user_namespaces=0", "sysctl -w user.max_user_namespaces=15000")
    return error


# Mounts.


def _mount_api() -> str:
    _scratch()
    fd = os.open("/usr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mount.clone_tree(fd)
    mount.mount_setattr(tree, mount.MountAttr.RDONLY | mount.MountAttr.NOSUID)
    mount.move_mount(tree, mount.AT_FDCWD, tempfile.gettempdir())
    try:
        os.close(os.open(f"{tempfile.gettempdir()}/probe", os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        _expect(error.errno == errno.EROFS, f"a read-only mount answers {error.strerror}")
        return "open_tree, mount_setattr, move_mount"
    raise _Absent("a mount that was made read-only can be written")


def _overlay_works() -> str:
    merged, lower = _overlay()
    Path(merged, "old").write_text("upper")
    Path(merged, "new").write_text("upper")
    _expect(Path(lower, "old").read_text() == "lower", "a write reached the lower directory")
    _expect(not Path(lower, "new").exists(), "a new file reached the lower directory")
    os.unlink(f"{merged}/old")
    _expect(not Path(merged, "old").exists() and Path(lower, "old").exists(), "a delete reached the lower directory")
    return "system options" if is_initial_root() else "rootless: userxattr (hard links break, no file handles)"


def _overlay_index() -> str:
    if not is_initial_root():
        raise _Needs("a user namespace drops index, nfs_export and redirect_dir", _AS_ROOT)
    merged, _ = _overlay()
    found = next(item for item in mountinfo.read() if item.mount_point == os.fsencode(merged))
    lost = [f"{key}={value}" for key, value in SYSTEM_OVERLAY.items() if f"{key}={value}" not in found.super_options]
    # metacopy=off is the default on most kernels and then not shown.
    lost = [option for option in lost if option != "metacopy=off" or "metacopy=on" in found.super_options]
    _expect(not lost, f"silently dropped by the kernel: {', '.join(lost)}")
    return "read back: index, nfs_export, redirect_dir, xino"


def _idmapped_tree() -> int:
    """Return a detached bind of /usr that shows root's files as the spare uid's."""
    if not is_initial_root():
        raise _Needs("needs the file system's own user namespace", _AS_ROOT)
    namespace = clone.new_id_mapping(f"0 {_SPARE_UID} 1", f"0 {_SPARE_UID} 1")
    fd = os.open("/usr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mount.clone_tree(fd)
    mount.mount_setattr(tree, mount.MountAttr.IDMAP, userns_fd=namespace)
    _expect(os.stat(f"/proc/self/fd/{tree}/").st_uid == _SPARE_UID, "the mapping does not show")
    return tree


def _idmapped_mounts() -> str:
    tree = _idmapped_tree()
    merged, _ = _overlay(tree)
    _expect(os.stat(merged + "/bin").st_uid == _SPARE_UID, "the mapping does not show through the overlay")
    return "also below an overlay"


def _agent_uid() -> str:
    tree = _idmapped_tree()
    os.setgroups([])
    os.setresgid(_SPARE_UID, _SPARE_UID, _SPARE_UID)
    os.setresuid(_SPARE_UID, _SPARE_UID, _SPARE_UID)
    _expect(os.stat(".", dir_fd=tree).st_uid == os.geteuid(), "the agent does not own what it sees")
    return "pooled user ids over idmapped mounts"


def _quota() -> str:
    place = _scratch("1m")
    try:
        Path(place, "big").write_bytes(b"x" * (2 << 20))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        project = any({"prjquota", "pquota"} & set(item.super_options) for item in mountinfo.read())
        return "sized tmpfs; project quota too" if project else "sized tmpfs; no mounted file system has project quota"
    raise _Absent("a tmpfs took more than its size")


# Landlock.


def _landlock() -> str:
    abi = landlock.abi_version()
    if not abi:
        raise _Needs("not built in, or switched off at boot")
    ruleset = landlock.create_ruleset(abi)
    usr = landlock.open_path("/usr")
    landlock.allow_beneath(ruleset, usr, landlock.READ, abi)
    prctl.set_no_new_privs()
    landlock.restrict_self(ruleset)
    os.listdir("/usr")
    try:
        os.listdir("/etc")
    except PermissionError:
        return f"ABI {abi}"
    raise _Absent("a ruleset that allows /usr alone leaves /etc open")


def _landlock_abi(wanted: int, fs: int = 0, net: int = 0, scoped: int = 0) -> Probe:
    def action() -> str:
        abi = landlock.abi_version()
        if not abi:
            raise _Needs("not built in, or switched off at boot")
        _expect(abi >= wanted, f"ABI {abi}, needs {wanted}")
        attr = landlock.RulesetAttr(fs or int(landlock.AccessFs.READ_FILE), net, scoped)
        size = ctypes.c_size_t(24 if scoped else 16 if net else 8)
        ruleset = syscall("landlock_create_ruleset", ctypes.byref(attr), size, ctypes.c_uint(0))
        prctl.set_no_new_privs()
        flags = 1 if wanted >= 7 else 0  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
        syscall("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(flags))
        return f"ABI {abi}"

    return action


# Seccomp and process attributes.


def _filter_for(number: int, action: int) -> bytes:
    """Return a filter that answers *action* for one system call and allows the rest (linux/filter.h)."""
    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


# getpriority: harmless, and no library calls it behind our back.
_GETPRIORITY: Final = {"x86_64": 140, "aarch64": 141}
_KEY_NUMBER: Final = _GETPRIORITY.get(os.uname().machine, 141)


def _seccomp() -> str:
    prctl.set_no_new_privs()
    seccomp.load_filter(_filter_for(_KEY_NUMBER, 0x00050000 | errno.EXDEV))
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as error:
        _expect(error.errno == errno.EXDEV, "the filter does not answer")
    else:
        raise _Absent("the filter does not answer")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise _Needs("the kernel filters, but libseccomp is missing", "apt install libseccomp2") from error
    return "filters; libseccomp is here"


_NOTIF_RECV: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV, struct seccomp_notif is 80 bytes
_NOTIF_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND, struct seccomp_notif_resp is 24 bytes
_CONTINUE: Final = 1


def _seccomp_notify() -> str:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            prctl.set_no_new_privs()
            program = _filter_for(_KEY_NUMBER, 0x7FC00000)
            listener = seccomp.load_filter(program, seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)
            socket.send_fds(theirs, [b"x"], [listener])
            os.close(listener)
            os.getpriority(os.PRIO_PROCESS, 0)
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    theirs.close()
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    if listeners:
        request = bytearray(80)
        fcntl.ioctl(listeners[0], _NOTIF_RECV, request)
        (number,) = struct.unpack_from("=Q", request)
        fcntl.ioctl(listeners[0], _NOTIF_SEND, bytearray(struct.pack("=QqiI", number, 0, 0, _CONTINUE)))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code > 0 and code != 255:
        raise OSError(code, os.strerror(code))
    _expect(code == 0 and bool(listeners), "no notification arrived")
    return "a call waited for its answer"


def _no_new_privs() -> str:
    prctl.set_no_new_privs()
    _expect("NoNewPrivs:\t1" in Path("/proc/self/status").read_text(), "the flag does not show")
    return "set"


def _pidfd() -> str:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "opened and signalled"


def _rlimits() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.memfd_create("probe")
    try:
        os.pwrite(fd, b"x", 8192)
    except OSError as error:
        _expect(error.errno == errno.EFBIG, f"the file size limit answers {error.strerror}")
        return "file size, open files, core"
    raise _Absent("the file size limit does not hold")


def _keyring() -> str:
    keyring.join_new_session_keyring()
    return "a session keyring of its own"


def _own_pty() -> str:
    _enter(CloneFlags.NEWNS)
    devices = mount.new_mount("devpts", {"ptmxmode": "0666", "mode": "620"})
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devices)
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK
    slave = os.open("0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devices)
    os.write(slave, b"x")
    _expect(os.read(master, 1) == b"x", "nothing passes through the terminal")
    return "a devpts instance of its own"


def _memfd_noexec() -> str:
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        raise _Absent("no vm.memfd_noexec")
    _enter(CloneFlags.NEWPID)

    def body() -> None:
        with open("/proc/sys/vm/memfd_noexec", "w", encoding="ascii") as file:
            file.write("2")
        try:
            os.memfd_create("probe", 0x10)  # MFD_EXEC
        except PermissionError:
            return
        raise OSError(errno.EINVAL, "an executable memfd was made")

    try:
        _in_grandchild(body)
    except PermissionError as error:
        raise _Needs("only the machine's root may set it for a pid namespace", _AS_ROOT) from error
    return "vm.memfd_noexec=2 in a pid namespace of its own"


# Control groups.


def _cgroup_name(pid: int) -> str:
    return f"deskwarden-probe-{pid}"


def _cgroup_parent() -> str:
    root = cgroup.hierarchy()
    if root is None:
        raise _Needs("no version 2 hierarchy is mounted")
    own = cgroup.own_group()
    parent = root if own == "/" else root + own
    if not os.path.isdir(parent):
        raise _Needs(f"the own group {own} is not visible below {root}")
    return parent


def _remove_cgroup(pid: int) -> None:
    with suppress(OSError, _Needs):
        path = f"{_cgroup_parent()}/{_cgroup_name(pid)}"
        for _ in range(50):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return
                time.sleep(0.01)


@contextmanager
def _cgroup_with_process() -> Iterator[tuple[int, int, int]]:
    """Make a group with one sleeping process in it; yields (directory, pid, pidfd). The prober removes the group."""
    parent = _cgroup_parent()
    path = f"{parent}/{_cgroup_name(os.getpid())}"
    try:
        os.mkdir(path)
    except PermissionError as error:
        raise _Needs(f"{parent} is not delegated to uid {os.geteuid()}") from error
    directory = cgroup.open_dir(path)
    try:
        pid, pidfd = clone.clone3(0, directory)
    except PermissionError as error:
        raise _Needs(f"no process may be started in {parent}") from error
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        yield directory, pid, pidfd
    finally:
        with suppress(OSError):
            cgroup.set_frozen(directory, False)
        with suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(pid, 0)


def _cgroup_kill() -> str:
    with _cgroup_with_process() as (directory, pid, _):
        try:
            cgroup.kill(directory)
        except FileNotFoundError as error:
            raise _Absent("no cgroup.kill") from error
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _expect(code == -signal.SIGKILL, "the process in the group lives on")
    return "a process in a group was killed"


def _cgroup_freeze() -> str:
    with _cgroup_with_process() as (directory, _, _):
        try:
            _expect(cgroup.set_frozen(directory, True), "the group does not freeze")
        except FileNotFoundError as error:
            raise _Absent("no cgroup.freeze") from error
    return "a group was frozen and thawed"


def _cgroup_limits() -> str:
    with _cgroup_with_process() as (directory, _, _):
        usable = {name for name in ("memory", "pids") if _has(directory, f"{name}.max")}
        if usable == {"memory", "pids"}:
            cgroup.set_limit(directory, "pids.max", "64")
            cgroup.set_limit(directory, "memory.max", str(256 << 20))
            return "memory, pids"
        parent = _cgroup_parent()
        offered = set(Path(parent, "cgroup.controllers").read_text().split())
    if {"memory", "pids"} <= offered:
        raise _Needs(
            f"memory and pids are not enabled for the groups in {parent}",
            f"echo '+memory +pids' > {parent}/cgroup.subtree_control, or Delegate=yes in the unit",
        )
    there = " ".join(sorted(offered)) or "nothing"
    raise _Needs(f"{parent} offers {there} to its groups, not memory and pids")


def _has(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


# Watching, network, programs.


_FAN_FID_NAME: Final = 0x1 | 0x2 | 0x80 | 0x200 | 0x400 | 0x800 | 0x1000  # CLOEXEC NONBLOCK PIDFD FID DIR NAME TARGET
_FAN_MARK_FILESYSTEM: Final = 0x1 | 0x100
_FAN_CREATE: Final = 0x100


def _fanotify_mark() -> str:
    if not is_initial_root():
        raise _Needs("a mark on a whole file system needs root", _AS_ROOT)
    merged, _ = _overlay()
    group = check(libc.fanotify_init(ctypes.c_uint(_FAN_FID_NAME), ctypes.c_uint(os.O_RDONLY)), "fanotify_init")
    mask = ctypes.c_uint64(_FAN_CREATE)
    place = ctypes.c_char_p(os.fsencode(merged))
    marked = libc.fanotify_mark(ctypes.c_int(group), ctypes.c_uint(_FAN_MARK_FILESYSTEM), mask, -100, place)
    check(marked, "fanotify_mark", merged)
    Path(merged, "seen").touch()
    _expect(b"seen" in os.read(group, 4096), "the event has no name")
    return "an overlay's create event with name and pidfd"


def _inotify() -> str:
    place = _scratch()
    fd = check(libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)), "inotify_init1")
    check(
        libc.inotify_add_watch(ctypes.c_int(fd), ctypes.c_char_p(os.fsencode(place)), ctypes.c_uint32(0x100)), "watch"
    )
    Path(place, "seen").touch()
    _expect(b"seen" in os.read(fd, 4096), "the event has no name")
    return "a create event with its name"


_RULES: Final = """
table inet probe {
  chain out {
    type nat hook output priority -100
    meta l4proto tcp redirect to :9
  }
  chain refuse {
    type filter hook output priority -150
    tcp flags & (syn | ack) == syn tcp dport 1 reject with tcp reset
  }
}
"""


def _nftables() -> str:
    nft = shutil.which("nft", path=PROGRAM_PATH)
    if nft is None:
        raise _Needs("the program nft is missing", "apt install nftables")
    _enter(CloneFlags.NEWNET)
    netlink.set_loopback_up()
    run = subprocess.run([nft, "-f", "-"], input=_RULES.encode(), capture_output=True, check=False, timeout=TIMEOUT_S)
    if run.returncode:
        text = (run.stderr.decode(errors="replace").strip() or f"nft ended with {run.returncode}").splitlines()[0]
        raise _Needs(text[:200], "modprobe -a nf_tables nft_redir nft_chain_nat nft_reject_inet")
    return "a redirect and a reset rule were loaded"


def _tpm() -> str:
    for device in ("/dev/tpmrm0", "/dev/tpm0"):
        if os.path.exists(device):
            try:
                os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
            except PermissionError as error:
                raise _Needs(f"{device} may not be opened", "add the service's user to the group tss") from error
            return device
    emulator = " (swtpm, the emulator for tests, is installed)" if shutil.which("swtpm", path=PROGRAM_PATH) else ""
    raise _Absent(f"no /dev/tpmrm0{emulator}")


def _init() -> str:
    """Run the program as PID 1 of a pid namespace, as sessions do."""
    found = find_init()
    if found is None:
        raise _Needs(f"none of {', '.join(INIT_PROGRAMS)} is installed")
    _enter(CloneFlags.NEWPID)

    def body() -> None:
        # The exec keeps PID 1; its exit status is true's.
        os.execv(found, [found, "--", "/bin/true"])

    _in_grandchild(body)
    return f"{found}{'' if is_static(found) else ' (dynamically linked)'}"


def find_init() -> str | None:
    """Return the path of the first init program that is installed, in the order of `INIT_PROGRAMS`."""
    found = (shutil.which(name, path=PROGRAM_PATH) for name in INIT_PROGRAMS)
    return next((path for path in found if path), None)


def is_static(path: str) -> bool:
    """Return whether the 64-bit ELF program at *path* names no loader (PT_INTERP, elf(5))."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    return all(struct.unpack_from("<I", table, index * size)[0] != 3 for index in range(count))


_PROBES: Final[Mapping[str, Probe]] = {
    "mount-namespace": _namespace("mnt", CloneFlags.NEWNS),
    "pid-namespace": _pid_namespace,
    "net-namespace": _net_namespace,
    "ipc-namespace": _namespace("ipc", CloneFlags.NEWIPC),
    "uts-namespace": _namespace("uts", CloneFlags.NEWUTS),
    "cgroup-namespace": _namespace("cgroup", CloneFlags.NEWCGROUP),
    "user-namespace": _user_namespace,
    "mount-api": _mount_api,
    "overlay": _overlay_works,
    "overlay-index": _overlay_index,
    "idmapped-mounts": _idmapped_mounts,
    "landlock": _landlock,
    "landlock-refer": _landlock_abi(2, fs=landlock.AccessFs.REFER),
    "landlock-truncate": _landlock_abi(3, fs=landlock.AccessFs.TRUNCATE),
    "landlock-net": _landlock_abi(4, net=3),
    "landlock-ioctl": _landlock_abi(5, fs=landlock.AccessFs.IOCTL_DEV),
    "landlock-scope": _landlock_abi(6, scoped=3),
    "landlock-log": _landlock_abi(7),
    "seccomp": _seccomp,
    "seccomp-notify": _seccomp_notify,
    "no-new-privs": _no_new_privs,
    "pidfd": _pidfd,
    "cgroup-kill": _cgroup_kill,
    "cgroup-freeze": _cgroup_freeze,
    "cgroup-limits": _cgroup_limits,
    "rlimits": _rlimits,
    "quota": _quota,
    "keyring": _keyring,
    "own-pty": _own_pty,
    "memfd-noexec": _memfd_noexec,
    "fanotify-mark": _fanotify_mark,
    "inotify": _inotify,
    "nftables": _nftables,
    "tpm": _tpm,
    "init": _init,
    "agent-uid": _agent_uid,
}
