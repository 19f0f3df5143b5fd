"""Files that are written beside their place, and what a killed process left of them.

Whoever writes such a file holds a lock on it (``flock``), which ends with the process, however that
ends. So a file whose lock is free is nobody's any more, and only such a file is removed. Where
there are no such locks, as on Windows, nothing is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import BinaryIO

_NAME = re.compile(r"\.[0-9a-f]{16}\.msgconv")
_OWNER_ALONE = 0o600

CAN_REPLACE_OPEN = sys.platform != "win32"
"""Whether a file that is open can be renamed."""


def create_beside(path: Path) -> tuple[Path, BinaryIO]:
    """Create a file beside another, of that one's mode if it exists, and remove what is nobody's.

    Returns:
        Its path, and the stream to write to. Closing that gives up the lock.

    Raises:
        OSError: No file can be created there.
    """
    _remove_abandoned(path.parent)
    while True:
        beside = path.with_name(f".{secrets.token_hex(8)}.msgconv")
        stream = open(beside, "xb", opener=_for_owner_alone)  # noqa: SIM115 - as Path.open has none
        try:
            _lock(stream.fileno(), wait=True)
            if not _is_removed(stream.fileno()):
                with suppress(OSError):
                    beside.chmod(S_IMODE(path.stat().st_mode) & 0o777)
                return beside, stream
        except BaseException:
            stream.close()
            beside.unlink(missing_ok=True)
            raise
        stream.close()  # another process found it before it was locked


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, _OWNER_ALONE)


def _is_removed(descriptor: int) -> bool:
    return CAN_REPLACE_OPEN and os.fstat(descriptor).st_nlink == 0


def _remove_abandoned(folder: Path) -> None:
    """Remove the files of this kind that nobody writes; what cannot be told is left alone."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    # Neither another file through a link, nor a wait for a pipe's other end.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor, wait=False):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file, and tell whether that was possible: some file systems know no locks."""
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
