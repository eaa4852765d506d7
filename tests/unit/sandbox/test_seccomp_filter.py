"""The filter's arithmetic: complements of values, joining two programs, what a profile may lift."""

from __future__ import annotations

import errno
import platform
import random
import struct

import pytest

from supervisor.errors import LayerMissingError, RefusedError, UsageError
from supervisor.sandbox.profile import SeccompRules
from supervisor.sandbox.seccomp_filter import compile_filter, complement, join, load_table, select

MACHINE = platform.machine()
ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[MACHINE]


def judge(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = ARCH) -> int:
    """Run the classic BPF that libseccomp makes on one seccomp_data, independently of the kernel."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, arch, 0, *padded)
    lines = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        code, true, false, k = lines[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            position += k
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            position += true if holds[code] else false


def number_of(name: str) -> int:
    import pyseccomp

    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


@pytest.fixture(scope="module")
def program() -> bytes:
    return compile_filter(SeccompRules(), MACHINE)


@pytest.mark.parametrize("values", [{0}, {1, 2, 10, 16}, {0, 0x40000, 0xFFFFFFFF}, {7, 8}])
def test_complement_matches_every_value_but_the_wanted(values: set[int]) -> None:
    patterns = complement(values)
    chosen = random.Random(1)
    samples = {value ^ (1 << bit) for value in values for bit in range(32)} | {
        chosen.getrandbits(32) for _ in range(5000)
    }
    for sample in samples | values:
        matched = sum(sample & mask == value for mask, value in patterns)
        assert matched == (0 if sample in values else 1), hex(sample)


def test_complement_of_nothing_is_everything_and_of_all_is_nothing() -> None:
    assert complement(()) == ((0, 0),)
    assert complement(range(16), bits=4) == ()


def test_join_asks_the_second_program_only_where_the_first_allows() -> None:
    load, ret = (0x20, 0, 0, 0), 0x06
    first = [load, (0x15, 0, 1, 1), (ret, 0, 0, 0x50001), (ret, 0, 0, ALLOW)]
    second = [load, (0x15, 0, 1, 2), (ret, 0, 0, ALLOW), (ret, 0, 0, 0x50026)]
    joined = join(*(b"".join(struct.pack("=HBBI", *line) for line in lines) for lines in (first, second)))
    assert [judge(joined, number) for number in (1, 2, 3)] == [0x50001, ALLOW, 0x50026]


def test_same_rules_give_the_same_bytes(program: bytes) -> None:
    assert compile_filter(SeccompRules(), MACHINE) == program
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096


def test_every_listed_call_is_judged_as_the_list_says(program: bytes) -> None:
    table = load_table()
    conditional = {call for rule in table.arguments if not rule.only_in for call in rule.calls}
    for group in table.allow:
        for call in group.calls:
            if number_of(call) >= 0 and call not in conditional:
                assert judge(program, number_of(call)) == ALLOW, call
    for group in table.deny:
        for call in group.calls if not group.only_in else ():
            if number_of(call) >= 0:
                assert judge(program, number_of(call)) == 0x50000 | getattr(errno, group.errno_name), call


def test_every_call_number_that_is_not_listed_is_enosys(program: bytes) -> None:
    table = load_table()
    listed = {number_of(call) for group in (*table.allow, *table.deny) for call in group.calls}
    listed |= set(table.numbers.values())
    for number in set(range(1024)) - listed:
        assert judge(program, number) == 0x50000 | errno.ENOSYS, number


@pytest.mark.parametrize("arch", [0x40000003, 0xC00000B7, 0xC000003E, 0x40000028, 0])
def test_foreign_architecture_is_killed(program: bytes, arch: int) -> None:
    if arch != ARCH:
        assert judge(program, 1, arch=arch) == KILL


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 exists on x86_64 only")
def test_every_x32_number_is_killed(program: bytes) -> None:
    assert {judge(program, 0x40000000 | number) for number in range(600)} == {KILL}


def test_no_call_is_both_allowed_and_denied_and_none_twice() -> None:
    table = load_table()
    names = [call for group in (*table.allow, *table.deny) if not group.only_in for call in group.calls]
    assert len(names) == len(set(names))
    assert {call for rule in table.arguments for call in rule.calls} <= {
        c for group in table.allow for c in group.calls
    }


def test_exec_goes_to_the_listener_when_asked_for() -> None:
    program = compile_filter(SeccompRules(), MACHINE, notify_exec=True)
    assert [judge(program, number_of(name)) for name in ("execve", "execveat")] == [0x7FC00000] * 2
    assert judge(program, number_of("getpid")) == ALLOW


def test_user_namespaces_lift_what_a_nested_sandbox_needs_and_no_more() -> None:
    program = compile_filter(SeccompRules(user_namespaces=True), MACHINE)
    for name in ("mount", "umount2", "pivot_root", "chroot", "sethostname"):
        assert judge(program, number_of(name)) == ALLOW, name
    assert judge(program, number_of("unshare"), (0x10000000,)) == ALLOW
    for name in ("setns", "fsopen", "move_mount", "bpf", "ptrace", "io_uring_setup", "open_by_handle_at", "keyctl"):
        assert judge(program, number_of(name)) == 0x50000 | errno.EPERM, name


def test_profile_may_not_allow_what_is_never_allowed() -> None:
    with pytest.raises(RefusedError, match="bpf is never allowed"):
        select(load_table(), SeccompRules(allow_extra=("bpf",)))


def test_deny_extra_also_wins_over_allow_extra() -> None:
    allowed, denied, _ = select(load_table(), SeccompRules(allow_extra=("ptrace",), deny_extra=("ptrace", "socket")))
    assert "ptrace" not in allowed
    assert denied["ptrace"] == denied["socket"] == "EPERM"


def test_unknown_call_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'opne'"):
        compile_filter(SeccompRules(allow_extra=("opne",)), MACHINE)


def test_machine_without_a_reviewed_list_is_refused() -> None:
    with pytest.raises(LayerMissingError, match="riscv64"):
        compile_filter(SeccompRules(), "riscv64")
