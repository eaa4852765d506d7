"""One service for all tests of the CLI; each test has folders of its own. Those that kill one start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, serving


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with serving() as one:
        yield one


@pytest.fixture
def workspace(service: Service) -> Path:
    return service.folder()

