"""The demo: the whole line on real bars that an installed package carries.

Five US stocks, daily, 2000 to 2013, from bokeh-sampledata (BSD-3), adjusted for splits and
dividends, and the weekly bars made from them. What takes seconds comes first: a decision of the
released model; torch is imported after it.
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

from hrm_cli.interrupts import command
from hrm_cli.show import console, ladder, progress
from hrm_cli.show.bars import series
from hrm_cli.show.decision import decisions
from hrm_cli.show.training import epochs, training
from hrm_export.errors import ExportRefused
from hrm_runtime import Action, Bars, Decision, InferenceFailed, Reason
from hrm_runtime.artifact.folder import load_contract
from hrm_runtime.market.bars import PRICES
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.series import read_series, series_file
from hrm_runtime.measure.turns import lifeline
from hrm_train.settings import PRESETS, Settings, parse_settings, render

TICKERS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
WEEK = 7 * 86_400
PARITY_WINDOWS = 500
RELEASED = Path("models/base/artifact")
"""Where a clone has the model that comes with it."""

_WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "onnxscript"):
    sys.modules[name] = None  # any import of it fails
from hrm_runtime.measure.turns import end_with_parent
end_with_parent()
from hrm_cli.__main__ import main
main()
"""


def run(folder: Path, released: Path | None = None) -> bool:
    """Do all of it inside the new `folder`; whether parity passed.

    Args:
        released: an artifact that was trained elsewhere and knows none of the names, to decide for
            the same bars first.

    Raises:
        ExportRefused: the folder exists.
        HrmError: as the steps.
    """
    start = time.perf_counter()
    if os.path.lexists(folder):
        raise ExportRefused(f"{folder}: expected a new folder; remove it or give --out")
    data, checkpoint, artifact = folder / "bars", folder / "checkpoint", folder / "artifact"

    console.heading("1  Real bars, from an installed package")
    data.mkdir(parents=True)
    for name, bars in demo_bars().items():
        write_csv(bars, data / series_file(*name))
    settings = parse_settings(
        {**PRESETS["tiny"], "timeframes": {"W": {"seconds": WEEK}}}, source="demo"
    )
    (folder / "settings.yaml").write_text(render(settings), encoding="utf-8")
    console.note(f"wrote {len(list(data.iterdir()))} series to {data}")

    if released is not None:
        console.heading(f"2  Decide with {released}, which was trained elsewhere")
        decisions(decided(released, data, most=1))
    passed = _train_and_export(settings, data, checkpoint, artifact)

    console.heading("6  Decide, in processes that cannot import torch")
    decisions(decided(artifact, data))
    console.note(
        "Lots and probabilities vary from machine to machine, since processors round otherwise "
        "while a network is trained; from run to run on one machine they do not."
    )
    console.note(
        f"all of it in {time.perf_counter() - start:.0f} s; {folder} holds everything made"
    )
    console.heading("Next")
    for line in next_commands(folder):
        console.note(f"  {line}")
    return passed


def _train_and_export(settings: Settings, data: Path, checkpoint: Path, artifact: Path) -> bool:
    """Steps 3 to 5; whether parity passed."""
    from hrm_export import check_parity, export
    from hrm_train import train

    console.heading("3  Train the tiny preset")
    with training() as on_progress:
        trained = train(settings, [data], checkpoint, on_progress)
    series(trained.description.series)
    epochs(trained.description.epochs, trained.description.best_epoch)

    console.heading("4  Export one artifact")
    with progress.working("converting, composing, comparing with torch"):
        exported = export(checkpoint, artifact)
    console.note(f"wrote {artifact}, {folder_size(artifact) / 1e6:.1f} MB\nid {exported.model_id}")

    console.heading("5  Parity with torch")
    with progress.working("comparing with torch"):
        report = check_parity(artifact, checkpoint, [data], PARITY_WINDOWS)
    ladder.parity(report.stages)
    return report.passed


def next_commands(folder: Path) -> tuple[str, str, str]:
    """What to try on what the demo made, as one would type it."""
    artifact, bars, one = (str(folder / name) for name in ("artifact", "bars", "bars/IBM_D.csv"))
    return (
        command("backtest", artifact, "--data", bars, "--picture", "equity.png"),
        command("trace", artifact, "--data", one, "--picture", "trace.png"),
        command("inspect", artifact),
    )


def demo_bars() -> dict[tuple[str, str], Bars]:
    """Daily and weekly bars by instrument and timeframe."""
    found = {}
    for ticker in TICKERS:
        daily = _daily(getattr(stocks, ticker))
        found[ticker, "D"] = daily
        found[ticker, "W"] = weekly(daily)
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


def decided(
    artifact: Path, data: Path, most: int | None = None
) -> list[tuple[str, str, Bars, Decision]]:
    """The decision at the end of every series that is long enough, of the first `most` of them, by
    `decide_without_torch`.
    """
    bars_needed = load_contract(artifact).bars_needed
    enough = [(key, bars) for key, bars in read_series(data).items() if len(bars) >= bars_needed]
    return [
        (*key, bars, decide_without_torch(artifact, data / series_file(*key)))
        for key, bars in enough[:most]
    ]


def decide_without_torch(artifact: Path, bars: Path) -> Decision:
    """`hrm predict` in a process of its own in which the training libraries cannot be imported."""
    arguments = ["predict", str(artifact), "--data", str(bars), "--json"]
    with lifeline() as stdin:
        answer = subprocess.run(  # noqa: S603, our own interpreter and code
            [sys.executable, "-c", _WITHOUT_TORCH, *arguments],
            check=False,
            stdin=stdin,
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
        unknown=tuple(fields["unknown"]),
    )


def folder_size(folder: Path) -> int:
    """Bytes of its files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _daily(columns: Any) -> Bars:
    adjustment = np.array(columns["adj_close"]) / np.array(columns["close"])
    dates = np.array(columns["date"], dtype="datetime64[s]").astype(np.int64)
    return Bars(dates, *(np.array(columns[name]) * adjustment for name in PRICES))
