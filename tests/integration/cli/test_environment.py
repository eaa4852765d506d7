"""What an agent starts with: its variables, descriptors, directory, umask, and the files that flags show."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.service import CLI, Service, program


def _environment(output: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.decode().splitlines() if "=" in line)


def test_the_environment_is_an_allow_list(service: Service, workspace: Path) -> None:
    given = {
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "COLORTERM": "truecolor",
        "MY_SECRET": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "OPENAI_API_KEY": "x",
        "PWD": "/elsewhere",
        "OLDPWD": "/x",
        "SHLVL": "3",
    }
    result = service.run("run", "--", "env", cwd=workspace, env=given)
    found = _environment(result.stdout)
    assert {"LANG", "LC_TIME", "TZ", "COLORTERM"} <= found.keys()
    assert found.keys() & {"MY_SECRET", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "OLDPWD"} == set()
    assert found["PWD"] == str(workspace)
    assert found["HOME"] == service.home
    assert found["DESKWARDEN_SESSION"] == service.session()["id"]
    assert not any(name.startswith("DESKWARDEN_") for name in found.keys() - {"DESKWARDEN_SESSION"})


def test_env_sets_and_passes_variables(service: Service, workspace: Path) -> None:
    flags = ("--env", "A=1 2=3", "--env", "TOKEN", "--env", "MISSING", "--env", "EMPTY=")
    result = service.run("run", *flags, "--", "env", cwd=workspace, env={"TOKEN": "t"})
    found = _environment(result.stdout)
    assert (found["A"], found["TOKEN"], found["EMPTY"]) == ("1 2=3", "t", "")
    assert "MISSING" not in found


@pytest.mark.parametrize("name", ["LD_PRELOAD", "BASH_ENV", "SSH_AUTH_SOCK", "DESKWARDEN_SESSION", "1x", "a b"])
def test_env_refuses_names_that_never_pass(service: Service, workspace: Path, name: str) -> None:
    result = service.run("run", "--env", f"{name}=x", "--", "true", cwd=workspace)
    assert result.returncode in (125, 126), result
    assert name in result.stderr.decode()


def test_descriptors_are_0_1_2_even_when_the_caller_leaks_more(service: Service, workspace: Path) -> None:
    leaked = [os.open("/etc/hostname", os.O_RDONLY) for _ in range(20)]
    code = "report(sorted(os.listdir('/proc/self/fd'), key=int))"
    try:
        result = subprocess.run(
            [CLI, "run", "--", *program(code)],
            cwd=workspace,
            env=service.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=leaked,
            check=True,
        )
    finally:
        for fd in leaked:
            os.close(fd)
    assert json.loads(result.stdout) == ["0", "1", "2", "3"]  # 3 is the listing's own


def test_the_working_directory_is_the_workspace(service: Service, workspace: Path) -> None:
    (workspace / "here").write_text("x", encoding="utf-8")
    assert service.run("run", "--", "pwd", cwd=workspace).stdout == os.fsencode(workspace) + b"\n"
    assert service.run("run", "-C", str(workspace), "--", "ls").stdout == b"here\n"
    relative = service.run("run", "-C", workspace.name, "--", "pwd", cwd=workspace.parent)
    assert relative.stdout == os.fsencode(workspace) + b"\n"


def test_a_workspace_that_is_not_there_is_named(service: Service, workspace: Path) -> None:
    result = service.run("run", "-C", str(workspace / "none"), "--", "true")
    assert result.returncode in (125, 126)
    assert str(workspace / "none") in result.stderr.decode()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_callers_umask_holds_inside(service: Service, workspace: Path, mask: int) -> None:
    command = f'umask {mask:03o}; exec "$0" run -- sh -c "umask; touch made"'
    result = subprocess.run(
        ["/bin/sh", "-c", command, CLI], cwd=workspace, env=service.environment, capture_output=True, check=True
    )
    assert int(result.stdout, 8) == mask
    service.run("apply", "last", "made", cwd=workspace)
    assert (workspace / "made").stat().st_mode & 0o777 == 0o666 & ~mask


def test_read_shows_a_directory_read_only(service: Service, workspace: Path) -> None:
    shown = service.folder("shown")
    (shown / "file").write_text("text\n", encoding="utf-8")
    code = "report([read('file'), attempt(write, 'file'), attempt(write, 'new'), attempt(os.unlink, 'file')])"
    for flag in ("-r", "--read"):
        text, *refused = service.python(f"os.chdir(SHOWN)\n{code}", flag, str(shown), cwd=workspace, SHOWN=str(shown))
        assert text == "text\n"
        assert set(refused) <= {"EROFS", "EACCES"}
    assert service.run("run", "--", "cat", str(shown / "file"), cwd=workspace).returncode == 1
    assert sorted(os.listdir(shown)) == ["file"]


def test_read_shows_a_file_read_only(service: Service, workspace: Path) -> None:
    shown = service.folder("shown") / "file"
    shown.write_text("text\n", encoding="utf-8")
    (shown.parent / "other").write_text("x", encoding="utf-8")
    code = "report([read(SHOWN), attempt(write, SHOWN), os.listdir(os.path.dirname(SHOWN))])"
    for flag in ("-r", "--read-file"):
        assert service.python(code, flag, str(shown), cwd=workspace, SHOWN=str(shown))[0] == "text\n"
        assert service.python(code, flag, str(shown), cwd=workspace, SHOWN=str(shown))[2] == ["file"]
    assert shown.read_text() == "text\n"


def test_write_stages_one_more_directory(service: Service, workspace: Path) -> None:
    other = service.folder("other")
    (other / "old").write_text("old\n", encoding="utf-8")
    service.python(
        "write(OTHER + '/old', 'new')\nwrite('mine')\nreport(True)", "-w", str(other), cwd=workspace, OTHER=str(other)
    )
    assert (other / "old").read_text() == "old\n"
    assert set(service.changes()) == {"old", "mine"}
    assert service.run("apply", "last", str(other / "old"), cwd=workspace).returncode == 0
    assert (other / "old").read_text() == "new"
    assert not (workspace / "mine").exists()


def test_a_path_of_a_flag_that_is_not_there_is_named(service: Service, workspace: Path) -> None:
    for flag in ("-r", "-w", "--read-file"):
        result = service.run("run", flag, "no/such/place", "--", "true", cwd=workspace)
        assert result.returncode in (125, 126), (flag, result)
        assert str(workspace / "no/such/place") in result.stderr.decode()


def test_direct_mode_writes_the_real_folder(service: Service, workspace: Path) -> None:
    (workspace / "old").write_text("old\n", encoding="utf-8")
    service.python("write('old', 'new')\nwrite('made')\nreport(True)", "--mode", "direct", cwd=workspace)
    assert (workspace / "old").read_text() == "new"
    assert (workspace / "made").stat().st_uid == os.geteuid()
    result = service.run("diff", cwd=workspace)
    assert result.returncode == 126
    assert b"nothing is staged" in result.stderr


def test_direct_mode_is_refused_where_the_profile_does_not_allow_it(service: Service, workspace: Path) -> None:
    result = service.run("run", "-p", "strict", "--mode", "direct", "--", "true", cwd=workspace)
    assert result.returncode == 126
    assert b"profile strict does not allow --mode direct" in result.stderr


def test_a_dry_run_says_the_plan_and_leaves_nothing(service: Service, workspace: Path) -> None:
    before = service.json("ps", "--all")
    result = service.run("run", "-n", "--", "touch", "made", cwd=workspace)
    assert result.returncode == 0
    assert f"overlay {workspace} staged for writing" in result.stdout.decode()
    assert b"run touch made in" in result.stdout
    assert service.json("ps", "--all") == before
    assert os.listdir(workspace) == []


def test_memory_and_pids_can_be_lowered_not_raised(service: Service, workspace: Path) -> None:
    for flags in (["--memory", "900g"], ["--pids", "1000000"]):
        result = service.run("run", *flags, "--", "true", cwd=workspace)
        assert result.returncode == 126, result
        assert flags[0].encode() in result.stderr
    code = """
        try:
            data = bytearray(600 << 20)
            got = len(data)
        except MemoryError:
            got = 0
        report(got)
    """
    assert service.python(code, cwd=workspace) == 600 << 20
    limited = service.run("run", "--memory", "300m", "--", *program(code), cwd=workspace)
    assert limited.returncode == 137 or json.loads(limited.stdout) == 0
