"""The MCP server: the SDK's own client over stdio, before a real broker service."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import CallToolResult

from supervisor.broker.agent_door import Phase
from tests.agent_door import house

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path() -> Iterator[str]:
    name, path = house().open()
    yield path
    house().end(name)


def converse(path: str, talk: Callable[[Client], Awaitable[None]]) -> None:
    """Start the server as an agent would, and talk to it."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-B", "-m", "supervisor.agent.main", "--socket", path, "mcp"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
    )

    async def run() -> None:
        async with Client(parameters) as client:
            await talk(client)

    asyncio.run(asyncio.wait_for(run(), 300))


def structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result
    assert result.structured_content is not None
    return result.structured_content


def test_a_model_sees_asks_waits_is_denied_and_gives_back(path: str) -> None:
    async def talk(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {
            "describe_access",
            "request_access",
            "wait_for_request",
            "cancel_request",
            "release_access",
            "explain_denial",
            "start_agent",
        }
        for tool in tools.values():
            assert tool.description
            assert tool.output_schema
        schema = tools["request_access"].input_schema
        assert schema["required"] == ["type", "target", "reason"]
        assert "file:read" in schema["properties"]["type"]["enum"]

        asked = {"type": "file:read", "target": "~/open/*.txt", "reason": "to read"}
        granted = structured(await client.call_tool("request_access", asked))
        assert (granted["status"], granted["grant"]["paths"]) == ("granted", ["/home/a/open"])
        assert len(structured(await client.call_tool("describe_access", {}))["grants"]) == 1
        await client.call_tool("release_access", {"grant_id": granted["grant"]["grant_id"]})
        assert structured(await client.call_tool("describe_access", {}))["grants"] == []

        denied = structured(await client.call_tool("request_access", asked | {"target": "~/.ssh/id"}))
        assert (denied["status"], denied["reasons"][0]["code"]) == ("denied", "path-protected")
        assert denied["next_steps"] == ["ask the owner to run the git push", "use https"]
        why = structured(await client.call_tool("explain_denial", {}))
        assert (why["request_id"], why["rules"]) == (denied["request_id"], ["protect-keys"])

        waiting = structured(
            await client.call_tool("request_access", {"type": "secret:use", "target": "github", "reason": "to publish"})
        )
        assert (waiting["status"], waiting["waiting_for"]) == ("waiting", ["owner"])
        named = {"request_id": waiting["request_id"]}
        still = structured(await client.call_tool("wait_for_request", {**named, "timeout_seconds": 1}))
        assert still["status"] == "waiting"
        asyncio.get_running_loop().call_later(0.5, house().decide, waiting["request_id"], Phase.GRANTED)
        secret = structured(await client.call_tool("wait_for_request", named))
        assert secret["status"] == "granted"
        assert "deskwarden-agent use" in secret["next_steps"][0]

        wrong = await client.call_tool("release_access", {"grant_id": "gr0"})
        assert wrong.is_error
        assert "not-found" in str(wrong.content)
        assert (await client.call_tool("request_access", asked | {"type": "file:eat"})).is_error
        assert (await client.call_tool("request_access", asked | {"target": "/a\nb"})).is_error

    converse(path, talk)


def test_without_a_broker_the_tools_are_listed_and_say_what_is_missing(tmp_path: Path) -> None:
    async def talk(client: Client) -> None:
        assert len((await client.list_tools()).tools) == 7
        answer = await client.call_tool("describe_access", {})
        assert answer.is_error
        assert "no broker" in str(answer.content)

    converse(f"{tmp_path}/none.sock", talk)
