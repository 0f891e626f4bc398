"""Training on a GPU: segments per second, time and memory of a step, by batch size and depth.

Each measurement is a process of its own that trains on random windows, as
`hrm_train.learning.trainer` trains: the median over steps after the first few. The memory is what
the process held of the GPU at its peak, recorded graphs included. `base` is the preset with one
segment per sample; `equal` has H and L 512 wide with four layers each, no reset, and learns when to
halt, as the published code's largest network.

    python benchmarks/throughput.py                 # batches, depths, gradients, equal shapes
    python benchmarks/throughput.py --only equal    # those cases whose line holds this
    python benchmarks/throughput.py --profile LINE  # where the time of one case goes
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_runtime.measure.turns import end_with_parent, lifeline
from hrm_train.data.prepared import Manifest, Prepared
from hrm_train.data.split import Split
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.learning import rollout
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
    """What is trained.

    Attributes:
        kept: whether steps are kept for the gradient instead of computed again, which no setting
            offers: to compare with.
    """

    shape: str = "base"
    tokens: int = 11
    batch: int = 512
    cycles: int = 3
    timesteps: int = 5
    gradient: str = "one_step"
    compiled: bool = True
    kept: bool = False

    def __str__(self) -> str:
        how = "kept" if self.kept else "compiled" if self.compiled else "eager"
        return (
            f"{self.shape:>5} {self.tokens:3} tokens  {self.batch:5} rows  "
            f"{self.cycles} x {self.timesteps:<2}  {self.gradient:<10} {how:<8}"
        )

    @property
    def settings(self) -> Settings:
        """What it is in settings."""
        equal = {
            "hidden_dim": 512, "num_layers": 4, "num_heads": 8, "ffn_dim": 1536, "dropout": 0.0,
        }  # fmt: skip
        network: dict[str, Any] = {
            "hierarchical": {"N_cycles": self.cycles, "T_timesteps": self.timesteps},
            "input": {"window": 5 * (self.tokens - 1), "patch": 5},
        }
        if self.shape == "equal":
            network |= {"h_module": equal, "l_module": equal}
            network["hierarchical"]["reset_l_module"] = False
        return parse_settings(
            {
                "hierarchical_reasoning_model": network,
                "training": {
                    "batch_size": self.batch,
                    "max_segments": 16 if self.shape == "equal" else 1,
                    "compile": self.compiled,
                    "gradient": self.gradient,
                    "deterministic": self.shape != "equal",  # the published code is not
                },
            }
        )


CASES = (
    *(Case(batch=batch, compiled=compiled) for batch in (512, 4096) for compiled in (False, True)),
    Case(timesteps=50),
    *(Case(gradient="full", timesteps=timesteps) for timesteps in (5, 50)),
    Case(gradient="full", kept=True),
    Case(gradient="full", batch=4096),
    Case(gradient="last_cycle", batch=4096),
    Case(shape="equal", tokens=81, cycles=2, timesteps=2),
    Case(shape="equal", batch=4096),
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
    """Of a row's products: forward, of steps with gradient three times; of what is next, once."""
    per_step = {
        name: sum(p.in_features * p.out_features for n, p in model.products.items() if name in n)
        for name in ("l_module", "h_module")
    }
    training = model.settings.training
    steps_l, steps_h = model.cycles * model.timesteps, model.cycles
    through_l, through_h = {
        "one_step": (1, 1), "last_cycle": (model.timesteps, 1), "full": (steps_l, steps_h),
    }[training.gradient]  # fmt: skip
    passes = 1 if training.max_segments == 1 else 2
    low, high = passes * steps_l + 2 * through_l, passes * steps_h + 2 * through_h
    return model.tokens * (low * per_step["l_module"] + high * per_step["h_module"])


def measure(case: Case, profile: bool) -> dict[str, float]:
    """Train; seconds a step, segments and operations a second, and gigabytes held."""
    settings = case.settings
    if case.kept:
        rollout._Exact.apply = kept_whole  # type: ignore[method-assign]
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


def kept_whole(steps: list[Any], x: Any, z_H: Any, z_L: Any, *_weights: Any) -> Any:
    """Steps with their gradient, everything kept that torch wants for it."""
    for step in steps:
        z_H, z_L = step.run(z_H, z_L, x)
    return z_H, z_L


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
    parser.add_argument("--only", default="", help="those cases whose line holds this")
    parser.add_argument("--profile", metavar="LINE", help="one case, and where its time goes")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        end_with_parent()
    if args.one:
        print(json.dumps(measure(Case(**json.loads(args.one)), profile=False)))
        return
    cases = [case for case in CASES if (args.profile or args.only) in str(case)]
    if args.profile:
        print(cases[0], json.dumps(measure(cases[0], profile=True)))
        return
    found = []
    print(f"{torch.cuda.get_device_name()}\n{'':51}    ms  segments/s  TFLOP/s    GB   warm-up")
    for case in cases:
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
            f"{case}  {1e3 * one['seconds']:7.1f}  {one['segments_per_s']:10.0f}  "
            f"{one['tflops']:7.1f}  {one['gigabytes']:5.2f}  {one['warm_up']:6.1f} s",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
