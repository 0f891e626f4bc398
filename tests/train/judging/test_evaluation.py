"""Judgement of checkpoints: on the right samples, against the right baselines, fold by fold."""

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from few_trees import few_trees
from synthetic import random_bars

from hrm_runtime.market.csv_files import read_csv, write_csv
from hrm_runtime.market.stamps import moment
from hrm_train import load_checkpoint, train
from hrm_train.data.preparation import prepare, prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import chronological_split, walk_forward
from hrm_train.errors import CheckpointInvalid, DataInvalid, DeviceMissing
from hrm_train.judging.baselines import baselines
from hrm_train.judging.evaluation import Evaluation, evaluate, load_known, samples_to_judge
from hrm_train.judging.judgement import (
    NETWORK,
    Answers,
    Candidate,
    judge,
    judgement,
    network_answers,
    pooled_answers,
)
from hrm_train.judging.metrics import Hindsight, metrics
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.learning.run import Tensors
from hrm_train.learning.trainer import train_folds
from hrm_train.network.serving import served
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]

HORIZON = 6
PREDICTORS = ["network", "majority", "logistic", "trees"]


@pytest.fixture(scope="module", autouse=True)
def _few_trees() -> Iterator[None]:
    """They are grown in every evaluation, and what a hundred learn is said in test_baselines."""
    with few_trees():
        yield


@pytest.fixture(scope="module")
def source(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture(scope="module")
def judged(trained: Path, bars_folder: Path) -> Evaluation:
    """A plain training, judged on its own data."""
    return evaluate(trained, bars_folder)


@pytest.fixture(scope="module")
def folds_folder(
    make_settings: MakeSettings, bars_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "trained"
    settings = make_settings({"training.validation_fraction": 0.5})
    train_folds(settings, bars_folder, folder, folds=2)
    return folder


@pytest.fixture(scope="module")
def progress() -> list[tuple[int, int]]:
    """What was told while the folds were judged."""
    return []


@pytest.fixture(scope="module")
def judged_folds(
    folds_folder: Path, bars_folder: Path, progress: list[tuple[int, int]]
) -> Evaluation:
    return evaluate(folds_folder, bars_folder, lambda done, of: progress.append((done, of)))


def unheard(_count: int) -> None:
    """Progress that nobody follows."""


# a plain training


def test_a_training_is_judged_on_its_validation_samples_as_it_was_validated(
    judged: Evaluation, source: Checkpoint, prepared: Prepared
) -> None:
    (fold,) = judged.folds
    description = source.description
    found = fold.judgement.predictors[NETWORK]
    best = description.epochs[description.best_epoch - 1]
    assert fold.judgement.samples == description.validation_samples
    assert found.accuracy.value == pytest.approx(best.accuracy)
    assert found.regret.value == pytest.approx(best.regret, rel=1e-5)
    assert fold.judgement.calibration.mean_segments == pytest.approx(best.segments)
    assert fold.judgement.calibration.correct == pytest.approx(best.accuracy)
    validation = chronological_split(prepared, 0.4, HORIZON).validation
    stamps = prepared.sample_stamp[validation]
    assert (fold.judgement.first, fold.judgement.last) == (stamps.min(), stamps.max())


def test_it_is_said_that_the_epoch_was_chosen_on_what_judges(
    judged: Evaluation, source: Checkpoint
) -> None:
    (fold,) = judged.folds
    assert fold.chosen_on_judged
    assert (fold.number, fold.sha256) == (None, source.sha256)
    assert (fold.judged_from, fold.judged_until) == (source.description.boundary, None)
    assert judged.pooled == fold.judgement


def test_baselines_learn_from_what_was_known_and_are_judged_on_the_same_samples(
    judged: Evaluation, prepared: Prepared
) -> None:
    (fold,) = judged.folds
    split = chronological_split(prepared, 0.4, HORIZON)
    assert (fold.baseline_samples, fold.no_baselines) == (len(split.train), None)
    assert list(fold.judgement.predictors) == PREDICTORS
    answers = baselines(prepared, split.train, split.validation)
    truth = Hindsight.of(prepared, split.validation)
    for name, found in answers.items():
        majority = None if name == "majority" else answers["majority"]
        assert fold.judgement.predictors[name] == metrics(truth, found, majority)
    assert fold.judgement.predictors[NETWORK].over_majority is not None
    assert fold.judgement.blocks == truth.blocks


def test_the_networks_answers_are_those_it_would_be_served_with(
    source: Checkpoint, prepared: Prepared
) -> None:
    samples = np.arange(300)[::-1].copy()  # more than one batch
    counts: list[int] = []
    found = network_answers(source.model, prepared, samples, counts.append)
    assert counts == [256, 44]
    tensors = Tensors(prepared, source.settings.network.input.window)
    outputs, segments = served(source.model, *tensors.inputs(torch.from_numpy(samples)))
    assert found.samples is samples
    assert found.segments.tolist() == segments.tolist()
    assert found.q_halt == pytest.approx(outputs["q_values"][:, 0].numpy(), rel=1e-5)
    predictions = found.predictions[NETWORK]
    assert predictions.action.tolist() == outputs["action_type"].argmax(dim=1).tolist()
    assert predictions.quantity == pytest.approx(outputs["quantity"].numpy(), rel=1e-5)
    assert predictions.value == pytest.approx(outputs["value"].numpy(), rel=1e-5, abs=1e-6)
    assert predictions.value.dtype == np.float64


# a walk forward


def test_each_fold_is_judged_from_its_start_to_the_next(
    judged_folds: Evaluation, folds_folder: Path, prepared: Prepared
) -> None:
    bar = prepared.row_bar[prepared.sample_row]
    earliest, stamp = prepared.bar_stamp[bar - HORIZON], prepared.sample_stamp
    expected = walk_forward(prepared, 2, 0.5, HORIZON)
    for found, fold in zip(judged_folds.folds, expected, strict=True):
        checkpoint = load_checkpoint(folds_folder / f"fold-{fold.number}")
        assert (found.number, found.sha256) == (fold.number, checkpoint.sha256)
        assert (found.judged_from, found.judged_until) == (fold.start, fold.end)
        assert not found.chosen_on_judged
        assert found.baseline_samples == (prepared.sample_end < fold.start).sum()
        own = (earliest >= fold.start) & (stamp < (fold.end or np.inf))
        assert found.judgement.samples == own.sum()
        assert found.judgement.first == stamp[own].min()
        assert found.judgement.last == stamp[own].max()
        assert list(found.judgement.predictors) == PREDICTORS


def test_the_pooled_judgement_is_over_the_samples_of_all_folds(judged_folds: Evaluation) -> None:
    first, second = (fold.judgement for fold in judged_folds.folds)
    pooled = judged_folds.pooled
    counts = [first.samples, second.samples]
    assert pooled.samples == sum(counts)
    assert (pooled.first, pooled.last) == (first.first, second.last)
    assert list(pooled.predictors) == PREDICTORS
    for name in PREDICTORS:
        parts = [one.predictors[name] for one in (first, second)]
        for metric in ("accuracy", "regret"):
            values = [getattr(part, metric).value for part in parts]
            found = getattr(pooled.predictors[name], metric).value
            assert found == pytest.approx(np.average(values, weights=counts))
        errors = [part.quantity_error for part in parts]
        assert pooled.predictors[name].quantity_error == pytest.approx(
            np.average(errors, weights=counts)
        )
    assert pooled.calibration.brier == pytest.approx(
        np.average([first.calibration.brier, second.calibration.brier], weights=counts)
    )


def test_progress_is_told_over_all_folds(
    judged_folds: Evaluation, progress: list[tuple[int, int]]
) -> None:
    first, second = (fold.judgement.samples for fold in judged_folds.folds)
    assert progress == [(first, first + second), (first + second, first + second)]


def test_a_fold_alone_is_judged_as_among_the_others(
    judged_folds: Evaluation, folds_folder: Path, bars_folder: Path
) -> None:
    found = evaluate(folds_folder / "fold-1", [bars_folder])
    (fold,) = found.folds
    assert replace(fold, number=1) == judged_folds.folds[0]


def test_an_evaluation_is_clean_json(judged_folds: Evaluation) -> None:
    document = json.loads(json.dumps(asdict(judged_folds), allow_nan=False))
    network = document["folds"][1]["judgement"]["predictors"]["network"]
    assert network["accuracy"].keys() == {"value", "low", "high"}
    assert {"weighted_accuracy", "weighted_macro_f1", "weighted_regret"} < network.keys()
    assert document["pooled"]["calibration"]["bins"][0].keys() == {
        "low", "high", "samples", "mean_q", "correct"
    }  # fmt: skip


def test_folds_without_one_between_are_incomplete(
    folds_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folds_folder / "fold-2", tmp_path / "fold-2")
    shutil.copytree(folds_folder / "fold-2", tmp_path / "fold-4")
    (tmp_path / "fold-old").mkdir()
    with pytest.raises(
        CheckpointInvalid, match="expected fold-1 to fold-4, found no fold-1, fold-3"
    ):
        evaluate(tmp_path, bars_folder)


def test_folds_of_several_trainings_are_refused(
    folds_folder: Path, trained: Path, bars_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folds_folder / "fold-1", tmp_path / "fold-1")
    shutil.copytree(trained, tmp_path / "fold-2")
    with pytest.raises(
        CheckpointInvalid, match=r"fold-2: expected a fold of the same training as .*1; they"
    ):
        evaluate(tmp_path, bars_folder)


def test_a_gpu_that_is_not_there_is_missed_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceMissing, match="device: expected 1 CUDA device, found 0"):
        evaluate(tmp_path / "absent", tmp_path / "absent", device="cuda")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, bars_folder: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="nowhere: expected a checkpoint folder"):
        evaluate(tmp_path / "nowhere", bars_folder)
    with pytest.raises(CheckpointInvalid, match="expected a checkpoint folder"):
        evaluate(tmp_path, bars_folder)


# data


def test_prepared_tensors_are_judged_as_the_bars_they_are_made_of(
    judged: Evaluation, trained: Path, prepared: Prepared, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "bars.safetensors")
    assert evaluate(trained, tmp_path / "bars.safetensors") == judged


def test_tensors_of_some_instruments_come_under_the_ids_of_the_checkpoint(
    source: Checkpoint, settings: Settings, bars_folder: Path, tmp_path: Path
) -> None:
    vocabulary = source.description.vocabulary
    one = prepare(settings, [bars_folder / "Reliance_5.csv"], known=vocabulary)
    one.save(tmp_path / "one.safetensors")
    found = load_known(settings, tmp_path / "one.safetensors", vocabulary)
    assert found.manifest.vocabulary == vocabulary
    assert set(found.sample_instrument.tolist()) == {vocabulary.instruments["Reliance"].id} == {2}
    assert set(found.sample_timeframe.tolist()) == {vocabulary.timeframes["5"].id} == {2}


def test_tensors_of_other_names_are_refused(
    trained: Path, source: Checkpoint, settings: Settings, bars_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(bars_folder / "Reliance_5.csv", tmp_path / "Other_5.csv")
    other = prepare(settings, [tmp_path / "Other_5.csv"], known=source.description.vocabulary)
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(
        DataInvalid, match=r"other\.safetensors: expected tensors of .*found also Other; give"
    ):
        evaluate(trained, tmp_path / "other.safetensors")


OPEN = {"network.embeddings.allow_unknown_instruments": True}


def test_bars_of_other_names_are_judged_as_unknown_instruments_where_that_is_allowed(
    source: Checkpoint, make_settings: MakeSettings, bars_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(bars_folder / "Reliance_5.csv", tmp_path / "Other_5.csv")
    with pytest.raises(DataInvalid, match="Other_5: instrument: expected one of Nifty, Reliance;"):
        load_known(source.settings, tmp_path, source.description.vocabulary)
    found = load_known(make_settings(OPEN), tmp_path, source.description.vocabulary)
    assert set(found.sample_instrument.tolist()) == {0}
    assert set(found.sample_timeframe.tolist()) == {2}


def test_without_samples_to_judge_on_the_message_says_when_they_would_have_to_be(
    trained: Path, bars_folder: Path, tmp_path: Path
) -> None:
    bars = read_csv(bars_folder / "Nifty_5.csv")
    write_csv(bars[:240], tmp_path / "Nifty_5.csv")
    with pytest.raises(
        DataInvalid,
        match="checkpoint: expected samples to judge it on, 6 bars or more after 2023-11-2.*"
        r":\d\d UTC; the last sample of the data is of 2023-11-2.*: give other bars",
    ):
        evaluate(trained, tmp_path)


def test_and_until_when(source: Checkpoint, prepared: Prepared) -> None:
    since = source.description.judged_from
    nothing = replace(source, description=replace(source.description, judged_until=since))
    with pytest.raises(DataInvalid, match=r"^fold: expected .* UTC and before .* UTC; the last"):
        samples_to_judge(Candidate(None, Path("fold"), nothing), prepared)


def test_series_that_judge_nothing_are_named_and_change_nothing(
    judged: Evaluation, trained: Path, source: Checkpoint, bars_folder: Path, tmp_path: Path
) -> None:
    write_csv(random_bars(300, seconds=1800), tmp_path / "Nifty_30.csv")
    shutil.copy(bars_folder / "Reliance_5.csv", tmp_path / "Other_5.csv")
    assert judged.skipped == ()
    found = evaluate(trained, [bars_folder, tmp_path])
    assert replace(found, skipped=()) == judged
    assert [str(one).partition(", ")[0] for one in found.skipped] == [
        "Nifty_30: timeframe: expected one of 15",
        "Other_5: instrument: expected one of Nifty",
    ]
    early = tmp_path / "early"
    early.mkdir()
    shutil.copy(bars_folder / "Reliance_5.csv", early)
    write_csv(read_csv(bars_folder / "Nifty_5.csv")[:240], early / "Nifty_5.csv")
    found = evaluate(trained, early)
    (one,) = found.skipped
    assert (one.instrument, one.timeframe) == ("Nifty", "5")
    since = moment(source.description.judged_from)
    assert one.reason.startswith(f"no sample that judges, from {since} on; its last is of 2023-11-")
    assert (
        found.folds[0].baseline_samples
        > evaluate(trained, early / "Reliance_5.csv").folds[0].baseline_samples
    )


# what has no answer


def test_without_samples_known_before_there_are_no_baselines_and_it_is_said_why(
    source: Checkpoint, prepared: Prepared
) -> None:
    start = int(prepared.sample_stamp.min())
    early = replace(source, description=replace(source.description, judged_from=start))
    first, second = Candidate(1, Path("fold-1"), early), Candidate(2, Path("fold-2"), source)
    fold, answers = judge(first, prepared, samples_to_judge(first, prepared), unheard)
    assert list(fold.judgement.predictors) == [NETWORK]
    assert fold.judgement.predictors[NETWORK].over_majority is None
    assert fold.baseline_samples == 0
    assert fold.no_baselines is not None
    assert re.fullmatch(
        r"the data has no sample whose label is known before 2023-11-\d\d \d\d:\d\d UTC",
        fold.no_baselines,
    )
    assert not fold.chosen_on_judged
    # and what not every fold has is not pooled
    _, others = judge(second, prepared, samples_to_judge(second, prepared), unheard)
    together = pooled_answers([others, answers])
    assert list(others.predictions) == PREDICTORS
    assert list(together.predictions) == [NETWORK]
    assert len(together.samples) == len(others.samples) + len(answers.samples)


def test_answers_that_are_no_numbers_are_refused(source: Checkpoint, prepared: Prepared) -> None:
    model = copy.deepcopy(source.model)
    with torch.no_grad():
        model.value_head.value.bias.fill_(torch.inf)
    broken = Candidate(None, Path("here"), replace(source, model=model))
    with pytest.raises(CheckpointInvalid, match=r"^here: expected answers that are finite"):
        judge(broken, prepared, np.arange(3), unheard)


def test_a_network_that_knew_would_beat_the_majority_for_sure(
    source: Checkpoint, settings: Settings
) -> None:
    prepared = prepare_series(settings, {("Nifty", "5"): random_bars(500)})
    samples = np.arange(len(prepared))
    truth = Hindsight.of(prepared, samples)
    guess = network_answers(source.model, prepared, samples, unheard)
    best = np.nanargmax(truth.returns, axis=1)
    knowing = replace(guess.predictions[NETWORK], action=best, value=truth.best)
    majority = baselines(prepared, samples, samples)["majority"]
    answers = Answers(
        samples, {NETWORK: knowing, "majority": majority}, np.ones(len(samples)), guess.segments
    )
    found = judgement(prepared, answers, 2)
    network = found.predictors[NETWORK]
    assert (network.accuracy.value, network.regret.value, network.value_r2) == (1.0, 0.0, 1.0)
    assert found.calibration.error == found.calibration.brier == 0.0
    assert network.over_majority is not None
    assert network.over_majority.low is not None
    assert network.over_majority.low > 0.2
    assert found.predictors["majority"].over_majority is None


def test_training_on_other_data_than_it_is_judged_on(
    make_settings: MakeSettings, bars_folder: Path, tmp_path: Path
) -> None:
    """A checkpoint that never saw Reliance knows it as unknown, and is still judged on it."""
    for name in ("Nifty_5.csv", "Nifty_15.csv"):
        shutil.copy(bars_folder / name, tmp_path)
    train(make_settings(OPEN), tmp_path, tmp_path / "checkpoint")
    found = evaluate(tmp_path / "checkpoint", bars_folder / "Reliance_5.csv")
    assert found.pooled.samples > 100
    assert set(found.pooled.predictors) == set(PREDICTORS)


def test_a_walk_that_was_stopped_is_not_judged_as_if_it_were_whole(
    folds_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folds_folder / "fold-1", tmp_path / "fold-1")
    with pytest.raises(CheckpointInvalid, match="found 1 that do not follow on each other"):
        evaluate(tmp_path, [bars_folder])
