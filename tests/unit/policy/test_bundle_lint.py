"""A bundle that reaches out, guesses or holds by accident is refused; the shipped one is not."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from supervisor.errors import DeskwardenError, UsageError
from supervisor.policy.bundle_lint import check_bundle, lint
from supervisor.policy.bundle_source import Bundle, default_directory, read_bundle

HEAD = "package deskwarden\n\nimport rego.v1\n\n"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return read_bundle(default_directory())


def with_rule(bundle: Bundle, text: str) -> Bundle:
    return dataclasses.replace(bundle, modules={**bundle.modules, "extra.rego": text})


def test_the_shipped_bundle_is_clean(shipped: Bundle) -> None:
    assert lint(shipped) == ()
    check_bundle(shipped)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ('x := http.send({"url": input.request.selector})', "http.send"),
        ('x := data.y if not http["send"]({"url": "x"})', "http.send"),
        ("x := opa.runtime()", "opa.runtime"),
        ("x := time.now_ns()", "input.now"),
        ('x := rand.intn("a", 3)', "replayed"),
        ('x := net.lookup_ip_addr("example.com")', "net.lookup_ip_addr"),
        ('x := uuid.rfc4122("a")', "replayed"),
        ('x if regex.match("finance", input.request.selector)', "from ^ to \\$"),
        ('x if regex.match("^/srv", input.request.selector)', "from ^ to \\$"),
        ("x if regex.match(input.request.selector, data.config.z)", "literal pattern"),
        ('x if every op in input.request.operations { op == "read" }', "when it is empty"),
        ('x if not startswith(input.request.selector, "/srv")', "type is wrong"),
        ("x if low with input as {}", "belongs into tests"),
        ("default decision := {}", "2 times default decision"),
    ],
)
def test_what_a_bundle_must_not_do_is_named(shipped: Bundle, rule: str, complaint: str) -> None:
    text = HEAD + "low if input.schema == 1\n\n" + rule + "\n"
    with pytest.raises(UsageError, match=complaint.replace("^", "\\^")):
        check_bundle(with_rule(shipped, text))


@pytest.mark.parametrize(
    "rule",
    [
        'x if {\n\tcount(input.request.operations) > 0\n\tevery op in input.request.operations { op == "read" }\n}',
        'x if {\n\tis_string(input.request.selector)\n\tnot startswith(input.request.selector, "/srv")\n}',
        'x if regex.match("^/srv/[a-z]+$", input.request.selector)',
    ],
)
def test_a_guarded_rule_is_accepted(shipped: Bundle, rule: str) -> None:
    check_bundle(with_rule(shipped, HEAD + rule + "\n"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("package other\n\nimport rego.v1\n\nx := 1\n", "package other"),
        ("package deskwarden\n\nx := 1\n", "import rego.v1"),
        (HEAD + "x := \n", "extra.rego"),
        (HEAD + "x if y\n", "unsafe"),
        (HEAD + "x if nothing.known(1)\n", "no such function"),
    ],
)
def test_a_module_that_is_not_ours_or_no_rego_is_refused(shipped: Bundle, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        check_bundle(with_rule(shipped, text))


def copy_of_shipped(directory: Path) -> Path:
    for file in default_directory().iterdir():
        if file.suffix in (".rego", ".json"):
            (directory / file.name).write_bytes(file.read_bytes())
    return directory


def test_the_revision_follows_what_decides_and_not_the_tests(tmp_path: Path) -> None:
    directory = copy_of_shipped(tmp_path)
    before = read_bundle(directory).revision
    (directory / "more_test.rego").write_text(HEAD)
    assert read_bundle(directory).revision == before
    (directory / "data.json").write_text('{"config": {}}')
    assert read_bundle(directory).revision != before


@pytest.mark.parametrize("attack", ["link", "fifo", "taken root", "key twice", "large", "empty", "name"])
def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path, attack: str) -> None:
    directory = copy_of_shipped(tmp_path)
    if attack == "link":
        (directory / "z.rego").symlink_to("/etc/passwd")
    elif attack == "fifo":
        os.mkfifo(directory / "z.rego")
    elif attack == "taken root":
        (directory / "data.json").write_text('{"deskwarden": {"decision": {"effect": "allow"}}}')
    elif attack == "key twice":
        (directory / "data.json").write_text('{"config": {}, "config": {}}')
    elif attack == "large":
        (directory / "z.rego").write_text("#" * 300_000)
    elif attack == "name":
        (directory / "Z z.rego").write_text(HEAD)
    else:
        for file in directory.glob("*.rego"):
            file.unlink()
    with pytest.raises(DeskwardenError):
        read_bundle(directory)
