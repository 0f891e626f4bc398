"""What one segment is trained towards.

B batch; the five actions stand last.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor

from hrm_train.settings import Training


@dataclass(frozen=True)
class Losses:
    """The parts of an answer's loss, each a scalar averaged over the batch, and their sum."""

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
    return torch.softmax(-regrets(returns_B5) / temperature, dim=-1)


def regrets(returns_B5: Tensor) -> Tensor:
    """What each action gives up against the best one, in ATR; infinite where it is illegal."""
    legal_B5 = returns_B5.nan_to_num(nan=-torch.inf)
    return legal_B5.amax(dim=-1, keepdim=True) - legal_B5


def chosen_regrets(logits_B5: Tensor, returns_B5: Tensor) -> Tensor:
    """[B]: what the action with the largest logit gives up, in ATR."""
    chosen_B1 = logits_B5.argmax(dim=-1, keepdim=True)
    return regrets(returns_B5).gather(-1, chosen_B1).squeeze(-1)


def best_actions(logits_B5: Tensor, returns_B5: Tensor) -> Tensor:
    """Bool [B]: whether the action with the largest logit is a best one in hindsight."""
    return chosen_regrets(logits_B5, returns_B5) == 0


def answer_losses(
    outputs: dict[str, Tensor], returns_B5: Tensor, lots_B: Tensor, training: Training
) -> Losses:
    """Cross-entropy of the policy, smooth L1 of the value (ATR) and of the log quantity.

    Args:
        outputs: of the model.
        returns_B5: as `policy_target`; the value's target is the best of them.
        lots_B: target quantity.
        training: weights and temperature.
    """
    target_B5 = policy_target(returns_B5, training.policy_temperature)
    policy = -(target_B5 * F.log_softmax(outputs["action_type"], dim=-1)).sum(dim=-1).mean()
    best_B = returns_B5.nan_to_num(nan=-torch.inf).amax(dim=-1)
    value = F.smooth_l1_loss(outputs["value"], best_B)
    quantity = F.smooth_l1_loss(outputs["quantity"].log(), lots_B.log())
    total = policy + training.value_weight * value + training.quantity_weight * quantity
    return Losses(policy, value, quantity, total)


def halting_loss(logits_B2: Tensor, targets_B2: Tensor) -> Tensor:
    """Binary cross-entropy of q_halt and q_continue against G, summed; NaN is no target.

    Args:
        logits_B2: of the halting head.
        targets_B2: as `hrm_train.learning.act.halting_targets`.
    """
    given_B2 = targets_B2.isfinite()
    losses_B2 = F.binary_cross_entropy_with_logits(
        logits_B2, targets_B2.nan_to_num().to(logits_B2.dtype), reduction="none"
    )
    return (losses_B2 * given_B2).sum(dim=-1).mean()
