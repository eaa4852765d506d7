"""The owner's private group is told by the account database alone, and by nothing that could be another's."""

from __future__ import annotations

import grp
import pwd

import pytest

from supervisor.workspace.private_group import NONE, private_group


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> tuple[list[pwd.struct_passwd], list[grp.struct_group]]:
    users = [pwd.struct_passwd(("o", "x", 5000, 5000, "", "/h", "/s"))]
    groups = [grp.struct_group(("o", "x", 5000, []))]
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {one.pw_uid: one for one in users}[uid])
    monkeypatch.setattr(grp, "getgrgid", lambda gid: {one.gr_gid: one for one in groups}[gid])
    return users, groups


Accounts = tuple[list[pwd.struct_passwd], list[grp.struct_group]]


def test_a_group_of_ones_own_name_without_others_is_private(accounts: Accounts) -> None:
    assert private_group(5000) == 5000
    accounts[1][0] = grp.struct_group(("o", "x", 5000, ["o"]))
    assert private_group(5000) == 5000


@pytest.mark.parametrize(("name", "members"), [("staff", []), ("o", ["p"]), ("o", ["o", "p"])])
def test_a_shared_group_is_not(accounts: Accounts, name: str, members: list[str]) -> None:
    accounts[1][0] = grp.struct_group((name, "x", 5000, members))
    assert private_group(5000) == NONE


def test_a_group_that_is_anothers_primary_group_is_not(accounts: Accounts) -> None:
    accounts[0].append(pwd.struct_passwd(("p", "x", 5001, 5000, "", "/h", "/s")))
    assert private_group(5000) == NONE


def test_root_and_unknown_accounts_have_none(accounts: Accounts) -> None:
    assert private_group(0) == NONE
    assert private_group(4999) == NONE
    accounts[1].clear()
    assert private_group(5000) == NONE
