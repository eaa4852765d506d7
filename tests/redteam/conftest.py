"""Everything here attacks a real service, and a file that must stay as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import Service
from tests.service_fixtures import service, tidy, workspace

__all__ = ["service", "tidy", "victim", "workspace"]


@pytest.fixture
def victim(service: Service) -> Path:
    """A file of the owner's that no sandbox was given; it must stay as it is."""
    path = service.folder("victim") / "secret"
    path.write_text("the owner's secret\n", encoding="utf-8")
    return path
