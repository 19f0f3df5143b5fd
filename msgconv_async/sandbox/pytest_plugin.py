"""A pytest fixture, ``msgconv_sandbox``: a running `Sandbox` for each test that asks for one.

Say ``pytest_plugins = ["msgconv_async.sandbox.pytest_plugin"]`` in the topmost ``conftest.py``, or
``-p msgconv_async.sandbox.pytest_plugin``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from msgconv_async.sandbox import Sandbox

_MARKER = (
    "msgconv_sandbox(**settings): the settings of this test's sandbox, those of"
    " msgconv_async.sandbox.Sandbox"
)

_SETTINGS = inspect.signature(Sandbox).parameters


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def msgconv_sandbox(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    """Run a sandbox for a test, in a thread of its own, so that any kind of test can use it.

    Its settings are those of the marker: ``@pytest.mark.msgconv_sandbox(accounts=3, rate=10)``.
    Where markers stand on a class or a module as well, the nearest says what both say. While the
    test runs, MSGCONV_BASE_URL is its address, so that sessions without a base URL find it.
    """
    settings: dict[str, Any] = {}
    for marker in reversed([*request.node.iter_markers("msgconv_sandbox")]):
        if marker.args:
            pytest.fail("msgconv_sandbox takes settings by name, such as accounts=3", pytrace=False)
        for name in marker.kwargs.keys() - _SETTINGS:
            known = ", ".join(_SETTINGS)
            pytest.fail(f"msgconv_sandbox takes no {name!r}; it takes {known}", pytrace=False)
        settings |= marker.kwargs
    with Sandbox(**settings) as sandbox:
        monkeypatch.setenv("MSGCONV_BASE_URL", sandbox.url)
        yield sandbox
