"""One service a file; each test has folders of its own. Those that kill one start their own."""

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
    yield
    service.tidy()


@pytest.fixture
def workspace(service: Service) -> Path:
    return service.folder()
