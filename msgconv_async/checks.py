"""Checks of arguments, and the one sentence that an error says about a wrong argument."""

from __future__ import annotations

import math
import sys
from datetime import datetime
from typing import Any

from msgconv_async.errors import ConfigurationError, short

LARGE = sys.float_info.max


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


def refused(name: str, value: object, what: str) -> ConfigurationError:
    """Return the error that says what an argument must be."""
    return ConfigurationError(f"{name}={short(value)}: it must be {what}")
