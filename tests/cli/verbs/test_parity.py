"""`hrm parity` shows every output of every stage, and fails where its gate does."""

import json
from pathlib import Path

import pytest
from command import GATE_FAILED, answer, asked_once, hrm
from synthetic import SMALL

from hrm_export import check_parity
from hrm_runtime import load_contract
from hrm_train import train
from hrm_train.settings import parse_settings


def test_parity_prints_every_output_of_every_stage(
    artifact_folder: Path, checkpoint_folder: Path, bars_folder: Path
) -> None:
    said = answer(
        "parity", artifact_folder, "--checkpoint", checkpoint_folder,
        "--data", bars_folder, "--windows", 64,
    )  # fmt: skip
    assert (said["passed"], said["windows"], said["unseen"]) == (True, 64, 64)
    one, hard = said["stages"]
    assert (one["stage"], one["reference"], one["windows"]) == ("artifact", "torch eager", 64)
    assert hard["stage"] == "artifact, hard windows"
    tolerances = load_contract(artifact_folder).tolerances
    for stage in said["stages"]:
        assert {"max_abs", "max_rel", "action_agreement", "flips", "passed"} < stage.keys()
        assert {n: output["tolerance"] for n, output in stage["outputs"].items()} == tolerances
        for output in stage["outputs"].values():
            assert 0 <= output["max_rel"] <= min(output["tolerance"], output["max_abs"])
        assert stage["max_rel"] == max(o["max_rel"] for o in stage["outputs"].values())
        assert (stage["action_agreement"], stage["flips"], stage["passed"]) == (1.0, [], True)
        assert sum(band["windows"] for band in stage["by_gap"]) == stage["windows"]
    assert [len(row) for row in one["growth"]["z_L"]] == [2, 2]
    assert hard["growth"] is None


def test_parity_with_another_checkpoint_fails_the_gate_and_says_where(
    artifact_folder: Path, tensors: Path, bars_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    train(parse_settings(SMALL), [tensors], tmp_path / "another")
    monkeypatch.setattr("hrm_export.check_parity", asked_once(check_parity))
    arguments = (
        "parity", artifact_folder, "--checkpoint", tmp_path / "another",
        "--data", bars_folder, "--windows", 64,
    )  # fmt: skip
    result = hrm(*arguments)
    assert result.exit_code == GATE_FAILED
    assert "FAILED" in result.stdout
    assert "hrm: artifact differs from torch eager over 64 windows; beyond near" in result.stderr
    assert "Nothing was written" not in result.stderr
    said = hrm(*arguments, "--json")
    assert said.exit_code == GATE_FAILED
    found = json.loads(said.stdout)
    assert found["passed"] is False
    stage = found["stages"][0]
    assert stage["passed"] is False
    assert len(stage["flips"]) > 10
    for flip in stage["flips"][:10]:
        line = f"window {flip['window']}: {flip['what']} differs, top-two gap {flip['gap']:.2e}"
        assert line in result.stdout
    assert f"and {len(stage['flips']) - 10:,} more" in result.stdout
