"""The operations that build a sandbox: values with `describe()` for people and `execute()` for the launcher.

An operation names what it mounts by the *index of a descriptor* that came with the plan, never by a path: whoever
opened it was the owner's hand. Targets are resolved below the new root with symlinks refused by the kernel, and a
directory is created only on the root's own tmpfs, so a mount target never makes a file on a real disk.

Standard library only: runs in the launcher's child between clone and exec.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import stat
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

from supervisor.linux import fuse, mount
from supervisor.linux.keyring import join_new_session_keyring
from supervisor.linux.mount import MountAttr
from supervisor.linux.mountinfo import Mount, mount_id_of, read
from supervisor.linux.netlink import set_loopback_up
from supervisor.linux.openat2 import openat2
from supervisor.sandbox import stubs
from supervisor.sandbox.root_tree import RESOLVE_STRICT, RootTree

Fd = int
# asm-generic/ioctls.h; the termios module has neither.
TIOCSPTLCK: Final = 0x40045431
TIOCGPTPEER: Final = 0x5441
# The source of every tmpfs that a plan makes: how a later child knows it from one of the host's (`live_tree`).
OWN_TMPFS: Final = "deskwarden"
# Where the new root is attached until pivot_root; hidden by it for this process alone.
_SCAFFOLD: Final = "/tmp"
# Where the layers of overlays are attached meanwhile, stacked; `Seal` lets all of them go.
_ATTIC: Final = "/.layers"
# Where the file system of the stubs is attached: what the plan mounts on /run afterwards covers it for good.
_STUBS: Final = "/run/ask"
_LIMITS: Final = {
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
}


@dataclass(slots=True)
class Context:
    """What the operations of one plan share while they run.

    Attributes:
        fds: The descriptors that came with the plan, by the index that the plan has for them.
        attic: Where layers are attached for overlays, on kernels that want that.
        findings: Layers that are not as asked for but were allowed to be so, for the enforcement report.
        stubs: Descriptors of the stubs by number, and *stubs_device* what answers for them; -1 without any.
    """

    fds: Mapping[int, int]
    detached: dict[int, list[int]] = field(default_factory=dict)
    tree: RootTree | None = None
    overlays: dict[int, Overlay] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    attic: int | None = None
    stubs: dict[int, int] = field(default_factory=dict)
    stubs_device: int = -1

    def source(self, index: Fd) -> int:
        """Return the descriptor behind *index*."""
        return self.fds[index]

    @property
    def root(self) -> RootTree:
        """The new root.

        Raises:
            OSError: No operation made one yet: a plan starts with it.
        """
        if self.tree is None:
            raise OSError(errno.ENOENT, "the plan makes no root before this step")
        return self.tree

    def acquire(self, operations: list[Operation]) -> None:
        """Clone every source into a detached mount.

        To be called in the launcher's mount namespace: the kernel clones only mounts of the caller's own, and the
        descriptors belong to the one that the hand shares with the launcher.
        """
        for operation in operations:
            if isinstance(operation, Bind):
                self.detached[id(operation)] = [mount.clone_tree(self.source(operation.source), operation.recursive)]
            elif isinstance(operation, Overlay):
                layers = operation.lower if operation.stage is None else [*operation.lower, operation.stage]
                self.detached[id(operation)] = [mount.clone_tree(self.source(index)) for index in layers]

    def attach_layers(self, layers: list[int]) -> None:
        """Attach layers where nobody sees them, stacked in a mount of their own, so that all can go in one step."""
        if self.attic is None:
            self.root.directory(f"{_ATTIC}/x", 0o700)
            fd = mount.clone_tree(self.root.directory(_ATTIC))
            try:
                mount.move_mount(fd, self.root.directory(_ATTIC))
                self.attic = openat2(fd, b"x", os.O_PATH | os.O_DIRECTORY, RESOLVE_STRICT)
            finally:
                os.close(fd)
        for layer in layers:
            # Private first: on a peer of a host's mount the next one would show there too.
            mount.mount_setattr(layer, 0, propagation=mount.MS_PRIVATE)
            mount.move_mount(layer, self.attic)

    def close_attic(self) -> None:
        """Let go of attached layers and of their place; overlays keep what they took."""
        if self.attic is not None:
            os.close(self.attic)
            mount.umount2(_ATTIC, mount.MNT_DETACH)
            os.rmdir(f"{_ATTIC}/x")
            os.rmdir(_ATTIC)
            self.attic = None


def _map_ids(fd: int, userns_fd: int) -> None:
    try:
        mount.mount_setattr(fd, MountAttr.IDMAP, userns_fd=userns_fd)
    except OSError as error:
        raise OSError(error.errno, f"id mapping: {os.strerror(error.errno or 0)}") from error


@dataclass(frozen=True, slots=True)
class MakeRoot:
    """A fresh tmpfs becomes the root to be; nothing of the host shows in it."""

    op: ClassVar[str] = "root"
    size_bytes: int = 16 << 20

    def describe(self) -> str:
        return "mount an empty tmpfs as the root"

    def execute(self, context: Context) -> None:
        mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
        fd = mount.new_mount(
            "tmpfs",
            {"source": OWN_TMPFS, "mode": "0755", "size": str(self.size_bytes)},
            MountAttr.NOSUID | MountAttr.NODEV,
        )
        mount.move_mount(fd, mount.AT_FDCWD, _SCAFFOLD)
        context.tree = RootTree(fd)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory on the root's tmpfs; with mode 0 a stub that only marks a place."""

    op: ClassVar[str] = "directory"
    path: str
    mode: int = 0o755

    def describe(self) -> str:
        return f"make directory {self.path} (mode {self.mode:04o})"

    def execute(self, context: Context) -> None:
        if self.mode:
            context.root.directory(self.path, self.mode)
        else:
            context.root.stub(self.path)


@dataclass(frozen=True, slots=True)
class MakeStubs:
    """The file system that the session's stubs are taken from; without it they are empty directories of mode 000."""

    op: ClassVar[str] = "stubs"

    def describe(self) -> str:
        return "mount the file system of what can be asked for"

    def execute(self, context: Context) -> None:
        device = fd = -1
        try:
            device = fuse.open_device()
            fd = fuse.mount_detached(device, stubs.SOURCE, stubs.MOUNT_ATTRIBUTES)
            mount.move_mount(fd, context.root.directory(_STUBS))
            context.root.covered(_STUBS)
            context.stubs = stubs.hold_all(fd, device)
            context.stubs_device, device = device, -1
        except OSError as error:
            context.findings.append(f"opening an ask-list name is not heard of: {error.strerror}: /dev/fuse")
        finally:
            for one in (device, fd):
                if one >= 0:
                    os.close(one)


@dataclass(frozen=True, slots=True)
class Stub:
    """A name that can be asked for: every open of it, or of anything in it, fails and is heard of.

    Attributes:
        kind: ``directory`` or ``file``, as it is for the owner, so that a grant can lie over it.
        number: Of the file system's node; 0 for a directory that nobody may open.
    """

    op: ClassVar[str] = "stub"
    path: str
    kind: str
    number: int

    def describe(self) -> str:
        return f"can be asked for: {self.path}"

    def execute(self, context: Context) -> None:
        source = context.stubs.get(self.number)
        if source is None:
            context.root.stub(self.path)
            return
        parent, name = context.root.parent_to_fill(self.path)
        try:
            if self.kind == "directory":
                os.mkdir(name, 0, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0, dir_fd=parent))
        except FileExistsError:
            return
        fd = mount.clone_tree(source)
        try:
            # Nobody else is in this tree yet: the name is the one that was just made.
            mount.move_mount(fd, parent, name)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    """A symlink on the root's tmpfs, such as ``bin -> usr/bin``."""

    op: ClassVar[str] = "symlink"
    path: str
    target: str

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"

    def execute(self, context: Context) -> None:
        directory, name = context.root.parent_to_fill(self.path)
        os.symlink(os.fsencode(self.target), name, dir_fd=directory)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A small file on the root's tmpfs, such as /etc/passwd of the sandbox."""

    op: ClassVar[str] = "file"
    path: str
    text: str

    def describe(self) -> str:
        return f"write {self.path} ({len(self.text)} characters)"

    def execute(self, context: Context) -> None:
        os.close(context.root.file_target(self.path))
        # The last component may be a bind of the host's file by now: only ever write to our own tmpfs.
        fd = context.root.existing(self.path, os.O_RDWR)
        try:
            if not context.root.is_own(fd):
                raise OSError(errno.EEXIST, "is not on the sandbox's own tmpfs", self.path)
            os.ftruncate(fd, 0)
            os.write(fd, os.fsencode(self.text))
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class MountFs:
    """A new file system instance: tmpfs, proc, devpts, mqueue."""

    op: ClassVar[str] = "mount"
    fs_type: str
    path: str
    options: dict[str, str] = field(default_factory=dict)
    read_only: bool = False
    no_exec: bool = True

    def describe(self) -> str:
        options = ",".join(f"{key}={value}" if value else key for key, value in self.options.items())
        return f"mount {self.fs_type} on {self.path}" + (f" ({options})" if options else "")

    def execute(self, context: Context) -> None:
        attributes = MountAttr.NOSUID
        attributes |= MountAttr.RDONLY if self.read_only else MountAttr(0)
        attributes |= MountAttr.NOEXEC if self.no_exec else MountAttr(0)
        if self.fs_type != "devpts":
            attributes |= MountAttr.NODEV
        target = context.root.directory(self.path)
        options: dict[str, str | bytes | None] = {key: value or None for key, value in self.options.items()}
        if self.fs_type == "tmpfs":
            options["source"] = OWN_TMPFS
        fd = mount.new_mount(self.fs_type, options, attributes)
        try:
            if self.fs_type == "tmpfs":
                context.root.add_tmpfs(fd)
            mount.move_mount(fd, target)
            context.root.covered(self.path)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Bind:
    """Show what a descriptor refers to, read-only unless told otherwise.

    Attributes:
        if_exists: Do nothing when the target is absent (masks below /proc).
        idmap: Index of a user namespace descriptor whose maps the mount takes.
    """

    op: ClassVar[str] = "bind"
    source: Fd
    path: str
    origin: str
    read_only: bool = True
    recursive: bool = False
    device: bool = False
    no_exec: bool = False
    if_exists: bool = False
    idmap: Fd | None = None

    def describe(self) -> str:
        how = "read-only" if self.read_only else "read-write"
        kind = "device" if self.device else "mount"
        where = f" at {self.path}" if self.path != self.origin else ""
        return f"{kind} {self.origin}{where} {how}"

    def execute(self, context: Context) -> None:
        fd = self.mount_detached(context)
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            if self.if_exists:
                try:
                    target = context.root.existing(self.path)
                except FileNotFoundError:
                    return
            elif is_directory:
                target = os.dup(context.root.directory(self.path))
            else:
                target = context.root.file_target(self.path)
            try:
                mount.move_mount(fd, target)
            finally:
                os.close(target)
            if is_directory:
                context.root.covered(self.path)
        finally:
            os.close(fd)

    def mount_detached(self, context: Context) -> int:
        """Return a descriptor of the mount, attached nowhere; the caller owns it."""
        (fd,) = context.detached.pop(id(self))
        try:
            attributes = MountAttr.NOSUID
            attributes |= MountAttr(0) if self.device else MountAttr.NODEV
            attributes |= MountAttr.RDONLY if self.read_only else MountAttr(0)
            attributes |= MountAttr.NOEXEC if self.no_exec else MountAttr(0)
            # A clone is still a peer of the host's mount: what is mounted on it here would show there.
            mount.mount_setattr(fd, attributes, recursive=self.recursive, propagation=mount.MS_PRIVATE)
            if self.idmap is not None:
                _map_ids(fd, context.source(self.idmap))
        except BaseException:
            os.close(fd)
            raise
        return fd


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay of descriptors: `lower` below, optionally a `stage` (holding ``upper`` and ``work``) for writes.

    Without a stage the last lower must be an empty directory (an overlay needs two layers); sockets, FIFOs and locks
    of the host then have no effect through it. The options are read back after mounting: the kernel drops some of
    them without an error.

    Attributes:
        work: The work directory's name: a review has its own, since mounting empties it.
        detached: Do not attach; the mount's descriptor goes back to the daemon (for a review).
        idmap: Index of a user namespace descriptor that all layers are mapped through.
    """

    op: ClassVar[str] = "overlay"
    lower: list[Fd]
    path: str
    origin: str
    options: dict[str, str]
    stage: Fd | None = None
    read_only: bool = False
    idmap: Fd | None = None
    detached: bool = False
    work: str = "work"

    def describe(self) -> str:
        how = "read-only" if self.read_only or self.stage is None else "staged for writing"
        where = f" at {self.path}" if self.path != self.origin else ""
        return f"overlay {self.origin}{where} {how}"

    def execute(self, context: Context) -> None:
        fd = self.mount_detached(context)
        try:
            mount.move_mount(fd, context.root.directory(self.path))
            context.root.covered(self.path)
            context.overlays[mount_id_of(fd)] = self
        finally:
            os.close(fd)

    def mount_detached(self, context: Context) -> int:
        """Return a descriptor of the mount, attached nowhere; the caller owns it, and has a private mount namespace."""
        layers = context.detached.pop(id(self))
        try:
            if self.idmap is not None:
                for layer in layers:
                    _map_ids(layer, context.source(self.idmap))
            options: dict[str, str | bytes | None] = {key: value or None for key, value in self.options.items()}
            lower_count = len(self.lower)
            options["lowerdir"] = b":".join(b"/proc/self/fd/%d" % fd for fd in layers[:lower_count])
            attributes = MountAttr.NOSUID | MountAttr.NODEV
            if self.read_only or self.stage is None:
                attributes |= MountAttr.RDONLY
            try:
                return self._mount(layers, options, attributes)
            except OSError as error:
                # Before Linux 6.15 an overlay takes only layers that are attached in the caller's own mount namespace.
                if error.errno != errno.EINVAL:
                    raise
            context.attach_layers(layers)
            return self._mount(layers, options, attributes)
        finally:
            for fd in layers:
                os.close(fd)

    def _mount(self, layers: list[int], options: dict[str, str | bytes | None], attributes: MountAttr) -> int:
        if self.stage is None:
            return mount.new_mount("overlay", options, attributes)
        # Both through ONE mount (on two the kernel answers EXDEV), with symlinks refused.
        stage = layers[len(self.lower)]
        upper = openat2(stage, b"upper", os.O_PATH | os.O_DIRECTORY, RESOLVE_STRICT)
        work = openat2(stage, os.fsencode(self.work), os.O_PATH | os.O_DIRECTORY, RESOLVE_STRICT)
        try:
            options |= {"upperdir": b"/proc/self/fd/%d" % upper, "workdir": b"/proc/self/fd/%d" % work}
            return mount.new_mount("overlay", options, attributes)
        finally:
            os.close(upper)
            os.close(work)

    def read_back(self, context: Context, entry: Mount | None) -> None:
        """Compare the options asked for with those that are active; a missing one is a finding."""
        if entry is None:
            context.findings.append(f"overlay {self.origin}: options could not be read back")
            return
        wanted = {f"{key}={value}" if value else key for key, value in self.options.items()}
        # Defaults (…=off) are not shown, nor is xino while one file system makes it needless.
        missing = wanted - set(entry.super_options)
        missing = {item for item in missing if not item.endswith("=off") and item != "xino=on"}
        if missing:
            context.findings.append(f"overlay {self.origin}: kernel dropped {', '.join(sorted(missing))}")


@dataclass(frozen=True, slots=True)
class Sysctl:
    """Write a namespaced sysctl through the sandbox's own /proc."""

    op: ClassVar[str] = "sysctl"
    name: str
    value: str

    def describe(self) -> str:
        return f"set {self.name} = {self.value}"

    def execute(self, context: Context) -> None:
        path = "proc/sys/" + self.name.replace(".", "/")
        try:
            fd = context.root.existing(path, os.O_WRONLY)
            try:
                os.write(fd, self.value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            context.findings.append(f"sysctl {self.name}: {os.strerror(error.errno or 0)}")


@dataclass(frozen=True, slots=True)
class ProtectTree:
    """Make a directory of the sandbox read-only, such as /proc/sys, whose files a rootless agent would own."""

    op: ClassVar[str] = "protect"
    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, context: Context) -> None:
        target = context.root.existing(self.path)
        try:
            fd = mount.clone_tree(target, recursive=True)
            try:
                mount.mount_setattr(fd, MountAttr.RDONLY, recursive=True)
                mount.move_mount(fd, target)
            finally:
                os.close(fd)
        finally:
            os.close(target)


@dataclass(frozen=True, slots=True)
class Loopback:
    """The network: ``lo`` and nothing else."""

    op: ClassVar[str] = "loopback"

    def describe(self) -> str:
        return "network: an own namespace with lo only"

    def execute(self, context: Context) -> None:
        set_loopback_up()


@dataclass(frozen=True, slots=True)
class Hostname:
    """The UTS name inside."""

    op: ClassVar[str] = "hostname"
    name: str

    def describe(self) -> str:
        return f"host name {self.name}"

    def execute(self, context: Context) -> None:
        socket.sethostname(self.name)


@dataclass(frozen=True, slots=True)
class Keyring:
    """A session keyring of its own."""

    op: ClassVar[str] = "keyring"

    def describe(self) -> str:
        return "join a new, empty session keyring"

    def execute(self, context: Context) -> None:
        join_new_session_keyring()


@dataclass(frozen=True, slots=True)
class Pivot:
    """Make the new root the root, and let the old one go: nothing of the host's tree is in reach, or kept busy."""

    op: ClassVar[str] = "pivot"

    def describe(self) -> str:
        return "pivot_root, old root gone"

    def execute(self, context: Context) -> None:
        os.fchdir(context.root.root_fd)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")


@dataclass(frozen=True, slots=True)
class Seal:
    """The last step: read the overlays' options back, and make the root's tmpfs read-only."""

    op: ClassVar[str] = "seal"

    def describe(self) -> str:
        return "read the overlays' options back, root read-only"

    def execute(self, context: Context) -> None:
        if context.overlays:
            active = {entry.mount_id: entry for entry in read(only=frozenset(context.overlays))}
            for mount_id, overlay in context.overlays.items():
                overlay.read_back(context, active.get(mount_id))
        context.close_attic()
        mount.mount_setattr(context.root.root_fd, MountAttr.RDONLY)


@dataclass(frozen=True, slots=True)
class Limits:
    """setrlimit(2), by the names of `_LIMITS`; a value above the inherited hard limit is lowered to it."""

    op: ClassVar[str] = "limits"
    values: dict[str, int]

    def describe(self) -> str:
        return "limits: " + ", ".join(f"{name} {value}" for name, value in sorted(self.values.items()))

    def execute(self, context: Context) -> None:
        for name, value in self.values.items():
            number = _LIMITS[name]
            hard = resource.getrlimit(number)[1]
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (limit, limit))


Operation = (
    MakeRoot
    | MakeDirectory
    | MakeStubs
    | Stub
    | MakeSymlink
    | WriteFile
    | MountFs
    | Bind
    | Overlay
    | Sysctl
    | ProtectTree
    | Loopback
    | Hostname
    | Keyring
    | Pivot
    | Limits
    | Seal
)
_CLASSES: Final[dict[str, type[Operation]]] = {
    cls.op: cls
    for cls in (
        MakeRoot,
        MakeDirectory,
        MakeStubs,
        Stub,
        MakeSymlink,
        WriteFile,
        MountFs,
        Bind,
        Overlay,
        Sysctl,
        ProtectTree,
        Loopback,
        Hostname,
        Keyring,
        Pivot,
        Limits,
        Seal,
    )
}
# The fields that name a descriptor; anything but an index there is refused by the launcher.
FD_FIELDS: Final = ("source", "lower", "stage", "idmap")


def to_json(operation: Operation) -> dict[str, Any]:
    """Return the JSON form of an operation; `from_json` is the inverse."""
    return {"op": operation.op} | {item.name: getattr(operation, item.name) for item in fields(operation)}


_FIELD_NAMES: Final = {name: frozenset(item.name for item in fields(cls)) for name, cls in _CLASSES.items()}


def from_json(value: dict[str, Any]) -> Operation:
    """Rebuild an operation.

    Raises:
        ValueError: An unknown operation, or fields that it does not have.
    """
    name = value.get("op")
    cls = _CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"unknown operation {name!r}")
    given = {key: item for key, item in value.items() if key != "op"}
    if not given.keys() <= _FIELD_NAMES[cls.op]:
        raise ValueError(f"operation {name}: unknown field {sorted(given.keys() - _FIELD_NAMES[cls.op])}")
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"operation {name}: {error}") from error


def open_terminal(rows: int, columns: int, owner_uid: int, owner_gid: int) -> tuple[int, int]:
    """Open a pair on the sandbox's own devpts, after the pivot; returns (master, slave), both the caller's."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    with contextlib.suppress(PermissionError):
        os.fchown(slave, owner_uid, owner_gid)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, slave
