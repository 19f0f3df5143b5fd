"""What an argument must be, and the one sentence that says so where it is not."""

from __future__ import annotations

import math
import sys
from datetime import datetime
from typing import Any

from msgconv_async.errors import ConfigurationError, short

LARGE = sys.float_info.max


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is not a whole number in a range; True and False are none.

    Args:
        name: The argument's name.
        value: What was given.
        least: The smallest that will do.
        most: The largest that will do; None for no bound.

    Raises:
        ConfigurationError: It is something else.
    """
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or not least <= value <= (math.inf if most is None else most):  # type: ignore[operator]
        span = f"{least} or more" if most is None else f"{least} to {most}"
        raise refused(name, value, f"{span}, as a whole number")


def number(
    name: str, value: object, what: str, *, above: bool = False, most: float = LARGE
) -> None:
    """Refuse what is not a number of 0 or more; True, False and what is no number are none.

    Args:
        name: The argument's name.
        value: What was given.
        what: What it must be, such as ``"0 seconds or more, and finite"``.
        above: Whether 0 is refused as well.
        most: The largest that will do; by default any that is finite.

    Raises:
        ConfigurationError: It is something else.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 <= value <= most or (above and value == 0):  # type: ignore[operator]
        raise refused(name, value, what)


def instance(name: str, value: object, kind: Any, what: str) -> None:
    """Refuse what is not of a type.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, kind):
        raise refused(name, value, what)


def function(name: str, value: object, what: str) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: It is something else.
    """
    if not callable(value):
        raise refused(name, value, what)


def aware(name: str, value: object) -> None:
    """Refuse what is not a datetime that knows its offset from UTC.

    Raises:
        ConfigurationError: It is something else.
    """
    instance(name, value, datetime, "a datetime")
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise ConfigurationError(
            f"{name}={value.isoformat()} is naive: give an aware datetime, such as UTC"
        )


def refused(name: str, value: object, what: str) -> ConfigurationError:
    """Return the error that says what an argument must be."""
    return ConfigurationError(f"{name}={short(value)}: it must be {what}")
