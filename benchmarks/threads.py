"""Training on a CPU: samples a second by number of threads and how they wait, quiet and busy.

    python benchmarks/threads.py [--preset tiny] [--threads 1 2] [--beside 2] [--seconds 10]

Each measurement is a process of its own that trains the preset on random windows; `active` threads
spin at barriers, `passive` ones sleep. They take turns, three times over; the median is shown. With
`--beside`, so many endless loops keep cores busy meanwhile. `--width` scales the preset's widths.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

from throughput import random_windows

TURNS = 3
WARM_UP = 3


def measure(preset: str, width: float, threads: int, seconds: float) -> float:
    """Samples started a second, training in this process."""
    import numpy as np
    import torch

    from hrm_train.learning.act import Order
    from hrm_train.learning.devices import Where, open_fabric
    from hrm_train.learning.run import Run
    from hrm_train.network.model import HierarchicalReasoningModel
    from hrm_train.settings import parse_settings
    from hrm_train.settings import preset as settings_of

    torch.set_num_threads(threads)
    document = settings_of(preset).model_dump(mode="json")
    for module in ("h_module", "l_module"):
        for name in ("hidden_dim", "ffn_dim"):
            size = document["hierarchical_reasoning_model"][module]
            size[name] = round(size[name] * width)
    settings = parse_settings(document)
    prepared = random_windows(settings)
    order = Order(np.arange(len(prepared)), settings.training.batch_size, settings.training)
    torch.manual_seed(0)
    fabric = open_fabric(Where("cpu"))
    run = Run(fabric, HierarchicalReasoningModel(settings), prepared, order)
    for _ in range(WARM_UP):
        run.advance("warming up")
    start, before = time.perf_counter(), run.started
    while time.perf_counter() < start + seconds:
        run.advance("measured")
    return (run.started - before) / (time.perf_counter() - start)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that do nothing but take a core."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()


def main() -> None:
    """Measure every case in a process of its own, in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--width", type=float, default=1.0, help="times the preset's")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--beside", type=int, default=0, help="endless loops meanwhile")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.preset, asked.width, asked.one, asked.seconds)))
        return
    found: dict[tuple[int, str], list[float]] = {}
    with busy(asked.beside):
        for _, threads, policy in product(range(TURNS), asked.threads, ("active", "passive")):
            answer = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one", str(threads)],
                env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
                | {"OMP_WAIT_POLICY": policy},
                stdout=subprocess.PIPE,
                check=True,
            )
            found.setdefault((threads, policy), []).append(json.loads(answer.stdout))
    print(f"{asked.preset} x {asked.width:g}, beside {asked.beside} endless loops, samples/s:")
    for (threads, policy), rates in found.items():
        print(f"  {threads} threads, {policy}: {statistics.median(rates):,.0f}")


if __name__ == "__main__":
    main()
