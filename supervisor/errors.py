"""The errors of Deskwarden, by who has to act.

::

    DeskwardenError            base: message, next step, exit code
    ├── UsageError             the person who typed: wrong word, unknown name            (125)
    ├── RefusedError           a rule says no: workspace, ceiling, plan                  (126)
    ├── NotFoundError          the command to run does not exist in the sandbox          (127)
    ├── LaunchError            a set-up step failed; carries step, path and errno        (125)
    ├── LayerMissingError      the kernel or the machine lacks a layer that is required  (126)
    ├── ConflictError          the real disk changed since launch; nothing was written   (125)
    └── ServiceError           a Deskwarden process is gone, late or speaks nonsense     (125)

Built-in exceptions serve where they already say it (`ValueError`, `OSError`). One place prints: `cli.main`.
Standard library only: the launcher and the hand import this.
"""

from __future__ import annotations

import errno as _errno


class DeskwardenError(Exception):
    """Base of all errors that a person may see.

    Args:
        message: What happened, with the value seen and the value expected.
        next_step: The next command to type, or what to change. Empty when there is none.
    """

    exit_code = 125

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class UsageError(DeskwardenError):
    """The words typed do not fit: an unknown name, a missing command, a bad value."""


class RefusedError(DeskwardenError):
    """A rule refuses what was asked; no state changed."""

    exit_code = 126


class NotFoundError(DeskwardenError):
    """The command to run was not found inside the sandbox."""

    exit_code = 127


class LayerMissingError(RefusedError):
    """A layer that the profile requires cannot be had on this machine."""


class ConflictError(DeskwardenError):
    """The real disk changed since the session started; nothing was overwritten."""


class ServiceError(DeskwardenError):
    """A Deskwarden process died, is late, or answered what it must not answer."""


class LaunchError(DeskwardenError):
    """A set-up step of the sandbox failed; everything made before it was taken back.

    Args:
        step: The operation in words, e.g. ``mount /srv/x read-only``.
        error_number: The errno, or 0 when the step failed for another reason.
        detail: Further text when the errno does not say it all.
    """

    def __init__(self, step: str, error_number: int = 0, detail: str = "", next_step: str = "") -> None:
        name = _errno.errorcode.get(error_number, f"errno {error_number}") if error_number else ""
        parts = [part for part in (name, detail) if part]
        super().__init__(f"{step}: {', '.join(parts) or 'failed'}", next_step)
        self.step = step
        self.error_number = error_number
        self.detail = detail


_BY_NAME = {
    cls.__name__: cls
    for cls in (UsageError, RefusedError, NotFoundError, LayerMissingError, ConflictError, ServiceError)
}


def to_wire(error: DeskwardenError) -> dict[str, object]:
    """Return *error* as a JSON-able value; `from_wire` is the inverse."""
    value: dict[str, object] = {"kind": type(error).__name__, "message": error.message, "next": error.next_step}
    if isinstance(error, LaunchError):
        value |= {"step": error.step, "errno": error.error_number, "detail": error.detail}
    return value


def from_wire(value: dict[str, object]) -> DeskwardenError:
    """Rebuild an error that another Deskwarden process reported with `to_wire`."""
    if value.get("kind") == "LaunchError":
        number = value.get("errno")
        return LaunchError(
            str(value.get("step", "")),
            number if isinstance(number, int) else 0,
            str(value.get("detail", "")),
            str(value.get("next", "")),
        )
    cls = _BY_NAME.get(str(value.get("kind")), DeskwardenError)
    return cls(str(value.get("message", "")), str(value.get("next", "")))
