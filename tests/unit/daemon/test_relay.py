"""The relay and the service behind it, attacked through real sockets; whoever attacks, the next session is served."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from supervisor._proto.deskwarden.v1 import agent_pb2, agent_pb2_grpc, types_pb2
from supervisor.agent.client import AgentClient
from supervisor.agent.values import Ask, DeskwardenDenied
from supervisor.broker.agent_door import Phase
from supervisor.daemon import connection, relay, splice
from supervisor.daemon.agent_service import MAX_IN_FLIGHT
from supervisor.daemon.connection import PREFACE
from supervisor.daemon.peer import Place, check
from supervisor.daemon.relay import MAX_CONNECTIONS
from supervisor.errors import RefusedError, ServiceError, UsageError
from tests.agent_door import House, house

ROOT = Path(__file__).parents[3]
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
# Ends when it has read what the server says first; 1 when the connection was closed instead.
CONNECT = f"""\
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sys.stdin.readline()
    try:
        sock.connect(sys.argv[1])
        sock.sendall({PREFACE + SETTINGS!r})
        sock.settimeout(120)
        sys.exit(0 if sock.recv(9) else 1)
    except ConnectionError:
        sys.exit(1)
"""


@pytest.fixture
def place() -> Iterator[House]:
    yield house()
    # Whatever was done to one session, another is served.
    name, path = house().open()
    with AgentClient(path) as client:
        assert client.describe().session == name
    house().end(name)
    assert house().errors == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    return sock


def is_closed(sock: socket.socket) -> bool:
    """Read to the end; False when the other side keeps it open."""
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def reasons(place: House, session: str) -> list[str]:
    return [reason for name, reason in place.refused if name == session]


def test_another_uid_is_refused_before_a_byte_of_it_is_read(place: House) -> None:
    name, path = place.open(agent_uid=os.geteuid() + 1)
    with connect(path) as sock:
        assert is_closed(sock)
    assert reasons(place, name) == [f"peer has uid {os.geteuid()}, want {os.geteuid() + 1}"]
    with AgentClient(path) as client, pytest.raises(ServiceError):
        client.describe()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second uid: checked by root")
def test_a_real_process_of_another_uid_is_refused(place: House) -> None:
    name, path = place.open()
    fd = os.open(path, os.O_PATH)  # as a bind mount does, past the daemon's directory
    os.set_inheritable(fd, True)
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-IS", "-c", CONNECT]
    done = subprocess.run([*command, f"/proc/self/fd/{fd}"], input=b"\n", pass_fds=(fd,), check=False, timeout=120)
    os.close(fd)
    assert done.returncode == 1
    assert reasons(place, name) == ["peer has uid 65534, want 0"]


@contextlib.contextmanager
def sandboxed(path: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a process in a pid namespace of its own that connects when told; yield it and its pid here."""
    unshare = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen([*unshare, "/usr/bin/python3", "-IS", "-c", CONNECT, path], stdin=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            wait_until(lambda: bool(children.read_text()))
            yield process, int(children.read_text())
        finally:
            process.kill()


def test_a_process_outside_the_sessions_pid_namespace_is_refused_and_one_inside_served(place: House) -> None:
    socket_path = f"{place.directory}/s-inside.sock"
    with sandboxed(socket_path) as (process, pid):
        inode = os.stat(f"/proc/{pid}/ns/pid").st_ino
        name, path = place.open(session="s-inside", pid_namespace=inode, roots={pid})
        assert path == socket_path
        with connect(path) as outside:
            assert is_closed(outside)
        assert "outside the session's pid namespace" in reasons(place, name)[0]
        process.communicate(b"\n", timeout=120)
        assert process.returncode == 0
    place.end(name)


def test_where_the_namespace_cannot_be_read_only_descendants_of_the_session_are_served(place: House) -> None:
    name, path = place.open(pid_namespace=0, roots={os.getpid()})
    command = [sys.executable, "-IS", "-c", CONNECT, path]
    assert subprocess.run(command, input=b"\n", check=False, timeout=120).returncode == 0
    place.end(name)
    _, path = place.open(pid_namespace=0, roots={2**22 + 1})
    command[-1] = path
    assert subprocess.run(command, input=b"\n", check=False, timeout=120).returncode == 1


def test_a_process_outside_the_sessions_control_group_is_refused(place: House) -> None:
    name, path = place.open(cgroup="/deskwarden/session-of-somebody")
    with connect(path) as sock:
        assert is_closed(sock)
    assert "control group" in reasons(place, name)[0]


def test_a_peer_that_died_before_it_was_looked_at_is_refused(place: House) -> None:
    # Connected and dead before the listener exists for the relay: its pid may be anybody's by then.
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"{place.directory}/early.sock"
        listener.bind(path)
        listener.listen()
        text = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        subprocess.run([sys.executable, "-IS", "-c", text], check=True, timeout=120)
        accepted, _ = listener.accept()
    mine = Place("s", os.geteuid(), os.stat("/proc/self/ns/pid").st_ino, "", {os.getpid()})
    with accepted, pytest.raises(RefusedError, match=r"gone|ended|cannot be looked at"):
        check(accepted, mine)
    os.unlink(path)


def test_the_internal_socket_serves_nobody_who_did_not_come_through_the_relay(place: House) -> None:
    with (
        AgentClient(f"{place.directory}/internal.sock") as client,
        pytest.raises(ServiceError, match="unauthenticated"),
    ):
        client.describe()


@pytest.mark.parametrize(
    "data", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSX", os.urandom(1 << 16)]
)
def test_garbage_is_closed_before_grpc_sees_it(place: House, data: bytes) -> None:
    name, path = place.open()
    with connect(path) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        assert is_closed(sock)
    assert "is no HTTP/2" in reasons(place, name)[0]


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",  # a frame of 16 MiB
        b"\0\0\x05\x01\x04\0\0\0\x01\xff\xff\xff\xff\xff",  # nonsense for HPACK
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",  # a window update of 0
        b"\0\0\x05\x04\0\0\0\0\0\0\0\0\0\0",  # settings of 5 bytes
    ],
    ids=["length", "hpack", "window", "settings"],
)
def test_malformed_frames_end_that_connection_only(
    place: House, capfd: pytest.CaptureFixture[str], frame: bytes
) -> None:
    _, path = place.open()
    with AgentClient(path) as client, connect(path) as sock:
        client.describe()
        sock.sendall(PREFACE + SETTINGS + frame)
        assert is_closed(sock)
        client.describe()
    assert capfd.readouterr().err == ""


def test_who_sends_the_preface_by_drops_is_closed_in_time(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PREFACE_S", 0.5)
    name, path = place.open()
    with connect(path) as sock:
        sock.sendall(PREFACE[:3])
        assert is_closed(sock)
    assert "preface" in reasons(place, name)[0]


def test_a_connection_too_many_is_refused_and_a_place_is_free_again(place: House) -> None:
    name, path = place.open()
    before = place.relay.statistics.connections
    open_ones = [connect(path) for _ in range(MAX_CONNECTIONS)]
    wait_until(lambda: place.relay.statistics.connections == before + MAX_CONNECTIONS)
    with connect(path) as one_more:
        assert is_closed(one_more)
    assert reasons(place, name) == [f"{MAX_CONNECTIONS} connections are open"]
    for sock in open_ones:
        sock.close()
    wait_until(lambda: place.relay.statistics.connections == before)
    with AgentClient(path) as client:
        assert client.describe().session == name


def test_a_storm_of_connections_waits_and_is_served(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ACCEPTS", (50.0, 2.0))
    name, path = place.open()
    before = place.relay.statistics.throttled
    for _ in range(10):
        with connect(path) as sock:
            sock.sendall(PREFACE + SETTINGS)
            assert sock.recv(9)
    assert place.relay.statistics.throttled > before
    assert reasons(place, name) == []


def test_a_flood_of_bytes_is_slowed_to_its_budget(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BYTES", (65536.0, 65536.0))
    _, path = place.open()
    with connect(path) as sock:
        began = time.monotonic()
        sock.sendall(PREFACE + SETTINGS)
        frames = (b"\0\0\0" + b"\x0f" + b"\0" * 5) * 8192  # of an unknown type, which HTTP/2 ignores
        with contextlib.suppress(ConnectionError):
            for _ in range(5):
                sock.sendall(frames)
        # 360 KB, less what two sockets and two buffers hold: at least 64 KB had to wait.
        assert time.monotonic() - began > 0.5


def test_what_closed_is_swept_without_an_error(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSING_S", 0.1)
    name, path = place.open()
    with AgentClient(path) as client:
        client.describe()
    with connect(path) as silent, connect(path) as half:
        silent.sendall(PREFACE + SETTINGS)
        half.sendall(PREFACE + SETTINGS)
        assert half.recv(9)
        half.shutdown(socket.SHUT_WR)
        assert is_closed(half)
    wait_until(lambda: name not in place.relay._sessions.values())
    time.sleep(0.5)


def test_buffers_of_who_does_not_read_are_bounded(place: House) -> None:
    _, path = place.open()
    with connect(path) as sock:
        sock.sendall(PREFACE + SETTINGS)
        ping = b"\0\0\x08\x06\0\0\0\0\0" + b"x" * 8
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(2000):
                sock.sendall(ping * 1000)
        sides = [side for pair in _pairs(place) for side in (pair._agent, pair._server)]
        held = [side._transport.get_write_buffer_size() for side in sides if side._transport]
        assert all(size <= splice.BUFFER_BYTES + splice.CHUNK_BYTES for size in held)


def _pairs(place: House) -> list[connection.Connection]:
    return [pair for door in place.relay._doors.values() for pair in door.pairs]


def test_ending_a_session_ends_its_calls_and_its_name(place: House) -> None:
    name, path = place.open()
    with AgentClient(path) as client:
        states = client.request(Ask("file:read", "/waits", "r"))
        next(states)
        next(states)
        listening = place.door.listening
        place.end(name)
        with pytest.raises(ServiceError):
            next(states)
        wait_until(lambda: place.door.listening < listening)
        with pytest.raises(ServiceError, match="is not here"):
            client.describe()
    assert name not in place.relay._sessions.values()


def test_a_client_that_dies_in_the_middle_of_a_stream_leaves_nobody_listening(place: House) -> None:
    name, path = place.open()
    listening = place.door.listening
    text = (
        "import sys, time; from supervisor.agent.client import AgentClient; from supervisor.agent.values import Ask\n"
        "for state in AgentClient(sys.argv[1]).request(Ask('file:read', '/waits', 'r')): print(state.id, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-B", "-c", text, path], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        request = process.stdout.readline().decode().strip()
        wait_until(lambda: place.door.listening == listening + 1)
        process.kill()
    wait_until(lambda: place.door.listening == listening)
    wait_until(lambda: name not in place.relay._sessions.values())
    # The request is still there for who follows it.
    with AgentClient(path) as client:
        threading.Timer(0.2, place.decide, (request, Phase.GRANTED)).start()
        assert [state.phase for state in client.follow(request)][-1] == "granted"


def test_ten_thousand_open_requests_hold_no_more_than_the_limit(place: House) -> None:
    name, path = place.open()
    listening = place.door.listening
    channels = [
        grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
    ]
    message = agent_pb2.RequestRequest(
        capability=types_pb2.Capability(
            kind=types_pb2.KIND_FILE, selector="/waits", operations=[types_pb2.OPERATION_READ]
        ),
        reason="flood",
    )
    stubs = [agent_pb2_grpc.CapabilityBrokerStub(channel) for channel in channels]
    calls = [stubs[number % 4].Request(message) for number in range(10_000)]
    wait_until(lambda: place.door.listening - listening == MAX_IN_FLIGHT)
    other_name, other_path = place.open()
    with AgentClient(other_path) as other:
        for _ in range(5):
            assert other.describe().session == other_name
    assert place.door.listening - listening <= MAX_IN_FLIGHT
    calls.clear()  # cancelled half-way, all of it ends
    for channel in channels:
        channel.close()
    wait_until(lambda: place.door.listening == listening)
    place.end(name)
    place.end(other_name)


def test_one_call_too_many_is_told_what_to_do(place: House) -> None:
    _, path = place.open()
    with AgentClient(path) as client:
        streams = []
        for _ in range(MAX_IN_FLIGHT):
            stream = client.request(Ask("file:read", "/waits", "r"))
            next(stream)
            streams.append(stream)
        with pytest.raises(DeskwardenDenied) as caught:
            client.describe()
        assert caught.value.reason_code == "too-many-calls"
        for stream in streams:
            stream.close()
        wait_until(lambda: _is_served(client))


def _is_served(client: AgentClient) -> bool:
    try:
        client.describe()
    except DeskwardenDenied:
        return False
    return True


def test_an_oversized_message_and_oversized_headers_are_refused(place: House) -> None:
    _, path = place.open()
    with AgentClient(path) as client:
        with pytest.raises((ServiceError, DeskwardenDenied), match="resource_exhausted"):
            list(client.request(Ask("file:read", "/x", "r" * (300 << 10))))
        assert client.describe()
    with grpc.insecure_channel(f"unix:{path}") as channel, pytest.raises(grpc.RpcError):
        agent_pb2_grpc.CapabilityBrokerStub(channel).Describe(
            agent_pb2.DescribeRequest(), metadata=(("x-large", "x" * 60_000),)
        )


def test_enums_from_the_future_and_mixed_operations_are_refused_by_name(place: House) -> None:
    _, path = place.open()
    with AgentClient(path) as client:
        for kind, operations in ((0, [1]), (99, [1]), (types_pb2.KIND_FILE, []), (types_pb2.KIND_FILE, [1, 3, 77])):
            capability = types_pb2.Capability(kind=kind, selector="/x", operations=operations)
            message = agent_pb2.RequestRequest(capability=capability, reason="r")
            with pytest.raises(UsageError, match="capability"):
                list(client._stream(client._broker.Request, message, None))
