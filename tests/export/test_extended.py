"""An artifact of an extended checkpoint serves the new names at once, as it would unknown ones."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hrm_export import export
from hrm_runtime import Account, Model, UnknownInstrument, load, read_csv
from hrm_train import extend_vocabulary

NEW = [("Gamma", "5"), ("Alpha", "60")]


@pytest.fixture
def served(checkpoint_folder: Path, tmp_path: Path) -> Model:
    extend_vocabulary(checkpoint_folder, tmp_path / "checkpoint", NEW)
    export(tmp_path / "checkpoint", tmp_path / "artifact")
    return load(tmp_path / "artifact")


@pytest.mark.usefixtures("quick_export")
def test_new_names_are_served_and_decide_as_unknown(
    served: Model, artifact_folder: Path, bars_folder: Path
) -> None:
    contract, before = served.contract, load(artifact_folder)
    assert {name: entry.id for name, entry in contract.instruments.items()} == {
        "unknown": 0, "Alpha": 1, "Beta": 2, "Gamma": 3,
    }  # fmt: skip
    assert {name: asdict(entry) for name, entry in contract.timeframes.items()} == {
        "15": {"id": 1, "seconds": 900},
        "5": {"id": 2, "seconds": 300},
        "60": {"id": 3, "seconds": 3600},
    }
    bars, account = read_csv(bars_folder / "Alpha_5.csv"), Account.flat(1e6)

    features = np.random.default_rng(0).standard_normal((4, 6, 54), dtype=np.float32)
    flat = np.zeros((4, 5), dtype=np.float32)
    ids = np.array([3, 0, 1, 2]), np.array([3, 0, 2, 2])
    found = served.run(features[[0, 0, 1, 2]], flat, *ids)
    for name, output in found.items():
        np.testing.assert_array_equal(output[0], output[1], err_msg=name)
    for name, output in before.run(features[[0, 0, 1, 2]], flat, ids[0] % 3, ids[1] % 3).items():
        np.testing.assert_array_equal(found[name][1:], output[1:], err_msg=name)

    known = {"instrument": "Alpha", "timeframe": "5"}
    ours, theirs = (model.decide(bars, account, **known) for model in (served, before))
    assert (ours.action, ours.quantity, ours.value) == (
        theirs.action, theirs.quantity, theirs.value,
    )  # fmt: skip
    decision = served.decide(bars, account, instrument="Gamma", timeframe="5")
    assert decision.reason == "ok"
    assert decision.value != ours.value
    with pytest.raises(UnknownInstrument, match="Gamma"):
        before.decide(bars, account, instrument="Gamma", timeframe="5")
