"""Golden vectors cover everything, stay clear of ties, and are what torch computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrm_export.comparison import top_two_gap
from hrm_export.golden import CLEAR_GAP, make_golden
from hrm_export.inputs import Inputs, window_inputs
from hrm_export.parity import torch_run
from hrm_runtime import Account, Bars, Contract, load
from hrm_runtime.actions import Side
from hrm_runtime.contract import LEAST_WINDOWS, name_of
from hrm_runtime.golden import WITH_BARS, Golden
from hrm_runtime.model import decisions, run_segments
from hrm_train.checkpoint import Checkpoint
from hrm_train.errors import DataInvalid


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
    found = make_golden(torch_run(checkpoint.model), contract, many, window_inputs(contract, many))
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
    few = np.arange(27)
    with pytest.raises(DataInvalid, match=r"expected at least 28 windows for golden .* found 27"):
        make_golden(
            torch_run(checkpoint.model), contract, checkpoint.windows[few], all_inputs.slice(0, 27)
        )


def test_as_many_windows_as_are_needed_are_all_golden(
    checkpoint: Checkpoint, contract: Contract, all_inputs: Inputs
) -> None:
    found = make_golden(
        torch_run(checkpoint.model),
        contract,
        checkpoint.windows[np.arange(28)],
        all_inputs.slice(0, 28),
    )
    assert sorted(found.features[:28].sum(axis=(1, 2)).tolist()) == sorted(
        all_inputs.features[:28].sum(axis=(1, 2)).tolist()
    )
    assert found.instrument[28:].tolist() == [0] * 4
