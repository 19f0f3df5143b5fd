"""What the sandbox says of itself at /openapi.json, and that it answers as it says."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, given, settings

from msgconv_async.sandbox import Sandbox, Synthetic
from msgconv_async.sandbox.openapi import document
from tests.sandbox.conftest import CREDENTIALS, token_url

DOCUMENT = document(Sandbox(accounts=2).account_ids)
OPERATIONS = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method != "parameters"
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(accounts=2, events=Synthetic(conversations_per_day=50)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def bearers(sandbox: Sandbox) -> dict[str, str]:
    """Return each account's token."""
    form = "&".join(f"{name}={value}" for name, value in CREDENTIALS.items()).encode()
    found = {}
    for account_id in sandbox.account_ids:
        with urllib.request.urlopen(token_url(sandbox, account_id), form) as answer:  # noqa: S310
            found[account_id] = json.load(answer)["access_token"]
    return found


def test_the_document_is_served(sandbox: Sandbox) -> None:
    with urllib.request.urlopen(f"{sandbox.url}/openapi.json") as answer:  # noqa: S310
        assert "application/json" == answer.headers.get_content_type()
        assert json.loads(json.dumps(DOCUMENT)) == json.load(answer)


async def test_every_route_is_described() -> None:
    """And nothing else is."""
    app = Sandbox()._service.application()
    served = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource is not None
    }
    assert served == {*OPERATIONS, ("/openapi.json", "get")}


def mend(question: dict[str, Any]) -> None:
    """Make right what no schema can say, and leave alone what is wrong by it.

    An interval must divide the time frame, an id has 64 bits, and to JSON Schema, 60.0 is a whole
    number.
    """
    for name, value in question.items():
        if isinstance(value, float) and value.is_integer():
            question[name] = int(value)
        elif isinstance(value, str) and re.fullmatch(r"(-?[0-9]{1,19}(,(?!$)|$))+", value):
            ids = (min(max(int(each), -(2**63)), 2**63 - 1) for each in value.split(","))
            question[name] = ",".join(map(str, ids))
    if question.get("timeframe") in range(1, 1441) and question.get("interval") in range(5, 1441):
        question["timeframe"] = question["interval"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_it_answers_as_it_says(
    sandbox: Sandbox, bearers: dict[str, str], path: str, method: str
) -> None:
    """Right and wrong requests alike, with and without credentials."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation: Any = schema[path][method.upper()]

    @given(case=operation.as_strategy())
    @settings(max_examples=15, phases=[Phase.explicit, Phase.generate], database=None)
    def answered(case: Any) -> None:
        for question in (case.query, case.body):
            if isinstance(question, dict):
                mend(question)
        bearer = bearers.get(str(case.path_parameters.get("account")), "")
        case.call_and_validate(base_url=sandbox.url, headers={"Authorization": f"Bearer {bearer}"})

    answered()
