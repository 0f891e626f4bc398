"""Step after step and epoch after epoch, and how an epoch is judged."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from hrm_train import HierarchicalReasoningModel
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.learning.act import Order
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.devices import HERE, open_fabric
from hrm_train.learning.epochs import Progress, evaluate, fit
from hrm_train.learning.losses import answer_losses
from hrm_train.learning.plan import initial_model
from hrm_train.learning.run import Run, Tensors
from hrm_train.learning.state import Position
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

START = Position(step=0, epochs=(), loss_sum=0.0, loss_steps=0)


def begun(settings: Settings, prepared: Prepared, split: Split, slots: int = 64) -> Run:
    order = Order(split.train, slots, settings.training)
    return Run(open_fabric(HERE), initial_model(settings, prepared, split), prepared, order)


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
    refill = Run.advance

    def recording(run: Run, where: str) -> Any:
        due = np.flatnonzero(run.slots.halted)
        step = refill(run, where)
        for row in due:
            place = int(run.slots.count[row] - 1) * len(run.slots.count) + row
            taken[place] = int(run.slots.drawn.sample[row])
        return step

    monkeypatch.setattr(Run, "advance", recording)
    settings = make_settings({"training.epochs": 2, "training.max_segments": 1})
    list(fit(begun(settings, prepared, split), split.validation, START, lambda _: None))
    samples = [taken[place] for place in range(2 * len(split.train))]
    first, second = samples[: len(split.train)], samples[len(split.train) :]
    assert sorted(first) == sorted(second) == split.train.tolist()
    assert first != split.train.tolist() != second != first


MakeHalting = Callable[[int], HierarchicalReasoningModel]


@pytest.fixture(scope="module")
def make_halting(make_settings: MakeSettings, make_model: MakeModel) -> MakeHalting:
    """Models of the same weights, by the size of their batches."""

    def make(size: int) -> HierarchicalReasoningModel:
        changes = {"training.max_segments": 3, "network.h_module.dropout": 0.9}
        model = make_model(make_settings({**changes, "training.batch_size": size}))
        with torch.no_grad():
            model.q_head.logits.bias.copy_(torch.tensor([0.5, 0.0]))  # some halt after each segment
        return model

    return make


@pytest.fixture(scope="module")
def one_by_one(
    prepared: Prepared, split: Split, make_halting: MakeHalting
) -> tuple[list[float], list[float], list[int]]:
    """Losses, regrets and segments of samples that are answered each on its own."""
    model, prepared_tensors = make_halting(1), Tensors(prepared, 6)
    losses, regrets, segments = [], [], []
    for sample in split.validation[:100]:
        one = torch.tensor([sample])
        states, segment, halted = None, 0, False
        while not halted:
            segment += 1
            outputs, states = model(*prepared_tensors.inputs(one), states)
            q_halt, q_continue = outputs["q_values"][0]
            halted = segment == 3 or bool(q_halt > q_continue)
        segments.append(segment)
        labels = prepared_tensors.labels(one)
        losses.append(answer_losses(outputs, *labels, model.settings.training).total.item())
        returns = prepared.sample_returns[sample]
        regrets.append(np.nanmax(returns) - returns[outputs["action_type"].argmax()])
    assert set(segments) == {1, 2, 3}
    return losses, regrets, segments


@pytest.mark.parametrize("size", [64, 7, 1000])
def test_an_epoch_is_judged_by_the_answers_that_would_be_served_without_dropout(
    size: int,
    prepared: Prepared,
    split: Split,
    make_halting: MakeHalting,
    one_by_one: tuple[list[float], list[float], list[int]],
) -> None:
    model, samples = make_halting(size).train(), split.validation[:100]
    found = evaluate(open_fabric(HERE), model, Tensors(prepared, 6), samples, 4, 0.5)
    losses, regrets, segments = one_by_one
    assert (found.number, found.train_loss) == (4, 0.5)
    assert found.validation_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.accuracy == np.mean([regret == 0 for regret in regrets])
    assert found.regret == pytest.approx(np.mean(regrets), rel=1e-6)
    assert found.segments == np.mean(segments)
