"""The network against an independent transcription of its equations, and what it promises.

`Published` knows the network's weights by name and nothing else of `hrm_train`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from batch import Batch
from exactly import assert_equal
from torch import Tensor

from hrm_train import HierarchicalReasoningModel
from hrm_train.network.model import Outputs
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

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
