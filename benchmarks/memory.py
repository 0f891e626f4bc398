"""Peak memory of training the base preset, by depth and gradient.

Each measurement is a process of its own that takes two optimizer steps on random windows. What is
shown of a CPU is the largest resident memory it ever had, libraries included; of a GPU, the most
that was allocated there, in bf16.

    python benchmarks/memory.py [--batch 64] [--device cpu] [--kept]
"""

import argparse
import json
import resource
import subprocess
import sys

from hrm_runtime.measure.turns import end_with_parent, lifeline

DEPTHS = ((3, 5), (3, 50))
GRADIENTS = ("one_step", "last_cycle", "full")


def step(cycles: int, timesteps: int, gradient: str, kept: bool, batch: int, device: str) -> float:
    """Peak memory in MB, after two steps.

    Args:
        kept: keep the steps for the gradient, instead of computing them again: to compare with.
    """
    import numpy as np
    import torch

    from hrm_runtime.market.actions import Action
    from hrm_runtime.market.columns import ACCOUNT, FEATURES
    from hrm_train.learning import rollout
    from hrm_train.learning.segment import TrainingSegment
    from hrm_train.network.dropout import key_of
    from hrm_train.network.model import HierarchicalReasoningModel
    from hrm_train.settings import parse_settings

    if kept:
        from throughput import kept_whole

        rollout._Exact.apply = kept_whole  # type: ignore[method-assign]
    settings = parse_settings(
        {
            "hierarchical_reasoning_model": {
                "hierarchical": {"N_cycles": cycles, "T_timesteps": timesteps}
            },
            "training": {"gradient": gradient},
        }
    )
    torch.manual_seed(0)
    model = HierarchicalReasoningModel(settings).to(device)
    segment = TrainingSegment(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    returns = torch.full((batch, len(Action)), -1.0)
    returns[:, [Action.CLOSE_LONG, Action.CLOSE_SHORT]] = np.nan
    returns[:, Action.HOLD] = 0.0
    account = torch.randn(batch, len(ACCOUNT))
    account[:, 0] = 0.0
    given = (
        torch.randn(batch, settings.network.input.window, len(FEATURES)),
        account,
        torch.ones(batch, dtype=torch.int64),
        torch.ones(batch, dtype=torch.int64),
        returns,
        torch.full((batch,), 10.0),
    )
    given = tuple(tensor.to(device) for tensor in given)
    last = torch.zeros(batch, dtype=torch.bool, device=device)
    states = tuple(z.expand(batch, -1, -1) for z in model.initialize_states())
    for number in range(2):
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            losses, _, *states = segment(*given, *states, last, key_of(0, number, device=device))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kept", action="store_true", help="also with steps kept: up to 20 GB")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        end_with_parent()
        cycles, timesteps, gradient, kept = args.one
        how = gradient, kept == "kept", args.batch, args.device
        print(json.dumps(step(int(cycles), int(timesteps), *how)))
        return
    print(f"peak MB at batch {args.batch}   " + "".join(f"{n}x{t:<8}" for n, t in DEPTHS) + "ratio")
    rows = [(gradient, "again") for gradient in GRADIENTS] + [("full", "kept")] * args.kept
    for gradient, kept in rows:
        peaks = []
        for cycles, timesteps in DEPTHS:
            one = ["--one", str(cycles), str(timesteps), gradient, kept]
            with lifeline() as stdin:
                answer = subprocess.run(
                    [sys.executable, __file__, *one, *sys.argv[1:]],
                    check=True,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            peaks.append(json.loads(answer.stdout))
        shown = "".join(f"{peak:<10.0f}" for peak in peaks)
        name = f"{gradient}, kept" if kept == "kept" else gradient
        print(f"{name:<22}{shown}{peaks[1] / peaks[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
