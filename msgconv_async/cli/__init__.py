"""The command ``msgconv``: results on stdout, everything else on stderr.

Exit codes: 0 all well, 1 something failed, 2 the command line was wrong, 130 interrupted (Ctrl-C),
141 the reader of the output went away (as ``yes | head -1`` exits), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from msgconv_async.cli.streams import unbroken_stdout, visible

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED, BROKEN_PIPE, TERMINATED = (128 + number for number in (2, 13, 15))

_EXTRAS = {
    **dict.fromkeys(("cyclopts", "plotext", "rich"), ("the command line", "cli")),
    **dict.fromkeys(("dlt", "filelock", "plotly", "sqlglot"), ("this command", "cli,etl")),
    "prometheus_client": ("this command", "cli,gateway"),
    "pyarrow": ("Parquet", "arrow"),
}
"""For each module that may be missing: what needs it, and the extra that brings it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    _open_what_is_closed()
    with unbroken_stdout():
        return _exit_code(sys.argv[1:] if arguments is None else arguments)


def complain(message: str) -> None:
    """Write a line on stderr. The command does not fail if that cannot be written."""
    try:
        print(f"msgconv: {visible(message)}", file=sys.stderr)  # noqa: T201 - a command does
    except BlockingIOError:  # no program reads it for now
        pass
    except OSError:
        _give_up(sys.stderr)


def _exit_code(arguments: Sequence[str]) -> int:
    """Run a command, and return the exit code for its result."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except BrokenPipeError:
        _give_up(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:  # such as a disk that is full
        _give_up(sys.stdout)
        complain(f"cannot write: {error.strerror or 'stdout is closed'}")
        return FAILED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        what, extra = _EXTRAS[missing]
        complain(f"{what} needs an extra: pip install 'msgconv-async[{extra}]' ({error})")
        return USAGE
    return code


def _open_what_is_closed() -> None:
    """Replace streams that were closed, as by ``>&-``: stderr is lost, writing to stdout fails."""
    for name, mode in (("stdout", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end


def _give_up(stream: TextIO) -> None:
    """Send a stream to nowhere, so that flushing it once more at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str]) -> int:
    from msgconv_async.cli import app  # noqa: PLC0415 - so that a missing extra can be named

    with asyncio.Runner(loop_factory=_fast_loop() if _serves(arguments) else None) as runner:
        return runner.run(app.run(arguments))


def _serves(arguments: Sequence[str]) -> bool:
    return list(arguments[:1]) == ["gateway"]


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the maker of uvloop's event loop, if it is installed: it serves twice as much."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
