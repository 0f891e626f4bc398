"""The training loop: its gradient, its steps, its seed, and that it learns."""

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
from synthetic import random_bars
from torch import Tensor

from hrm_runtime.bars import write_csv
from hrm_runtime.contract import Timeframe
from hrm_runtime.errors import BadBars
from hrm_train import HierarchicalReasoningModel, load_checkpoint, train, trainer
from hrm_train.checkpoint import Epoch
from hrm_train.errors import (
    CheckpointInvalid,
    DataInvalid,
    SettingsInvalid,
    TrainingDiverged,
)
from hrm_train.losses import segment_losses
from hrm_train.prepared import Prepared, prepare_series
from hrm_train.settings import Settings, render
from hrm_train.split import Split, account_statistics, feature_statistics
from hrm_train.trainer import (
    Batch,
    Progress,
    Tensors,
    evaluate,
    fit,
    held_out,
    hide_identities,
    initial_model,
    load_or_prepare,
    one_step_segment,
    supervise,
)
from hrm_train.windows import spread, windows

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

LOOPS = [(1, 1), (1, 3), (2, 1), (2, 3), (3, 5)]
FILES = {
    "best.safetensors", "checkpoint.json", "last.safetensors", "settings.yaml",
    "windows.safetensors",
}  # fmt: skip


def looped(cycles: int, timesteps: int, reset: bool = True) -> dict[str, Any]:
    return {
        "network.hierarchical.N_cycles": cycles,
        "network.hierarchical.T_timesteps": timesteps,
        "network.hierarchical.reset_l_module": reset,
    }


def doubled(batch: Batch) -> Batch:
    floats = ("features", "account", "returns", "lots")
    return replace(batch, **{name: getattr(batch, name).double() for name in floats})


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch.features, batch.account, batch.instrument, batch.timeframe


def total_loss(
    model: HierarchicalReasoningModel, outputs: dict[str, Tensor], batch: Batch
) -> Tensor:
    return segment_losses(outputs, batch.returns, batch.lots, model.settings).total


def copied(model: HierarchicalReasoningModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# the one-step gradient


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_a_segment_with_the_one_step_gradient_computes_what_forward_does(
    cycles: int,
    timesteps: int,
    reset: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings(looped(cycles, timesteps, reset)))
    states = model.initialize_states()
    for _ in range(2):  # from the initial states, then from carried ones
        outputs, after = one_step_segment(model, batch, states)
        expected, expected_after = model(*inputs(batch), states)
        assert_equal(after, expected_after)
        assert_equal(outputs, {name: expected[name] for name in outputs})
        states = (after[0].detach(), after[1].detach())


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_the_gradient_is_the_exact_one_of_the_last_steps(
    cycles: int,
    timesteps: int,
    reset: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings(looped(cycles, timesteps, reset))).double()
    batch = doubled(batch)
    states = (torch.randn(9, 4, 16).double(), torch.randn(9, 4, 8).double())

    with torch.no_grad():  # every step but the last of L and the last of H
        x = model.encode(*inputs(batch))
        z_H, z_L = states
        for n in range(cycles):
            if n > 0 and reset:
                z_L = model.l_module.initial_D.expand(9, 4, 8)
            last = n == cycles - 1
            for _ in range(timesteps - last):
                z_L = model.low(z_L, z_H, x)
            z_H = z_H if last else model.high(z_H, z_L)
    settled = model.low(z_L, z_H, model.encode(*inputs(batch)))
    outputs = model.decode(model.high(z_H, settled), batch.account)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(total_loss(model, outputs, batch), parameters, allow_unused=True)

    total_loss(model, one_step_segment(model, batch, states)[0], batch).backward()

    for name, parameter, gradient in zip(names, parameters, expected, strict=True):
        if gradient is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-12, msg=name)


def test_every_parameter_but_the_halting_heads_gets_a_gradient(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    outputs, _ = one_step_segment(model, batch, model.initialize_states())
    total_loss(model, outputs, batch).backward()
    reached = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and (parameter.grad != 0).any()
    }
    everything = {name for name, _ in model.named_parameters()}
    assert everything - reached == {"q_head.logits.weight", "q_head.logits.bias"}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_only_the_rows_in_the_batch_of_a_table_get_a_gradient(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    outputs, _ = one_step_segment(model, batch, model.initialize_states())
    total_loss(model, outputs, batch).backward()
    gradient = model.input_network.instrument_embedding.weight.grad
    assert gradient is not None
    assert set(gradient.any(dim=1).nonzero().flatten().tolist()) == {1, 2}


@pytest.mark.parametrize("loops", [(1, 2), (2, 1), (2, 3)])
def test_no_gradient_flows_into_the_states_a_segment_starts_from(
    loops: tuple[int, int], make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(*loops)))
    z_L = torch.randn(9, 4, 8, requires_grad=True)
    outputs, _ = one_step_segment(model, batch, (model.initialize_states()[0], z_L))
    total_loss(model, outputs, batch).backward()
    assert z_L.grad is None


def graph_size(output: Tensor) -> int:
    """Nodes that the gradient goes through."""
    seen, queue = set(), [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None and node not in seen:
            seen.add(node)
            queue += [following for following, _ in node.next_functions]
    return len(seen)


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_steps(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    sizes = set()
    for loops in LOOPS:
        model = make_model(make_settings(looped(*loops)))
        outputs, _ = one_step_segment(model, batch, model.initialize_states())
        sizes.add(graph_size(total_loss(model, outputs, batch)))
    assert len(sizes) == 1


# deep supervision


class Counting(torch.optim.SGD):
    """Plain descent that keeps the gradient of each step."""

    def __init__(self, model: HierarchicalReasoningModel, rate: float) -> None:
        super().__init__(model.parameters(), lr=rate)
        self.gradients: list[Tensor] = []
        self.value_weight = model.value_head.value.weight

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert self.value_weight.grad is not None
        self.gradients.append(self.value_weight.grad.clone())
        super().step()


def constant_rate(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


@pytest.mark.parametrize("segments", [1, 3])
def test_supervision_steps_once_per_segment_from_the_states_of_the_last(
    segments: int, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    settings, batch = make_settings({"training.max_segments": segments}), doubled(batch)
    model, twin = make_model(settings).double(), make_model(settings).double()
    optimizer = Counting(model, rate=0.1)
    schedule = constant_rate(optimizer)

    loss = supervise(model, batch, optimizer, schedule)

    assert len(optimizer.gradients) == schedule.last_epoch == segments
    states = twin.initialize_states()
    for found in optimizer.gradients:  # the same by hand
        outputs, (z_H, z_L) = one_step_segment(twin, batch, states)
        states = (z_H.detach(), z_L.detach())
        expected = total_loss(twin, outputs, batch)
        twin.zero_grad()
        expected.backward()
        torch.testing.assert_close(found, twin.value_head.value.weight.grad, rtol=0, atol=1e-12)
        for parameter in twin.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.1 * parameter.grad
    assert loss == pytest.approx(expected.item(), rel=1e-12)  # of the last segment
    torch.testing.assert_close(
        dict(model.state_dict()), dict(twin.state_dict()), rtol=0, atol=1e-12
    )


def test_carried_states_have_no_gradient_of_their_own(
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(make_settings(looped(1, 1) | {"training.max_segments": 3}))
    carried: list[tuple[Tensor, Tensor]] = []

    def recording(*arguments: Any) -> Any:
        carried.append(arguments[2])
        return one_step_segment(*arguments)

    monkeypatch.setattr(trainer, "one_step_segment", recording)
    optimizer = Counting(model, rate=0.1)
    supervise(model, batch, optimizer, constant_rate(optimizer))
    assert [[state.requires_grad for state in states] for states in carried] == [[False] * 2] * 3
    assert len({states[0].sum().item() for states in carried}) == 3


class Recording(torch.optim.AdamW):
    """AdamW that keeps the rate of each step."""

    made: list["Recording"] = []  # noqa: RUF012, emptied by the test

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.rates: list[float] = []
        Recording.made.append(self)

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.rates.append(self.param_groups[0]["lr"])
        super().step()


@pytest.mark.parametrize(
    ("warmup", "shares"), [(0, [1.0, 1.0, 1.0]), (1, [0.5, 1.0, 1.0]), (3, [0.25, 0.5, 0.75, 1.0])]
)
def test_the_rate_warms_up_linearly_and_stays(
    warmup: int,
    shares: list[float],
    prepared: Prepared,
    split: Split,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    settings = make_settings(
        {"training.warmup_steps": warmup, "training.epochs": 2, "training.weight_decay": 0.3}
    )
    model = initial_model(settings, prepared, split)
    list(fit(model, Tensors(prepared, 6), split))
    optimizer = Recording.made.pop()
    steps = 2 * -(-len(split.train) // 64) * 2  # epochs, batches, segments
    expected = [1e-3 * share for share in shares] + [1e-3] * (steps - len(shares))
    assert optimizer.rates == pytest.approx(expected, rel=1e-12)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


# hidden identities


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5])
def test_identities_are_hidden_about_as_often_as_asked_and_apart(
    probability: float, batch: Batch
) -> None:
    count = 40_000
    ids = replace(batch, instrument=torch.arange(1, count + 1), timeframe=torch.full((count,), 3))
    torch.manual_seed(0)
    hidden = hide_identities(ids, probability)
    first, second = hidden.instrument == 0, hidden.timeframe == 0
    for gone in (first, second):
        assert gone.double().mean().item() == pytest.approx(probability, abs=0.005)
    both = (first & second).double().mean().item()
    assert both == pytest.approx(probability**2, abs=0.005)
    assert_equal(hidden.instrument[~first], ids.instrument[~first])
    assert_equal(hidden.timeframe[~second], ids.timeframe[~second])
    for name in ("features", "account", "returns", "lots"):
        assert getattr(hidden, name) is getattr(batch, name)


@pytest.mark.parametrize(("probability", "shown"), [(0.0, 1), (0.999, 0)])
def test_training_hides_identities_as_often_as_its_settings_say(
    probability: float,
    shown: int,
    prepared: Prepared,
    split: Split,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Batch] = []

    def recording(_: object, batch: Batch, *__: object) -> float:
        seen.append(batch)
        return 0.0

    monkeypatch.setattr(trainer, "supervise", recording)
    settings = make_settings({"training.unknown_probability": probability})
    fitted(settings, prepared, replace(split, train=split.train[:8]))  # Nifty_15
    (batch,) = seen
    assert_equal(batch.instrument, torch.full((8,), shown))
    assert_equal(batch.timeframe, torch.full((8,), shown))


# batches and the first model


def test_a_batch_holds_the_windows_and_values_of_its_samples(prepared: Prepared) -> None:
    samples = np.array([5, 400, 17])
    batch = Tensors(prepared, 6).batch(torch.from_numpy(samples))
    windows_ = [prepared.features[row - 5 : row + 1] for row in prepared.sample_row[samples]]
    assert_equal(batch.features, torch.from_numpy(np.stack(windows_)))
    for name in ("account", "instrument", "timeframe", "returns", "lots"):
        expected = torch.from_numpy(getattr(prepared, f"sample_{name}")[samples])
        torch.testing.assert_close(getattr(batch, name), expected, rtol=0, atol=0, equal_nan=True)


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


# fitting


def fitted(settings: Settings, prepared: Prepared, split: Split) -> HierarchicalReasoningModel:
    model = initial_model(settings, prepared, split)
    list(fit(model, Tensors(prepared, 6), split))
    return model


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(
    prepared: Prepared, split: Split, settings: Settings
) -> None:
    torch.manual_seed(1)
    one = fitted(settings, prepared, split)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert_equal(copied(fitted(settings, prepared, split)), copied(one))
    assert_equal(torch.random.get_rng_state(), before)  # the host's generator is its own


def test_another_seed_gives_other_weights(
    prepared: Prepared, split: Split, settings: Settings, make_settings: MakeSettings
) -> None:
    one = copied(fitted(settings, prepared, split))
    other = copied(fitted(make_settings({"training.seed": 1}), prepared, split))
    assert (one["value_head.value.weight"] != other["value_head.value.weight"]).all()


def test_each_epoch_trains_on_every_sample_once_in_another_order(
    prepared: Prepared, split: Split, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    modes: list[bool] = []

    class Asked(Tensors):
        def batch(self, samples: Tensor) -> Batch:
            asked.extend(samples.tolist())
            return super().batch(samples)

    def silent(model: HierarchicalReasoningModel, *_: Any) -> float:
        modes.append(model.training)
        return 0.0

    monkeypatch.setattr(trainer, "supervise", silent)
    settings = make_settings({"training.epochs": 2})
    list(fit(initial_model(settings, prepared, split), Asked(prepared, 6), split))

    train, validation = split.train.tolist(), split.validation.tolist()
    first, second = asked[: len(train)], asked[-len(train) - len(validation) : -len(validation)]
    assert asked == [*first, *validation, *second, *validation]
    assert sorted(first) == sorted(second) == train
    assert first != train != second != first
    assert modes == [True] * 2 * -(-len(train) // 64)  # dropout acts in every epoch


def toy(prepared: Prepared) -> Prepared:
    """Samples whose best action, and its worth, is the sign of one feature of the newest row."""
    features = np.zeros_like(prepared.features)
    features[:, 3] = np.random.default_rng(0).choice([-1, 1], size=len(features))
    up = features[prepared.sample_row, 3]
    legal = np.isfinite(prepared.sample_returns)
    zero = np.zeros_like(up)
    returns = np.stack([2 * up, -2 * up, zero, zero, zero], axis=1)
    held = ~legal[:, 0]
    returns[held] = 2 * up[held, None] * [0, 0, -1, -1, 1]  # close where it is down
    return replace(
        prepared,
        features=features,
        sample_returns=np.where(legal, returns, np.nan).astype("f4"),
        sample_lots=np.full(len(prepared), 100.0, dtype="f4"),
    )


def test_training_learns_a_rule_that_is_there(
    prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        {
            "training.epochs": 10,
            "training.learning_rate": 5e-3,
            "network.h_module.dropout": 0.0,
            "network.l_module.dropout": 0.0,
        }
    )
    simple = toy(prepared)
    tensors = Tensors(simple, 6)
    model = initial_model(settings, simple, split)
    start = evaluate(model, tensors, split.validation, 0, 0.0)
    epochs = list(fit(model, tensors, split))
    assert epochs[-1].train_loss < 0.25 * epochs[0].train_loss
    assert epochs[-1].validation_loss < 0.25 * start.validation_loss
    assert epochs[-1].accuracy > 0.95 > start.accuracy
    assert epochs[-1].regret < 0.25 * start.regret


def test_progress_counts_batches_and_shows_the_epochs_done(
    prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    settings = make_settings({"training.epochs": 2, "training.batch_size": 200})
    shown: list[Progress] = []
    model = initial_model(settings, prepared, split)
    epochs = list(fit(model, Tensors(prepared, 6), split, shown.append))

    count = len(split.train)
    sizes = [200] * (count // 200) + [count % 200]
    batches = len(sizes)
    assert [p.step for p in shown] == list(range(1, 2 * batches + 1))
    assert {p.steps for p in shown} == {2 * batches}
    assert [p.epochs for p in shown] == [()] * batches + [(epochs[0],)] * batches
    assert [epoch.number for epoch in epochs] == [1, 2]
    for epoch, part in zip(epochs, (shown[:batches], shown[batches:]), strict=True):
        mean = sum(p.loss * size for p, size in zip(part, sizes, strict=True)) / count
        assert epoch.train_loss == pytest.approx(mean, rel=1e-12)


def test_evaluation_is_of_the_last_segment_without_dropout(
    prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    settings = make_settings({"training.max_segments": 3, "network.h_module.dropout": 0.9})
    model = initial_model(settings, prepared, split).train()
    samples = split.validation[:100]  # a whole batch and a part

    found = evaluate(model, Tensors(prepared, 6), samples, 4, 0.5)

    batch = Tensors(prepared, 6).batch(torch.from_numpy(samples))
    states = None
    for _ in range(3):
        outputs, states = model.eval()(*inputs(batch), states)
    returns = prepared.sample_returns[samples]
    given_up = [
        np.nanmax(row) - row[action]
        for row, action in zip(returns, outputs["action_type"].argmax(dim=1), strict=True)
    ]
    assert (found.number, found.train_loss) == (4, 0.5)
    assert found.validation_loss == pytest.approx(total_loss(model, outputs, batch).item())
    assert found.accuracy == np.mean([regret == 0 for regret in given_up])
    assert found.regret == pytest.approx(np.mean(given_up))


# train: data in, folder out


def test_training_writes_exactly_five_files_that_describe_it(
    trained: Path, prepared: Prepared, split: Split
) -> None:
    assert {path.name for path in trained.iterdir()} == FILES
    checkpoint = load_checkpoint(trained)
    description = checkpoint.description
    assert description.vocabulary == prepared.manifest.vocabulary
    assert description.boundary == split.boundary
    assert description.train_samples == len(split.train)
    assert description.validation_samples == len(split.validation)
    assert [epoch.number for epoch in description.epochs] == [1, 2]
    assert len(checkpoint.windows) == min(512, len(split.validation))


def test_a_checkpoint_depends_on_settings_and_data_alone(
    prepared: Prepared, bars_folder: Path, settings: Settings, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "tensors.safetensors")
    (tmp_path / "empty").mkdir()
    from_bars = train(settings, [bars_folder], tmp_path / "empty")
    from_tensors = train(settings, [tmp_path / "tensors.safetensors"], tmp_path / "new" / "folder")
    assert from_bars.sha256 == from_tensors.sha256
    assert_equal(copied(from_bars.model), copied(from_tensors.model))


@pytest.mark.parametrize(
    ("losses", "best"),
    [([3.0, 1.0, 2.0], 2), ([1.0, 2.0, 3.0], 1), ([3.0, 2.0, 1.0], 3), ([1.0, 1.0], 1)],
)
def test_best_is_the_epoch_of_lowest_validation_loss_and_last_the_last(
    losses: list[float],
    best: int,
    bars_folder: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Tensor]] = []

    def scripted(model: HierarchicalReasoningModel, *arguments: Any) -> Epoch:
        seen.append(copied(model))
        number, train_loss = arguments[2:]
        return Epoch(
            number=number, train_loss=train_loss, validation_loss=losses[number - 1],
            accuracy=0.5, regret=0.5,
        )  # fmt: skip

    monkeypatch.setattr(trainer, "evaluate", scripted)
    settings = make_settings({"training.epochs": len(losses)})
    checkpoint = train(settings, [bars_folder / "Reliance_5.csv"], tmp_path / "out")
    assert checkpoint.description.best_epoch == best
    assert [epoch.validation_loss for epoch in checkpoint.description.epochs] == losses
    assert_equal(copied(checkpoint.model), seen[best - 1])
    last = HierarchicalReasoningModel.load_model(tmp_path / "out" / "last.safetensors")
    assert_equal(copied(last), seen[-1])


def test_a_folder_that_is_not_empty_is_refused_before_any_data_is_read(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(CheckpointInvalid, match="expected a new or empty folder; choose another"):
        train(settings, [tmp_path / "absent.csv"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "count", "error", "message"),
    [
        ("absent_5.csv", 0, BadBars, "absent_5.csv: expected a readable CSV file"),
        ("Nifty_5.csv", 50, DataInvalid, "expected at least one series long enough"),
        ("Nifty_5.csv", 212, DataInvalid, "leaves . samples to train on and 0 to validate on"),
        ("Nifty_15.csv", 300, DataInvalid, "Nifty_15: expected bars 900 s apart"),
        ("Nifty_weekly.csv", 300, SettingsInvalid, "timeframes.weekly: expected its seconds"),
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


def test_a_prepared_file_stands_alone(
    prepared: Prepared, settings: Settings, bars_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tensors.safetensors"
    prepared.save(path)
    assert np.array_equal(load_or_prepare(settings, [path]).features, prepared.features)
    for data in ([path, bars_folder], [path, path]):
        with pytest.raises(DataInvalid, match="expected one prepared tensor file, or bars; found"):
            load_or_prepare(settings, data)


def test_a_prepared_file_of_other_settings_is_refused_with_the_difference(
    prepared: Prepared, make_settings: MakeSettings, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "tensors.safetensors")
    other = make_settings({"training.label_horizon": 7})
    with pytest.raises(DataInvalid, match=r"training.label_horizon: settings 7, tensors 6"):
        train(other, [tmp_path / "tensors.safetensors"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prepared_file_keeps_the_limits_of_the_tables(
    prepared: Prepared, make_settings: MakeSettings, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "tensors.safetensors")
    fewer = make_settings({"network.embeddings.max_instruments": 1})
    with pytest.raises(
        DataInvalid, match=r"embeddings\.max_instruments: expected at least 2, was 1"
    ):
        train(fewer, [tmp_path / "tensors.safetensors"], tmp_path / "out")


def test_one_series_alone_can_be_trained_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings({"training.batch_size": 7})
    alone = prepare_series(settings, {("TCS", "D"): random_bars(300, seconds=86_400)})
    alone.save(tmp_path / "tensors.safetensors")
    checkpoint = train(settings, [tmp_path / "tensors.safetensors"], tmp_path / "out")
    vocabulary = checkpoint.description.vocabulary
    assert {name: facts.id for name, facts in vocabulary.instruments.items()} == {
        "unknown": 0, "TCS": 1,
    }  # fmt: skip
    assert vocabulary.timeframes == {"D": Timeframe(id=1, seconds=86_400)}
    assert np.isfinite(checkpoint.description.epochs[0].validation_loss)


def test_training_from_tensors_needs_neither_bars_nor_serving(
    prepared: Prepared, settings: Settings, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "bars.safetensors")
    (tmp_path / "settings.yaml").write_text(render(settings))
    code = (
        "import sys\n"
        "for name in ('talib', 'onnxruntime', 'polars', 'onnx'): sys.modules[name] = None\n"
        "from hrm_train import load_settings, train\n"
        "train(load_settings('settings.yaml'), ['bars.safetensors'], 'elsewhere')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    train(settings, [tmp_path / "bars.safetensors"], tmp_path / "here")
    weights = "best.safetensors"
    assert (tmp_path / "elsewhere" / weights).read_bytes() == (
        tmp_path / "here" / weights
    ).read_bytes()


def test_too_few_windows_to_prove_an_artifact_with_are_refused(
    settings: Settings, prepared: Prepared, split: Split
) -> None:
    few = replace(split, validation=split.validation[:31])
    with pytest.raises(DataInvalid, match=r"at least 32 validation samples .*, found 31"):
        held_out(settings, prepared, few)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_training_and_keeps_nothing(
    bad: float, settings: Settings, prepared: Prepared, tmp_path: Path
) -> None:
    lots = prepared.sample_lots.copy()
    lots[:] = bad
    replace(prepared, sample_lots=lots).save(tmp_path / "bars.safetensors")
    with pytest.raises(TrainingDiverged, match=r"^step 1, epoch 1, batch 0: expected a finite"):
        train(settings, tmp_path / "bars.safetensors", tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["bars.safetensors"]
