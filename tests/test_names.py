"""Names of accounts, skills and agents, from a file or a mapping."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from msgconv_async import ConfigurationError
from msgconv_async.names import Names, read_names
from msgconv_async.sandbox import Conversation, Recorded, Sandbox, Synthetic

GIVEN = Names(
    accounts={"71": "Shop"}, skills={4: "Billing, all", -1: "Nobody's"}, agents={101: "Ü"}
)
TOML = """\
[accounts]
71 = "Shop"
[skills]
4 = " Billing, all "
-1 = "Nobody's"
[agents]
101 = "Ü"
"""
CSV = """\
kind,id,name
account,71,Shop

skill,4,"Billing, all"
skill,-1,Nobody's
agent,101,Ü
"""


@pytest.mark.parametrize(("name", "text"), [("names.toml", TOML), ("names.CSV", CSV)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_of_either_kind_says_the_same(
    tmp_path: Path, name: str, text: str, encoding: str, newline: str
) -> None:
    """However an editor writes it."""
    path = tmp_path / name
    path.write_text(text, encoding=encoding, newline=newline)
    assert GIVEN == read_names(path)


def test_a_name_stands_beside_its_id() -> None:
    """What has none is its id alone."""
    assert ["71 Shop", "72"] == [GIVEN.account(id_) for id_ in ("71", "72")]
    assert ["4 Billing, all", "5"] == [GIVEN.skill(id_) for id_ in (4, 5)]
    assert ["101 Ü", "4"] == [GIVEN.agent(id_) for id_ in (101, 4)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "[skills", "is not TOML: "),
        ("a.toml", "x = " + "[" * 5000, "is not TOML: "),
        ("a.toml", "[skill]\n4 = 'x'", "'skill': its tables are [accounts], [skills], [agents]"),
        ("a.toml", "skills = 4", "'skills': its tables are"),
        ("a.toml", "[skills]\n4 = 5", "skills.4: a name is text that is not empty"),
        ("a.toml", "[agents]\nx = 'x'", "agents.x: the id of an agent is a whole number"),
        ("a.toml", "[skills]\n4 = 'x'\n04 = 'y'", "skills.04: skill 4 has a name already"),
        ("a.csv", "skill;4;x", "line 1: a line has three values: a kind (account, skill, agent),"),
        ("a.csv", "kind,id,name\nteam,4,x", "line 2: 'team': the kinds are account, skill, agent"),
        ("a.csv", "skill,x,y", "line 1: the id of a skill is a whole number"),
        ("a.csv", "skill,4,x\n\nskill,4, ", "line 3: a name is text that is not empty"),
        ("a.csv", "skill,4,x\nskill,4,y", "line 2: skill 4 has a name already"),
        ("a.csv", "skill,4," + "x" * 200_000, "line 1: field larger than field limit"),
        ("a.txt", "", "a file of names ends in .toml or in .csv"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_names(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.toml cannot be read: No such file"):
        read_names(tmp_path / "a.toml")
    (tmp_path / "b.csv").write_bytes(b"skill,4,x\nskill,5,\xff")
    with pytest.raises(ConfigurationError, match=r"b\.csv, line 2: this is not UTF-8"):
        read_names(tmp_path / "b.csv")


def test_the_sandbox_has_names_for_what_it_invents() -> None:
    """All different, and none for conversations of others."""
    said = Conversation("1", datetime(2026, 3, 4, tzinfo=UTC), 1, "CCP", 1)
    names = Sandbox(accounts=50, events=Synthetic(skills=20, agents=30)).names
    assert {*range(1, 20)} == names.skills.keys()
    assert {*range(101, 131)} == names.agents.keys()
    assert "10000001 Aarhus" == names.account("10000001")
    for of in (names.accounts, names.skills, names.agents):
        assert len(of) == len(set(of.values()))
    assert Names() == Sandbox(events=Recorded([said])).names
