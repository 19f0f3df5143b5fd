"""One question, checked by the server's own rules before it is sent.

The rules and the names on the wire are those of the API page's parameter table.
"""

import contextlib
import functools
import operator
import re
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import msgspec

from msgconv_async.errors import InvalidQuery

Ids = int | str | Iterable[int | str]
"""The forms in which ids may be given: ``"all"``, one id, or any iterable of ids."""

MAX_TIMEFRAME = 1440
"""Minutes: the service keeps 24 hours (API page, ``timeframe``)."""

MIN_INTERVAL = 5
"""Minutes: the size of a bucket."""

GET_URL_LIMIT = 2000
"""A URL that would reach this many characters is sent as a POST; servers commonly stop at 8 KiB."""

_ID = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class HttpRequest(msgspec.Struct, frozen=True):
    """A request before it has credentials: a method, an encoded URL, and a body."""

    method: Literal["GET", "POST"]
    url: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class ConversationQuery:
    """One question to the Messaging Conversation method. It is checked when it is made.

    Ids may be ``"all"``, one id, or any iterable of ids; an id is a 64-bit integer (the API's
    "long") or its decimal digits as a string. Repeated ids are kept once, in their first place.
    After construction the three id attributes hold None, ``"all"`` or a tuple of integers, so a
    query is hashable and two queries that ask the same are equal.

    Args:
        timeframe: Minutes back from now, 1 to 1440.
        interval: Minutes per interval of the answer: a multiple of 5 that divides ``timeframe``;
            None for the whole time frame only.
        skill_ids: Group by these skills, and within each by agent. -1 is "unassigned".
        agent_ids: Group by these agents.
        group_ids: Count only agents of these groups.
        version: The API's ``v``.

    Raises:
        InvalidQuery: The server would refuse the query. It names the parameter, the value and the
            rule.
    """

    timeframe: int
    _: KW_ONLY
    interval: int | None = None
    skill_ids: Ids | None = None
    agent_ids: Ids | None = None
    group_ids: Ids | None = None
    version: int = 1

    def __post_init__(self) -> None:
        timeframe = _whole("timeframe", self.timeframe)
        if not 1 <= timeframe <= MAX_TIMEFRAME:
            raise InvalidQuery(
                "timeframe", timeframe, f"it must be 1 to {MAX_TIMEFRAME} minutes (24 hours)"
            )
        interval = None if self.interval is None else _interval(self.interval, timeframe)
        version = _whole("version", self.version)
        if not 1 <= version < 2**31:
            raise InvalidQuery("version", version, "the API's version must be 1 or more, and small")
        checked = {
            "timeframe": timeframe,
            "interval": interval,
            "skill_ids": _ids("skill_ids", self.skill_ids),
            "agent_ids": _ids("agent_ids", self.agent_ids),
            "group_ids": _ids("group_ids", self.group_ids),
            "version": version,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def parameters(self) -> dict[str, str]:
        """Return the parameters under the API's names, as the strings that stand on the wire."""
        named = {
            "timeframe": self.timeframe,
            "v": self.version,
            "skillIds": self.skill_ids,
            "agentIds": self.agent_ids,
            "interval": self.interval,
            "groupIds": self.group_ids,
        }
        return {
            name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in named.items()
            if value is not None
        }

    def http_request(self, origin: str, account_id: str) -> HttpRequest:
        """Return the request that asks this question of one account.

        Args:
            origin: Scheme and host, such as ``"https://va.data.example.net"``, no trailing slash.
            account_id: The account, already known to be safe in a path.

        Returns:
            A GET with the page's parameters; where its URL would reach 2,000 characters, a POST
            with the page's JSON body, whose values are strings.
        """
        path = f"{origin}/operations/api/account/{account_id}/msgconversation"
        url = f"{path}?{_query_string(self)}"
        if len(url) < GET_URL_LIMIT:
            return HttpRequest("GET", url)
        return HttpRequest("POST", path, msgspec.json.encode(self.parameters()))


@functools.lru_cache(maxsize=64)  # many accounts are asked the same
def _query_string(query: ConversationQuery) -> str:
    return "&".join(f"{name}={value}" for name, value in query.parameters().items())


def _interval(value: object, timeframe: int) -> int:
    interval = _whole("interval", value)
    if interval < MIN_INTERVAL or interval % MIN_INTERVAL:
        raise InvalidQuery(
            "interval",
            interval,
            f"it must be a multiple of {MIN_INTERVAL} minutes, the size of the service's buckets",
        )
    if interval > timeframe or timeframe % interval:
        raise InvalidQuery(
            "interval", interval, f"it must divide the timeframe of {timeframe} minutes"
        )
    return interval


def _whole(parameter: str, value: object) -> int:
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            return operator.index(value)  # type: ignore[arg-type]
    raise InvalidQuery(parameter, value, "it must be a whole number, given as an int")


def _ids(parameter: str, value: Any) -> Literal["all"] | tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) and value == "all":
        return "all"
    if isinstance(value, (str, bytes, bytearray, memoryview)) or not isinstance(value, Iterable):
        value = (value,)
    unique = tuple(dict.fromkeys(_id(parameter, given) for given in value))
    if not unique:
        raise InvalidQuery(
            parameter, (), 'at least one id is needed; leave it out for none, or say "all"'
        )
    return unique


def _id(parameter: str, value: Any) -> int:
    number = None
    if isinstance(value, str):
        number = int(value) if _ID.fullmatch(value) else None
    elif not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number is None or not -(2**63) <= number < 2**63:
        raise InvalidQuery(
            parameter,
            value,
            'an id must be a 64-bit integer; give several as a list, and all as the word "all"',
        )
    return number
