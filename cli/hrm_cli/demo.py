"""The demo: the whole line on real bars that an installed package carries.

Five US stocks, daily, 2000 to 2013, from bokeh-sampledata (BSD-3), adjusted for splits and
dividends, and the weekly bars made from them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from bokeh_sampledata import stocks

from hrm_cli import show
from hrm_export import check_parity, export
from hrm_export.errors import ExportRefused
from hrm_runtime import Action, Bars, Decision, InferenceFailed, Reason
from hrm_runtime.artifact import load_contract
from hrm_runtime.bars import PRICES, read_series, series_name, write_csv
from hrm_train import train
from hrm_train.settings import PRESETS, parse_settings, render

TICKERS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
WEEK = 7 * 86_400
PARITY_WINDOWS = 500

_WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "onnxscript"):
    sys.modules[name] = None  # any import of it fails
from hrm_cli.__main__ import main
main()
"""


def run(folder: Path, released: Path | None = None) -> bool:
    """Do all of it inside the new `folder`; whether parity passed.

    Args:
        released: an artifact that was trained elsewhere and knows none of the names, to decide for
            the same bars.

    Raises:
        ExportRefused: the folder exists.
        HrmError: as the steps.
    """
    start = time.perf_counter()
    if os.path.lexists(folder):
        raise ExportRefused(f"{folder}: expected a new folder; remove it or give --out")
    data, checkpoint, artifact = folder / "bars", folder / "checkpoint", folder / "artifact"

    show.heading("1  Real bars, from an installed package")
    data.mkdir(parents=True)
    for name, bars in demo_bars().items():
        write_csv(bars, data / f"{name}.csv")
    settings = parse_settings(
        {**PRESETS["tiny"], "timeframes": {"W": {"seconds": WEEK}}}, source="demo"
    )
    (folder / "settings.yaml").write_text(render(settings), encoding="utf-8")
    show.note(f"wrote {len(list(data.iterdir()))} series to {data}")

    show.heading("2  Train the tiny preset")
    with show.training() as on_progress:
        trained = train(settings, [data], checkpoint, on_progress)
    show.series(trained.description.series)
    show.epochs(trained.description.epochs, trained.description.best_epoch)

    show.heading("3  Export one artifact")
    with show.working("converting, composing, comparing with torch"):
        exported = export(checkpoint, artifact)
    show.note(f"wrote {artifact}, {folder_size(artifact) / 1e6:.1f} MB, id {exported.model_id}")

    show.heading("4  Parity with torch")
    with show.working("comparing with torch"):
        report = check_parity(artifact, checkpoint, [data], PARITY_WINDOWS)
    show.parity(report.stages)

    show.heading("5  Decide, in processes that cannot import torch")
    show.decisions(decided(artifact, data))
    if released is not None:
        show.heading(f"6  Decide with {released}, which was trained elsewhere")
        show.decisions(decided(released, data))
    show.note(f"all of it in {time.perf_counter() - start:.0f} s; {folder} holds everything made")
    return report.passed


def demo_bars() -> dict[str, Bars]:
    """Daily and weekly bars by `SYMBOL_TIMEFRAME`."""
    found = {}
    for ticker in TICKERS:
        daily = _daily(getattr(stocks, ticker))
        found[f"{ticker}_D"] = daily
        found[f"{ticker}_W"] = weekly(daily)
    return found


def weekly(daily: Bars) -> Bars:
    """Weekly bars, stamped with their Monday."""
    weeks = (daily.datetime + 3 * 86_400) // WEEK  # the epoch began on a Thursday
    first = np.flatnonzero(np.diff(weeks, prepend=-1))
    last = np.append(first[1:], len(daily)) - 1
    return Bars(
        weeks[first] * WEEK - 3 * 86_400,
        daily.open[first],
        np.maximum.reduceat(daily.high, first),
        np.minimum.reduceat(daily.low, first),
        daily.close[last],
    )


def decided(artifact: Path, data: Path) -> list[tuple[str, str, Bars, Decision]]:
    """The decision at the end of every series that is long enough, by `decide_without_torch`."""
    bars_needed = load_contract(artifact).bars_needed
    return [
        (*key, bars, decide_without_torch(artifact, data / f"{'_'.join(key)}.csv"))
        for key, bars in read_series([data]).items()
        if len(bars) >= bars_needed
    ]


def decide_without_torch(artifact: Path, bars: Path) -> Decision:
    """`hrm predict` in a process of its own in which the training libraries cannot be imported."""
    instrument, timeframe = series_name(bars)
    arguments = ["--bars", str(bars), "--instrument", instrument, "--timeframe", timeframe]
    answer = subprocess.run(  # noqa: S603, our own interpreter and code
        [sys.executable, "-c", _WITHOUT_TORCH, "predict", str(artifact), *arguments, "--json"],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if not answer.stdout:
        raise InferenceFailed("hrm predict decided nothing; its message is above")
    fields: dict[str, Any] = json.loads(answer.stdout)
    return Decision(
        action=Action(fields["action_id"]),
        quantity=fields["quantity"],
        value=fields["value"],
        probabilities=tuple(fields["probabilities"]),
        q_values=tuple(fields["q_values"]),
        segments=fields["segments"],
        reason=Reason(fields["reason"]),
        model_id=fields["model_id"],
        latency_ms=fields["latency_ms"],
    )


def folder_size(folder: Path) -> int:
    """Bytes of its files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _daily(columns: Any) -> Bars:
    adjustment = np.array(columns["adj_close"]) / np.array(columns["close"])
    dates = np.array(columns["date"], dtype="datetime64[s]").astype(np.int64)
    return Bars(dates, *(np.array(columns[name]) * adjustment for name in PRICES))
