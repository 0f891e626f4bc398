"""Some steps in one process or several, in float64: `python distributed.py PROCESSES OUT`."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from planted import planted
from synthetic import SMALL

from hrm_train.data.split import chronological_split
from hrm_train.learning.act import Order
from hrm_train.learning.epochs import evaluate
from hrm_train.learning.plan import initial_model
from hrm_train.learning.run import Run
from hrm_train.settings import parse_settings

STEPS = 20
SLOTS = 64
LEAST = (3, 1)
"""Segments a sample has at least, of three: all of them, or as many as its halting head wants."""


def main(processes: int, out: Path) -> None:
    """Write what `steps` finds for each of `LEAST` to `out`."""
    fabric = Fabric(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto"
    )
    fabric.launch()
    found = {least: steps(fabric, least) for least in LEAST}
    if fabric.is_global_zero:
        torch.save(found, out)


def steps(fabric: Fabric, least: int) -> dict[str, Any]:
    """The losses, the state and the validation after `STEPS` steps."""
    network = {**SMALL["hierarchical_reasoning_model"]}
    for name in ("h_module", "l_module"):
        network[name] = {**network[name], "dropout": 0.0}  # each process would draw its own
    training = {**SMALL["training"], "batch_size": SLOTS, "warmup_steps": 3}
    training |= {"max_segments": 3, "min_segments": least, "ema_decay": 0.5}
    settings = parse_settings({"hierarchical_reasoning_model": network, "training": training})
    prepared = planted(settings, 700, seed=1)
    split = chronological_split(prepared, 0.2, settings.training.label_horizon)
    model = initial_model(settings, prepared, split).double()
    run = Run(fabric, model, prepared, Order(split.train, SLOTS, settings.training))
    losses = [run.advance(f"step {step}").losses for step in range(STEPS)]
    state = run.capture()
    epoch = evaluate(fabric, run.average.model, run.tensors, split.validation, 1, 0.0)
    return {"losses": losses, "state": state, "epoch": vars(epoch)}


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
