"""What one segment is trained towards.

B batch; the five actions stand last.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor

from hrm_train.settings import Settings


@dataclass(frozen=True)
class Losses:
    """The parts of a loss, each a scalar tensor averaged over the batch, and their weighted sum."""

    policy: Tensor
    value: Tensor
    quantity: Tensor
    total: Tensor


def policy_target(returns_B5: Tensor, temperature: float) -> Tensor:
    """softmax(-regret / temperature) over the legal actions; NaN marks an illegal one.

    Args:
        returns_B5: best return of each first action, in ATR.
        temperature: ATR.
    """
    legal_B5 = returns_B5.nan_to_num(nan=-torch.inf)
    regret_B5 = legal_B5.amax(dim=-1, keepdim=True) - legal_B5
    return torch.softmax(-regret_B5 / temperature, dim=-1)


def segment_losses(
    outputs: dict[str, Tensor], returns_B5: Tensor, lots_B: Tensor, settings: Settings
) -> Losses:
    """Cross-entropy of the policy, smooth L1 of the value (ATR) and of the log quantity.

    Args:
        outputs: of the model.
        returns_B5: as `policy_target`; the value's target is the best of them.
        lots_B: target quantity.
    """
    training = settings.training
    target_B5 = policy_target(returns_B5, training.policy_temperature)
    policy = -(target_B5 * F.log_softmax(outputs["action_type"], dim=-1)).sum(dim=-1).mean()
    best_B = returns_B5.nan_to_num(nan=-torch.inf).amax(dim=-1)
    value = F.smooth_l1_loss(outputs["value"], best_B)
    quantity = F.smooth_l1_loss(outputs["quantity"].log(), lots_B.log())
    total = policy + training.value_weight * value + training.quantity_weight * quantity
    return Losses(policy, value, quantity, total)
