"""Secrets in files of their own, as Kubernetes, Docker and systemd hand them to a service."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msgconv_async.errors import ConfigurationError

LARGEST = 64 * 1024
"""Bytes of the largest file that is read as a secret."""

_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd tells a service where its credentials are."""

SECRET_PATH = f"the path of a file, from the root on or ${_DIRECTORY}/name"
"""What the place of a secret must be."""


def is_secret_path(given: str) -> bool:
    """Tell whether a value is where a secret may be, and so not the secret itself."""
    return given.startswith(f"${_DIRECTORY}/") or Path(given).is_absolute()


def read_secret_file(given: str) -> str:
    """Read a secret; the line end at the file's end is no part of it.

    Args:
        given: The file, from the root on, or as ``$CREDENTIALS_DIRECTORY/name``.

    Raises:
        ConfigurationError: There is no such file, or what it holds is no secret.
    """
    path = given
    if given.startswith(f"${_DIRECTORY}/"):
        if not (directory := os.environ.get(_DIRECTORY)):
            raise ConfigurationError(f"{given}: {_DIRECTORY} is not set, as systemd sets it")
        path = given.replace(f"${_DIRECTORY}", directory, 1)
    body, why = _read(path)
    if why:
        raise ConfigurationError(f"the secret file {path} {why}")
    text = body.decode(errors="surrogateescape").rstrip("\r\n")
    if not text:
        raise ConfigurationError(f"the secret file {path} is empty")
    if len(text.splitlines()) > 1 or text != text.strip():
        raise ConfigurationError(
            f"the secret file {path} has more than one line, or white space around the secret"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(f"the secret file {path} is not UTF-8")
    return text


def _read(path: str) -> tuple[bytes, str]:
    """Return what a file holds, and why that is no secret."""
    try:
        # A pipe would be waited for, and could not be read again.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return b"", "is not a file, or not a regular one"
        with Path(path).open("rb") as file:
            body = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        return b"", f"cannot be read: {getattr(error, 'strerror', None) or 'it has no such name'}"
    return (body, "") if len(body) <= LARGEST else (b"", f"is larger than {LARGEST} bytes")
