"""The hand's run of a command that prints a secret: as the owner, bounded in time and output, its value through a pipe.

Nothing of what it prints gets into a message: of a failure only the exit code is told. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import subprocess
import time
from typing import Any, Final

from supervisor.errors import RefusedError
from supervisor.linux import prctl

# What a pipe holds at once (pipe(7)), so that writing it never waits.
MAX_BYTES: Final = 64 << 10
LIMIT_S: Final = 15.0
_NEXT: Final = "try the command yourself, then: deskwarden secret set NAME --from-command CMD"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

Answer = tuple[dict[str, Any], list[int]]


def answer_secret_command(request: dict[str, Any], _fds: list[int]) -> Answer:
    """Run ``{command, home}``; returns ``{size}`` and the end of a pipe that holds the value, a last newline removed.

    Raises:
        RefusedError: It failed, took too long, or printed nothing or too much.
    """
    value = run(str(request["command"]), str(request["home"]))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(writer, False)
        os.write(writer, value)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return {"size": len(value)}, [reader]


def run(command: str, home: str, limit_s: float = LIMIT_S) -> bytes:
    """Run *command* in a shell in a process group of its own, which is killed at its end; returns what it printed."""
    group = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=home,
        env=_environment(home),
        start_new_session=True,
        preexec_fn=_die_with_us,  # noqa: PLW1509 - this process has one thread
    )
    try:
        value = _output(group, limit_s)
        code = group.wait(1)
    except subprocess.TimeoutExpired:
        raise RefusedError(f"the secret's command ran longer than {limit_s:.0f} s", _NEXT) from None
    finally:
        _kill(group)
    if code:
        raise RefusedError(f"the secret's command failed with {code}", _NEXT)
    value = value.removesuffix(b"\n")
    if not value:
        raise RefusedError("the secret's command printed nothing", _NEXT)
    return value


def _output(group: subprocess.Popen[bytes], limit_s: float) -> bytes:
    assert group.stdout is not None  # noqa: S101 - PIPE above
    fd, value, deadline = group.stdout.fileno(), bytearray(), time.monotonic() + limit_s
    while True:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise subprocess.TimeoutExpired("command", limit_s)
        block = os.read(fd, MAX_BYTES)
        if not block:
            return bytes(value)
        value += block
        if len(value) > MAX_BYTES:
            raise RefusedError(f"the secret's command printed more than {MAX_BYTES} bytes", _NEXT)


def _kill(group: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(group.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        if group.stdout is not None:
            group.stdout.close()
        group.wait()


def _die_with_us() -> None:
    prctl.set_pdeathsig(signal.SIGKILL)


def _environment(home: str) -> dict[str, str]:
    """Return what password managers look for: home, and the session bus where there is one."""
    found = os.path.basename(home)
    uid = os.stat(home).st_uid
    with contextlib.suppress(KeyError):
        found = pwd.getpwuid(uid).pw_name
    environment = {"HOME": home, "PATH": f"{_PATH}:{home}/.local/bin", "LANG": "C.UTF-8", "USER": found}
    environment["LOGNAME"] = found
    runtime = f"/run/user/{uid}"
    if os.path.isdir(runtime):
        environment |= {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}
    return environment


HANDLERS: Final = {"secret_command": answer_secret_command}
