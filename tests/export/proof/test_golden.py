"""Golden vectors cover everything, stay clear of ties, and are what torch computes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hrm_export.proof.golden import CLEAR_GAP, make_golden
from hrm_export.proof.inputs import Inputs, window_inputs
from hrm_export.proof.parity import torch_run
from hrm_runtime import Account, Bars, Contract, load
from hrm_runtime.artifact.contract import LEAST_WINDOWS, NEAR
from hrm_runtime.artifact.golden import WITH_BARS, Golden, margins, top_two_gap
from hrm_runtime.artifact.segments import Outputs, Run, decisions, run_segments
from hrm_runtime.market.actions import Side
from hrm_runtime.market.columns import FEATURES
from hrm_runtime.market.instruments import name_of
from hrm_train.errors import DataInvalid
from hrm_train.learning.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def golden(artifact_folder: Path) -> Golden:
    return Golden.from_bytes((artifact_folder / "golden.npz").read_bytes())


def test_golden_vectors_cover_all_sides_an_unknown_instrument_and_clear_decisions(
    golden: Golden,
) -> None:
    assert len(golden) >= LEAST_WINDOWS
    assert {account.side for account in golden.accounts()} == set(Side)
    assert set(golden.instrument.tolist()) == {0, 1, 2}
    assert set(golden.timeframe.tolist()) == {1, 2}
    made = decisions(golden.passes, golden.accounts(), "")
    assert min(top_two_gap(decision) for decision in made) >= CLEAR_GAP
    unknown = golden.instrument == 0
    sides = np.array([int(account.side) for account in golden.accounts()])
    assert set(sides[unknown]) == set(sides[~unknown]) == set(Side)
    assert [int(decision.action) for decision in made] == golden.actions.tolist()
    assert [decision.segments for decision in made] == golden.segments.tolist()
    assert [decision.quantity for decision in made] == golden.quantities.tolist()


def test_every_side_is_golden_however_many_instruments_there_are(
    checkpoint: Checkpoint, contract: Contract
) -> None:
    windows = checkpoint.windows
    many = replace(windows, instrument=np.arange(len(windows)) % 8 + 1)
    known = checkpoint.description.vocabulary.instruments
    instruments = {
        f"name {number}": replace(known["Alpha"], id=number) for number in range(1, 9)
    } | {"unknown": known["unknown"]}
    contract = replace(contract, instruments=instruments)
    run = torch_run(checkpoint.model)
    found = make_golden(run, run, contract, many, window_inputs(contract, many))
    sides = [int(account.side) for account in found.accounts()][: LEAST_WINDOWS - 4]
    assert np.unique(sides, return_counts=True)[1].tolist() == [10, 9, 9]
    assert set(found.instrument.tolist()) == set(range(9))


def test_golden_outputs_are_what_torch_computes(golden: Golden, checkpoint: Checkpoint) -> None:
    arrays = (golden.features, golden.account, golden.instrument, golden.timeframe)
    expected = run_segments(torch_run(checkpoint.model), *arrays, 2)
    assert len(expected) == len(golden.passes) == 2
    for stored, computed in zip(golden.passes, expected, strict=True):
        for name, value in computed.items():
            assert np.array_equal(stored[name], value), name


def test_golden_bars_lead_to_the_golden_decisions(artifact_folder: Path, golden: Golden) -> None:
    model = load(artifact_folder)
    for window in range(WITH_BARS):
        stamps, *prices = golden.bars[window]
        decision = model.decide(
            Bars(stamps, *prices),
            Account(*golden.raw_account[window].tolist()),
            instrument=name_of(model.contract.instruments, int(golden.instrument[window])),
            timeframe=name_of(model.contract.timeframes, int(golden.timeframe[window])),
        )
        assert int(decision.action) == golden.actions[window]


def test_too_few_windows_are_refused(
    checkpoint: Checkpoint, contract: Contract, all_inputs: Inputs
) -> None:
    run, few = torch_run(checkpoint.model), np.arange(27)
    with pytest.raises(DataInvalid, match=r"^golden vectors: expected at least 28 .* found 27 of"):
        make_golden(run, run, contract, checkpoint.windows[few], all_inputs.slice(0, 27))


def test_as_many_windows_as_are_needed_are_all_golden(
    checkpoint: Checkpoint, contract: Contract, all_inputs: Inputs
) -> None:
    run = torch_run(checkpoint.model)
    found = make_golden(
        run, run, contract, checkpoint.windows[np.arange(28)], all_inputs.slice(0, 28)
    )
    assert sorted(found.features[:28].sum(axis=(1, 2)).tolist()) == sorted(
        all_inputs.features[:28].sum(axis=(1, 2)).tolist()
    )
    assert found.instrument[28:].tolist() == [0] * 4


# ties, and windows of which the artifact says otherwise

RSI = FEATURES.index("rsi_14")
RISING = 50.0


def rising(features: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Windows at whose end the RSI is above 50: about half of them."""
    chosen: npt.NDArray[np.bool_] = features[:, -1, RSI] > RISING
    return chosen


def edited(run: Run, edit: Callable[[Outputs], dict[str, Any]], everywhere: bool = False) -> Run:
    """`run` with `edit` made to the outputs of the windows that are `rising`, or of all."""

    def edited_run(*arrays: Any, **states: Any) -> Outputs:
        outputs = run(*arrays, **states)
        chosen = rising(arrays[0]) | everywhere
        for name, value in edit(outputs).items():
            where = chosen.reshape(-1, *[1] * (outputs[name].ndim - 1))
            outputs = {**outputs, name: np.where(where, value, outputs[name]).astype(np.float32)}
        return outputs

    return edited_run


def halting_tie(outputs: Outputs) -> dict[str, Any]:
    return {"q_values": outputs["q_values"][:, :1] + np.float32([0.0, 1e-5])}


def action_tie(outputs: Outputs) -> dict[str, Any]:
    legal = outputs["action_type"] > -1e4
    return {"action_type": np.where(legal, np.float32([0, 0, 0, 0, 1e-5]), -1e4)}


@pytest.mark.parametrize("tie", [halting_tie, action_tie])
def test_no_golden_window_is_a_tie(
    tie: Callable[[Outputs], dict[str, Any]],
    checkpoint: Checkpoint,
    contract: Contract,
    all_inputs: Inputs,
) -> None:
    assert 100 < rising(all_inputs.features).sum() < len(all_inputs) - 100
    run = edited(torch_run(checkpoint.model), tie)
    found = make_golden(run, run, contract, checkpoint.windows, all_inputs)
    assert not rising(found.features).any()
    gaps, halting = margins(found.passes, found.accounts(), contract.max_segments)
    assert np.minimum(gaps, halting).min() > NEAR["fp32"]


@pytest.mark.parametrize(
    ("tie", "counted"),
    [
        (halting_tie, r"in \d the two .*, in \d{3} the values .*"),
        (action_tie, r"in \d{3} the two .*"),
    ],
)
def test_an_undecided_network_has_no_golden_vectors(
    tie: Callable[[Outputs], dict[str, Any]],
    counted: str,
    checkpoint: Checkpoint,
    contract: Contract,
    all_inputs: Inputs,
) -> None:
    run = edited(torch_run(checkpoint.model), tie, everywhere=True)
    with pytest.raises(
        DataInvalid,
        match=rf"at least 28 windows .* rounding cannot turn, found 0 of \d+: {counted}, and in 0 "
        r"others .*; give other bars with --golden, train .* max_segments: 1$",
    ):
        make_golden(run, run, contract, checkpoint.windows, all_inputs)


def test_what_decides_no_segment_is_no_tie(
    checkpoint: Checkpoint, contract: Contract, all_inputs: Inputs
) -> None:
    run = edited(torch_run(checkpoint.model), halting_tie, everywhere=True)
    single = replace(contract, max_segments=1)
    found = make_golden(run, run, single, checkpoint.windows, all_inputs)
    assert set(found.segments.tolist()) == {1}


@pytest.mark.parametrize("by", [0.01, np.nan])
def test_a_window_of_which_the_artifact_says_otherwise_is_not_golden(
    by: float, checkpoint: Checkpoint, contract: Contract, all_inputs: Inputs
) -> None:
    reference = torch_run(checkpoint.model)
    served = edited(reference, lambda outputs: {"value": outputs["value"] + by})
    found = make_golden(reference, served, contract, checkpoint.windows, all_inputs)
    assert len(found) == LEAST_WINDOWS
    assert not rising(found.features).any()
    other = edited(reference, lambda outputs: {"value": outputs["value"] + by}, everywhere=True)
    with pytest.raises(DataInvalid, match=r"and in \d{3} others the artifact differs from torch"):
        make_golden(reference, other, contract, checkpoint.windows, all_inputs)
