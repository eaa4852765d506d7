"""A session that runs can be shown more; what Landlock let it do at its start stays the most."""

from __future__ import annotations

import pytest

from supervisor.errors import RefusedError
from supervisor.session.live_mounts import Item, check_covered

RULES = (("/", "read"), ("/dev", "device"), ("/home/o", "write"), ("/srv/work", "write"))


@pytest.mark.parametrize("path", ["/home/o/Documents", "/srv/work/x", "/home/o"])
def test_a_place_below_a_writable_one_can_be_staged_for_writing(path: str) -> None:
    check_covered(RULES, Item(path, "directory", 3, stage=4))


@pytest.mark.parametrize("path", ["/srv/data", "/home/other", "/home/o2", "/srv/workshop"])
def test_elsewhere_reading_only_is_granted(path: str) -> None:
    check_covered(RULES, Item(path, "directory", 3))
    with pytest.raises(RefusedError, match="cannot be written in a session that runs") as refused:
        check_covered(RULES, Item(path, "directory", 3, stage=4))
    assert refused.value.next_step == f"start it with: deskwarden run -w {path} …"


def test_without_a_rule_nothing_is_granted() -> None:
    with pytest.raises(RefusedError, match="cannot be read"):
        check_covered(RULES[1:], Item("/srv/data", "file", 3))
