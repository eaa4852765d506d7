"""Requests to a live driver (`live_driver`), for tests and for figures."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]


class DriverError(Exception):
    """What the driver answered with an error: kind and message."""


class Live:
    """One driver process; *base* has the owner's home and workspace."""

    def __init__(self, process: subprocess.Popen[str], base: Path) -> None:
        self._process = process
        self.base = base
        self.home = base / "home"
        self.session = ""
        self._count = 0

    def ask(self, do: str, **fields: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver ended; see its messages"
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(f"{answer['error']['kind']}: {answer['error']['message']}")
        return answer["ok"]

    def start(self) -> dict[str, Any]:
        """Start one more session; the others go on."""
        started: dict[str, Any] = self.ask("start")
        self.session = started["id"]
        return started

    def tell(self, code: str) -> Any:
        """Have the agent run *code*; returns what it left in `result`, or the name of its error."""
        return self.ask("tell", session=self.session, code=code)

    def grant(self, *paths: Path, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        mounted: list[dict[str, Any]] = self.ask(
            "grant", session=self.session, grant=name or str(paths[0]), paths=[str(path) for path in paths], **fields
        )
        return mounted

    def withdraw(self, *grants: Path | str) -> dict[str, Any]:
        withdrawn: dict[str, Any] = self.ask("withdraw", session=self.session, grants=[str(one) for one in grants])
        return withdrawn

    def folder(self, name: str = "") -> Path:
        """Make a folder in the owner's home with a file in it."""
        self._count += 1
        path = self.home / (name or f"folder{self._count}")
        path.mkdir(parents=True)
        (path / "file").write_text("granted\n")
        return path


@contextlib.contextmanager
def live(profile: str = "strict") -> Iterator[Live]:
    """Start a driver for the time of a ``with``."""
    with tempfile.TemporaryDirectory(prefix="dw-live-", ignore_cleanup_errors=True) as base:
        for name in ("store", "work", "home"):
            (Path(base) / name).mkdir()
        os.chmod(base, 0o755)
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("live_driver.py")), f"{base}/store", f"{base}/work", profile],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(_ROOT), "HOME": f"{base}/home", "PATH": os.environ["PATH"]},
        )
        try:
            yield Live(process, Path(base))
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=40)
