"""Compile the system call rules of a profile to the bytes that `linux.seccomp.load_filter` installs.

The reviewed list is `sandbox_profiles/seccomp.yaml`. Two programs come out of libseccomp and are joined: the first
judges what is denied and otherwise jumps to the second, the allow-list. So a denial always wins and no rule depends on
how libseccomp orders overlapping ones. The same input gives the same bytes; runs in the daemon and in `doctor`, never
in the launcher. Conditions on arguments are masked comparisons: of an int the kernel sees the low 32 bits; so do we.

Source: seccomp(2), libseccomp 2.5 (seccomp_rule_add(3), seccomp_export_bpf(3)).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import RefusedError
from supervisor.sandbox.profile import SeccompRules
from supervisor.sandbox.profile_source import SCHEMA_STEP, packaged_directory
from supervisor.seccomp_program import RET_ALLOW, SeccompProgram, check_machine, ret_errno
from supervisor.strict_yaml import read_yaml

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter, linux/filter.h
_BPF_JMP_JA: Final = 0x05
_BPF_RET_K: Final = 0x06
_WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class CallGroup:
    """System calls that are judged alike, and why."""

    name: str
    why: str
    calls: tuple[str, ...]
    errno_name: str = ""
    lift: tuple[str, ...] = ()
    only_in: str = ""  # "direct": only where the workspace is the real folder


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """A denial that depends on one argument: it holds when the argument matches one of *patterns*."""

    why: str
    calls: tuple[str, ...]
    argument: int
    patterns: tuple[tuple[int, int], ...]  # (mask, value)
    errno_name: str
    when: tuple[int, int, int] | None = None  # (argument, mask, value)
    lift: tuple[str, ...] = ()
    only_in: str = ""


@dataclass(frozen=True, slots=True)
class CallTable:
    """The content of seccomp.yaml."""

    allow: tuple[CallGroup, ...]
    deny: tuple[CallGroup, ...]
    arguments: tuple[ArgumentRule, ...]
    numbers: Mapping[str, int]


def compile_filter(rules: SeccompRules, machine: str, *, notify_exec: bool = False) -> bytes:
    """Return the filter for *rules* as an array of struct sock_filter.

    Args:
        rules: What the profile changes about the reviewed list.
        machine: `platform.machine()` of the machine that loads the filter; must be this one.
        notify_exec: Send execve and execveat to the notification listener instead of allowing them.

    Raises:
        LayerMissingError: No libseccomp, or a machine that the list was not reviewed for.
        RefusedError: The profile asks for a call that no profile may have.
        UsageError: The profile names a call that does not exist.
    """
    check_machine(machine)
    table = load_table()
    allowed, denied, arguments = select(table, rules)
    first, second = SeccompProgram(RET_ALLOW, table.numbers), SeccompProgram(ret_errno("ENOSYS"), table.numbers)
    for rule in arguments:
        _add_patterns(first, rule)
    for name, errno_name in sorted(denied.items()):
        first.add(name, ret_errno(errno_name))
    for name in sorted(allowed):
        notified = notify_exec and name in ("execve", "execveat")
        second.add(name, first.seccomp.NOTIFY if notified else RET_ALLOW)
    return join(first.export(), second.export())


def select(table: CallTable, rules: SeccompRules) -> tuple[frozenset[str], dict[str, str], tuple[ArgumentRule, ...]]:
    """Apply a profile's changes to the table: calls allowed, calls denied with their errno, conditions. Pure."""
    reason = {call: group for group in table.deny if not group.only_in for call in group.calls}
    for call in rules.allow_extra:
        group = reason.get(call)
        if group and "allow_extra" not in group.lift:
            raise RefusedError(
                f"seccomp.allow_extra: {call} is never allowed: {group.why}", "remove it from the profile's allow_extra"
            )
    lifted = {"user_namespaces"} if rules.user_namespaces else set()
    opened = {call for group in table.deny if lifted & set(group.lift) for call in group.calls} | set(rules.allow_extra)
    places = {"", "direct"} if rules.direct else {""}
    denied = {
        call: group.errno_name
        for group in table.deny
        if group.only_in in places
        for call in group.calls
        if call not in opened
    }
    denied |= dict.fromkeys(rules.deny_extra, "EPERM")
    allowed = {call for group in table.allow for call in group.calls} | opened
    arguments = tuple(
        rule
        for rule in table.arguments
        if rule.only_in in places and not lifted & set(rule.lift) and not set(rule.calls) & set(denied)
    )
    return frozenset(allowed - set(denied)), denied, arguments


def join(first: bytes, second: bytes) -> bytes:
    """Chain two filters: where *first* would allow, *second* decides.

    Every ``ret ALLOW`` of the first becomes a jump to the start of the second, which loads what it needs itself.
    """
    count = len(first) // _INSTRUCTION.size
    joined = bytearray()
    for index, (code, true, false, k) in enumerate(_INSTRUCTION.iter_unpack(first)):
        if (code, k) == (_BPF_RET_K, RET_ALLOW):
            joined += _INSTRUCTION.pack(_BPF_JMP_JA, 0, 0, count - index - 1)
        else:
            joined += _INSTRUCTION.pack(code, true, false, k)
    return bytes(joined) + second


def complement(values: Iterable[int], bits: int = 32) -> tuple[tuple[int, int], ...]:
    """Return (mask, value) pairs that together match every *bits*-bit number but *values*.

    libseccomp has "equal under a mask" and no safe "not equal": its NE compares 64 bits, the kernel 32.
    """
    wanted = frozenset(values)

    def blocks(prefix: int, depth: int) -> Iterator[tuple[int, int]]:
        free = bits - depth
        if not any(value >> free == prefix for value in wanted):
            yield ((1 << bits) - (1 << free), prefix << free)
        elif free:
            yield from blocks(prefix << 1, depth + 1)
            yield from blocks(prefix << 1 | 1, depth + 1)

    return tuple(blocks(0, 0))


@functools.cache
def load_table() -> CallTable:
    """Read the packaged seccomp.yaml."""
    path = packaged_directory() / "seccomp.yaml"
    raw: Any = read_yaml(path.read_bytes(), str(path), SCHEMA_STEP).value
    return CallTable(
        allow=tuple(_group(name, body) for name, body in raw["allow"].items()),
        deny=tuple(_group(name, body) for name, body in raw["deny"].items()),
        arguments=tuple(_argument_rule(body) for body in raw["arguments"]),
        numbers=dict(raw["numbers"]),
    )


def _group(name: str, body: Mapping[str, Any]) -> CallGroup:
    lift = tuple(body.get("lift", ()))
    return CallGroup(name, body["why"], tuple(body["calls"]), body.get("errno", ""), lift, body.get("only_in", ""))


def _argument_rule(body: Mapping[str, Any]) -> ArgumentRule:
    bits = body["bits"]
    if "only" in body:
        patterns = complement(body["only"], bits)
    elif "never" in body:
        patterns = tuple(((1 << bits) - 1, value) for value in body["never"])
    else:
        patterns = tuple((1 << bit, 1 << bit) for bit in range(bits) if body["clear_bits"] >> bit & 1)
    given = body.get("when")
    when = (given["argument"], given.get("mask", _WORD), given["value"]) if given else None
    lift, calls = tuple(body.get("lift", ())), tuple(body["calls"])
    only_in = body.get("only_in", "")
    return ArgumentRule(body["why"], calls, body["argument"], patterns, body["errno"], when, lift, only_in)


def _add_patterns(program: SeccompProgram, rule: ArgumentRule) -> None:
    when = [rule.when] if rule.when else []
    for call in rule.calls:
        for mask, value in rule.patterns:
            program.add(call, ret_errno(rule.errno_name), (*when, (rule.argument, mask, value)))
