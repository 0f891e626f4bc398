"""Parity: whole tensors and whole decisions of an artifact held against torch, by numbers.

Both sides go through `hrm_runtime`: the same features, the same segment loop, the same rule from
outputs to decision. Only what runs a pass differs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hrm_export.errors import ParityFailed
from hrm_runtime.account import Account
from hrm_runtime.artifact import load
from hrm_runtime.contract import OUTPUTS, Contract, Flip, OutputParity, Stage, name_of
from hrm_runtime.decision import Decision
from hrm_runtime.features import rows
from hrm_runtime.golden import deviation, lots_agree
from hrm_runtime.model import Floats, Ids, Model, Outputs, Run, decisions, network_inputs
from hrm_runtime.model import run_segments as run_passes
from hrm_train.checkpoint import Checkpoint, load_checkpoint
from hrm_train.errors import CheckpointInvalid
from hrm_train.model import HierarchicalReasoningModel
from hrm_train.prepared import prepare
from hrm_train.vocabulary import Vocabulary
from hrm_train.windows import Windows, spread, windows

TOLERANCES: Final[dict[str, float]] = {
    # |a - b| / max(1, |reference|). Float32 sums in another order differ by some 1e-7 of states
    # of RMS 1; each of N x T steps passes that on, and a further segment again. Measured: 1.5e-5
    # for the trained tiny preset, 7.6e-4 for the base preset with random weights, two segments,
    # where nothing has learned to contract. Twice the latter:
    "z_H_out": 1.5e-3,
    "z_L_out": 1.5e-3,
    "action_type": 1e-3,  # one product with a state whose errors are independent
    "value": 1e-3,  # as above
    "q_values": 3e-4,  # a sigmoid of such a product: its slope is at most 1/4
    "quantity": 2e-3,  # exp of 11.5 sigmoids of one: relative error is multiplied by up to 3
    "l_residual": 1e-4,  # a mean over a whole state, in which errors cancel
    "h_residual": 1e-4,
}
"""Largest accepted difference per output of an fp32 graph."""

NEAR_TIE: Final = 1e-4
"""A decision may differ from torch's where its two largest probabilities are closer than this."""

BATCH: Final = 256


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the network gets for g decisions; the fields as `Model.run`, and the accounts."""

    features: Floats
    account: Floats
    instrument: Ids
    timeframe: Ids
    accounts: tuple[Account, ...]

    def __len__(self) -> int:
        return len(self.accounts)

    def slice(self, start: int, stop: int) -> "Inputs":
        """A part of them."""
        return Inputs(**{name: value[start:stop] for name, value in vars(self).items()})

    @property
    def arrays(self) -> tuple[Floats, Floats, Ids, Ids]:
        """The arguments of `Model.run`."""
        return self.features, self.account, self.instrument, self.timeframe


@dataclass(frozen=True)
class ParityReport:
    """Every stage over `windows` windows, `unseen` of them later than all training labels."""

    windows: int
    unseen: int
    stages: tuple[Stage, ...]

    @property
    def passed(self) -> bool:
        """Whether every stage passed."""
        return all(stage.passed for stage in self.stages)


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
    prepared = prepare(source.settings, data, source.description.vocabulary)
    later = prepared.sample_stamp >= source.description.boundary
    unseen, seen = (
        spread(prepared, np.flatnonzero(side), windows_wanted, source.settings.training.seed)
        for side in (later, ~later)
    )
    chosen = np.concatenate((unseen, seen))[:windows_wanted]
    inputs = window_inputs(model.contract, windows(prepared, chosen, model.contract.bars_needed))
    return ParityReport(
        windows=len(inputs),
        unseen=min(len(unseen), windows_wanted),
        stages=(compare_eager(source.model, model, inputs),),
    )


def window_inputs(contract: Contract, found: Windows) -> Inputs:
    """The inputs of each window, by the feature and account code that serves."""
    parts = []
    accounts = []
    for index in range(len(found)):
        facts = contract.instruments[name_of(contract.instruments, int(found.instrument[index]))]
        account = found.account(index)
        parts.append(
            network_inputs(
                contract,
                rows(found.bars(index), contract.features.history_bars),
                account,
                facts,
                int(found.timeframe[index]),
            )
        )
        accounts.append(account)
    features, account_vectors, instrument, timeframe = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    return Inputs(features, account_vectors, instrument, timeframe, tuple(accounts))


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


def compare_eager(reference: HierarchicalReasoningModel, model: Model, inputs: Inputs) -> Stage:
    """The stage "artifact" against "torch eager"."""
    contract = model.contract
    measured = Measured(contract.tolerances)
    for start in range(0, len(inputs), BATCH):
        part = inputs.slice(start, start + BATCH)
        expected = run_passes(torch_run(reference), *part.arrays, contract.max_segments)
        found = model.run_segments(*part.arrays)
        measured.add(start, part.accounts, expected, found)
    return measured.stage("artifact", "torch eager")


class Measured:
    """Gathers differences over batches of windows."""

    def __init__(self, tolerances: dict[str, float]) -> None:
        self._tolerances = tolerances
        self._worst_abs = dict.fromkeys(OUTPUTS, 0.0)
        self._worst_rel = dict.fromkeys(OUTPUTS, 0.0)
        self._flips: list[Flip] = []
        self._unexcused = 0
        self._windows = 0

    def add(
        self,
        first: int,
        accounts: Sequence[Account],
        expected: Sequence[Outputs],
        found: Sequence[Outputs],
    ) -> None:
        """Compare the passes of one batch whose first window is number `first`."""
        for one, other in zip(expected, found, strict=False):  # a flipped segment may end one early
            for name in OUTPUTS:
                error = deviation(other[name], one[name])
                worst = float(error.max()) if np.isfinite(error).all() else np.inf
                self._worst_rel[name] = max(self._worst_rel[name], worst)
                self._worst_abs[name] = max(
                    self._worst_abs[name],
                    float(np.abs(other[name] - one[name]).max()) if np.isfinite(worst) else np.inf,
                )
        ours, theirs = decisions(expected, accounts, ""), decisions(found, accounts, "")
        for row, (reference, decision) in enumerate(zip(ours, theirs, strict=True)):
            flip = _flip(first + row, reference, decision)
            if flip is not None:
                self._flips.append(flip)
                if not _excused(flip, reference, decision, self._tolerances["quantity"]):
                    self._unexcused += 1
        self._windows += len(accounts)

    def stage(self, name: str, reference: str) -> Stage:
        """What was gathered, judged."""
        outputs = {
            output: OutputParity(
                max_abs=self._worst_abs[output],
                max_rel=self._worst_rel[output],
                tolerance=self._tolerances[output],
            )
            for output in OUTPUTS
        }
        return Stage(
            stage=name,
            reference=reference,
            windows=self._windows,
            max_abs=max(self._worst_abs.values()),
            max_rel=max(self._worst_rel.values()),
            outputs=outputs,
            action_agreement=1.0 - len(self._flips) / max(1, self._windows),
            flips=tuple(self._flips),
            passed=self._unexcused == 0
            and all(output.max_rel <= output.tolerance for output in outputs.values()),
        )


def require(stage: Stage) -> None:
    """Raise unless the stage passed.

    Raises:
        ParityFailed: naming each output beyond its tolerance and each decision that differs.
    """
    if stage.passed:
        return
    beyond = [
        f"{name}: {output.max_rel:.3g} against {output.tolerance:g}"
        for name, output in stage.outputs.items()
        if not output.max_rel <= output.tolerance
    ]
    flips = [f"window {f.window}: {f.what} (gap {f.gap:.3g})" for f in stage.flips]
    raise ParityFailed(
        f"{stage.stage} differs from {stage.reference} over {stage.windows} windows. "
        f"Outputs beyond tolerance: {'; '.join(beyond) or 'none'}. "
        f"Decisions that differ: {'; '.join(flips[:10]) or 'none'}. "
        "The graph does not compute what was trained; nothing was written"
    )


def top_two_gap(decision: Decision) -> float:
    """The difference of a decision's two largest probabilities; illegal actions have 0."""
    first, second, *_ = sorted(decision.probabilities, reverse=True)
    return first - second


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


def _flip(window: int, reference: Decision, found: Decision) -> Flip | None:
    gap = top_two_gap(reference)
    if reference.segments != found.segments:
        return Flip(window=window, what="segments", gap=gap)
    if reference.action != found.action:
        return Flip(window=window, what="action", gap=gap)
    if reference.quantity != found.quantity:
        return Flip(window=window, what="quantity", gap=gap)
    return None


def _excused(flip: Flip, reference: Decision, found: Decision, tolerance: float) -> bool:
    """Whether rounding alone explains a flip."""
    if flip.what == "segments":
        halt, go_on = reference.q_values
        return abs(halt - go_on) <= NEAR_TIE
    if flip.what == "action":
        return flip.gap <= NEAR_TIE
    return lots_agree(reference.action, reference.quantity, found.quantity, tolerance)
