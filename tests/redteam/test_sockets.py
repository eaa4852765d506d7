"""Sockets: no service of the owner's session, of the machine or of the network answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.service import Service, outside

ABSTRACT = """
    with socket.socket(socket.AF_UNIX, KIND) as one:
        tried = [attempt(one.connect, NAME)]
    if KIND == socket.SOCK_DGRAM:
        with socket.socket(socket.AF_UNIX, KIND) as one:
            tried += [attempt(one.sendto, b"planted", NAME), attempt(one.sendmsg, [b"planted"], [], 0, NAME)]
    report(tried)
"""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_abstract_sockets_of_the_host_do_not_answer(service: Service, workspace: Path, kind: socket.SocketKind) -> None:
    """X11 and D-Bus listen on such names; a datagram needs no connect (nono #1089)."""
    name = f"\0/tmp/.X11-unix/deskwarden-test-{os.getpid()}-{int(kind)}"
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(name)
        if kind != socket.SOCK_DGRAM:
            server.listen()
        server.setblocking(False)
        refused = service.python(ABSTRACT, cwd=workspace, NAME=name, KIND=int(kind))
        assert set(refused) == {"ECONNREFUSED"}
        with pytest.raises(BlockingIOError):
            server.recv(100) if kind == socket.SOCK_DGRAM else server.accept()
        assert set(outside(ABSTRACT, NAME=name, KIND=int(kind))) == {"OK"}


def test_no_socket_of_desktop_bus_or_daemon_is_there(service: Service, workspace: Path) -> None:
    code = """
        found = []
        for top in ("/run", "/tmp", "/var", os.path.expanduser("~")):
            for place, _directories, files in os.walk(top):
                found += [f"{place}/{name}" for name in files if stat.S_ISSOCK(os.lstat(f"{place}/{name}").st_mode)]
        report([found, attempt(os.listdir, RUNTIME), attempt(os.listdir, f"/run/user/{os.getuid()}"),
                attempt(os.stat, "/run/dbus/system_bus_socket"), attempt(os.stat, "/var/run/docker.sock")])
    """
    found, *places = service.python(code, cwd=workspace, RUNTIME=service.runtime)
    assert found == ["/run/deskwarden/agent.sock"]  # its own door, and nobody else's
    assert set(places) == {"ENOENT"}


DOORS = {
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus",
    "SSH_AUTH_SOCK": "/tmp/ssh-x/agent.1",
    "GPG_AGENT_INFO": "/x:1:1",
    "XAUTHORITY": "/home/x/.Xauthority",
    "DISPLAY": ":0",
    "WAYLAND_DISPLAY": "wayland-0",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "DOCKER_HOST": "unix:///var/run/docker.sock",
    "KRB5CCNAME": "KEYRING:x",
}


def test_the_environment_names_no_door(service: Service, workspace: Path) -> None:
    result = service.run("run", "--", "env", cwd=workspace, env=DOORS)
    names = {line.partition(b"=")[0].decode() for line in result.stdout.splitlines()}
    assert names
    assert names & set(DOORS) == set()


def test_the_network_is_an_own_and_empty_one(service: Service, workspace: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        code = """
            def tcp(host, port):
                with socket.create_connection((host, port), 2):
                    pass
            def udp(host, port):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                    one.sendto(b"x", (host, port))
            links = [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
            report([links, attempt(tcp, "127.0.0.1", PORT), attempt(tcp, "192.0.2.1", 80),
                    attempt(udp, "192.0.2.1", 53), attempt(tcp, "169.254.169.254", 80)])
        """
        port = server.getsockname()[1]
        links, *tried = service.python(code, cwd=workspace, PORT=port)
        assert links == ["lo"]
        assert tried == ["ECONNREFUSED", "ENETUNREACH", "ENETUNREACH", "ENETUNREACH"]
        with pytest.raises(BlockingIOError):
            server.accept()
        assert outside("report(attempt(socket.create_connection, ('127.0.0.1', PORT)))", PORT=port) == "OK"


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        ("AF_VSOCK=40", 1, 0),
        ("AF_PACKET=17", 3, 0),
        ("AF_ALG=38", 5, 0),
        ("AF_BLUETOOTH=31", 3, 1),
        ("AF_XDP=44", 3, 0),
        ("AF_KEY=15", 3, 2),
        ("AF_TIPC=30", 5, 0),
        ("AF_RDS=21", 5, 0),
    ],
)
def test_other_socket_families_do_not_exist(
    service: Service, workspace: Path, family: str, kind: int, protocol: int
) -> None:
    """Also with something in the high half of the argument, which the kernel does not look at."""
    number = int(family.partition("=")[2])
    code = """
        socket_number = 41 if platform.machine() == "x86_64" else 198
        report([syscall(socket_number, family, KIND, PROTOCOL) for family in (NUMBER, NUMBER | 1 << 40)])
    """
    assert service.python(code, cwd=workspace, NUMBER=number, KIND=kind, PROTOCOL=protocol) == ["EAFNOSUPPORT"] * 2


@pytest.mark.parametrize("protocol", [6, 9, 12, 15, 16, 21])
def test_netlink_is_for_routes_only(service: Service, workspace: Path, protocol: int) -> None:
    """xfrm, audit, netfilter, uevents, generic netlink, crypto."""
    code = "report(attempt(socket.socket, 16, 3, PROTOCOL))"
    assert service.python(code, cwd=workspace, PROTOCOL=protocol) == "EPROTONOSUPPORT"
    assert service.python(code, cwd=workspace, PROTOCOL=0) == "OK"


def test_raw_packets_cannot_be_made(service: Service, workspace: Path) -> None:
    code = "report([attempt(socket.socket, family, 3, 1) for family in (2, 10)])"
    assert set(service.python(code, cwd=workspace)) == {"EPERM"}


def test_an_autostart_entry_reaches_no_desktop(service: Service, workspace: Path) -> None:
    """flatpak #4146: a desktop file whose Exec line forwards files, or simply starts with the next login."""
    names = [".local/share/applications/x.desktop", ".config/autostart/x.desktop", ".config/systemd/user/x.service"]
    real = [Path(service.home) / name for name in names]
    assert not any(path.exists() for path in real)
    code = """
        for name in NAMES:
            path = os.path.expanduser(f"~/{name}")
            attempt(os.makedirs, os.path.dirname(path), exist_ok=True)
            attempt(write, path, "[Desktop Entry]")
        report(True)
    """
    service.python(code, cwd=workspace, NAMES=names)
    assert not any(path.exists() for path in real)
    assert service.changes() == {}


def test_the_daemons_socket_answers_no_agent(service: Service, workspace: Path) -> None:
    """Not even when the owner shows its directory by mistake: that is refused at launch, by name."""
    for flag in ("-r", "-w"):
        for place in (service.runtime, service.state, f"{service.state}/stores"):
            result = service.run("run", flag, place, "--", "true", cwd=workspace)
            assert result.returncode in (125, 126), result
            assert place.encode() in result.stderr
