"""Series that nothing can be done with stop no verb."""

import pkgutil
import shutil
from pathlib import Path

import pytest
from command import DONE, answer, asked_once, hrm
from synthetic import random_bars

from hrm_runtime.market.csv_files import write_csv
from hrm_train.judging import baselines


@pytest.fixture
def mixed_folder(few_bars: Path, tmp_path: Path) -> Path:
    """`few_bars`, and beside it series that nothing can be done with."""
    folder = Path(shutil.copytree(few_bars, tmp_path / "mixed"))
    write_csv(random_bars(50), folder / "Short_5.csv")
    write_csv(random_bars(300), folder / "Alpha_weekly.csv")
    return folder


LIBRARY = {
    "prepare": "hrm_train.prepare",
    "train": "hrm_train.train",
    "evaluate": "hrm_train.judging.evaluation.evaluate",
    "parity": "hrm_export.check_parity",
    "export": "hrm_export.export",
}
"""What each verb calls: once here, to be told in both ways."""


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("verb", LIBRARY)
def test_every_verb_goes_on_without_the_series_it_can_do_nothing_with_and_names_them_last(
    verb: str,
    mixed_folder: Path,
    settings: Path,
    checkpoint_folder: Path,
    artifact_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(baselines.BASELINES, "trees")  # they take longer than all the rest
    monkeypatch.setattr(LIBRARY[verb], asked_once(pkgutil.resolve_name(LIBRARY[verb])))
    data = ("--data", mixed_folder)
    given: dict[str, tuple[object, ...]] = {
        "prepare": (settings, *data, "--out", tmp_path / "{}.safetensors"),
        "train": (settings, *data, "--out", tmp_path / "{}"),
        "evaluate": (checkpoint_folder, *data),
        "parity": (artifact_folder, "--checkpoint", checkpoint_folder, *data, "--windows", 64),
        "export": (
            *(checkpoint_folder, "--out", tmp_path / "{}", "--precision", "int8"),
            *("--golden", mixed_folder, "--calibration", mixed_folder),
        ),
    }
    said = answer(verb, *(str(one).format("json") for one in given[verb]))
    assert {(one["instrument"], one["timeframe"]) for one in said["skipped"]} == {
        ("Alpha", "weekly"),
        ("Short", "5"),
    }
    assert all(one.keys() == {"instrument", "timeframe", "reason"} for one in said["skipped"])
    result = hrm(verb, *(str(one).format("table") for one in given[verb]))
    assert result.exit_code == DONE, result.output
    assert result.stdout.splitlines()[-2:] == [
        f"skipped {one['instrument']}_{one['timeframe']}: {one['reason']}"
        for one in said["skipped"]
    ]
    reasons = {one["instrument"]: one["reason"] for one in said["skipped"]}
    assert reasons["Alpha"].startswith("timeframe")
    known = verb in {"prepare", "train"}
    assert reasons["Short"] == "50 bars, 212 needed" if known else "'Short'" in reasons["Short"]
