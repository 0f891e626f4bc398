"""`hrm predict` prints the decision of the model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import BAD_INPUT, DONE, GATE_FAILED, Serving, answer, hrm
from live import unknown_allowed

from hrm_runtime import Account, Reason, load, read_csv
from hrm_runtime.artifact.decision import hold


def predict(artifact: Path, bars: Path, *options: object) -> tuple[object, ...]:
    return (
        "predict", artifact, "--bars", bars, "--instrument", "Alpha", "--timeframe", "5", *options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "account"),
    [
        ((), Account.flat(1e6)),
        (("--capital", 2e5), Account.flat(2e5)),
        (
            ("--position", -3, "--entry-price", 99, "--unrealized-pnl", -7, "--distance-to-trail",
             0.01),
            Account(1e6, -3.0, 99.0, -7.0, True, 0.01),
        ),
    ],
    ids=["flat", "poor", "short"],
)  # fmt: skip
def test_predict_prints_the_decision_of_the_model(
    options: tuple[object, ...], account: Account, artifact_folder: Path, bars_folder: Path
) -> None:
    said = answer(*predict(artifact_folder, bars_folder / "Alpha_5.csv", *options))
    bars = read_csv(bars_folder / "Alpha_5.csv")
    decision = load(artifact_folder).decide(bars, account, instrument="Alpha", timeframe="5")
    assert said.pop("latency_ms") > 0
    assert said == {
        "action": decision.action.name,
        "action_id": int(decision.action),
        "quantity": decision.quantity,
        "value": decision.value,
        "probabilities": list(decision.probabilities),
        "q_values": list(decision.q_values),
        "segments": decision.segments,
        "degraded": False,
        "reason": "ok",
        "model_id": decision.model_id,
        "unknown": [],
    }


def test_predict_shows_the_decision_in_a_table(artifact_folder: Path, bars_folder: Path) -> None:
    result = hrm(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))
    assert result.exit_code == DONE
    assert "Alpha 5" in result.stdout
    assert "HOLD" in result.stdout
    assert "close" in result.stdout


def test_the_table_suits_a_terminal_without_block_characters(
    artifact_folder: Path, bars_folder: Path
) -> None:
    arguments = [str(a) for a in predict(artifact_folder, bars_folder / "Alpha_5.csv")]
    result = subprocess.run(
        [sys.executable, "-m", "hrm_cli", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert result.returncode == DONE, result.stderr
    assert b"##" in result.stdout


def test_a_degraded_decision_exits_with_1_and_shows_its_reason(
    artifact_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(artifact_folder)
    monkeypatch.setattr(model, "decide", lambda *_, **__: hold(Reason.NON_FINITE, model.id))
    monkeypatch.setattr("hrm_runtime.load", lambda path: model)
    result = hrm(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))
    assert result.exit_code == GATE_FAILED
    assert "non_finite" in result.stdout


def damaged(artifact: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "damaged"
    shutil.copytree(artifact, copy)
    content = bytearray((copy / "model.onnx").read_bytes())
    content[1000] ^= 1
    (copy / "model.onnx").write_bytes(content)
    return copy


def test_a_damaged_artifact_exits_with_2_and_names_the_file(
    artifact_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    result = hrm(
        *predict(damaged(artifact_folder, tmp_path), bars_folder / "Alpha_5.csv", "--json")
    )
    assert result.exit_code == BAD_INPUT
    assert result.stdout == ""
    assert "model.onnx: expected sha256" in result.stderr


def test_an_unknown_instrument_exits_with_2_and_names_the_known(
    artifact_folder: Path, bars_folder: Path
) -> None:
    result = hrm(
        "predict", artifact_folder, "--bars", bars_folder / "Alpha_5.csv",
        "--instrument", "Gamma", "--timeframe", "5",
    )  # fmt: skip
    assert result.exit_code == BAD_INPUT
    assert "expected one of Alpha, Beta; found 'Gamma'" in result.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_name_the_artifact_was_not_trained_on_is_told_with_the_closest(
    artifact_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    model = unknown_allowed(load(artifact_folder))
    monkeypatch.setattr("hrm_runtime.load", lambda path: model)
    result = hrm(
        "predict", artifact_folder, "--data", bars_folder / "Alpha_5.csv",
        "--instrument", "ALPHA", "--timeframe", "5m", *["--json"] * as_json,
    )  # fmt: skip
    assert result.exit_code == DONE
    assert result.stderr == (
        "instrument 'ALPHA' is unknown to the artifact, which decides for it as for any other: the "
        "closest is Alpha, which differs in upper and lower case\n"
    )
    if as_json:
        assert json.loads(result.stdout)["unknown"] == ["instrument"]


def test_bars_of_another_timeframe_exit_with_2_and_both_lengths(
    artifact_folder: Path, bars_folder: Path
) -> None:
    result = hrm(
        "predict", artifact_folder, "--data", bars_folder / "Alpha_5.csv", "--timeframe", "15"
    )
    assert result.exit_code == BAD_INPUT
    assert "bars: expected bars of 900 s, found" in result.stderr
    assert "300 s after it: another timeframe" in result.stderr


def test_deciding_needs_no_training_library(
    artifact_folder: Path, bars_folder: Path, serving: Serving
) -> None:
    arguments = predict(artifact_folder, bars_folder / "Alpha_5.csv", "--json")
    result = serving(*arguments)
    assert result.returncode == DONE, result.stderr
    assert json.loads(result.stdout)["reason"] == "ok"
