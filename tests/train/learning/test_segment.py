"""One segment of training: its states, its exact gradient, what it keeps, its losses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from batch import Batch
from exactly import assert_equal
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hrm_train import HierarchicalReasoningModel
from hrm_train.learning import rollout as rollout_module
from hrm_train.learning.losses import answer_losses
from hrm_train.learning.rollout import rollout
from hrm_train.learning.segment import LOSSES, TrainingSegment
from hrm_train.network.dropout import key_of
from hrm_train.network.model import States
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

LOOPS = [(1, 1), (1, 3), (2, 1), (2, 3), (3, 5)]
GRADIENTS = ["one_step", "last_cycle", "full"]
EQUAL_WIDTHS = {"network.l_module.hidden_dim": 16}
NO_DROPOUT = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}
KEY = key_of(0)


def looped(cycles: int, timesteps: int, reset: bool = True, **training: Any) -> dict[str, Any]:
    return {
        "network.hierarchical.N_cycles": cycles,
        "network.hierarchical.T_timesteps": timesteps,
        "network.hierarchical.reset_l_module": reset,
        **{f"training.{name}": value for name, value in training.items()},
    }


def carried(model: HierarchicalReasoningModel, rows: int = 9) -> States:
    """States as an earlier segment might have left them."""
    generator = torch.Generator().manual_seed(5)
    z_H, z_L = (
        torch.randn(rows, *z.shape[1:], generator=generator, dtype=torch.float64).to(z.dtype)
        for z in model.initialize_states()
    )
    return z_H, z_L


def answer_loss(model: HierarchicalReasoningModel, z_H: Tensor, batch: Batch) -> Tensor:
    outputs = model.decode(z_H, batch.account)
    return answer_losses(outputs, batch.returns, batch.lots, model.settings.training).total


# states


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_a_segment_ends_in_the_states_of_forward_whatever_the_gradient(
    cycles: int,
    timesteps: int,
    reset: bool,
    gradient: Any,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings(looped(cycles, timesteps, reset)))
    for states in (model.initialize_states(), carried(model)):
        _, expected = model(*batch.inputs, states)
        found = rollout(model, model.encode(*batch.inputs), states, gradient)
        assert_equal(found, expected)
        with torch.no_grad():  # as for what the next segment says
            silent = rollout(model, model.encode(*batch.inputs), states, gradient)
        assert_equal(silent, expected)
        assert [z.requires_grad for z in (*found, *silent)] == [True, True, False, False]


# the gradient


def steps_with_gradient(gradient: str, cycles: int, timesteps: int) -> set[tuple[int, int]]:
    """(n, t) of the steps of L that it goes through; H's at the end of cycle n is (n, T)."""
    last = cycles - 1
    return {
        "one_step": {(last, timesteps - 1), (last, timesteps)},
        "last_cycle": {(last, t) for t in range(timesteps + 1)},
        "full": {(n, t) for n in range(cycles) for t in range(timesteps + 1)},
    }[gradient]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_the_gradient_is_the_exact_one_of_the_steps_it_goes_through(
    cycles: int,
    timesteps: int,
    reset: bool,
    gradient: Any,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings(looped(cycles, timesteps, reset))).double()
    batch = batch.double()
    through = steps_with_gradient(gradient, cycles, timesteps)

    x = model.encode(*batch.inputs)
    z_H, z_L = carried(model)
    for n in range(cycles):
        if n > 0 and reset:
            z_L = model.l_module.initial_D.repeat(9, 4, 1)
        for t in range(timesteps):
            with torch.set_grad_enabled((n, t) in through):
                z_L = model.low(z_L, z_H, x)
        with torch.set_grad_enabled((n, timesteps) in through):
            z_H = model.high(z_H, z_L)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(answer_loss(model, z_H, batch), parameters, allow_unused=True)

    found_H, _ = rollout(model, model.encode(*batch.inputs), carried(model), gradient)
    found = torch.autograd.grad(answer_loss(model, found_H, batch), parameters, allow_unused=True)

    for name, one, other in zip(names, found, expected, strict=True):
        assert (one is None) == (other is None) == name.startswith("q_head"), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=name)


class Living(TorchDispatchMode):
    """Knows which storages that were made under it are still held by anybody."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made.append((StorageWeakRef(storage), storage.nbytes()))
        return made

    @property
    def bytes(self) -> int:
        alive = {ref.cdata: size for ref, size in self._made if not ref.expired()}
        return sum(alive.values())


def kept(model: HierarchicalReasoningModel, batch: Batch, gradient: Any) -> int:
    """Bytes that a segment leaves behind for the gradient."""
    x, states = model.encode(*batch.inputs), carried(model)
    with Living() as living:
        after = rollout(model, x, states, gradient)
    assert after[0].requires_grad
    return living.bytes


def test_of_a_step_that_the_gradient_goes_through_only_its_state_is_kept(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    def growth(gradient: str, *loops: tuple[int, int]) -> int:
        less, more = (kept(make_model(make_settings(looped(*n))), batch, gradient) for n in loops)
        return more - less

    z_H, z_L = carried(make_model(make_settings({})))
    for gradient, low, high in (("one_step", 0, 0), ("last_cycle", 6, 0), ("full", 12, 0)):
        assert growth(gradient, (2, 2), (2, 8)) == low * z_L.nbytes + high * z_H.nbytes
    for gradient, low, high in (("one_step", 0, 0), ("last_cycle", 0, 0), ("full", 12, 6)):
        assert growth(gradient, (2, 2), (8, 2)) == low * z_L.nbytes + high * z_H.nbytes


def kept_whole(steps: list[Any], x: Tensor, z_H: Tensor, z_L: Tensor, *_weights: Tensor) -> States:
    """The same steps, everything kept that torch wants for the gradient."""
    for step in steps:
        z_H, z_L = step.run(z_H, z_L, x)
    return z_H, z_L


@pytest.mark.parametrize("gradient", ["last_cycle", "full"])
@pytest.mark.parametrize("widths", [{}, EQUAL_WIDTHS], ids=["unequal", "equal"])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize(("cycles", "timesteps"), [(3, 4), (1, 2), (2, 1)])
def test_steps_that_are_computed_again_have_the_gradient_of_those_that_are_kept(
    cycles: int,
    timesteps: int,
    quantised: bool,
    reset: bool,
    widths: dict[str, int],
    gradient: str,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loops = looped(cycles, timesteps, reset, gradient=gradient)
    dropping = {"network.h_module.dropout": 0.3, "network.l_module.dropout": 0.3}
    model = make_model(make_settings(loops | dropping | widths)).train()
    if quantised:
        model.quantise(dict.fromkeys(model.products, 0.02))
    last = torch.arange(9) % 2 == 0
    found = []
    for again in (True, False):
        if not again:
            monkeypatch.setattr(rollout_module._Exact, "apply", kept_whole)
        states = [z.requires_grad_() for z in carried(model)]
        model.zero_grad()
        losses, *_ = TrainingSegment(model)(*batch.arrays, *states, last, KEY)
        losses[-1].backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        found.append((losses.detach(), gradients, [z.grad for z in states if z.grad is not None]))
    assert_equal(found[0], found[1])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_gradient_leaves_a_segment_through_the_states_it_returns(
    gradient: str, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(2, 2, gradient=gradient)))
    last = torch.zeros(9, dtype=torch.bool)
    losses, q_values, *after = TrainingSegment(model)(*batch.arrays, *carried(model), last, KEY)
    assert losses.requires_grad
    assert not any(tensor.requires_grad for tensor in (q_values, *after))


# losses


def by_hand(
    model: HierarchicalReasoningModel, batch: Batch, states: States, last: list[bool]
) -> tuple[list[float], Tensor, States]:
    """The five losses, row by row in plain numbers; q_values and states of the segment."""
    training = model.settings.training
    with torch.no_grad():
        outputs, after = model(*batch.inputs, states)
        q_next = model(*batch.inputs, after)[0]["q_values"].tolist()  # an actual further segment
    sums = dict.fromkeys(LOSSES, 0.0)
    for row in range(len(batch.lots)):
        returns, logits = batch.returns[row].tolist(), outputs["action_type"][row].tolist()
        legal = [a for a in range(5) if not math.isnan(returns[a])]
        best = max(returns[a] for a in legal)
        weight = {a: math.exp((returns[a] - best) / training.policy_temperature) for a in legal}
        spread = math.log(sum(math.exp(logits[a]) for a in legal))
        for a in legal:
            sums["policy"] -= weight[a] / sum(weight.values()) * (logits[a] - spread)
        for name, found, wanted in (
            ("value", outputs["value"][row].item(), best),
            ("quantity", math.log(outputs["quantity"][row]), math.log(batch.lots[row])),
        ):
            off = abs(found - wanted)
            sums[name] += off * off / 2 if off < 1 else off - 0.5
        correct = returns[max(legal, key=lambda a: logits[a])] == best
        targets = [
            float(correct),
            q_next[row][0] if last[row] else max(q_next[row]),
        ][: 1 if training.max_segments == 1 else 2]
        for q, g in zip(outputs["q_values"][row].tolist(), targets, strict=False):
            sums["halting"] -= g * math.log(q) + (1 - g) * math.log(1 - q)
    means = {name: total / len(batch.lots) for name, total in sums.items()}
    means["total"] = (
        means["policy"]
        + training.value_weight * means["value"]
        + training.quantity_weight * means["quantity"]
        + training.halting_weight * means["halting"]
    )
    return list(means.values()), outputs["q_values"], after


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("reset", [True, False])
def test_the_five_losses_are_those_worked_out_by_hand_over_two_segments(
    reset: bool,
    segments: int,
    gradient: str,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    weights = {"value_weight": 0.7, "quantity_weight": 0.2, "halting_weight": 0.4}
    settings = make_settings(
        looped(2, 3, reset, gradient=gradient, max_segments=segments, **weights)
    )
    model, batch = make_model(settings).double(), batch.double()
    last = [row % 3 == 0 for row in range(9)]
    z_H, z_L = model.initialize_states()
    states: States = (z_H.repeat(9, 1, 1), z_L.repeat(9, 1, 1))
    for _ in range(2):
        expected, q_values, after = by_hand(model, batch, states, last)
        losses, q_found, *states_found = TrainingSegment(model)(
            *batch.arrays, *states, torch.tensor(last), KEY
        )
        torch.testing.assert_close(
            losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
        )
        assert_equal(q_found, q_values)
        assert_equal(tuple(states_found), after)
        states = after


def test_the_target_of_going_on_is_the_next_segments_better_value_or_where_none_is_its_halt(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(1, 2, halting_weight=1.0, max_segments=2))).double()
    batch, states = batch.double(), carried(model)
    with torch.no_grad():
        _, after = model(*batch.inputs, states)
        q_halt, q_continue = model(*batch.inputs, after)[0]["q_values"].logit().unbind(dim=-1)
        gaps = (q_continue - q_halt).sort().values
        model.q_head.logits.bias[1] -= gaps[3:5].mean()  # four rows below it, five above
        q_next = model(*batch.inputs, after)[0]["q_values"]
    rows = (q_next[:, 1] > q_next[:, 0]).nonzero().flatten()
    assert len(rows) == 5  # of these, the two targets differ
    halting = {}
    for last in (False, True):
        flags = torch.full((9,), last)
        halting[last] = [
            TrainingSegment(model)(
                *batch[[row]].arrays, *(z[[row]] for z in states), flags[:1], KEY
            )[0][3]
            for row in range(9)
        ]
    differing = [row for row in range(9) if halting[True][row] != halting[False][row]]
    assert differing == rows.tolist()


def test_losses_are_averages_of_those_of_the_rows(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(2, 2))).double()
    batch, states = batch.double(), carried(model)
    last = torch.arange(9) % 2 == 0
    segment = TrainingSegment(model)
    whole = segment(*batch.arrays, *states, last, KEY)[0]
    alone = [
        segment(*batch[[row]].arrays, *(z[[row]] for z in states), last[[row]], KEY)[0]
        for row in range(9)
    ]
    torch.testing.assert_close(whole, torch.stack(alone).mean(dim=0), rtol=0, atol=1e-12)


# who learns


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("initialization", ["truncated_normal", "xavier", "he"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("widths", [{}, EQUAL_WIDTHS], ids=["unequal", "equal"])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "carried"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_everything_that_should_learn_gets_a_gradient_and_nothing_else(
    gradient: str,
    reset: bool,
    widths: dict[str, Any],
    dropout: float,
    initialization: str,
    segments: int,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    settings = make_settings(
        {
            **looped(2, 2, reset, gradient=gradient, max_segments=segments),
            **widths,
            "network.h_module.dropout": dropout,
            "network.l_module.dropout": dropout,
            "network.embeddings.initialization": initialization,
        }
    )
    torch.manual_seed(0)
    model = make_model(settings).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    z_H, z_L = (z.clone().requires_grad_() for z in carried(model))
    last = torch.arange(9) % 2 == 0

    losses, *_ = TrainingSegment(model)(*batch.arrays, z_H, z_L, last, KEY)
    losses[-1].backward()

    expected = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, read in (("instrument", batch.instrument), ("timeframe", batch.timeframe)):
        rows = expected[f"input_network.{name}_embedding.weight"]
        rows[:] = False
        rows[read] = True
    if segments == 1:  # there is nothing to go on to
        expected["q_head.logits.weight"][1] = expected["q_head.logits.bias"][1] = False
    for name, parameter in model.named_parameters():
        gradient_ = parameter.grad
        assert gradient_ is not None, name
        assert gradient_.isfinite().all(), name
        moved = gradient_.ne(0)
        assert not moved[~expected[name]].any(), name
        learning = expected[name]
        # of each row of weights that should learn, something does; dropout silences the rest
        rows_moved, rows_learning = (
            t.flatten(1).any(1) if t.ndim > 1 else t for t in (moved, learning)
        )
        assert_equal(rows_moved, rows_learning)
    assert_equal(dict(model.named_buffers()), before)
    assert not any(buffer.requires_grad for buffer in model.buffers())


@pytest.mark.parametrize(
    ("gradient", "loops", "reached"),
    [
        ("one_step", (1, 1), True),
        ("one_step", (1, 2), False),
        ("last_cycle", (1, 2), True),
        ("last_cycle", (2, 2), False),
        ("full", (2, 2), True),
    ],
)
def test_a_segment_reaches_back_to_the_state_of_l_only_where_every_step_carries_the_gradient(
    gradient: str,
    loops: tuple[int, int],
    reached: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings(looped(*loops, reset=False, gradient=gradient)))
    z_H, z_L = (z.clone().requires_grad_() for z in carried(model))
    last = torch.zeros(9, dtype=torch.bool)
    TrainingSegment(model)(*batch.arrays, z_H, z_L, last, KEY)[0][-1].backward()
    assert (z_L.grad is not None) == reached


# precision


def test_under_autocast_the_heads_and_the_losses_stay_in_full_precision(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(2, 2)))
    last = torch.zeros(9, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        losses, q_values, *after = TrainingSegment(model)(*batch.arrays, *carried(model), last, KEY)
        x = model.encode(*batch.inputs)
        z_H, _ = rollout(model, x, (after[0], after[1]), "one_step")
    assert losses.dtype == q_values.dtype == torch.float32
    outputs = model.decode(after[0].float(), batch.account)
    assert_equal(q_values, outputs["q_values"])
    training = model.settings.training
    answer = answer_losses(outputs, batch.returns, batch.lots, training)
    assert_equal(losses[:3], torch.stack((answer.policy, answer.value, answer.quantity)))
    go_on = model.q_head(z_H[:, 0].float()).amax(dim=-1)
    correct = [
        bool(torch.nan_to_num(returns, nan=-torch.inf).amax() == returns[action])
        for returns, action in zip(batch.returns, outputs["action_type"].argmax(-1), strict=True)
    ]
    targets = torch.stack((torch.tensor(correct).float(), go_on), dim=1)
    halting = torch.nn.functional.binary_cross_entropy(q_values, targets, reduction="none")
    torch.testing.assert_close(losses[3], halting.sum(dim=1).mean())


@pytest.mark.parametrize("gradient", ["one_step", "last_cycle", "full"])
def test_under_autocast_every_weight_still_gets_its_gradient(
    gradient: str, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(looped(2, 2) | {"training.gradient": gradient}))
    last = torch.zeros(9, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):  # casts made without gradient come first
        losses = TrainingSegment(model)(*batch.arrays, *carried(model), last, KEY)[0]
    losses[-1].backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
