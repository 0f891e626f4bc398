"""Training on a GPU: segments per second, time and memory of a step, by batch size and depth.

Each measurement is a process of its own that trains the base preset on random windows, with one
segment per sample, as `hrm_train.learning.trainer` trains: the median over steps after the first
few. The memory is what the process held of the GPU at its peak, recorded graphs included.

    python benchmarks/throughput.py            # batches, compiled and not, then depths
    python benchmarks/throughput.py --profile  # where the time of a step goes
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_runtime.measure.turns import end_with_parent, lifeline
from hrm_train.data.prepared import Manifest, Prepared
from hrm_train.data.split import Split
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.learning.act import Order
from hrm_train.learning.devices import Where, open_fabric, own_random_numbers, reproducible
from hrm_train.learning.plan import initial_model
from hrm_train.learning.run import Run
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import Settings, parse_settings

WINDOWS = 50_000
WARM_UP = 3
STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained."""

    batch: int
    cycles: int = 3
    timesteps: int = 5
    compiled: bool = True


CASES = (
    *(
        Case(batch=batch, compiled=compiled)
        for batch in (256, 512, 4096)
        for compiled in (False, True)
    ),
    Case(batch=512, timesteps=20),
    Case(batch=512, timesteps=50),
)


def random_windows(settings: Settings) -> Prepared:
    """Windows of random rows, flat accounts and random returns."""
    rng = np.random.default_rng(0)
    window = settings.network.input.window
    bars = WINDOWS + window - 1
    returns = rng.normal(size=(WINDOWS, len(Action))).astype(np.float32)
    returns[:, [Action.CLOSE_LONG, Action.CLOSE_SHORT]] = np.nan
    account = rng.normal(size=(WINDOWS, len(ACCOUNT))).astype(np.float32)
    account[:, 0] = 0.0
    return Prepared(
        manifest=Manifest.of(settings, Vocabulary.of(settings, [("Nifty", "5")]), ()),
        bar_stamp=np.arange(bars) * 300,
        bar_price=np.ones((bars, 4)),
        row_bar=np.arange(bars),
        features=rng.normal(size=(bars, len(FEATURES))).astype(np.float32),
        sample_row=np.arange(WINDOWS) + window - 1,
        sample_instrument=np.ones(WINDOWS, dtype=np.int64),
        sample_timeframe=np.ones(WINDOWS, dtype=np.int64),
        sample_account=account,
        sample_raw_account=np.tile([1e6, 0.0, 0.0, 0.0, 0.0, 0.0], (WINDOWS, 1)),
        sample_returns=returns,
        sample_lots=np.full(WINDOWS, 10.0, dtype=np.float32),
        sample_end=np.arange(WINDOWS) * 300 + 7200,
    )


def multiplications(model: HierarchicalReasoningModel) -> int:
    """Of a segment's products, once forward and, for its last steps, twice backward."""
    per_step = {
        name: sum(p.in_features * p.out_features for n, p in model.products.items() if name in n)
        for name in ("l_module", "h_module")
    }
    steps_l, steps_h = model.cycles * model.timesteps + 2, model.cycles + 2
    return model.tokens * (steps_l * per_step["l_module"] + steps_h * per_step["h_module"])


def measure(case: Case, profile: bool) -> dict[str, float]:
    """Train; seconds a step, segments and operations a second, and gigabytes held."""
    settings = parse_settings(
        {
            "hierarchical_reasoning_model": {
                "hierarchical": {"N_cycles": case.cycles, "T_timesteps": case.timesteps}
            },
            "training": {
                "batch_size": case.batch,
                "max_segments": 1,
                "compile": case.compiled,
            },
        }
    )
    prepared = random_windows(settings)
    every = np.arange(WINDOWS)
    known = Split(int(prepared.bar_stamp[-1]) + 300, every, every[:0])
    model = initial_model(settings, prepared, known)
    fabric = open_fabric(Where("cuda"), settings.training.precision)
    with own_random_numbers(fabric.device), reproducible(settings.training.deterministic):
        start = time.perf_counter()
        run = Run(fabric, model, prepared, Order(every, case.batch, settings.training))
        if case.compiled:
            run.compile()
        for _ in range(WARM_UP):
            run.advance("warm-up")
        warm_up = time.perf_counter() - start
        median = statistics.median(timed(run) for _ in range(STEPS))
        if profile:
            shown(run)
    return {
        "seconds": median,
        "segments_per_s": case.batch / median,
        "tflops": 2e-12 * multiplications(model) * case.batch / median,
        "gigabytes": torch.cuda.max_memory_reserved() / 1e9,
        "warm_up": warm_up,
    }


def timed(run: Run) -> float:
    """Seconds of one step, from host to host."""
    start = time.perf_counter()
    run.advance("timed")
    torch.cuda.synchronize()
    return time.perf_counter() - start


def shown(run: Run) -> None:
    """Print where the GPU's time goes over three steps, and how much of the whole it is busy."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiler:
        start = time.perf_counter()
        for _ in range(3):
            run.advance("profiled")
        torch.cuda.synchronize()
        whole = time.perf_counter() - start
    kernels = [e for e in profiler.events() if "CUDA" in str(e.device_type)]
    busy = sum(kernel.device_time for kernel in kernels) / 1e6
    print(f"busy {busy / 3 * 1e3:.1f} ms of {whole / 3 * 1e3:.1f} ms a step")
    print(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=20))


def main() -> None:
    """Measure each in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="one case, and where its time goes")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        end_with_parent()
    if args.one or args.profile:
        case = Case(**json.loads(args.one)) if args.one else Case(batch=4096)
        print(json.dumps(measure(case, args.profile)))
        return
    found = []
    print("batch  N x T  compiled      ms  segments/s  TFLOP/s    GB   warm-up")
    for case in CASES:
        with lifeline() as stdin:
            answer = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(asdict(case))],
                check=True,
                stdin=stdin,
                stdout=subprocess.PIPE,
                text=True,
            )
        one = json.loads(answer.stdout.splitlines()[-1])
        found.append(asdict(case) | one)
        print(
            f"{case.batch:5}  {case.cycles} x {case.timesteps:<2} {case.compiled!s:>8}  "
            f"{1e3 * one['seconds']:7.1f}  {one['segments_per_s']:10.0f}  {one['tflops']:7.1f}  "
            f"{one['gigabytes']:5.2f}  {one['warm_up']:6.1f} s",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
