"""A question as it stands on the wire, read by the rules of `ConversationQuery`.

The API page names the parameters; a GET carries them in its query string, a POST as a JSON object
whose values are strings (numbers are taken as well). An unknown parameter is refused: it would be
lost on the way to the service, and the answer would be to another question.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from msgconv_async.errors import InvalidQuery
from msgconv_async.protocol.query import ConversationQuery

_PARAMETERS = {
    "timeframe": "timeframe",
    "interval": "interval",
    "skillIds": "skill_ids",
    "agentIds": "agent_ids",
    "groupIds": "group_ids",
    "v": "version",
}
_ON_THE_WIRE = {ours: theirs for theirs, ours in _PARAMETERS.items()}
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_FIELDS = 100


class WrongParameters(Exception):
    """A question that the service would refuse; the text says why."""


@functools.lru_cache(maxsize=1024)  # many clients ask the same again and again
def from_query_string(text: str) -> ConversationQuery:
    """Read the parameters of a GET.

    Raises:
        WrongParameters: A parameter is missing, wrong, unknown, or given twice.
    """
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise WrongParameters("the query string cannot be read") from None
    return _query(pairs)


def from_json(body: bytes) -> ConversationQuery:
    """Read the parameters of a POST.

    Raises:
        WrongParameters: A parameter is missing, wrong or unknown, or the body is no JSON object.
    """
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongParameters(f"the body must be a JSON object: {error}") from None
    return _query(given.items())


def _query(pairs: Iterable[tuple[str, Any]]) -> ConversationQuery:
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise WrongParameters(f"{name[:60]!r} is not a parameter: known are {known}")
        if name in given:
            raise WrongParameters(f"{name} is given twice")
        given[name] = _read(name, value)
    for name in ("timeframe", "v"):
        if name not in given:
            raise WrongParameters(f"{name} is required")
    try:
        return ConversationQuery(**{_PARAMETERS[name]: value for name, value in given.items()})
    except InvalidQuery as error:
        name = _ON_THE_WIRE[error.parameter]
        raise WrongParameters(str(error).replace(error.parameter, name, 1)) from None


def _read(name: str, value: Any) -> Any:
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise WrongParameters(f"{name} must be a string")
    if name.endswith("Ids"):
        return value if value == "all" else value.split(",")
    if not _NUMBER.fullmatch(value):
        raise WrongParameters(f"{name} must be a whole number")
    return int(value)
