"""The client, against a real server behind a real relay."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.agent.client import AgentClient
from supervisor.agent.values import Ask, DeskwardenDenied
from supervisor.broker.agent_door import Phase
from supervisor.errors import ServiceError, UsageError
from tests.agent_door import EXPIRES_NS, SECRET, House, house

Session = tuple[House, str, AgentClient]


@pytest.fixture
def session() -> Iterator[Session]:
    place = house()
    name, path = place.open()
    with AgentClient(path) as client:
        yield place, name, client
    place.end(name)


def test_what_policy_allows_is_granted_and_told_until_it_is_released(session: Session) -> None:
    _, name, client = session
    grant = client.obtain(Ask("file:read", "~/open/*.txt", "to summarise", duration_s=60))
    assert (grant.type, grant.target, grant.paths) == ("file:read", "~/open/*.txt", ("/home/a/open",))
    assert grant.is_copy
    assert grant.expires_ns == EXPIRES_NS
    access = client.describe()
    assert (access.session, access.workspace, access.network, access.grants) == (name, "/work", "off", (grant,))
    assert access.askable == (("file:read", "~/open/**"),)
    client.release(grant.id)
    assert client.describe().grants == ()


def test_a_denial_carries_its_reason_and_next_steps_and_can_be_explained(session: Session) -> None:
    client = session[2]
    with pytest.raises(DeskwardenDenied, match="keys are never given") as caught:
        client.obtain(Ask("file:read", "~/.ssh/id_ed25519", "to push"))
    assert caught.value.reason_code == "path-protected"
    assert caught.value.next_steps == ("ask the owner to run the git push", "use https")
    for subject in (caught.value.request_id, ""):
        why = client.why(subject)
        assert (why.id, why.phase, why.rules) == (caught.value.request_id, "denied", ("protect-keys",))


def test_a_request_outlives_its_stream_and_is_followed_to_its_end(session: Session) -> None:
    place, _, client = session
    stream = client.request(Ask("net:connect", "example.com:443", "to fetch"))
    states = [next(stream), next(stream)]
    stream.close()
    assert [state.phase for state in states] == ["submitted", "awaiting-owner"]
    # A limit ends the waiting, without an error and without an answer.
    assert [state.phase for state in client.follow(states[0].id, timeout_s=1.0)] in ([], ["awaiting-owner"])
    assert [one.id for one in client.describe().open_requests] == [states[0].id]
    threading.Timer(0.5, place.decide, (states[0].id, Phase.GRANTED)).start()
    assert [state.phase for state in client.follow(states[0].id)] == ["awaiting-owner", "granted"]


def test_a_cancelled_request_ends_its_stream(session: Session) -> None:
    client = session[2]
    phases = []
    for state in client.request(Ask("exec:run", "/usr/bin/make", "to build")):
        phases.append(state.phase)
        if state.phase == "awaiting-owner":
            client.cancel(state.id)
    assert phases == ["submitted", "awaiting-owner", "withdrawn"]


def test_a_secret_is_used_byte_for_byte_and_a_child_gets_a_part(session: Session) -> None:
    place, _, client = session
    states = client.request(Ask("secret:use", "github", "to publish", uses=1))
    first = next(states)
    place.decide(first.id, Phase.GRANTED)
    grant = next(state.grant for state in states if state.grant)
    assert client.use_secret(grant.id).value == SECRET
    child = client.start_child("helper", ["run", "it"], reason="to help", grants=[grant.id], duration_s=5)
    assert (child.session, [one.id for one in child.grants]) == ("child123", [grant.id])
    assert place.door.children[-1].command == ("run", "it")


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (Ask("file:exec", "/x", "r"), "file:exec"),
        (Ask("file:read", "", "r"), "selector"),
        (Ask("file:read", "/" + "x" * 4096, "r"), "selector"),
        (Ask("file:read", "/a\nb", "r"), "U\\+000A"),
        (Ask("file:read", "/a\u202eb", "r"), "U\\+202E"),
        (Ask("file:read", "/x", " "), "reason"),
        (Ask("file:read", "/x", "r" * 2001), "reason"),
        (Ask("file:read", "/x", "r\x1b[2J"), "U\\+001B"),
        (Ask("file:read", "/x", "r", duration_s=-1), "duration_s"),
        (Ask("file:read", "/x", "r", duration_s=2**40), "duration_s"),
        (Ask("file:read", "/x", "r", uses=2**40), "uses"),
    ],
)
def test_what_is_wrong_with_a_request_is_refused_by_its_name(session: Session, ask: Ask, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        list(session[2].request(ask))


def test_a_bug_behind_the_door_is_told_without_its_text(session: Session) -> None:
    with pytest.raises(ServiceError, match="internal error: RuntimeError") as caught:
        list(session[2].request(Ask("file:read", "/x", "break")))
    assert "hunter2" not in str(caught.value)


def test_without_a_socket_the_error_says_so_at_once(tmp_path: Path) -> None:
    with AgentClient(f"{tmp_path}/none.sock") as client, pytest.raises(ServiceError, match="is not here"):
        client.describe()


def test_ids_of_another_session_mean_nothing(session: Session) -> None:
    place, _, client = session
    grant = client.obtain(Ask("file:read", "~/open/x", "r"))
    request = next(iter(client.request(Ask("file:read", "/waits", "r"))))
    other_name, other_path = place.open()
    with AgentClient(other_path) as other:
        for foreign, own in itertools.product((request.id, grant.id), ("r999999",)):
            for call in (other.cancel, other.release, other.use_secret, other.why, lambda one: list(other.follow(one))):
                with pytest.raises(DeskwardenDenied) as seen:
                    call(foreign)
                with pytest.raises(DeskwardenDenied) as unknown:
                    call(own)
                assert str(seen.value).replace(foreign, own) == str(unknown.value)
        with pytest.raises(DeskwardenDenied):
            other.start_child("helper", reason="r", grants=[grant.id])
        assert other.describe().grants == other.describe().open_requests == ()
    place.end(other_name)
    assert [one.id for one in client.describe().grants] == [grant.id]
    assert os.path.exists(f"{place.directory}/internal.sock")
