from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from msgconv_async import __version__
from msgconv_async.cli import main
from msgconv_async.cli.app import app
from msgconv_async.cli.console import EXIT_CODES
from tests.cli.conftest import Run, clean_environment, in_terminal

LOCAL = ("--base-url", "http://127.0.0.1:9")
FETCH = ("fetch", "1", "--timeframe", "60")

WRONG = {
    "an unknown command": (("nope",), 'Unknown command "nope"'),
    "an unknown option": ((*FETCH, "--bogus"), "Unknown option: --bogus"),
    "no account": (
        ("fetch", "--timeframe", "60"),
        "name accounts, or a file of them with --accounts",
    ),
    "no time frame": (("fetch", "1"), "--timeframe is missing (see"),
    "a time frame without its value": (("fetch", "1", "--timeframe"), "--timeframe has no value"),
    "no number": (("fetch", "1", "--timeframe", "x"), "--timeframe: 'x' is not a whole number"),
    "half a minute": ((*FETCH[:3], "7.5"), "--timeframe: '7.5' is not a whole number"),
    "a time frame of nothing": (("fetch", "1", "--timeframe", "0"), "--timeframe=0: it must be 1"),
    "an interval that does not divide": ((*FETCH, "--interval", "25"), "--interval=25: "),
    "an id that is none": ((*FETCH, "--skills", "4,x"), "--skills='x': an id must be"),
    "a secret": (
        (*FETCH, "--client-secret", "hush"),
        "can read it: set MSGCONV_CLIENT_SECRET in the environment",
    ),
    "a token": ((*FETCH, "--token=hush"), "set MSGCONV_TOKEN in the environment"),
    "a password": (("watch", "1", "--password", "hush"), "set MSGCONV_PASSWORD in the environment"),
    "a secret's file": (
        (*FETCH, "--client-secret-file", "x"),
        "--client-secret-file: there is no such option: set MSGCONV_CLIENT_SECRET_FILE in the env",
    ),
    "a token's file": (("watch", "1", "--token-file=x"), "set MSGCONV_TOKEN_FILE in the env"),
    "a password's file": ((*FETCH, "--password-file", "x"), "set MSGCONV_PASSWORD_FILE in the"),
    "help with nothing": (("help", "nope"), "there is no command 'nope': msgconv help names them"),
    "an empty id": ((*FETCH, "--agents", "4,,3"), "--agents='': an id must be"),
    "an empty list": ((*FETCH, "--groups="), "--groups='': an id must be"),
    "a format that is none": ((*FETCH, "--format", "xml"), 'Invalid value "xml" for --format'),
    "no time": ((*FETCH, *LOCAL, "--timeout", "0"), "--timeout=0: it must be above 0 seconds"),
    "no number of seconds": ((*FETCH, *LOCAL, "--timeout", "nan"), "--timeout=nan: "),
    "an account that is none": (
        ("fetch", "1/2", *FETCH[2:], *LOCAL),
        "account id '1/2' is not one",
    ),
    "a base URL with a path": ((*FETCH, "--base-url", "https://a.example/b"), "is not an origin"),
    "a base URL that is none": (("watch", "1", "--base-url", "http://["), "no credentials: set"),
    "plain http": ((*FETCH, "--base-url", "http://a.example"), "over plain http"),
    "no credentials": (FETCH, "no credentials: set MSGCONV_CLIENT_ID and MSGCONV_CLIENT_SECRET"),
    "a demo of something": (("demo", "x"), "Unused Tokens"),
    "a port that is none": (("sandbox", "--port", "99999"), "port=99999: it must be 0 to 65535"),
    "time that runs backwards": (("sandbox", "--latency", "-1"), "latency=-1.0: it must be 0 or"),
    "no such events": (("sandbox", "--events", "/nope"), "/nope cannot be read"),
    "accounts of a file": (("sandbox", "--events", "/nope", "--accounts", "2"), "brings its own"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_is_one_line_on_stderr(
    run: Run, arguments: tuple[str, ...], said: str
) -> None:
    """It says what is wrong, and where that may help which help to read; the exit code is 2."""
    done = run(*arguments)
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith("msgconv: ")
    assert said in line
    assert "hush" not in line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"TOKEN": "a", "CLIENT_ID": "b"}, "more than one way to log in is given: client cred"),
        ({"TOKEN": "a", "PASSWORD": "b"}, "more than one way to log in is given: a token and a u"),
        ({"CLIENT_ID": "b"}, "MSGCONV_CLIENT_SECRET is missing: it takes both halves"),
        ({"CLIENT_SECRET": "b"}, "MSGCONV_CLIENT_ID or --client-id is missing"),
        ({"USERNAME": "b"}, "MSGCONV_PASSWORD is missing"),
        ({"PASSWORD": "b"}, "MSGCONV_USERNAME or --username is missing"),
        ({"TOKEN": "a b"}, "MSGCONV_TOKEN: BearerToken: the token is empty or holds a space"),
        ({"TOKEN": "a\n"}, "the environment variable MSGCONV_TOKEN ends in a line end"),
        ({"USERNAME": "b", "PASSWORD": "a\r\n"}, "variable MSGCONV_PASSWORD ends in a line end"),
        (
            {"CLIENT_ID": "b", "CLIENT_SECRET_FILE": "/nope"},
            "msgconv: MSGCONV_CLIENT_SECRET_FILE: the secret file /nope cannot be read: No such",
        ),
        ({"TOKEN_FILE": "/nope"}, "msgconv: MSGCONV_TOKEN_FILE: the secret file /nope cannot be"),
        ({"USERNAME": "b", "PASSWORD_FILE": "/nope"}, "msgconv: MSGCONV_PASSWORD_FILE: the secret"),
        (
            {"CLIENT_ID": "b", "CLIENT_SECRET_FILE": "run/it"},
            "msgconv: MSGCONV_CLIENT_SECRET_FILE must be the path of a file, from the root on or $",
        ),
        ({"CLIENT_ID": "b", "CLIENT_SECRET": "a\n"}, "MSGCONV_CLIENT_SECRET ends in a line end"),
    ],
)
def test_credentials_that_are_not_clear_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    """None of several wins, and half of a pair is not taken for none."""
    for name, value in given.items():
        monkeypatch.setenv(f"MSGCONV_{name}", value)
    done = run(*FETCH, *LOCAL)
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert said in line


def test_help_and_version_are_results(run: Run) -> None:
    """They go to stdout and are no failure; no secret is among the options."""
    assert (0, f"{__version__}\n", "") == run("--version") == run("-V")
    assert (0, "") == run()[::2]
    assert run("fetch", "--help") == run("help", "fetch")
    assert run("--help") == run("help")
    done = run("fetch", "--help")
    assert (0, "") == done[::2]
    assert "MSGCONV_CLIENT_SECRET" in done.out
    assert not any(f"--{name}" in done.out for name in ("client-secret", "token", "password"))
    assert "\x1b" not in done.out


def test_every_command_has_two_examples_that_can_be_typed(run: Run) -> None:
    """In its help; the help of all names the exit codes."""
    for command in app.resolved_commands():
        if command.startswith("-"):
            continue
        _, _, examples = run("help", command).out.partition("Examples:")
        lines = [line.strip() for line in examples.splitlines() if line.strip()]
        assert [f"msgconv {command}"] * 2 == [" ".join(line.split()[:2]) for line in lines]
        for line in lines:
            app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)
    together = " ".join(run("help").out.split())
    assert all(f"{code} {meaning}" in together for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_taught_commands_and_options(run: Run, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "completion"
    assert 0 == run("--install-completion", "--shell", shell, "-o", script).code
    text = script.read_text()
    assert all(word in text for word in ("collect", "complete-only", "parquet"))


@pytest.mark.parametrize("columns", ["0", "1", "2", "3", "19", "999999999", "9" * 5000, "\u00b2"])
def test_help_ends_whatever_the_width(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """It is drawn in no less than twenty columns, and no more than a thousand."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, columns)
    for command in ((), ("fetch",), ("collect",)):
        done = run(*command, "--help")
        assert (0, "") == (done.code, done.err)
        assert len(done.out) < 50_000
    assert max(map(len, done.out.splitlines())) <= 1000


def test_help_ends_in_a_terminal_of_one_column() -> None:
    """Such as a pane that was drawn shut."""
    with in_terminal("watch", "--help", columns=1) as terminal:
        shown = terminal.read_all()
    assert (0, True) == (terminal.process.returncode, b"Usage" in shown)


def process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )


@pytest.mark.parametrize("name", ["cyclopts", "rich", "plotext"])
def test_without_the_extra_one_line_says_which(name: str) -> None:
    """It is the command line that is wrong, not the installation that is broken."""
    done = process(
        f"import sys; sys.modules[{name!r}] = None\n"
        "from msgconv_async.cli import main; sys.exit(main(['demo']))"
    )
    assert (2, "") == (done.returncode, done.stdout)
    [line] = done.stderr.splitlines()
    assert "pip install '.[cli]' in a clone" in line


def test_the_library_loads_nothing_of_the_command_line() -> None:
    """Nor the sandbox, nor what signs OAuth 1.0; nor does the name of the command itself."""
    apart = {"cyclopts", "rich", "plotext", "oauthlib", "pyarrow", "msgconv_async.sandbox"}
    for loaded in ("msgconv_async", "msgconv_async.cli", "msgconv_async.export"):
        done = process(f"import sys, {loaded}; print(*({apart!r} & sys.modules.keys()))")
        assert ("\n", "") == (done.stdout, done.stderr)


def test_a_library_that_is_broken_is_not_called_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing module that is nobody's extra is an error to be seen."""

    def broken(_: object) -> int:
        raise ModuleNotFoundError(name="elsewhere")

    monkeypatch.setattr("msgconv_async.cli._run", broken)
    with pytest.raises(ModuleNotFoundError):
        main([])
