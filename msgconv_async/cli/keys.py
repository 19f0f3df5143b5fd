"""Reads keys from a terminal, one by one and unseen, while a command draws there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END = "up", "down", "page up", "page down", "home", "end"
ESCAPE, ENTER, BACKSPACE = "escape", "enter", "backspace"

_SEQUENCES = {
    **dict.fromkeys(("\x1b[A", "\x1bOA"), UP),
    **dict.fromkeys(("\x1b[B", "\x1bOB"), DOWN),
    "\x1b[5~": PAGE_UP,
    "\x1b[6~": PAGE_DOWN,
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~"), HOME),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~"), END),
    "\x1b": ESCAPE,
    **dict.fromkeys(("\r", "\n"), ENTER),
    **dict.fromkeys(("\x7f", "\b"), BACKSPACE),
}


def keys_of(text: str) -> Iterator[str]:
    """Yield the keys of what a terminal sent: their names above, or the character itself."""
    while text:
        known = next(
            (text[:length] for length in (4, 3, 1) if text[:length] in _SEQUENCES), text[:1]
        )
        text = text[len(known) :]
        key = _SEQUENCES.get(known, known)
        if key == ESCAPE and text.startswith(("[", "O")):
            text = ""  # a key that is not known here
        elif len(key) > 1 or key.isprintable():
            yield key


def _in_background(terminal: int) -> bool:
    """Tell whether reading would stop the process, as a shell does with what it runs beside."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it is not the terminal that controls the process
        return False


@contextmanager
def pressed(press: Callable[[str], None]) -> Iterator[bool]:
    """Hand over each key that is pressed while inside, and leave the terminal as it was.

    Yields:
        Whether keys can be read: not without a terminal, nor in the background.
    """
    try:
        import termios  # noqa: PLC0415 - not on Windows
        import tty  # noqa: PLC0415

        place = sys.stdin.fileno()
        before = termios.tcgetattr(place)
    except (ImportError, OSError, ValueError, AttributeError, termios.error):
        yield False
        return
    if _in_background(place):
        yield False
        return

    def read() -> None:
        for key in keys_of(os.read(place, 1024).decode(errors="ignore")):
            press(key)

    loop = asyncio.get_running_loop()
    tty.setcbreak(place)
    loop.add_reader(place, read)
    try:
        yield True
    finally:
        loop.remove_reader(place)
        termios.tcsetattr(place, termios.TCSADRAIN, before)
