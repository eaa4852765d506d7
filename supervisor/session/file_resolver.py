"""What a path or pattern means on this machine: resolved by the owner's hand, looked at by the classifier."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from supervisor.broker.ask import Ask, SessionParty
from supervisor.errors import RefusedError
from supervisor.linux import seqpacket
from supervisor.policy import sensitivity
from supervisor.policy.request import FileItem, Resource
from supervisor.policy.sensitivity import Content, Rules
from supervisor.session import live_mounts
from supervisor.session.classifier import Classifier
from supervisor.session.file_grants import Sessions, root_of
from supervisor.session.hands import Hand, Hands

_DEADLINE_S: Final = 20.0
# Contents looked at for one question; what is beyond counts as not looked at.
_MOST_FILES: Final = 512
_BATCH: Final = 100


class FileResolver:
    """Implements `broker.doors.Resolver` for files.

    Args:
        owned_places: Deskwarden's own directories, which are never granted.
    """

    def __init__(
        self, hands: Hands, sessions: Sessions, classifier: Classifier, rules: Rules, owned_places: Sequence[str]
    ) -> None:
        self._hands = hands
        self._sessions = sessions
        self._classifier = classifier
        self._rules = rules
        self._owned_places = owned_places

    async def resolve(self, party: SessionParty, ask: Ask) -> Resource:
        """Return what *ask* is about; see `Resolver`."""
        session = self._sessions.living_session(party.id)
        if session is None:
            raise RefusedError(f"session {party.id} has ended")
        hand = await self._hands.of(session.record.owner_uid, session.record.owner_gid)
        answer, fds = await hand.ask(
            "resolve",
            (),
            _DEADLINE_S,
            target=ask.target,
            home=party.owner_home,
            forbidden=[_identity(place) for place in self._owned_places],
            above=_above(self._owned_places),
            watched=[list(components) for components in self._rules.watched],
        )
        try:
            selector = str(answer["selector"])
            check_grantable(session.plan.landlock, ask.operations, selector, str(answer["kind"]))
            contents = await self._look(hand, answer, fds)
        finally:
            seqpacket.close_all(fds)
        return self._resource(selector, answer, contents)

    def _resource(self, selector: str, answer: dict[str, Any], contents: list[Content]) -> Resource:
        items = [_item(item) for item in answer["items"]]
        if not items and answer["kind"] != "tree":
            raise RefusedError(f"{selector}: nothing there can be granted", _left_out(answer))
        root = root_of(selector)
        found = sensitivity.judge(
            self._rules,
            [root, *(item.path for item in items), *(f"{root}/{name}" for name in answer["sensitive"])],
            [(str(level), str(classes)) for level, classes in answer["labels"]],
            contents,
            complete=bool(answer["complete"]) and len(contents) == len(items),
        )
        if answer["kind"] == "tree":
            items = [FileItem(root, int(answer["device"]), int(answer["inode"]), 0, 0)]
        return Resource(selector, found.level, found.classes, found.complete, tuple(items), found.evidence)

    async def _look(self, hand: Hand, answer: dict[str, Any], fds: list[int]) -> list[Content]:
        """Have the classifier look at the first files; those that changed meanwhile count as not looked at."""
        items = answer["items"][:_MOST_FILES]
        contents = await self._looked(items, answer["opened"], fds)
        done = max(answer["opened"], default=-1) + 1 + len(answer["changed"])
        for first in range(done, len(items), _BATCH):
            batch = items[first : first + _BATCH]
            more, opened = await hand.ask("read_items", (), _DEADLINE_S, items=batch)
            try:
                contents += await self._looked(batch, more["opened"], opened)
            finally:
                seqpacket.close_all(opened)
        return contents

    async def _looked(self, items: list[dict[str, Any]], opened: list[int], fds: list[int]) -> list[Content]:
        contents: list[Content] = []
        for first in range(0, len(opened), _BATCH):
            indices = opened[first : first + _BATCH]
            names = [str(items[index]["path"]) for index in indices]
            contents += await self._classifier.look(names, fds[first : first + _BATCH])
        return contents


def check_grantable(rules: Iterable[tuple[str, str]], operations: Sequence[str], selector: str, kind: str) -> None:
    """Refuse, before anybody is asked, what a session that runs cannot be given.

    Args:
        rules: Landlock's, as they were set at the session's start.
        kind: ``file``, ``tree`` or ``pattern``.

    Raises:
        RefusedError: Says how it can be had.
    """
    root = root_of(selector)
    if "write" in operations and kind != "tree":
        folder = os.path.dirname(selector) if kind == "file" else root
        raise RefusedError(f"{selector}: only a whole folder can be staged for writing", f"ask for {folder}/**")
    stage = -1 if "write" in operations else None
    live_mounts.check_covered(rules, live_mounts.Item(root, "directory", -1, stage))
    if "write" in operations:
        step = f"start the session with: deskwarden run -w {root} …"
        raise RefusedError(f"{selector}: a running session can be shown files, not given them to change", step)


def _item(item: dict[str, Any]) -> FileItem:
    return FileItem(
        str(item["path"]), int(item["device"]), int(item["inode"]), int(item["size"]), int(item["ctime_ns"])
    )


def _identity(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_dev, status.st_ino]


def _above(places: Sequence[str]) -> list[list[int]]:
    """Return the identities of all directories that hold one of *places*: a tree from there would hold it too."""
    above = set()
    for place in places:
        path = os.path.realpath(place)
        while (parent := os.path.dirname(path)) != path:
            above.add(parent)
            path = parent
    return [_identity(path) for path in sorted(above)]


def _left_out(answer: dict[str, Any]) -> str:
    named = [f"{one['name']}: {one['why']}" for one in answer["left_out"][:3]]
    return f"left out: {'; '.join(named)}" if named else "check the pattern: ls"
