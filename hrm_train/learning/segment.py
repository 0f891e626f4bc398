"""One segment of training: N cycles of T timesteps, of which the last carry the gradient.

Suffixes as in `hrm_train.network.model`.
"""

import torch
from torch import Tensor, nn

from hrm_train.learning.act import halting_targets
from hrm_train.learning.losses import answer_losses, best_actions, halting_loss
from hrm_train.learning.rollout import rollout
from hrm_train.network.dropout import keys_of
from hrm_train.network.model import HierarchicalReasoningModel, States

LOSSES = ("policy", "value", "quantity", "halting", "total")
"""What `TrainingSegment` returns of a batch, in order."""


class TrainingSegment(nn.Module):
    """A segment and its losses as one module, which is what several processes wrap.

    Attributes:
        model: what is trained; its settings say how.
    """

    def __init__(self, model: HierarchicalReasoningModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        features_BWF: Tensor,
        account_BC: Tensor,
        instrument_B: Tensor,
        timeframe_B: Tensor,
        returns_B5: Tensor,
        lots_B: Tensor,
        zH_BSD: Tensor,
        zL_BSD: Tensor,
        last_B: Tensor,
        key: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run a segment from carried states.

        Args:
            returns_B5, lots_B: labels, as in `hrm_train.data.prepared.Prepared`.
            zH_BSD, zL_BSD: from where each row goes on.
            last_B: bool, whether a row has no further segment.
            key: int32 scalar, of the dropout of this optimizer step and process.

        Returns:
            `LOSSES` [5], averaged over the batch; q_values [B, 2]; and the states after the
            segment, without their gradient.
        """
        model, training = self.model, self.model.settings.training
        x_BSD = model.encode(features_BWF, account_BC, instrument_B, timeframe_B)
        of_segment, of_next, of_heads = keys_of(key, 3)
        states = rollout(model, x_BSD, (zH_BSD, zL_BSD), training.gradient, of_segment)
        after = (states[0].detach(), states[1].detach())
        next_B2 = self._next_q(x_BSD.detach(), after, of_next)
        with torch.autocast(x_BSD.device.type, enabled=False):  # the heads in full precision
            zH_BSD = self._full(states[0])
            outputs = model.decode(zH_BSD, account_BC, of_heads)
            answer = answer_losses(outputs, returns_B5, lots_B, training)
            targets_B2 = halting_targets(
                best_actions(outputs["action_type"], returns_B5),
                next_B2,
                last_B,
            )
            halting = halting_loss(model.q_head.logits(zH_BSD[:, 0]), targets_B2)
            total = answer.total + training.halting_weight * halting
        losses = torch.stack((answer.policy, answer.value, answer.quantity, halting, total))
        return losses, outputs["q_values"].detach(), *after

    @torch.no_grad()
    def _next_q(self, x_BSD: Tensor, after: States, key: Tensor) -> Tensor | None:
        """q_values [B, 2] of the segment after this one; None where there never is one."""
        if self.model.settings.training.max_segments == 1:
            return None
        zH_BSD, _ = rollout(self.model, x_BSD, after, "one_step", key)
        with torch.autocast(x_BSD.device.type, enabled=False):
            next_B2: Tensor = self.model.q_head(self._full(zH_BSD)[:, 0])
        return next_B2

    def _full(self, zH_BSD: Tensor) -> Tensor:
        """In the precision of the weights."""
        return zH_BSD.to(self.model.q_head.logits.weight.dtype)
