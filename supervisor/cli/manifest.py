"""`deskwarden manifest`: init, check, sign, verify, show, schema; works without a daemon."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from supervisor import clock
from supervisor.cli.manifest_file import Given, create_file, read_file, read_manifest_file, replace_file
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import MAX_ENVELOPE_BYTES, Envelope, add_signature, envelope_bytes
from supervisor.identity.keys import Algorithm, SigningKey, from_jwk, new_key, parse_public, read_private, write_private
from supervisor.identity.trust import (
    Role,
    Signer,
    TrustedKey,
    parse_trusted_key,
    trusted_key_bytes,
    verify_signers,
)
from supervisor.plain_text import escape_text
from supervisor.policy.manifest import PAYLOAD_TYPE, Entry, Manifest, check_signers, check_time
from supervisor.policy.manifest_schema import schema
from supervisor.policy.manifest_source import template
from supervisor.timestamp import format_utc

HELP = "agent manifests: who answers for an agent, and the most it may ask for"

KEY_DAYS: Final = 365  # how long a key file that --new-key writes is trusted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="manifest_verb", required=True, metavar="VERB")
    for name, (text, argument, _) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if argument:
            verb.add_argument("target", metavar=argument)
        if name == "sign":
            _add_sign_arguments(verb)
        if name == "verify":
            _add_verify_arguments(verb)


def _add_sign_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--key", required=True, metavar="FILE", help="your private key")
    verb.add_argument("--role", required=True, choices=[str(role) for role in Role], help="as what you sign")
    verb.add_argument("--new-key", action="store_true", help="make the key first, and FILE.trust.json for others")
    verb.add_argument("--algorithm", choices=[str(one) for one in Algorithm], default="ed25519", help="of a new key")


def _add_verify_arguments(verb: argparse.ArgumentParser) -> None:
    more: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    verb.add_argument("--trust", **more, help="a key file to trust; without, those in ~/.config/deskwarden/keys")
    verb.add_argument("--key", **more, help="a public key in PEM to trust, whoever holds it")
    verb.add_argument(
        "--require", action="append", default=[], choices=[str(role) for role in Role], help="who must have signed"
    )


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    _, _, action = _VERBS[args.manifest_verb]
    return action(args)


def _init(args: argparse.Namespace) -> int:
    name = args.target
    if not re.fullmatch("[a-z][a-z0-9-]{0,62}", name):
        raise UsageError(f"{name!a} is no agent's name: small letters, digits and -, a letter first", "choose another")
    path = f"{name}.yaml"
    create_file(path, template(name, _user(), path, _now_s()).encode())
    _print(args, {"path": path}, [path, f"Next: edit it, then deskwarden manifest check {path}"])
    return 0


def _check(args: argparse.Namespace) -> int:
    given = read_manifest_file(args.target)
    manifest = given.manifest
    said = "" if given.envelope is None else "; its signatures are not checked here: deskwarden manifest verify"
    value = {"ok": True, "name": manifest.name, "seq": manifest.seq, "digest": manifest.digest}
    _print(args, value, [f"{args.target}: ok ({_called(manifest)}){said}", f"  {manifest.digest}"])
    return 0


def _sign(args: argparse.Namespace) -> int:
    given, role = read_manifest_file(args.target), Role(args.role)
    envelope = given.envelope or _begun(given)
    key = _made(args, role, given.manifest) if args.new_key else read_private(args.key)
    if role is Role.AGENT and key.public.to_jwk() != dict(given.manifest.agent_key):
        line = f"agent_key: {{{', '.join(f'{name}: {text}' for name, text in key.public.to_jwk().items())}}}"
        raise RefusedError(f"the manifest does not name {args.key} as its agent_key", f"write in it: {line}")
    signed = add_signature(envelope, key)
    replace_file(given.envelope_path, envelope_bytes(signed))
    value = {"path": given.envelope_path, "keyid": key.public.keyid, "role": role, "digest": given.manifest.digest}
    lines = [
        f"{given.envelope_path}: {_called(given.manifest)}, {_count(len(signed.signatures), 'signature')}",
        f"  you signed as {role} with {key.public.keyid}",
    ]
    if args.new_key and role is not Role.AGENT:
        value["trust"] = _trust_path(args.key)
        lines.append(f"Next: give {value['trust']} to those who are to trust this key")
    _print(args, value, lines)
    return 0


def _begun(given: Given) -> Envelope:
    """Return the envelope beside the source if there is one, which must hold the same bytes, else a new one."""
    if not os.path.lexists(given.envelope_path):
        return Envelope(PAYLOAD_TYPE, given.payload)
    there = read_manifest_file(given.envelope_path)
    if there.envelope is None or there.payload != given.payload:
        raise RefusedError(
            f"{given.envelope_path} holds {there.manifest.digest}, but {given.path} is {given.manifest.digest} now",
            f"move {given.envelope_path} away to begin anew: what was signed can't be changed",
        )
    return there.envelope


def _made(args: argparse.Namespace, role: Role, manifest: Manifest) -> SigningKey:
    """Make the key, and for people the file by which others trust it."""
    if role is not Role.AGENT and os.path.lexists(_trust_path(args.key)):
        raise RefusedError(f"{_trust_path(args.key)} exists already", "name another file with --key")
    key = new_key(Algorithm(args.algorithm))
    write_private(args.key, key)
    if role is not Role.AGENT:
        name = manifest.publisher if role is Role.PUBLISHER else manifest.owner.user
        trusted = TrustedKey(key.public, frozenset((role,)), name, _now_s() + KEY_DAYS * 86400)
        create_file(_trust_path(args.key), trusted_key_bytes(trusted) + b"\n", 0o644)
    return key


def _trust_path(key: str) -> str:
    return f"{key}.trust.json"


def _verify(args: argparse.Namespace) -> int:
    given = read_manifest_file(args.target)
    manifest, now_s = given.manifest, _now_s()
    if given.envelope is None:
        raise UsageError(f"{args.target}: is no envelope, nobody has signed it", f"give {given.envelope_path}")
    required = [Role(role) for role in dict.fromkeys(args.require)]
    signers = verify_signers(given.envelope, PAYLOAD_TYPE, _ring(args), required, now_s, _introduced(manifest))
    for signer in signers:
        _check_name(manifest, signer)
    check_time(manifest, now_s)
    value = {"ok": True, "digest": manifest.digest, "name": manifest.name, "seq": manifest.seq}
    value["signers"] = [_signer_value(signer) for signer in signers]
    lines = [f"{args.target}: {_called(manifest)}, {manifest.digest}", *map(_signer_line, signers)]
    _print(args, value, lines)
    return 0


def _ring(args: argparse.Namespace) -> Iterable[TrustedKey]:
    people = frozenset((Role.PUBLISHER, Role.OWNER))
    paths = args.trust if args.trust or args.key else _kept_keys()
    for path in paths:
        yield parse_trusted_key(read_file(path, MAX_ENVELOPE_BYTES), path)
    for path in args.key:
        yield TrustedKey(parse_public(read_file(path, MAX_ENVELOPE_BYTES), path), people)


def _kept_keys() -> list[str]:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    root = base if base.startswith("/") else os.path.expanduser("~/.config")
    directory = os.path.join(root, "deskwarden", "keys")
    try:
        found = sorted(os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        found = []
    if not found:
        raise UsageError(f"no keys to trust: {directory} holds none", "deskwarden manifest verify FILE --trust KEYS")
    return found


def _introduced(manifest: Manifest) -> list[TrustedKey]:
    """Return the agent's key, which the manifest itself names."""
    if not manifest.agent_key:
        return []
    key = from_jwk(dict(manifest.agent_key), "agent_key")
    return [TrustedKey(key, frozenset((Role.AGENT,)), manifest.name, manifest.expires)]


def _check_name(manifest: Manifest, signer: Signer) -> None:
    """Refuse a signer whom the manifest does not name as any of what the key is trusted for."""
    name, roles = signer.trusted.name, [signer.role] if signer.role else sorted(signer.trusted.roles)
    refusals = []
    for role in roles if name else ():
        try:
            check_signers(manifest, {role: name})
        except RefusedError as refused:
            refusals.append(refused)
    if refusals and len(refusals) == len(roles):
        raise refusals[0]


def _signer_value(signer: Signer) -> dict[str, Any]:
    trusted = signer.trusted
    expires = None if trusted.expires_s is None else format_utc(trusted.expires_s)
    about = {"name": trusted.name or None, "roles": sorted(trusted.roles), "role": signer.role, "expires": expires}
    return {"keyid": trusted.key.keyid, **about}


def _signer_line(signer: Signer) -> str:
    trusted = signer.trusted
    who = f"{trusted.name} as {signer.role or ' or '.join(sorted(trusted.roles))}" if trusted.name else "the key given"
    until = "" if trusted.expires_s is None else f", trusted until {format_utc(trusted.expires_s)}"
    return f"  signed by {who} ({trusted.key.keyid}{until})"


def _show(args: argparse.Namespace) -> int:
    given = read_manifest_file(args.target)
    value = {"digest": given.manifest.digest, "manifest": json.loads(given.payload)}
    if given.envelope is not None:
        value["signatures"] = len(given.envelope.signatures)
    _print(args, value, describe(given.manifest, None if given.envelope is None else len(given.envelope.signatures)))
    return 0


def describe(manifest: Manifest, signatures: int | None = None) -> list[str]:
    """Return a manifest in plain words; what its author wrote freely is escaped and bounded."""
    owner = manifest.owner.user + (f" (team {manifest.owner.team})" if manifest.owner.team else "")
    lines = [
        f"{_called(manifest)}, {manifest.digest}",
        f"  claims       to be a {manifest.class_claim} agent of {owner}, made by {manifest.publisher}",
        f"  says its use {escape_text(manifest.purpose.strip(), 300)}",
        f"  valid        {format_utc(manifest.not_before)} to {format_utc(manifest.expires)}",
        f"  at a time    {manifest.duration_max_s} s at most",
    ]
    if manifest.roles:
        lines.append(f"  roles        {', '.join(manifest.roles)}")
    if manifest.data_labels:
        lines.append(f"  meant for    {', '.join(manifest.data_labels)}")
    lines += [f"  program      {escape_text(one.path)} (sha256 {one.sha256[:12]}…)" for one in manifest.binaries]
    lines += [f"  model        {escape_text(one.name)} (sha256 {one.sha256[:12]}…)" for one in manifest.models]
    lines.append("  may ask for" if manifest.entries else "  may ask for  nothing")
    lines += [line for entry in manifest.entries for line in _entry_lines(entry)]
    if signatures is None:
        lines.append("not signed: deskwarden manifest sign FILE --key KEY --role owner")
    else:
        lines.append(f"{_count(signatures, 'signature')}, not checked here: deskwarden manifest verify FILE")
    return lines


def _entry_lines(entry: Entry) -> list[str]:
    what = f"{' and '.join(entry.capability.operations)} {escape_text(entry.capability.selector)}"
    lines = [f"    {entry.capability.kind}: {what} (data up to {entry.label_max.word})"]
    if entry.justification:
        lines.append(f"      says why: {escape_text(entry.justification.strip(), 150)}")
    return lines


def _schema(args: argparse.Namespace) -> int:
    del args
    print(json.dumps(schema(), indent=2))
    return 0


def _called(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version}, number {manifest.seq}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _user() -> str:
    """Return the caller's name where a manifest can hold it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = ""
    return name if re.fullmatch("[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", name) else "owner"


def _now_s() -> int:
    return clock.now_ns() // 1_000_000_000


def _print(args: argparse.Namespace, value: Mapping[str, Any], lines: Iterable[str]) -> None:
    print(json.dumps(value) if args.json else "\n".join(lines))


_Action = Callable[[argparse.Namespace], int]
_VERBS: Final[Mapping[str, tuple[str, str, _Action]]] = {
    "init": ("write a commented file to start from: NAME.yaml", "NAME", _init),
    "check": ("check a manifest, in YAML with line and column", "FILE", _check),
    "sign": ("sign it, into FILE.dsse.json; again to add a signature", "FILE", _sign),
    "verify": ("check who signed an envelope, and that it is valid now", "FILE", _verify),
    "show": ("a manifest in plain words", "FILE", _show),
    "schema": ("the JSON Schema of a manifest", "", _schema),
}
