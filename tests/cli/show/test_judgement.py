"""A judgement is shown as tables, with what they do not say."""

import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from hrm_cli.show import console, judgement
from hrm_cli.show.progress import advancing
from hrm_train.judging.calibration import Calibration
from hrm_train.judging.evaluation import Evaluation
from hrm_train.judging.judgement import FoldJudgement, Judgement
from hrm_train.judging.metrics import Estimate, Metrics

NO_INTERVAL = Estimate(0.5, None, None)


def predictor(**changes: Any) -> Metrics:
    known = Metrics(
        accuracy=Estimate(0.51234, 0.5, 0.525),
        accuracy_by_side={"flat": 0.5},
        over_majority=Estimate(0.0123, 0.0045, 0.0201),
        macro_f1=0.4567,
        regret=Estimate(1.2345, 1.1, 1.4),
        weighted_accuracy=0.6,
        weighted_macro_f1=0.4,
        weighted_regret=1.0,
        quantity_error=0.789,
        value_r2=-0.0123,
    )
    return replace(known, **changes)


def judged(**predictors: Metrics) -> Judgement:
    return Judgement(
        samples=12_345,
        first=1_700_000_000,
        last=1_710_000_000,
        blocks=61,
        predictors=predictors,
        calibration=Calibration(
            error=0.0321,
            brier=0.2345,
            mean_q=0.4321,
            correct=0.51234,
            bins=(),
            mean_segments=1.25,
            segments=(0.75, 0.25),
        ),
    )


MAJORITY = predictor(over_majority=None)
BOTH = judged(network=predictor(), majority=MAJORITY)


def fold(found: Judgement = BOTH, **changes: Any) -> FoldJudgement:
    known = FoldJudgement(
        number=None,
        sha256="0" * 64,
        judged_from=1_690_000_000,
        judged_until=None,
        chosen_on_judged=False,
        baseline_samples=1000,
        no_baselines=None,
        judgement=found,
    )
    return replace(known, **changes)


def shown(capsys: pytest.CaptureFixture[str], *folds: FoldJudgement) -> str:
    judgement.evaluation(Evaluation(folds=folds, pooled=BOTH, skipped=()))
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "out", Console(width=80))


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table's line that begins with `first`, and of the line below."""
    lines = [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line] for line in lines]
    at = next(number for number, line in enumerate(cells) if line[0] == first)
    return cells[at : at + 2]


def test_a_row_has_every_number_and_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, fold())
    value, interval = rows(text, "network")
    assert value == ["network", "51.2%", "60.0%", "0.457", "1.234", "0.789", "-0.012"]
    assert interval == ["", "[50.0, 52.5]", "", "", "[1.100, 1.400]", "", ""]
    assert "Checkpoint: 12,345 samples from 2023-11-14 to 2024-03-09 UTC, 61" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "the majority's is what it has to beat" in " ".join(text.split())


def test_a_narrow_terminal_shows_every_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "out", Console(width=60))
    text = shown(capsys, fold())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert rows(text, "network")[0] == [
        "network", "51.2%", "60.0%", "0.457", "1.234", "0.789", "-0.012",
    ]  # fmt: skip
    columns = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")][:3]
    words = [" ".join(map(str.strip, column)) for column in zip(*columns, strict=True)]
    assert (words[1], words[4]) == ("51.2% [50.0, 52.5]", "1.234 [1.100, 1.400]")
    names = [line.split("│")[1] for line in text.splitlines() if line.startswith("│")]
    assert "majority" in names
    for word in ("accuracy", "stake", "macro", "regret,", "quantity", "error", "value", "R2"):
        assert re.search(rf"[┃ ]{word}[┃ ]", text)


def test_the_calibration_of_the_halting_head_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        "q_halt: 0.432 on average where 51.2% are correct, calibration error 0.032, Brier score "
        "0.234; 1.25 segments per decision (1: 75%, 2: 25%)"
    ) in " ".join(shown(capsys, fold()).split())


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Estimate(0.012, 0.004, 0.02), "+1.2 points [+0.4, +2.0], better"),
        (Estimate(-0.012, -0.02, -0.004), "-1.2 points [-2.0, -0.4], worse"),
        (Estimate(0.012, -0.004, 0.02), "+1.2 points [-0.4, +2.0], no evidence of a difference"),
        (Estimate(0.0, 0.0, 0.0), "+0.0 points [+0.0, +0.0], no evidence of a difference"),
        (Estimate(0.012, None, None), "+1.2 points, too few blocks of time to tell"),
    ],
)
def test_a_difference_is_one_only_if_its_interval_leaves_out_zero(
    difference: Estimate, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = predictor(over_majority=difference)
    text = shown(capsys, fold(judged(network=network, majority=MAJORITY)))
    assert f"network over majority: {said}\n" in text
    assert text.count("over majority") == 1


def test_what_is_not_known_is_left_empty(capsys: pytest.CaptureFixture[str]) -> None:
    alone = predictor(
        accuracy=NO_INTERVAL, regret=NO_INTERVAL, over_majority=None, weighted_accuracy=None,
        value_r2=None,
    )  # fmt: skip
    text = shown(capsys, fold(judged(network=alone), no_baselines="the data begins too late"))
    assert rows(text, "network")[0] == ["network", "50.0%", "", "0.457", "0.500", "0.789", ""]
    assert "No baselines: the data begins too late.\n" in text
    assert "over majority" not in text


def test_folds_stand_below_each_other_and_all_of_them_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, fold(number=1), fold(number=2))
    places = [text.index(title) for title in ("Fold 1:", "Fold 2:", "All folds:")]
    assert places == sorted(places)
    assert "Checkpoint" not in text
    assert "All folds" not in shown(capsys, fold(number=1))


@pytest.mark.parametrize("chosen", [True, False])
def test_it_is_said_where_the_epoch_was_chosen_on_what_judges(
    chosen: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(shown(capsys, fold(chosen_on_judged=chosen)).split())
    assert ("The epoch was chosen on the training data of this time" in text) == chosen


@pytest.mark.parametrize(("terminal", "said"), [(True, "3/4"), (False, "judging")])
def test_progress_goes_to_stderr(
    terminal: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=terminal))
    with advancing("judging") as on_progress:
        on_progress(3, 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
