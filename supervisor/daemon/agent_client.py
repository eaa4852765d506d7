"""What the sandboxes show of Deskwarden: the code of ``deskwarden-agent`` and the packages it needs, by descriptor.

Opened while the daemon still has the rights of whoever started it: a checkout may lie in a private home.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import grpc

from supervisor.sandbox.plan import CLIENT

_SCRIPT: Final = """#!{interpreter} -IBS
import sys
sys.path[:0] = ["{client}/code", "{client}/lib"]
from supervisor.agent.main import main
sys.exit(main())
"""

Shown = tuple[tuple[str, str, int], ...]
"""Path in the sandbox, kind, descriptor (O_PATH)."""


def hold(directory: str) -> Shown:
    """Write the start script into *directory* and open everything; the caller owns the descriptors.

    Raises:
        OSError: The script cannot be written, or a directory not be opened.
    """
    script = f"{directory}/deskwarden-agent"
    text = _SCRIPT.format(interpreter=os.path.realpath(sys.executable), client=CLIENT)
    fd = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)
    package = Path(__file__).parents[1]
    packages = Path(grpc.__file__).parents[1]
    parts = (
        (f"{CLIENT}/code/{package.name}", "directory", str(package)),
        (f"{CLIENT}/lib", "directory", str(packages)),
        (f"{CLIENT}/bin/deskwarden-agent", "file", script),
    )
    return tuple((shown, kind, os.open(path, os.O_PATH | os.O_CLOEXEC)) for shown, kind, path in parts)
