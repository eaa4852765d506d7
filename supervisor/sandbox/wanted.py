"""What a launch needs to have opened: profile and flags → the hand's list. Pure, as is checking its answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from supervisor.errors import RefusedError
from supervisor.sandbox.plan import Source
from supervisor.sandbox.profile import Ceiling, Profile, is_within, never_read, secret_in_home


def items(
    profile: Profile, home: str, workspace: str, reads: Iterable[str], writes: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the hand's ``open`` items; the owner's own paths come resolved by the hand."""
    below = os.fsencode(home)
    wanted: list[tuple[bytes, str, bool]] = []
    wanted += [(path, "system", False) for path in profile.files.system]
    wanted += [(b"/etc/" + name, "etc", False) for name in profile.files.etc]
    wanted += [(b"/dev/" + name.encode(), "device", True) for name in profile.devices]
    wanted += [(below + b"/" + path, "home", False) for path in profile.files.home_read]
    wanted += [(below + b"/" + path, "ask", False) for path in profile.files.ask]
    wanted += [(path, "read", False) for path in profile.files.read]
    wanted += [(os.fsencode(path), "read", True) for path in reads]
    wanted += [(os.fsencode(path), "write", True) for path in writes]
    wanted.append((os.fsencode(workspace), "workspace", True))
    return [{"path": os.fsdecode(path), "purpose": purpose, "required": required} for path, purpose, required in wanted]


def protected_items(profile: Profile, workspace: str) -> list[dict[str, Any]]:
    """Return what mode ``direct`` protects beside what the hand finds; the hand pins the directories above."""
    return [{"path": f"{workspace}/{os.fsdecode(name)}", "purpose": "protected"} for name in profile.protected]


def check_opened(
    sources: Sequence[Source], home: str, owned: Iterable[str], ceiling: Ceiling, explicit: Iterable[str]
) -> None:
    """Refuse what resolved to a place that no sandbox may show: credentials, other services, Deskwarden's own state.

    Args:
        owned: Deskwarden's own directories.
        explicit: Paths that the owner named with a flag; the ceiling still holds for them.

    Raises:
        RefusedError: Names the path, where it leads, and what to do.
    """
    named = set(explicit)
    for source in sources:
        if source.purpose not in ("home", "read", "write", "workspace") or source.kind == "symlink":
            continue
        path = os.fsencode(source.path)
        hit = _forbidden(path, os.fsencode(home), [os.fsencode(place) for place in owned], source.purpose)
        for area in ceiling.forbidden_read:
            place = area if area.startswith(b"/") else os.fsencode(home) + b"/" + area
            hit = hit or (place if is_within(path, place) or is_within(place, path) else None)
        if hit is not None:
            flag = "leave the flag out" if source.path in named else "choose another folder, or another profile"
            raise RefusedError(f"{source.path}: would show {os.fsdecode(hit)}, which no agent may see", flag)


def _forbidden(path: bytes, home: bytes, owned: list[bytes], purpose: str) -> bytes | None:
    for place in owned:
        if is_within(path, place) or is_within(place, path):
            return place
    if is_within(path, home) and path != home:
        relative = path[len(home.rstrip(b"/")) + 1 :]
        secret = secret_in_home(relative)
        return home + b"/" + secret if secret is not None else None
    if path == home:
        return home
    return never_read(path) if purpose != "workspace" else None
