"""Real tools at work inside: git, gcc, make, node, npm, python, venv, pip from a local wheel, pytest."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.service import CHECKOUT, Service

_NAME = "tiny"


def _shell(service: Service, workspace: Path, script: str, *flags: str) -> str:
    result = service.run("run", *flags, "--", "bash", "-euc", script, cwd=workspace)
    assert result.returncode == 0, result
    return result.stdout.decode()


def _wheel(directory: Path) -> Path:
    """Build a wheel by hand (PEP 427): the tests need no index."""
    files = {
        f"{_NAME}/__init__.py": b"ANSWER = 42\n",
        f"{_NAME}-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{_NAME}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = directory / f"{_NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
            archive.writestr(name, data)
        archive.writestr(f"{_NAME}-1.0.dist-info/RECORD", record + f"{_NAME}-1.0.dist-info/RECORD,,\n")
    return path


def test_git_commits_branches_and_clones(service: Service, workspace: Path) -> None:
    script = """
        git init -q -b main repo; cd repo; echo one > a; git add a
        git -c user.name=t -c user.email=t@example.invalid commit -qm first
        git checkout -q -b other; git mv a b; git -c user.name=t -c user.email=t@example.invalid commit -qm second
        cd ..; git clone -q repo copy; git -C copy log --oneline | wc -l; git -C copy status --porcelain | wc -l
    """
    assert _shell(service, workspace, script).split() == ["2", "0"]
    assert not list(workspace.iterdir())


def test_gcc_and_make_build_a_program_that_runs(service: Service, workspace: Path) -> None:
    (workspace / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("built"); return 0; }\n')
    (workspace / "Makefile").write_text("main: main.c\n\tgcc -O2 -o $@ $<\n")
    assert _shell(service, workspace, "make -s && ./main") == "built\n"


def test_node_runs_workers_and_npm_starts(service: Service, workspace: Path) -> None:
    (workspace / "w.js").write_text(
        "const {Worker,isMainThread,parentPort}=require('worker_threads');"
        "if(isMainThread){new Worker(__filename).on('message',m=>console.log(m))}"
        "else{parentPort.postMessage('from a worker')}"
    )
    assert _shell(service, workspace, "node w.js") == "from a worker\n"


def test_pip_installs_a_local_wheel_into_a_venv(service: Service, workspace: Path) -> None:
    wheel = _wheel(workspace)
    script = f"""
        /usr/bin/python3 -m venv v
        v/bin/pip install --quiet --disable-pip-version-check --no-index ./{wheel.name}
        v/bin/python -c 'import tiny; print(tiny.ANSWER)'
    """
    assert _shell(service, workspace, script) == "42\n"
    assert not (workspace / "v").exists()


def test_pytest_runs_a_suite(service: Service, workspace: Path) -> None:
    (workspace / "test_it.py").write_text("def test_two():\n    assert 1 + 1 == 2\n")
    venv = CHECKOUT / ".venv"
    out = _shell(service, workspace, f"{venv}/bin/python3 -m pytest -q -p no:cacheprovider test_it.py", "-r", str(venv))
    assert "1 passed" in out


@pytest.mark.parametrize("profile", ["strict", "coding", "data", "desktop"])
def test_every_packaged_profile_runs_a_shell(service: Service, workspace: Path, profile: str) -> None:
    assert _shell(service, workspace, "echo works; pwd", "-p", profile).split() == ["works", str(workspace)]
