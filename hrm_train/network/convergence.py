"""Eager inference that lets L settle: each row steps until its own residual is small enough.

Suffixes as in `model`; M: the rows that still move. The graph of an artifact never does this: its
N x T steps are the same for every row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hrm_train.network.model import HierarchicalReasoningModel, Outputs, States, residual


@dataclass(frozen=True, eq=False)
class Converged:
    """What B rows came to, and how.

    Attributes:
        outputs: of the heads, as `HierarchicalReasoningModel.forward` gives them.
        states: the final (z_H, z_L).
        l_steps: int64 [B, N], the steps L took in each cycle.
        l_residual: [B, N, steps]; NaN after a row's last step.
        h_residual: [B, N].
        settled: bool [B, N], whether the last step of L was within the threshold.
    """

    outputs: Outputs
    states: States
    l_steps: Tensor
    l_residual: Tensor
    h_residual: Tensor
    settled: Tensor


@torch.no_grad()
def converge(
    model: HierarchicalReasoningModel,
    features: Tensor,
    account: Tensor,
    instrument: Tensor,
    timeframe: Tensor,
    z_init: States | None = None,
    steps: int | None = None,
    threshold: float | None = None,
) -> Converged:
    """One segment in which each row's L stops once its residual is at or below the threshold.

    A residual is the root mean square, over tokens and width, of what a step changed. A row that
    has settled keeps its state while others go on, so it does not depend on them. With as many
    steps as the model has timesteps this is early stopping; with more, L has the time to settle
    that N x T steps do not give it. Not every row settles, however long; and rounding in float32
    keeps residuals at the base size near 1e-6, which is therefore the least that can be asked for
    (docs/model.md).

    Args:
        model: in eval mode; dropout never settles.
        features, account, instrument, timeframe, z_init: as its `forward`.
        steps: of L per cycle, at most; `hierarchical.max_convergence_steps` if left out.
        threshold: `hierarchical.convergence_threshold` if left out. 0 runs all steps.

    Raises:
        ValueError: less than one step, or a threshold that is negative or not a number.
    """
    config = model.settings.network.hierarchical
    steps = config.max_convergence_steps if steps is None else steps
    threshold = config.convergence_threshold if threshold is None else threshold
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, found {steps}")
    if not threshold >= 0:
        raise ValueError(f"threshold: expected at least 0, found {threshold}")
    x_BSD = model.encode(features, account, instrument, timeframe)
    zH_BSD, zL_BSD = model.initialize_states(z_init)
    cycles = []
    for n in range(model.cycles):
        if n > 0:
            zL_BSD = model.reset_l_module(zL_BSD)
        zL_BSD, *followed = _settle(model, zH_BSD, zL_BSD, x_BSD, steps, threshold)
        next_BSD = model.high(zH_BSD, zL_BSD)
        cycles.append((*followed, residual(next_BSD, zH_BSD)))
        zH_BSD = next_BSD
    l_steps, l_residual, settled, h_residual = (
        torch.stack(per_cycle, dim=1) for per_cycle in zip(*cycles, strict=True)
    )
    return Converged(
        outputs=model.decode(zH_BSD, account),
        states=(zH_BSD, zL_BSD),
        l_steps=l_steps,
        l_residual=l_residual,
        h_residual=h_residual,
        settled=settled,
    )


def _settle(
    model: HierarchicalReasoningModel,
    zH_BSD: Tensor,
    zL_BSD: Tensor,
    x_BSD: Tensor,
    steps: int,
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Steps of L under a fixed z_H, computed for those rows only that have not settled.

    Returns:
        z_L [B, S, D]; as in `Converged`, but of one cycle: the steps taken [B], the residuals
        [B, steps] and which rows settled [B].
    """
    rows = len(x_BSD)
    zL_BSD = zL_BSD.expand_as(x_BSD)  # a state may have one row for all
    taken_B = torch.zeros(rows, dtype=torch.int64, device=x_BSD.device)
    residual_BT = x_BSD.new_full((rows, steps), torch.nan)
    settled_B = torch.zeros_like(taken_B, dtype=torch.bool)
    moving_M = torch.arange(rows, device=x_BSD.device)
    for t in range(steps):
        zH_MSD = zH_BSD if len(zH_BSD) == 1 else zH_BSD[moving_M]
        before_MSD = zL_BSD[moving_M]
        after_MSD = model.low(before_MSD, zH_MSD, x_BSD[moving_M])
        residual_M = residual(after_MSD, before_MSD)
        within_M = residual_M <= threshold
        zL_BSD = zL_BSD.index_copy(0, moving_M, after_MSD)
        taken_B[moving_M] += 1
        residual_BT[moving_M, t] = residual_M
        settled_B[moving_M] = within_M
        moving_M = moving_M[~within_M]
        if not len(moving_M):
            break
    return zL_BSD, taken_B, residual_BT, settled_B
