"""A history as a page: one file that a browser shows without a network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import msgspec

from msgconv_async.cli.captions import marked, notes, part_name, period
from msgconv_async.cli.figures import Figures
from msgconv_async.cli.streams import visible
from msgconv_async.export.history import Day, History, total

_IDS = ("total", "agent", "consumer", "system", "average")
"""The elements of the page that show the five figures."""


class _Page(Template):
    """A template with ``%%`` in place of ``$``, which the scripts may contain."""

    delimiter = "%%"


def page(history: History) -> bytes:
    """Return the page of a history: a summary, charts of each part, and a table of all figures.

    Its content security policy allows the two scripts by their hashes, and no request. A value
    from outside could not run even if it were not escaped.
    """
    scripts = {"chart": _text("vendor/uPlot.iife.min.js"), "script": _text("cli/page.js")}
    return (
        _Page(_text("cli/page.html"))
        .substitute(
            scripts,
            chart_style=_text("vendor/uPlot.min.css"),
            zone=escape(history.zone),
            part=history.by.capitalize(),
            period=escape(visible(period(history))),
            options="".join(
                f'<option value="{number}">{escape(visible(part_name(part, history)))}</option>'
                for number, part in enumerate(history.by_part)
            ),
            rows="\n".join(_rows(history)),
            notes="\n".join(f"<p>{escape(note)}</p>" for note in notes(history)),
            history=_data(history),
            hatched=_partial("hatched", history),
            open=_partial("open", history),
            hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts.values()),
        )
        .encode()
    )


def _text(path: str) -> str:
    return files("msgconv_async").joinpath(*path.split("/")).read_text("utf-8")


def _hash(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _partial(mark: str, history: History) -> str:
    return f' <span><i class="{mark}"></i>not collected whole</span>' if history.partial else ""


def _rows(history: History) -> Iterator[str]:
    for number, (part, days) in enumerate(history.by_part.items()):
        for day in days:
            cells = Figures.of_day(day).written()
            yield (
                f'<tr data-skill="{number}"><th scope="row">{marked(day.day, history)}</th>'
                f'<td class="skill">{escape(visible(part_name(part, history)))}</td>'
                f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
            )


def _data(history: History) -> str:
    """Return the data of the script, as JSON that cannot end the element around it."""
    data = {
        "by": history.by,
        "days": history.calendar,
        "partial": list(history.partial),
        "skills": [_skill(days, history) for days in history.by_part.values()],
    }
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _skill(days: Sequence[Day], history: History) -> dict[str, Any]:
    sums = Figures.of_day(total(days, history.last))
    return {
        "sums": dict(zip(_IDS, sums.written(), strict=True)),
        "days": [_drawn(day) for day in days],
    }


def _drawn(day: Day) -> dict[str, Any]:
    figures = Figures.of_day(day)
    return {
        "day": day.day,
        "agent": figures.by_agent,
        "consumer": figures.by_consumer,
        "system": figures.by_system,
        "average": figures.average,
        "written": figures.written()[-1],
    }
