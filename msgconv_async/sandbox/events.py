"""Resolved conversations, synthetic or from a file: what really happened on an account.

A source of them is any callable ``(account_id, start, end)`` that returns the conversations of an
account resolved from ``start`` up to but not including ``end``, both aware datetimes. For the same
stretch of time it must always return the same, since closed buckets never change.
"""

from __future__ import annotations

import functools
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import Annotated, Literal

import msgspec

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError
from msgconv_async.names import Names
from msgconv_async.protocol.buckets import EPOCH

ResolvedBy = Literal["CCP", "consumer", "system"]
"""The side that marked a conversation as resolved: the agent's side, the consumer, or a timeout."""

UNASSIGNED = -1
"""The skill of a conversation that was never assigned to one."""

_HOUR = timedelta(hours=1)
_SATURDAY = 5
_RESOLVED_AT = attrgetter("resolved_at")

# Few at night, most in the middle of the day.
_WAVE = [1.1 - math.cos((hour - 2) / 12 * math.pi) for hour in range(24)]
_RHYTHM = [hour / sum(_WAVE) for hour in _WAVE]

# Medians of 8 and 6 minutes, and of an hour where no side answered any more.
_RESOLVERS: list[tuple[ResolvedBy, float]] = [
    ("CCP", math.log(480_000)),
    ("consumer", math.log(360_000)),
    ("system", math.log(3_600_000)),
]
_RESOLVER_WEIGHTS = list(accumulate([60, 25, 15]))

_SKILL_NAMES = ("Billing", "Delivery", "Returns", "Sales", "Technical help", "Appointments")
_AGENT_NAMES = ("Ada", "Ben", "Chloe", "Dmitri", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jun")

_Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Conversation(msgspec.Struct, frozen=True):
    """One resolved conversation.

    A file of them holds one a line, as a JSON object of the same members, such as
    ``{"account": "12345678", "resolved_at": "2026-03-04T08:00:00Z", "skill": 3, "agent": 2,
    "group": 7, "resolved_by": "CCP", "handling_time_ms": 480000}``, in any order.

    Attributes:
        account: The account id.
        resolved_at: When it was resolved, aware; in a file ISO 8601 with its offset, or epoch
            milliseconds.
        agent: The id of its agent.
        resolved_by: ``"CCP"``, ``"consumer"`` or ``"system"``.
        handling_time_ms: Milliseconds.
        skill: The id of its skill; -1, "unassigned", where a file leaves it out.
        group: The id of the agent's group, or None.
    """

    account: str
    resolved_at: datetime
    agent: _Long
    resolved_by: ResolvedBy
    handling_time_ms: Annotated[int, msgspec.Meta(ge=0)]
    skill: _Long = UNASSIGNED
    group: _Long | None = None


Source = Callable[[str, datetime, datetime], Iterable[Conversation]]
"""``(account_id, start, end)`` -> the conversations resolved in that time."""


class Synthetic:
    """Invented conversations, always the same for the same settings, account and hour.

    Arrivals follow the hours of a day (UTC) and are fewer at weekends; handling times have a long
    tail (lognormal). Only the latest few hours asked for are kept.

    Args:
        seed: Another seed makes other conversations.
        skills: How many skills, one of them -1.
        agents: How many agents, each with one group and some of the skills.
        groups: How many agent groups.
        conversations_per_day: About how many an account resolves on a weekday.

    Raises:
        ConfigurationError: A number is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        skills: int = 6,
        agents: int = 12,
        groups: int = 3,
        conversations_per_day: int = 2500,
    ) -> None:
        checks.whole("seed", seed, 0)
        counts = {
            "skills": skills,
            "agents": agents,
            "groups": groups,
            "conversations_per_day": conversations_per_day,
        }
        for name, given in counts.items():
            checks.whole(name, given, 1)
        self._seed = seed
        self._skills = [UNASSIGNED, *range(1, skills)]
        self._agents = range(101, 101 + agents)
        self._groups = range(11, 11 + groups)
        self._per_day = conversations_per_day
        self._staff = functools.lru_cache(maxsize=128)(self._hire)
        self._hour = functools.lru_cache(maxsize=256)(self._invent)

    @property
    def names(self) -> Names:
        """The invented names of its skills and agents, the same in every account."""
        skills, agents = self._skills[1:], self._agents
        return Names(
            skills=dict(zip(skills, invented_names(_SKILL_NAMES), strict=False)),
            agents=dict(zip(agents, invented_names(_AGENT_NAMES), strict=False)),
        )

    def __call__(self, account_id: str, start: datetime, end: datetime) -> Iterable[Conversation]:
        """Return the conversations that an account resolved from ``start`` up to ``end``."""
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        found: list[Conversation] = []
        while hour < end:
            found += _between(self._hour(account_id, hour), start, end)
            hour += _HOUR
        return found

    def _hire(self, account_id: str) -> list[tuple[int, int, list[int]]]:
        """Give each agent of an account a group and the skills it has."""
        random = Random(f"{self._seed}/{account_id}")  # noqa: S311
        few = range(1, min(4, len(self._skills)) + 1)
        return [
            (agent, random.choice(self._groups), random.sample(self._skills, random.choice(few)))
            for agent in self._agents
        ]

    def _invent(self, account_id: str, hour: datetime) -> list[Conversation]:
        random = Random(f"{self._seed}/{account_id}/{hour:%Y-%m-%d/%H}")  # noqa: S311
        staff = self._staff(account_id)
        weekday = 0.5 if hour.weekday() >= _SATURDAY else 1.0
        expected = self._per_day * weekday * _RHYTHM[hour.hour] * random.uniform(0.85, 1.15)
        # An expected number below one must still give a conversation now and then.
        many = math.floor(expected + random.random())
        resolvers = random.choices(_RESOLVERS, cum_weights=_RESOLVER_WEIGHTS, k=many)
        conversations = []
        for resolved_by, mean in resolvers:
            agent, group, skills = random.choice(staff)
            conversations.append(
                Conversation(
                    account_id,
                    hour + timedelta(milliseconds=random.randrange(3_600_000)),
                    agent,
                    resolved_by,
                    round(random.lognormvariate(mean, 0.9)),
                    random.choice(skills),
                    group,
                )
            )
        return sorted(conversations, key=_RESOLVED_AT)


class Recorded:
    """Given conversations: read from a file, or made by a test.

    Args:
        conversations: In any order, of any number of accounts.

    Raises:
        ConfigurationError: There is no conversation, or one has a member that cannot be.
    """

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._accounts: dict[str, list[Conversation]] = {}
        for conversation in check_conversations(conversations):
            self._accounts.setdefault(conversation.account, []).append(conversation)
        for each_account in self._accounts.values():
            each_account.sort(key=_RESOLVED_AT)
        if not self._accounts:
            raise ConfigurationError("there is no conversation to replay: at least one is needed")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Recorded:
        """Read a file of conversations: one JSON object a line, blank lines are skipped.

        Raises:
            ConfigurationError: The file cannot be read or holds no conversation, or a line is not
                one. The error names the line.
        """
        checks.path("path", path)
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        return cls(_line(path, n, line) for n, line in enumerate(lines, 1) if line.strip())

    @property
    def account_ids(self) -> tuple[str, ...]:
        """The accounts that have conversations, in the order they were first met."""
        return tuple(self._accounts)

    @property
    def last(self) -> datetime:
        """When the last conversation was resolved."""
        return max(ordered[-1].resolved_at for ordered in self._accounts.values())

    def __call__(self, account_id: str, start: datetime, end: datetime) -> Iterable[Conversation]:
        """Return the conversations that an account resolved from ``start`` up to ``end``."""
        return _between(self._accounts.get(account_id, []), start, end)


def invented_names(words: Sequence[str]) -> Iterator[str]:
    """Yield names without end: the words, and then the words with numbers."""
    for number in count(1):
        yield from (word if number == 1 else f"{word} {number}" for word in words)


def _between(ordered: list[Conversation], start: datetime, end: datetime) -> list[Conversation]:
    first = bisect_left(ordered, start, key=_RESOLVED_AT)
    return ordered[first : bisect_left(ordered, end, lo=first, key=_RESOLVED_AT)]


def check_conversations(given: Iterable[Conversation]) -> tuple[Conversation, ...]:
    """Return conversations as they were given.

    Raises:
        ConfigurationError: One of them is something else, or has a member that cannot be.
    """
    what = "an iterable of them, such as a list"
    found = checks.members("conversations", given, Conversation, "a Conversation", what)
    for place, conversation in enumerate(found):
        try:
            msgspec.convert(msgspec.structs.asdict(conversation), Conversation)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"conversations[{place}]: {error}") from None
        checks.aware(f"conversations[{place}]: resolved_at", conversation.resolved_at)
    return found


def _line(path: str | os.PathLike[str], number: int, line: bytes) -> Conversation:
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        instant = members.get("resolved_at", msgspec.Raw(b"null"))
        if (milliseconds := _whole(instant)) is not None:
            at = EPOCH + timedelta(milliseconds=milliseconds)
            members["resolved_at"] = msgspec.Raw(msgspec.json.encode(at))
        if (account := _whole(members.get("account", msgspec.Raw(b"null")))) is not None:
            members["account"] = msgspec.Raw(b'"%d"' % account)
        found = msgspec.json.decode(msgspec.json.encode(members), type=Conversation)
    except OverflowError:
        raise ConfigurationError(
            f"{path}, line {number}: resolved_at lies outside the years 1 to 9999"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}, line {number}: {error}") from None
    if found.resolved_at.tzinfo is None:
        raise ConfigurationError(
            f"{path}, line {number}: resolved_at has no offset from UTC: end it in Z, or +hh:mm"
        )
    return found


def _whole(raw: msgspec.Raw) -> int | None:
    try:
        return msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        return None
