"""A FUSE file system with nothing in it but its root: `fuse_server.py DIRECTORY`, as root; ends with its mount.

Just enough of the protocol (linux/fuse.h) to be looked at: INIT, GETATTR, STATFS, OPENDIR, READDIR.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, STATFS, INIT, OPENDIR, READDIR, RELEASEDIR = 1, 2, 3, 17, 26, 27, 28, 29
HEADER = struct.Struct("IIQQIIII")
ATTRIBUTES = struct.pack("QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)


def answer(operation: int) -> bytes | int:
    """Return the body of the answer, or an errno."""
    if operation == INIT:
        return struct.pack("IIIIHHII", 7, 31, 65536, 0, 8, 6, 65536, 1) + bytes(36)
    if operation == GETATTR:
        return struct.pack("QII", 1, 0, 0) + ATTRIBUTES
    if operation == STATFS:
        return bytes(80)
    if operation == OPENDIR:
        return bytes(16)
    if operation in (READDIR, RELEASEDIR):
        return b""
    return errno.ENOENT if operation == LOOKUP else errno.ENOSYS


def main(directory: str) -> None:
    """Mount, say so, and serve."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"test", os.fsencode(directory), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount fuse")
    print("mounted", flush=True)  # noqa: T201  # the test waits for it
    while True:
        try:
            request = os.read(fd, 1 << 17)
        except OSError:  # ENODEV: unmounted
            return
        _length, operation, unique, *_rest = HEADER.unpack_from(request)
        if operation == FORGET:
            continue
        body = answer(operation)
        error, payload = (-body, b"") if isinstance(body, int) else (0, body)
        os.write(fd, struct.pack("IiQ", 16 + len(payload), error, unique) + payload)


if __name__ == "__main__":
    main(sys.argv[1])
