"""Whether a signed manifest may stand behind an agent, and as what: the whole check, in one function. Pure.

1. The envelope and the manifest are read strictly, over the bytes as received.
2. Every signature is by a known key that has not expired, or by the agent's key that the manifest names.
3. Each signer is somebody whom the manifest names as what the key is trusted for; the owner is the session's own.
4. The roles that policy requires are filled, by keys of their own: for a service its publisher, known to the machine;
   for a user-owned agent its publisher or its owner.
5. It is valid now.

Which number came before is the store's matter (`broker.accepted`), in the transaction that records the launch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from supervisor.daemon.keyring import Keyring
from supervisor.errors import RefusedError
from supervisor.identity.dsse import Envelope, parse_envelope
from supervisor.identity.keys import from_jwk
from supervisor.identity.trust import Role, Signer, TrustedKey, verify_signers
from supervisor.policy.facts import AgentClass
from supervisor.policy.manifest import PAYLOAD_TYPE, Manifest, check_signers, check_time, parse
from supervisor.policy.standing import Standing

_VERIFY: Final = "deskwarden manifest verify FILE"


def verify(data: bytes, keyring: Keyring, owner: str, now_s: int) -> Standing:
    """Return what stands behind an agent that is started with the envelope *data*.

    Args:
        owner: The session's owner, by the kernel's word.

    Raises:
        UsageError: It is no envelope, or holds no manifest.
        RefusedError: One of the steps above does not hold, by its name.
    """
    envelope = parse_envelope(data, "manifest")
    manifest = parse(envelope.payload)
    agent_class = _class_of(manifest)
    introduced = _introduced(manifest)
    try:
        signers = verify_signers(envelope, PAYLOAD_TYPE, keyring.keys, (), now_s, introduced)
    except RefusedError as error:
        raise _with_problems(error, keyring) from error
    known = [_narrowed(manifest, signer, owner) for signer in signers]
    filled = _filled(envelope, known, introduced, agent_class, keyring, now_s)
    check_signers(manifest, {str(signer.role): signer.trusted.name for signer in filled})
    check_time(manifest, now_s)
    roles = tuple(str(role) for role in Role if any(signer.role is role for signer in filled))
    managed = any(signer.role is Role.PUBLISHER and _is_managed(signer.trusted, keyring) for signer in filled)
    return Standing(manifest, roles, agent_class, managed, consented=Role.OWNER in roles)


def _class_of(manifest: Manifest) -> AgentClass:
    """A program that is a package's own and a unit of root's is a system agent; nothing that a person starts is."""
    if manifest.class_claim == "system":
        raise RefusedError(
            f"{manifest.name} claims to be a system agent, which nothing that a person starts is",
            "have it signed as user-owned, or as service",
        )
    return "service" if manifest.class_claim == "service" else "user-owned"


def _introduced(manifest: Manifest) -> tuple[TrustedKey, ...]:
    if not manifest.agent_key:
        return ()
    key = from_jwk(dict(manifest.agent_key), "agent_key")
    return (TrustedKey(key, frozenset((Role.AGENT,)), manifest.name, manifest.expires),)


def _narrowed(manifest: Manifest, signer: Signer, owner: str) -> TrustedKey:
    """Return the signer's key with the roles that the manifest gives to its name."""
    trusted = signer.trusted
    refusals, roles = [], []
    for role in sorted(trusted.roles):
        try:
            check_signers(manifest, {role: trusted.name})
            if role is Role.OWNER and trusted.name != owner:
                raise RefusedError(f"{trusted.name} signed as owner, but {owner} starts it", "sign it yourself")
            roles.append(role)
        except RefusedError as error:
            refusals.append(error)
    if not roles:
        raise refusals[0]
    return replace(trusted, roles=frozenset(roles))


def _filled(
    envelope: Envelope,
    known: list[TrustedKey],
    introduced: Iterable[TrustedKey],
    agent_class: AgentClass,
    keyring: Keyring,
    now_s: int,
) -> tuple[Signer, ...]:
    """Give the signers as many roles as they can fill; one of the required ones at least."""
    required = (Role.PUBLISHER,) if agent_class == "service" else (Role.PUBLISHER, Role.OWNER)
    own = [one for one in known if one not in introduced]
    for count in (3, 2, 1):
        for roles in itertools.combinations(Role, count):
            if not set(roles) & set(required):
                continue
            try:
                signers = verify_signers(envelope, PAYLOAD_TYPE, own, roles, now_s, introduced)
            except RefusedError:
                continue
            filled = tuple(signer for signer in signers if signer.role is not None)
            if agent_class == "service" and not _by_managed_publisher(filled, keyring):
                raise RefusedError(
                    "it claims to be a service, but its publisher is none that this machine knows",
                    f"ask IT to add the publisher's key: {SERVICE_KEYS}",
                )
            return filled
    raise RefusedError(f"no signature as {' or as '.join(required)}", _VERIFY)


SERVICE_KEYS: Final = "/etc/deskwarden/policies/managed/keys/NAME.json"


def _by_managed_publisher(signers: Iterable[Signer], keyring: Keyring) -> bool:
    return any(one.role is Role.PUBLISHER and _is_managed(one.trusted, keyring) for one in signers)


def _is_managed(trusted: TrustedKey, keyring: Keyring) -> bool:
    return any(one.key == trusted.key for one in keyring.managed)


def _with_problems(error: RefusedError, keyring: Keyring) -> RefusedError:
    """Say which key files were left out: the one that is missed may be among them."""
    if not keyring.problems:
        return error
    left = "; ".join(keyring.problems[:3])
    return RefusedError(f"{error.message} (key files left out: {left})", error.next_step)
