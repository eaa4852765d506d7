"""A profile's asks as what stands behind an agent."""

from __future__ import annotations

from supervisor import strict_json
from supervisor.policy.manifest import parse
from supervisor.policy.profile_manifest import profile_document
from supervisor.policy.standing import Standing
from supervisor.sandbox.plan import Owner
from supervisor.sandbox.profile import Profile


def of_profile(profile: Profile, program: str, owner: Owner) -> Standing:
    """Return the standing of an agent that runs with *profile*; nobody has agreed to it yet.

    Raises:
        UsageError: The owner's home cannot stand in a selector.
    """
    value = profile_document(
        program, owner.name, owner.home, profile.asks.entries(), profile.asks.duration_max_s, profile.asks.roles
    )
    return Standing(parse(strict_json.canonical(value)), (), consented=False)
