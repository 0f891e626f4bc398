"""The layers that both recurrent modules are made of."""

import math

import pytest
import torch
from exactly import assert_equal

from hrm_train.network.layers import (
    MOST_TOGETHER,
    Linear,
    RotaryEmbedding,
    attend,
    attend_side_by_side,
    rms_norm,
    truncated_normal_,
)


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


# on a GPU


@pytest.mark.parametrize("rows", [2, MOST_TOGETHER])
def test_rows_laid_side_by_side_attend_as_each_does_alone(rows: int) -> None:
    torch.manual_seed(0)
    shape = (2 * MOST_TOGETHER, 3, 7, 4)
    alone = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    together = [tensor.detach().clone().requires_grad_() for tensor in alone]
    expected, found = attend(*alone), attend_side_by_side(*together, rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(shape, dtype=torch.float64)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-12, atol=1e-12)
    changed = [tensor.detach().clone() for tensor in alone]
    for tensor in changed:
        tensor[3] = torch.randn(shape[1:])
    others = [row for row in range(shape[0]) if row != 3]
    assert_equal(attend_side_by_side(*changed, rows)[others], found.detach()[others])
