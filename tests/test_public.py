"""What the package shows of itself."""

import functools
import importlib.resources
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import typing

import pytest

import msgconv_async
from msgconv_async import errors

PUBLIC = {
    "Account",
    "AgentBreakdown",
    "ApiError",
    "ApiKey",
    "BadRequest",
    "BearerToken",
    "Checkpoint",
    "CheckpointStore",
    "ClientCredentials",
    "ClosedBucket",
    "ConfigurationError",
    "ConnectionFailed",
    "ConversationMetrics",
    "ConversationQuery",
    "ConversationReport",
    "ConversationSession",
    "DeadlineExceeded",
    "Failure",
    "Following",
    "Gap",
    "Interval",
    "InvalidQuery",
    "Move",
    "MsgConvError",
    "Outcome",
    "Pacer",
    "PacerStats",
    "RateLimited",
    "RetryPolicy",
    "ServerError",
    "SessionUnusable",
    "SkillBreakdown",
    "Unauthorized",
    "UnexpectedResponse",
    "UserLogin",
    "decode_report",
    "read_accounts",
}


def test_the_public_names_are_these() -> None:
    """A name is added, renamed or taken away on purpose, and in one more place than the code."""
    assert sorted(PUBLIC) == msgconv_async.__all__


def test_nothing_else_is_shown() -> None:
    """What is not in __all__ is a module or private."""
    others = {
        name
        for name, value in vars(msgconv_async).items()
        if not name.startswith("_") and name not in PUBLIC and not inspect.ismodule(value)
    }

    assert set() == others


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_says_where_it_is_imported_from(name: str) -> None:
    """Its module is the package, so that documentation and tracebacks name what users import."""
    assert "msgconv_async" == getattr(msgconv_async, name).__module__


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_found_again_where_it_says(name: str) -> None:
    """A class pickles by its module and its name."""
    named = getattr(msgconv_async, name)

    assert named is pickle.loads(pickle.dumps(named))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_documented(name: str) -> None:
    """It opens with a sentence."""
    opening = (inspect.getdoc(getattr(msgconv_async, name)) or "").partition("\n\n")[0]

    assert opening.endswith((".", ":"))


def test_every_error_is_public() -> None:
    """What may be raised may be caught by its name."""
    raised = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.MsgConvError)
    }

    assert raised <= PUBLIC


def test_the_package_is_typed() -> None:
    """Type checkers look at a package's annotations only where this file is."""
    assert (importlib.resources.files(msgconv_async) / "py.typed").is_file()


def test_the_version_is_one() -> None:
    """Three numbers, as the distribution's metadata will have them."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", msgconv_async.__version__)


@pytest.mark.parametrize(
    "unwanted", ["cyclopts", "rich", "oauthlib", "plotext", "pyarrow", "dlt", "opentelemetry"]
)
def test_importing_does_not_pull_in(unwanted: str) -> None:
    """What an extra brings is imported where it is used."""
    assert unwanted not in {name.partition(".")[0] for name in _imported()}


@pytest.mark.parametrize("floor", ["sandbox", "cli", "export"])
def test_importing_does_not_pull_in_the_floor(floor: str) -> None:
    """A client in production carries no server and no commands."""
    assert f"msgconv_async.{floor}" not in _imported()


@functools.cache
def _imported() -> set[str]:
    program = "import sys, msgconv_async; print(*sys.modules)"
    return set(_python(program).split())


def test_importing_says_nothing_and_starts_nothing() -> None:
    """No output, no warning, no thread, no event loop."""
    program = """
import asyncio, threading, msgconv_async
assert threading.active_count() == 1
try:
    asyncio.get_running_loop()
except RuntimeError:
    pass
"""

    assert "" == _python(program)


def _python(program: str) -> str:
    done = subprocess.run(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert "" == done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_annotations_of_public_names_resolve(name: str) -> None:
    """Whoever reads them at run time can: help(), web frameworks, schema generators."""
    value = getattr(msgconv_async, name)
    typing.get_type_hints(value)
    assert pydoc.render_doc(value)
