"""The words of ``run``: sizes, durations, what comes later, and the cards."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from supervisor.cli import card, main, run
from supervisor.errors import DeskwardenError, RefusedError, UsageError


def _args(*words: str) -> argparse.Namespace:
    before, command = main.split_command(list(words))
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    args = parser.parse_args(before)
    args.command_words = command
    return args


@pytest.mark.parametrize(("text", "size"), [("512m", 512 << 20), ("2g", 2 << 30), ("1GiB", 1 << 30), ("4096", 4096)])
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert run.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5g", "many", "1e3", "2 gg"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        run.parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1d", 86400)])
def test_durations_are_seconds(text: str, seconds: int) -> None:
    assert run.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "0m", "m", "-5m", "1.5h"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        run.parse_duration(text)


def test_what_follows_the_dashes_is_the_agents_untouched() -> None:
    assert _args("--name", "x", "--", "sh", "-c", "--", "--json").command_words == ["sh", "-c", "--", "--json"]


@pytest.mark.parametrize(
    "words", [("--net", "open"), ("--allow-domain", "a.example"), ("--publish", "80"), ("--auto",)]
)
def test_flags_of_later_rooms_are_refused_not_ignored(words: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError):
        run.run(_args(*words, "--", "true"))


def test_an_agent_that_needs_the_network_is_told_so_and_pointed_to_the_demo() -> None:
    with pytest.raises(DeskwardenError, match="network") as caught:
        run.run(_args("--", "/usr/local/bin/codex", "exec"))
    assert "scripts/demo" in caught.value.next_step


def test_a_run_without_a_command_says_what_to_type() -> None:
    with pytest.raises(UsageError) as caught:
        run.build_request(_args())
    assert "--" in caught.value.next_step


def _message(**counts: int) -> dict[str, Any]:
    names = ("changed", "held", "conflicts", "refused")
    items = {
        name: {"count": counts.get(name, 0), "names": [f"f{i}" for i in range(min(5, counts.get(name, 0)))]}
        for name in names
    }
    base = {"workspace": "/w", "mode": "staged", "findings": ["one", "two", "three", "four", "five"]}
    return {"id": "abc", "name": "sh-abc", "code": 0, "reason": "", "card": base | items}


def test_the_exit_card_has_at_most_eight_lines() -> None:
    lines = card.exit_card(_message(changed=9, held=2, conflicts=1, refused=3), loud=True)
    assert len(lines) <= 8
    assert "deskwarden apply abc" in "\n".join(lines)


def test_a_run_that_changed_nothing_leaves_one_line() -> None:
    assert card.exit_card(_message()) == ["── sh-abc: exit 0, no files changed"]


def test_names_on_the_card_are_escaped() -> None:
    message = _message(changed=1)
    message["card"]["changed"]["names"] = ["a\x1b]52;c;aGk=\x07\nb"]
    text = "".join(card.exit_card(message))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\n" not in text


def test_the_first_run_card_has_at_most_twelve_lines() -> None:
    session = {
        "id": "abc",
        "argv": ["/usr/bin/agent"],
        "workspace": "/w",
        "profile": "coding",
        "mode": "staged",
        "shown": [f"/home/o/{i}" for i in range(20)],
        "report": {"network": "closed", "agent_uid": 5, "agent_uid_kind": "its own", "missing_preferred": ["a", "b"]},
    }
    lines = card.first_run_card(session)
    assert len(lines) <= 12
    assert "and 15 more" in "\n".join(lines)


def test_a_manifest_is_sent_as_its_file_has_it(tmp_path: Any) -> None:
    path = tmp_path / "m.dsse.json"
    path.write_bytes(b'{ "payload": "\xc3\xa9"\r\n}')
    request = run.build_request(_args("--manifest", str(path), "--", "true"))
    assert request["manifest"].encode() == path.read_bytes()
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="no envelope"):
        run.build_request(_args("--manifest", str(path), "--", "true"))
    with pytest.raises(UsageError, match="No such file"):
        run.build_request(_args("--manifest", str(tmp_path / "none"), "--", "true"))
