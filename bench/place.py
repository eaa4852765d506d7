"""Where benchmarks keep things: a cache that stays (what was downloaded) and a work folder that does not."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def cache() -> str:
    """Return the directory for downloads, below ~/.cache; nothing of it is in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(base, "deskwarden-bench")
    os.makedirs(path, exist_ok=True)
    return path


@contextlib.contextmanager
def work_folder(name: str) -> Iterator[str]:
    """Yield an empty folder in the cache, on a real disk as a user's project is; removed afterwards."""
    path = tempfile.mkdtemp(prefix=f"{name}-", dir=cache())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def environment(**more: str) -> dict[str, str]:
    """Return a small environment, the same for every candidate."""
    names = ("HOME", "USER", "LOGNAME", "LANG")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"} | kept | more
