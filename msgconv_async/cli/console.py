"""What every command says on stderr, and the codes with which it exits."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, TypeAlias

import msgspec

from msgconv_async.cli.streams import visible, visible_json

OK, FAILED, USAGE, SOME_FAILED, IN_USE = range(5)
INTERRUPTED, BROKEN_PIPE, TERMINATED = (128 + number for number in (2, 13, 15))
EXIT_CODES = {
    OK: "all well",
    FAILED: "nothing came of it",
    USAGE: "the command line or a setting is wrong",
    SOME_FAILED: "some accounts failed and others did not",
    IN_USE: "another collector is at work on the data",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "the reader of the output went away",
    TERMINATED: "terminated by SIGTERM",
}
"""The codes with which commands exit, and what they mean."""

LogFormat: TypeAlias = Literal["text", "json"]


class _Style(msgspec.Struct):
    """How lines on stderr are written."""

    format: LogFormat = "text"
    dated: bool = False


_style = _Style()


def write_lines(format: LogFormat = "text", *, dated: bool = False) -> None:  # noqa: A002
    """Say how lines on stderr are written from now on.

    Args:
        format: As text, or each as a JSON object with ``time``, ``level`` and ``message``.
        dated: Begin each line of text with the time: for commands that go on.
    """
    _style.format, _style.dated = format, dated


def complain(message: str, level: str = "info", **members: Any) -> None:
    """Write a line on stderr. The command does not fail if that cannot be written.

    Args:
        message: What to say.
        level: How grave it is, in JSON: ``info``, ``warning`` or ``error``.
        members: What else the line holds, in JSON.
    """
    now = datetime.now(UTC)
    if _style.format == "json":
        time = f"{now:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        said = {"time": time, "level": level, "message": message, **members}
        line = visible_json(msgspec.json.encode(said)).decode()
    else:
        line = f"{f'{now:%Y-%m-%d %H:%M:%S} UTC: ' if _style.dated else ''}{visible(message)}"
        line = f"msgconv: {line}"
    try:
        print(line, file=sys.stderr)  # noqa: T201 - a command does
    except BlockingIOError:  # no program reads it for now
        pass
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Send a stream to nowhere, so that flushing it once more at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
