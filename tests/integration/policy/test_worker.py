"""The policy worker for real: confined, in time, and gone means no."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.daemon.policy_client import DEADLINE_S, WorkerEngine
from supervisor.errors import RefusedError
from supervisor.linux import seqpacket
from supervisor.policy.bundle_source import Bundle, default_directory, read_bundle
from supervisor.policy.engine import EngineError
from supervisor.policy.worker_filter import CALLS, compile_calls
from supervisor.session.channel import Channel

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
HEAD = "package deskwarden\n\nimport rego.v1\n\n"
PROGRAM = "import sys; from supervisor.policy import worker; {before}worker.main(int(sys.argv[1]))"
# A few seconds of work without anything to allocate.
SLOW = """default decision := {"effect": "deny"}

decision := {"effect": "slow", "n": count(all)} if input.slow

all := {1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a * b == -1}
"""


class Workers:
    """Start workers as the launcher does, but by a fresh interpreter; end them by pid."""

    def __init__(self, before: str = "") -> None:
        self.program = PROGRAM.format(before=before)
        self.running: list[subprocess.Popen[bytes]] = []

    async def start(self) -> Channel:
        ours, theirs = seqpacket.pair()
        command = [sys.executable, "-B", "-c", self.program, str(theirs.fileno())]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)  # noqa: ASYNC220 - milliseconds
        self.running.append(process)
        theirs.close()
        return Channel(ours)

    def kill(self) -> None:
        self.running[-1].kill()

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


def with_engine(scenario: Callable[[WorkerEngine, Workers], Awaitable[None]], deadline_s: float = 30.0) -> None:
    """Run *scenario* against an engine whose worker has the shipped bundle."""
    workers = Workers()

    async def body() -> None:
        engine = WorkerEngine(workers.start, workers.kill, compile_calls(CALLS), deadline_s)
        try:
            await engine.load(shipped())
            await scenario(engine, workers)
        finally:
            engine.close()

    try:
        asyncio.run(body())
    finally:
        workers.end()


def shipped() -> Bundle:
    return read_bundle(default_directory())


def bundle_of(rules: str, revision: str = "sha256:test") -> Bundle:
    return dataclasses.replace(shipped(), modules={"decision.rego": HEAD + rules}, revision=revision)


async def answering_again(engine: WorkerEngine) -> bytes:
    deadline = time.monotonic() + 20
    while True:
        try:
            return await engine.evaluate(b'{"schema":1}')
        except EngineError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def test_it_decides_and_names_the_revision() -> None:
    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        answer = json.loads(await engine.evaluate(b'{"schema":1}'))
        assert answer["effect"] == "deny"
        assert answer["policy_rev"] == engine.revision == shipped().revision

    with_engine(scenario)


def test_a_hundred_questions_at_once_each_get_their_own_answer() -> None:
    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        await engine.load(bundle_of('default decision := {}\n\ndecision := {"n": input.n} if input.n\n'))
        documents = [json.dumps({"n": n}).encode() for n in range(1, 101)]
        answers = await asyncio.gather(*(engine.evaluate(document) for document in documents))
        assert [json.loads(answer)["n"] for answer in answers] == list(range(1, 101))

    with_engine(scenario)


def test_it_has_no_files_network_programs_or_processes_left() -> None:
    seccomp = compile_calls(CALLS)
    attempts = """
import os, socket, ctypes, threading
def tries():
    found = {}
    def attempt(name, what):
        try:
            what(); found[name] = 'open'
        except (OSError, RuntimeError) as error:
            found[name] = getattr(error, 'errno', 0) or 'refused'
    attempt('read', lambda: os.open('/etc/passwd', os.O_RDONLY))
    attempt('stat', lambda: os.stat('/etc'))
    attempt('write', lambda: os.open('/tmp/deskwarden-worker', os.O_CREAT | os.O_WRONLY))
    attempt('socket', lambda: socket.socket())
    attempt('unix', lambda: socket.socket(socket.AF_UNIX))
    attempt('fork', os.fork)
    attempt('thread', lambda: threading.Thread(target=print).start())
    attempt('exec', lambda: os.execv('/bin/true', ['true']))
    attempt('kill', lambda: os.kill(os.getppid(), 0))
    attempt('memfd', lambda: os.memfd_create('x'))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 4096, 7, 0x22, -1, 0)
    found['executable memory'] = 'open' if page != ctypes.c_void_p(-1).value else 'refused'
    return found
"""
    code = attempts + (
        "import json, sys\nfrom supervisor.linux import seqpacket\nfrom supervisor.policy import worker\n"
        "s = socket.socket(fileno=int(sys.argv[1]))\nassert worker.confine(s)\n"
        "seqpacket.send(s, json.dumps(tries()).encode())\n"
    )
    ours, theirs = seqpacket.pair()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "-c", code, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment) as process:
        theirs.close()
        seqpacket.send(ours, b"s" + seccomp)
        assert seqpacket.receive(ours)[0][:1] == b"r"
        found = json.loads(seqpacket.receive(ours)[0])
        process.wait()
    assert len(found) == 11
    assert "open" not in found.values(), found


def test_a_question_without_end_is_an_error_in_time_and_another_worker_answers() -> None:
    async def scenario(engine: WorkerEngine, workers: Workers) -> None:
        await engine.load(bundle_of(SLOW))
        begun = time.monotonic()
        with pytest.raises(EngineError, match="did not answer within 1000 ms"):
            await engine.evaluate(b'{"slow":true}')
        assert time.monotonic() - begun < DEADLINE_S + 1
        first = workers.running[0]
        assert first.wait(10) == -signal.SIGKILL
        assert json.loads(await answering_again(engine)) == {"effect": "deny"}
        assert engine.restarts == 1

    with_engine(scenario, DEADLINE_S)


def test_a_worker_that_dies_denies_what_was_asked_and_comes_back_with_its_policy() -> None:
    async def scenario(engine: WorkerEngine, workers: Workers) -> None:
        os.kill(workers.running[0].pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(engine.evaluate(b'{"schema":1}'))
        await asyncio.sleep(0.05)
        workers.kill()
        with pytest.raises(EngineError, match="lost"):
            await asked
        assert json.loads(await answering_again(engine))["policy_rev"] == shipped().revision

    with_engine(scenario)


def test_memory_without_end_ends_the_question_or_the_worker_and_never_the_daemon() -> None:
    grows = 'default decision := {}\n\ndecision := {"n": x} if {\n\tinput.grow\n\tx := numbers.range(1, 100000000)\n}\n'

    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        await engine.load(bundle_of(grows))
        with pytest.raises(EngineError):
            await engine.evaluate(b'{"grow":true}')
        assert json.loads(await answering_again(engine)) == {}

    with_engine(scenario)


@pytest.mark.parametrize(
    "rules",
    ["decision := \n", "decision := {} if input.x\n", "default decision := {}\n\nx := no.such(1)\n\ndecision := x\n"],
)
def test_a_broken_bundle_is_refused_and_the_last_good_one_goes_on(rules: str) -> None:
    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        with pytest.raises(RefusedError, match="the policy raised"):
            await engine.load(bundle_of(rules, "sha256:broken"))
        assert engine.revision == shipped().revision
        assert json.loads(await engine.evaluate(b'{"schema":1}'))["policy_rev"] == shipped().revision

    with_engine(scenario)


def test_a_bundle_larger_than_a_message_is_loaded() -> None:
    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        large = dataclasses.replace(
            bundle_of('default decision := {}\n\ndecision := {"n": count(data.names)} if input.schema\n'),
            data={"names": [f"name-{n:060}" for n in range(5000)]},
        )
        await engine.load(large)
        assert json.loads(await engine.evaluate(b'{"schema":1}')) == {"n": 5000}

    with_engine(scenario)


def test_an_error_of_the_policy_is_an_error_and_the_worker_goes_on() -> None:
    rules = 'default decision := {}\n\ndecision := {"n": 1 / input.n} if is_number(input.n)\n'

    async def scenario(engine: WorkerEngine, _workers: Workers) -> None:
        await engine.load(bundle_of(rules))
        with pytest.raises(EngineError, match="divide by zero"):
            await engine.evaluate(b'{"n":0}')
        assert json.loads(await engine.evaluate(b'{"n":1}')) == {"n": 1}
        assert engine.restarts == 0

    with_engine(scenario)


def test_without_a_policy_nothing_is_decided() -> None:
    async def body() -> None:
        with pytest.raises(EngineError, match="no policy"):
            await WorkerEngine(Workers().start, lambda: None, b"").evaluate(b"{}")

    asyncio.run(body())


def test_a_bundle_that_is_loaded_while_a_worker_is_replaced_is_the_one_that_answers() -> None:
    async def scenario(engine: WorkerEngine, workers: Workers) -> None:
        workers.kill()
        workers.running[0].wait()
        with pytest.raises(EngineError):
            await engine.evaluate(b'{"schema":1}')
        await engine.load(bundle_of('default decision := {"n": 7}\n', "sha256:new"))
        for _ in range(3):
            assert json.loads(await answering_again(engine)) == {"n": 7}
            await asyncio.sleep(0.05)
        assert engine.revision == "sha256:new"
        assert len(workers.running) == 2

    with_engine(scenario)


def test_a_worker_that_cannot_confine_itself_serves_nothing() -> None:
    workers = Workers()

    async def body() -> None:
        engine = WorkerEngine(workers.start, workers.kill, b"no program")
        with pytest.raises(EngineError, match="confine itself"):
            await engine.load(shipped())
        assert engine.revision == ""
        engine.close()

    try:
        asyncio.run(body())
    finally:
        workers.end()
