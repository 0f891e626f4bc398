"""Pictures, as PNG files. What they show is computed in `hrm_runtime`."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from hrm_cli.show.bars import price
from hrm_cli.show.report import interval_text, outcome
from hrm_cli.show.speed import short
from hrm_runtime import Action, BadInput
from hrm_runtime.backtest.book import Exit, Trade
from hrm_runtime.backtest.walk import Backtest
from hrm_runtime.files import whole
from hrm_runtime.market.actions import LEGAL, Side
from hrm_runtime.market.bars import Floats, counted
from hrm_runtime.market.stamps import moment
from hrm_runtime.measure.bench import Bench, Result
from hrm_runtime.measure.trace import Trace

SUFFIX: Final = ".png"

# colours that differ in lightness too
DARK, WARM, LIGHT, SAND, GREY, RED = (
    "#0b5394", "#b45f06", "#5b9bd5", "#f0a04b", "#8c8c8c", "#a61c00",
)  # fmt: skip

SIDES: Final = {Side.LONG: LIGHT, Side.SHORT: SAND}
ACTIONS: Final = {
    Action.BUY_LONG: LIGHT,
    Action.SELL_SHORT: SAND,
    Action.CLOSE_LONG: LIGHT,
    Action.CLOSE_SHORT: SAND,
    Action.HOLD: GREY,
}
KINDS: Final = {
    DARK: "the artifact",
    LIGHT: "its other precisions",
    SAND: "others",
    GREY: "products alone",
}
"""Of bars in a comparison of speed."""

DATES: Final = 6
"""Labels on a time axis."""

COLUMN_AFTER: Final = 3
"""More panels than these stand in two columns."""

CROWDED: Final = 40
"""With more steps than these, cycles are labelled by their number alone."""


def require_picture(path: Path) -> None:
    """Hold a path to what a picture can be written to, before any work.

    Raises:
        BadInput: not called *.png, in no folder, a folder itself, or not to be written.
    """
    if path.suffix.lower() != SUFFIX:
        raise BadInput(f"{path}: expected a name ending in {SUFFIX}")
    if not os.path.isdir(path.parent):
        raise BadInput(f"{path}: expected its folder to exist")
    if os.path.isdir(path):
        raise BadInput(f"{path}: expected a file to write, found a folder")
    if not all(os.access(place, os.W_OK) for place in (path.parent, path) if place.exists()):
        raise BadInput(f"{path}: expected to write a picture there, but it is not allowed")


def backtests(done: Sequence[Backtest], path: Path) -> None:
    """One panel per series: equity bar by bar, beside buying and doing nothing; positions below.

    Raises:
        BadInput: the file cannot be written.
    """
    columns = 1 if len(done) <= COLUMN_AFTER else 2
    lines = math.ceil(len(done) / columns)
    figure = Figure(figsize=(2.0 + 7.0 * columns, 0.6 + 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, one in zip(panels, done, strict=False):
        _equity(panel, one)
    for panel in panels[len(done) :]:
        panel.set_axis_off()
    figure.legend(
        handles=[
            Line2D([], [], color=DARK, lw=1.6, label="model"),
            Line2D([], [], color=WARM, lw=1.0, label="buy and hold, no leverage"),
            Line2D([], [], color=GREY, lw=1.0, ls="--", label="do nothing"),
            Patch(color=SIDES[Side.LONG], label="long"),
            Patch(color=SIDES[Side.SHORT], label="short"),
            Line2D([], [], color="k", marker="x", ms=4, mew=0.8, ls="", label="stopped"),
        ],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
    )
    _save(figure, path)


def trace(found: Trace, path: Path) -> None:
    """The residuals of every step on a log axis, and the probabilities after each segment.

    Raises:
        BadInput: the file cannot be written.
    """
    segments = len(found.segments)
    span = _span(found)
    figure = Figure(figsize=(min(6.5 + 0.08 * segments * span, 20.0), 6.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _residuals(top, found)
    _probabilities(bottom, found)
    for panel in (top, bottom):
        _plain(panel)
        for end in range(1, segments):
            panel.axvline(end * span, color="0.4", lw=1.0)
    bottom.set_xlim(0, segments * span)
    bottom.set_xticks([])
    figure.suptitle(
        f"{outcome(found)}\n{found.instrument} {found.timeframe}, bar of "
        f"{moment(found.datetime)}, close {price(found.close)}",
        fontsize=11,
    )
    _save(figure, path)


def bench(found: Bench, path: Path) -> None:
    """Bars of the median pass with a tick at the 99th percentile; beside them memory and file.

    Raises:
        BadInput: the file cannot be written.
    """
    results = sorted(found.results, key=lambda result: -result.p50_ms)
    figure = Figure(figsize=(10.0, 1.9 + 0.36 * len(results)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = np.arange(len(results))
    colours = [_colour(result) for result in results]
    for panel, label, name, bar, tick in (
        (left, "ms for one pass at batch 1", "p99", "p50_ms", "p99_ms"),
        (right, "MB of memory", "file", "rss_mb", "size_mb"),
    ):
        lengths, marks = _of(results, bar), _of(results, tick)
        panel.barh(places, lengths, 0.66, color=colours)
        panel.plot(marks, places, "k|", ms=11, mew=1.4)
        for place, (length, mark) in enumerate(zip(lengths.tolist(), marks.tolist(), strict=True)):
            if math.isfinite(length):
                marked = f", {name} {short(mark)}" if math.isfinite(mark) else ""
                _beside(panel, max(length, mark), place, short(length) + marked)
        panel.set_xlabel(label)
        panel.set_xlim(0, 1.35 * np.nanmax((lengths, marks)))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", color="0.9", lw=0.6)
        panel.set_axisbelow(True)
    left.set_yticks(places, [result.name for result in results])
    shown = dict.fromkeys(colours)
    figure.legend(
        handles=[
            *(Patch(color=colour, label=KINDS[colour]) for colour in KINDS if colour in shown),
            Line2D(
                [], [], color="k", marker="|", ms=11, mew=1.4, ls="", label="99th percentile; file"
            ),
        ],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
    )
    figure.suptitle(f"{found.host.cpu}, one thread", fontsize=11)
    _save(figure, path)


def _colour(result: Result) -> str:
    if result.weights == "artifact":
        return DARK
    if result.name.startswith("hrm "):
        return LIGHT
    return GREY if result.load_s is None else SAND


def _of(results: Sequence[Result], field: str) -> Floats:
    """A field of each, NaN where it is not known."""
    values = [getattr(result, field) for result in results]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _beside(panel: Axes, x: float, y: float, text: str) -> None:
    panel.annotate(
        text, (x, y), (5, 0), textcoords="offset points", va="center", ha="left", fontsize=9
    )


def _equity(panel: Axes, one: Backtest) -> None:
    """Drawn over bars, so that nights and holidays take no room."""
    scale = 100.0 / one.capital
    panel.plot(scale * one.do_nothing, color=GREY, lw=1.0, ls="--")
    panel.plot(scale * one.buy_and_hold, color=WARM, lw=1.0)
    panel.plot(scale * one.equity, color=DARK, lw=1.6)
    for side, color in SIDES.items():
        spans = [_held(one, trade) for trade in one.trades if trade.side is side]
        strip = panel.get_xaxis_transform()
        panel.broken_barh(spans, (0.02, 0.035), color=color, lw=0, transform=strip, snap=False)
    stops = [_bar(one, trade.exited) for trade in one.trades if trade.ended is Exit.STOP]
    panel.plot(stops, scale * one.equity[stops], "kx", ms=4, mew=0.8)

    sample = "in sample, no evidence: " if one.in_sample else ""
    panel.set_title(
        f"{one.instrument} {one.timeframe}: {sample}{one.final_return:+.1%} "
        f"(95 %: {interval_text(one)}), {counted(len(one.trades), 'trade')}",
        fontsize=10,
        loc="left",
        color=RED if one.in_sample else "k",
    )
    panel.set_ylabel("equity, % of the capital")
    panel.margins(x=0.01, y=0.12)
    places = np.unique(np.linspace(0, len(one.equity) - 1, DATES).round().astype(int)).tolist()
    labels = [moment(int(one.datetime[place])).replace(" ", "\n", 1) for place in places]
    panel.set_xticks(places, labels, fontsize=8)
    _plain(panel)


def _held(one: Backtest, trade: Trade) -> tuple[int, int]:
    """Start and length of a trade in bars; a bar's open stands where the close before it does."""
    start = _bar(one, trade.entered) - 1
    end = _bar(one, trade.exited) - (trade.ended is Exit.ACTION)
    return start, end - start


def _bar(one: Backtest, stamp: int) -> int:
    return int(np.searchsorted(one.datetime, stamp))


def _span(found: Trace) -> int:
    """Units of x for a segment: one for each step of L, and one for that of H after each T."""
    cycles, timesteps = found.segments[0].l_residual.shape
    span: int = cycles * (timesteps + 1)
    return span


def _residuals(panel: Axes, found: Trace) -> None:
    cycles, timesteps = found.segments[0].l_residual.shape
    length = timesteps + 1
    for number, segment in enumerate(found.segments):
        starts = number * _span(found) + length * np.arange(cycles)
        for cycle, start in enumerate(starts.tolist()):
            steps = start + 0.5 + np.arange(timesteps)
            panel.plot(
                steps, _positive(segment.l_residual[cycle]), "o-", color=DARK, ms=3.5, lw=1.2
            )
            if cycle % 2 == 0:
                panel.axvspan(start, start + length, color="0.95", lw=0)
            name = f"cycle {cycle + 1}" if length * len(found.segments) <= CROWDED else cycle + 1
            _label(panel, start + length / 2, 0.0, str(name), 4)
        panel.plot(
            starts + timesteps + 0.5,
            _positive(segment.h_residual),
            "D:",
            color=WARM,
            ms=6,
            lw=0.8,
        )
        _label(panel, (number + 0.5) * _span(found), 1.0, f"segment {number + 1}", 4)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.margins(y=0.15)
    panel.set_ylabel("RMS change of a state")
    _legend(
        panel,
        Line2D([], [], color=DARK, marker="o", ms=3.5, lw=1.2, label="L, at each step"),
        Line2D([], [], color=WARM, marker="D", ms=6, lw=0.8, ls=":", label="H, after a cycle"),
    )


def _probabilities(panel: Axes, found: Trace) -> None:
    """Bars of the legal actions under each segment, and what its halting head said."""
    legal = LEGAL[found.account.side]
    width = 0.8 * _span(found) / len(legal)
    for number, segment in enumerate(found.segments):
        decision, centre = segment.decision, (number + 0.5) * _span(found)
        for place, action in enumerate(legal):
            x, share = (
                centre + (place - (len(legal) - 1) / 2) * width,
                decision.probabilities[action],
            )
            panel.bar(x, share, 0.94 * width, color=ACTIONS[action])
            weight = "bold" if action is decision.action else "normal"
            panel.annotate(
                f"{share:.0%}",
                (x, share),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                fontweight=weight,
            )
        halt, go_on = decision.q_values
        says = f"{decision.action.name}\nhalt {halt:.3f}\ncontinue {go_on:.3f}"
        _label(panel, centre, 0.0, decision.reason if decision.degraded else says, -4)
    panel.set_ylim(0, 1.1)
    panel.set_ylabel("probability")
    _legend(panel, *(Patch(color=ACTIONS[action], label=action.name) for action in legal))


def _label(panel: Axes, x: float, height: float, text: str, offset: float) -> None:
    """Centred text above (`offset` > 0, in points) or below a height between 0 and 1."""
    panel.annotate(
        text,
        (x, height),
        (0, offset),
        xycoords=panel.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        va="bottom" if offset > 0 else "top",
        fontsize=9,
    )


def _legend(panel: Axes, *handles: Artist) -> None:
    """Beside the panel, where it hides nothing."""
    panel.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, frameon=False
    )


def _positive(values: npt.NDArray[np.float32]) -> Floats:
    """What a log axis can show: a gap where a value is 0 or not finite."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float64)


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.9", lw=0.6)
    panel.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    try:
        with whole(path) as partial:
            figure.savefig(partial, dpi=150, format=SUFFIX[1:])
    except OSError as error:
        raise BadInput(f"{path}: expected to write a picture there: {error}") from error
