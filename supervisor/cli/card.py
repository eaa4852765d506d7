"""The card at the end of a run: at most eight lines, what happened and what to type next."""

from __future__ import annotations

from typing import Any, Final

from supervisor.cli.terminal import escape_text

MAX_LINES: Final = 8
_NAME_LENGTH: Final = 60


def exit_card(message: dict[str, Any], loud: bool = False) -> list[str]:
    """Return the lines; one line when nothing happened."""
    card = message["card"]
    session = message["id"]
    head = f"── {message['name']}: exit {message['code']}"
    if message.get("reason"):
        head += f" ({message['reason']})"
    if "error" in card:
        return [head, f"   changes could not be read: {escape_text(str(card['error']['message']), 200)}"]
    lines = [head]
    if card["mode"] == "direct":
        lines.append(f"   worked directly in {escape_text(card['workspace'], _NAME_LENGTH)}; nothing to apply")
    changed, held = card["changed"], card["held"]
    conflicts, refused = card["conflicts"], card["refused"]
    total = sum(item["count"] for item in (changed, held, conflicts, refused))
    if total == 0 and card["mode"] != "direct":
        lines[0] += ", no files changed"
    if changed["count"]:
        lines.append(f"   {_count(changed)} changed: {_names(changed)}")
    if held["count"]:
        lines.append(f"   {_count(held)} held, runs later on your machine: {_names(held)}")
    if conflicts["count"]:
        lines.append(f"   {_count(conflicts)} in conflict with your own edits: {_names(conflicts)}")
    if refused["count"]:
        lines.append(f"   {_count(refused)} refused: {_names(refused)}")
    if total:
        verbs = (("look", "diff"), ("take", "apply"), ("leave", "discard"))
        lines.append("   " + "   ".join(f"{word}: deskwarden {verb} {session}" for word, verb in verbs))
    if loud:
        lines += [f"   note: {escape_text(finding, 200)}" for finding in card["findings"]]
    return lines[:MAX_LINES]


def _count(item: dict[str, Any]) -> str:
    return f"{item['count']} file" + ("" if item["count"] == 1 else "s")


def _names(item: dict[str, Any]) -> str:
    names = ", ".join(escape_text(name, _NAME_LENGTH) for name in item["names"][:3])
    return names + (", …" if item["count"] > 3 else "")
