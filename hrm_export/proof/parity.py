"""The parity ladder: from torch to the deployed graph, each rung held against torch by numbers.

Both sides go through `hrm_runtime`: the same features, the same segment loop, the same rule from
outputs to decision. Only what runs a pass differs.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hrm_export.errors import ParityFailed
from hrm_export.graph.build import COMPOSED, FUSED
from hrm_export.graph.compose import high_state, low_state, with_outputs
from hrm_export.proof.comparison import Comparison
from hrm_export.proof.gates import FLOAT, OF_PRECISION, QUANTISED, Gate
from hrm_export.proof.inputs import Inputs, hard, unseen_windows, window_inputs
from hrm_runtime.artifact.contract import INPUTS, MODEL, OUTPUTS, Contract, Growth, Precision, Stage
from hrm_runtime.artifact.folder import load
from hrm_runtime.artifact.model import Floats, Ids, Model
from hrm_runtime.artifact.segments import Outputs, Run, run_segments
from hrm_runtime.artifact.session import Session
from hrm_runtime.market.bars import counted
from hrm_runtime.market.series import SkippedSeries
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.differences import differences
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Checkpoint, load_checkpoint
from hrm_train.learning.devices import computing_with
from hrm_train.network.model import HierarchicalReasoningModel

TORCH: Final = "torch eager"
TWINS: Final[Mapping[Precision, str]] = {
    "fp32": TORCH,
    "fp16": "torch eager, float16 weights",
    "int8": "torch eager, quantised",
}
"""The reference that computes with the same numbers as an artifact."""

ARTIFACT: Final = "artifact"
HARD: Final = "artifact, hard windows"
PLAIN: Final = (ARTIFACT, TORCH)
"""The stage that shows what fewer bits do; of fp32, the one that shows the arithmetic too."""

States = tuple[list[Floats], list[Floats]]
"""z_L after every low step, z_H after every high step."""

BATCH: Final = 256
_RUNG_WINDOWS: Final = 64
"""Windows that show whether a graph is the right one; all go through the artifact."""


@dataclass(frozen=True)
class ParityReport:
    """Every stage over `windows` windows, `unseen` of them later than all training labels.

    `skipped` are the series that gave none.
    """

    windows: int
    unseen: int
    stages: tuple[Stage, ...]
    skipped: tuple[SkippedSeries, ...]

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        counts = f"{counted(self.windows, 'window')}, {self.unseen:,} unseen"
        return f"ParityReport({counts}, {counted(len(self.stages), 'stage')}, {verdict})"

    @property
    def passed(self) -> bool:
        """Whether every stage passed that had to."""
        return all(stage.passed for stage in self.stages if stage.gated)


def check_parity(
    artifact: str | Path,
    checkpoint: str | Path,
    data: Iterable[str | Path],
    windows_wanted: int = 2000,
) -> ParityReport:
    """Hold an artifact against its checkpoint on windows of bars files.

    Windows are spread over instruments, timeframes and sides, those later than the training part
    first; accounts are synthesised.

    Raises:
        DoNotStart: the artifact cannot be loaded.
        CheckpointInvalid: it cannot be read, or is of another network or vocabulary.
        BadBars, DataInvalid: the data cannot be read.
    """
    model = load(artifact)
    source = load_checkpoint(checkpoint)
    _require_same_network(model.contract, source)
    reference = as_deployed(source.model, model.contract)
    graph = (Path(artifact) / MODEL).read_bytes()
    found, unseen, skipped = unseen_windows(source, data, windows_wanted)
    inputs = window_inputs(model.contract, found)
    with computing_with(source.settings.threads):
        stages = upper_rungs(reference, model, graph, inputs, source.description.quantised)
    return ParityReport(windows=len(inputs), unseen=unseen, stages=stages, skipped=skipped)


def as_deployed(
    model: HierarchicalReasoningModel, contract: Contract
) -> HierarchicalReasoningModel:
    """`model` with the contract's N and T, and its quantisers on where the artifact has them."""
    reference = model.without_quantisers()
    reference.cycles, reference.timesteps = contract.graph.cycles, contract.graph.timesteps
    if contract.graph.precision == "int8":
        reference.quantise(contract.graph.input_scales, "the artifact's contract")
    return reference


def twin_of(model: HierarchicalReasoningModel, precision: Precision) -> HierarchicalReasoningModel:
    """What an artifact of `model` computes, in torch: for fp16 with its matrices rounded so."""
    if precision != "fp16":
        return model
    twin = copy.deepcopy(model)
    for weight in twin.parameters():
        if weight.ndim >= 2:
            weight.data = weight.data.half().float()
    return twin


def lower_rungs(
    model: HierarchicalReasoningModel,
    contract: Contract,
    graphs: Mapping[str, bytes],
    inputs: Inputs,
) -> tuple[Stage, ...]:
    """The graphs on the way, before any precision was given up, against torch.

    Args:
        model: as `as_deployed` gives it.
        contract: of the artifact.
        graphs: by stage of their making.
        inputs: of windows; the first few are used.
    """
    plain, few = model.without_quantisers(), inputs.slice(0, _RUNG_WINDOWS)
    return tuple(
        compare(
            FLOAT, torch_run(plain), _opened(graphs[name], contract), few, contract.max_segments
        ).stage(name, TORCH)
        for name in (COMPOSED, FUSED)
        if name in graphs
    )


def upper_rungs(
    model: HierarchicalReasoningModel, served: Model, graph: bytes, inputs: Inputs, trained: bool
) -> tuple[Stage, ...]:
    """The artifact as it is served, against torch with the same numbers and against plain torch.

    Args:
        model: as `as_deployed` gives it.
        served: the artifact.
        graph: its file.
        inputs: of windows.
        trained: whether the network was trained with its quantisers on, so that they may cost it
            no clear decision.
    """
    contract = served.contract
    precision = contract.graph.precision
    gate, name = OF_PRECISION[precision], TWINS[precision]
    twin = twin_of(model, precision)
    few, segments = inputs.slice(0, _RUNG_WINDOWS), contract.max_segments
    states = _graph_states(graph, contract, few)
    grown = _growth(_torch_states(twin, few), states)
    stages = [
        compare(gate, torch_run(twin), served.run, inputs, segments).stage(
            ARTIFACT, name, growth=grown
        ),
        compare(gate, torch_run(twin), served.run, hard(inputs), segments).stage(HARD, name),
    ]
    if precision != "fp32":
        plain = model.without_quantisers()
        grown = _growth(_torch_states(plain, few), states)
        stages.append(
            compare(QUANTISED, torch_run(plain), served.run, inputs, segments).stage(
                ARTIFACT, TORCH, gated=trained, growth=grown
            )
        )
    return tuple(stages)


def compare(gate: Gate, reference: Run, run: Run, inputs: Inputs, max_segments: int) -> Comparison:
    """Run both over all windows, in batches."""
    gathered = Comparison(gate)
    for start in range(0, len(inputs), BATCH):
        part = inputs.slice(start, start + BATCH)
        expected = run_segments(reference, *part.arrays, max_segments)
        found = run_segments(run, *part.arrays, max_segments)
        gathered.add(part.accounts, expected, found)
    return gathered


def torch_run(model: HierarchicalReasoningModel) -> Run:
    """`model` in eager mode, answering as `Model.run` does."""

    @torch.inference_mode()
    def run(
        features: Floats,
        account: Floats,
        instrument: Ids,
        timeframe: Ids,
        z_H: Floats | None = None,
        z_L: Floats | None = None,
    ) -> Outputs:
        states = None
        if z_H is not None and z_L is not None:
            states = (torch.from_numpy(z_H), torch.from_numpy(z_L))
        arrays = (features, account, instrument, timeframe)
        outputs, (zH_BSD, zL_BSD) = model(*map(torch.from_numpy, arrays), states)
        named = {**outputs, "z_H_out": zH_BSD, "z_L_out": zL_BSD}
        return {name: named[name].numpy() for name in OUTPUTS}

    return run


def require(stages: Sequence[Stage]) -> None:
    """Raise unless every stage passed that had to.

    Raises:
        ParityFailed: as the first of `failures`.
    """
    for failure in failures(stages):
        raise ParityFailed(f"{failure}. Nothing was written")


def failures(stages: Sequence[Stage]) -> list[str]:
    """Of each stage that had to pass and did not: what differs, by how much, and what to do."""
    return [
        _failure(stage, _remedy(stage, stages))
        for stage in stages
        if stage.gated and not stage.passed
    ]


def _failure(stage: Stage, remedy: str) -> str:
    beyond = [
        f"{name}: {output.max_rel:.3g} against {output.tolerance} in {output.beyond} windows"
        for name, output in stage.outputs.items()
        if output.beyond
    ]
    flips = [f"window {f.window}: {f.what} (gap {f.gap:.3g})" for f in stage.flips]
    return (
        f"{stage.stage} differs from {stage.reference} over {stage.windows} windows; beyond near "
        f"ties, {int(stage.allowance * stage.windows)} of them may. "
        f"Outputs beyond tolerance: {'; '.join(beyond) or 'none'}. "
        f"Decisions that differ: {len(flips)}: {'; '.join(flips[:10]) or 'none'}. {remedy}"
    )


def _remedy(stage: Stage, stages: Sequence[Stage]) -> str:
    """What a failure means, and what a user can do."""
    quantised = any(other.reference == TWINS["int8"] for other in stages)
    trained = any(other.gated for other in stages if (other.stage, other.reference) == PLAIN)
    if stage.reference == TWINS["int8"]:
        return (
            "Both sides compute the same integers, of inputs that float32 rounds otherwise, and "
            "this network turns too much of that into other answers. "
            + (
                "Train it longer with --quantise, so that its answers stand out from rounding "
                "(docs/training.md), or export it as fp16"
                if trained
                else "It was calibrated only: train on with hrm train --quantise --init-from and "
                "export that, give more or other bars with --calibration, or export it as fp16"
            )
        )
    if quantised and (stage.stage, stage.reference) == PLAIN:
        return (
            "Quantisers change actions of which the network without them is sure. Train it longer "
            "with --quantise, or export it as fp16"
        )
    return (
        "Both sides compute the same in float32, added up in another order. A network that has not "
        "settled, since it was trained for too few steps or too fast, makes much of that: train it "
        "longer, or with a lower learning_rate. If a well trained one differs, the graph does not "
        "compute what was trained: please report it"
    )


def _opened(graph: bytes, contract: Contract) -> Run:
    return Model(contract, "", Session(graph)).run


def _graph_states(graph: bytes, contract: Contract, inputs: Inputs) -> States:
    """What `_torch_states` of the graph would be."""
    cycles, timesteps = contract.graph.cycles, contract.graph.timesteps
    lows = [low_state(n, t) for n in range(1, cycles + 1) for t in range(1, timesteps + 1)]
    highs = [high_state(n) for n in range(1, cycles + 1)]
    feeds = dict(zip(INPUTS, inputs.arrays, strict=True))
    found = Session(with_outputs(graph, [*lows, *highs])).run(feeds)
    return [found[name] for name in lows], [found[name] for name in highs]


def _growth(expected: States, found: States) -> Growth:
    """The difference between both after each step."""
    lows, highs = (
        [_rms(one, other) for one, other in zip(*states, strict=True)]
        for states in zip(expected, found, strict=True)
    )
    timesteps = len(lows) // len(highs)
    return Growth(
        z_L=tuple(
            tuple(lows[start : start + timesteps]) for start in range(0, len(lows), timesteps)
        ),
        z_H=tuple(highs),
    )


def _torch_states(model: HierarchicalReasoningModel, inputs: Inputs) -> States:
    """z_L after every low step and z_H after every high step of a first segment."""
    lows: list[Floats] = []
    highs: list[Floats] = []
    hooks = [
        module.register_forward_hook(lambda _, __, state, kept=kept: kept.append(state.numpy()))
        for module, kept in ((model.l_module, lows), (model.h_module, highs))
    ]
    torch_run(model)(*inputs.arrays)
    for hook in hooks:
        hook.remove()
    return lows, highs


def _rms(one: Floats, other: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(one - other), dtype=np.float64)))


def _require_same_network(contract: Contract, source: Checkpoint) -> None:
    ours = contract.provenance.settings["hierarchical_reasoning_model"]
    theirs = source.settings.network.model_dump(mode="json")
    called = ("artifact", "checkpoint")
    known = Vocabulary(instruments=contract.instruments, timeframes=contract.timeframes)
    differing = differences(ours, theirs, called) or known.differences(
        source.description.vocabulary, called
    )
    if differing:
        raise CheckpointInvalid(
            f"expected the checkpoint of this artifact; they differ in {differing}; give the one "
            f"whose checkpoint.json has the sha256 {contract.provenance.checkpoint_sha256}"
        )
