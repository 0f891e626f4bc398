"""The parity ladder: from torch to the deployed graph, each rung held against torch by numbers.

Both sides go through `hrm_runtime`: the same features, the same segment loop, the same rule from
outputs to decision. Only what runs a pass differs.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from hrm_export.build import COMPOSED, FUSED
from hrm_export.comparison import Comparison
from hrm_export.compose import high_state, low_state
from hrm_export.errors import ParityFailed
from hrm_export.gates import FLOAT, OF_PRECISION, QUANTISED, Gate
from hrm_export.inputs import Inputs, hard, unseen_windows, window_inputs
from hrm_runtime.artifact import load
from hrm_runtime.contract import MODEL, OUTPUTS, Contract, Growth, Precision, Stage
from hrm_runtime.model import Floats, Ids, Model, Outputs, Run, run_segments
from hrm_runtime.session import Session
from hrm_train.checkpoint import Checkpoint, load_checkpoint
from hrm_train.errors import CheckpointInvalid
from hrm_train.model import HierarchicalReasoningModel
from hrm_train.vocabulary import Vocabulary

TORCH: Final = "torch eager"
TWINS: Final[Mapping[Precision, str]] = {
    "fp32": TORCH,
    "fp16": "torch eager, float16 weights",
    "int8": "torch eager, quantised",
}
"""The reference that computes with the same numbers as an artifact."""

ARTIFACT: Final = "artifact"
HARD: Final = "artifact, hard windows"

BATCH: Final = 256
_RUNG_WINDOWS: Final = 64
"""Windows that show whether a graph is the right one; all go through the artifact."""


@dataclass(frozen=True)
class ParityReport:
    """Every stage over `windows` windows, `unseen` of them later than all training labels."""

    windows: int
    unseen: int
    stages: tuple[Stage, ...]

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
    found, unseen = unseen_windows(source, data, windows_wanted)
    inputs = window_inputs(model.contract, found)
    return ParityReport(
        windows=len(inputs),
        unseen=unseen,
        stages=upper_rungs(reference, model, graph, inputs, source.description.quantised),
    )


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
        compare(FLOAT, torch_run(plain), _opened(graphs[name], contract), few, contract).stage(
            name, TORCH
        )
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
    grown = _growth(twin, graph, contract, inputs.slice(0, _RUNG_WINDOWS))
    stages = [
        compare(gate, torch_run(twin), served.run, inputs, contract).stage(
            ARTIFACT, name, growth=grown
        ),
        compare(gate, torch_run(twin), served.run, hard(inputs), contract).stage(HARD, name),
    ]
    if precision != "fp32":
        plain = model.without_quantisers()
        grown = _growth(plain, graph, contract, inputs.slice(0, _RUNG_WINDOWS))
        stages.append(
            compare(QUANTISED, torch_run(plain), served.run, inputs, contract).stage(
                ARTIFACT, TORCH, gated=trained, growth=grown
            )
        )
    return tuple(stages)


def compare(gate: Gate, reference: Run, run: Run, inputs: Inputs, contract: Contract) -> Comparison:
    """Run both over all windows, in batches."""
    gathered = Comparison(gate)
    for start in range(0, len(inputs), BATCH):
        part = inputs.slice(start, start + BATCH)
        expected = run_segments(reference, *part.arrays, contract.max_segments)
        found = run_segments(run, *part.arrays, contract.max_segments)
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


def require(stages: Iterable[Stage]) -> None:
    """Raise unless every stage passed that had to.

    Raises:
        ParityFailed: naming each output beyond its tolerance and each decision that differs.
    """
    for stage in stages:
        if stage.passed or not stage.gated:
            continue
        beyond = [
            f"{name}: {output.max_rel:.3g} against {output.tolerance} in {output.beyond} windows"
            for name, output in stage.outputs.items()
            if output.beyond
        ]
        flips = [f"window {f.window}: {f.what} (gap {f.gap:.3g})" for f in stage.flips]
        raise ParityFailed(
            f"{stage.stage} differs from {stage.reference} over {stage.windows} windows. "
            f"Outputs beyond tolerance: {'; '.join(beyond) or 'none'}. "
            f"Decisions that differ: {len(flips)}: {'; '.join(flips[:10]) or 'none'}. "
            "The graph does not compute what was trained; nothing was written"
        )


def _opened(graph: bytes, contract: Contract) -> Run:
    return Model(contract, "", Session(graph)).run


def _growth(
    model: HierarchicalReasoningModel, graph: bytes, contract: Contract, inputs: Inputs
) -> Growth:
    """The difference between both after each step of a first segment."""
    cycles, timesteps = contract.graph.cycles, contract.graph.timesteps
    expected_L, expected_H = _torch_states(model, inputs)
    lows = [low_state(n, t) for n in range(1, cycles + 1) for t in range(1, timesteps + 1)]
    highs = [high_state(n) for n in range(1, cycles + 1)]
    feeds = dict(
        zip(("features", "account", "instrument", "timeframe"), inputs.arrays, strict=True)
    )
    found = Session(_with_outputs(graph, [*lows, *highs])).run(feeds)
    flat = [_rms(found[name], z) for name, z in zip(lows, expected_L, strict=True)]
    return Growth(
        z_L=tuple(
            tuple(flat[start : start + timesteps]) for start in range(0, len(flat), timesteps)
        ),
        z_H=tuple(_rms(found[name], z) for name, z in zip(highs, expected_H, strict=True)),
    )


def _torch_states(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> tuple[list[Tensor], list[Tensor]]:
    """z_L after every low step and z_H after every high step of a first segment."""
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, state, kept=kept: kept.append(state))
        for module, kept in ((model.l_module, lows), (model.h_module, highs))
    ]
    torch_run(model)(*inputs.arrays)
    for hook in hooks:
        hook.remove()
    return lows, highs


def _with_outputs(graph: bytes, names: list[str]) -> bytes:
    """`graph` that also answers with values inside it."""
    model = onnx.load_model_from_string(graph)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    content: bytes = model.SerializeToString()
    return content


def _rms(found: npt.NDArray[Any], expected: Tensor) -> float:
    return float(np.sqrt(np.mean(np.square(found - expected.numpy()), dtype=np.float64)))


def _require_same_network(contract: Contract, source: Checkpoint) -> None:
    ours = contract.provenance.settings["hierarchical_reasoning_model"]
    theirs = source.settings.network.model_dump(mode="json")
    if differing := [key for key in theirs if ours.get(key) != theirs[key]]:
        shown = "; ".join(f"{key}: {ours.get(key)} and {theirs[key]}" for key in differing)
        raise CheckpointInvalid(f"expected the checkpoint of this artifact; they differ in {shown}")
    known = Vocabulary(instruments=contract.instruments, timeframes=contract.timeframes)
    if source.description.vocabulary != known:
        raise CheckpointInvalid(
            "expected the checkpoint of this artifact; they know other instruments or timeframes: "
            f"{known} and {source.description.vocabulary}"
        )
