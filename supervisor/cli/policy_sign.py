"""``deskwarden policy sign``: say with a key that exactly these files decide, as which number, and until when."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping

from supervisor import clock
from supervisor.cli.manifest_file import replace_file
from supervisor.errors import UsageError
from supervisor.identity.bundle_signature import LONGEST_S, PAYLOAD_TYPE, Statement, digests_of, parse_statement
from supervisor.identity.dsse import Envelope, add_signature, envelope_bytes, parse_envelope
from supervisor.identity.keys import read_private
from supervisor.plain_text import escape_text
from supervisor.policy.bundle_lint import check_bundle
from supervisor.policy.bundle_source import SIGNATURES_FILE, parse_bundle, read_files
from supervisor.policy.role import parse_roles
from supervisor.timestamp import format_utc

MOST_DAYS = LONGEST_S // 86400


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    verb.add_argument("--key", required=True, metavar="FILE", help="your private key")
    verb.add_argument("--days", type=int, default=MOST_DAYS, help=f"how long it may decide, at most {MOST_DAYS}")
    verb.add_argument("--renew", action="store_true", help="begin anew although these files are signed: a later end")


def run(args: argparse.Namespace) -> int:
    """Sign; a second key adds its signature to the first's.

    Raises:
        UsageError: The bundle may not decide, or the time is too long.
    """
    if not 1 <= args.days <= MOST_DAYS:
        raise UsageError(f"--days {args.days}: want 1 to {MOST_DAYS}", "sign it again before it expires")
    directory = args.directory
    files = read_files(directory)
    before = files.pop(SIGNATURES_FILE, None)
    bundle = parse_bundle(directory, files)
    check_bundle(bundle)
    parse_roles(bundle.roles, f"{directory}/roles.json")
    envelope = _envelope(before, digests_of(files), bundle.revision, args)
    signed = add_signature(envelope, read_private(args.key))
    statement = parse_statement(signed.payload, SIGNATURES_FILE)
    path = os.path.join(directory, SIGNATURES_FILE)
    replace_file(path, envelope_bytes(signed))
    os.chmod(path, 0o644)  # the daemon, which has a uid of its own, must read it
    ends = format_utc(statement.expires_s)
    value = {"path": path, "revision": statement.revision, "seq": statement.seq, "expires": ends}
    if args.json:
        print(json.dumps(value | {"signatures": len(signed.signatures)}, indent=2))
        return 0
    print(f"{escape_text(path)}: number {statement.seq}, {len(signed.signatures)} signatures, until {ends}")
    print(f"revision {statement.revision}")
    return 0


def _envelope(before: bytes | None, digests: Mapping[str, str], revision: str, args: argparse.Namespace) -> Envelope:
    """Return the envelope that is there, when it is over these files, else a new one with the next number."""
    seq = 1
    if before is not None:
        envelope = parse_envelope(before, SIGNATURES_FILE)
        statement = parse_statement(envelope.payload, SIGNATURES_FILE)
        if dict(statement.files) == dict(digests) and not args.renew:
            return envelope
        seq = statement.seq + 1
    now_s = clock.now_ns() // 10**9
    made = Statement(revision, seq, now_s, now_s + args.days * 86400, digests)
    return Envelope(PAYLOAD_TYPE, made.to_bytes())
