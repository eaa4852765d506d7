"""Whether the votes are enough: every clause by different people, nobody twice, nobody who is excluded. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from supervisor.broker.people import Person
from supervisor.policy.decision import Clause, Quorum


def missing(quorum: Quorum, voters: Sequence[Person]) -> tuple[Clause, ...]:
    """Return the clauses that the yes of *voters* leaves open; none is met by halves.

    One vote fills one place of one clause: the assignment that fills most is looked for, not the first that comes.
    With every clause filled but too few teams among the fillers, all clauses count as open.

    Args:
        voters: Who said yes, each human once, with the assurance that the quorum wants.
    """
    places = [clause for clause in quorum.clauses for _ in range(clause.least)]
    able = [person for person in _unique(voters) if person.human not in quorum.excluded]
    filled = _assign(places, able)
    unmet = tuple(
        clause for clause in quorum.clauses if any(p is clause and i not in filled for i, p in enumerate(places))
    )
    if unmet:
        return unmet
    if not _has_teams(quorum, places, able):
        return quorum.clauses
    return ()


def _unique(voters: Iterable[Person]) -> list[Person]:
    return list({person.human: person for person in voters}.values())


def _may_fill(person: Person, clause: Clause) -> bool:
    return any(person.fits(party) for party in clause.any_of)


def _assign(places: Sequence[Clause], voters: Sequence[Person]) -> dict[int, int]:
    """Return place → voter, as many as can be filled (augmenting paths)."""
    filled: dict[int, int] = {}

    def place_for(voter: int, seen: set[int]) -> bool:
        for place, clause in enumerate(places):
            if place in seen or not _may_fill(voters[voter], clause):
                continue
            seen.add(place)
            if place not in filled or place_for(filled[place], seen):
                filled[place] = voter
                return True
        return False

    for voter in range(len(voters)):
        place_for(voter, set())
    return filled


def _has_teams(quorum: Quorum, places: Sequence[Clause], voters: Sequence[Person]) -> bool:
    """Return whether some complete assignment is made by people of enough different teams, one team a person."""
    if quorum.distinct_teams <= 1:
        return True
    for group in combinations(voters, len(places)):
        if len(_assign(places, group)) == len(places) and _teams(quorum, group) >= quorum.distinct_teams:
            return True
    return False


def _teams(quorum: Quorum, group: Sequence[Person]) -> int:
    """Return to how many different teams *group* can be said to belong, each person to one that the clauses name."""
    named = {party.team for clause in quorum.clauses for party in clause.any_of}
    of_team: dict[str, int] = {}

    def team_for(index: int, seen: set[str]) -> bool:
        for team in named & group[index].roles.keys():
            if team in seen:
                continue
            seen.add(team)
            if team not in of_team or team_for(of_team[team], seen):
                of_team[team] = index
                return True
        return False

    return sum(team_for(index, set()) for index in range(len(group)))
