"""The other sandboxes: found, or installed into the cache at a pinned version; else named as missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

from bench import place

SANDBOX_RUNTIME: Final = "@anthropic-ai/sandbox-runtime@0.0.83"
# The Node.js that this version asks for (>= 22.12); Debian 12 and Ubuntu 24.04 have 18.
NODE: Final = "node@22.23.3"
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class MissingError(RuntimeError):
    """A program to compare with is not here and could not be had."""


def find(name: str, package: str = "") -> str:
    """Return where a system program is.

    Raises:
        MissingError: It is not installed; `scripts/setup --bench` installs it.
    """
    path = shutil.which(name, path=_SYSTEM_PATH)
    if path is None:
        raise MissingError(f"{name} is missing: apt-get install {package or name}")
    return os.path.realpath(path)


def version(path: str) -> str:
    """Return a program's name and version, from the first line that it says."""
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    words = (shown.splitlines() or [""])[0].replace(" version ", " ").split()
    return " ".join(words[:2])


def sandbox_runtime() -> tuple[str, str]:
    """Return the path of `srt` and a PATH with its own Node.js first; installs both on first use.

    Raises:
        MissingError: npm, socat, bwrap or rg (which it starts) is missing, or the registry cannot be reached.
    """
    for name, package in (("bwrap", "bubblewrap"), ("socat", "socat"), ("rg", "ripgrep")):
        find(name, package)
    prefix = os.path.join(place.cache(), SANDBOX_RUNTIME.rpartition("/")[2])
    programs = os.path.join(prefix, "node_modules/.bin")
    if not all(os.path.exists(os.path.join(programs, name)) for name in ("srt", "node")):
        command = [_npm(), "install", "--silent", "--no-fund", "--no-audit", "--prefix", prefix, SANDBOX_RUNTIME, NODE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"npm could not install {SANDBOX_RUNTIME}: {done.stderr.strip()[-300:]}")
    return os.path.join(programs, "srt"), f"{programs}:{_SYSTEM_PATH}"


def _npm() -> str:
    path = shutil.which("npm")
    if path is None:
        raise MissingError("npm is missing: apt-get install npm")
    return path
