"""What serving answers, in torch: the runtime's `run_segments` for a whole batch at once.

B batch; the other suffixes are those of `model`.
"""

import torch
from torch import Tensor

from hrm_train.network.embedding import ModelInput
from hrm_train.network.model import HierarchicalReasoningModel, Outputs


@torch.inference_mode()
def served(
    model: HierarchicalReasoningModel,
    features_BWF: Tensor,
    account_BC: Tensor,
    instrument_B: Tensor,
    timeframe_B: Tensor,
) -> tuple[Outputs, Tensor]:
    """Segments, each from the states of the one before, until every row has halted.

    A row halts after the first segment whose q_halt exceeds its q_continue or whose q_values are
    not numbers, at the latest after `training.max_segments`.

    Args:
        model: in eval mode.
        features_BWF, account_BC, instrument_B, timeframe_B: as `ModelInput`; a row that is not
            finite disturbs no other.

    Returns:
        The outputs of each row's last segment, and how many segments it took, int64 [B].
    """
    x = ModelInput(features_BWF, account_BC, instrument_B, timeframe_B)
    outputs, states = model.segment(x)
    segments_B = torch.ones_like(instrument_B)
    halted_B = _halts(outputs)
    for segment in range(2, model.settings.training.max_segments + 1):
        if halted_B.all():
            break
        later, states = model.segment(x, states)
        outputs = {name: _where(halted_B, outputs[name], later[name]) for name in outputs}
        segments_B = torch.where(halted_B, segments_B, segment)
        halted_B |= _halts(later)
    return outputs, segments_B


def _halts(outputs: Outputs) -> Tensor:
    halt_B, continue_B = outputs["q_values"].unbind(dim=-1)
    return ~(halt_B <= continue_B)  # what is not a number compares false, and halts


def _where(chosen_B: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen_B.view(-1, *[1] * (one.ndim - 1)), one, other)
