"""Training: data in, folder out, and what is refused."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from folders import content
from safetensors.torch import load_file
from synthetic import constant_bars, random_bars
from torch import Tensor
from training_runs import DAY, copied, moved

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.instruments import Timeframe
from hrm_runtime.market.stamps import EARLIEST_STAMP
from hrm_train import HierarchicalReasoningModel, load_checkpoint, train
from hrm_train.data.preparation import load_or_prepare, prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split, chronological_split
from hrm_train.errors import (
    CheckpointInvalid,
    DataInvalid,
    DeviceMissing,
    SettingsInvalid,
    TrainingDiverged,
)
from hrm_train.learning import epochs, trainer
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.devices import Where
from hrm_train.learning.epochs import Progress
from hrm_train.learning.state import State
from hrm_train.settings import Settings, render

MakeSettings = Callable[..., Settings]

HORIZON = 6


# data in, folder out


def test_training_writes_exactly_five_files_that_describe_it(
    trained: Path, prepared: Prepared, split: Split
) -> None:
    checkpoint = load_checkpoint(trained)
    description = checkpoint.description
    assert set(content(trained)) == {
        "settings.yaml", "windows.safetensors", f"best-{description.best_epoch}.safetensors",
        "checkpoint.json", "last.safetensors",
    }  # fmt: skip
    assert description.vocabulary == prepared.manifest.vocabulary
    assert description.series == prepared.manifest.series
    assert description.train_samples == len(split.train)
    assert description.validation_samples == len(split.validation)
    assert (description.boundary, description.judged_from) == (split.boundary, split.boundary)
    assert (description.judged_until, description.initialized_from) == (None, None)
    assert [epoch.number for epoch in description.epochs] == [1, 2]
    assert len(checkpoint.windows) == min(512, len(split.validation))


def test_a_checkpoint_depends_on_settings_and_data_alone(
    bars_folder: Path, tensors: Path, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    torch.manual_seed(1)
    from_bars = train(settings, [bars_folder], tmp_path / "empty")
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    from_tensors = train(settings, tensors, tmp_path / "new" / "folder")
    assert from_bars.sha256 == from_tensors.sha256
    assert content(tmp_path / "empty").keys() == content(tmp_path / "new" / "folder").keys()
    assert_equal(copied(from_bars.model), copied(from_tensors.model))
    assert_equal(torch.random.get_rng_state(), before)  # the host's generator is its own
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("threads", [None, 2])
def test_threads_are_those_of_the_settings_whatever_the_host_computes_with(
    threads: int | None,
    make_settings: MakeSettings,
    tensors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings({"training.epochs": 1})
    asked = settings.training.model_copy(update={"threads": threads})
    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        checkpoint = train(
            settings.model_copy(update={"training": asked}),
            tensors,
            tmp_path / "out",
            lambda _: seen.append(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {threads or 1}
    assert checkpoint.settings.training.threads == (threads or 1)
    if threads is None:
        train(settings, tensors, tmp_path / "one")
        assert content(tmp_path / "one") == content(tmp_path / "out")


def test_another_seed_gives_other_weights(
    bars_folder: Path, trained: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"training.epochs": 2, "training.seed": 1})
    other = copied(train(settings, [bars_folder], tmp_path / "out").model)
    one = copied(load_checkpoint(trained).model)
    assert (one["value_head.value.weight"] != other["value_head.value.weight"]).all()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize(
    ("losses", "best", "files"),
    [
        ([3.0, 1.0, 2.0], 2, [1, 2, 2]),
        ([1.0, 2.0, 3.0], 1, [1, 1, 1]),
        ([3.0, 2.0, 1.0], 3, [1, 2, 3]),
        ([1.0, 1.0], 1, [1, 1]),
    ],
)
def test_the_epoch_of_lowest_validation_loss_is_kept_and_no_other(
    losses: list[float],
    best: int,
    files: list[int],
    ema_decay: float,
    tensors: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[dict[str, Tensor]] = []

    def scripted(_: object, model: HierarchicalReasoningModel, *arguments: Any) -> Epoch:
        judged.append(copied(model))
        number, train_loss = arguments[2:]
        return Epoch(
            number=number, train_loss=train_loss, validation_loss=losses[number - 1],
            accuracy=0.5, regret=0.5, segments=1.0,
        )  # fmt: skip

    kept: list[list[int]] = []

    def on_progress(progress: Progress) -> None:
        found = sorted(path.name for path in (tmp_path / "out").glob("best-*"))
        if progress.epochs and (not kept or len(kept) < len(progress.epochs)):
            kept.append([int(re.sub(r"\D", "", name)) for name in found])

    monkeypatch.setattr(epochs, "evaluate", scripted)
    settings = make_settings(
        {
            "training.epochs": len(losses),
            "training.ema_decay": ema_decay,
            "training.batch_size": 200,
        }
    )
    checkpoint = train(settings, tensors, tmp_path / "out", on_progress)
    assert checkpoint.description.best_epoch == best
    assert [epoch.validation_loss for epoch in checkpoint.description.epochs] == losses
    assert_equal(copied(checkpoint.model), judged[best - 1])
    # told of an epoch before it is kept: what is there is the best of those before
    assert kept == [[], *([number] for number in files[:-1])]
    last = load_file(tmp_path / "out" / "last.safetensors")
    of = "average" if ema_decay else "model"
    assert_equal({n[len(of) + 1 :]: t for n, t in last.items() if n.startswith(of)}, judged[-1])
    name = "value_head.value.weight"
    assert torch.equal(last[f"model/{name}"], judged[-1][name]) == (not ema_decay)


@pytest.mark.parametrize(
    ("minutes", "steps_between"), [(0.0, 1), (0.5, 1), (1.0, 2), (1.6, 4), (1e6, 1e6)]
)
def test_where_training_stands_is_saved_when_due_and_after_every_epoch(
    minutes: float,
    steps_between: float,
    tensors: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that goes on by half a minute each time that it is looked at: once a step, and once
    more when the state was saved.
    """
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(clock)))
    saved: list[tuple[int, int]] = []
    save = State.save

    def recording(state: State, path: Path) -> None:
        saved.append((state.position.step, len(state.position.epochs)))
        save(state, path)

    monkeypatch.setattr(State, "save", recording)
    told: list[Progress] = []
    settings = make_settings({"training.epochs": 2, "training.save_minutes": minutes})
    train(settings, tensors, tmp_path / "out", told.append)
    expected, waited = [(0, 0)], 0
    for before, now in zip([None, *told], told, strict=False):
        waited += 1
        ended = before is not None and len(now.epochs) > len(before.epochs)
        if ended or waited >= steps_between:
            expected.append((now.step, len(now.epochs)))
            waited = 0
    assert saved == expected


def test_of_fewer_samples_than_the_batch_has_all_are_in_work_at_once(
    tensors: Path, split: Split, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"training.batch_size": 1000})
    told: list[Progress] = []
    train(settings, tensors, tmp_path / "out", told.append)
    assert told[0].samples == len(split.train)
    last = load_file(tmp_path / "out" / "last.safetensors")
    assert sorted(last["slots/sample"].tolist()) == split.train.tolist()


# what is refused


@pytest.mark.parametrize(("size", "where"), [(63, Where("cpu", devices=2)), (4, Where("cpu", 3))])
def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    size: int, where: Where, make_settings: MakeSettings, tmp_path: Path
) -> None:
    message = (
        "training.batch_size: expected a multiple of the number of processes, found "
        f"{size} for {where.devices}"
    )
    with pytest.raises(SettingsInvalid, match=message):
        train(
            make_settings({"training.batch_size": size}),
            tmp_path / "absent.csv",
            tmp_path / "out",
            where=where,
        )
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_missing_is_named_before_any_data_is_read(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceMissing, match="device: expected 1 CUDA device, found 0"):
        train(settings, tmp_path / "absent.csv", tmp_path / "out", where=Where("cuda"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "count", "error", "message"),
    [
        ("absent_5.csv", 0, BadBars, "absent_5.csv: expected a bars file or a folder of them"),
        ("Nifty_5.csv", 50, DataInvalid, "found none: Nifty_5: 50 bars, "),
        ("Nifty_5.csv", 212, DataInvalid, "leaves . samples to train on and 0 to validate on"),
        ("Nifty_5.csv", 226, DataInvalid, "at least 32 validation samples"),
        (
            "Nifty_15.csv",
            300,
            DataInvalid,
            "Nifty_15: bars: expected bars of 900 s, found .* 300 s after",
        ),
        ("Nifty_weekly.csv", 300, DataInvalid, "Nifty_weekly: timeframes.weekly: expected its se"),
    ],
)
def test_data_that_cannot_be_trained_on_leaves_nothing_written(
    name: str, count: int, error: type[Exception], message: str, settings: Settings, tmp_path: Path
) -> None:
    if count:
        write_csv(random_bars(count), tmp_path / name)
    with pytest.raises(error, match=message):
        train(settings, [tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prices_that_never_move_cannot_be_trained_on(settings: Settings, tmp_path: Path) -> None:
    write_csv(constant_bars(400), tmp_path / "Nifty_5.csv")
    with pytest.raises(DataInvalid, match="found none: Nifty_5: the price never moves"):
        train(settings, tmp_path / "Nifty_5.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prepared_file_stands_alone(
    prepared: Prepared, tensors: Path, settings: Settings, bars_folder: Path
) -> None:
    assert np.array_equal(load_or_prepare(settings, [tensors]).features, prepared.features)
    for data in ([tensors, bars_folder], [tensors, tensors]):
        with pytest.raises(DataInvalid, match="expected one prepared tensor file, or bars; found"):
            load_or_prepare(settings, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.label_horizon": 7}, r"training\.label_horizon: settings 7, tensors 6"),
        (
            {"network.embeddings.max_instruments": 1},
            r"embeddings\.max_instruments: expected at least 2, was 1",
        ),
    ],
)
def test_a_prepared_file_of_other_settings_is_refused_with_the_difference(
    changes: dict[str, Any],
    message: str,
    tensors: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
) -> None:
    with pytest.raises(DataInvalid, match=message):
        train(make_settings(changes), tensors, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_training_and_says_where(
    bad: float, short: Settings, prepared: Prepared, split: Split, tmp_path: Path
) -> None:
    lots = prepared.sample_lots.copy()
    lots[:] = bad
    replace(prepared, sample_lots=lots).save(tmp_path / "bars.safetensors")
    message = (
        r"^step 1, epoch 1, batch 1 of it: expected finite losses and gradient, found no number "
        r"in quantity, total.*; samples \[\d+, \d+, \d+, \d+, \d+\] of the training tensors"
    )
    with pytest.raises(TrainingDiverged, match=message):
        train(short, tmp_path / "bars.safetensors", tmp_path / "out")
    assert set(content(tmp_path / "out")) == {
        "settings.yaml", "windows.safetensors", "last.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("array", "value", "found"),
    [("features", np.nan, "nan and"), ("sample_lots", np.inf, "inf and")],
)
def test_a_validation_that_is_no_number_stops_training_too(
    array: str,
    value: float,
    found: str,
    short: Settings,
    prepared: Prepared,
    split: Split,
    tmp_path: Path,
) -> None:
    changed = getattr(prepared, array).copy()
    sample = split.validation[-1]  # the newest bar, which no window of training has
    changed[prepared.sample_row[sample] if array == "features" else sample] = value
    replace(prepared, **{array: changed}).save(tmp_path / "bars.safetensors")
    message = f"validation of epoch 1: expected a finite loss and regret, found {found}"
    with pytest.raises(TrainingDiverged, match=message):
        train(short, tmp_path / "bars.safetensors", tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint.json").exists()


# data of its own kind


def test_one_series_alone_can_be_trained_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings({"training.batch_size": 7, "instruments": {}})
    alone = prepare_series(settings, {("TCS", "D"): random_bars(300, seconds=86_400)})
    alone.save(tmp_path / "tensors.safetensors")
    checkpoint = train(settings, [tmp_path / "tensors.safetensors"], tmp_path / "out")
    vocabulary = checkpoint.description.vocabulary
    assert {name: facts.id for name, facts in vocabulary.instruments.items()} == {
        "unknown": 0, "TCS": 1,
    }  # fmt: skip
    assert vocabulary.timeframes == {"D": Timeframe(id=1, seconds=86_400)}
    assert np.isfinite(checkpoint.description.epochs[0].validation_loss)


def rising(count: int) -> Bars:
    """Bars that only ever rise, by unequal steps."""
    close = 100.0 * np.cumprod(1.0 + 0.004 * (1.5 + np.sin(np.arange(count + 1))))
    stamps = EARLIEST_STAMP + 300 * np.arange(count)
    return Bars(stamps, close[:-1], 1.001 * close[1:], 0.999 * close[:-1], close[1:])


def test_data_in_which_an_action_is_never_best_can_be_trained_on(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    changes = {"training.epochs": 3, "training.learning_rate": 0.01, "instruments": {}}
    settings = make_settings(changes)
    prepared = prepare_series(settings, {("Up", "5"): rising(400)})
    best = np.nanargmax(prepared.sample_returns, axis=1)
    assert not {1, 2} & set(best.tolist())  # SELL_SHORT, CLOSE_LONG
    prepared.save(tmp_path / "bars.safetensors")
    epochs = train(settings, tmp_path / "bars.safetensors", tmp_path / "out").description.epochs
    assert epochs[-1].accuracy > 0.9
    assert epochs[-1].validation_loss < epochs[0].validation_loss


def test_bars_with_gaps_longer_than_a_window_can_be_trained_on(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, bars = make_settings({"instruments": {}}), random_bars(400)
    days_off = DAY * (np.arange(400) // 4)  # four bars a day, six in a window
    prepared = prepare_series(
        settings,
        {("Gaps", "5"): Bars(bars.datetime + days_off, bars.open, bars.high, bars.low, bars.close)},
    )
    plain = prepare_series(settings, {("Gaps", "5"): bars})
    assert len(prepared) == len(plain)
    prepared.save(tmp_path / "bars.safetensors")
    checkpoint = train(settings, tmp_path / "bars.safetensors", tmp_path / "out")
    gaps = np.diff(checkpoint.windows.stamps[:, -6:], axis=1).max(axis=1)
    assert gaps.min() > 6 * 300
    (epoch,) = checkpoint.description.epochs
    assert np.isfinite([epoch.train_loss, epoch.validation_loss, epoch.regret]).all()


def test_training_from_tensors_needs_neither_bars_nor_serving(
    tensors: Path, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text(render(settings))
    code = (
        "import sys\n"
        "for name in ('talib', 'onnxruntime', 'polars', 'onnx', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from hrm_train import load_settings, train\n"
        f"train(load_settings('settings.yaml'), {str(tensors)!r}, 'elsewhere')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    train(settings, tensors, tmp_path / "here")
    assert content(tmp_path / "elsewhere") == content(tmp_path / "here")


# several machines and processes, names that come too late


def test_a_name_without_training_samples_is_decided_for_as_unknown(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"training.epochs": 1, "training.batch_size": 256})
    bars = moved(random_bars(260, seed=8, seconds=900), 3)
    series = {("Nifty", "5"): random_bars(1_100, seed=7), ("Tcs", "15"): bars}
    prepared = prepare_series(settings, series)
    split = chronological_split(prepared, 0.2, HORIZON)
    own = prepared.sample_instrument
    assert set(own[split.train].tolist()) == {1}
    assert set(own[split.validation].tolist()) >= {2}
    prepared.save(tmp_path / "bars.safetensors")
    checkpoint = train(settings, tmp_path / "bars.safetensors", tmp_path / "out")
    network = checkpoint.model.input_network
    for table, trained, late in (
        (network.instrument_embedding.weight, 1, 2),  # Nifty, Tcs
        (network.timeframe_embedding.weight, 2, 1),  # 5, 15
    ):
        assert_equal(table[late], table[0])
        assert (table[trained] != table[0]).any()
        assert (table[3] != table[0]).any()  # a spare row stays as drawn


def test_a_state_on_some_machines_only_is_refused(
    settings: Settings, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "summed", lambda *_: torch.tensor(1.0))  # another one has it
    with pytest.raises(CheckpointInvalid, match="expected a folder that all machines share"):
        train(settings, tensors, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


def test_fewer_samples_than_processes_are_refused(
    settings: Settings,
    tensors: Path,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = replace(split, train=split.train[:0])
    monkeypatch.setattr(trainer, "chronological_split", lambda *_: none)
    with pytest.raises(DataInvalid, match="at least 1 training samples, one per process, found 0"):
        train(settings, tensors, tmp_path / "out")
    assert not (tmp_path / "out").exists()
