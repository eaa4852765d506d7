"""Everything here drives a real service."""

from tests.service_fixtures import service, tidy, workspace

__all__ = ["service", "tidy", "workspace"]
