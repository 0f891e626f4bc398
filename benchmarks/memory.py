"""Peak memory of training the base preset, by depth and gradient.

Each measurement is a process of its own that takes two optimizer steps on random windows; what is
shown is the largest resident memory it ever had, libraries included.

    python benchmarks/memory.py [--batch 64] [--skip-full]
"""

import argparse
import json
import resource
import subprocess
import sys

from hrm_runtime.measure.turns import end_with_parent, lifeline

DEPTHS = ((3, 5), (3, 50))


def step(cycles: int, timesteps: int, gradient: str, batch: int) -> float:
    """Peak resident memory of this process in MB, after two steps."""
    import numpy as np
    import torch

    from hrm_runtime.market.actions import Action
    from hrm_runtime.market.columns import ACCOUNT, FEATURES
    from hrm_train.learning.segment import TrainingSegment
    from hrm_train.network.model import HierarchicalReasoningModel
    from hrm_train.settings import parse_settings

    settings = parse_settings(
        {
            "hierarchical_reasoning_model": {
                "hierarchical": {"N_cycles": cycles, "T_timesteps": timesteps}
            },
            "training": {"gradient": gradient},
        }
    )
    torch.manual_seed(0)
    model = HierarchicalReasoningModel(settings)
    segment = TrainingSegment(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    returns = torch.full((batch, len(Action)), -1.0)
    returns[:, [Action.CLOSE_LONG, Action.CLOSE_SHORT]] = np.nan
    returns[:, Action.HOLD] = 0.0
    account = torch.randn(batch, len(ACCOUNT))
    account[:, 0] = 0.0
    window = settings.network.input.window
    states = tuple(z.expand(batch, -1, -1) for z in model.initialize_states())
    for _ in range(2):
        losses, _, *states = segment(
            torch.randn(batch, window, len(FEATURES)),
            account,
            torch.ones(batch, dtype=torch.int64),
            torch.ones(batch, dtype=torch.int64),
            returns,
            torch.full((batch,), 10.0),
            *states,
            torch.zeros(batch, dtype=torch.bool),
        )
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--skip-full", action="store_true", help="it needs up to 20 GB")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        end_with_parent()
        cycles, timesteps, gradient = args.one
        print(json.dumps(step(int(cycles), int(timesteps), gradient, args.batch)))
        return
    print(f"peak MB at batch {args.batch}   " + "".join(f"{n}x{t:<8}" for n, t in DEPTHS) + "ratio")
    gradients = ("one_step", "last_cycle") if args.skip_full else ("one_step", "last_cycle", "full")
    for gradient in gradients:
        peaks = []
        for cycles, timesteps in DEPTHS:
            one = ["--one", str(cycles), str(timesteps), gradient, "--batch", str(args.batch)]
            with lifeline() as stdin:
                answer = subprocess.run(
                    [sys.executable, __file__, *one],
                    check=True,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            peaks.append(json.loads(answer.stdout))
        shown = "".join(f"{peak:<10.0f}" for peak in peaks)
        print(f"{gradient:<22}{shown}{peaks[1] / peaks[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
