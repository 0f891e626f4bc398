"""What a caller gives the model and calls on it: the names and the pass that were specified."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from batch import Batch
from exactly import assert_equal
from torch import Tensor, nn

from hrm_runtime.errors import (
    BadAccount,
    BadFeatures,
    BadInput,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.market.actions import LEGAL, Side
from hrm_train import HierarchicalReasoningModel
from hrm_train.network.embedding import InputEmbeddingNetwork, ModelInput
from hrm_train.network.heads import PolicyHead, QHead, QuantityHead, ValueHead
from hrm_train.network.recurrent import HighLevelModule, LowLevelModule
from hrm_train.settings import Network, Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]


def specified(self: Any, x: ModelInput, z_init: Any = None) -> Any:
    """The forward pass of the specification that the network was built to, word for word."""
    x_embedded = self.input_network(x)

    # Initialize hidden states
    z_H, z_L = self.initialize_states(z_init)

    # Hierarchical convergence over N cycles
    for cycle in range(self.N):
        # L-module converges within cycle (T timesteps)
        for _ in range(self.T):
            z_L = self.l_module(z_L, z_H, x_embedded)

        # H-module updates once per cycle using converged L-state
        z_H = self.h_module(z_H, z_L)

        # Reset L-module for next cycle's fresh convergence
        if cycle < self.N - 1:
            z_L = self.reset_l_module(z_L)

    # Generate outputs from final H-module state
    outputs = {
        "action_type": self.policy_head(z_H),
        "quantity": self.quantity_head(z_H),
        "value": self.value_head(z_H),
        "q_values": self.q_head(z_H),
    }

    return outputs, (z_H, z_L)


class Specified(nn.Module):
    """The parts of that specification, word for word."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        # Input embedding network
        self.input_network = InputEmbeddingNetwork(config)

        # Dual recurrent modules
        self.h_module = HighLevelModule(config)  # Strategic reasoning
        self.l_module = LowLevelModule(config)  # Tactical execution

        # Output heads
        self.policy_head = PolicyHead(config)  # Action type (5 discrete)
        self.quantity_head = QuantityHead(config)  # Continuous quantity
        self.value_head = ValueHead(config)  # State value estimation
        self.q_head = QHead(config)  # ACT halting mechanism

        # Hierarchical convergence parameters
        self.N = config.hierarchical.N_cycles  # High-level cycles
        self.T = config.hierarchical.T_timesteps  # Low-level timesteps per cycle


@pytest.mark.parametrize("reset", [True, False])
def test_the_forward_pass_as_it_was_specified_runs_on_the_model_and_answers_alike(
    reset: bool, make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    settings = make_settings(
        {"network.hierarchical.reset_l_module": reset, "network.hierarchical.N_cycles": 3}
    )
    model = make_model(settings)
    given = ModelInput(*batch.inputs)
    for states in (None, model(given)[1]):
        found, found_states = specified(model, given, states)
        expected, expected_states = model(given, states)
        assert_equal(found_states, expected_states)
        legal = expected["action_type"] > -1e4
        assert_equal(found["action_type"][legal], expected["action_type"][legal])
        assert legal.sum() == sum(len(LEGAL[Side(int(side))]) for side in batch.account[:, 0])
        del expected["l_residual"], expected["h_residual"]
        assert_equal({**found, "action_type": None}, {**expected, "action_type": None})


def test_its_parts_are_made_of_the_networks_settings_as_they_were_specified(
    model: HierarchicalReasoningModel,
) -> None:
    made = Specified(model.settings.network)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in made.state_dict().items()} == shapes
    assert (made.N, made.T) == (model.N, model.T) == (model.cycles, model.timesteps)


def test_what_a_pass_needs_is_given_in_one_or_one_by_one(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    given = ModelInput(*batch.inputs)
    expected = model(*given)
    states = expected[1]
    for found in (model(given), model(x=given), model(**given._asdict())):
        assert_equal(found, expected)
    expected = model(*given, states)
    for found in (model(given, states), model(given, z_init=states), model(*given, z_init=states)):
        assert_equal(found, expected)


@pytest.mark.parametrize(
    ("part", "change", "error", "message"),
    [
        (
            "features",
            lambda x: x[:, 1:],
            BadFeatures,
            r"expected torch.float32 \[9, 6, 54\], found .*\[9, 5, 54\]",
        ),
        ("features", lambda x: x[0], BadFeatures, r"torch.float32 \[6, 6, 54\], found"),
        ("features", lambda x: x.new_tensor(1.0), BadFeatures, r"found torch.float32 \[\]"),
        ("features", lambda x: x.long(), BadFeatures, "found torch.int64"),
        ("features", lambda x: x.double(), BadFeatures, "found torch.float64"),
        ("features", lambda x: x.numpy(), BadFeatures, "expected a tensor of .*, found ndarray"),
        ("account", lambda x: x.double(), BadAccount, "found torch.float64"),
        ("instrument", lambda x: x.tolist(), UnknownInstrument, "a tensor of .*, found list"),
        ("timeframe", lambda _: 1, UnknownTimeframe, "a tensor of .*, found int"),
        (
            "features",
            lambda x: x.index_put(tuple(torch.tensor([2, 3, 4])[:, None]), torch.tensor(torch.nan)),
            BadFeatures,
            r"expected finite numbers, found nan at \[2, 3, 4\]",
        ),
        (
            "account",
            lambda x: x[:5],
            BadAccount,
            r"torch.float32 \[9, 5\], found torch.float32 \[5, 5\]",
        ),
        ("account", lambda x: x / 0, BadAccount, "expected finite numbers, found"),
        ("instrument", lambda x: x + 1000, UnknownInstrument, r"from 0 to \d+, .*, found 1001 to"),
        ("instrument", lambda x: x - 9, UnknownInstrument, "found -8 to"),
        (
            "instrument",
            lambda x: x.float(),
            UnknownInstrument,
            r"integers \[9\], found torch.float",
        ),
        ("timeframe", lambda x: x[:, None], UnknownTimeframe, r"integers \[9\], found .*\[9, 1\]"),
        ("timeframe", lambda x: x + 1000, UnknownTimeframe, r"from 0 to \d+, .*, found 1001 to"),
    ],
)
def test_what_no_pass_can_be_made_of_is_refused_by_name(
    part: str,
    change: Callable[[Tensor], Tensor],
    error: type[Exception],
    message: str,
    model: HierarchicalReasoningModel,
    batch: Batch,
) -> None:
    given = ModelInput(*batch.inputs)
    wrong = given._replace(**{part: change(getattr(given, part))})
    with pytest.raises(error, match=f"{part}: .*{message}"):
        model(wrong)


def test_states_of_another_shape_are_refused(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    given = ModelInput(*batch.inputs)
    _, (z_H, z_L) = model(given)
    wrong = [(z_L, z_H), (z_H[:, :2], z_L), (z_H[:4], z_L), (z_H, z_L[:, :, 1:]), (None, None)]
    for states in wrong:
        with pytest.raises(BadInput, match=r"z_init: expected \(z_H, z_L\) of 9 or 1 rows of"):
            model(given, states)


def test_states_that_are_no_numbers_of_the_network_are_refused(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    given = ModelInput(*batch.inputs)
    _, (z_H, z_L) = model(given)
    for states in ((z_H * torch.nan, z_L), (z_H, z_L / 0), (z_H.double(), z_L), (z_H, z_L.half())):
        with pytest.raises(BadInput, match=r"z_init: expected finite numbers of torch\.float32"):
            model(given, states)
