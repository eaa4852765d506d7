"""What keys and credentials look like. Each pattern runs in linear time: bounded, possessive, started at a boundary.

A pattern is tried only on text that holds one of its needles. Forms: the vendors' documentation, and RFC 7468 (PEM),
RFC 9580 (OpenPGP), RFC 7519 (JWT), C2SP age.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PRIVATE_KEY: Final = "private-key"
CLOUD_CREDENTIAL: Final = "cloud-credential"
PRODUCTION_SECRET: Final = "production-secret"  # noqa: S105 - the class's name


@dataclass(frozen=True, slots=True)
class Form:
    """One form; *needles* are in lower case when *folded*, and are then looked for in text in lower case."""

    name: str
    data_class: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    folded: bool = False


def _form(name: str, data_class: str, needles: str, pattern: str, *, folded: bool = False) -> Form:
    return Form(name, data_class, tuple(needles.split()), re.compile(pattern), folded)


_START: Final = r"(?<![A-Za-z0-9_\-])"
_END: Final = r"(?![A-Za-z0-9_\-])"

FORMS: Final = (
    _form(
        "PEM private key",
        PRIVATE_KEY,
        "PRIVATE",
        r"-----BEGIN (?:(?:RSA|EC|DSA|OPENSSH|ENCRYPTED|ANY) )?PRIVATE KEY-----",
    ),
    _form("OpenPGP private key", PRIVATE_KEY, "PRIVATE", r"-----BEGIN PGP PRIVATE KEY BLOCK-----"),
    _form("age identity", PRIVATE_KEY, "AGE-", rf"{_START}AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{{58,80}}+{_END}"),
    _form("PuTTY key", PRIVATE_KEY, "PuTTY-User-Key-File", r"PuTTY-User-Key-File-[1-3]:"),
    _form("AWS access key", CLOUD_CREDENTIAL, "AKIA ASIA", rf"{_START}(?:AKIA|ASIA)[A-Z2-7]{{16}}+{_END}"),
    _form(
        "AWS secret key",
        CLOUD_CREDENTIAL,
        "secret_access_key secretaccesskey",
        r"secret_?access_?key[\"']?[ \t]{0,4}+[=:][ \t]{0,4}+[\"']?[a-z0-9/+]{40}+(?![a-z0-9/+])",
        folded=True,
    ),
    _form(
        "Google service account",
        CLOUD_CREDENTIAL,
        "service_account",
        r"[\"']type[\"'][ \t\r\n]{0,8}+:[ \t\r\n]{0,8}+[\"']service_account[\"']",
    ),
    _form("Google API key", CLOUD_CREDENTIAL, "AIza", rf"{_START}AIza[0-9A-Za-z_\-]{{35}}+{_END}"),
    _form("Azure storage key", CLOUD_CREDENTIAL, "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}+=="),
    _form("Azure client secret", CLOUD_CREDENTIAL, "8Q~", r"(?<=[0-9A-Za-z_~.\-]{3})8Q~[0-9A-Za-z_~.\-]{31,34}+"),
    _form("GitHub token", CLOUD_CREDENTIAL, "ghp_ gho_ ghu_ ghs_ ghr_", rf"{_START}gh[pousr]_[A-Za-z0-9]{{36,255}}+"),
    _form("GitHub token", CLOUD_CREDENTIAL, "github_pat_", rf"{_START}github_pat_[A-Za-z0-9_]{{60,255}}+"),
    _form("GitLab token", CLOUD_CREDENTIAL, "glpat-", rf"{_START}glpat-[A-Za-z0-9_\-.]{{20,255}}+"),
    _form("Slack token", CLOUD_CREDENTIAL, "xox", rf"{_START}xox[abeoprs]-[A-Za-z0-9\-]{{10,255}}+"),
    _form("Slack webhook", CLOUD_CREDENTIAL, "hooks.slack.com", r"hooks\.slack\.com/services/T[A-Za-z0-9/]{20,80}+"),
    _form("Stripe key", CLOUD_CREDENTIAL, "k_live_", rf"{_START}[rs]k_live_[A-Za-z0-9]{{16,255}}+"),
    _form(
        "model provider key",
        CLOUD_CREDENTIAL,
        "sk-",
        rf"{_START}sk-(?:ant-|proj-|svcacct-|or-)?(?=[A-Za-z_\-]{{0,64}}+[0-9])[A-Za-z0-9_\-]{{32,255}}+",
    ),
    _form(
        "JSON web token",
        CLOUD_CREDENTIAL,
        "eyJ",
        r"(?<![A-Za-z0-9_\-.])eyJ[A-Za-z0-9_\-]{10,4000}+\.eyJ[A-Za-z0-9_\-]{10,8000}+\.[A-Za-z0-9_\-]{16,2000}+",
    ),
    _form(
        "production secret",
        PRODUCTION_SECRET,
        "prod live",
        r"(?<![a-z0-9])(?:prod|production|live)[_\-.](?:[a-z0-9]{1,20}+[_\-.]){0,4}"
        r"(?:password|passwd|secret|token|key|pwd)[\"']?[ \t]{0,4}+[=:][ \t]{0,4}+[\"']?[^\s\"'$<{]{8}",
        folded=True,
    ),
)
