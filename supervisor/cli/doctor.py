"""`deskwarden doctor`: what this machine can enforce, found by doing it; works without a daemon."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from supervisor.cli import interrupt
from supervisor.sandbox.layers import KERNEL_FLOOR, LAYERS, LayerState, State, missing
from supervisor.sandbox.machine import Machine, identify, kernel_version
from supervisor.sandbox.probe import probe_all
from supervisor.sandbox.profile import Profile
from supervisor.sandbox.profile_source import load_profile

HELP = "what this machine can enforce, and what would give it more"
DEFAULT_PROFILE = "coding"

_MANAGED_NOTHING = "not managed: this version reads no managed policy, so nothing from IT is enforced"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--for-it", action="store_true", help="print a note to send to IT about what is missing")
    group.add_argument("--managed", action="store_true", help="exit 0 policy enforced, 1 not managed, 2 policy invalid")


def run(args: argparse.Namespace) -> int:
    """Probe, print, and return 1 when the default profile could not run."""
    if args.managed:
        print(json.dumps({"managed": False, "detail": _MANAGED_NOTHING}) if args.json else _MANAGED_NOTHING)
        return 1
    with interrupt.raised():  # what a probe has made it takes away again
        machine, states, profile = identify(), probe_all(), load_profile(DEFAULT_PROFILE)
    lacking = missing(profile.requires, states)
    if args.json:
        print(json.dumps(as_json(machine, states, profile), indent=2))
    elif args.for_it:
        print("\n".join(note_for_it(machine, states, profile)))
    else:
        print("\n".join(table(machine, states, profile)))
    return 1 if lacking else 0


def as_json(machine: Machine, states: Sequence[LayerState], profile: Profile) -> dict[str, object]:
    """Return the findings as a JSON-able value."""
    return {
        "kernel": machine.kernel,
        "kernel_floor_met": kernel_version(machine.kernel) >= KERNEL_FLOOR,
        "architecture": machine.architecture,
        "mode": machine.mode,
        "container": machine.container,
        "wsl": machine.wsl,
        "apparmor_limits_user_namespaces": machine.apparmor_limits_user_namespaces,
        "hint": machine.hint(),
        "profile": profile.name,
        "can_run": not missing(profile.requires, states),
        "missing_required": [state.name for state in missing(profile.requires, states)],
        "missing_preferred": [state.name for state in missing(profile.preferred, states)],
        "layers": [
            {
                "name": state.name,
                "state": state.state,
                "detail": state.detail,
                "remedy": state.remedy,
                "gives": LAYERS[state.name].gives,
                "since": LAYERS[state.name].since,
            }
            for state in states
        ],
    }


def table(machine: Machine, states: Sequence[LayerState], profile: Profile) -> list[str]:
    """Return the lines a person reads."""
    lacking, less = missing(profile.requires, states), missing(profile.preferred, states)
    lines = [*_heading(machine, anything_missing=bool(lacking or less)), ""]
    width = max(len(state.name) for state in states)
    for state in states:
        lines.append(f"{_weight(state.name, profile)} {state.name:<{width}}  {state.state:<7}  {state.detail}")
        if state.state is not State.PRESENT and state.remedy:
            lines.append(f"  {'':<{width}}  {'':<7}  → {state.remedy}")
    lines += ["", f"* required by the profile {profile.name}, + used by it where present", ""]
    if lacking:
        lines.append(
            f"The profile {profile.name} cannot run here: {', '.join(state.name for state in lacking)} missing."
        )
        lines.append("For a note to send to IT: deskwarden doctor --for-it")
    else:
        lines.append(f"The profile {profile.name} can run here.")
        if less:
            lines.append(f"Without: {', '.join(state.name for state in less)}.")
    return lines


def note_for_it(machine: Machine, states: Sequence[LayerState], profile: Profile) -> list[str]:
    """Return a short note about what is missing: first what stops the default profile, then what would add to it."""
    lacking, less = missing(profile.requires, states), missing(profile.preferred, states)
    heading = _heading(machine, anything_missing=bool(lacking or less))
    lines = ["Deskwarden runs AI agents in a sandbox on this machine.", *heading, ""]
    for title, rows in (("It cannot start without:", lacking), ("It would enforce more with:", less)):
        if rows:
            lines.append(title)
            for state in rows:
                lines.append(f"  - {state.name} ({LAYERS[state.name].gives}): {state.detail}")
                lines += [f"      to get it: {state.remedy}"] if state.remedy else []
            lines.append("")
    if not lacking and not less:
        lines.append("Nothing is missing.")
    return lines


def _heading(machine: Machine, *, anything_missing: bool) -> list[str]:
    where = ", ".join(part for part in (machine.container and f"inside {machine.container}", machine.wsl) if part)
    lines = [f"Linux {machine.kernel} {machine.architecture}, {machine.mode} mode{f', {where}' if where else ''}"]
    if kernel_version(machine.kernel) < KERNEL_FLOOR:
        lines.append(f"This kernel is older than {'.'.join(map(str, KERNEL_FLOOR))}, the oldest that is supported.")
    if machine.apparmor_limits_user_namespaces:
        lines.append(
            "Ubuntu's AppArmor limit on user namespaces is on (kernel.apparmor_restrict_unprivileged_userns=1)."
        )
    if anything_missing and (hint := machine.hint()):
        lines.append(f"What is missing may come from that: {hint}")
    return lines


def _weight(name: str, profile: Profile) -> str:
    return "*" if name in profile.requires else "+" if name in profile.preferred else " "
