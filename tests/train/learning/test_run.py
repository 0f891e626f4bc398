"""One step of everything: against AdamW by hand, captured and restored, refused if no number."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from lightning_fabric import Fabric
from torch import Tensor

from hrm_train import HierarchicalReasoningModel
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.errors import CheckpointInvalid, TrainingDiverged
from hrm_train.learning.act import Drawn, Order, Slots
from hrm_train.learning.devices import HERE, open_fabric
from hrm_train.learning.plan import initial_model
from hrm_train.learning.run import Average, Run, Tensors
from hrm_train.learning.segment import LOSSES, TrainingSegment
from hrm_train.network.dropout import key_of
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

SLOTS = 16
DROPOUT = {"network.h_module.dropout": 0.3, "network.l_module.dropout": 0.3}
NO_DROPOUT = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}
TABLES = {f"input_network.{of}_embedding.weight" for of in ("instrument", "timeframe")}


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def begun(
    model: HierarchicalReasoningModel, prepared: Prepared, samples: Any, slots: int = SLOTS
) -> Run:
    order = Order(samples, slots, model.settings.training)
    return Run(open_fabric(HERE), model, prepared, order)


# on a GPU


def recording(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is compiled and what is recorded, where there is no GPU to do either."""
    done: list[Any] = []

    def keep(*what: Any) -> None:
        done.extend(what)

    monkeypatch.setattr(HierarchicalReasoningModel, "compile_steps", keep)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", keep)
    return done


def test_what_a_gpu_records_is_a_segment_of_the_batch_that_is_trained(
    settings: Settings,
    make_model: MakeModel,
    prepared: Prepared,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = recording(monkeypatch)
    run = begun(make_model(settings), prepared, split.train)
    weights = copied(run.model.state_dict())
    run.compile()
    model, segment, example = recorded
    assert (model, segment.model, segment.training) == (run.model, run.model, True)
    given: list[Tensor] = []
    segment.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
    assert_equal(copied(run.model.state_dict()), weights)
    run.advance("here")
    assert [(t.shape, t.dtype, t.requires_grad) for t in example] == [
        (t.shape, t.dtype, t.requires_grad) for t in given
    ]


def test_several_processes_compile_and_record_nothing(
    settings: Settings,
    make_model: MakeModel,
    prepared: Prepared,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = recording(monkeypatch)
    run = begun(make_model(settings), prepared, split.train)
    monkeypatch.setattr(Fabric, "world_size", 2)
    run.compile()
    assert recorded == [run.model]


# a step by hand


class Hand:
    """AdamW as published (arXiv 1711.05101), over named weights."""

    def __init__(self, model: HierarchicalReasoningModel) -> None:
        self.model = model
        self.first = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        self.second = copied(self.first)
        self.steps = 0

    def step(self, gradients: dict[str, Tensor], rate: float, decay: float) -> None:
        self.steps += 1
        for name, weight in self.model.named_parameters():
            gradient = gradients[name]
            first = self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            second = self.second[name] = 0.95 * self.second[name] + 0.05 * gradient**2
            moved = first / (1 - 0.9**self.steps)
            moved = moved / (torch.sqrt(second / (1 - 0.95**self.steps)) + 1e-8)
            own = decay if weight.ndim == 2 and name not in TABLES else 0.0
            weight.data = weight.data - rate * own * weight.data - rate * moved


@pytest.mark.parametrize(
    ("training", "shares"),
    [
        ({"warmup_steps": 0, "clip_norm": 0.0}, [1.0] * 6),
        ({"warmup_steps": 1, "clip_norm": 0.1}, [1 / 2, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"warmup_steps": 3, "clip_norm": 1e9}, [1 / 4, 2 / 4, 3 / 4, 1.0, 1.0, 1.0]),
        ({"warmup_steps": 9, "max_segments": 1}, [n / 10 for n in range(1, 7)]),
        ({"ema_decay": 0.2, "gradient": "full", "max_segments": 3}, [n / 6 for n in range(1, 7)]),
    ],
    ids=["no clipping", "clipping", "never clipped", "one segment", "averaged"],
)  # fmt: skip
def test_a_step_is_clipped_adamw_whose_rate_warms_up_and_whose_matrices_decay(
    training: dict[str, Any],
    shares: list[float],
    make_settings: MakeSettings,
    make_model: MakeModel,
    prepared: Prepared,
    split: Split,
) -> None:
    training = {"weight_decay": 0.3, "learning_rate": 0.01, "exploration": 0.5, **training}
    settings = make_settings(
        NO_DROPOUT | {f"training.{name}": value for name, value in training.items()}
    )
    most, clip = settings.training.max_segments, settings.training.clip_norm
    twin = make_model(settings).double()
    run = begun(copy.deepcopy(twin), prepared, split.train)
    hand, average = Hand(twin), copied(dict(twin.named_parameters()))
    slots = Slots(np.arange(SLOTS), twin.initialize_states())
    tensors = Tensors(prepared, 6, dtype=torch.float64)
    norms = []
    for step, share in enumerate(shares, start=1):
        slots.refill(run.order)
        last = torch.from_numpy(slots.last(most))
        losses, q_B2, *states = TrainingSegment(twin)(
            *tensors.batch(slots.drawn), *slots.states, last, key_of(0)
        )
        gradients = torch.autograd.grad(losses[-1], list(twin.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))  # type: ignore[arg-type]
        norms.append(norm.item())
        factor = min(1.0, clip / (norm.item() + 1e-6)) if clip else 1.0
        named = {
            n: factor * g for (n, _), g in zip(twin.named_parameters(), gradients, strict=True)
        }
        hand.step(named, 0.01 * share, 0.3)
        slots.advance(q_B2.float().numpy(), (states[0], states[1]), most)
        rate = min(training.get("ema_decay", 0.0), step / (9 + step))
        for name, weight in twin.named_parameters():
            average[name] = rate * average[name] + (1 - rate) * weight.detach()

        found = run.advance("here")

        assert [group["lr"] for group in run.optimizer.param_groups] == [0.01 * share] * 2
        torch.testing.assert_close(
            torch.tensor([found.losses[name] for name in LOSSES], dtype=torch.float64),
            losses.detach(), rtol=0, atol=1e-9,
        )  # fmt: skip
        assert found.finished == slots.halted.sum()
        assert found.segments == slots.segment[slots.halted].sum()
        assert run.slots.halted.tolist() == slots.halted.tolist()
        assert (run.steps, run.started) == (step, slots.count.sum())
        assert run.waiting == slots.halted.any()
    torch.testing.assert_close(
        dict(run.model.state_dict()), dict(twin.state_dict()), rtol=0, atol=1e-10
    )
    torch.testing.assert_close(
        copied(dict(run.average.model.named_parameters())), average, rtol=0, atol=1e-10
    )
    assert_equal(dict(run.average.model.named_buffers()), dict(twin.named_buffers()))
    if clip == 0.1:
        assert min(norms) > clip


def test_the_average_is_the_model_itself_where_it_is_off_and_its_own_where_it_is_on(
    model: HierarchicalReasoningModel,
) -> None:
    assert Average(model, 0.0).model is model
    before = copied(dict(model.state_dict()))
    average = Average(model, 0.75)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    average.update(1)  # nine tenths of the new weights
    for name, weight in average.model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] + 0.9, rtol=0, atol=1e-6)
    average.update(1_000)  # a quarter of what they were
    for name, weight in average.model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] + 0.925, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("unknown", "moved"), [(0.0, {1, 2}), (0.5, {0, 1, 2})])
def test_rows_of_tables_that_no_sample_names_stay_as_they_are_to_the_last_bit(
    unknown: float,
    moved: set[int],
    make_settings: MakeSettings,
    prepared: Prepared,
    split: Split,
) -> None:
    settings = make_settings(
        {
            "training.unknown_probability": unknown,
            "training.weight_decay": 1.0,
            "training.ema_decay": 0.5,
            "training.warmup_steps": 0,
        }
    )
    model = initial_model(settings, prepared, split)
    before = copied(model.state_dict())
    run = begun(model, prepared, split.train, slots=64)
    for _ in range(4):
        run.advance("here")
    for found in (run.model, run.average.model):
        after = found.state_dict()
        for name in TABLES:
            different = (after[name] != before[name]).any(dim=1)
            assert set(different.nonzero().flatten().tolist()) == moved
    for name, buffer in run.model.named_buffers():
        if name in before:
            assert_equal(buffer, before[name])  # initial states and statistics are not trained


def test_training_mode_is_on_in_every_step_whatever_was_evaluated_between(
    make_settings: MakeSettings, prepared: Prepared, split: Split
) -> None:
    settings = make_settings(DROPOUT)
    finals = []
    for evaluated in (False, True):
        run = begun(initial_model(settings, prepared, split), prepared, split.train)
        for step in range(2):
            torch.manual_seed(17 + step)  # the host's generator is nothing to it
            run.advance("here")
            if evaluated:
                run.model.eval()
        finals.append(copied(run.model.state_dict()))
    assert_equal(finals[0], finals[1])


def test_every_step_of_every_process_drops_out_others_and_always_the_same(
    make_settings: MakeSettings,
    prepared: Prepared,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys(seed: int, rank: int) -> list[int]:
        """What each step's masks follow from."""
        settings = make_settings(DROPOUT | {"training.seed": seed})
        seen: list[int] = []
        model = initial_model(settings, prepared, split)
        run = begun(model, prepared, split.train)
        run.module.register_forward_pre_hook(lambda _, given: seen.append(int(given[-1])))
        with monkeypatch.context() as patch:
            patch.setattr(Fabric, "global_rank", rank)
            for _ in range(3):
                run.advance("here")
        return seen

    assert keys(0, 0) == keys(0, 0)
    every = [*keys(0, 0), *keys(1, 0), *keys(0, 1)]
    assert len(every) == len(set(every)) == 9


# captured and restored


@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_restored_elsewhere_goes_on_to_the_last_bit(
    at: int, ema_decay: float, make_settings: MakeSettings, prepared: Prepared, split: Split
) -> None:
    changes = {"training.ema_decay": ema_decay, "training.max_segments": 3}
    changes |= {"training.exploration": 0.5, **DROPOUT}
    settings, other = (make_settings(changes | {"training.seed": seed}) for seed in (0, 1))
    run = begun(initial_model(settings, prepared, split), prepared, split.train)
    for step in range(at):
        run.advance(f"step {step}")
    captured = copied(run.capture())

    elsewhere = initial_model(other, prepared, split)
    elsewhere.settings = settings
    restored = begun(elsewhere, prepared, split.train)
    restored.restore(captured, at)

    assert_equal(restored.capture(), captured)
    assert (restored.steps, restored.started) == (run.steps, run.started)
    assert restored.waiting == run.waiting
    for step in range(3):
        torch.manual_seed(step)
        assert restored.advance("here") == run.advance("there")
        assert_equal(restored.capture(), run.capture())
        assert (restored.started, restored.waiting) == (run.started, run.waiting)


def test_what_is_captured_names_weights_moments_averages_and_slots(
    make_settings: MakeSettings, prepared: Prepared, split: Split
) -> None:
    settings = make_settings({"training.ema_decay": 0.9})
    run = begun(initial_model(settings, prepared, split), prepared, split.train)
    weights = set(run.model.state_dict())
    fixed = {f"model/{name}" for name in weights} | {f"average/{name}" for name in weights}
    fixed |= {
        f"slots/{name}"
        for name in ("count", "segment", "halted", "sample", "least", "shown", "z_H", "z_L")
    }
    assert set(run.capture()) == fixed
    run.advance("here")
    count = len(list(run.model.parameters()))
    moments = {
        f"optimizer/{index}/{name}"
        for index in range(count)
        for name in ("exp_avg", "exp_avg_sq", "step")
    }
    assert set(run.capture()) == fixed | moments
    assert run.capture()["slots/z_H"].shape[0] == SLOTS


# what is no number


def prepared_with(prepared: Prepared, array: str, place: tuple[Any, ...], value: float) -> Prepared:
    changed = getattr(prepared, array).copy()
    changed[place] = value
    return replace(prepared, **{array: changed})


@pytest.mark.parametrize(
    ("array", "column", "value", "names"),
    [
        ("features", 3, np.nan, "policy, value, quantity, halting, total, gradient"),
        ("sample_account", 2, np.nan, "policy, value, quantity, halting, total, gradient"),
        ("sample_lots", None, np.nan, "quantity, total, gradient"),
        ("sample_lots", None, np.inf, "quantity, total"),
    ],
)
@pytest.mark.parametrize("several", [False, True], ids=["one sample", "all samples"])
def test_samples_that_hold_no_number_are_named_and_nothing_is_learned_from_them(
    several: bool,
    array: str,
    column: int | None,
    value: float,
    names: str,
    make_settings: MakeSettings,
    prepared: Prepared,
    split: Split,
) -> None:
    settings = make_settings({"training.ema_decay": 0.9})
    run = begun(initial_model(settings, prepared, split), prepared, split.train[::40])
    for _ in range(2):
        run.advance("sound")
    before = copied(run.capture())
    run.slots.halted[:] = False  # the batch stays what it is
    batch = run.slots.drawn.sample
    rows = prepared.sample_row[batch]
    which: Any = slice(None) if several else (rows if array == "features" else batch)[3]
    broken = prepared_with(prepared, array, (which,) if column is None else (which, column), value)
    run.tensors = Tensors(broken, 6)
    if several:
        named = batch.tolist()[:5]
    elif array == "features":
        named = [
            sample for sample, row in zip(batch, rows, strict=True) if which in row - np.arange(6)
        ]
    else:
        named = [int(which)]
    message = (
        "step 3, epoch 1, batch 3 of it: expected finite losses and gradient, found no number in "
        f"{names}; samples {[int(n) for n in named]} of the training tensors hold none themselves: "
        "prepare them again"
    )
    with pytest.raises(TrainingDiverged, match=f"^{re.escape(message)}$"):
        run.advance("step 3, epoch 1, batch 3 of it")
    kept = {name: t for name, t in before.items() if not name.startswith("slots/")}
    after = run.capture()
    assert_equal({name: after[name] for name in kept}, kept)
    assert run.steps == 2


def ruined(weight: Tensor) -> None:
    with torch.no_grad():
        weight[0] = torch.nan


def steep(weight: Tensor) -> None:
    weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize(
    ("ruin", "names"), [(ruined, "value, total, gradient"), (steep, "gradient")]
)
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_weights_or_a_gradient_that_are_no_numbers_are_told_from_samples_that_are_none(
    clip_norm: float,
    ruin: Callable[[Tensor], None],
    names: str,
    make_settings: MakeSettings,
    prepared: Prepared,
    split: Split,
) -> None:
    settings = make_settings({"training.clip_norm": clip_norm})
    run = begun(initial_model(settings, prepared, split), prepared, split.train)
    run.advance("sound")
    ruin(run.model.value_head.value.bias)
    before = copied(run.model.state_dict())
    message = (
        f"step 2: expected finite losses and gradient, found no number in {names}; the samples of "
        "the batch are sound: lower training.learning_rate"
    )
    with pytest.raises(TrainingDiverged, match=f"^{re.escape(message)}$"):
        run.advance("step 2")
    torch.testing.assert_close(dict(run.model.state_dict()), before, rtol=0, atol=0, equal_nan=True)


# tensors


def test_inputs_and_labels_are_the_windows_and_values_of_their_samples(prepared: Prepared) -> None:
    samples = np.array([5, 400, 17])
    tensors = Tensors(prepared, 6)
    *found, returns, lots = (
        *tensors.inputs(torch.from_numpy(samples)), *tensors.labels(torch.from_numpy(samples)),
    )  # fmt: skip
    windows = [prepared.features[row - 5 : row + 1] for row in prepared.sample_row[samples]]
    assert_equal(found[0], torch.from_numpy(np.stack(windows)))
    for tensor, name in (
        (found[1], "account"), (found[2], "instrument"), (found[3], "timeframe"),
        (returns, "returns"), (lots, "lots"),
    ):  # fmt: skip
        expected = torch.from_numpy(getattr(prepared, f"sample_{name}")[samples])
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0, equal_nan=True)


def test_a_batch_hides_the_identities_that_are_to_be_hidden_and_nothing_else(
    prepared: Prepared,
) -> None:
    sample = np.array([5, 400, 17, 700])
    shown = np.array([[True, True], [False, True], [True, False], [False, False]])
    tensors = Tensors(prepared, 6, dtype=torch.float64)
    found = tensors.batch(Drawn(sample, np.ones(4, dtype=np.int64), shown))
    features, account, instrument, timeframe = tensors.inputs(torch.from_numpy(sample))
    expected = (
        features,
        account,
        torch.tensor([instrument[0], 0, instrument[2], 0]),
        torch.tensor([timeframe[0], timeframe[1], 0, 0]),
        *tensors.labels(torch.from_numpy(sample)),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert [tensor.dtype for tensor in found] == [
        torch.float64, torch.float64, torch.int64, torch.int64, torch.float64, torch.float64,
    ]  # fmt: skip


def test_a_state_of_another_number_of_slots_is_refused(
    settings: Settings, prepared: Prepared, split: Split
) -> None:
    run = begun(initial_model(settings, prepared, split), prepared, split.train)
    captured = run.capture()
    count = len(captured["slots/count"])
    captured["slots/count"] = captured["slots/count"][:-1]
    with pytest.raises(
        CheckpointInvalid, match=f"expected {count} samples in work at once, found {count - 1}"
    ):
        run.restore(captured, 0)
