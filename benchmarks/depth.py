"""Does depth pay? Accuracy against N x T and segments, on a task that needs steps.

Twelve nodes stand in a row, one per token. One of them ends the chain and has one of three colours.
Every node before it hands on to the left what comes from its right, its colours permuted in one of
three ways, whose order matters. The answer is the colour that arrives at the left. What stands
right of the end is noise. Less than the whole chain tells nothing, and the longer it is, the more
there is to compute one after another; a guess is right one time in three.

All networks have as many weights (H and L of one layer each, 32 wide), and the same chains,
batches, rate and number of optimizer steps; they are trained with four segments, by what
`hrm_train.learning.trainer` trains with.

    python benchmarks/depth.py           # writes depth.json beside it, prints a table, draws
    python benchmarks/depth.py --draw    # prints and draws what depth.json holds
"""

import argparse
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, its usual name

from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.data.prepared import Manifest, Prepared
from hrm_train.data.split import Split
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.learning.act import Order
from hrm_train.learning.devices import Device, Where, open_fabric, own_random_numbers
from hrm_train.learning.losses import answer_losses, best_actions
from hrm_train.learning.plan import initial_model
from hrm_train.learning.rollout import Gradient, rollout
from hrm_train.learning.run import Run, Tensors
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import Settings, parse_settings

ROOT: Final = Path(__file__).resolve().parent.parent
NUMBERS: Final = ROOT / "benchmarks/depth.json"
PICTURE: Final = ROOT / "docs/depth.png"

NODES: Final = 12
PERMUTATIONS: Final = np.array([(0, 1, 2), (1, 0, 2), (1, 2, 0)])
"""What a node makes of colours 0, 1, 2: the same, two exchanged, all moved on."""

ANSWERS: Final = np.array([Action.BUY_LONG, Action.SELL_SHORT, Action.HOLD])
"""The action that stands for each colour."""

LOOPS: Final = ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4))
"""N and T."""

COLOURS: Final = ("#f0a04b", "#b45f06", "#5b9bd5", "#0b5394", "#1a1a1a")
"""Theirs in the picture."""

GRADIENTS: Final[tuple[Gradient, ...]] = ("full", "one_step")
TRAINED_SEGMENTS: Final = 4
SEGMENTS: Final = (1, 2, 4, 8)
"""After how many the answer is read."""

TRAINING_CHAINS: Final = 100_000
UNSEEN_CHAINS: Final = 12_000
EVERY: Final = 500
"""Optimizer steps between two points of a learning curve."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network to train."""

    cycles: int
    timesteps: int
    gradient: Gradient
    seed: int

    def __str__(self) -> str:
        return f"{self.cycles} x {self.timesteps}, {self.gradient}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a network stands after some optimizer steps.

    Attributes:
        cosine: between the one-step gradient and the exact one, of the first segment.
        accuracy: [SEGMENTS][length - 1], the share of unseen chains whose colour was found.
    """

    steps: int
    cosine: float
    accuracy: list[list[float]]


@dataclass(frozen=True)
class Trained:
    """A network's learning curve, a point every `EVERY` steps."""

    task: Task
    curve: list[Point]

    def accuracy(self, steps: int, segments: int) -> npt.NDArray[np.float64]:
        """[length - 1], after so many optimizer steps."""
        point = self.curve[steps // EVERY - 1]
        assert point.steps == steps
        return np.array(point.accuracy[SEGMENTS.index(segments)])

    def cosine(self, steps: int) -> float:
        """Mean over the curve so far."""
        return float(np.mean([point.cosine for point in self.curve if point.steps <= steps]))


def main() -> None:
    """Train all networks, or read what they came to; print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw", action="store_true", help="train nothing")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--processes", type=int, default=9, help="networks trained at once")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps per network")
    asked = parser.parse_args()
    if asked.steps < EVERY or asked.steps % EVERY:
        parser.error(f"--steps: expected a multiple of {EVERY}, found {asked.steps}")
    if not asked.draw:
        done = train_all(tasks(asked.seeds), asked.steps, asked.device, asked.processes)
        lines = ",\n".join(json.dumps(asdict(one)) for one in done)
        NUMBERS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    found = read(NUMBERS)
    print_table(found)
    draw(found, PICTURE)


def tasks(seeds: int) -> list[Task]:
    """Every network, slow ones first; with N = T = 1 both gradients are the same."""
    return [
        Task(cycles=n, timesteps=t, gradient=gradient, seed=seed)
        for seed, (n, t), gradient in product(range(seeds), reversed(LOOPS), GRADIENTS)
        if n * t > 1 or gradient == "full"
    ]


def train_all(todo: list[Task], steps: int, device: Device, processes: int) -> list[Trained]:
    """Train in several processes, since a network this small leaves a GPU idle by itself."""
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_first) as pool:
        futures = [pool.submit(train_one, task, steps, device) for task in todo]
        for future in as_completed(futures):
            future.result()  # raises at once what went wrong
    return [future.result() for future in futures]


def end_with_first() -> None:
    """Let a process of the pool end with the one that started it, also where that is killed."""

    def wait() -> None:
        first = parent_process()
        assert first is not None
        first.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train_one(task: Task, steps: int, device: Device) -> Trained:
    """Train one network, and say how it goes."""
    curve = []
    for point in learn(task, steps, device):
        means = " ".join(f"{np.mean(row):.3f}" for row in point.accuracy)
        print(f"{task}: {point.steps} steps, {means}", flush=True)
        curve.append(point)
    return Trained(task, curve)


def learn(task: Task, steps: int, device: Device) -> Iterator[Point]:
    """Train one network; yields a point every `EVERY` optimizer steps."""
    torch.set_num_threads(1)
    settings = settings_for(task)
    fabric = open_fabric(Where(device))
    fabric.launch()
    chains, _ = draw_chains(settings, TRAINING_CHAINS, seed=1 + task.seed)
    unseen, length = draw_chains(settings, UNSEEN_CHAINS, seed=0)
    every = np.arange(len(chains))
    model = initial_model(settings, chains, Split(len(chains.bar_stamp), every, every))
    with own_random_numbers(fabric.device):
        order = Order(every, settings.training.batch_size, settings.training)
        run = Run(fabric, model, chains, order)
        tensors = Tensors(unseen, NODES, fabric.device)
        for step in range(1, steps + 1):
            run.advance(f"step {step}")
            if step % EVERY == 0:
                model.eval()
                yield Point(
                    steps=step,
                    cosine=cosine(model, tensors),
                    accuracy=accuracies(model, tensors, length),
                )


def settings_for(task: Task) -> Settings:
    """All alike but in depth, gradient and seed."""
    module = {"hidden_dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "dropout": 0.0}
    return parse_settings(
        {
            "hierarchical_reasoning_model": {
                "h_module": module,
                "l_module": module,
                "hierarchical": {"N_cycles": task.cycles, "T_timesteps": task.timesteps},
                "embeddings": {"max_instruments": 1, "max_timeframes": 1},
                "input": {"window": NODES, "patch": 1},
            },
            "training": {
                "seed": task.seed,
                "batch_size": 512,
                "learning_rate": 3e-3,
                "max_segments": TRAINED_SEGMENTS,
                "min_segments": TRAINED_SEGMENTS,
                "gradient": task.gradient,
                "precision": "fp32",
                "policy_temperature": 0.2,
                "unknown_probability": 0.0,
            },
        }
    )


def draw_chains(settings: Settings, count: int, seed: int) -> tuple[Prepared, Ids]:
    """Training tensors of `count` chains, and their lengths, 1 to `NODES` equally often."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, NODES + 1, size=count)
    kind = rng.integers(len(PERMUTATIONS), size=(count, NODES))
    colour = rng.integers(len(ANSWERS), size=(count, NODES))
    is_end = np.arange(NODES) == length[:, None] - 1

    arriving = colour[is_end]
    for node in reversed(range(NODES - 1)):
        handed_on = PERMUTATIONS[kind[:, node], arriving]
        arriving = np.where(node < length - 1, handed_on, arriving)

    one_hot = np.concatenate(
        (
            np.eye(len(PERMUTATIONS))[kind] * ~is_end[..., None],
            np.eye(len(ANSWERS))[colour] * is_end[..., None],
        ),
        axis=-1,
    )
    features = np.zeros((count * NODES, len(FEATURES)), dtype=np.float32)
    features[:, : one_hot.shape[-1]] = one_hot.reshape(count * NODES, -1)
    returns = np.full((count, len(Action)), np.nan, dtype=np.float32)
    returns[:, ANSWERS] = -1.0
    returns[np.arange(count), ANSWERS[arriving]] = 0.0
    newest = NODES * np.arange(count) + NODES - 1
    return Prepared(
        Manifest.of(settings, Vocabulary.of(settings, [("Chain", "1")]), ()),
        bar_stamp=np.arange(NODES * count),
        bar_price=np.ones((NODES * count, 4)),
        row_bar=np.arange(NODES * count),
        features=features,
        sample_row=newest,
        sample_instrument=np.ones(count, dtype=np.int64),
        sample_timeframe=np.ones(count, dtype=np.int64),
        sample_account=np.zeros((count, len(ACCOUNT)), dtype=np.float32),
        sample_raw_account=np.zeros((count, 6)),
        sample_returns=returns,
        sample_lots=np.full(count, 10.0, dtype=np.float32),
        sample_end=newest,
    ), length


@torch.inference_mode()
def accuracies(
    model: HierarchicalReasoningModel, tensors: Tensors, length: Ids
) -> list[list[float]]:
    """[SEGMENTS][length - 1]: the share of chains whose colour is found."""
    every = torch.arange(len(length), device=tensors.device)
    inputs, (returns_B5, _) = tensors.inputs(every), tensors.labels(every)
    states, found = None, []
    for segment in range(1, max(SEGMENTS) + 1):
        outputs, states = model(*inputs, states)
        if segment in SEGMENTS:
            right = best_actions(outputs["action_type"], returns_B5).cpu().numpy()
            found.append([round(float(right[length == d].mean()), 3) for d in range(1, NODES + 1)])
    return found


def cosine(model: HierarchicalReasoningModel, tensors: Tensors) -> float:
    """Between the one-step gradient and the exact one, of the first segment of 2048 chains."""
    chosen = torch.arange(2048, device=tensors.device)
    inputs, labels = tensors.inputs(chosen), tensors.labels(chosen)
    start = tuple(z.expand(len(chosen), -1, -1) for z in model.initialize_states())
    weights = [*model.l_module.parameters(), *model.h_module.parameters()]
    found = []
    for gradient in GRADIENTS:
        zH_BSD, _ = rollout(model, model.encode(*inputs), start, gradient)
        outputs = model.decode(zH_BSD, inputs[1])
        loss = answer_losses(outputs, *labels, model.settings.training).total
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    return round(F.cosine_similarity(*found, dim=0).item(), 3)


def read(path: Path) -> list[Trained]:
    """What was written."""
    return [
        Trained(Task(**one["task"]), [Point(**point) for point in one["curve"]])
        for one in json.loads(path.read_text(encoding="utf-8"))
    ]


def alike(found: list[Trained], cycles: int, timesteps: int, gradient: Gradient) -> list[Trained]:
    """All seeds of one network."""
    return [
        one
        for one in found
        if (one.task.cycles, one.task.timesteps) == (cycles, timesteps)
        and (cycles * timesteps == 1 or one.task.gradient == gradient)
    ]


def shared_steps(found: list[Trained]) -> int:
    """How far all of them were trained."""
    return min(one.curve[-1].steps for one in found)


def print_table(found: list[Trained]) -> None:
    """Of each seed, by gradient: accuracy over chains of all lengths after 1, 2, 4, 8 segments.

    Last, the mean cosine while learning by one step.
    """
    steps = shared_steps(found)
    print(f"\naccuracy after {steps} optimizer steps, by segments\n")
    columns = [f"{gradient}, {m}" for gradient in GRADIENTS for m in SEGMENTS]
    print(f"| N x T | {' | '.join(columns)} | cosine |")
    print("|---|" + "---|" * (1 + len(columns)))
    for n, t in LOOPS:
        networks = {gradient: alike(found, n, t, gradient) for gradient in GRADIENTS}
        rows = [
            [one.accuracy(steps, m).mean() for one in seeds]
            for seeds in networks.values()
            for m in SEGMENTS
        ]
        rows.append([one.cosine(steps) for one in networks["one_step"]])
        cells = [", ".join(f"{number:.2f}" for number in row) for row in rows]
        print(f"| {n} x {t} | {' | '.join(cells)} |")


def draw(found: list[Trained], path: Path) -> None:
    """A row per gradient: accuracy by length, by segments, and while learning; means of seeds."""
    from matplotlib.figure import Figure

    steps = shared_steps(found)
    figure = Figure(figsize=(10.0, 5.0), layout="constrained")
    panels = figure.subplots(len(GRADIENTS), 3, sharey=True)
    for (lengths, segments, learning), gradient in zip(panels, GRADIENTS, strict=True):
        for colour, (n, t) in zip(COLOURS, LOOPS, strict=True):
            seeds = alike(found, n, t, gradient)
            mean = {m: np.mean([one.accuracy(steps, m) for one in seeds], axis=0) for m in SEGMENTS}
            lengths.plot(range(1, NODES + 1), mean[1], color=colour, label=f"{n} x {t}")
            segments.plot(SEGMENTS, [mean[m].mean() for m in SEGMENTS], color=colour, marker=".")
            curves = [[np.mean(point.accuracy[0]) for point in one.curve] for one in seeds]
            reached = EVERY * np.arange(1, 1 + len(curves[0]))
            learning.plot(reached, np.mean(curves, axis=0), color=colour)
        lengths.set_xticks(range(2, NODES + 1, 2))
        lengths.set_ylabel(f"accuracy, gradient: {gradient}")
        segments.set_xscale("log", base=2)
        segments.set_xticks(SEGMENTS, [str(m) for m in SEGMENTS])
        for panel in (lengths, segments, learning):
            panel.axhline(1 / len(ANSWERS), color="#8c8c8c", lw=0.8, ls=":")  # chance
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_ylim(0.3, 1.02)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, title="N x T", loc="outside right upper", frameon=False)
    for column, title, label in zip(
        panels.T,
        (f"one segment, {steps} steps", f"all lengths, {steps} steps", "one segment, all lengths"),
        ("nodes in the chain", f"segments (trained with {TRAINED_SEGMENTS})", "optimizer steps"),
        strict=True,
    ):
        column[0].set_title(title)
        column[-1].set_xlabel(label)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
