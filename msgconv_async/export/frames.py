"""One line from answers to a table: a DataFrame of pandas or of Polars.

Each needs an extra of its name, ``pandas`` or ``polars``; both bring Arrow.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from msgconv_async import checks
from msgconv_async.client.many.fan_out import Outcome
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.rows import TABLES, Table, tables_of
from msgconv_async.protocol.report import ConversationReport

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped]


def to_pandas(
    answers: ConversationReport | Iterable[Outcome], table: Table | None = None
) -> pd.DataFrame:
    """Return the rows of a report, or of outcomes of many accounts, as a pandas DataFrame.

    Ids are nullable integers (``Int64``), and so are counts and times, which may be missing
    (``pandas.NA``); averages are ``Float64``, ids of accounts strings, instants
    ``datetime64[ms, UTC]``.

    Args:
        answers: A report, whose rows have no column ``account_id``, for it does not know its
            account; or outcomes, such as those of ``fetch_many``. An account that failed has no
            rows, and a warning says so.
        table: The rows to return, such as `msgconv_async.export.SKILL_AGENT_METRICS`. None for the
            first that the question has: those of the account, else by skill, else by agent.

    Returns:
        The columns of the table and ``complete``: False in a row whose interval was still open.

    Raises:
        ConfigurationError: An argument is of another type; or ``table`` is None, and the questions
            ask for different tables, or are not known.
        UnexpectedResponse: A figure does not fit into 64 bits.
        ModuleNotFoundError: The extra is not installed.
    """
    pandas, arrow = _module("pandas", "pandas"), _module("pyarrow", "pandas")
    nullable = {
        arrow.int64(): pandas.Int64Dtype(),
        arrow.float64(): pandas.Float64Dtype(),
        arrow.string(): pandas.StringDtype(),
    }
    return _rows(answers, table, "pandas").to_pandas(types_mapper=nullable.get)


def to_polars(
    answers: ConversationReport | Iterable[Outcome], table: Table | None = None
) -> pl.DataFrame:
    """Return the rows of a report, or of outcomes of many accounts, as a Polars DataFrame.

    As `to_pandas`, with ``Int64``, ``Float64``, ``String`` and ``Datetime("ms", "UTC")``.
    """
    polars = _module("polars", "polars")
    frame: pl.DataFrame = polars.from_arrow(_rows(answers, table, "polars"))
    return frame


def _module(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"to_{extra} needs {error.name}: pip install 'msgconv-async[{extra}]'", name=error.name
        ) from None


def _rows(
    answers: ConversationReport | Iterable[Outcome], table: Table | None, extra: str
) -> pa.Table:
    pyarrow, arrow = _module("pyarrow", extra), import_module("msgconv_async.export.arrow")
    if table is not None:
        checks.instance("table", table, Table, "one of the tables of msgconv_async.export, or None")
    if isinstance(answers, ConversationReport):
        table = table or _first_table([answers])
        rows = arrow.with_complete(arrow.report_tables("-", answers)[table.name], answers)
        return rows.drop_columns(["account_id"])
    such_as = "a ConversationReport, or outcomes such as those of fetch_many"
    outcomes = checks.members("answers", answers, Outcome, "an Outcome", such_as)
    table = table or _first_table(outcomes)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        warnings.warn(
            f"{len(errors)} of {len(outcomes)} accounts failed and have no rows; the first:"
            f" {errors[0]}",
            stacklevel=3,
        )
    parts = [
        arrow.with_complete(arrow.report_tables(outcome.account.id, report)[table.name], report)
        for outcome in outcomes
        if (report := outcome.report) is not None
    ]
    nothing = arrow.complete_schema(table.name).empty_table()
    return pyarrow.concat_tables([nothing, *parts])


def _first_table(answers: Iterable[ConversationReport | Outcome]) -> Table:
    """Return the table to take for answers where nobody says which."""
    first = {answer.query and tables_of(answer.query)[0] for answer in answers}
    match list(first):
        case [Table() as table]:
            return table
        case found:
            why = (
                "the questions ask for different tables"
                if len(found) > 1
                else "no question is known"
            )
    known = ", ".join(table.name.upper() for table in TABLES)
    raise ConfigurationError(f"table=None: {why}, so say which of {known}")
