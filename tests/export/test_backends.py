from __future__ import annotations

from pathlib import Path

import pytest

from msgconv_async.export.backends import backend_of
from msgconv_async.export.destination import client_of, destination
from msgconv_async.export.pipeline import Batch, Reader, conversation_metrics
from msgconv_async.export.store import Store
from tests.export.collecting import World


def test_a_destination_without_a_class_of_its_own_is_loaded_by_the_defaults(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dummy of dlt takes everything, and has neither SQL nor a place in the file system."""
    monkeypatch.setenv("DESTINATION__DUMMY__COMPLETED_PROB", "1.0")
    batches: list[Batch] = []
    with Reader(world.session) as reader:
        store = Store(destination("dummy"))
        store.load(conversation_metrics(world.accounts, reader=reader, watch=batches.append))
    assert 3 == sum(batch.turns for batch in batches)


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("dummy", None),
        ("duckdb:place", ".place.conversations.lock"),
        ("filesystem:place", "place/.place.conversations.lock"),
        ("filesystem:memory://place", None),
    ],
)
def test_the_lock_lies_beside_the_data_if_these_are_files(
    text: str, beside: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that share a folder find the same file."""
    monkeypatch.chdir(tmp_path)
    place = destination(text)
    backend = backend_of(place, "conversations", client_of(place, "conversations"))
    assert (None if beside is None else tmp_path / beside) == backend.lock_file


@pytest.mark.parametrize("text", ["duckdb:place", "ducklake"])
def test_a_file_that_another_program_has_open_is_told_as_such(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose it is matters, and not how DuckDB locks."""
    monkeypatch.chdir(tmp_path)
    place = destination(text)
    backend = backend_of(place, "conversations", client_of(place, "conversations"))
    error = OSError(
        'IO Error: Could not set lock on file "x": Conflicting lock is held in python (PID 7).'
    )
    assert str(backend.failed(error)).endswith(
        "cannot be used: it is open in another program (PID 7)"
    )
