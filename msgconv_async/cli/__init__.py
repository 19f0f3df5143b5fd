"""The command ``msgconv``: results on stdout, everything else on stderr.

The exit codes stand in `console`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from msgconv_async.cli.console import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    USAGE,
    complain,
    give_up,
)
from msgconv_async.cli.streams import unbroken_stdout

_EXTRAS = {
    **dict.fromkeys(("cyclopts", "plotext", "rich"), ("the command line", "cli")),
    **dict.fromkeys(("dlt", "filelock", "sqlglot"), ("this command", "cli,etl")),
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
        give_up(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:  # such as a disk that is full
        give_up(sys.stdout)
        complain(f"cannot write: {error.strerror or 'stdout is closed'}", "error")
        return FAILED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        what, extra = _EXTRAS[missing]
        complain(f"{what} needs an extra: pip install '.[{extra}]' in a clone ({error})", "error")
        return USAGE
    return code


def _open_what_is_closed() -> None:
    """Replace streams that were closed, as by ``>&-``: stderr is lost, writing to stdout fails."""
    for name, mode in (("stdout", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end


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
