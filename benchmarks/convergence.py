"""How many steps L needs until it has settled, with random weights and windows, by preset.

    python benchmarks/convergence.py
    python benchmarks/convergence.py --artifact ARTIFACT --data FILE.csv [--data FILE.csv]

One line per preset and precision: the residual that rounding leaves (median of what has settled),
and of the cycles of all rows the mean residual after T steps, how many have settled after 100 and
after `STEPS` steps, and after how many those that settle have (median, 90 %).

Given an artifact, its own residuals instead, over 200 windows of bars: the median after each step,
and the quantiles of the last one of L.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from emulated import windows

from hrm_runtime import load
from hrm_runtime.artifact.contract import INPUTS
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.network.convergence import converge
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import preset

ROWS: Final = {"tiny": 256, "base": 16}
STEPS: Final = 300


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, help="tell of this instead")
    parser.add_argument("--data", type=Path, action="append", default=[], help="bars as CSV")
    asked = parser.parse_args()
    if asked.artifact:
        tell(asked.artifact, asked.data)
        return
    for name, rows in ROWS.items():
        for dtype in (torch.float32, torch.float64):
            measure(name, rows, dtype)


def tell(artifact: Path, files: list[Path]) -> None:
    """Run windows of the bars through an artifact, and print its residuals."""
    model = load(artifact)
    given = windows(model, files)
    outputs = model.run(*(given[name] for name in INPUTS))
    l_residual, h_residual = outputs["l_residual"], outputs["h_residual"]
    for cycle, (low, high) in enumerate(
        zip(np.median(l_residual, axis=0), np.median(h_residual, axis=0), strict=True), start=1
    ):
        print(f"cycle {cycle}: L {' '.join(f'{step:.3f}' for step in low)}, H {high:.3f}")
    half, most, nearly_all = np.quantile(l_residual[:, -1, -1], [0.5, 0.9, 0.99])
    print(f"last of L: median {half:.3f}, 90 % {most:.3f}, 99 % {nearly_all:.3f}")


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
