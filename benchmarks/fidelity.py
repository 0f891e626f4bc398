"""What int8 costs, before and after quantisation in the loop, on samples nobody trained on.

    python benchmarks/fidelity.py                                  # the planted rule
    python benchmarks/fidelity.py --settings FILE --data FOLDER    # bars, judged on the last fifth

Trains the tiny preset, calibrates quantisers on training samples, trains one more epoch with them
on, and runs the graph that would be deployed over unseen samples: the accuracy and the regret of
each network, whether the deployed graph decides as its torch twin does, and how often quantisers
change a decision, by how sure the network was without. Everything is kept in the folder given by
--out; what is there already is not trained again. Minutes for the planted rule on two cores, much
longer for many bars.
"""

import argparse
import copy
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from hrm_export.graph.build import build
from hrm_export.proof.gates import INT8, QUANTISED
from hrm_export.proof.inputs import Inputs
from hrm_export.proof.parity import compare, torch_run
from hrm_runtime.artifact.contract import INPUTS, Stage
from hrm_runtime.artifact.segments import Run
from hrm_runtime.artifact.session import Session
from hrm_runtime.market.account import Account
from hrm_train import load_checkpoint, train
from hrm_train.data.preparation import load_or_prepare
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import judged_samples
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.learning.devices import HERE, open_fabric
from hrm_train.learning.epochs import evaluate
from hrm_train.learning.run import Tensors
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import PRESETS, Settings, load_settings, parse_settings

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLES: Final = 10_000
"""Unseen samples, at most, spread over all there are."""


def changed(settings: Settings, **training: Any) -> Settings:
    """`settings` with other settings of training."""
    document = settings.model_dump(mode="json")
    return parse_settings({**document, "training": {**document["training"], **training}})


def planted_data(folder: Path) -> tuple[Settings, Path, Prepared]:
    """Settings, training tensors, and unseen ones."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    from planted import planted

    tiny = PRESETS["tiny"]
    settings = parse_settings(tiny | {"training": tiny["training"] | {"epochs": 3}})
    settings = changed(settings, learning_rate=3e-3)
    data = folder / "planted.safetensors"
    if not data.exists():
        planted(settings, 22_000, seed=1).save(data)
    return settings, data, planted(settings, 3_000, seed=2)


def trained(settings: Settings, data: Path, out: Path, init_from: Path | None = None) -> Checkpoint:
    """The checkpoint at `out`, trained now if it is not there; with quantisers from `init_from`."""
    if not (out / "checkpoint.json").exists():
        print(f"training {out}", file=sys.stderr)
        train(settings, data, out, init_from=init_from, quantise=init_from is not None)
    return load_checkpoint(out)


def deployed(model: HierarchicalReasoningModel) -> Run:
    """The int8 graph of `model`, at the options it is served with."""
    session = Session(build(model, "int8"))

    def run(*arrays: Any, **states: Any) -> Any:
        return session.run(dict(zip(INPUTS, arrays, strict=True)) | states)

    return run


def inputs_of(prepared: Prepared, settings: Settings, samples: np.ndarray) -> Inputs:
    """Of the given samples."""
    tensors = Tensors(prepared, settings.network.input.window)
    arrays = [array.numpy() for array in tensors.inputs(torch.from_numpy(samples))]
    accounts = [Account(*row) for row in prepared.sample_raw_account[samples].tolist()]
    return Inputs(*arrays, accounts=tuple(accounts))


def report(name: str, stage: Stage) -> dict[str, Any]:
    """Print agreement, in all and by gap."""
    flipped = [flip.gap for flip in stage.flips if flip.what == "action"]
    same = sum(band.same_action for band in stage.by_gap) / stage.windows
    print(
        f"{name}: {stage.windows:,} samples, same action {same:.2%}, same decision "
        f"{stage.action_agreement:.2%}, largest gap of an action flipped in the same segment "
        f"{max(flipped, default=0):.4f}: {'passed' if stage.passed else 'FAILED'}"
    )
    for band in stage.by_gap:
        if band.windows:
            print(
                f"    gap from {band.above:<7g} {band.windows:6,} samples, same action "
                f"{band.same_action / band.windows:8.3%}, same decision "
                f"{band.same_decision / band.windows:8.3%}"
            )
    return {"same_action": same, "decisions": stage.action_agreement,
            "largest_flipped_gap": max(flipped, default=0.0), "passed": stage.passed,
            "by_gap": [asdict(band) for band in stage.by_gap]}  # fmt: skip


def main() -> None:
    """Train what is missing, measure, print, and keep the numbers in --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--data", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("fidelity"))
    parser.add_argument("--learning-rate", type=float, help="with quantisers; else a third")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.data:
        settings = load_settings(given.settings)
        data = given.out / "bars.safetensors"
        if not data.exists():
            load_or_prepare(settings, given.data).save(data)
        unseen = None
    else:
        settings, data, unseen = planted_data(given.out)

    before = trained(settings, data, given.out / "trained")
    rate = given.learning_rate or settings.training.learning_rate / 3
    finer = changed(settings, learning_rate=rate, epochs=1)
    after = trained(finer, data, given.out / "quantised", given.out / "trained")

    if unseen is None:
        unseen = load_or_prepare(settings, data)
        start, horizon = before.description.judged_from, settings.training.label_horizon
        samples = judged_samples(unseen, start, None, horizon)
    else:
        samples = np.arange(len(unseen))
    samples = np.sort(np.random.default_rng(0).permutation(samples)[:SAMPLES])

    calibrated_twin = copy.deepcopy(before.model)
    calibrated_twin.quantise(after.model.scales)  # found before training went on
    networks = {
        "float32": before.model,
        "int8, calibrated only": calibrated_twin,
        "int8, trained with quantisers": after.model,
    }
    fabric, tensors = open_fabric(HERE), Tensors(unseen, settings.network.input.window)
    found: dict[str, Any] = {}
    for name, model in networks.items():
        epoch = evaluate(fabric, model, tensors, samples, 1, 0.0)
        found[name] = {"accuracy": epoch.accuracy, "regret": epoch.regret}
        print(f"{name}: accuracy {epoch.accuracy:.4f}, regret {epoch.regret:.4f} ATR")

    inputs = inputs_of(unseen, settings, samples)
    segments = settings.training.max_segments
    for name, model in [*networks.items()][1:]:
        graph, twin = deployed(model), torch_run(model)
        plain = torch_run(model.without_quantisers())
        for what, gate, reference in (
            ("its twin", INT8, twin),
            ("quantisers off", QUANTISED, plain),
        ):
            stage = compare(gate, reference, graph, inputs, segments).stage("int8", what)
            found[name][what] = report(f"{name}: graph against {what}", stage)
    (given.out / "fidelity.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
