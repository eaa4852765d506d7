"""A staged workspace on the real kernel: overlay mounts in a private namespace, an agent's shell in it, the engine
outside as an ordinary user without capabilities, as the hand runs.

The four kinds are the two modes (KERNEL-FACTS: mount options), each with the upper on the folder's file system and on
another. Mounts live in a helper process and go with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisor.workspace.apply import ApplyResult, apply, discard
from supervisor.workspace.area import Area, Baseline, realtime_minus_boottime
from supervisor.workspace.change import Change
from supervisor.workspace.diff import render, stat
from supervisor.workspace.journal import Meta
from supervisor.workspace.marks import load_marks
from supervisor.workspace.recovery import Recovered, recover
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.scan import scan
from supervisor.workspace.transaction import Observer, no_observer
from supervisor.workspace.undo import StepInfo, list_steps, undo

OWNER = 1000 if os.geteuid() == 0 else os.geteuid()
KINDS = ["system", "system-other-fs", "rootless", "rootless-other-fs"]
_OPTIONS = {
    "system": "index=on,nfs_export=on,redirect_dir=on,metacopy=off,xino=on",
    "rootless": "userxattr",
}
_HELPER = r"""
set -e
cd "$BASE"
if [ -n "$LOWER_SIZE" ]; then
  mount -t tmpfs -o size=$LOWER_SIZE,mode=755,$MINE t lower
  cp -a first/. lower/
fi
if [ -n "$OTHER_IMAGE" ]; then
  truncate -s 64M image; mkfs.ext4 -q image; mount -o loop image up; chown "$OWNER" up
elif [ -n "$OTHER_DISK" ]; then mount --bind "$OTHER_DISK" up
elif [ -n "$OTHER_FS" ]; then mount -t tmpfs -o mode=755,$MINE t up; fi
$AS mkdir up/upper up/work
mount -t overlay o -o lowerdir=lower,upperdir=up/upper,workdir=up/work,$OPTIONS merged
mount --bind merged ro
mount -o remount,bind,ro ro
echo ready
while IFS= read -r -d '' script; do
  rc=0
  if [ "$script" = remount ]; then
    umount ro; umount merged
    mount -t overlay o -o lowerdir=lower,upperdir=up/upper,workdir=up/work,$OPTIONS merged
    mount --bind merged ro; mount -o remount,bind,ro ro
    echo "rc 0"
    continue
  fi
  (cd merged && exec $AS bash -e -c "$script") </dev/null || rc=$?
  echo "rc $rc"
done
"""


@contextlib.contextmanager
def owner() -> Iterator[None]:
    """Be the owner: his uid, gid and no groups, therefore no capability."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(OWNER)
    os.seteuid(OWNER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class Bench:
    """One workspace; `host` writes the real folder, `agent` the merged view, both by shell."""

    def __init__(self, kind: str, setup: str = "", lower_size: str = "") -> None:
        self.base = tempfile.mkdtemp(prefix="dw-bench-")
        os.chmod(self.base, 0o755)
        with owner_of(self.base):
            for name in ("lower", "up", "merged", "ro", "store", "first"):
                os.mkdir(f"{self.base}/{name}", 0o755)
        self.kind = kind
        self._disk = self._other_disk() if kind.endswith("other-fs") else ""
        self._seed(setup, "first" if lower_size else "lower")
        self._helper = self._start(lower_size)
        try:
            self._open_all()
            with owner():
                self.start_session()
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _other_disk() -> str:
        """Return a directory on the disk that the environment names; "" for a tmpfs (user.* since Linux 6.6)."""
        place = os.environ.get("DESKWARDEN_TEST_DISK", "")
        if not place:
            return ""
        disk = tempfile.mkdtemp(prefix="dw-bench-", dir=place)
        os.chmod(disk, 0o755)
        os.chown(disk, OWNER, OWNER if os.geteuid() == 0 else -1)
        return disk

    @property
    def redirects(self) -> bool:
        return self.kind.startswith("system")

    def _seed(self, setup: str, name: str) -> None:
        if setup:
            subprocess.run([*_as_owner(), "bash", "-e", "-c", setup], cwd=f"{self.base}/{name}", check=True)

    def _start(self, lower_size: str) -> subprocess.Popen[bytes]:
        mode = self.kind.split("-")[0]
        in_namespace = ["unshare", "-m", "--propagation", "private", "bash", "-c", _HELPER]
        inner = " ".join(_as_owner())
        mine = f"uid={OWNER},gid={OWNER}"
        if mode == "rootless":
            in_namespace = [*_as_owner(), "unshare", "-Urm", "--propagation", "private", "bash", "-c", _HELPER]
            inner, mine = "", "uid=0,gid=0"
        env = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "BASE": self.base,
            "LOWER_SIZE": lower_size,
            "OTHER_DISK": self._disk,
            "OTHER_FS": "1" if self.kind.endswith("other-fs") else "",
            # Where every layer has 32-bit inode numbers, the kernel puts the layer's own number right above them.
            "OTHER_IMAGE": "1" if self.kind == "system-other-ext4" else "",
            "OWNER": str(OWNER),
            "OPTIONS": _OPTIONS[mode],
            "AS": inner,
            "MINE": mine,
        }
        helper = subprocess.Popen(in_namespace, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        if helper.stdout is None or helper.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the overlay of kind {self.kind} could not be mounted")
        return helper

    def _open_all(self) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        # In the mount of the folder a step can move files into the store; elsewhere it has to copy them.
        store = self.base if self.kind.endswith("other-fs") else self.root
        self.store_fd = os.open(f"{store}/store", flags)
        self.area = Area(*(os.open(f"{self.root}/{name}", flags) for name in ("lower", "up/upper", "ro")))

    @property
    def root(self) -> str:
        """Return the workspace as the helper's namespace shows it."""
        return f"/proc/{self._helper.pid}/root{self.base}"

    @property
    def lower(self) -> Path:
        # By descriptor: the owner may not look into the helper's /proc.
        return Path(f"/proc/{os.getpid()}/fd/{self.area.lower_fd}")

    def start_session(self) -> None:
        """Take the baseline by touching a file on the lower's file system."""
        probe = self.lower / ".probe"
        # The clock that stamps files ticks every few ms: what the host does next has to be later.
        probe.touch()
        first = probe.stat().st_ctime_ns
        while probe.stat().st_ctime_ns == first:
            probe.touch()
        self.baseline = Baseline(probe.stat().st_ctime_ns, realtime_minus_boottime())
        probe.unlink()

    def agent(self, script: str) -> None:
        """Run a shell script in the merged view, as the agent would."""
        stdin, stdout = self._helper.stdin, self._helper.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(os.fsencode(script) + b"\0")
        stdin.flush()
        while not (line := stdout.readline()).startswith(b"rc "):
            assert line, "the helper died"
        assert line == b"rc 0\n", script

    def remount(self) -> None:
        """Mount the overlay anew, as after a restart of the machine."""
        os.close(self.area.merged_fd)
        self.agent("remount")
        merged_fd = os.open(f"{self.root}/ro", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.area = Area(self.area.lower_fd, self.area.upper_fd, merged_fd)

    def host(self, script: str) -> None:
        """Run a shell script in the real folder."""
        subprocess.run([*_as_owner(), "bash", "-e", "-c", script], cwd=self.lower, check=True)

    def scan(self, rules: RunsLater | None = None) -> list[Change]:
        with owner():
            return scan(self.area, self.baseline, rules or RunsLater(), load_marks(self.store_fd, "s1"))

    def kinds(self) -> dict[bytes, str]:
        return {change.path: change.kind for change in self.scan()}

    def apply(
        self,
        *paths: bytes,
        confirm_held: bool = False,
        changes: list[Change] | None = None,
        observe: Observer = no_observer,
    ) -> ApplyResult:
        found = self.scan() if changes is None else changes
        with owner():
            return apply(self.area, found, self.store_fd, self.meta, paths, confirm_held=confirm_held, observe=observe)

    @property
    def meta(self) -> Meta:
        return Meta("s1", os.fsencode(f"{self.base}/lower"))

    def discard(self, *paths: bytes) -> None:
        with owner():
            discard(
                scan(self.area, self.baseline, RunsLater(), load_marks(self.store_fd, "s1")), self.store_fd, "s1", paths
            )

    def open_folder(self, path: bytes) -> int:
        """Open the real folder again, as a later process would."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.area.lower_fd)

    def undo(self, step: int, *paths: bytes, observe: Observer = no_observer) -> ApplyResult:
        with owner():
            return undo(self.open_folder, self.store_fd, step, paths, observe=observe)

    def recover(self, observe: Observer = no_observer) -> list[Recovered]:
        with owner():
            return recover(self.open_folder, self.store_fd, observe)

    def steps(self) -> list[StepInfo]:
        with owner():
            return list_steps(self.store_fd)

    def diff(self) -> bytes:
        changes = self.scan()
        with owner():
            return b"".join(render(self.area, changes))

    def stat(self) -> bytes:
        changes = self.scan()
        with owner():
            return stat(self.area, changes)

    def close(self) -> None:
        for fd in (self.store_fd, self.area.lower_fd, self.area.upper_fd, self.area.merged_fd):
            os.close(fd)
        self._end()

    def _end(self) -> None:
        self._helper.kill()
        self._helper.wait()
        for pipe in (self._helper.stdin, self._helper.stdout):
            if pipe is not None:
                pipe.close()
        for place in filter(None, (self.base, self._disk)):
            subprocess.run(["chmod", "-R", "u+rwx", place], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", "--", place], check=True)  # rmtree(3.11) recurses: no deep tree


@contextlib.contextmanager
def owner_of(path: str) -> Iterator[None]:
    """Give *path* to the owner and be him."""
    os.chown(path, OWNER, OWNER if os.geteuid() == 0 else -1)
    with owner():
        yield


def _as_owner() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", "--"]


Entry = tuple[object, ...]


def tree(root: Path | str, *, directory_times: bool = False, skip: Iterable[bytes] = ()) -> dict[bytes, Entry]:
    """Return everything below *root*: contents, mode, mtime, xattrs, link groups."""
    found: dict[bytes, Entry] = {}
    first_name: dict[int, bytes] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(folders + files):
            full = os.path.join(folder, name)
            path = os.path.relpath(full, top)
            if path in skip:
                continue
            status = os.lstat(full)
            kind = status.st_mode & 0o170000
            contents: bytes | str = b""
            if kind == 0o100000:
                contents = Path(os.fsdecode(full)).read_bytes()
            elif kind == 0o120000:
                contents = os.readlink(full)
            attributes = {} if kind == 0o120000 else {n: os.getxattr(full, n) for n in sorted(os.listxattr(full))}
            mtime = status.st_mtime_ns if kind != 0o040000 or directory_times else 0
            group = first_name.setdefault(status.st_ino, path) if kind == 0o100000 and status.st_nlink > 1 else b""
            found[path] = (status.st_mode, contents, mtime, tuple(attributes.items()), group, status.st_uid)
    if directory_times:
        found[b"."] = (os.stat(top).st_mtime_ns,)
    return found
