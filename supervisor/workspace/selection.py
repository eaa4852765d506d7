"""Which changes a person's words choose, and which of those can't go without another.

Pure. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from supervisor.errors import UsageError
from supervisor.workspace.change import Change, ancestors, is_below
from supervisor.workspace.version import text


@dataclass(frozen=True, slots=True)
class Selection:
    """The changes named, sorted by what becomes of them; `conflicts` carry their reason."""

    chosen: list[Change]
    held: list[Change]
    conflicts: list[Change]
    refused: list[Change]


def select(changes: list[Change], paths: Iterable[bytes] = (), *, confirm_held: bool = False) -> Selection:
    """Choose the changes at or below *paths*; all of them when none is given.

    A held change is chosen when named exactly, or with *confirm_held*. New folders above what is named come along.

    Raises:
        UsageError: a path names no change.
    """
    wanted = {path.strip(b"/") for path in paths}
    named = [change for change in changes if _names(change, wanted)]
    _require_all_used(wanted, changes)
    by_path = {change.path: change for change in changes}
    chosen = {change.path: change for change in named if _is_free(change, wanted, confirm_held=confirm_held)}
    for change in list(chosen.values()):
        for above in ancestors(change.path):
            folder = by_path.get(above)
            if folder is not None and folder.kind == "added" and _is_free(folder, wanted, confirm_held=confirm_held):
                chosen[above] = folder
    blocked = dependents(changes, chosen)
    wanted_paths = {change.path for change in named}
    brought_along = [change for path, change in chosen.items() if path not in wanted_paths]
    return Selection(
        chosen=[change for path, change in sorted(chosen.items()) if path not in blocked],
        held=[change for change in named if change.path not in chosen and not change.refused and not change.conflict],
        conflicts=[
            replace(change, conflict=change.conflict or blocked[change.path])
            for change in [*named, *brought_along]
            if (change.conflict and not change.refused) or change.path in blocked
        ],
        refused=[change for change in named if change.refused],
    )


def _names(change: Change, wanted: set[bytes]) -> bool:
    if not wanted or b"" in wanted or b"." in wanted:
        return True
    both = (change.path, change.old_path) if change.old_path else (change.path,)
    return any(place in wanted or any(above in wanted for above in ancestors(place)) for place in both)


def _require_all_used(wanted: set[bytes], changes: list[Change]) -> None:
    places = {place for change in changes for place in (change.path, change.old_path) if place}
    for path in sorted(wanted - places - {b"", b"."}):
        if not any(is_below(place, path) for place in places):
            raise UsageError(f"no change at {text(path)!r}", "see `deskwarden diff --stat` for what changed")


def _is_free(change: Change, wanted: set[bytes], *, confirm_held: bool) -> bool:
    if change.refused or change.conflict:
        return False
    return (
        not change.held
        or confirm_held
        or change.path in wanted
        or (bool(change.old_path) and change.old_path in wanted)
    )


def dependents(changes: list[Change], chosen: dict[bytes, Change]) -> dict[bytes, str]:
    """Return which of *chosen* can't be carried out because of one that is not chosen, with the reason.

    A folder can't go while something in it stays; nothing can be put into a folder that is not made.
    """
    blocked: dict[bytes, str] = {}
    full: dict[bytes, bytes] = {}

    def stays(change: Change) -> None:
        place = change.old_path or change.path
        if change.old is not None:
            for above in ancestors(place):
                full.setdefault(above, place)

    for change in changes:
        if change.path not in chosen:
            stays(change)
    for change in sorted(chosen.values(), key=lambda one: -(one.old_path or one.path).count(b"/")):
        goes = change.kind == "deleted" or (change.kind == "type" and change.old is not None)
        if goes and change.old is not None and change.old.type == "directory" and change.path in full:
            blocked[change.path] = f"depends on {text(full[change.path])!r}, which stays"
            stays(change)
    makers = {one.path: one for one in changes if one.new is not None and one.new.type == "directory"}
    _block_below(makers, chosen, blocked, lambda one: one.kind in ("added", "type"))
    return blocked


def _block_below(
    makers: dict[bytes, Change],
    chosen: dict[bytes, Change],
    blocked: dict[bytes, str],
    is_made: Callable[[Change], bool],
) -> None:
    for change in sorted(chosen.values(), key=lambda one: one.path.count(b"/")):
        if change.new is None or change.path in blocked:
            continue
        for above in ancestors(change.path):
            maker = makers.get(above)
            if maker is not None and is_made(maker) and (above not in chosen or above in blocked):
                blocked[change.path] = f"depends on the folder {text(above)!r}, which is not applied"
                break
