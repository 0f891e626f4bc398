"""The network against an independent transcription of its equations, and what it promises.

`Published` knows the network's weights by name and nothing else of `hrm_train`.
"""

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from batch import Batch
from exactly import assert_equal
from safetensors.torch import save_file
from torch import Tensor

from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_train import HierarchicalReasoningModel
from hrm_train.errors import CheckpointInvalid
from hrm_train.network.model import (
    INITIALIZATIONS,
    ROWS_TOGETHER,
    InstrumentEmbedding,
    Linear,
    Outputs,
    QuantityHead,
    RotaryEmbedding,
    Standardise,
    TimeframeEmbedding,
    VocabularyEmbedding,
    attend,
    attend_side_by_side,
    rms_norm,
    truncated_normal_,
)
from hrm_train.settings import Embeddings, Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

NO_DROPOUT = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}
EQUAL_WIDTHS = {
    "network.h_module": {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24},
    "network.l_module": {"hidden_dim": 16, "num_layers": 3, "num_heads": 4, "ffn_dim": 20},
    "network.hierarchical.reset_l_module": False,
}
LOOPS = [(1, 1), (1, 4), (2, 3), (3, 5), (4, 1)]


def looped(cycles: int, timesteps: int) -> dict[str, int]:
    return {
        "network.hierarchical.N_cycles": cycles,
        "network.hierarchical.T_timesteps": timesteps,
    }


def inputs(batch: Batch, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return batch.features.to(dtype), batch.account.to(dtype), batch.instrument, batch.timeframe


@dataclass(frozen=True)
class Published:
    """The equations of arXiv 2506.21734 over weights by name.

    z_L <- f_L(z_L + z_H + x), T times; z_H <- f_H(z_H + z_L); N times over.
    """

    weights: dict[str, Tensor]
    heads: dict[str, int]
    reset: bool

    def run(
        self, x: Tensor, z_H: Tensor, z_L: Tensor, cycles: int, timesteps: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_H, z_L, and the residuals of L [B, N, T] and of H [B, N]."""
        residuals_L, residuals_H = [], []
        for n in range(cycles):
            if self.reset and n > 0:
                z_L = self.initial("l_module", x)
            for _ in range(timesteps):
                before, guidance = z_L, self.joined("l_module.from_h", z_H)
                z_L = self.transformer("l_module", z_L + guidance + x)
                residuals_L.append(rms(z_L - before))
            before = z_H
            z_H = self.transformer("h_module", z_H + self.joined("h_module.from_l", z_L))
            residuals_H.append(rms(z_H - before))
        l_residual = torch.stack(residuals_L, 1).reshape(-1, cycles, timesteps)
        return z_H, z_L, l_residual, torch.stack(residuals_H, 1)

    def initial(self, module: str, x: Tensor) -> Tensor:
        state = self.weights[f"{module}.initial_D"]
        return state.repeat(x.shape[0], x.shape[1], 1)

    def joined(self, name: str, z: Tensor) -> Tensor:
        weight = self.weights.get(f"{name}.weight")
        return z if weight is None else z @ weight.T

    def transformer(self, module: str, x: Tensor) -> Tensor:
        layer = 0
        while f"{module}.blocks.{layer}.mlp.down.weight" in self.weights:
            block = f"{module}.blocks.{layer}"
            x = normalised(x + self.attention(f"{block}.attention", x, self.heads[module]))
            x = normalised(x + self.gated(f"{block}.mlp", x))
            layer += 1
        return x

    def attention(self, name: str, x: Tensor, heads: int) -> Tensor:
        q, k, v = (x @ self.weights[f"{name}.qkv.weight"].T).chunk(3, -1)
        width = q.shape[-1] // heads
        mixed = []
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            scores = rotated(q[..., own]) @ rotated(k[..., own]).mT / math.sqrt(width)
            shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
            mixed.append(shares @ v[..., own])
        return torch.cat(mixed, -1) @ self.weights[f"{name}.out.weight"].T

    def gated(self, name: str, x: Tensor) -> Tensor:
        gate, up = (x @ self.weights[f"{name}.gate_up.weight"].T).chunk(2, -1)
        return (gate / (1 + torch.exp(-gate)) * up) @ self.weights[f"{name}.down.weight"].T

    def tokens(self, features: Tensor, account: Tensor, who: Tensor, span: Tensor) -> Tensor:
        """x~: a context token, then one token per patch of two rows."""
        w = {name.removeprefix("input_network."): weight for name, weight in self.weights.items()}
        account = torch.clip((account - w["account.mean"]) / w["account.std"], -5, 5)
        standard = torch.clip((features - w["features.mean"]) / w["features.std"], -5, 5)
        identity = torch.cat(
            [w["instrument_embedding.weight"][who], w["timeframe_embedding.weight"][span]], 1
        )
        context = torch.cat([identity, account], 1) @ w["context.weight"].T
        made = [context]
        for first in range(0, features.shape[1], 2):
            patch = torch.cat([standard[:, first], standard[:, first + 1], identity], 1)
            made.append(patch @ w["patches.weight"].T)
        return torch.stack(made, 1)

    def answers(self, z_H: Tensor, side: Tensor) -> Outputs:
        """The heads, on the context token."""
        w, z = self.weights, z_H[:, 0]
        action, quantity, value, q = (
            z @ w[f"{name}.weight"].T + w[f"{name}.bias"]
            for name in (
                "policy_head.logits", "quantity_head.position", "value_head.value", "q_head.logits",
            )
        )  # fmt: skip
        for row, s in enumerate(side.int().tolist()):
            illegal = [a for a in range(5) if a not in {-1: (3, 4), 0: (0, 1, 4), 1: (2, 4)}[s]]
            action[row, illegal] = -1e4
        return {
            "action_type": action,
            "quantity": 100_000.0 ** (1 / (1 + torch.exp(-quantity[:, 0]))),
            "value": value[:, 0],
            "q_values": 1 / (1 + torch.exp(-q)),
        }


def normalised(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def rms(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).mean((1, 2)))


def rotated(x: Tensor) -> Tensor:
    """Token s, pair (k, k + K/2) as a complex number, turned by s / 10000^(2k/K)."""
    tokens, width = x.shape[-2:]
    k = torch.arange(width // 2, dtype=torch.float64)
    angle = torch.arange(tokens)[:, None] * 10_000.0 ** (-2 * k / width)
    turned = torch.complex(*x.chunk(2, -1)) * torch.exp(1j * angle)
    return torch.cat([turned.real, turned.imag], -1)


def published(model: HierarchicalReasoningModel) -> Published:
    network = model.settings.network
    return Published(
        dict(model.state_dict()),
        {"h_module": network.h_module.num_heads, "l_module": network.l_module.num_heads},
        network.hierarchical.reset_l_module,
    )


# the equations


@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_with_equal_widths_and_no_reset_the_core_is_the_published_one(
    cycles: int, timesteps: int, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings(EQUAL_WIDTHS | looped(cycles, timesteps))).double()
    assert not [name for name in model.state_dict() if "from_" in name]  # nothing joins them
    reference = published(model)
    x = model.encode(*inputs(batch, torch.float64))
    z_H, z_L = reference.initial("h_module", x), reference.initial("l_module", x)
    expected = reference.run(x, z_H, z_L, cycles, timesteps)

    outputs, states = model(*inputs(batch, torch.float64))

    found = (*states, outputs["l_residual"], outputs["h_residual"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("cycles", "timesteps"), LOOPS)
def test_with_different_widths_every_output_of_two_segments_follows_the_equations(
    cycles: int,
    timesteps: int,
    reset: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    changes = {"network.hierarchical.reset_l_module": reset} | looped(cycles, timesteps)
    model = make_model(make_settings(changes)).double()
    reference = published(model)
    x = reference.tokens(*inputs(batch, torch.float64))
    z_H, z_L = reference.initial("h_module", x), reference.initial("l_module", x)
    states = None
    for _ in range(2):
        z_H, z_L, l_residual, h_residual = reference.run(x, z_H, z_L, cycles, timesteps)
        expected = reference.answers(z_H, batch.account[:, 0]) | {
            "l_residual": l_residual, "h_residual": h_residual,
        }  # fmt: skip
        outputs, states = model(*inputs(batch, torch.float64), states)
        torch.testing.assert_close(states, (z_H, z_L), rtol=0, atol=1e-9)
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)


def test_tokens_are_the_context_then_patches_oldest_first(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    expected = published(model.double()).tokens(*inputs(batch, torch.float64))
    found = model.encode(*inputs(batch, torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_standardised_value_is_clipped() -> None:
    standardise = Standardise(3, clip=5.0)
    standardise.mean.copy_(torch.tensor([1.0, 0.0, -2.0]))
    standardise.std.copy_(torch.tensor([2.0, 0.5, 1.0]))
    found = standardise(torch.tensor([[2.0, 1.0, -2.0], [12.0, -3.0, 1e30], [11.0, 2.5, -7.0]]))
    assert_equal(found, torch.tensor([[0.5, 2.0, 0.0], [5.0, -5.0, 5.0], [5.0, 5.0, -5.0]]))


# its parts


def test_rms_norm_has_an_epsilon_under_the_root() -> None:
    x = torch.tensor([[3.0, 4.0], [1e-3, 1e-3], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.stack(
        [
            x[0] / math.sqrt(12.5 + 1e-5),
            x[1] / math.sqrt(1e-6 + 1e-5),
            torch.zeros(2, dtype=torch.float64),
        ]
    )
    torch.testing.assert_close(rms_norm(x), expected, rtol=0, atol=1e-15)


def test_rotary_positions_turn_pairs_half_a_head_apart() -> None:
    x = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    expected = [  # frequencies 1 and 10000^(-2/4) = 0.01
        [1.0, 0, 0, 0],
        [math.cos(1), 0, math.sin(1), 0],
        [0, math.cos(0.02), 0, math.sin(0.02)],
        [-math.sin(3), -math.sin(0.03), math.cos(3), math.cos(0.03)],
    ]
    found = RotaryEmbedding(4, 4)(x.double())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("std", [1.0, 0.02])
def test_a_truncated_normal_has_its_deviation_after_truncation_at_two(std: float) -> None:
    torch.manual_seed(0)
    drawn = truncated_normal_(torch.empty(400_000), std)
    bound = 2 * std / 0.87962566
    assert drawn.std().item() == pytest.approx(std, rel=0.005)
    assert drawn.mean().item() == pytest.approx(0, abs=0.01 * std)
    assert -bound <= drawn.min() < -0.99 * bound
    assert 0.99 * bound < drawn.max() <= bound


def test_weights_start_at_lecun_deviation() -> None:
    torch.manual_seed(0)
    assert Linear(400, 300).bias is None
    assert Linear(400, 300).weight.std().item() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize(
    ("initialization", "deviation"),
    [("truncated_normal", 1.0), ("xavier", math.sqrt(2 / 1064)), ("he", math.sqrt(2 / 64))],
)
def test_tables_start_at_the_deviation_of_their_initialization(
    initialization: str, deviation: float
) -> None:
    torch.manual_seed(0)
    table = VocabularyEmbedding(999, 64, initialization).weight
    assert table.shape == (1000, 64)
    assert table.mean().item() == pytest.approx(0, abs=0.02 * deviation)
    assert table.std().item() == pytest.approx(deviation, rel=0.02)


def test_every_initialization_of_the_settings_is_drawn_in_both_tables_and_the_first_by_default(
    make_settings: MakeSettings,
) -> None:
    offered = get_args(Embeddings.model_fields["initialization"].annotation)
    assert offered == tuple(INITIALIZATIONS)
    tables = {}
    for name in offered:
        config = make_settings({"network.embeddings.initialization": name}).network.embeddings
        torch.manual_seed(0)
        tables[name] = InstrumentEmbedding(config).weight, TimeframeEmbedding(config).weight
    torch.manual_seed(0)
    default = make_settings().network.embeddings
    assert_equal(
        (InstrumentEmbedding(default).weight, TimeframeEmbedding(default).weight),
        tables["truncated_normal"],
    )
    torch.manual_seed(0)
    drawn = truncated_normal_(torch.empty(9, 8), 1.0), truncated_normal_(torch.empty(5, 4), 1.0)
    assert_equal(tables["truncated_normal"], drawn)
    torch.manual_seed(0)
    normal = torch.empty(9, 8).normal_(), torch.empty(5, 4).normal_()
    for name, widths in (("xavier", (9 + 8, 5 + 4)), ("he", (8, 4))):
        expected = tuple(t * math.sqrt(2 / w) for t, w in zip(normal, widths, strict=True))
        torch.testing.assert_close(tables[name], expected)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_under_every_initialization_the_rows_that_were_read_and_only_they_have_a_gradient(
    initialization: str, make_settings: MakeSettings, batch: Batch
) -> None:
    torch.manual_seed(0)
    model = HierarchicalReasoningModel(
        make_settings({"network.embeddings.initialization": initialization})
    )
    outputs, _ = model(*inputs(batch))
    assert all(tensor.isfinite().all() for tensor in outputs.values())
    outputs["value"].sum().backward()
    for table, read in (
        (model.input_network.instrument_embedding, batch.instrument),
        (model.input_network.timeframe_embedding, batch.timeframe),
    ):
        assert table.weight.grad is not None
        moved = table.weight.grad.ne(0).any(dim=1)
        assert moved.nonzero().flatten().tolist() == read.unique().tolist()


def test_a_new_model_neither_halts_nor_prefers_an_outcome(settings: Settings, batch: Batch) -> None:
    torch.manual_seed(0)
    outputs, _ = HierarchicalReasoningModel(settings)(*inputs(batch))
    assert_equal(outputs["q_values"], torch.full((9, 2), -5.0).sigmoid())


# initial states


def test_initial_states_are_one_vector_for_every_token_and_row(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    z_H, z_L = model.initialize_states()
    assert_equal(z_H, model.h_module.initial_D.repeat(1, 4, 1))
    assert_equal(z_L, model.l_module.initial_D.repeat(1, 4, 1))
    assert_equal(model.initialize_states((z_L, z_H)), (z_L, z_H))
    rows = (z_H.repeat(9, 1, 1), z_L.repeat(9, 1, 1))
    assert_equal(model(*inputs(batch), rows), model(*inputs(batch)))


@pytest.mark.parametrize("reset", [True, False])
def test_a_reset_gives_l_its_initial_state_back(
    reset: bool, make_settings: MakeSettings, make_model: MakeModel
) -> None:
    model = make_model(make_settings({"network.hierarchical.reset_l_module": reset}))
    carried = torch.ones(3, 4, 8)
    kept = model.l_module.initial_D.repeat(3, 4, 1) if reset else carried
    assert_equal(model.reset_l_module(carried), kept)


def test_initial_states_are_drawn_saved_and_never_trained(
    model: HierarchicalReasoningModel,
) -> None:
    names = {"h_module.initial_D", "l_module.initial_D"}
    assert names <= model.state_dict().keys()
    assert not names & dict(model.named_parameters()).keys()
    assert all(model.state_dict()[name].std() > 0.3 for name in names)


def test_two_segments_are_one_that_goes_on_from_the_states_of_the_other(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    carry = {"network.hierarchical.reset_l_module": False}
    short = make_model(make_settings(carry | looped(2, 3)))
    long = make_model(make_settings(carry | looped(4, 3)))
    _, states = short(*inputs(batch))
    outputs, final = short(*inputs(batch), states)
    whole, final_whole = long(*inputs(batch))
    assert_equal(final, final_whole)
    for name in ("action_type", "quantity", "value", "q_values"):
        assert_equal(outputs[name], whole[name])


# what a decision depends on


def newest_bar(batch: Batch) -> tuple[Tensor, ...]:
    features = batch.features.clone()
    features[:, -1] += 0.1
    return features, *inputs(batch)[1:]


def oldest_bar(batch: Batch) -> tuple[Tensor, ...]:
    features = batch.features.clone()
    features[:, 0] += 0.1
    return features, *inputs(batch)[1:]


def account_value(index: int) -> Callable[[Batch], tuple[Tensor, ...]]:
    def change(batch: Batch) -> tuple[Tensor, ...]:
        account = batch.account.clone()
        account[:, index] += 0.1
        return batch.features, account, batch.instrument, batch.timeframe

    return change


def instrument(batch: Batch) -> tuple[Tensor, ...]:
    return batch.features, batch.account, batch.instrument + 1, batch.timeframe


def timeframe(batch: Batch) -> tuple[Tensor, ...]:
    return batch.features, batch.account, batch.instrument, batch.timeframe + 1


@pytest.mark.parametrize(
    "change",
    [newest_bar, oldest_bar, *map(account_value, (1, 2, 3, 4)), instrument, timeframe],
)
def test_every_input_alone_changes_every_legal_logit_value_and_quantity(
    change: Callable[[Batch], tuple[Tensor, ...]], model: HierarchicalReasoningModel, batch: Batch
) -> None:
    before, _ = model(*inputs(batch))
    after, _ = model(*change(batch))
    assert_equal(after["action_type"] != before["action_type"], before["action_type"] != -1e4)
    for name in ("value", "quantity", "q_values"):
        assert (after[name] != before[name]).all(), name


def test_two_calls_are_bit_equal_and_leave_the_model_as_it_was(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert_equal(model(*inputs(batch)), model(*inputs(batch)))
    assert_equal(dict(model.state_dict()), before)


# on a GPU


def test_rows_laid_side_by_side_attend_as_each_does_alone() -> None:
    torch.manual_seed(0)
    shape = (2 * ROWS_TOGETHER, 3, 7, 4)
    alone = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    together = [tensor.detach().clone().requires_grad_() for tensor in alone]
    expected, found = attend(*alone), attend_side_by_side(*together)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(shape, dtype=torch.float64)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-12, atol=1e-12)
    changed = [tensor.detach().clone() for tensor in alone]
    for tensor in changed:
        tensor[3] = torch.randn(shape[1:])
    rows = [row for row in range(shape[0]) if row != 3]
    assert_equal(attend_side_by_side(*changed)[rows], found.detach()[rows])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's
def test_compiled_steps_compute_the_same_and_copies_are_not_compiled(
    model: HierarchicalReasoningModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model(*inputs(batch))
    names = list(model.state_dict())
    compiled: list[object] = []

    def eager(function: object, **options: object) -> object:
        compiled.append(options)
        return real(function, backend="eager", **options)

    real = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    model.compile_steps()
    assert compiled == [{"dynamic": False}] * 2
    assert_equal(model(*inputs(batch)), expected)
    assert list(model.state_dict()) == names
    assert copy.deepcopy(model).h_module._compiled_call_impl is None


# heads


@pytest.mark.parametrize("side", Side)
def test_the_logit_of_an_illegal_action_is_exactly_minus_ten_thousand(
    side: Side, model: HierarchicalReasoningModel, batch: Batch
) -> None:
    account = batch.account.clone()
    account[:, 0] = side
    outputs, _ = model(batch.features, account, batch.instrument, batch.timeframe)
    illegal = [action for action in Action if action not in LEGAL[side]]
    assert_equal(outputs["action_type"][:, illegal], torch.full((9, len(illegal)), -1e4))
    assert outputs["action_type"][:, list(LEGAL[side])].abs().max() < 100


def test_heads_start_at_the_scale_that_is_set_with_the_same_draws(
    make_settings: MakeSettings,
) -> None:
    def drawn(scale: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return dict(
            HierarchicalReasoningModel(
                make_settings({"network.output_heads.initial_scale": scale})
            ).state_dict()
        )

    plain, small = drawn(1.0), drawn(0.1)
    heads = {
        "policy_head.logits.weight",
        "quantity_head.position.weight",
        "value_head.value.weight",
    }
    for name, tensor in plain.items():
        if name in heads:
            torch.testing.assert_close(small[name], 0.1 * tensor)
        else:
            assert_equal(small[name], tensor)


def test_dropout_of_the_heads_is_drawn_in_training_only_and_leaves_the_states(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    changes = {"network.output_heads.dropout": 0.5} | NO_DROPOUT
    model = make_model(make_settings(changes))
    served, states = model(*inputs(batch))
    again, _ = model(*inputs(batch))
    assert_equal(served, again)
    model.train()
    torch.manual_seed(0)
    one, same = model(*inputs(batch))
    other, _ = model(*inputs(batch))
    assert_equal(same, states)
    for name in ("action_type", "quantity", "value"):
        assert not torch.equal(one[name], other[name])
    # on average the value is what is served: dropped entries are made up for by the others
    drawn = torch.stack([model.decode(states[0], batch.account)["value"] for _ in range(4000)])
    spread = drawn.std(dim=0) / 4000**0.5
    assert ((drawn.mean(dim=0) - served["value"]).abs() < 5 * spread).all()


@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_the_quantity_stays_within_its_bounds_whatever_the_state(
    size: float, make_settings: MakeSettings
) -> None:
    bounds = {"quantity_min": 2.0, "quantity_max": 300.0}
    torch.manual_seed(0)
    head = QuantityHead(16, make_settings({"network.output_heads": bounds}).network.output_heads)
    lots = head(size * torch.randn(500, 16))
    assert ((lots >= 2) & (lots <= 300)).all()


def test_the_quantity_is_the_geometric_mean_of_its_bounds_at_rest_and_reaches_both(
    make_settings: MakeSettings,
) -> None:
    bounds = {"quantity_min": 2.0, "quantity_max": 300.0}
    head = QuantityHead(1, make_settings({"network.output_heads": bounds}).network.output_heads)
    torch.nn.init.ones_(head.position.weight)
    expected = torch.tensor([2.0, math.sqrt(600), 300.0])
    torch.testing.assert_close(head(torch.tensor([[-1e4], [0.0], [1e4]])), expected)


def test_outputs_stay_finite_for_huge_inputs(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    huge = (batch.features * 1e37, batch.account * 1e37, batch.instrument, batch.timeframe)
    outputs, states = model(*huge)
    assert all(tensor.isfinite().all() for tensor in (*outputs.values(), *states))
    assert ((outputs["quantity"] >= 1) & (outputs["quantity"] <= 1e5)).all()


# dropout


@pytest.mark.parametrize("module", ["h_module", "l_module"])
def test_dropout_acts_in_training_only(
    module: str, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    none = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}
    plain = make_model(make_settings(none))
    dropping = make_model(make_settings(none | {f"network.{module}.dropout": 0.5}))
    expected, _ = plain(*inputs(batch))
    assert_equal(dropping(*inputs(batch))[0], expected)
    assert_equal(plain.train()(*inputs(batch))[0], expected)
    torch.manual_seed(0)
    dropped, again = (dropping.train()(*inputs(batch))[0]["value"] for _ in range(2))
    assert (dropped != expected["value"]).all()
    assert (dropped != again).all()


@pytest.mark.parametrize("module", ["h_module", "l_module"])
@pytest.mark.parametrize("silent", ["attention.out", "mlp.down"])
def test_dropout_acts_on_attention_and_on_the_feed_forward(
    silent: str, module: str, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    none = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}
    model = make_model(make_settings(none | {f"network.{module}.dropout": 0.5}))
    torch.nn.init.zeros_(model.get_parameter(f"{module}.blocks.0.{silent}.weight"))
    torch.manual_seed(0)
    whole, dropped = model(*inputs(batch))[0], model.train()(*inputs(batch))[0]
    assert (dropped["value"] != whole["value"]).all()


# saving and loading


def test_everything_learned_drawn_or_measured_is_in_the_state(
    model: HierarchicalReasoningModel,
) -> None:
    measured = {
        f"input_network.{of}.{what}" for of in ("features", "account") for what in ("mean", "std")
    }
    drawn = {"h_module.initial_D", "l_module.initial_D"}
    learned = set(dict(model.named_parameters()))
    assert set(model.state_dict()) == learned | drawn | measured


def test_a_loaded_model_equals_the_saved_one_bit_for_bit(
    model: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    model.save_model(tmp_path / "weights.safetensors")
    loaded = HierarchicalReasoningModel.load_model(tmp_path / "weights.safetensors")
    assert loaded.settings == model.settings
    assert not loaded.training
    assert_equal(dict(loaded.state_dict()), dict(model.state_dict()))
    assert_equal(loaded(*inputs(batch)), model(*inputs(batch)))


def test_weights_of_other_dimensions_are_refused_with_the_first_that_differs(
    model: HierarchicalReasoningModel, make_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    wider = make_settings({"network.l_module.ffn_dim": 20})
    save_file(model.state_dict(), path, {"settings": wider.model_dump_json()})
    message = (
        f"{path}: 2 tensors differ from what the settings say; l_module.blocks.0.mlp.gate_up."
        "weight: expected ([40, 8], torch.float32), found ([32, 8], torch.float32)"
    )
    with pytest.raises(CheckpointInvalid, match=re.escape(message)):
        HierarchicalReasoningModel.load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("value_head.value.bias"),
            "value_head.value.bias: expected ([1], torch.float32), found nothing",
        ),
        (
            lambda state: state.update(extra=torch.ones(2)),
            "extra: expected nothing, found ([2], torch.float32)",
        ),
        (
            lambda state: state.update({"q_head.logits.bias": torch.ones(2).half()}),
            "q_head.logits.bias: expected ([2], torch.float32), found ([2], torch.float16)",
        ),
    ],
)
def test_a_tensor_missing_unknown_or_of_another_type_is_refused_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], object], message: str, model: HierarchicalReasoningModel
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    change(state)
    expected = re.escape(f"here: 1 tensors differ from what the settings say; {message}")
    with pytest.raises(CheckpointInvalid, match=expected):
        model.load_strict(state, "here")
    assert_equal(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "expected weights of this model: 'settings'"),
        ({"settings": "{"}, "expected weights of this model: Expecting property name"),
        (
            {"settings": json.dumps({"extra": 1})},
            "expected weights of this model: .*extra: unknown",
        ),
    ],
)
def test_weights_without_readable_settings_are_refused(
    metadata: dict[str, str] | None,
    message: str,
    model: HierarchicalReasoningModel,
    tmp_path: Path,
) -> None:
    save_file(model.state_dict(), tmp_path / "w.safetensors", metadata)
    with pytest.raises(CheckpointInvalid, match=message):
        HierarchicalReasoningModel.load_model(tmp_path / "w.safetensors")


def test_a_file_that_is_missing_or_no_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointInvalid, match=r"weights\.safetensors: expected weights of this"):
        HierarchicalReasoningModel.load_model(path)
    path.write_bytes(b"neither weights nor anything else")
    with pytest.raises(CheckpointInvalid, match=r"weights\.safetensors: expected weights of this"):
        HierarchicalReasoningModel.load_model(path)
