"""Look for answers that bring out anything but a value or an error of ours, guided by coverage.

The properties are those of ``tests/client/test_any_answer.py``; atheris (libFuzzer) chooses what
they draw, after the branches of ``msgconv_async`` that it reaches. It goes on after a failure, and
tells at the end each place that failed once, with an answer that does it. What was drawn for it is
kept in hypothesis' database, so the suite meets it first from then on.

Needs ``pip install 'msgconv-async[fuzz]'`` (Linux). It is no part of the suite.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROPERTIES = (
    "test_fetch_returns_a_report_or_raises_what_is_ours",
    "test_whatever_the_domain_api_answers_stays_on_known_ground",
    "test_in_fetch_many_an_answer_of_any_kind_is_its_accounts_alone",
    "test_in_follow_an_answer_of_any_kind_is_its_accounts_alone",
)

LONGEST = 16_384
"""Bytes of an input."""
SEEDS = 64
"""Random inputs to begin with."""


class Search:
    """Tries inputs until the time is over, then tells what failed and ends the process.

    Args:
        properties: Each takes the bytes from which it draws.
        seconds: How long.
    """

    def __init__(self, properties: Sequence[Callable[[bytes], object]], seconds: float) -> None:
        self._properties = properties
        self._ends = time.monotonic() + seconds
        self._tried = 0
        self._found: dict[tuple[str, str, int], BaseException] = {}

    def __call__(self, data: bytes) -> None:
        """Try one input: its first byte chooses the property."""
        if time.monotonic() >= self._ends:
            self._end()
        if not data:
            return
        self._tried += 1
        try:
            self._properties[data[0] % len(self._properties)](data[1:])
        except KeyboardInterrupt:
            self._end()
        except BaseException as error:  # noqa: BLE001 - a failed assertion is not the end
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = (type(error).__name__, frame.filename, frame.lineno or 0)
            if place not in self._found:
                self._found[place] = error
                print(f"found: {place}", flush=True)

    def _end(self) -> None:
        for error in self._found.values():
            print("".join(traceback.format_exception(error)))
        verdict = "MISSED" if self._found else "met"
        print(
            f"{self._tried:,} inputs, {len(self._found)} places that failed, goal 0  {verdict}",
            flush=True,
        )
        # libFuzzer does not give back what it was started in.
        os._exit(1 if self._found else 0)


def main(arguments: Sequence[str]) -> None:
    """Search for so many minutes."""
    parser = argparse.ArgumentParser("python -m benchmarks fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", type=Path, help="a folder that keeps inputs worth having")
    options = parser.parse_args(arguments)
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install 'msgconv-async[fuzz]' (Linux)")
    with atheris.instrument_imports(include=["msgconv_async"]):
        properties: Any = importlib.import_module("tests.client.test_any_answer")
    tests = [getattr(properties, name).hypothesis.fuzz_one_input for name in PROPERTIES]
    search = Search(tests, options.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder)
        corpus.mkdir(parents=True, exist_ok=True)
        if not any(corpus.iterdir()):
            # From less than this nothing whole is drawn, and libFuzzer begins with single bytes.
            for number in range(SEEDS):
                (corpus / f"seed-{number}").write_bytes(random.randbytes(LONGEST // 2))
        limits = [f"-max_len={LONGEST}", "-len_control=0", "-timeout=60", "-rss_limit_mb=0"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], search)
        atheris.Fuzz()
