"""A PostgreSQL server of the tests' own, on loopback, for as long as it is needed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from tests.programs import missing

_PATIENCE = 20.0


def programs() -> Path | None:
    """Return the folder of the server's programs: that on PATH, or the newest of Debian's."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server of its own while inside, and yield how to connect to it."""
    found = programs()
    if found is None:
        missing("PostgreSQL (Debian's package postgresql)")
    assert found is not None
    # It refuses to run as root, who needs a user for it; the package brings one.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="msgconv-postgres-", dir=_enterable()) as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        subprocess.run(  # noqa: S603
            [found / "initdb", "-D", data, "-U", "tests", "--auth=trust", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
        }
        server = subprocess.Popen(  # noqa: S603
            [found / "postgres", "-D", data, *(f"--{k}={v}" for k, v in settings.items())],
            stderr=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        )
        try:
            address = f"postgresql://tests:unused@127.0.0.1:{port}/postgres"
            _wait(address, server)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # waits for nobody's connection
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()
            server.wait()


def _enterable() -> str | None:
    """Return a folder for temporary ones that another user may enter; None is the usual one."""
    usual = Path(tempfile.gettempdir()).resolve()
    if all(path.stat().st_mode & stat.S_IXOTH for path in (usual, *usual.parents)):
        return None
    return "/var/tmp"  # noqa: S108 - the folder made in it has a name of its own


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while server.poll() is None:
        try:
            psycopg2.connect(address).close()
        except psycopg2.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
    pytest.fail("PostgreSQL did not start")
