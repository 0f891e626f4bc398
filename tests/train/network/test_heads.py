"""The answers that are read from H."""

import math
from collections.abc import Callable

import pytest
import torch
from batch import Batch
from exactly import assert_equal

from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_train import HierarchicalReasoningModel
from hrm_train.network.heads import QuantityHead
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]

NO_DROPOUT = {"network.h_module.dropout": 0.0, "network.l_module.dropout": 0.0}


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
    served, states = model(*batch.inputs)
    again, _ = model(*batch.inputs)
    assert_equal(served, again)
    model.train()
    torch.manual_seed(0)
    one, same = model(*batch.inputs)
    other, _ = model(*batch.inputs)
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
    head = QuantityHead(make_settings({"network.output_heads": bounds}).network)
    lots = head(size * torch.randn(500, head.position.in_features))
    assert ((lots >= 2) & (lots <= 300)).all()


def test_the_quantity_is_the_geometric_mean_of_its_bounds_at_rest_and_reaches_both(
    make_settings: MakeSettings,
) -> None:
    bounds = {"quantity_min": 2.0, "quantity_max": 300.0}
    head = QuantityHead(make_settings({"network.output_heads": bounds}).network)
    torch.nn.init.constant_(head.position.weight, 1 / head.position.in_features)
    expected = torch.tensor([2.0, math.sqrt(600), 300.0])
    states = torch.tensor([[-1e4], [0.0], [1e4]]).expand(-1, head.position.in_features)
    torch.testing.assert_close(head(states), expected)


def test_outputs_stay_finite_for_huge_inputs(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    huge = (batch.features * 1e35, batch.account * 1e35, batch.instrument, batch.timeframe)
    outputs, states = model(*huge)
    assert all(tensor.isfinite().all() for tensor in (*outputs.values(), *states))
    assert ((outputs["quantity"] >= 1) & (outputs["quantity"] <= 1e5)).all()
