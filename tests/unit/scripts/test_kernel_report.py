"""What scripts/test-kernel makes of a guest's log: nothing but two whole, passed halves is a success."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.test_kernel.report import main, parse, render

WANTED = ["root", "user"]


def half(name: str, *, counts: str = "3 passed, 1 skipped", code: int = 0, walk: int = 0, summary: str = "") -> str:
    return f"""\
@@ begin {name}
Linux 6.1.0-9-amd64 x86_64
* overlay            present  options
@@ doctor 0
── sh-1: exit 0
@@ walk {walk}
=========== test session starts ===========
tests/integration/a.py::test_one PASSED [ 50%]
FAILED is a word that a test printed
{summary}=========== {counts} in 12.34s (0:00:12) ===========
@@ end {name} exit {code} after 75 s
"""


KERNEL = "@@ kernel 6.1.0-9-amd64 (#1 SMP Debian 6.1.1-1)\n@@ left-out tests/c.py takes hours\n"
WHOLE = KERNEL + half("root") + half("user") + "@@ done\n"
SUMMARY = """\
=========== short test summary info ===========
SKIPPED [2] tests/conftest.py:40: layer landlock-net is absent: ABI 2, needs 4
FAILED tests/integration/a.py::test_two - AssertionError: `x`
ERROR tests/redteam/b.py::test_three
"""


def problems(text: str) -> list[str]:
    return list(parse(text.splitlines()).problems(WANTED))


def test_two_passed_halves_are_a_success() -> None:
    assert problems(WHOLE) == []
    run = parse(WHOLE.splitlines())
    assert run.kernel == "6.1.0-9-amd64 (#1 SMP Debian 6.1.1-1)"
    assert [(one.name, one.counts, one.seconds, one.failed) for one in run.halves] == [
        ("root", "3 passed, 1 skipped", 75, []),
        ("user", "3 passed, 1 skipped", 75, []),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "as root: not started"),
        (KERNEL, "as root: not started"),
        (KERNEL + half("root"), "as an ordinary user: not started"),
        (WHOLE.partition("@@ end user")[0], "as an ordinary user: the guest stopped before the tests ended"),
        (KERNEL + half("root", code=1, counts="1 failed, 2 passed") + half("user"), "as root: pytest ended with 1"),
        (KERNEL + half("root", code=0, counts="4 skipped") + half("user"), "as root: pytest ended with 0"),
        (KERNEL + half("root", code=5, counts="no tests ran") + half("user"), "as root: pytest ended with 5"),
        (KERNEL + half("root", code=124) + half("user"), "as root: over its time"),
        (KERNEL + half("root", walk=125) + half("user"), "as root: the first walk (run, diff, apply) failed"),
    ],
    ids=["nothing", "kernel-only", "one-half", "cut-off", "failed", "only-skips", "no-tests", "time", "walk"],
)
def test_anything_less_is_a_problem_that_names_the_half(text: str, problem: str) -> None:
    assert problem in problems(text)


@pytest.mark.parametrize(
    "line", ["@@", "@@ end", "@@ end root", "@@ doctor", "@@ walk x", "@@ end root exit x after y s"]
)
def test_a_line_that_was_cut_short_is_no_result(line: str) -> None:
    text = KERNEL + WHOLE.split("@@ end root")[0].removeprefix(KERNEL) + line
    assert "as root: the guest stopped before the tests ended" in problems(text)


def test_only_the_summary_lists_what_failed_and_was_skipped() -> None:
    (one,) = parse((KERNEL + half("root", summary=SUMMARY, code=1)).splitlines()).halves
    assert one.failed == ["tests/integration/a.py::test_two - AssertionError: `x`", "tests/redteam/b.py::test_three"]
    assert one.skipped == ["[2] tests/conftest.py:40: layer landlock-net is absent: ABI 2, needs 4"]


def test_the_page_says_kernel_counts_time_and_what_was_skipped() -> None:
    text = KERNEL + half("root", summary=SUMMARY, code=1) + half("user")
    page = render(parse(text.splitlines()), WANTED, "2030-01-02")
    assert "2030-01-02, Linux 6.1.0-9-amd64 (#1 SMP Debian 6.1.1-1)." in page
    assert "| as root | pytest ended with 1 | 3 passed, 1 skipped | 1 min 15 s |" in page
    assert "| as an ordinary user | passed | 3 passed, 1 skipped | 1 min 15 s |" in page
    assert "- `tests/c.py`: takes hours" in page
    assert "layer landlock-net is absent" in page
    assert "AssertionError: 'x'`" in page
    assert "    * overlay            present  options" in page
    assert "Not passed: as root: pytest ended with 1." in page


@pytest.mark.parametrize(("text", "code"), [(WHOLE, 0), (KERNEL, 1)])
def test_the_exit_code_and_the_document_follow_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int
) -> None:
    log, document = tmp_path / "log", tmp_path / "page.md"
    log.write_bytes(text.encode() + b"\xff")
    assert main(["--wanted", "root user", "--document", str(document), str(log)]) == code
    assert ("Both accounts passed." in document.read_text()) == (code == 0)
    assert ("FAILED" in capsys.readouterr().out) == (code == 1)
