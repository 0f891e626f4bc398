"""Losses by hand and against plain formulas."""

import math
from collections.abc import Callable

import pytest
import torch

from hrm_train.learning.losses import (
    answer_losses,
    best_actions,
    halting_loss,
    policy_target,
    regrets,
)
from hrm_train.settings import Settings, Training

NAN = math.nan
FLAT = [1.0, -1.0, NAN, NAN, 0.5]
LONG = [NAN, NAN, -0.25, NAN, 0.0]
RETURNS = torch.tensor([FLAT, LONG])


def test_the_policy_target_is_the_softmax_of_regret_over_legal_actions() -> None:
    weights = [[1, math.exp(-4), 0, 0, math.exp(-1)], [0, 0, math.exp(-0.5), 0, 1]]
    expected = torch.tensor([[w / sum(row) for w in row] for row in weights])
    found = policy_target(RETURNS, temperature=0.5)
    torch.testing.assert_close(found, expected)
    assert (found[RETURNS.isnan()] == 0).all()


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1e-3, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]),
        (1e6, [[1 / 3, 1 / 3, 0, 0, 1 / 3], [0, 0, 1 / 2, 0, 1 / 2]]),
    ],
)
def test_the_policy_target_goes_from_the_best_action_to_all_legal_ones(
    temperature: float, expected: list[list[float]]
) -> None:
    torch.testing.assert_close(policy_target(RETURNS, temperature), torch.tensor(expected).float())


def test_actions_equally_good_share_the_target() -> None:
    equal = torch.tensor([[2.0, 2.0, NAN, NAN, 2.0]])
    torch.testing.assert_close(policy_target(equal, 0.5), torch.tensor([[1, 1, 0, 0, 1]]) / 3)


def smooth_l1(difference: float) -> float:
    size = abs(difference)
    return 0.5 * size * size if size < 1 else size - 0.5


@pytest.mark.parametrize(("value_weight", "quantity_weight"), [(0.1, 1.0), (0.0, 0.0), (3.0, 0.5)])
def test_each_part_follows_its_formula_and_the_total_is_weighted(
    value_weight: float, quantity_weight: float, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(
        {"training.value_weight": value_weight, "training.quantity_weight": quantity_weight}
    )
    logits = [[0.3, -0.2, -1e4, -1e4, 0.9], [-1e4, -1e4, 1.5, -1e4, 0.5]]
    values, quantities, lots = [0.6, 2.5], [10.0, 400.0], [15.0, 20.0]
    outputs = {
        "action_type": torch.tensor(logits),
        "value": torch.tensor(values),
        "quantity": torch.tensor(quantities),
        "q_values": torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
    }

    losses = answer_losses(outputs, RETURNS, torch.tensor(lots), settings.training)

    policy = 0.0
    for row, returns in zip(logits, RETURNS.tolist(), strict=True):
        legal = [a for a in range(5) if not math.isnan(returns[a])]
        weights = {a: math.exp((returns[a] - max(returns[b] for b in legal)) / 0.5) for a in legal}
        spread = math.log(sum(math.exp(logit) for logit in row))
        policy -= sum(w / sum(weights.values()) * (row[a] - spread) for a, w in weights.items()) / 2
    value = (smooth_l1(0.6 - 1.0) + smooth_l1(2.5 - 0.0)) / 2
    quantity = (smooth_l1(math.log(10 / 15)) + smooth_l1(math.log(400 / 20))) / 2
    expected = (policy, value, quantity, policy + value_weight * value + quantity_weight * quantity)
    found = torch.stack([losses.policy, losses.value, losses.quantity, losses.total])
    torch.testing.assert_close(found, torch.tensor(expected))


def test_an_illegal_action_adds_neither_loss_nor_gradient() -> None:
    logits = torch.tensor([[0.3, -0.2, -1e4, -1e4, 0.9]], requires_grad=True)
    outputs = {"action_type": logits, "value": torch.ones(1), "quantity": torch.ones(1)}
    policy = answer_losses(outputs, RETURNS[:1], torch.ones(1), Training()).policy
    (gradient,) = torch.autograd.grad(policy, logits)
    assert torch.equal(gradient != 0, torch.tensor([[True, True, False, False, True]]))


def test_the_loss_of_a_target_that_is_met_is_the_targets_own_entropy(settings: Settings) -> None:
    target = policy_target(RETURNS, settings.training.policy_temperature)
    outputs = {
        "action_type": target.log().clamp(min=-1e4),
        "value": torch.tensor([1.0, 0.0]),
        "quantity": torch.tensor([3.0, 7.0]),
    }
    losses = answer_losses(outputs, RETURNS, torch.tensor([3.0, 7.0]), settings.training)
    entropy = -torch.special.xlogy(target, target).sum(dim=1).mean()
    torch.testing.assert_close(losses.policy, entropy)
    torch.testing.assert_close(losses.total, entropy)
    assert losses.value == losses.quantity == 0


# regret


def test_regret_is_what_an_action_gives_up_and_infinite_where_it_is_illegal() -> None:
    expected = torch.tensor(
        [[0.0, 2.0, math.inf, math.inf, 0.5], [math.inf] * 2 + [0.25, math.inf, 0.0]]
    )
    assert torch.equal(regrets(RETURNS), expected)


@pytest.mark.parametrize(
    ("logits", "returns", "best"),
    [
        ([0.3, 0.2, -1e4, -1e4, 0.1], FLAT, True),
        ([0.2, 0.3, -1e4, -1e4, 0.1], FLAT, False),
        ([-1e4, -1e4, 0.1, -1e4, 0.2], LONG, True),
        ([-1e4, -1e4, 0.2, -1e4, 0.1], LONG, False),
        ([0.1, 0.2, -1e4, -1e4, 0.1], [2.0, 2.0, NAN, NAN, 1.0], True),  # one of two best ones
        ([0.2, 0.2, -1e4, -1e4, 0.1], [2.0, 1.0, NAN, NAN, 2.0], True),  # of equals, the first
        ([0.2, 0.2, -1e4, -1e4, 0.1], [1.0, 2.0, NAN, NAN, 2.0], False),
        ([0.2, 0.1, -1e4, -1e4, 0.1], [1.0, 1.0 + 1e-6, NAN, NAN, 1.0], False),
    ],
)
def test_an_answer_is_correct_where_no_other_would_have_returned_more(
    logits: list[float], returns: list[float], best: bool
) -> None:
    rows = torch.tensor([logits, logits]), torch.tensor([returns, returns])
    assert best_actions(*rows).tolist() == [best, best]


# halting


def bce(logit: float, target: float) -> float:
    chance = 1 / (1 + math.exp(-logit))
    return -(target * math.log(chance) + (1 - target) * math.log(1 - chance))


def test_halting_is_the_cross_entropy_of_both_values_summed_over_them_and_averaged_over_rows() -> (
    None
):
    logits = [[0.3, -0.7], [-2.0, 1.5], [0.0, 4.0]]
    targets = [[1.0, 0.25], [0.0, 0.9], [1.0, 1.0]]
    rows = [
        sum(bce(z, g) for z, g in zip(*row, strict=True))
        for row in zip(logits, targets, strict=True)
    ]
    found = halting_loss(torch.tensor(logits), torch.tensor(targets))
    torch.testing.assert_close(found, torch.tensor(sum(rows) / 3))


def test_a_value_without_a_target_adds_neither_loss_nor_gradient() -> None:
    logits = torch.tensor([[0.3, -0.7], [-2.0, 1.5]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [0.0, 0.9]])
    loss = halting_loss(logits, targets)
    expected = (bce(0.3, 1.0) + bce(-2.0, 0.0) + bce(1.5, 0.9)) / 2
    torch.testing.assert_close(loss, torch.tensor(expected))
    (gradient,) = torch.autograd.grad(loss, logits)
    chance = torch.sigmoid(logits.detach())
    expected_gradient = (chance - targets.nan_to_num()) / 2
    expected_gradient[0, 1] = 0.0
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_the_halting_loss_of_huge_logits_is_finite_and_grows_with_them(size: float) -> None:
    logits, targets = torch.tensor([[size, -size]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(halting_loss(logits, targets), torch.tensor(2 * size))
