"""The two cards of a run: what the agent sees (first run only), and at the end what happened and what to type next."""

from __future__ import annotations

from typing import Any, Final

from supervisor.plain_text import escape_text

MAX_LINES: Final = 8
MAX_FIRST_LINES: Final = 12
_NAME_LENGTH: Final = 60


def first_run_card(session: dict[str, Any]) -> list[str]:
    """Return at most twelve lines for the first run of this agent in this folder."""
    report = session["report"]
    name = escape_text(session["argv"][0].rpartition("/")[2], _NAME_LENGTH)
    more = ", ".join(escape_text(path, _NAME_LENGTH) for path in session["shown"][:5])
    more += f" and {len(session['shown']) - 5} more" if len(session["shown"]) > 5 else ""
    staged = "a staged copy: nothing reaches your disk until you apply it"
    direct = "the real folder, at once; what runs later is read-only, names that do not exist yet cannot be protected"
    mode = direct if session["mode"] == "direct" else staged
    lines = [
        f"── {name} runs in {escape_text(session['workspace'], 200)} for the first time (profile {session['profile']})",
        f"   works on   {mode}",
        f"   sees       the system's programs{', read-only ' + more if more else ''}",
        "   not        the rest of your home, keys, other programs and their windows, devices",
        f"   network    {report['network']}",
        f"   runs as    uid {report['agent_uid']}, {report['agent_uid_kind']}, without any capability",
        f"   recorded   what it prints: deskwarden logs {session['id']}",
    ]
    if session["mode"] != "direct":
        lines.append("   undo       deskwarden undo takes an apply back, also days later")
    if report["missing_preferred"]:
        lines.append(f"   missing    {', '.join(report['missing_preferred'])}   why: deskwarden doctor")
    return lines[:MAX_FIRST_LINES]


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
        lines.append(
            "   names that did not exist (.git/hooks, .envrc, …) could not be protected there: look before you go on"
        )
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
    if loud or card["mode"] == "direct":  # there the findings say what could not be protected
        lines += [f"   note: {escape_text(finding, 200)}" for finding in card["findings"]]
    return lines[:MAX_LINES]


def _count(item: dict[str, Any]) -> str:
    return f"{item['count']} file" + ("" if item["count"] == 1 else "s")


def _names(item: dict[str, Any]) -> str:
    names = ", ".join(escape_text(name, _NAME_LENGTH) for name in item["names"][:3])
    return names + (", …" if item["count"] > 3 else "")
