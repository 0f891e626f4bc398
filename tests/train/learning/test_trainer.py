"""Training: its epochs, what it keeps, how it resumes, where it starts from, what it refuses."""

import errno
import math
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file
from synthetic import random_bars
from torch import Tensor

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.instruments import Timeframe
from hrm_train import (
    HierarchicalReasoningModel,
    extend_vocabulary,
    load_checkpoint,
    train,
)
from hrm_train.data.prepared import Prepared, prepare_series
from hrm_train.data.split import (
    Split,
    account_statistics,
    chronological_split,
    feature_statistics,
    judged_samples,
    walk_forward,
)
from hrm_train.data.windows import spread, windows
from hrm_train.errors import (
    CheckpointInvalid,
    DataInvalid,
    DeviceMissing,
    SettingsInvalid,
    TrainingDiverged,
    TrainingStopped,
)
from hrm_train.learning import trainer
from hrm_train.learning.act import Order
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.devices import HERE, Where, open_fabric
from hrm_train.learning.losses import answer_losses
from hrm_train.learning.run import Run, Tensors
from hrm_train.learning.state import Position, State
from hrm_train.learning.trainer import (
    Progress,
    evaluate,
    fit,
    held_out,
    initial_model,
    load_or_prepare,
    standing,
    train_folds,
)
from hrm_train.settings import Settings, render

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

HORIZON = 6
START = Position(step=0, epochs=(), loss_sum=0.0, loss_steps=0)


class Stopped(BaseException):
    """Raised by the host while it is told of progress: as good as a kill, but in this process."""


def stopping(after: int) -> Callable[[Progress], None]:
    """Progress that ends with the report of that number, from 1."""
    calls = []

    def on_progress(progress: Progress) -> None:
        calls.append(progress)
        if len(calls) == after:
            raise Stopped

    return on_progress


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copied(model: HierarchicalReasoningModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def begun(settings: Settings, prepared: Prepared, split: Split, slots: int = 64) -> Run:
    order = Order(split.train, slots, settings.training)
    return Run(open_fabric(HERE), initial_model(settings, prepared, split), prepared, order)


@pytest.fixture(scope="module")
def tensors(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors") / "bars.safetensors"
    prepared.save(path)
    return path


# the first model


def test_the_first_model_is_drawn_from_the_seed_and_knows_the_statistics(
    prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    one, same, other = (
        initial_model(make_settings({"training.seed": seed}), prepared, split) for seed in (0, 0, 1)
    )
    assert_equal(copied(one), copied(same))
    assert (one.h_module.initial_D != other.h_module.initial_D).all()
    for standardise, found in (
        (one.input_network.features, feature_statistics(prepared, split)),
        (one.input_network.account, account_statistics(prepared, split)),
    ):
        assert_equal(standardise.mean, torch.from_numpy(found.mean))
        assert_equal(standardise.std, torch.from_numpy(found.std))


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("most", [20, 100_000])
def test_held_out_windows_are_spread_over_the_validation_part(
    most: int,
    seed: int,
    prepared: Prepared,
    split: Split,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "HELD_OUT_WINDOWS", most)
    found = held_out(make_settings({"training.seed": seed}), prepared, split)
    expected = windows(prepared, spread(prepared, split.validation, most, seed), 205)
    assert len(found) == min(most, len(split.validation))
    for name, array in vars(expected).items():
        assert np.array_equal(getattr(found, name), array)


def test_too_few_windows_to_prove_an_artifact_with_are_refused(
    settings: Settings, prepared: Prepared, split: Split
) -> None:
    few = replace(split, validation=split.validation[:31])
    with pytest.raises(DataInvalid, match=r"at least 32 validation samples .*, found 31"):
        held_out(settings, prepared, few)


# epochs


@pytest.mark.parametrize(("batch_size", "most"), [(64, 3), (375, 2), (100, 1)])
def test_an_epoch_is_as_many_samples_as_there_are_and_every_step_and_epoch_is_told(
    batch_size: int, most: int, prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        {
            "training.epochs": 3,
            "training.batch_size": batch_size,
            "training.max_segments": most,
            "training.exploration": 0.5,
        }
    )
    many = len(split.train)
    assert many == 375
    told: list[Progress] = []
    run = begun(settings, prepared, split, batch_size)
    positions = list(fit(run, split.validation, START, told.append))

    twin, step = begun(settings, prepared, split, batch_size), 0
    expected_positions, expected = [], []
    epochs: tuple[Epoch, ...] = ()
    for number in (1, 2, 3):
        losses: list[float] = []
        while not (twin.slots.halted.any() and twin.slots.count.sum() >= number * many):
            done = twin.advance("here")
            step += 1
            losses.append(done.losses["total"])
            expected_positions.append(
                Position(step=step, epochs=epochs, loss_sum=sum(losses), loss_steps=len(losses))
            )
            finished = twin.slots.halted.sum()
            expected.append(
                Progress(
                    step=step,
                    samples=int(twin.slots.count.sum()),
                    of=3 * many,
                    losses=done.losses,
                    segments=twin.slots.segment[twin.slots.halted].mean() if finished else math.nan,
                    epochs=epochs,
                )
            )
        validated = evaluate(
            twin.fabric, twin.average.model, twin.tensors, split.validation, number,
            sum(losses) / len(losses),
        )  # fmt: skip
        epochs = (*epochs, validated)
        expected_positions.append(Position(step=step, epochs=epochs, loss_sum=0.0, loss_steps=0))
        expected.append(replace(expected[-1], epochs=epochs))
        # all samples were taken, and no more than one each is on its way into the next epoch
        assert number * many <= twin.slots.count.sum() < number * many + batch_size

    assert positions == expected_positions
    for found, wanted in zip(told, expected, strict=True):
        plain, other = (asdict(one) for one in (found, wanted))
        assert plain.pop("segments") == pytest.approx(other.pop("segments"), nan_ok=True)
        assert plain == other
    assert [epoch.number for epoch in positions[-1].epochs] == [1, 2, 3]
    assert any(math.isnan(progress.segments) for progress in told) == (most > 1)


def test_each_epoch_trains_on_every_sample_once_in_another_order(
    prepared: Prepared, split: Split, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[int, int] = {}  # by position in the order of all epochs
    refill = trainer.Run.advance

    def recording(run: Run, where: str) -> Any:
        due = np.flatnonzero(run.slots.halted)
        step = refill(run, where)
        for row in due:
            place = int(run.slots.count[row] - 1) * len(run.slots.count) + row
            taken[place] = int(run.slots.drawn.sample[row])
        return step

    monkeypatch.setattr(trainer.Run, "advance", recording)
    settings = make_settings({"training.epochs": 2, "training.max_segments": 1})
    list(fit(begun(settings, prepared, split), split.validation, START, lambda _: None))
    samples = [taken[place] for place in range(2 * len(split.train))]
    first, second = samples[: len(split.train)], samples[len(split.train) :]
    assert sorted(first) == sorted(second) == split.train.tolist()
    assert first != split.train.tolist() != second != first


@pytest.mark.parametrize("size", [64, 7, 1000])
def test_an_epoch_is_judged_by_the_answers_that_would_be_served_without_dropout(
    size: int,
    prepared: Prepared,
    split: Split,
    make_settings: MakeSettings,
    make_model: MakeModel,
) -> None:
    settings = make_settings(
        {
            "training.max_segments": 3,
            "training.batch_size": size,
            "network.h_module.dropout": 0.9,
        }
    )
    model = make_model(settings)
    with torch.no_grad():
        model.q_head.logits.bias.copy_(torch.tensor([-5.9, 0.0]))  # some halt after each segment
    samples = split.validation[:100]
    prepared_tensors = Tensors(prepared, 6)

    found = evaluate(open_fabric(HERE), model.train(), prepared_tensors, samples, 4, 0.5)

    model.eval()
    losses, regrets, segments = [], [], []
    for sample in samples:
        one = torch.tensor([sample])
        states, segment, halted = None, 0, False
        while not halted:
            segment += 1
            outputs, states = model(*prepared_tensors.inputs(one), states)
            q_halt, q_continue = outputs["q_values"][0]
            halted = segment == 3 or bool(q_halt > q_continue)
        segments.append(segment)
        labels = prepared_tensors.labels(one)
        losses.append(answer_losses(outputs, *labels, settings.training).total.item())
        returns = prepared.sample_returns[sample]
        regrets.append(np.nanmax(returns) - returns[outputs["action_type"].argmax()])
    assert set(segments) == {1, 2, 3}
    assert (found.number, found.train_loss) == (4, 0.5)
    assert found.validation_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.accuracy == np.mean([regret == 0 for regret in regrets])
    assert found.regret == pytest.approx(np.mean(regrets), rel=1e-6)
    assert found.segments == np.mean(segments)


# train: data in, folder out


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

    monkeypatch.setattr(trainer, "evaluate", scripted)
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


# resumed


SHORT = {
    "training.epochs": 2,
    "training.batch_size": 150,
    "training.ema_decay": 0.9,
    "training.exploration": 0.5,
    "training.save_minutes": 0.0,
}
REPORTS = 10
"""Steps and epochs that such a run tells of, at least."""


@pytest.fixture(scope="module")
def short(make_settings: MakeSettings) -> Settings:
    return make_settings(SHORT)


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What the run that was not stopped told."""
    return []


@pytest.fixture(scope="module")
def unstopped(
    short: Settings,
    tensors: Path,
    told: list[Progress],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("unstopped") / "checkpoint"
    train(short, tensors, folder, told.append)
    assert len(told) >= REPORTS
    return folder


def stopped(settings: Settings, data: Path, folder: Path, after: int, **options: Any) -> None:
    with pytest.raises(Stopped):
        train(settings, data, folder, stopping(after), **options)


@pytest.mark.parametrize("after", range(1, REPORTS + 1))
def test_a_run_stopped_at_any_step_and_resumed_writes_the_bytes_of_one_that_was_not(
    after: int,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    told: list[Progress],
    tmp_path: Path,
) -> None:
    stopped(short, tensors, tmp_path / "out", after)
    again: list[Progress] = []
    torch.manual_seed(after)
    checkpoint = train(short, tensors, tmp_path / "out", again.append, resume=True)
    assert content(tmp_path / "out") == content(unstopped)
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256
    # the step that was stopped in is done again; the report of an epoch needs a step before it
    ended = after > 1 and len(told[after - 1].epochs) > len(told[after - 2].epochs)
    assert repr(again) == repr(told[after if ended else after - 1 :])


def test_a_run_stopped_again_and_again_writes_the_same_bytes_too(
    short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    stopped(short, tensors, tmp_path / "out", 2)
    for after in (1, 2, 3):
        stopped(short, tensors, tmp_path / "out", after, resume=True)
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.mark.parametrize("after", [4, 8])
def test_a_run_that_saves_seldom_goes_on_from_its_last_epoch(
    after: int, tensors: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(SHORT | {"training.save_minutes": 10.0})
    whole: list[Progress] = []
    train(settings, tensors, tmp_path / "whole", whole.append)
    stopped(settings, tensors, tmp_path / "out", after)
    again: list[Progress] = []
    train(settings, tensors, tmp_path / "out", again.append, resume=True)
    first = 1 + [len(progress.epochs) for progress in whole].index(1)
    assert repr(again) == repr(whole if after <= first else whole[first:])
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (1, "step 1, in epoch 1 of 2"),
        (4, "step 4, in epoch 1 of 2"),
        (5, "step 4, the end of epoch 1 of 2"),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_at(
    after: int, where: str, tensors: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(SHORT | {"training.save_minutes": 1e6})
    train(settings, tensors, tmp_path / "whole")
    asked = iter(range(100))
    out = tmp_path / "out"
    with pytest.raises(TrainingStopped, match=f"out holds training up to {where}$"):
        train(settings, tensors, out, stop=lambda: next(asked) == after)
    ((folder, position),) = standing(out).items()
    assert folder == out
    assert position is not None
    assert position.told(2) == where
    train(settings, tensors, out, resume=True)
    assert content(out) == content(tmp_path / "whole")


def test_a_run_that_is_asked_to_stop_before_its_first_step_writes_nothing(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingStopped, match=r"out is as it was$"):
        train(short, tensors, tmp_path / "out", stop=lambda: True)
    assert list(tmp_path.iterdir()) == []
    assert standing(tmp_path / "out") == {tmp_path / "out": None}


def test_folds_that_are_asked_to_stop_stand_where_each_of_them_is(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    told: list[Progress] = []

    def in_second() -> bool:
        return bool(told) and told[-1].fold == 2

    with pytest.raises(TrainingStopped, match="fold-2 holds training up to step 1, in epoch 1 of"):
        train_folds(short, tensors, tmp_path, 2, told.append, stop=in_second)
    found = standing(tmp_path, 3)
    assert [path.name for path in found] == ["fold-1", "fold-2", "fold-3"]
    epochs = [position and len(position.epochs) for position in found.values()]
    assert epochs == [2, 0, None]


def test_what_holds_no_training_stands_nowhere(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(CheckpointInvalid, match="expected a new or empty folder or a checkpoint"):
        standing(tmp_path)
    shutil.copytree(trained, tmp_path / "out")
    (tmp_path / "out" / "last.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointInvalid, match=r"last\.safetensors: expected a state of"):
        standing(tmp_path / "out")
    (tmp_path / "out" / "last.safetensors").unlink()
    with pytest.raises(CheckpointInvalid, match="found a checkpoint without one"):
        standing(tmp_path / "out")


def test_a_finished_run_that_is_resumed_is_as_it_was(
    short: Settings, tensors: Path, unstopped: Path
) -> None:
    before = content(unstopped)
    again: list[Progress] = []
    checkpoint = train(short, tensors, unstopped, again.append, resume=True)
    assert (again, content(unstopped)) == ([], before)
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256


@pytest.mark.parametrize(
    "there",
    [None, [], ["settings.yaml"], ["settings.yaml", "windows.safetensors"],
     ["settings.yaml", "windows.safetensors", ".last.safetensors.partial"]],
    ids=["no folder", "empty", "settings", "windows too", "half a state too"],
)  # fmt: skip
def test_a_run_that_has_nothing_to_resume_starts(
    there: list[str] | None, short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    if there is not None:
        (tmp_path / "out").mkdir()
        for name in there:
            (tmp_path / "out" / name).write_text("half")
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training.epochs": 3}, "differs in settings.training.epochs: now 3, saved 2; resume"),
        (
            {"network.hierarchical.N_cycles": 3, "training.clip_norm": 0.5},
            "model.hierarchical.N_cycles: now 3, saved 2; settings.training.clip_norm: now 0.5, sa",
        ),
    ],
)
def test_a_run_is_not_resumed_under_other_settings(
    changes: dict[str, Any],
    named: str,
    tensors: Path,
    unstopped: Path,
    make_settings: MakeSettings,
) -> None:
    before = content(unstopped)
    message = rf"last\.safetensors: expected to resume what was begun, but .*{re.escape(named)}"
    with pytest.raises(CheckpointInvalid, match=message):
        train(make_settings(SHORT | changes), tensors, unstopped, resume=True)
    assert content(unstopped) == before


def test_a_run_is_not_resumed_on_other_data(
    short: Settings, prepared: Prepared, unstopped: Path, tmp_path: Path
) -> None:
    before = content(unstopped)
    features = prepared.features.copy()
    features[0, 0] += 1e-6
    other = replace(prepared, features=features)
    other.save(tmp_path / "other.safetensors")
    message = f"differs in data: now {other.digest()}, saved {prepared.digest()}; resume with the"
    with pytest.raises(CheckpointInvalid, match=message):
        train(short, tmp_path / "other.safetensors", unstopped, resume=True)
    assert content(unstopped) == before


def test_a_checkpoint_without_a_state_is_not_written_over(
    short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    extend_vocabulary(unstopped, tmp_path / "extended", [("Adani", "5")])
    before = content(tmp_path / "extended")
    message = "last.safetensors: expected a state of training to resume, found a checkpoint without"
    with pytest.raises(CheckpointInvalid, match=message):
        train(short, tensors, tmp_path / "extended", resume=True)
    assert content(tmp_path / "extended") == before


def test_a_damaged_state_is_refused_and_kept(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    stopped(short, tensors, tmp_path / "out", 3)
    last = tmp_path / "out" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    before = content(tmp_path / "out")
    with pytest.raises(CheckpointInvalid, match=r"last\.safetensors: expected a state of training"):
        train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        (False, "expected a new or empty folder, found precious; choose another, remove it, or re"),
        (True, "expected a new or empty folder or a checkpoint, found precious; choose another"),
    ],
)
def test_a_folder_of_other_things_is_refused_before_any_data_is_read(
    resume: bool, message: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(CheckpointInvalid, match=message):
        train(settings, [tmp_path / "absent.csv"], tmp_path, resume=resume)
    assert content(tmp_path) == {"precious": b"mine"}


def test_a_process_that_is_not_the_first_of_several_writes_nothing(
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds what the first has begun, or has ended, to write."""
    out = tmp_path / "out"
    shutil.copytree(unstopped, out)
    monkeypatch.setattr(trainer, "is_first_process", lambda: False)
    monkeypatch.setattr(Fabric, "is_global_zero", False)
    (out / "last.safetensors").unlink()
    before = content(out)
    checkpoint = train(short, tensors, out)
    assert content(out) == before
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256


# a disk that is full


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(whole: Callable[..., Any], error: Exception, nth: int, name: str) -> Any:
    """`whole`, but the `nth` call that has to do with a file called `name` fails half way."""
    calls = []

    def call(*arguments: Any, **named: Any) -> Any:
        paths = [one for one in arguments if isinstance(one, Path)]  # the first is written to
        if name in {path.name for path in paths}:
            calls.append(name)
            if len(calls) == nth:
                paths[0].write_bytes(b"half")
                raise error
        return whole(*arguments, **named)

    return call


def refused(settings: Settings, data: Path, out: Path) -> list[Progress]:
    """What was told until a file could not be written."""
    told: list[Progress] = []
    with pytest.raises(
        CheckpointInvalid,
        match=r"expected to write this file: .*No space left on device.*; what was saved before is",
    ):
        train(settings, data, out, told.append)
    assert not list(out.glob(".*"))
    return told


@pytest.mark.parametrize(
    ("target", "name", "nth", "error"),
    [
        ("os.replace", "settings.yaml", 1, FULL),
        ("os.replace", "windows.safetensors", 1, FULL),
        ("os.replace", "last.safetensors", 1, FULL),
        ("os.replace", "last.safetensors", 3, FULL),
        ("os.replace", "best-1.safetensors", 1, FULL),
        ("os.replace", "checkpoint.json", 1, FULL),
        ("hrm_train.data.windows.Windows.save", ".windows.safetensors.partial", 1, FULL),
        ("hrm_train.learning.state.State.save", ".last.safetensors.partial", 2, FULL),
        (
            "hrm_train.learning.state.State.save",
            ".last.safetensors.partial",
            4,
            SafetensorError("I/O error: No space left on device"),
        ),
    ],
)
def test_a_write_that_fails_in_the_first_epoch_leaves_what_can_be_resumed(
    target: str,
    name: str,
    nth: int,
    error: Exception,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, failing(pkgutil.resolve_name(target), error, nth, name))
        refused(short, tensors, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint.json").exists()
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.mark.parametrize(
    ("target", "name", "nth", "error"),
    [
        ("os.replace", "last.safetensors", 9, FULL),
        ("os.replace", "last.safetensors", 8, FULL),
        ("os.replace", "best-2.safetensors", 1, FULL),
        ("os.replace", "checkpoint.json", 2, FULL),
        (
            "hrm_train.network.model.HierarchicalReasoningModel.save_model",
            ".best-2.safetensors.partial",
            1,
            FULL,
        ),
        (
            "hrm_train.learning.state.State.save",
            ".last.safetensors.partial",
            8,
            SafetensorError("I/O error: No space left on device"),
        ),
    ],
)
def test_a_write_that_fails_later_leaves_what_can_be_loaded_and_resumed(
    target: str,
    name: str,
    nth: int,
    error: Exception,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, failing(pkgutil.resolve_name(target), error, nth, name))
        told = refused(short, tensors, tmp_path / "out")
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.description.best_epoch == 1
    assert loaded.description.epochs == told[-1].epochs[:1]
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


# walk-forward folds


@pytest.fixture(scope="module")
def folding(make_settings: MakeSettings) -> Settings:
    return make_settings(
        {
            "training.validation_fraction": 0.5,
            "training.batch_size": 150,
            "training.save_minutes": 0.0,
            "training.epochs": 2,
        }
    )


class Recorded(Order):
    """Keeps the samples that are trained on."""

    made: list[Any] = []  # noqa: RUF012, emptied by the fixture

    def __init__(self, samples: Any, *arguments: Any) -> None:
        Recorded.made.append(samples)
        super().__init__(samples, *arguments)


@pytest.fixture(scope="module")
def folds(
    folding: Settings, tensors: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any], list[Progress]]:
    """The folder of two folds, the samples each was trained on, and what was told."""
    folder, told = tmp_path_factory.mktemp("folds"), list[Progress]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorded, "made", [])
        patch.setattr(trainer, "Order", Recorded)
        trained = train_folds(folding, tensors, folder, 2, told.append)
        samples = Recorded.made
    assert [one.sha256 for one in trained] == [
        load_checkpoint(folder / f"fold-{number}").sha256 for number in (1, 2)
    ]
    return folder, samples, told


@pytest.mark.parametrize("number", [1, 2])
def test_a_fold_never_trains_on_what_is_known_only_when_it_is_judged(
    number: int, folds: tuple[Path, list[Any], list[Progress]], prepared: Prepared
) -> None:
    folder, samples, _ = folds
    fold = walk_forward(prepared, 2, 0.5, HORIZON)[number - 1]
    checkpoint = load_checkpoint(folder / f"fold-{number}")
    description = checkpoint.description
    assert (description.judged_from, description.judged_until) == (fold.start, fold.end)
    assert description.boundary == fold.split.boundary < description.judged_from
    trained = samples[number - 1]
    assert trained.tolist() == fold.split.train.tolist()
    assert prepared.sample_end[trained].max() < description.boundary
    assert checkpoint.windows.stamps.max() < description.judged_from
    judged = judged_samples(prepared, fold.start, fold.end, HORIZON)
    assert not np.isin(judged, [*trained, *fold.split.validation]).any()
    assert prepared.sample_stamp[judged].min() > prepared.sample_end[trained].max()
    found = (description.train_samples, description.validation_samples)
    assert found == (len(fold.split.train), len(fold.split.validation))
    known = feature_statistics(prepared, fold.split)
    assert_equal(checkpoint.model.input_network.features.mean, torch.from_numpy(known.mean))


def test_progress_says_which_fold_is_trained(
    folds: tuple[Path, list[Any], list[Progress]],
) -> None:
    _, samples, told = folds
    assert {(one.fold, one.folds, one.of) for one in told} == {
        (1, 2, 2 * len(samples[0])),
        (2, 2, 2 * len(samples[1])),
    }
    assert [one.fold for one in told] == sorted(one.fold for one in told)
    assert [next(one.step for one in told if one.fold == fold) for fold in (1, 2)] == [1, 1]


@pytest.mark.parametrize("share", [0.25, 0.75], ids=["in the first fold", "in the second"])
def test_folds_are_resumed_where_they_were_stopped(
    share: float,
    folds: tuple[Path, list[Any], list[Progress]],
    folding: Settings,
    tensors: Path,
    tmp_path: Path,
) -> None:
    folder, _, told = folds
    after = int(share * len(told))
    with pytest.raises(Stopped):
        train_folds(folding, tensors, tmp_path, 2, stopping(after))
    again: list[Progress] = []
    train_folds(folding, tensors, tmp_path, 2, again.append, resume=True)
    for name in ("fold-1", "fold-2"):
        assert content(tmp_path / name) == content(folder / name)
    assert {one.fold for one in again} == ({1, 2} if told[after - 1].fold == 1 else {2})


def test_a_fold_is_not_resumed_as_one_of_another_number_of_folds(
    folds: tuple[Path, list[Any], list[Progress]], folding: Settings, tensors: Path
) -> None:
    message = r"fold-1/last\.safetensors: .* differs in boundary: now \d+, saved \d+; judged_from"
    with pytest.raises(CheckpointInvalid, match=message):
        train_folds(folding, tensors, folds[0], 1, resume=True)


def test_folds_that_cannot_be_trained_leave_nothing_written(
    folding: Settings, tensors: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataInvalid, match="fold 1 of 30: expected samples to train on"):
        train_folds(folding, tensors, tmp_path / "out", 30)
    assert not (tmp_path / "out").exists()
    (tmp_path / "fold-2").mkdir()
    (tmp_path / "fold-2" / "mine").write_text("precious")
    with pytest.raises(CheckpointInvalid, match="fold-2: expected a new or empty folder, found m"):
        train_folds(folding, tmp_path / "absent.csv", tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-2"]


def test_folds_go_on_from_those_of_an_earlier_walk_with_quantisers(
    folds: tuple[Path, list[Any], list[Progress]],
    folding: Settings,
    tensors: Path,
    tmp_path: Path,
) -> None:
    walk, _, _ = folds
    quantised = train_folds(folding, tensors, tmp_path / "q", 2, init_from=walk, quantise=True)
    for number, one in enumerate(quantised, start=1):
        source = load_checkpoint(walk / f"fold-{number}")
        assert one.model.quantised
        assert not source.model.quantised
        known, found = source.description, one.description
        assert found.initialized_from == source.sha256
        assert (found.boundary, found.judged_from, found.judged_until) == (
            known.boundary, known.judged_from, known.judged_until,
        )  # fmt: skip
        assert (found.train_samples, found.validation_samples) == (
            known.train_samples, known.validation_samples,
        )  # fmt: skip
        mean = one.model.input_network.features.mean
        assert_equal(mean, source.model.input_network.features.mean)
    # quantised sources stay so, and what they know may not change
    again = train_folds(folding, tensors, tmp_path / "r", 2, init_from=tmp_path / "q")
    assert all(one.model.quantised for one in again)
    message = r"fold-1: expected a fold that knows and is judged on the same parts of time, \(\d+, "
    with pytest.raises(CheckpointInvalid, match=message):
        train_folds(folding, tensors, tmp_path / "s", 3, init_from=walk)
    with pytest.raises(SettingsInvalid, match="quantise: expected a checkpoint to go on from"):
        train_folds(folding, tensors, tmp_path / "s", 2, quantise=True)
    assert not (tmp_path / "s").exists()


def test_a_gpu_runs_what_was_compiled_after_the_weights_were_restored(
    short: Settings, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(short, tensors, tmp_path / "out", 3)
    saved = State.load(tmp_path / "out" / "last.safetensors").position.step
    steps: list[int] = []
    monkeypatch.setattr(trainer.Run, "compile", lambda run: steps.append(run.steps))
    monkeypatch.setattr(trainer, "is_gpu", lambda _: True)
    train(short, tensors, tmp_path / "out", resume=True)
    assert steps == [saved]
    assert saved > 0


# going on from a checkpoint


DAY = 86_400


def moved(bars: Bars, days: int) -> Bars:
    return Bars(bars.datetime + days * DAY, bars.open, bars.high, bars.low, bars.close)


@pytest.fixture(scope="module")
def more(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of later bars: a name before all known ones, and one of those."""
    path = tmp_path_factory.mktemp("more") / "bars.safetensors"
    series = {
        ("Adani", "5"): moved(random_bars(300, seed=5, price=50.0), 30),
        ("Nifty", "15"): moved(random_bars(260, seed=6, seconds=900, price=20_000.0), 30),
    }
    prepare_series(settings, series).save(path)
    return path


def test_training_goes_on_from_the_weights_and_statistics_of_the_source(
    trained: Path, more: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    before = content(trained)
    settings = make_settings({"training.ema_decay": 0.9, "training.learning_rate": 1e-4})
    stopped(settings, more, tmp_path / "out", 1, init_from=trained)
    state = load_file(tmp_path / "out" / "last.safetensors")
    source = load_checkpoint(trained)
    expected = copied(source.model)
    table = expected["input_network.instrument_embedding.weight"]
    table[3] = table[0]  # the new name starts as an unknown one
    for of in ("model", "average"):
        found = {n[len(of) + 1 :]: t for n, t in state.items() if n.startswith(f"{of}/")}
        assert_equal(found, expected)
    assert not any(name.startswith("optimizer") for name in state)
    assert content(trained) == before


def test_new_names_are_appended_and_the_samples_renumbered(
    trained: Path, more: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"training.unknown_probability": 0.0})
    source = load_checkpoint(trained)
    checkpoint = train(settings, more, tmp_path / "out", init_from=trained)
    description = checkpoint.description
    assert description.initialized_from == source.sha256
    assert {name: facts.id for name, facts in description.vocabulary.instruments.items()} == {
        "unknown": 0, "Nifty": 1, "Reliance": 2, "Adani": 3,
    }  # fmt: skip
    assert description.vocabulary.timeframes == source.description.vocabulary.timeframes
    assert [(one.instrument, one.timeframe) for one in description.series] == [
        ("Adani", "5"), ("Nifty", "15"),
    ]  # fmt: skip
    # by name, the rows that were trained are those of the data, and its windows say who they are
    name = "input_network.instrument_embedding.weight"
    changed = (copied(checkpoint.model)[name] != copied(source.model)[name]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [1, 3]
    cheap = checkpoint.windows.prices[:, 3].max(axis=1) < 1_000
    assert set(checkpoint.windows.instrument[cheap].tolist()) == {3}
    assert set(checkpoint.windows.instrument[~cheap].tolist()) == {1}
    assert set(checkpoint.windows.timeframe[cheap].tolist()) == {2}
    assert set(checkpoint.windows.timeframe[~cheap].tolist()) == {1}
    for of in ("features", "account"):
        one, other = (getattr(each.model.input_network, of) for each in (checkpoint, source))
        assert_equal((one.mean, one.std), (other.mean, other.std))


@pytest.mark.parametrize("days", [-30, 30])
@pytest.mark.parametrize("fold", [False, True], ids=["of a training", "of a fold"])
def test_what_a_source_knew_never_judges_what_went_on_from_it(
    fold: bool,
    days: int,
    trained: Path,
    folds: tuple[Path, list[Any], list[Progress]],
    settings: Settings,
    tmp_path: Path,
) -> None:
    source = folds[0] / "fold-1" if fold else trained
    known = load_checkpoint(source).description.judged_from
    data = prepare_series(settings, {("Nifty", "5"): moved(random_bars(300), days)})
    data.save(tmp_path / "bars.safetensors")
    own = chronological_split(data, 0.4, HORIZON).boundary
    assert (own > known) == (days > 0)
    arguments = (settings, tmp_path / "bars.safetensors", tmp_path / "out")
    if days < 0:
        with pytest.raises(DataInvalid, match="expected bars to validate on that are later than"):
            train(*arguments, init_from=source)
        return
    description = train(*arguments, init_from=source).description
    assert (description.boundary, description.judged_from) == (own, own)
    assert description.judged_until is None


def test_a_run_that_went_on_from_a_checkpoint_is_resumed_with_the_same_one_only(
    trained: Path, unstopped: Path, more: Path, short: Settings, tmp_path: Path
) -> None:
    whole = train(short, more, tmp_path / "whole", init_from=trained)
    stopped(short, more, tmp_path / "out", 4, init_from=trained)
    source = whole.description.initialized_from
    for other, digest in ((None, "None"), (unstopped, load_checkpoint(unstopped).sha256)):
        message = f"initialized_from: now {digest}, saved {source}; resume"
        with pytest.raises(CheckpointInvalid, match=message):
            train(short, more, tmp_path / "out", init_from=other, resume=True)
    train(short, more, tmp_path / "out", init_from=trained, resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"instruments.Nifty.lot_size": 50},
            DataInvalid,
            r"instruments\.Nifty\.lot_size: known 75, found 50",
        ),
        ({"timeframes": {"5": {"seconds": 301}}}, DataInvalid, r"5\.seconds: known 300, found 301"),
        (
            {"network.h_module.ffn_dim": 32},
            SettingsInvalid,
            r"h_module\.ffn_dim: expected 24, as trained, found 32",
        ),
    ],
)
def test_what_does_not_fit_the_source_is_refused_and_nothing_written(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    trained: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
) -> None:
    settings = make_settings(changes)
    series = {("Nifty", "5"): random_bars(300, seconds=settings.seconds("5"))}
    prepare_series(settings, series).save(tmp_path / "bars.safetensors")
    with pytest.raises(error, match=message):
        train(settings, tmp_path / "bars.safetensors", tmp_path / "out", init_from=trained)
    assert not (tmp_path / "out").exists()


def test_settings_may_have_facts_of_what_the_data_lack_and_the_source_knows(
    trained: Path,
    folds: tuple[Path, list[Any], list[Progress]],
    series: dict[tuple[str, str], Bars],
    make_settings: MakeSettings,
    tmp_path: Path,
) -> None:
    write_csv(series["Reliance", "5"], tmp_path / "Reliance_5.csv")
    settings = make_settings({"instruments.TCS": {}, "timeframes.15": {"seconds": 900}})
    for go in (
        lambda **how: train(settings, tmp_path, tmp_path / "out", **how),
        lambda **how: train_folds(settings, tmp_path, tmp_path / "out", 2, **how),
    ):
        with pytest.raises(SettingsInvalid) as caught:
            go()
        refused = [line.partition(":")[0] for line in str(caught.value).splitlines()]
        assert refused == ["instruments.Nifty", "instruments.TCS", "timeframes.15"]
    for go_on in (
        lambda: train(settings, tmp_path, tmp_path / "out", init_from=trained),
        lambda: train_folds(settings, tmp_path, tmp_path / "out", 2, init_from=folds[0]),
    ):
        message = r"^instruments\.TCS: expected a name of the data or of the checkpoint; known are"
        with pytest.raises(SettingsInvalid, match=f"{message} Nifty, Reliance; correct it, or r"):
            go_on()
    assert not (tmp_path / "out").exists()


def test_a_source_that_cannot_be_read_is_refused_before_any_data_is_read(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointInvalid, match="absent/fold-1: expected a checkpoint folder"):
        train_folds(
            settings, tmp_path / "no.csv", tmp_path / "out", 2, init_from=tmp_path / "absent"
        )
    with pytest.raises(CheckpointInvalid, match="absent: expected a checkpoint folder"):
        train(settings, tmp_path / "no.csv", tmp_path / "out", init_from=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


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
        ("Nifty_15.csv", 300, DataInvalid, "Nifty_15: expected bars 900 s apart"),
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
    write_csv(Bars(300 * np.arange(400), *np.full((4, 400), 100.0)), tmp_path / "Nifty_5.csv")
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
    return Bars(
        300 * np.arange(count), close[:-1], 1.001 * close[1:], 0.999 * close[:-1], close[1:]
    )


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
    settings = make_settings({"training.epochs": 1})
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
