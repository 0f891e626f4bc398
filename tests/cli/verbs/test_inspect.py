"""`hrm inspect` shows what an artifact promises."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command import DONE, Serving, answer, hrm
from ladders import LADDER, rows_of
from rich.console import Console

from hrm_cli.show import console
from hrm_runtime import load, load_contract


def test_inspect_shows_the_contract(artifact_folder: Path) -> None:
    contract = load_contract(artifact_folder)
    result = hrm("inspect", artifact_folder)
    assert result.exit_code == DONE
    moment = datetime.fromtimestamp(contract.provenance.trained_until, UTC)
    for expected in (
        "Alpha, Beta",
        "2 cycles x 2 timesteps, fp32",
        "205",
        f"{moment:%Y-%m-%d %H:%M} UTC",
    ):
        assert expected in result.stdout
    told = answer("inspect", artifact_folder)
    assert load(artifact_folder, sha256=told.pop("model_id")).id == contract.id
    assert told == json.loads(json.dumps(asdict(contract)))


@pytest.mark.parametrize("width", [60, 80])
def test_inspect_shows_the_id_that_load_takes_on_a_line_of_its_own(
    width: int, artifact_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        console, "out", Console(width=width, force_terminal=True, color_system=None)
    )
    shown = hrm("inspect", artifact_folder).stdout
    (told,) = re.findall(r"^id +([0-9a-f]{64})$", shown, re.MULTILINE)
    assert load(artifact_folder, sha256=told).id == told
    checkpoint = load_contract(artifact_folder).provenance.checkpoint_sha256
    assert re.search(rf"^checkpoint +{checkpoint}$", shown, re.MULTILINE)
    assert load_contract(artifact_folder).digest not in shown
    assert "…" not in shown


@pytest.mark.usefixtures("wide")
def test_inspect_shows_the_ladder(artifact_folder: Path) -> None:
    shown = rows_of(hrm("inspect", artifact_folder).stdout)
    below = shown[shown.index(LADDER) + 1 :]
    stages = [row for row in below if len(row) == len(LADDER)]  # others say where ties fell
    assert [(row[0], row[1], row[-1]) for row in stages] == [
        ("composed", "torch eager", "passed"),
        ("artifact", "torch eager", "passed"),
        ("artifact, hard windows", "torch eager", "passed"),
    ]


def test_inspecting_needs_no_training_library(artifact_folder: Path, serving: Serving) -> None:
    inspected = serving("inspect", artifact_folder, "--json")
    assert inspected.returncode == DONE, inspected.stderr
    assert json.loads(inspected.stdout)["model_id"] == load_contract(artifact_folder).id
