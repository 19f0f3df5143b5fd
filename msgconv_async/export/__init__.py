"""A report as tables."""

from msgconv_async.export.files import table_files
from msgconv_async.export.rollup import roll_up
from msgconv_async.export.rows import (
    ACCOUNT_METRICS,
    AGENT_METRICS,
    METRICS,
    SKILL_AGENT_METRICS,
    SKILL_METRICS,
    TABLES,
    TYPES,
    Row,
    Table,
    Value,
    intervals,
    tables_of,
)

__all__ = [
    "ACCOUNT_METRICS",
    "AGENT_METRICS",
    "METRICS",
    "SKILL_AGENT_METRICS",
    "SKILL_METRICS",
    "TABLES",
    "TYPES",
    "Row",
    "Table",
    "Value",
    "intervals",
    "roll_up",
    "table_files",
    "tables_of",
]
