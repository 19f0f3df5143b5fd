"""A chart in the terminal; apart, because only one command loads what draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plotext import figure, terminal  # type: ignore[import-untyped]
from rich.console import Console
from rich.text import Text

_WIDTH, _HEIGHT = 120, 15
_ASCII = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")


def chart(title: str, counts: Sequence[int], ticks: Mapping[int, str], console: Console) -> Text:
    """Draw evenly spaced counts as a line, as wide as the console.

    Args:
        title: Stands above.
        counts: What is drawn.
        ticks: What is written below some of them, by their place.
        console: Where it will be shown.
    """
    unicode = console.encoding.startswith("utf")
    peak = max(counts, default=0)
    levels = sorted({0, peak // 2, peak})
    terminal.limit(width=False, height=False)
    figure.clear()
    figure.plot_size(min(console.width, _WIDTH), _HEIGHT)
    figure.title(title)
    figure.ruler("x").ticks(list(ticks), list(ticks.values()))
    figure.ruler("y").ticks(levels, [f"{level:,}" for level in levels])
    figure.ruler("y").lim(0, peak)
    figure.draw(
        figure.signal(list(range(len(counts))), list(counts), marker="hd" if unicode else "#")
        .lines()
        .fillx()
    )
    drawn: str = figure.build().string(colorless=True).rstrip("\n")
    return Text(drawn if unicode else drawn.translate(_ASCII), style="cyan", no_wrap=True)
