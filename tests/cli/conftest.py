from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

from msgconv_async.cli import main
from msgconv_async.cli.console import write_lines
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else commands inherit it

ROOT = Path(__file__).parent.parent.parent

# The sandbox's clock starts as soon as the last of these is in a closed bucket, at 8:10.
CONVERSATIONS = [
    {"account": account, "resolved_at": f"2026-03-04T08:0{minute}:00Z", "skill": skill}
    | {"agent": agent, "resolved_by": by, "handling_time_ms": time}
    for account, minute, skill, agent, by, time in [
        ("71", 1, 3, 7, "CCP", 60_000),
        ("71", 6, 3, 8, "consumer", 30_500),
        ("71", 6, -1, 7, "system", 3_720_000),
        ("72", 2, 3, 9, "CCP", 1_000),
    ]
]


PATIENCE = 30.0
"""Seconds for which a test waits for what a command shows."""

FRESH = 200.0
"""Seconds for which a sandbox is used: it begins with a bucket, and goes as fast as the wall."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what changes what commands do or show."""
    noise = {
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "PYTHONIOENCODING",
        "PYTHONUNBUFFERED",
        "TTY_COMPATIBLE",
        "TTY_INTERACTIVE",
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MSGCONV_") and name not in noise
    }
    return kept | {"PYTHONPATH": str(ROOT)} | more


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of the developer's reach a command, nor what an earlier one set."""
    write_lines()  # else lines stay dated after a command that goes on
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command line in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code = main([str(each) for each in arguments])
        return Done(code, *capfd.readouterr())

    return run


def start(
    *arguments: object, stdout: Any = subprocess.PIPE, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a command line as a process of its own."""
    # dlt uses what is deprecated, and -W knows no packages.
    strict = () if arguments[0] in {"collect", "report"} else ("-W", "error")
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, *strict, "-m", "msgconv_async", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=clean_environment(**environment),
    )


def run_process(
    *arguments: object, stdout: Any = subprocess.PIPE, encoding: str = "utf-8", **environment: str
) -> Done:
    """Run a command line as a process of its own, to its end."""
    with start(*arguments, stdout=stdout, **environment) as process:
        out, err = process.communicate(timeout=30)
    return Done(process.returncode, (out or b"").decode(encoding), err.decode(encoding))


def run_without(module: str, *arguments: object) -> Done:
    """Run a command line as a process of its own, in which a module is not installed."""
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from msgconv_async.cli import main; sys.exit(main({[str(each) for each in arguments]!r}))"
    )
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Terminal(NamedTuple):
    """A command at work in a terminal, and what reads from that."""

    process: subprocess.Popen[bytes]
    leader: int

    def read(self) -> bytes:
        """Wait for something to be shown; nothing more is shown once there is none."""
        if not select.select([self.leader], [], [], PATIENCE)[0]:
            raise TimeoutError("the command shows nothing")
        with suppress(OSError):  # how Linux says that the other side has closed
            return os.read(self.leader, 65536)
        return b""

    def read_until(self, enough: Callable[[bytes], bool]) -> bytes:
        """Return what is shown until that is enough; fail if it never is."""
        shown, ends = b"", time.monotonic() + PATIENCE
        while not enough(shown):
            more = self.read()
            assert more, shown  # it has ended
            shown += more
            assert time.monotonic() < ends, shown
        return shown

    def read_all(self) -> bytes:
        """Return all that is shown until the command ends."""
        return b"".join(iter(self.read, b""))


@contextmanager
def in_terminal(*arguments: object, columns: int = 80) -> Iterator[Terminal]:
    """Start a command line in a terminal of 24 lines."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "msgconv_async", *map(str, arguments)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=clean_environment(TERM="xterm-256color"),
    ) as process:
        os.close(follower)
        yield Terminal(process, leader)
        os.close(leader)


def ask(
    url: str, *, form: dict[str, str] | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    """Make an HTTP request without this library: GET, or POST of a form."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc)) as connection:
        target = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
        if form is None:
            connection.request("GET", target, headers=headers)
        else:
            headers |= {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", target, urlencode(form), headers)
        response = connection.getresponse()
        return response, response.read()


def token(url: str, account_id: str) -> str:
    """Return a bearer token of a sandbox."""
    form = {"grant_type": "client_credentials"}
    form |= {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    _, body = ask(f"{url}/sentinel/api/v2/account/{account_id}/app/token", form=form)
    return str(json.loads(body)["access_token"])


@contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """Run a sandbox in a process of its own while inside, and yield its URL."""
    with start("sandbox", "--port", 0, *arguments) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().removeprefix("listening on ").strip()
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Return what gives the URL of a sandbox in which the next bucket is not about to close."""
    events = tmp_path_factory.mktemp("sandbox") / "events.jsonl"
    events.write_text("\n".join(map(json.dumps, CONVERSATIONS)))
    url, until = "", -math.inf
    with ExitStack() as running:

        def give() -> str:
            nonlocal url, until
            if time.monotonic() > until:
                running.close()
                url = running.enter_context(serving("--events", events))
                until = time.monotonic() + FRESH
            return url

        yield give


@pytest.fixture
def sandbox(fresh: Callable[[], str]) -> str:
    """Run a sandbox of the conversations above, and return its URL."""
    return fresh()
