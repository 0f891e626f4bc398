"""Input scales of the recurrent products: found once, on windows, and static from then on.

H bins of a histogram.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor, nn

from hrm_train.errors import DataInvalid
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.quantisation import INPUT_LEVELS
from hrm_train.network.serving import served

LEAST_WINDOWS: Final = 32
BINS: Final = 2048
_TOGETHER: Final = 64
"""Windows in one batch: memory does not grow with more of them."""

Array = npt.NDArray[Any] | Tensor


def calibrate(
    model: HierarchicalReasoningModel,
    features: Array,
    account: Array,
    instrument: Array,
    timeframe: Array,
) -> dict[str, float]:
    """What `HierarchicalReasoningModel.quantise` takes, from what products are given in serving.

    Every step of every segment that is served counts, with quantisers off. A scale is that of the
    clip with the least expected error.

    Args:
        model: trained; it stays as it is.
        features, account, instrument, timeframe: of the windows, as its `forward`.

    Raises:
        DataInvalid: too few windows, or a product is given nothing but 0, or no finite numbers.
    """
    if len(features) < LEAST_WINDOWS:
        raise DataInvalid(
            f"expected at least {LEAST_WINDOWS} windows to calibrate quantisers on, found "
            f"{len(features)}; give more bars"
        )
    device = model.device
    batches = [
        torch.as_tensor(array, device=device).split(_TOGETHER)
        for array in (features, account, instrument, timeframe)
    ]
    peaks = {name: torch.zeros((), device=device) for name in model.products}
    counts_H = {name: torch.zeros(BINS, dtype=torch.int64, device=device) for name in peaks}

    def largest(name: str, x: Tensor) -> None:
        peaks[name] = torch.maximum(peaks[name], x.abs().amax())

    def count(name: str, x: Tensor) -> None:
        bins = (x.abs() * (BINS / peaks[name])).long().clamp(max=BINS - 1)
        counts_H[name] += torch.bincount(bins.flatten(), minlength=BINS)

    _watch(model, batches, largest)
    for name, peak in peaks.items():
        if not 0 < peak < torch.inf:
            raise DataInvalid(
                f"{name}: expected finite inputs other than 0 to calibrate its quantiser on, found "
                f"a largest of {peak.item():g}; the windows or the weights are damaged"
            )
    _watch(model, batches, count)
    return {name: scale_of(counts_H[name].cpu(), peaks[name].item()) for name in peaks}


def scale_of(counts_H: Tensor, peak: float) -> float:
    """The scale with the least expected squared error for values whose histogram is given.

    A value within the clip is off by the rounding of an even spread, scale^2 / 12; one beyond it by
    the distance.

    Args:
        counts_H: of absolute values, in equal bins from 0 to `peak`.
        peak: the largest.
    """
    counts_H = counts_H.double()
    clip_H = peak * torch.arange(1, BINS + 1, dtype=torch.float64) / BINS  # at the end of each bin
    centre_H = clip_H - 0.5 * peak / BINS
    scale_H = clip_H / INPUT_LEVELS[1]

    def beyond(values_H: Tensor) -> Tensor:
        return values_H.sum() - values_H.cumsum(0)

    distance_H = (
        beyond(counts_H * centre_H**2)
        - 2 * clip_H * beyond(counts_H * centre_H)
        + clip_H**2 * beyond(counts_H)
    )
    error_H = counts_H.cumsum(0) * scale_H**2 / 12 + distance_H
    return scale_H[error_H.argmin()].item()


@torch.inference_mode()
def _watch(
    model: HierarchicalReasoningModel,
    batches: list[tuple[Tensor, ...]],
    see: Callable[[str, Tensor], None],
) -> None:
    """Serve every batch with quantisers off; `see` what each product is given."""
    twin = model.without_quantisers().eval()
    for name, product in twin.products.items():

        def look(_: nn.Module, given: tuple[Tensor], name: str = name) -> None:
            see(name, given[0])

        product.register_forward_pre_hook(look)
    for batch in zip(*batches, strict=True):
        served(twin, *batch)
