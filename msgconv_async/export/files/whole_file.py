"""A file that is there whole or not at all.

The data goes to a temporary file in the same folder, which replaces the file when it is complete
and stored. The writer holds a lock on the temporary file (``flock``). The lock ends with the
process, even with a killed one. So a temporary file whose lock is free was abandoned, and only such
a file is removed. On systems without such locks, as on Windows, nothing is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import BinaryIO, Self

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError

_NAME = re.compile(r"\.[0-9a-f]{16}\.msgconv")
_OWNER_ALONE = 0o600

_CAN_REPLACE_OPEN = sys.platform != "win32"
"""Whether a file that is open can be renamed."""


class WholeFile:
    """A file that is there whole or not at all.

    It is written under a temporary name, and put in its place by `commit`. Without a `commit`, an
    earlier file stays as it was. A process that is killed may leave the temporary file behind: its
    name begins with a dot and ends in ``.msgconv``. The next writer of a file in the same folder
    removes it.

    A new file can be read and written by its owner alone; one that is replaced keeps its mode.

    Args:
        path: The file. If it is a symbolic link, the file behind it is replaced.

    Raises:
        ConfigurationError: ``path`` is no path. On entering: no file could be written there.

    Attributes:
        stream: Where to write, once entered.
    """

    stream: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        checks.path("path", path)
        self._path = Path(os.path.realpath(path))
        self._temporary = self._path

    def __enter__(self) -> Self:
        if self._path.exists() and not self._path.is_file():
            raise ConfigurationError(f"{self._path}: not a file that can be replaced")
        try:
            self._temporary, self.stream = _create_temporary(self._path)
        except OSError as error:
            raise ConfigurationError(
                f"{self._path}: cannot write there: {error.strerror}"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.stream.close()
        if self._temporary != self._path:
            self._temporary.unlink(missing_ok=True)

    def store(self) -> None:
        """Store what was written so far, so that it survives a power cut."""
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def commit(self) -> None:
        """Finish the file, and put it in its place."""
        self.store()
        if _CAN_REPLACE_OPEN:  # closing it gives up the lock against removal
            self._temporary.replace(self._path)
            self.stream.close()
        else:
            self.stream.close()
            self._temporary.replace(self._path)
        self._temporary = self._path


def _create_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """Create the temporary file for a file, with the mode of that file if it exists.

    Temporary files in the same folder that were abandoned are removed first.

    Returns:
        Its path, and the stream to write to. Closing that gives up the lock.

    Raises:
        OSError: No file can be created there.
    """
    _remove_abandoned(path.parent)
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}.msgconv")
        stream = open(temporary, "xb", opener=_for_owner_alone)  # noqa: SIM115 - as Path.open has none
        try:
            _lock(stream.fileno(), wait=True)
            if not _is_removed(stream.fileno()):
                with suppress(OSError):
                    temporary.chmod(S_IMODE(path.stat().st_mode) & 0o777)
                return temporary, stream
        except BaseException:
            stream.close()
            temporary.unlink(missing_ok=True)
            raise
        stream.close()  # another process found it before it was locked


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, _OWNER_ALONE)


def _is_removed(descriptor: int) -> bool:
    return _CAN_REPLACE_OPEN and os.fstat(descriptor).st_nlink == 0


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that no process writes; files in doubt are left alone."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    # It must not follow a link to another file, or wait for a pipe's other end.
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
