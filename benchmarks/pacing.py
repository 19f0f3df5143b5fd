"""How well a limit that nobody published is found and kept, and an asked rate delivered.

Three parts: starts delivered on this machine's event loop, beside other limiters; limits found in
simulation, in virtual time, beside other ways to meet them (seeds that no test uses); and, with
``--nginx``, real limits on loopback, everybody in the same run. With ``--picture`` the first two
are drawn as well; ``--limit`` draws one limit being found and followed, and nothing else.
``--matrix`` plays every ordinary situation as this library does and as a client without a pacer
does, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks import delivery, nginx
from msgconv_async.pacing.adaptive import AdaptiveLimit, State
from msgconv_async.pacing.recent import Start
from tests.pacing.matrix import DEMANDS, Cell, Compared, cells, compare
from tests.pacing.simulation import Report, Way, run
from tests.pacing.situations import SITUATIONS, WAYS, Situation

SEEDS = range(3001, 3013)
MATRIX_SEED = 3001  # what was tuned was tuned on 101 to 103
DRAWN = ("bucket 50/s halves", "20 slots halve")
EVERYWHERE = "adaptive"
FOLLOWED = "bucket 50/s halves"
STATES: dict[State, str] = {"cold": "tab:gray", "resting": "tab:blue", "probing": "tab:orange"}
THINNED = 4  # of so many points one is drawn


def simulate(seeds: Sequence[int]) -> None:
    """Play every situation in every way, and print what came of it."""
    print(f"\nsimulated, {len(seeds)} seeds: mean (worst); * the means meet every goal")
    print("rec: median seconds until 90 % of what fell / rose is used again; Jain: fairness")
    met = dict.fromkeys(WAYS, 0)
    for name, situation in SITUATIONS.items():
        print(name)
        for way in WAYS:
            reports = [run(situation.scenario, seed, WAYS[way]) for seed in seeds]
            line = _line(situation, reports)
            met[way] += line.endswith("*")
            print(f"    {way:18}{line}", flush=True)
        if situation.bound:
            print(f"    out of reach: {situation.bound}")
    counts = ", ".join(f"{way} {count}" for way, count in met.items())
    print(f"of {len(SITUATIONS)} situations, every goal is met in: {counts}")


def _line(situation: Situation, reports: list[Report]) -> str:
    goals = situation.goals
    goodput = [each.goodput() for each in reports]
    refused = [each.refusal_share() for each in reports]
    met = statistics.mean(goodput) >= goals.goodput and statistics.mean(refused) <= goals.refused
    number = statistics.mean(each.refused() for each in reports)
    parts = [f"goodput {_percent(goodput, min)}  429 {_percent(refused, max)}  {number:6.0f}"]
    if changes := situation.scenario.changes:
        regains = [statistics.median(each.regain(at) for each in reports) for at in changes]
        met = met and all(regain <= goals.regain for regain in regains)
        parts.append("rec " + " / ".join(_seconds(each) for each in regains))
    if len(situation.scenario.begins) > 1:
        last = max(situation.scenario.begins)
        fairness = [each.fairness(last) for each in reports]
        met = met and statistics.mean(fairness) >= goals.jain
        parts.append(f"Jain {statistics.mean(fairness):.3f} ({min(fairness):.3f})")
    return "  ".join(parts) + ("  *" if met else "")


def _percent(shares: list[float], worst: Callable[[list[float]], float]) -> str:
    return f"{100 * statistics.mean(shares):6.2f} % ({100 * worst(shares):6.2f})"


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f} s"


def draw(path: Path, delivered: dict[tuple[str, int], delivery.Delivered]) -> None:
    """Draw rate over time against the true limit, and delivered against asked rate."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and only for the picture

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(DRAWN) + 1, 1, figsize=(9, 10), layout="constrained")
    for ax, name in zip(axes, DRAWN, strict=False):
        scenario = SITUATIONS[name].scenario
        seconds = range(int(scenario.duration))
        for way in WAYS:
            report = run(scenario, SEEDS[0], WAYS[way])
            answered = [report.answered(second, second + 1) for second in seconds]
            ours = way == EVERYWHERE
            ax.plot(seconds, answered, label=way, lw=2 if ours else 0.8, zorder=3 if ours else 2)
        limit = [report.capacity(second, second + 1) for second in seconds]
        ax.plot(seconds, limit, "k--", lw=1, label="the true limit", zorder=4)
        ax.set(title=f"{name}: answered per second", xlabel="seconds from cold", ylim=(0, None))
        ax.legend(fontsize="small", ncols=3)
    asked = [rate for rate, _ in delivery.LOADS]
    axes[-1].plot(asked, asked, "k--", lw=1, label="asked for")
    for name in delivery.CONTENDERS:
        reached = [rate * delivered[name, rate].percent / 100 for rate in asked]
        axes[-1].plot(asked, reached, "o-", label=name)
    axes[-1].set(title="starts per second delivered", xlabel="starts per second asked for")
    axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    print(f"\ndrawn: {path}")


class _Traced(AdaptiveLimit):
    """Keeps what is allowed and why, after each outcome."""

    __slots__ = ("refusals", "trace")

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[tuple[float, float, State]] = [(0.0, self.rate, self.state)]
        self.refusals: list[tuple[float, float]] = []

    def answered(self, start: Start, now: float) -> None:
        super().answered(start, now)
        self.trace.append((now, self.rate, self.state))

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        self.refusals.append((now, self.rate))
        super().throttled(start, now, retry_after)
        self.trace.append((now, self.rate, self.state))


def draw_limit(path: Path) -> None:
    """Draw how the rate now allowed follows a limit that halves, and that later returns."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and only for the picture

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    traced = _Traced()
    scenario = SITUATIONS[FOLLOWED].scenario
    report = run(scenario, SEEDS[0], Way(lambda: traced))
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    seconds = range(int(scenario.duration))
    limit = [report.capacity(second, second + 1) for second in seconds]
    ax.step(seconds, limit, "k--", where="post", lw=1, label="the limit, which nobody told")
    for state, colour in STATES.items():
        points = [(at, rate) for at, rate, was in traced.trace if was == state][::THINNED]
        ax.plot(*zip(*points, strict=True), ".", ms=3, color=colour, label=state)
    ax.plot(*zip(*traced.refusals, strict=True), "rx", ms=7, label="a refusal (429)")
    ax.set(xlabel="seconds from cold", ylabel="starts per second allowed", ylim=(0, None))
    ax.legend(fontsize="small", ncols=3)
    figure.savefig(path, metadata={"Software": None})
    print(f"drawn: {path}")


def _judged(cell: Cell) -> tuple[Cell, Compared]:
    return cell, compare(cell, MATRIX_SEED)


def matrix() -> None:
    """Play the whole matrix, and print where pacing did worse than none."""
    worse: dict[tuple[int, str], Counter[float]] = {}
    lost: list[tuple[float, Cell, Compared]] = []
    reasons = Counter[str]()
    saturated: list[Compared] = []
    total = Counter[float]()
    with ProcessPoolExecutor() as pool:
        for cell, compared in pool.map(_judged, cells(), chunksize=16):
            total[cell.demand] += 1
            if cell.demand > 1:
                saturated.append(compared)
            counts = worse.setdefault((cell.clients, cell.limit), Counter())
            if reason := compared.worse(cell.demand):
                reasons[reason] += 1
                counts[cell.demand] += 1
                short = compared.naive.answered - compared.ours.answered
                lost.append((short, cell, compared))
    each = total[DEMANDS[0]] // len(worse)
    print(f"cells in which pacing did worse than none, of {each} for each demand")
    print(f"{'clients, limit':36}" + "".join(f"{demand:>8g} x" for demand in DEMANDS))
    for (clients, limit), counts in worse.items():
        print(f"{clients} on {limit:31}" + "".join(f"{counts[demand]:>10}" for demand in DEMANDS))
    print(f"\n{sum(reasons.values())} of {sum(total.values())}: {dict(reasons)},")
    print(_by(worse, total))
    lost.sort(key=lambda one: one[0], reverse=True)
    for short, cell, (ours, naive) in lost[:10]:
        told = f"{100 * ours.answered:.0f} % answered, {100 * naive.answered:.0f} % without"
        print(f"  {100 * short:4.0f} points: {cell}: {told}")
    ours, naive = (
        100 * statistics.mean(getattr(one, way).refused for one in saturated)
        for way in ("ours", "naive")
    )
    print(f"refused where three times the limit is asked: {ours:.1f} %, without {naive:.1f} %")


def _by(worse: dict[tuple[int, str], Counter[float]], total: Counter[float]) -> str:
    counts = sum(worse.values(), Counter[float]())
    return ", ".join(f"{counts[demand]} of {total[demand]} at {demand:g} x" for demand in DEMANDS)


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks pacing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="runs of each simulation")
    parser.add_argument("--nginx", action="store_true", help="meet real limits as well")
    parser.add_argument("--seconds", type=float, default=60, help="under the real limits")
    parser.add_argument("--picture", type=Path, help="where to write the picture (png, svg, ...)")
    parser.add_argument("--limit", type=Path, help="where to draw a limit being found, only that")
    parser.add_argument("--matrix", action="store_true", help="pacing beside none, only that")
    options = parser.parse_args(arguments)
    if options.matrix:
        matrix()
        return
    if options.limit is not None:
        draw_limit(options.limit)
        return
    delivered = asyncio.run(delivery.measure())
    simulate(range(SEEDS[0], SEEDS[0] + options.seeds))
    if options.nginx:
        print()
        asyncio.run(nginx.measure(options.seconds))
    if options.picture is not None:
        draw(options.picture, delivered)
