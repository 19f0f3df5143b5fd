"""Checks of arguments, and the one sentence that an error says about a wrong argument."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from msgconv_async.errors import ConfigurationError, short

T = TypeVar("T")

LARGE = sys.float_info.max

_ZERO = timedelta()


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse a value that is not a whole number in a range. True and False are not numbers here.

    Args:
        name: The argument's name.
        value: The value that was given.
        least: The smallest allowed value.
        most: The largest allowed value; None for no bound.

    Raises:
        ConfigurationError: The value is something else.
    """
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or not least <= value <= (math.inf if most is None else most):  # type: ignore[operator]
        span = f"{least} or more" if most is None else f"{least} to {most}"
        raise refused(name, value, f"{span}, as a whole number")


def number(
    name: str, value: object, what: str, *, above: bool = False, most: float = LARGE
) -> None:
    """Refuse a value that is not a number of 0 or more. True, False and NaN are not numbers here.

    Args:
        name: The argument's name.
        value: The value that was given.
        what: What it must be, such as ``"0 seconds or more, and finite"``.
        above: Whether 0 is refused as well.
        most: The largest allowed value; by default any finite number.

    Raises:
        ConfigurationError: The value is something else.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 <= value <= most or (above and value == 0):  # type: ignore[operator]
        raise refused(name, value, what)


def instance(name: str, value: object, kind: Any, what: str) -> None:
    """Refuse a value that is not of a type.

    Raises:
        ConfigurationError: The value is something else.
    """
    if not isinstance(value, kind):
        raise refused(name, value, what)


def switch(name: str, value: object) -> None:
    """Refuse a value that is neither True nor False.

    Raises:
        ConfigurationError: The value is something else.
    """
    instance(name, value, bool, "True or False")


def one_of(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is not one of some words.

    Raises:
        ConfigurationError: The value is something else.
    """
    if not isinstance(value, str) or value not in choices:
        raise refused(name, value, f"one of {', '.join(map(repr, choices))}")


def text(name: str, value: object, what: str) -> None:
    """Refuse a value that is not a string, or holds nothing but white space.

    Raises:
        ConfigurationError: The value is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise refused(name, value, what)


def path(name: str, value: object, what: str = "the path of a file") -> None:
    """Refuse a value that is not a path, as a string or a `pathlib.Path`.

    Raises:
        ConfigurationError: The value is something else.
    """
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(given, str) or not given or "\0" in given:
        raise refused(name, value, what)


def members(name: str, value: object, kind: type[T], what: str, such_as: str) -> tuple[T, ...]:
    """Return the members of an iterable, all of them of a type.

    Args:
        name: The argument's name.
        value: The value that was given.
        kind: The type of the members.
        what: What a member must be, such as ``"an Account"``.
        such_as: What the whole must be, such as ``"an iterable of accounts, such as a list"``.

    Raises:
        ConfigurationError: The value, or a member of it, is something else.
    """
    if not isinstance(value, Iterable):
        raise refused(name, value, such_as)
    found = tuple(value)
    for place, member in enumerate(found):
        if not isinstance(member, kind):
            raise refused(f"{name}[{place}]", member, what)
    return found


def function(name: str, value: object, what: str) -> None:
    """Refuse a value that cannot be called.

    Raises:
        ConfigurationError: The value is something else.
    """
    if not callable(value):
        raise refused(name, value, what)


def aware(name: str, value: object) -> None:
    """Refuse a value that is not a datetime with an offset from UTC.

    Raises:
        ConfigurationError: The value is something else.
    """
    instance(name, value, datetime, "a datetime")
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise ConfigurationError(
            f"{name}={value.isoformat()} is naive: give an aware datetime, such as UTC"
        )


def duration(
    name: str, value: object, what: str, *, above: bool = False, most: timedelta = timedelta.max
) -> None:
    """Refuse a value that is not a timedelta of 0 or more.

    Args:
        name: The argument's name.
        value: The value that was given.
        what: What it must be, such as ``"a timedelta of 0 or more"``.
        above: Whether 0 is refused as well.
        most: The largest allowed value; by default any.

    Raises:
        ConfigurationError: The value is something else.
    """
    instance(name, value, timedelta, what)
    if isinstance(value, timedelta) and (not _ZERO <= value <= most or (above and value == _ZERO)):
        shown = value if value >= _ZERO else f"-{-value}"
        raise ConfigurationError(f"{name}={shown}: it must be {what}")


def refused(name: str, value: object, what: str) -> ConfigurationError:
    """Return the error that says what an argument must be."""
    return ConfigurationError(f"{name}={short(value)}: it must be {what}")
