"""The plan of a session as arguments of bubblewrap: the same mounts, in the same order. Pure.

What bubblewrap has no word for is left out, in its favour: overlays (a bind instead), id mapping, keyring, Landlock,
resource limits, sysctl, the read-only root.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

# Descriptors of the child, above the three that every program has.
_FIRST_FD: Final = 10
# `--dev /dev` makes these itself.
_MADE_BY_DEV: Final = frozenset(("/dev/pts", "/dev/ptmx", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"))
_SKIPPED: Final = frozenset(("root", "loopback", "keyring", "sysctl", "protect", "limits", "pivot", "seal", "stubs"))


@dataclass(slots=True)
class Arguments:
    """What to type, and what the descriptors named in it must hold."""

    words: list[str] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)

    def hold(self, content: bytes) -> str:
        """Return the number of a new descriptor with this content."""
        number = _FIRST_FD + len(self.contents)
        self.contents[number] = content
        return str(number)


def arguments(plan: dict[str, Any], exists: Callable[[str], bool] = os.path.exists) -> Arguments:
    """Return bubblewrap's arguments, program name excluded, for a plan as the launcher's child reads it.

    Raises:
        ValueError: The plan has an operation that this does not know: the comparison would not be like with like.
    """
    result = Arguments()
    result.words += ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for operation in [*plan["base"], *plan["operations"]]:
        result.words += _words(operation, result, exists)
    command = plan["command"]
    result.words += ["--chdir", command["directory"], "--clearenv"]
    for name, value in command["environment"].items():
        result.words += ["--setenv", name, value]
    result.words += ["--seccomp", result.hold(base64.b64decode(plan["seccomp"]))]
    result.words += ["--", *command["argv"]]
    return result


def _words(operation: dict[str, Any], result: Arguments, exists: Callable[[str], bool]) -> list[str]:
    kind, path = operation["op"], operation.get("path", "")
    if kind in _SKIPPED or path in _MADE_BY_DEV:
        return []
    if kind == "file":
        return ["--file", result.hold(os.fsencode(operation["text"])), path]
    if kind == "bind":
        return _bind(operation, path, exists)
    translate = _TRANSLATIONS.get(kind)
    if translate is None:
        raise ValueError(f"operation {kind!r}: bubblewrap's counterpart is not known")
    return translate(operation, path)


def _hostname(operation: dict[str, Any], _path: str) -> list[str]:
    return ["--hostname", operation["name"]]


def _directory(operation: dict[str, Any], path: str) -> list[str]:
    return ["--dev", "/dev"] if path == "/dev" else ["--perms", f"{operation['mode']:04o}", "--dir", path]


def _stub(_operation: dict[str, Any], path: str) -> list[str]:
    return ["--perms", "0000", "--dir", path]


def _symlink(operation: dict[str, Any], path: str) -> list[str]:
    return ["--symlink", operation["target"], path]


def _overlay(operation: dict[str, Any], path: str) -> list[str]:
    read_only = operation["read_only"] or operation["stage"] is None
    return ["--ro-bind" if read_only else "--bind", operation["origin"], path]


def _file_system(operation: dict[str, Any], path: str) -> list[str]:
    if operation["fs_type"] == "proc":
        return ["--proc", path]
    if operation["fs_type"] != "tmpfs":
        raise ValueError(f"mount {operation['fs_type']}: bubblewrap's counterpart is not known")
    options = operation["options"]
    size = options.get("size", "")
    return [
        *(["--size", size] if size.isdigit() else []),
        *(["--perms", options["mode"]] if "mode" in options else []),
        "--tmpfs",
        path,
    ]


def _bind(operation: dict[str, Any], path: str, exists: Callable[[str], bool]) -> list[str]:
    if operation["if_exists"]:
        return ["--ro-bind", operation["origin"], path] if exists(path) else []
    if operation["device"] or not operation["origin"].startswith("/"):
        return []  # `--dev` has the same ones; and what is the daemon's own it has not
    return ["--ro-bind" if operation["read_only"] else "--bind", operation["origin"], path]


_TRANSLATIONS: Final[dict[str, Callable[[dict[str, Any], str], list[str]]]] = {
    "hostname": _hostname,
    "stub": _stub,
    "directory": _directory,
    "symlink": _symlink,
    "mount": _file_system,
    "overlay": _overlay,
}
