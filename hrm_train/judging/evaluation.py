"""Judgement of a trained checkpoint, or of the folds of a walk forward, on what was kept aside."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm_runtime.market.bars import Integers
from hrm_runtime.market.series import SkippedSeries, listed
from hrm_runtime.market.stamps import moment
from hrm_train.data.preparation import load_or_prepare
from hrm_train.data.prepared import Prepared, skipped_of
from hrm_train.data.split import judged_samples
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.differences import differences
from hrm_train.errors import CheckpointInvalid, DataInvalid
from hrm_train.judging.judgement import (
    Candidate,
    FoldJudgement,
    Judgement,
    judge,
    judgement,
    pooled_answers,
)
from hrm_train.learning.checkpoint import fold_name, folds_in, load_checkpoint
from hrm_train.learning.devices import Device, computing_with, kind_of
from hrm_train.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every checkpoint judged on its own samples, and all of their answers taken together.

    The pooled judgement has the baselines that every fold has. `skipped` are the series that judged
    nothing.
    """

    folds: tuple[FoldJudgement, ...]
    pooled: Judgement
    skipped: tuple[SkippedSeries, ...]


def evaluate(
    checkpoint: str | Path,
    data: str | Path | Iterable[str | Path],
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
    device: Device = "auto",
) -> Evaluation:
    """Judge what serving would answer against hindsight, beside simple baselines.

    The baselines learn from those samples of `data` whose label is known before the moment from
    which a checkpoint is judged: also from those that the network was only validated on.

    Args:
        checkpoint: a checkpoint folder, or a folder of `fold-1` to `fold-K`.
        data: bars files, folders of them, or one prepared tensor file.
        on_progress: called with the samples that the network answered, and those it has to.
        device: where the network answers; `auto` takes a GPU where there is one.

    Raises:
        CheckpointInvalid: it cannot be read, its answers are not finite, or the folds are
            incomplete or of several trainings.
        DataInvalid: nothing to judge a checkpoint on, or prepared tensors of names that it does
            not know.
        BadBars: as `hrm_train.prepare`.
        DeviceMissing: a GPU was asked for and there is none.
    """
    where = kind_of(device)  # before any work
    found = candidates(checkpoint)
    first = found[0].checkpoint
    prepared = load_known(first.settings, data, first.description.vocabulary)
    asked = [samples_to_judge(one, prepared) for one in found]
    total, done = sum(map(len, asked)), 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    judged, answered = [], []
    with computing_with(first.settings.threads):
        for one, samples in zip(found, asked, strict=True):
            fold, answers = judge(one, prepared, samples, on_batch, where)
            judged.append(fold)
            answered.append(answers)
    most = first.settings.training.max_segments
    pooled = judgement(prepared, pooled_answers(answered), most)
    since = min(fold.judged_from for fold in judged)
    return Evaluation(
        folds=tuple(judged),
        pooled=pooled,
        skipped=(
            *skipped_of(prepared.manifest.series),
            *_without_samples(prepared, np.concatenate(asked), since),
        ),
    )


def _without_samples(prepared: Prepared, asked: Integers, since: int) -> tuple[SkippedSeries, ...]:
    """The series that have samples, but none of those that judge."""
    found, start = [], 0  # samples lie in the order of their series
    for one in prepared.manifest.series:
        stop = start + one.samples
        if one.samples and not ((asked >= start) & (asked < stop)).any():
            last = moment(int(prepared.sample_stamp[start:stop].max()))
            reason = f"no sample that judges, from {moment(since)} on; its last is of {last}"
            found.append(SkippedSeries(one.instrument, one.timeframe, reason))
        start = stop
    return tuple(found)


def candidates(folder: str | Path) -> list[Candidate]:
    """The checkpoint in `folder`, or its folds 1 to K.

    Raises:
        CheckpointInvalid: one cannot be read, a fold is missing, or of another training.
    """
    folder = Path(folder)
    folds = folds_in(folder)
    if not folds:
        return [Candidate(None, folder, load_checkpoint(folder))]
    last = max(folds)
    if missing := sorted(set(range(1, last)) - set(folds)):
        raise CheckpointInvalid(
            f"{folder}: expected {fold_name(1)} to {fold_name(last)}, found no "
            + ", ".join(map(fold_name, missing))
        )
    found = [Candidate(number, path, load_checkpoint(path)) for number, path in folds.items()]
    first, called = found[0].checkpoint, (str(folds[1]), "this fold")
    for one in found[1:]:
        settings, names = one.checkpoint.settings, one.checkpoint.description.vocabulary
        differing = differences(
            first.settings.model_dump(mode="json"), settings.model_dump(mode="json"), called
        ) or first.description.vocabulary.differences(names, called)
        if differing:
            raise CheckpointInvalid(
                f"{one.folder}: expected a fold of the same training as {folds[1]}; they differ in "
                f"{differing}"
            )
    spans = [one.checkpoint.description for one in found]
    ends = [one.judged_until for one in spans]
    if ends != [*(one.judged_from for one in spans[1:]), None]:
        raise CheckpointInvalid(
            f"{folder}: expected folds of one walk, each judged until the next one begins; found "
            f"{len(found)} that do not follow on each other: train them to the end, with --resume"
        )
    return found


def load_known(
    settings: Settings, data: str | Path | Iterable[str | Path], vocabulary: Vocabulary
) -> Prepared:
    """Samples under the ids of `vocabulary`; in bars, other names are unknown instruments.

    Raises:
        DataInvalid: prepared tensors of names that `vocabulary` lacks or has other facts of, or as
            `load_or_prepare`.
        BadBars: as `prepare`.
    """
    paths = listed(data)
    prepared = load_or_prepare(settings, paths, vocabulary)
    own = prepared.manifest.vocabulary
    if own == vocabulary:
        return prepared
    unknown = sorted(
        (own.instruments.keys() - vocabulary.instruments.keys())
        | {
            name
            for name in own.timeframes
            if vocabulary.own_timeframe(name) not in vocabulary.timeframes
        }
    )
    if unknown:
        raise DataInvalid(
            f"{paths[0]}: expected tensors of instruments and timeframes that the checkpoint "
            f"knows, found also {', '.join(unknown)}; give the bars themselves"
        )
    return prepared.renumbered(vocabulary)


def samples_to_judge(candidate: Candidate, prepared: Prepared) -> Integers:
    """The samples that are to judge a checkpoint.

    Raises:
        DataInvalid: there are none.
    """
    description = candidate.checkpoint.description
    since, until = description.judged_from, description.judged_until
    horizon = candidate.checkpoint.settings.training.label_horizon
    samples = judged_samples(prepared, since, until, horizon)
    if not len(samples):
        before = "" if until is None else f" and before {moment(until)}"
        last = int(prepared.sample_stamp.max())
        raise DataInvalid(
            f"{candidate.folder}: expected samples to judge it on, {horizon} bars or more after "
            f"{moment(since)}{before}; the last sample of the data is of {moment(last)}: give "
            "other bars"
        )
    return samples
