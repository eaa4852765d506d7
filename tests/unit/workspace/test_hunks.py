from __future__ import annotations

import subprocess
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.workspace.diff import quote
from supervisor.workspace.hunks import compare_texts

texts = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"a\r\n", b"no end"]), max_size=40).map(b"".join)


@given(old=texts, new=texts)
@settings(max_examples=60)
def test_patch_turns_the_old_text_into_the_new_one(old: bytes, new: bytes, tmp_path_factory: object) -> None:
    folder = Path(tmp_path_factory.mktemp("hunks"))  # type: ignore[attr-defined]
    (folder / "f").write_bytes(old)
    hunks = b"".join(compare_texts(old, new).hunks())
    if old == new:
        assert hunks == b""
        return
    patch = b"--- f\n+++ f\n" + hunks
    subprocess.run(["patch", "-s", "--binary", "-F0", folder / "f"], input=patch, check=True)
    got = (folder / "f").read_bytes() if (folder / "f").exists() else b""
    assert got == new


def test_counts_and_similarity() -> None:
    diff = compare_texts(b"1\n2\n3\n4\n", b"1\n2\n3\n5\n6\n")
    assert (diff.removed, diff.added, diff.similarity) == (1, 2, 60)
    assert compare_texts(b"x\n", b"x\n").similarity == 100


def test_a_large_middle_is_replaced_in_bounded_time() -> None:
    old = b"".join(b"%d\n" % (n * 7919 % 1009) for n in range(100_000))
    new = b"".join(b"%d\n" % (n * 104729 % 1009) for n in range(100_000))
    started = time.process_time()
    diff = compare_texts(old, new)
    assert time.process_time() - started < 5
    assert diff.added == diff.removed > 90_000


def test_names_are_quoted_as_git_does() -> None:
    assert quote(b"plain name", b"a/") == b"a/plain name"
    assert quote(b'q"\\\t\n\x01\xff', b"a/") == rb'"a/q\"\\\t\n\001\377"'
