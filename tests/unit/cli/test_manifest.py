"""`deskwarden manifest`: from a new file to a verified envelope, and what is refused on the way."""

from __future__ import annotations

import argparse
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor import clock
from supervisor.cli import main
from supervisor.cli import manifest as verb
from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.identity.keys import new_key, write_private
from supervisor.policy.manifest import parse

KEY = "key.pem"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(verb, "_user", lambda: "alice")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    call("init", "sheet")
    return work


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return verb.run(parser.parse_args(words))


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert call(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def change(old: str, new: str) -> None:
    text = Path("sheet.yaml").read_text()
    assert old in text
    Path("sheet.yaml").write_text(text.replace(old, new))


def sign(role: str, key: str = KEY, *more: str) -> None:
    call("sign", "sheet.yaml", "--key", key, "--role", role, *more)


def test_from_a_new_file_to_a_verified_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "check", "sheet.yaml")["name"] == "sheet"
    sign("publisher", "publisher.pem", "--new-key")
    sign("owner", "owner.pem", "--new-key", "--algorithm", "p256")
    trust = ("--trust", "publisher.pem.trust.json", "--trust", "owner.pem.trust.json")
    required = ("--require", "publisher", "--require", "owner")
    verified = answer(capsys, "verify", "sheet.dsse.json", *trust, *required)
    assert verified["ok"] is True
    assert [(signer["name"], signer["role"]) for signer in verified["signers"]] == [
        ("alice", "publisher"),
        ("alice", "owner"),
    ]
    assert verified["digest"] == answer(capsys, "check", "sheet.dsse.json")["digest"]
    call("verify", "sheet.dsse.json", *trust)
    assert "signed by alice as publisher (sha256:" in capsys.readouterr().out
    assert os.stat("publisher.pem").st_mode & 0o777 == 0o600


def test_what_is_signed_names_no_home_by_a_tilde() -> None:
    sign("owner", KEY, "--new-key")
    payload = base64.b64decode(json.loads(Path("sheet.dsse.json").read_bytes())["payload"])
    assert parse(payload).capabilities[0].capability.selector == "/home/alice/work/**"


def test_kept_keys_are_trusted_without_being_named(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    sign("owner", KEY, "--new-key")
    with pytest.raises(UsageError, match="no keys to trust"):
        call("verify", "sheet.dsse.json")
    keys = directory.parent / "config/deskwarden/keys"
    keys.mkdir(parents=True)
    os.rename(f"{KEY}.trust.json", keys / "alice.json")
    assert answer(capsys, "verify", "sheet.dsse.json")["signers"][0]["name"] == "alice"


def test_a_key_given_as_such_is_trusted_whoever_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    key = new_key()
    write_private(KEY, key)
    Path("public.pem").write_text(key.public.pem)
    sign("owner")
    assert answer(capsys, "verify", "sheet.dsse.json", "--key", "public.pem")["signers"][0]["name"] is None
    call("verify", "sheet.dsse.json", "--key", "public.pem")
    assert "signed by the key given" in capsys.readouterr().out


def verify_fails(match: str, *words: str) -> DeskwardenError:
    with pytest.raises(RefusedError, match=match) as refused:
        call("verify", "sheet.dsse.json", *words)
    assert refused.value.next_step
    return refused.value


def test_an_unknown_key_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    Path("public.pem").write_text(new_key().public.pem)
    verify_fails("by none of the 1 known keys", "--key", "public.pem")


def test_an_expired_key_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    trust = json.loads(Path(f"{KEY}.trust.json").read_bytes())
    Path("old.json").write_text(json.dumps(trust | {"expires": "2020-01-01T00:00:00Z"}))
    verify_fails("the key of alice expired at 2020-01-01T00:00:00Z", "--trust", "old.json")


def test_a_key_given_twice_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    verify_fails("is given twice", *("--trust", f"{KEY}.trust.json") * 2)


def test_a_missing_role_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    verify_fails("no signature as publisher", "--trust", f"{KEY}.trust.json", "--require", "publisher")


@pytest.mark.parametrize("required", [(), ("--require", "publisher")])
def test_a_trusted_publisher_of_another_name_is_refused(required: tuple[str, ...]) -> None:
    sign("publisher", KEY, "--new-key")
    trust = json.loads(Path(f"{KEY}.trust.json").read_bytes())
    Path("other.json").write_text(json.dumps(trust | {"name": "mallory"}))
    verify_fails("names alice as publisher, but mallory signed", "--trust", "other.json", *required)


def test_an_expired_manifest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sign("owner", KEY, "--new-key")
    later = clock.now_ns() + 91 * 86400 * 10**9
    monkeypatch.setattr(clock, "now_ns", lambda: later)
    verify_fails("the manifest of sheet expired", "--trust", f"{KEY}.trust.json")


def test_a_changed_payload_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    envelope = json.loads(Path("sheet.dsse.json").read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b"/home/alice/work/**", b"/home/alice/**")
    Path("sheet.dsse.json").write_text(json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}))
    verify_fails("not over these bytes", "--trust", f"{KEY}.trust.json")


def test_an_envelope_of_another_type_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    envelope = json.loads(Path("sheet.dsse.json").read_bytes())
    Path("sheet.dsse.json").write_text(json.dumps(envelope | {"payloadType": "application/vnd.in-toto+json"}))
    verify_fails("holds application/vnd.in-toto", "--trust", f"{KEY}.trust.json")


def test_a_source_that_changed_after_signing_is_not_signed_over() -> None:
    sign("owner", KEY, "--new-key")
    before = Path("sheet.dsse.json").read_bytes()
    change("~/work/**", "~/**")
    with pytest.raises(RefusedError, match=r"but sheet\.yaml is sha256:"):
        sign("publisher", "other.pem", "--new-key")
    assert Path("sheet.dsse.json").read_bytes() == before
    assert not Path("other.pem").exists()


def test_signing_twice_with_one_key_is_refused() -> None:
    sign("owner", KEY, "--new-key")
    with pytest.raises(RefusedError, match="signed it already"):
        sign("publisher")
    assert len(json.loads(Path("sheet.dsse.json").read_bytes())["signatures"]) == 1


def test_an_agent_signs_with_the_key_that_the_manifest_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RefusedError, match=r"does not name agent\.pem as its agent_key") as refused:
        sign("agent", "agent.pem", "--new-key")
    change("purpose:", refused.value.next_step.removeprefix("write in it: ") + "\npurpose:")
    sign("agent", "agent.pem")
    sign("owner", KEY, "--new-key")
    signers = answer(
        capsys, "verify", "sheet.dsse.json", "--trust", f"{KEY}.trust.json", "--require", "agent", "--require", "owner"
    )["signers"]
    assert [(signer["name"], signer["role"]) for signer in signers] == [("sheet", "agent"), ("alice", "owner")]
    with pytest.raises(RefusedError, match=r"does not name key\.pem"):
        sign("agent")


def test_an_agent_alone_cannot_vouch_for_its_manifest() -> None:
    with pytest.raises(RefusedError) as refused:
        sign("agent", "agent.pem", "--new-key")
    change("purpose:", refused.value.next_step.removeprefix("write in it: ") + "\npurpose:")
    sign("agent", "agent.pem")
    Path("public.pem").write_text(new_key().public.pem)
    verify_fails("only a key that it names itself", "--key", "public.pem")


def test_a_key_that_others_can_read_does_not_sign() -> None:
    sign("owner", KEY, "--new-key")
    os.chmod(KEY, 0o644)
    with pytest.raises(RefusedError, match="mode 0644, want 0600"):
        sign("publisher")


def test_nothing_is_overwritten(directory: Path) -> None:
    with pytest.raises(RefusedError, match=r"sheet\.yaml exists already"):
        call("init", "sheet")
    Path(KEY).write_text("precious")
    with pytest.raises(RefusedError, match="exists already"):
        sign("owner", KEY, "--new-key")
    assert Path(KEY).read_text() == "precious"
    assert sorted(os.listdir(directory)) == [KEY, "sheet.yaml"]


def test_signing_leaves_no_temporary_file(directory: Path) -> None:
    sign("owner", KEY, "--new-key")
    assert sorted(os.listdir(directory)) == [KEY, f"{KEY}.trust.json", "sheet.dsse.json", "sheet.yaml"]


def test_show_escapes_what_its_author_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    change("Say in a sentence what this agent is for.", '"Reads \\e[2J\\u202e files ' + "x" * 500 + '"')
    change("It reads the files it works on.", '"approve\\n  may ask for  nothing"')
    capsys.readouterr()
    call("show", "sheet.yaml")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\n  may ask for  nothing" not in shown
    assert max(map(len, shown.splitlines())) < 400
    assert "file: read /home/alice/work/** (data up to internal)" in shown


def test_show_tells_that_it_did_not_check_signatures(capsys: pytest.CaptureFixture[str]) -> None:
    sign("owner", KEY, "--new-key")
    capsys.readouterr()
    call("show", "sheet.dsse.json")
    assert "1 signature, not checked here: deskwarden manifest verify" in capsys.readouterr().out
    assert answer(capsys, "show", "sheet.dsse.json")["manifest"]["name"] == "sheet"


def test_check_reads_the_plain_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sheet.json").write_text(json.dumps(answer(capsys, "show", "sheet.yaml")["manifest"]))
    assert answer(capsys, "check", "sheet.json")["ok"] is True
    Path("sheet.json").write_text('{"seq":1,"seq":2}')
    with pytest.raises(UsageError, match="'seq' stands twice"):
        call("check", "sheet.json")


def test_a_mistake_is_told_with_its_place() -> None:
    change("[read]", "[run]")
    with pytest.raises(UsageError, match=r"sheet\.yaml:\d+:10: capabilities\[0\]\.ops: run is no operation on file"):
        call("check", "sheet.yaml")


@pytest.mark.parametrize("name", ["missing.yaml", ".", "fifo", "large"])
def test_what_is_no_file_is_refused(name: str) -> None:
    os.mkfifo("fifo")
    Path("large").write_bytes(b"#" * 600_000)
    with pytest.raises(UsageError) as refused:
        call("check", name)
    assert refused.value.next_step


@pytest.mark.parametrize("name", ["Sheet", "../sheet", "", "-", "a\n", "a" * 64])
def test_another_form_of_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no agent's name"):
        verb._init(argparse.Namespace(target=name, json=False))


def test_the_verb_is_known_and_its_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["manifest", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Deskwarden agent manifest"
    assert main.main(["manifest", "verify", "sheet.yaml"]) == 125
    assert "next: give sheet.dsse.json" in capsys.readouterr().err
