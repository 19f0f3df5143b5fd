"""What every command says on stderr, and the codes with which it exits."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from msgconv_async.cli.streams import visible

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


def complain(message: str) -> None:
    """Write a line on stderr. The command does not fail if that cannot be written."""
    try:
        print(f"msgconv: {visible(message)}", file=sys.stderr)  # noqa: T201 - a command does
    except BlockingIOError:  # no program reads it for now
        pass
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Send a stream to nowhere, so that flushing it once more at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
