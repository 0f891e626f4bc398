"""`hrm export` writes an artifact and shows how, or leaves nothing."""

from pathlib import Path
from typing import Any, get_args

import pytest
from command import BAD_INPUT, DONE, GATE_FAILED, answer, hrm, unframed
from ladders import LADDER, rows_of

from hrm_cli.verbs.export import Precision
from hrm_export.errors import LimitExceeded
from hrm_export.graph.limits import MOST_MEGABYTES
from hrm_export.proof.gates import FLOAT_TOLERANCES
from hrm_runtime import load, load_contract
from hrm_runtime.artifact import contract


def test_its_precisions_are_those_of_a_contract() -> None:
    assert tuple(name.value for name in Precision) == get_args(contract.Precision)


@pytest.mark.usefixtures("quick_export", "wide")
def test_export_writes_an_artifact_and_shows_how_and_the_ladder(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "one")
    assert result.exit_code == DONE
    shown = rows_of(result.stdout)
    changes, below = (shown[: shown.index(LADDER)], shown[shown.index(LADDER) + 1 :])
    stages = [row for row in below if len(row) == len(LADDER)]  # others say where ties fell
    assert changes[0] == ["pass over the graph", "changes"]
    assert ["fuse rotation and attention", "2"] in changes
    found = load_contract(tmp_path / "one").parity
    assert stages == [
        [
            one.stage, one.reference, f"{one.windows}", f"{one.max_rel:.1e}",
            f"{one.action_agreement:.2%}", "passed",
        ]
        for one in found
    ]  # fmt: skip
    assert [one.stage for one in found] == ["composed", "artifact", "artifact, hard windows"]
    assert result.stderr.splitlines()[-2:] == [
        f"wrote {tmp_path / 'one'}",
        f"id {load(tmp_path / 'one').id}",
    ]
    said = answer("export", checkpoint_folder, "--out", tmp_path / "two")
    model_id = load(tmp_path / "two").id
    assert said == {"path": str(tmp_path / "two"), "model_id": model_id, "skipped": []}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library's `export` was asked for by the verb, which then fails."""
    found: dict[str, Any] = {}

    def export(*arguments: object, **named: object) -> None:
        found.update(named, arguments=arguments)
        raise LimitExceeded("too large")

    monkeypatch.setattr("hrm_export.export", export)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {}),
        (("--precision", "fp16"), {"precision": "fp16"}),
        (
            ("--precision", "int8", "--calibration", "a", "--calibration", "b.csv"),
            {"precision": "int8", "calibration": [Path("a"), Path("b.csv")]},
        ),
        (("--golden", "c.csv", "--golden", "d"), {"golden": [Path("c.csv"), Path("d")]}),
        (("--cycles", "1", "--timesteps", "7"), {"cycles": 1, "timesteps": 7}),
        (("--max-megabytes", "12.5"), {"max_megabytes": 12.5}),
    ],
)
def test_options_of_export_reach_the_library(
    options: tuple[str, ...], expected: dict[str, Any], asked: dict[str, Any]
) -> None:
    result = hrm("export", "checkpoint", "--out", "artifact", *options)
    assert result.exit_code == GATE_FAILED
    assert result.stderr.splitlines()[-1] == "hrm: too large"
    defaults = {
        "arguments": (Path("checkpoint"), Path("artifact")),
        "precision": "fp32",
        "calibration": (),
        "golden": (),
        "cycles": None,
        "timesteps": None,
        "max_megabytes": MOST_MEGABYTES,
    }
    assert asked == defaults | expected
    assert type(asked["precision"]) is str


@pytest.mark.usefixtures("quick_export")
def test_export_calibrates_integers_on_bars(
    checkpoint_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    said = answer(
        "export", checkpoint_folder, "--out", tmp_path / "artifact", "--precision", "int8",
        "--calibration", bars_folder / "Alpha_5.csv", "--golden", bars_folder, "--cycles", 1,
    )  # fmt: skip
    model = load(tmp_path / "artifact")
    assert said["model_id"] == model.id
    graph = model.contract.graph
    assert (graph.precision, graph.cycles, graph.timesteps) == ("int8", 1, 2)
    assert len(graph.input_scales) == 10


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--precision", "int8"), BAD_INPUT, "int8: expected a checkpoint trained with quantisers"),
        (("--calibration", "bars"), BAD_INPUT, "calibration: expected for int8 of a checkpoint"),
        (
            ("--precision", "int8", "--calibration", "absent.csv"),
            BAD_INPUT,
            "absent.csv: expected a bars file or a folder of them, found nothing there",
        ),
        (("--cycles", "0"), BAD_INPUT, "cycles and timesteps: expected 1 or more of each and at"),
        (("--cycles", "1000"), BAD_INPUT, "at most 1000 steps in all, found 1000 x 2"),
        (("--precision", "fp8"), BAD_INPUT, "Invalid value for '--precision'"),
        (("--cycles", "many"), BAD_INPUT, "Invalid value for '--cycles'"),
        (("--max-megabytes", "0.01"), GATE_FAILED, "expected at most 0.01; export it as fp16"),
    ],
)
def test_an_export_that_is_refused_exits_with_its_code_and_leaves_nothing(
    options: tuple[str, ...], code: int, message: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "artifact", *options)
    assert result.exit_code == code
    assert message in unframed(result.stderr)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_export")
def test_an_export_that_fails_its_gate_exits_with_1(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FLOAT_TOLERANCES, "value", 1e-12)
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "artifact")
    assert result.exit_code == GATE_FAILED
    assert "Outputs beyond tolerance: value" in result.stderr
    assert list(tmp_path.iterdir()) == []
