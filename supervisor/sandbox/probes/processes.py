"""Probes of system call filters and of what a process can be given or denied. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import Final

from supervisor.linux import keyring, mount, prctl, seccomp
from supervisor.linux.clone import CloneFlags
from supervisor.sandbox.probes.outcome import AS_ROOT, Absent, Needs, expect
from supervisor.sandbox.probes.place import enter, in_grandchild


def _filter_for(number: int, action: int) -> bytes:
    """Return a filter that answers *action* for one system call and allows the rest (linux/filter.h)."""
    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


# getpriority: harmless, and no library calls it behind our back.
_GETPRIORITY: Final = {"x86_64": 140, "aarch64": 141}
_KEY_NUMBER: Final = _GETPRIORITY.get(os.uname().machine, 141)


def seccomp_works() -> str:
    prctl.set_no_new_privs()
    seccomp.load_filter(_filter_for(_KEY_NUMBER, 0x00050000 | errno.EXDEV))
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as error:
        expect(error.errno == errno.EXDEV, "the filter does not answer")
    else:
        raise Absent("the filter does not answer")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Needs("the kernel filters, but libseccomp is missing", "apt install libseccomp2") from error
    return "filters; libseccomp is here"


_NOTIF_RECV: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV, struct seccomp_notif is 80 bytes
_NOTIF_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND, struct seccomp_notif_resp is 24 bytes
_CONTINUE: Final = 1


def seccomp_notify() -> str:
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
    expect(code == 0 and bool(listeners), "no notification arrived")
    return "a call waited for its answer"


def no_new_privs() -> str:
    prctl.set_no_new_privs()
    expect("NoNewPrivs:\t1" in Path("/proc/self/status").read_text(), "the flag does not show")
    return "set"


def pidfd() -> str:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "opened and signalled"


def rlimits() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.memfd_create("probe")
    try:
        os.pwrite(fd, b"x", 8192)
    except OSError as error:
        expect(error.errno == errno.EFBIG, f"the file size limit answers {error.strerror}")
        return "file size, open files, core"
    raise Absent("the file size limit does not hold")


def own_keyring() -> str:
    keyring.join_new_session_keyring()
    return "a session keyring of its own"


def own_pty() -> str:
    enter(CloneFlags.NEWNS)
    devices = mount.new_mount("devpts", {"ptmxmode": "0666", "mode": "620"})
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devices)
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK
    slave = os.open("0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devices)
    os.write(slave, b"x")
    expect(os.read(master, 1) == b"x", "nothing passes through the terminal")
    return "a devpts instance of its own"


def memfd_noexec() -> str:
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        raise Absent("no vm.memfd_noexec")
    enter(CloneFlags.NEWPID)

    def body() -> None:
        with open("/proc/sys/vm/memfd_noexec", "w", encoding="ascii") as file:
            file.write("2")
        try:
            os.memfd_create("probe", 0x10)  # MFD_EXEC
        except PermissionError:
            return
        raise OSError(errno.EINVAL, "an executable memfd was made")

    try:
        in_grandchild(body)
    except PermissionError as error:
        raise Needs("only the machine's root may set it for a pid namespace", AS_ROOT) from error
    return "vm.memfd_noexec=2 in a pid namespace of its own"
