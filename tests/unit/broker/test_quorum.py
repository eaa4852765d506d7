"""Who must say yes: every clause, each person once, enough teams; compared with trying out everything."""

from __future__ import annotations

from itertools import permutations, product

from hypothesis import given
from hypothesis import strategies as st

from supervisor.broker.people import Person
from supervisor.broker.quorum import missing
from supervisor.policy.decision import Clause, Party, Quorum

TEAMS = ("finance", "legal", "security")
PEOPLE = st.lists(
    st.builds(
        Person,
        st.sampled_from("abcde"),
        st.dictionaries(st.sampled_from(TEAMS), st.sampled_from(("", "lead")), max_size=3),
    ),
    max_size=5,
    unique_by=lambda person: person.human,
)
PARTIES = st.builds(Party, st.sampled_from(TEAMS), st.sampled_from(("", "lead")))
CLAUSES = st.lists(
    st.builds(Clause, st.sampled_from("xyz"), st.lists(PARTIES, min_size=1, max_size=2).map(tuple), st.integers(1, 2)),
    min_size=1,
    max_size=2,
    unique_by=lambda clause: clause.id,
).map(tuple)
QUORUMS = st.builds(Quorum, CLAUSES, st.integers(1, 3))


def is_met_by_trying(quorum: Quorum, voters: list[Person]) -> bool:
    """Return whether some people, in some order and each for one of their teams, fill every place."""
    places = [clause for clause in quorum.clauses for _ in range(clause.least)]
    named = {party.team for clause in quorum.clauses for party in clause.any_of}
    for people in permutations(voters, len(places)):
        if not all(
            any(person.fits(party) for party in clause.any_of) for person, clause in zip(people, places, strict=True)
        ):
            continue
        for teams in product(*(sorted(named & person.roles.keys()) for person in people)):
            if len(set(teams)) >= quorum.distinct_teams:
                return True
    return False


@given(quorum=QUORUMS, voters=PEOPLE)
def test_it_is_met_exactly_when_some_assignment_meets_it(quorum: Quorum, voters: list[Person]) -> None:
    assert (missing(quorum, voters) == ()) == is_met_by_trying(quorum, voters)


@given(quorum=QUORUMS, voters=PEOPLE)
def test_the_order_of_votes_decides_nothing(quorum: Quorum, voters: list[Person]) -> None:
    assert (missing(quorum, voters) == ()) == (missing(quorum, voters[::-1]) == ())


FINANCE = Clause("data-owner", (Party("finance", "lead"),))
SECURITY = Clause("sec", (Party("security"),))
BOTH = Person("b", {"finance": "lead", "security": ""})
LEAD = Person("l", {"finance": "lead"})


def test_one_vote_fills_one_clause() -> None:
    assert missing(Quorum((FINANCE, SECURITY)), [BOTH]) == (SECURITY,)


def test_a_greedy_first_fit_would_fail_here() -> None:
    assert missing(Quorum((FINANCE, SECURITY), 2), [BOTH, LEAD]) == ()


def test_the_same_human_twice_is_one() -> None:
    assert missing(Quorum((FINANCE, SECURITY)), [BOTH, BOTH]) != ()


def test_an_excluded_person_counts_for_nothing() -> None:
    assert missing(Quorum((FINANCE,), excluded=("l",)), [LEAD]) == (FINANCE,)


def test_a_member_without_the_role_does_not_fit() -> None:
    assert missing(Quorum((FINANCE,)), [Person("m", {"finance": ""})]) == (FINANCE,)
