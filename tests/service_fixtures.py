"""The fixtures of tests that drive a real service; a conftest imports those that its directory uses.

One service a file; each test has folders of its own. Tests that kill a service start their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, serving


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def tidy(service: Service) -> Iterator[None]:
    """End what a test left running, so that the next one starts from nothing."""
    yield
    service.tidy()


@pytest.fixture
def workspace(service: Service) -> Path:
    return service.folder()
