"""The door to the policy engine; the worker's client, which `daemon` hands in, is one, a test's another."""

from __future__ import annotations

from typing import Protocol

from supervisor.errors import ServiceError


class EngineError(ServiceError):
    """The engine is dead, late, or answered nonsense. It always means deny."""


class Engine(Protocol):
    """Evaluates the one decision document of the bundle that is loaded."""

    @property
    def revision(self) -> str:
        """The revision of the bundle that answers now."""

    async def evaluate(self, document: bytes) -> bytes:
        """Return the JSON of ``data.deskwarden.decision`` for the JSON input *document*.

        Raises:
            EngineError: No answer in time, or an error of the policy.
        """
