"""A failure after the command has started: stdout is the command's own by then, so no value of ours goes there."""

from __future__ import annotations

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    from supervisor.errors import DeskwardenError


class LateError(Exception):
    """Carries what failed to the one place that prints."""

    def __init__(self, error: DeskwardenError) -> None:
        super().__init__(error.message)
        self.error = error
