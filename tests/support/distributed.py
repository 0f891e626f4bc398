"""Some steps in one process or several, in float64: `python distributed.py PROCESSES OUT`."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from planted import planted

from hrm_train.data.split import chronological_split
from hrm_train.learning.act import Order
from hrm_train.learning.epochs import evaluate
from hrm_train.learning.plan import initial_model
from hrm_train.learning.run import Run
from hrm_train.settings import PRESETS, parse_settings

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
    training = {**PRESETS["tiny"]["training"], "batch_size": SLOTS, "warmup_steps": 3}
    training |= {"max_segments": 3, "min_segments": least, "ema_decay": 0.5}
    settings = parse_settings({**PRESETS["tiny"], "training": training})
    prepared = planted(settings, 1000, seed=1)
    split = chronological_split(prepared, 0.2, settings.training.label_horizon)
    model = initial_model(settings, prepared, split).double()
    run = Run(fabric, model, prepared, Order(split.train, SLOTS, settings.training))
    losses = [run.advance(f"step {step}").losses for step in range(STEPS)]
    state = run.capture()
    epoch = evaluate(fabric, run.average.model, run.tensors, split.validation, 1, 0.0)
    return {"losses": losses, "state": state, "epoch": vars(epoch)}


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
