from __future__ import annotations

import json
import os
import sys
from io import BytesIO, RawIOBase, TextIOWrapper
from pathlib import Path

import pytest

from msgconv_async.cli.console import complain
from msgconv_async.cli.streams import unbroken_stdout, visible, visible_json
from tests.cli.conftest import Run

HIDDEN = [
    "\x1b[31m",  # a control sequence, with ESC and with its one-byte form
    "\x9b31m",
    "\r",
    "\u202e",  # what comes is written from right to left
    "\u2066",
    "\u200b",  # spaces and joiners of no width
    "\u2060",
    "\ufeff",
    "\u00ad",
    "\u3164",  # letters and marks without a picture
    "\u115f",
    "\u034f",
    "\ufe0f",
    "\U000e0041",  # tags
    "\U000e0100",
    "\x00",
    "\x7f",
    "\udcff",
    "\ue000",
]


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
def test_what_a_reader_cannot_see_is_shown_as_an_escape(hidden: str) -> None:
    """Whatever it comes in; all else stays as it is."""
    shown = visible(f"n\u00e4me \u65e5\u672c {hidden}[red]x[/]")
    assert shown.startswith("n\u00e4me \u65e5\u672c ")
    assert shown.endswith("[red]x[/]")
    assert shown.isprintable()
    assert hidden not in shown


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """However many the text has."""
    complain("first\n  second\r\n\tthird \u2028fourth")
    assert ("", "msgconv: first second third fourth\n") == capsys.readouterr()


@pytest.mark.parametrize(
    "hidden", [each for each in HIDDEN if "\x7f" <= each != "\udcff"], ids=ascii
)
def test_a_document_on_a_screen_has_the_same_values(hidden: str) -> None:
    """Escapes stand for what hides: JSON lets them."""
    document = f'{{"a{hidden}": "{hidden}[red]\u00e4"}}\n'
    shown = visible_json(document.encode()).decode()
    assert hidden not in shown
    assert "\u00e4" in shown
    assert json.loads(document) == json.loads(shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fetch", "7\u202e1", "--timeframe", "5"),
        ("fetch", "71", "--timeframe", "5", "--format", "\x1b[31m"),
        ("fetch", "71", "--timeframe", "5", "--skills", "\u200b4"),
        ("fetch", "--accounts", "\u202ea.toml", "--timeframe", "5"),
        ("\x9b31m",),
    ],
    ids=ascii,
)
def test_nothing_that_hides_in_an_argument_reaches_the_terminal(
    run: Run, arguments: tuple[str, ...]
) -> None:
    """The mistake is told in one line all the same."""
    done = run(*arguments, *(("--base-url", "http://127.0.0.1:9") if arguments[1:] else ()))
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.isprintable()


def test_nothing_that_hides_in_an_accounts_file_reaches_the_terminal(
    run: Run, tmp_path: Path
) -> None:
    """Such as the name of a key."""
    path = tmp_path / "accounts.toml"
    path.write_text('"\u202e[red]" = 1\n', "utf-8")
    done = run("fetch", "--accounts", path, "--timeframe", 5)
    assert 2 == done.code
    assert "line 1: \\u202e[red] is not known here" in done.err


class Reluctant(RawIOBase):
    """Takes three bytes at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        self.taken += bytes(data)[:3]  # type: ignore[call-overload]
        return min(3, len(bytes(data)))  # type: ignore[call-overload]


def test_a_short_write_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """As stdout is without a buffer, whose short writes Python does not look at."""
    raw = Reluctant()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, write_through=True))  # type: ignore[type-var]
    before = sys.stdout
    with unbroken_stdout():
        sys.stdout.buffer.write(b"0123456789" * 10)
    assert before is sys.stdout
    assert b"0123456789" * 10 == raw.taken


def test_what_a_signal_cuts_short_is_not_written_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a write and its end, nobody knows how far it came."""

    class Interrupted(Reluctant):
        def write(self, data: object, /) -> int:
            super().write(data)
            raise KeyboardInterrupt

    raw = Interrupted()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, write_through=True))  # type: ignore[type-var]
    with unbroken_stdout():
        sys.stdout.write("0123456789")
        with pytest.raises(KeyboardInterrupt):
            sys.stdout.flush()
    assert b"012" == raw.taken


def test_what_is_no_stream_of_bytes_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs a command in a program may have put anything there."""
    page = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(page))
    with unbroken_stdout():
        sys.stdout.write("x")
    assert (b"x", os.linesep) == (page.getvalue(), os.linesep)
