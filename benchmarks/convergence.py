"""How many steps L needs until it has settled, with random weights and windows, by preset.

One line per preset and precision: the residual that rounding leaves (median of what has settled),
and of the cycles of all rows the mean residual after T steps, how many have settled after 100 and
after `STEPS` steps, and after how many those that settle have (median, 90 %).
"""

from typing import Final

import torch

from hrm_runtime.columns import ACCOUNT, FEATURES
from hrm_train.convergence import converge
from hrm_train.model import HierarchicalReasoningModel
from hrm_train.settings import preset

ROWS: Final = {"tiny": 256, "base": 16}
STEPS: Final = 300


def main() -> None:
    """Measure and print."""
    for name, rows in ROWS.items():
        for dtype in (torch.float32, torch.float64):
            measure(name, rows, dtype)


def measure(name: str, rows: int, dtype: torch.dtype) -> None:
    """Follow `rows` rows of a preset for `STEPS` steps per cycle, and print."""
    settings = preset(name)
    config = settings.network.hierarchical
    torch.manual_seed(0)
    model = HierarchicalReasoningModel(settings).eval().to(dtype)
    found = converge(
        model,
        torch.randn(rows, settings.network.input.window, len(FEATURES), dtype=dtype),
        torch.randn(rows, len(ACCOUNT), dtype=dtype),
        torch.randint(settings.network.embeddings.max_instruments, (rows,)),
        torch.randint(settings.network.embeddings.max_timeframes, (rows,)),
        steps=STEPS,
        threshold=0.0,
    )
    residual_RT = found.l_residual.flatten(0, 1)  # R: the cycles of all rows
    within_RT = residual_RT <= config.convergence_threshold
    settled_R = within_RT.any(dim=1)
    steps_R = 1 + within_RT[settled_R].int().argmax(dim=1)
    print(
        f"{name} {dtype}: rounding leaves {residual_RT[settled_R, -1].median():.0e}, "
        f"{residual_RT[:, config.T_timesteps - 1].mean():.2f} after {config.T_timesteps} steps, "
        f"within {config.convergence_threshold:.0e} after 100 steps "
        f"{within_RT[:, :100].any(dim=1).double().mean():.0%}, after {STEPS} "
        f"{settled_R.double().mean():.0%}, median {steps_R.median()} steps, "
        f"90 % {steps_R.double().quantile(0.9):.0f}"
    )


if __name__ == "__main__":
    main()
