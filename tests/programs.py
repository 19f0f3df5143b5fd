"""Programs besides Python that tests start, such as servers and a browser."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return where a program is; without it, do as `missing` does."""
    found = shutil.which(name)
    return missing(name) if found is None else found


def missing(name: str) -> str:
    """Skip the test for want of a program, but where everything has been installed fail it."""
    if os.environ.get("CI_REQUIRE_SERVERS"):
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed")
