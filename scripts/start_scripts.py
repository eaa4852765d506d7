"""Write the start scripts of a checkout: `start_scripts.py CHECKOUT VENV`.

An entry point made by pip runs `site` and its .pth files first, which costs 9 ms at each start; these start the
interpreter with -IS and put two directories on the path themselves. Standard library only.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from typing import Final

PROGRAMS: Final = {
    "deskwarden": ("supervisor.cli.main", "main"),
    "deskwardend": ("supervisor.daemon.main", "main"),
    "deskwarden-agent": ("supervisor.agent.main", "main"),
    "deskwarden-launcher": ("supervisor.sandbox.launcher", "main_listening"),  # only by systemd, see systemd/
}

# Kernels before 5.1 cut the first line here, and some tools still do.
SHEBANG_LIMIT_BYTES: Final = 127

_BODY: Final = """\
import _signal
import posix
import sys

# Ctrl-C while the imports run: end, as main does later. Who ignores SIGINT (nohup) goes on ignoring it.
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, lambda *_: posix._exit(130))

sys.path.insert(0, {checkout!r})
sys.path.append({packages!r})

from {module} import {function}

sys.exit({function}())
"""


def shebang(python: str) -> str:
    """Return the first line that starts *python*, or "" where the kernel could not read it."""
    line = f"#!{python} -IS\n"
    plain = not any(character.isspace() for character in python)
    return line if plain and len(os.fsencode(line)) <= SHEBANG_LIMIT_BYTES else ""


def write_program(path: str, text: str) -> None:
    """Replace *path* by an executable file holding *text*; whoever runs the old one keeps it."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o755)
    os.replace(temporary, path)


def write_start_scripts(checkout: str, venv: str, packages: str) -> None:
    """Write one start script for each program into the bin directory of *venv*."""
    python = os.path.join(venv, "bin", "python3")
    for name, (module, function) in PROGRAMS.items():
        body = _BODY.format(checkout=checkout, packages=packages, module=module, function=function)
        path = os.path.join(venv, "bin", name)
        first_line = shebang(python)
        if first_line:
            write_program(path, first_line + body)
            continue
        # A space or a long path: a shell finds the interpreter instead (1 ms).
        write_program(f"{path}.py", body)
        write_program(path, f'#!/bin/sh\nexec {shlex.quote(python)} -IS {shlex.quote(f"{path}.py")} "$@"\n')


def main() -> int:
    """Write the start scripts for the checkout and the environment named on the command line."""
    checkout, venv = sys.argv[1:]
    packages = sysconfig.get_path("purelib", vars={"base": venv, "platbase": venv})
    write_start_scripts(checkout, venv, packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
