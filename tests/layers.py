"""What a test needs of the kernel, in the words of `supervisor.sandbox.layers`."""

from __future__ import annotations

import functools

import pytest


def requires_layer(*names: str) -> pytest.MarkDecorator:
    """Mark a test, a class or a module (`pytestmark`) as needing these layers; see `tests/conftest.py`."""
    return pytest.mark.layer(*names)


@functools.cache
def layer_findings() -> dict[str, str]:
    """Return, by layer, "" where this machine has it and what the probe says where it has not.

    Probing does each thing for real, so it happens once a run and only when a test asks.
    """
    from supervisor.sandbox.probe import probe_all

    findings = {}
    for layer in probe_all():
        has = str(layer.state) == "present"
        findings[layer.name] = "" if has else f"{layer.state}: {layer.detail}; to have it: {layer.remedy}"
    return findings
