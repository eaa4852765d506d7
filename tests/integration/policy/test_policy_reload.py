"""A changed policy answers within a second; a broken one is told, and the last good one goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from supervisor.daemon.policy_client import WorkerEngine
from supervisor.daemon.policy_reload import PolicyReload
from supervisor.errors import DeskwardenError
from supervisor.policy.bundle_source import Bundle, default_directory
from supervisor.policy.regorus_engine import RegorusEngine

pytestmark = pytest.mark.integration


class Local(WorkerEngine):
    """The engine without its process: what is loaded answers."""

    def __init__(self) -> None:
        self.loaded: Bundle | None = None

    @property
    def revision(self) -> str:
        return self.loaded.revision if self.loaded else ""

    async def load(self, bundle: Bundle) -> None:
        RegorusEngine(bundle.modules, bundle.document)
        self.loaded = bundle


def copy_of_shipped(directory: Path) -> Path:
    for file in default_directory().iterdir():
        if file.suffix in (".rego", ".json"):
            (directory / file.name).write_bytes(file.read_bytes())
    return directory


def test_a_good_change_is_loaded_and_a_broken_one_told_and_kept_out(tmp_path: Path) -> None:
    directory = copy_of_shipped(tmp_path)
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def next_told() -> tuple[str, str]:
        async with asyncio.timeout(30):
            return await told.get()

    def broken(error: DeskwardenError, kept: str) -> None:
        told.put_nowait((error.message, kept))

    async def body() -> None:
        engine = Local()
        reload = PolicyReload(str(directory), engine, lambda revision: told.put_nowait(("", revision)), broken)
        reload.start()
        try:
            await reload.reload()
            first = await next_told()
            assert first == ("", engine.revision)
            data = json.loads((directory / "data.json").read_text())
            data["config"]["max_denied"] = 3
            (directory / "data.json").write_text(json.dumps(data))
            second = await next_told()
            assert second == ("", engine.revision)
            assert second != first
            (directory / "deny.rego").write_text("package deskwarden\n\nimport rego.v1\n\nx := time.now_ns()\n")
            text, kept = await next_told()
            assert "input.now" in text
            assert kept == engine.revision == second[1]
        finally:
            reload.stop()

    asyncio.run(body())
