"""A changed policy decides soon, roles and rules at once; a broken, foreign or older one is told, and not used."""

from __future__ import annotations

import asyncio
import json
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor import clock
from supervisor.broker import journal
from supervisor.broker.store import Store
from supervisor.cli import policy_sign
from supervisor.daemon.active_policy import Active, ActivePolicy
from supervisor.daemon.policy_source import PolicySource
from supervisor.identity.keys import new_key, write_private
from supervisor.identity.trust import Role, TrustedKey, trusted_key_bytes
from supervisor.policy.bundle_source import Bundle, default_directory, read_bundle
from supervisor.policy.regorus_engine import RegorusEngine

pytestmark = pytest.mark.integration

PACKAGED = read_bundle(default_directory())


class Local:
    """The engine without its process: what is loaded answers."""

    def __init__(self) -> None:
        self.loaded: Bundle | None = None

    async def load(self, bundle: Bundle) -> None:
        RegorusEngine(bundle.modules, bundle.document)
        self.loaded = bundle


class House:
    """A managed directory, what watches it, and a store."""

    def __init__(self, base: Path) -> None:
        self.managed = base / "managed"
        self.directory = self.managed / "policy"
        self.key = str(base / "key.pem")
        self.store = Store(str(base / "broker.db"))
        self.engine = Local()
        self.changes: list[Active] = []
        source = PolicySource(str(self.managed), PACKAGED, os.geteuid())
        self.policy = ActivePolicy(source, self.engine, self.store, self.changes.append)

    def install(self, **config: object) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for file in default_directory().iterdir():
            if file.name.endswith((".rego", ".json")) and "test" not in file.name:
                (self.directory / file.name).write_bytes(file.read_bytes())
        self.configure(**config)

    def configure(self, **config: object) -> None:
        data = json.loads((self.directory / "data.json").read_text())
        data["config"] |= config
        (self.directory / "data.json").write_text(json.dumps(data))

    def trust(self) -> None:
        key = new_key()
        write_private(self.key, key)
        keys = self.managed / "policy-keys"
        keys.mkdir(parents=True)
        trusted = TrustedKey(key.public, frozenset({Role.PUBLISHER}), "it", clock.now_ns() // 10**9 + 10**7)
        (keys / "it.json").write_bytes(trusted_key_bytes(trusted))

    def sign(self) -> None:
        policy_sign.run(Namespace(directory=str(self.directory), key=self.key, days=30, renew=False, json=True))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)

    async def until_revision_changes(self) -> str:
        before = self.revision
        await self.until(lambda: self.revision != before)
        return self.revision

    async def until_told(self, text: str) -> None:
        await self.until(lambda: self.policy.problem is not None and text in self.policy.problem.message)

    @property
    def revision(self) -> str:
        return self.policy.active.revision if self.policy.active else ""

    async def recorded(self) -> list[dict[str, str]]:
        return [entry["body"] for entry in await self.store.commit(lambda db: list(journal.read(db, "policy")))]


@asynccontextmanager
async def house(base: Path) -> AsyncIterator[House]:
    made = House(base)
    try:
        yield made
    finally:
        await made.policy.stop()
        made.store.close()


def test_a_good_change_decides_with_its_roles_and_a_broken_one_is_told_and_kept_out(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path) as here:
            here.install()
            await here.policy.start()
            first = here.revision
            assert here.policy.status()["source"] == str(here.directory)
            here.configure(max_denied=3)
            second = await here.until_revision_changes()
            assert here.engine.loaded is not None
            assert here.engine.loaded.revision == second != first
            (here.directory / "roles.json").write_text('{"templates": [{"name": 5}]}')
            await here.until_told("roles.json")
            assert here.revision == here.engine.loaded.revision == second
            (here.directory / "deny.rego").write_text("package deskwarden\n\nimport rego.v1\n\nx := time.now_ns()\n")
            (here.directory / "roles.json").write_bytes((default_directory() / "roles.json").read_bytes())
            await here.until_told("input.now")
            assert here.revision == second
            states = [entry["state"] for entry in await here.recorded()]
            assert states[:3] == ["active", "active", "refused"]
            assert [active.revision for active in here.changes] == [second]

    asyncio.run(body())


def test_a_managed_policy_that_appears_takes_over_and_what_comes_with_the_product_when_it_goes(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path) as here:
            await here.policy.start()
            assert here.policy.status()["source"] == "packaged"
            here.install(max_denied=4)
            await here.until_revision_changes()
            assert here.policy.status()["source"] == str(here.directory)
            here.directory.rename(here.managed / "away")
            assert await here.until_revision_changes() == PACKAGED.revision

    asyncio.run(body())


def test_attack_an_older_signed_policy_or_one_of_the_same_number_never_comes_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path) as here:
            here.trust()
            here.install(max_denied=3)
            await here.policy.start()
            await here.until_told("nobody has signed it")
            assert here.revision == ""
            here.sign()
            await here.policy.reload()
            assert here.policy.status()["problem"] == ""
            old = {file.name: file.read_bytes() for file in here.directory.iterdir()}
            here.configure(max_denied=4)
            here.sign()
            await here.policy.reload()
            assert here.policy.status()["seq"] == 2
            newest = here.revision
            for name, data in old.items():
                (here.directory / name).write_bytes(data)
            await here.policy.reload()
            assert here.policy.problem is not None
            assert "number 1, number 2" in here.policy.problem.message
            assert here.revision == newest

    asyncio.run(body())


def test_attack_a_policy_that_others_may_write_or_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path) as here:
            here.install()
            (here.directory / "allow.rego").chmod(0o666)
            await here.policy.start()
            assert here.revision == ""
            assert here.policy.problem is not None
            assert "others may write it" in here.policy.problem.message
            real = here.managed / "elsewhere"
            here.directory.rename(real)
            here.directory.symlink_to(real)
            await here.policy.reload()
            assert here.revision == ""
            foreign = PolicySource(str(here.managed), PACKAGED, os.geteuid() + 1)
            here.directory.unlink()
            real.rename(here.directory)
            with pytest.raises(Exception, match="belongs to uid"):
                foreign.find(0)

    asyncio.run(body())


def test_as_many_as_root_demands_have_to_sign_and_a_setting_that_is_not_known_stops_all(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path) as here:
            here.trust()
            here.install()
            here.sign()
            settings = here.managed / "policy.json"
            settings.write_text('{"least_signatures": 2}')
            await here.policy.start()
            assert "1 of 2 who have to" in str(here.policy.status()["problem"])
            settings.write_text('{"require_signatures": false}')
            await here.policy.reload()
            assert "nothing else" in str(here.policy.status()["problem"])
            assert here.revision == ""
            settings.write_text('{"least_signatures": 1}')
            await here.policy.reload()
            assert here.policy.status()["signers"] == ["it"]

    asyncio.run(body())
