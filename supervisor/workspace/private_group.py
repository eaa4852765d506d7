"""The owner's private group: one that nobody else is in, so that its permission bits open nothing to anybody.

The convention of Debian, Ubuntu and Fedora, by which a umask of 002 is safe: the group has the user's name, as
pam_umask(8) `usergroups` asks, and beyond that no member is listed and nobody else has it as primary group.
Standard library only.
"""

from __future__ import annotations

import grp
import pwd
from typing import Final

NONE: Final = -1


def private_group(uid: int) -> int:
    """Return the gid of the private group of *uid*, or `NONE`; both as this user namespace numbers them.

    Root has none: its group is for system services too.
    """
    real_uid = _translated("uid_map", uid, outwards=True)
    if real_uid in (NONE, 0):
        return NONE
    try:
        account = pwd.getpwuid(real_uid)
        group = grp.getgrgid(account.pw_gid)
    except (KeyError, OSError):
        return NONE
    if group.gr_name != account.pw_name or set(group.gr_mem) - {account.pw_name}:
        return NONE
    others = (one for one in pwd.getpwall() if one.pw_gid == account.pw_gid and one.pw_uid != real_uid)
    return NONE if any(others) else _translated("gid_map", account.pw_gid, outwards=False)


def _translated(which: str, number: int, *, outwards: bool) -> int:
    """Return an id's number outside of (or inside) this user namespace, `NONE` where it has none.

    A rootless service lives in a namespace of its own, where its owner is called 0 (user_namespaces(7)).
    """
    with open(f"/proc/self/{which}", encoding="ascii") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            source, target = (inside, outside) if outwards else (outside, inside)
            if source <= number < source + count:
                return number - source + target
    return NONE
