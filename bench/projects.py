"""Real projects in a folder, ready to be worked on: fetched once by pip, checked by hash, unpacked for each run."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import zipfile
from typing import Final

from bench import place
from bench.process import FailedError
from bench.tools import MissingError, find

_SOURCES: Final = os.path.join(place.CHECKOUT, "bench/sources.txt")
# Unpacking asks for what pip would build; a wheel of Django is all its files.
_NOT_BUILT: Final = "click,brotli"
SEARCHED_FILES: Final = 50_000
_FILES_IN_DIRECTORY: Final = 200
_IDENTITY: Final = ("-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false")


def _fetched(pattern: str) -> str:
    """Return a downloaded archive.

    Raises:
        MissingError: The package index cannot be reached.
    """
    folder = os.path.join(place.cache(), "sources")
    found = glob.glob(os.path.join(folder, pattern))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--no-binary", _NOT_BUILT, "--dest", folder, "--requirement", _SOURCES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = glob.glob(os.path.join(folder, pattern))
        if done.returncode or not found:
            raise MissingError(f"pip could not fetch {_SOURCES}: {done.stderr.strip()[-300:]}")
    return found[0]


def _run(*command: str, cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, env=place.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-500:]}")


def repository(folder: str) -> None:
    """Make ``origin``: a git repository of a whole framework, in two commits."""
    origin = os.path.join(folder, "origin")
    with zipfile.ZipFile(_fetched("[Dd]jango*.whl")) as archive:
        archive.extractall(origin)
    git = find("git")
    _run(git, "init", "-q", "-b", "main", cwd=origin)
    _run(git, "add", "-A", "django/conf", "django/contrib", cwd=origin)
    _run(git, *_IDENTITY, "commit", "-q", "-m", "contrib", cwd=origin)
    _run(git, "add", "-A", cwd=origin)
    _run(git, *_IDENTITY, "commit", "-q", "-m", "all", cwd=origin)


def tested_package(folder: str) -> None:
    """Unpack a package with its tests, and make ``.venv`` in it with what they need, as a developer has it."""
    _unpack(_fetched("click*.tar.gz"), folder)
    python = "/usr/bin/python3"
    _run(python, "-m", "venv", ".venv", cwd=folder)
    _run(".venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "pytest==8.3.5", cwd=folder)


def c_library(folder: str) -> None:
    """Unpack a library in C and write a makefile for it."""
    _unpack(_fetched("[Bb]rotli*.tar.gz"), folder)
    with open(os.path.join(folder, "Makefile"), "w", encoding="ascii") as file:
        file.write(
            "OBJECTS := $(patsubst %.c,%.o,$(wildcard c/common/*.c c/dec/*.c c/enc/*.c))\n"
            "CFLAGS := -O1 -Ic/include\n"
            "libbrotli.a: $(OBJECTS)\n\tar rcs $@ $^\n"
        )


def many_files(folder: str) -> None:
    """Write many small files; one in a hundred holds the word that is looked for."""
    line = "the quick brown fox jumps over the lazy dog, again and again, until the file is long enough\n"
    for number in range(SEARCHED_FILES):
        directory = os.path.join(folder, f"d{number // _FILES_IN_DIRECTORY:03}")
        if number % _FILES_IN_DIRECTORY == 0:
            os.mkdir(directory)
        with open(os.path.join(directory, f"f{number:05}.txt"), "w", encoding="ascii") as file:
            file.write(line * (4 + number % 12))
            if number % 100 == 0:
                file.write("needle\n")


def _unpack(archive: str, folder: str) -> None:
    """Unpack a source archive without its top directory."""
    _run(find("tar"), "--extract", "--file", archive, "--strip-components=1", "--no-same-owner", cwd=folder)
