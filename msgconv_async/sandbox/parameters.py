"""A request's parameters, read by the server's own rules (API page, URL parameters).

They are laxer than the client's: an interval need not be a multiple of five minutes. What the page
leaves open: an interval is at least five minutes, the size of a bucket; the only version is 1.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import msgspec

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_ID = re.compile(r"-?[0-9]{1,19}", re.ASCII)
MAX_TIMEFRAME = 1440
MIN_INTERVAL = 5


class _All(Container[int | None]):
    def __contains__(self, _: object) -> bool:
        return True


ALL = _All()
"""The word "all": every id is in it."""

IdSet = Container[int | None]
"""The ids that were asked for."""


class MalformedRequest(Exception):
    """A request that is answered 400; the text says why."""


class Parameters(msgspec.Struct, frozen=True):
    """The question of a request about one account.

    Attributes:
        timeframe: Minutes.
        interval: Minutes, or None for the whole time frame only.
        skills: The skills to group by, or None if not by skill.
        agents: The agents to group by, or None if not by agent.
        groups: The agent groups that count.
    """

    timeframe: int
    interval: int | None
    skills: IdSet | None
    agents: IdSet | None
    groups: IdSet

    @classmethod
    def parse(cls, parameters: Mapping[str, Any]) -> Parameters:
        """Read the parameters of a query string or of a JSON object; unknown ones are ignored.

        Raises:
            MalformedRequest: A parameter is missing or wrong. The error names it and a right value.
        """
        if _number(parameters, "v") != 1:
            raise MalformedRequest("v must be 1: it is required, and there is no other version")
        timeframe = _number(parameters, "timeframe")
        if timeframe is None or not 1 <= timeframe <= MAX_TIMEFRAME:
            raise MalformedRequest(f"timeframe is required: 1 to {MAX_TIMEFRAME} minutes")
        interval = _number(parameters, "interval")
        if interval is not None:
            if interval < MIN_INTERVAL:
                raise MalformedRequest(f"interval must be at least {MIN_INTERVAL} minutes")
            if timeframe % interval:
                raise MalformedRequest(f"interval must divide the timeframe of {timeframe} minutes")
        skills, agents, groups = (
            _ids(parameters, name) for name in ("skillIds", "agentIds", "groupIds")
        )
        return cls(timeframe, interval, skills, agents, ALL if groups is None else groups)


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    """The known parameters; any number of others is skipped."""

    v: msgspec.Raw = msgspec.Raw()
    timeframe: msgspec.Raw = msgspec.Raw()
    interval: msgspec.Raw = msgspec.Raw()
    skill_ids: msgspec.Raw = msgspec.Raw()
    agent_ids: msgspec.Raw = msgspec.Raw()
    group_ids: msgspec.Raw = msgspec.Raw()


_BODY = msgspec.json.Decoder(_Body)
_VALUE = msgspec.json.Decoder(str | int | None)


def parameters(body: bytes) -> dict[str, str | int | None]:
    """Read the parameters of a question that comes as a JSON object.

    Raises:
        MalformedRequest: It is no JSON object, or a value is neither a string nor a whole number.
    """
    try:
        given = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body must be a JSON object: {error}") from None
    found: dict[str, str | int | None] = {}
    for field in msgspec.structs.fields(_Body):
        if raw := bytes(getattr(given, field.name)):
            try:
                found[field.encode_name] = _VALUE.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise MalformedRequest(f"{field.encode_name} must be a string") from None
    return found


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    """Return a value as the string that the page sends; JSON numbers are tolerated."""
    value = parameters.get(name)
    if type(value) is int and abs(value) < 2**64:
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise MalformedRequest(f"{name} must be a string")


def _number(parameters: Mapping[str, Any], name: str) -> int | None:
    text = _text(parameters, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise MalformedRequest(f"{name} must be a whole number")
    return int(text)


def _ids(parameters: Mapping[str, Any], name: str) -> IdSet | None:
    text = _text(parameters, name)
    if text is None:
        return None
    if text == "all":
        return ALL
    ids = text.split(",")
    if not all(_ID.fullmatch(digits) and -(2**63) <= int(digits) < 2**63 for digits in ids):
        raise MalformedRequest(f'{name} must be numbers separated by commas, or "all"')
    return frozenset(map(int, ids))
