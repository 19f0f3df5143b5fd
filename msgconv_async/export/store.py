"""Collected tables at a destination: one collector loads at a time, and any program may read."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException, InvalidNativeValue
from dlt.common.destination import Destination as DltDestination
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.exceptions import DltException, MissingDependencyException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError, MsgConvError, short
from msgconv_async.export.backends import backend_of
from msgconv_async.export.backends.base import ALONE
from msgconv_async.export.destination import (
    PIPELINE,
    Destination,
    StoreFailed,
    StoreInUse,
    client_of,
    first_line,
    where_to_set,
)
from msgconv_async.export.pipeline import Emptied
from msgconv_async.export.settings import only_user_settings
from msgconv_async.export.shards import Shard

__all__ = ["DATASET", "PIPELINE", "Store"]

DATASET = "conversations"
"""The default dataset: a database's schema, or a folder."""

PROBED = 1.0
"""Seconds: another shard that looks whether a lock is held holds it for less."""

_NAME = re.compile(r"(?=.{1,63}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")

_LACKS = re.compile(r"is itself a configuration .* with missing field\(s\): `(password)`")
"""dlt's message about an address without a password. An empty one is a password to dlt, and none to
PostgreSQL's own library."""


class Store:
    """A dataset at a destination.

    Args:
        destination: The destination.
        dataset: Its name there.
        shard: Which of several collectors loads into it, such as (2, 8); None if there is one.

    Raises:
        ConfigurationError: The destination lacks a setting, or cannot have a dataset of that name.
    """

    def __init__(
        self,
        destination: Destination,
        dataset: str = DATASET,
        *,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self._shard = Shard.of(shard)
        what = "what `destination` returns, such as destination('duckdb')"
        checks.instance("destination", destination, DltDestination, what)
        given: object = dataset
        if not isinstance(given, str) or not _NAME.fullmatch(dataset):
            raise ConfigurationError(
                f"dataset {short(dataset)}: a name is made of up to 63 small letters, digits and"
                " single underscores, and begins with a letter"
            )
        self.destination = destination
        self.dataset = dataset
        with only_user_settings():
            client = _configured(destination, dataset)
        if hasattr(client.config, "staging_dataset_name_layout"):
            layout = f"%s_staging{self._shard.suffix}"
            destination.config_params["staging_dataset_name_layout"] = layout
        self._backend = backend_of(destination, dataset, client)
        digest = blake2b(str(self).encode(), digest_size=8).hexdigest()
        self._pipeline = f"{PIPELINE}{self._shard.suffix}"
        self._common_dir = Path(get_dlt_pipelines_dir()) / f"{PIPELINE}-{digest}"
        self._state_dir = Path(f"{self._common_dir}{self._shard.suffix}")

    def __str__(self) -> str:
        return str(self._backend)

    @property
    def merges(self) -> bool:
        """Whether rows can be replaced by their keys; otherwise they can only be added."""
        with only_user_settings():
            capabilities = self.destination.capabilities()
        strategies = capabilities.supported_merge_strategies or []
        if (select := capabilities.merge_strategies_selector) is not None:
            strategies = list(select(strategies, table_schema={"name": PIPELINE}))
        return bool(strategies)

    @contextmanager
    def exclusive(self) -> Iterator[Callable[[], None]]:
        """Keep other collectors off: of two that load at once, one would undo what the other does.

        Shards of one number may be at work at once, unless the data is in files. There a lock file
        beside them stops every other collector. PostgreSQL's own locks stop one of the same shard,
        and those of another number of shards. At other destinations, only the collectors of this
        machine are kept off.

        Yields:
            A function that checks that this still holds, since a connection may have broken. It
            raises `StoreFailed` otherwise.

        Raises:
            StoreInUse: Another collector is at work.
            StoreFailed: It cannot be known whether another one is.
        """
        with ExitStack() as held:
            held.enter_context(self._locked(self._state_dir / "lock", self._shard.another, PROBED))
            self._check_others()
            if (beside := self._backend.lock_file) is None and not self._backend.shared:
                beside = self._common_dir / "alone.lock"
            if beside is not None:
                held.enter_context(self._locked(beside, "another collector"))
            yield held.enter_context(self._backend.locked(self._shard))

    @contextmanager
    def _locked(self, path: Path, other: str, timeout: float = 0.0) -> Iterator[None]:
        """Hold a lock file; ``other`` says who holds it otherwise, for longer than the timeout."""
        with ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(path, timeout=timeout))
            except Timeout:
                if path.exists():
                    raise StoreInUse(f"{other} is at work on {self}") from None
                raise StoreFailed(
                    f"cannot lock {self}: no file can be made in {path.parent}"
                ) from None
            except OSError as error:
                raise StoreFailed(f"cannot lock {self}: {error}") from None
            yield

    def _check_others(self) -> None:
        """See that no shard of another number is at work on this machine.

        Raises:
            StoreInUse: One is.
        """
        here = self._common_dir
        for path in here.parent.glob(f"{here.name}*/lock"):
            if not self._shard.is_peer(self._state_dir.name, path.parent.name):
                with self._locked(path, self._shard.of_another_number, PROBED):
                    pass

    def load(self, source: DltSource, emptied: Sequence[Emptied] = ()) -> None:
        """Load all that the source yields, or nothing.

        The state of collecting is read from the destination each time. Files that an interrupted
        run left on this machine are not used: its questions are asked again.

        Args:
            source: The source that `conversation_metrics` returned.
            emptied: The buckets that its batches name as emptied; filled while the source is read.
                Their rows are removed before other rows are loaded. So the load after an
                interrupted one removes them once more.

        Raises:
            ConfigurationError: An argument is of another type.
            StoreInUse: Another collector is at work.
            StoreFailed: The destination could not be read or written.
            MsgConvError: An error that the source raised.
        """
        what = "a source, as `conversation_metrics` returns it"
        checks.instance("source", source, DltSource, what)
        checks.instance("emptied", emptied, Sequence, "a list of the emptied buckets")
        backend = self._backend
        with (
            only_user_settings(),
            backend.watched(),
            self.exclusive() as check_held,
            self._failing(),
        ):
            shutil.rmtree(self._state_dir / self._pipeline, ignore_errors=True)
            with backend.without_partial_loads(source.resources):
                self._check_clock()
                pipeline = dlt.pipeline(
                    self._pipeline,
                    pipelines_dir=str(self._state_dir),
                    destination=self.destination,
                    dataset_name=self.dataset,
                )
                pipeline.sync_destination()
                pipeline.extract(source, loader_file_format=backend.file_format)
                pipeline.normalize()
                with self._alone(), backend.alone():
                    backend.prepare(pipeline, emptied)
                check_held()
                pipeline.load()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other shard on this machine makes the tables.

        Raises:
            StoreInUse: One does for too long: it may have been stopped in the middle.
        """
        self._common_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(FileLock(self._common_dir / "tables.lock", timeout=ALONE))
            except Timeout:
                raise StoreInUse(
                    f"another shard makes the tables of {self}, for more than {ALONE} s now"
                ) from None
            yield

    def _check_clock(self) -> None:
        """Check that this load will be the newest one: dlt takes the state of the newest load.

        Raises:
            StoreFailed: This machine's clock is behind that of the last load.
        """
        client = self._backend.connect()
        last = None
        if hasattr(client, "get_stored_state"):
            with suppress(DestinationUndefinedEntity), client:
                last = client.get_stored_state(self._pipeline)
        newest = None if last is None else last.as_doc().get("_dlt_load_id")
        behind = float(newest or 0) - time.time()
        if behind >= 0:
            raise StoreFailed(
                f"this machine's clock is {timedelta(seconds=int(behind) + 1)} behind that of the"
                f" last load into {self}: set it right"
            )

    @contextmanager
    def reading(self) -> Iterator[dlt.Dataset]:
        """Open what was collected, to read it.

        Raises:
            ConfigurationError: Nothing was collected.
            StoreFailed: The data cannot be read, also while it is open.
        """
        destination = self._backend.read_only()
        try:
            with only_user_settings(), dlt.dataset(destination, self.dataset) as opened:
                if not opened.schema.is_new:
                    yield opened
                    return
        except MsgConvError:
            raise
        except Exception as error:  # noqa: BLE001 - each database has errors of its own
            *_, cause = _causes(error)
            raise self._backend.failed(cause) from None
        raise ConfigurationError(f"there is no {self}: nothing was collected")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Translate the errors of dlt and of the libraries below it."""
        try:
            yield
        except self._backend.errors as error:
            causes = list(_causes(error))
            for cause in causes:
                # An error of the source, or Ctrl-C: dlt wraps them.
                if isinstance(cause, MsgConvError | KeyboardInterrupt):
                    raise cause from None
            cause = causes[-1]
            if isinstance(cause, OSError) and str(self._state_dir) in str(cause.filename):
                raise StoreFailed(f"cannot write to {self._state_dir}: {cause.strerror}") from None
            if isinstance(error, PipelineStepFailed) and error.step == "extract":
                if isinstance(cause, OSError):
                    raise StoreFailed(
                        f"cannot write to {self._state_dir}: {first_line(cause)}"
                    ) from None
                raise  # no fault of the destination's
            raise self._backend.failed(cause) from None


def _configured(destination: Destination, dataset: str) -> Any:
    """Return dlt's client of a dataset, once dlt has all the settings that it needs.

    Raises:
        ConfigurationError: dlt lacks a setting, or cannot read one.
    """
    name = destination.destination_name
    try:
        return client_of(destination, dataset)
    except ConfigFieldMissingException as error:
        if within := _LACKS.findall(str(error)):
            raise ConfigurationError(
                f"destination {name!r}: the address in its credentials has no"
                f" {' and '.join(within)}: write user:password@host, or user:@host if the server"
                " asks for none or it stands in ~/.pgpass"
            ) from None
        missing = [field for field in error.fields if field != "local_dir"]
        raise ConfigurationError(
            f"destination {name!r} needs {' and '.join(missing)}: {where_to_set(name, missing[0])}"
        ) from None
    except InvalidNativeValue:
        raise ConfigurationError(
            f"destination {name!r}: dlt cannot read its credentials:"
            f" {where_to_set(name, 'credentials')}"
        ) from None
    except MissingDependencyException as error:
        packages = " ".join(f"'{package}'" for package in error.dependencies)
        raise ConfigurationError(
            f"destination {name!r}: dlt needs more for this place: pip install {packages}"
        ) from None
    except (DltException, ValueError, OSError) as error:
        raise ConfigurationError(f"destination {name!r}: {first_line(error)}") from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
