"""The hand's answers about staged changes: scan, diff, apply, discard, undo. One request is about one area.

Descriptors of a request, in order: the owner's store, the real folder, the stage (``upper`` inside), the merged view.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from supervisor.linux.openat2 import AT_FDCWD, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_beneath, openat2
from supervisor.workspace import diff as rendering
from supervisor.workspace.apply import ApplyResult, apply, discard
from supervisor.workspace.area import Area, Baseline
from supervisor.workspace.change import Change
from supervisor.workspace.ephemeral_copy import drop_copies
from supervisor.workspace.journal import Meta
from supervisor.workspace.marks import load_marks
from supervisor.workspace.recovery import recover
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.scan import scan
from supervisor.workspace.tree import files_below
from supervisor.workspace.undo import list_steps, undo

Answer = tuple[dict[str, Any], list[int]]


def open_folder(path: bytes) -> int:
    """Open a real folder by the path it had, symlinks refused; the caller owns the descriptor."""
    return openat2(AT_FDCWD, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)


def open_area(request: dict[str, Any], fds: list[int]) -> Answer:
    """Open a session's area: the real folder and the stage, for the launcher to overlay and for the scan.

    `empty` tells that the upper holds nothing: no change, and no overlay is needed to know it.
    """
    store_fd = fds[0]
    stage = open_beneath(
        store_fd, f"sessions/{request['session']}/a{int(request['number'])}", os.O_RDONLY | os.O_DIRECTORY
    )
    try:
        upper = open_beneath(stage, b"upper", os.O_RDONLY | os.O_DIRECTORY)
        try:
            empty = not os.listdir(upper)
        finally:
            os.close(upper)
        with contextlib.suppress(FileExistsError):  # made at launch, but by older versions here
            os.mkdir("review", 0o700, dir_fd=stage)
        return {"empty": empty}, [open_folder(os.fsencode(request["path"])), stage]
    except BaseException:
        os.close(stage)
        raise


@contextmanager
def _area(fds: list[int]) -> Iterator[Area]:
    upper = open_beneath(fds[2], b"upper", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Area(fds[1], upper, fds[3])
    finally:
        os.close(upper)


def _mark_name(request: dict[str, Any]) -> str:
    return f"{request['session']}-a{int(request['number'])}"


def _scan(area: Area, request: dict[str, Any], store_fd: int) -> list[Change]:
    extra = [os.fsencode(pattern) for pattern in request["runs_later"]]
    rules = RunsLater().extend(extra).in_folder(os.fsencode(request["path"]))
    baseline = Baseline(**request["baseline"])
    return scan(area, baseline, rules, load_marks(store_fd, _mark_name(request)))


def _chosen(changes: list[Change], request: dict[str, Any]) -> list[Change]:
    wanted = [os.fsencode(path) for path in request.get("paths", [])]
    if request.get("held"):
        changes = [change for change in changes if change.held]
    if not wanted or b"" in wanted:
        return changes
    return [
        change
        for change in changes
        if any(
            name == path or name.startswith(path + b"/") for path in wanted for name in (change.path, change.old_path)
        )
    ]


def answer_changes(request: dict[str, Any], fds: list[int]) -> Answer:
    """Return the changes as JSON and as a ``--stat`` text."""
    with _area(fds) as area:
        changes = _chosen(_scan(area, request, fds[0]), request)
        stat_text = rendering.stat(area, changes) if request.get("stat") else b""
    return {"changes": [change.to_json() for change in changes], "stat": os.fsdecode(stat_text)}, []


def answer_diff(request: dict[str, Any], fds: list[int]) -> Answer:
    """Write the patch into a memfd."""
    out = os.memfd_create("deskwarden-diff", os.MFD_CLOEXEC)
    try:
        with _area(fds) as area, open(out, "wb", closefd=False) as file:
            changes = _chosen(_scan(area, request, fds[0]), request)
            file.writelines(rendering.render(area, changes))
        return {"count": len(changes)}, [out]
    except BaseException:
        os.close(out)
        raise


def answer_apply(request: dict[str, Any], fds: list[int]) -> Answer:
    """Apply the named changes, or all that is not held."""
    meta = Meta(session=_mark_name(request), folder=os.fsencode(request["path"]))
    with _area(fds) as area:
        changes = _scan(area, request, fds[0])
        wanted = [os.fsencode(path) for path in request.get("paths", [])]
        result = apply(area, changes, fds[0], meta, wanted, confirm_held=bool(request.get("held")))
    return _result(result), []


def answer_discard(request: dict[str, Any], fds: list[int]) -> Answer:
    """Mark the named changes as discarded."""
    with _area(fds) as area:
        changes = _scan(area, request, fds[0])
        wanted = [os.fsencode(path) for path in request.get("paths", [])]
        chosen = discard(changes, fds[0], _mark_name(request), wanted)
    gone = [*chosen.chosen, *chosen.held, *chosen.conflicts, *chosen.refused]
    return {"discarded": [os.fsdecode(change.path) for change in gone]}, []


def answer_undo(request: dict[str, Any], fds: list[int]) -> Answer:
    """Take an apply back."""
    wanted = [os.fsencode(path) for path in request.get("paths", [])]
    return _result(undo(open_folder, fds[0], int(request["step"]), wanted)), []


def answer_steps(_request: dict[str, Any], fds: list[int]) -> Answer:
    """Return every apply and undo of this owner, oldest first."""
    return {"steps": [step.to_json() for step in list_steps(fds[0])]}, []


def answer_recover(request: dict[str, Any], fds: list[int]) -> Answer:
    """Bring what a crash left half done to its end: wholly old or wholly new.

    With ``grants``, the ids of those in force, copies that a dead session left behind are removed.
    """
    dropped = drop_copies(fds[0], list(request["grants"])) if "grants" in request else 0
    recovered = recover(open_folder, fds[0])
    return {"recovered": len(recovered), "copies_dropped": dropped}, []


def answer_usage(request: dict[str, Any], fds: list[int]) -> Answer:
    """Return how many bytes a session's uppers hold on disk."""
    root = open_beneath(fds[0], f"sessions/{request['session']}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        total = sum(status.st_blocks * 512 for status in files_below(root))
    finally:
        os.close(root)
    return {"bytes": total}, []


def _result(result: ApplyResult) -> dict[str, Any]:
    return {
        "step": result.step_id,
        "applied": [change.to_json() for change in result.applied],
        "conflicts": [change.to_json() for change in result.conflicts],
        "held": [change.to_json() for change in result.held],
        "refused": [change.to_json() for change in result.refused],
    }


HANDLERS = {
    "changes": answer_changes,
    "diff": answer_diff,
    "apply": answer_apply,
    "discard": answer_discard,
    "undo": answer_undo,
    "steps": answer_steps,
    "recover": answer_recover,
    "usage": answer_usage,
}
