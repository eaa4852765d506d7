"""Rules for all tests: what may be skipped, and what the directories mean."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.layers import layer_findings

# Time limits per example would fail on a busy machine; a database would leave files in the checkout.
settings.register_profile("deskwarden", deadline=None, database=None)
settings.load_profile("deskwarden")

_ROOT = Path(__file__).parent
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)
_BY_DIRECTORY = {"integration": pytest.mark.integration, "redteam": pytest.mark.redteam}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of the directory it lies in."""
    for item in items:
        mark = _BY_DIRECTORY.get(item.path.relative_to(_ROOT).parts[0])
        if mark is not None:
            item.add_marker(mark)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test only where the probe says that a layer it needs is not there."""
    for name in _needed_layers(item):
        findings = layer_findings()
        if name not in findings:
            pytest.fail(f"no layer is called {name!r}; known: {', '.join(findings)}", pytrace=False)
        if findings[name]:
            pytest.skip(f"layer {name} is {findings[name]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for a layer that this machine has into a failure, so that no gap passes for a skip."""
    report = yield
    return _refuse_idle_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As for a test, for a whole module that skips itself."""
    report = yield
    return _refuse_idle_skip(report)


def _needed_layers(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("layer"):
        yield from mark.args


def _refuse_idle_skip(report: _Report) -> _Report:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        idle = layers_had(reason)
        if idle:
            report.outcome = "failed"
            report.longrepr = f"skipped ({reason}), but this machine has: {', '.join(idle)}"
    return report


def layers_had(reason: str) -> list[str]:
    """Return the layers that *reason* names and this machine has.

    A reason in the form of `pytest_runtest_setup` names one layer; what the probe said about it may speak of others.
    A reason that says whose half this is (needs root, or makes no sense as root) is about rights, which are checked.
    """
    if re.search(r"\bas root\b" if os.geteuid() == 0 else r"\broot\b", reason):
        return []
    subject = re.match(r"layer ([\w-]+) is ", reason)
    text = subject[1] if subject else reason
    return [
        name
        for name, finding in layer_findings().items()
        if not finding and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    ]
