"""Charts in the terminal, in a module of their own because few commands need plotext."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from plotext import figure, terminal  # type: ignore[import-untyped]
from rich.console import Console
from rich.text import Text

_WIDTH, _HEIGHT = 120, 15
_BARS_HEIGHT = 10
_WIDEST = 9
_LINES = 3
"""Columns that no bar is drawn in: a line on either side, and a gap."""
_MARKERS = {"█": "cyan", "▒": "yellow", "░": "magenta"}
_ASCII = str.maketrans("┌┐└┘├┤┬┴┼─│█▒░", "+++++++++-|#=.")


def chart(title: str, counts: Sequence[int], ticks: Mapping[int, str], console: Console) -> Text:
    """Draw evenly spaced counts as a line, as wide as the console.

    Args:
        title: The text above.
        counts: The numbers to draw.
        ticks: The labels below some of them, by their place.
        console: The console that will show it.
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


def bars(
    title: str,
    series: Sequence[Sequence[float]],
    labels: Sequence[str],
    console: Console,
    *,
    width: int,
    written: Callable[[float], str] = "{:,.0f}".format,
) -> Text:
    """Draw a bar for each label: series of non-negative numbers, stacked.

    Args:
        title: The text above; it may show the markers of the series, which are █, ▒ and ░.
        series: One to three, each with a number for every label.
        labels: The texts below, where there is room.
        console: The console that will show it.
        width: The number of columns. If not all bars fit, the last ones are drawn.
        written: Writes a number beside the vertical axis.
    """
    peak = max(map(sum, zip(*series, strict=True)))
    levels = {level: written(level) for level in (0, peak / 2, peak)}
    frame = max(map(len, levels.values())) + _LINES
    count = max(1, min(len(labels), width - frame))
    if count < len(labels):
        title = f"{title}, the last {count}"
    labels, series = labels[-count:], [numbers[-count:] for numbers in series]
    pitch = max(1, min((width - frame) // count, _WIDEST))
    # In columns, so that no bar is wider than another: a gap, and then the bar.
    first, across = 1, max(pitch - 2, 0)
    middles = [first + number * pitch + across / 2 for number in range(count + 1)]
    terminal.limit(width=False, height=False)
    figure.clear()
    figure.plot_size(count * pitch + frame, _BARS_HEIGHT)
    if peak:
        bar = figure.bar(
            middles,
            [[*numbers, 0] for numbers in series],  # a single bar would have no distance to another
            stacked=True,
            marker=list(_MARKERS)[: len(series)],
            width=(across + 0.01) / pitch,
        )
        figure.draw(bar)
    figure.ruler("x").lim(0, count * pitch)
    figure.ruler("x").ticks([int(middle) for middle in middles[:count]], list(labels))
    figure.ruler("y").lim(0, peak or 1)
    figure.ruler("y").ticks(list(levels), list(levels.values()))
    drawn = Text(f"{title}\n{figure.build().string(colorless=True).rstrip()}", no_wrap=True)
    for marker, style in _MARKERS.items():
        drawn.highlight_regex(f"{marker}+", style)
    if not console.encoding.startswith("utf"):
        drawn.plain = drawn.plain.translate(_ASCII)
    return drawn
