"""Dropout by a key: the same masks wherever it is computed, others for every key and place."""

import pytest
import torch
from exactly import assert_equal

from hrm_train.network.dropout import Dropout, key_of, keys_of

MOST = 2**32


def lowbias32(number: int) -> int:
    """The hash as it was published, in whole numbers."""
    number ^= number >> 16
    number = number * 0x7FEB352D % MOST
    number ^= number >> 15
    number = number * 0x846CA68B % MOST
    return number ^ number >> 16


def test_a_mask_follows_from_key_layer_and_place_alone() -> None:
    key, share = key_of(3, 1, 4), 0.3
    layer = Dropout(share, number=5)
    start = lowbias32((int(key) - 5 * 0x61C88647) % MOST)
    kept = [lowbias32(place ^ start) % 2**31 >= int(share * 2**31) for place in range(600)]
    x = torch.arange(1.0, 601.0)
    expected = torch.where(torch.tensor(kept), x / (1 - share), 0.0)
    for _ in range(2):
        torch.rand(7)  # a generator is nothing to it
        assert_equal(layer(x, key), expected)
        assert_equal(layer(x.view(20, 30), key), expected.view(20, 30))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_masks_of_keys_layers_and_neighbours_have_nothing_in_common(share: float) -> None:
    x, key = torch.ones(100_000), key_of(0)
    layers = [Dropout(share, number) for number in range(4)]
    masks = [layer(x, key) == 0 for key in keys_of(key, 4) for layer in layers]
    masks += [layers[0](x, key_of(0, step, process)) == 0 for step in (1, 2) for process in (0, 1)]
    masks += [masks[0].roll(by) for by in (1, 2, 11, 32, 512)]
    found = torch.stack(masks).double()
    spread = (share * (1 - share) / len(x)) ** 0.5
    assert (found.mean(dim=1) - share).abs().max() < 4.5 * spread
    apart = torch.corrcoef(found).fill_diagonal_(0)
    assert apart.abs().max() < 4.5 / len(x) ** 0.5


def test_what_is_kept_makes_up_for_what_is_dropped() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    found = Dropout(0.25)(x, key_of(2))
    assert set((found / x).unique().tolist()) <= {0.0, *(x / 0.75 / x).unique().tolist()}
    assert abs(float(found.mean() - x.mean())) < 0.01


def test_without_a_key_each_call_draws_one_and_in_eval_mode_nothing_is_dropped() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(0)
    one, other = layer(x), layer(x)
    assert (one != other).any()
    torch.manual_seed(0)
    assert_equal(layer(x), one)
    assert_equal(layer.eval()(x, key_of(0)), x)
    assert_equal(Dropout(0.0)(x, key_of(0)), x)
