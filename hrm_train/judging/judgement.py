"""The judgement of one checkpoint on given samples: the network beside what it has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hrm_runtime.market.bars import Floats, Integers
from hrm_runtime.market.stamps import moment
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import known_samples
from hrm_train.errors import CheckpointInvalid
from hrm_train.judging.baselines import baselines
from hrm_train.judging.calibration import Calibration, calibration
from hrm_train.judging.metrics import MAJORITY, Hindsight, Metrics, Predictions, joined, metrics
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.learning.run import Tensors
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.serving import served

NETWORK: Final = "network"

BATCH: Final = 256


@dataclass(frozen=True, eq=False)
class Candidate:
    """A checkpoint to be judged; `number` is that of its fold, None where it is no fold."""

    number: int | None
    folder: Path
    checkpoint: Checkpoint


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How predictors fare on the same samples.

    Attributes:
        samples: how many.
        first, last: the stamps of the earliest and the latest.
        blocks: of time, twice as long as the longest label, that hold any: what the intervals rest
            on.
        predictors: by name, the network first, then what it has to beat.
        calibration: of the network's halting head.
    """

    samples: int
    first: int
    last: int
    blocks: int
    predictors: dict[str, Metrics]
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class FoldJudgement:
    """A checkpoint judged.

    Attributes:
        number: of the fold, from 1; None of a checkpoint that is no fold.
        sha256: of the checkpoint.
        judged_from, judged_until: epoch seconds, as its description has them.
        chosen_on_judged: whether its epoch was chosen on the training data from `judged_from` on:
            the same data then flatter it.
        baseline_samples: that the baselines were fitted on, their labels known before
            `judged_from`.
        no_baselines: why there are none; None where there are.
    """

    number: int | None
    sha256: str
    judged_from: int
    judged_until: int | None
    chosen_on_judged: bool
    baseline_samples: int
    no_baselines: str | None
    judgement: Judgement


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered for m samples.

    Attributes:
        samples: int64 [m], their indices.
        predictions: by predictor.
        q_halt: float64 [m], of the network, at the segment where each halted.
        segments: int64 [m], how many it took.
    """

    samples: Integers
    predictions: dict[str, Predictions]
    q_halt: Floats
    segments: Integers


def judge(
    candidate: Candidate,
    prepared: Prepared,
    samples: Integers,
    on_batch: Callable[[int], None],
    device: str = "cpu",
) -> tuple[FoldJudgement, Answers]:
    """One checkpoint on the given samples, and all answers to them.

    Raises:
        CheckpointInvalid: an answer is not finite.
    """
    source = candidate.checkpoint
    description, training = source.description, source.settings.training
    since = description.judged_from
    answers = network_answers(source.model.to(device), prepared, samples, on_batch)
    if not all(np.isfinite(found).all() for found in vars(answers.predictions[NETWORK]).values()):
        raise CheckpointInvalid(
            f"{candidate.folder}: expected answers that are finite; train again"
        )
    known = known_samples(prepared, since)
    if len(known):
        learned = baselines(prepared, known, samples, training.seed)
        answers = replace(answers, predictions=answers.predictions | learned)
    fold = FoldJudgement(
        number=candidate.number,
        sha256=source.sha256,
        judged_from=since,
        judged_until=description.judged_until,
        chosen_on_judged=since == description.boundary,
        baseline_samples=len(known),
        no_baselines=None
        if len(known)
        else f"the data has no sample whose label is known before {moment(since)}",
        judgement=judgement(prepared, answers, training.max_segments),
    )
    return fold, answers


def network_answers(
    model: HierarchicalReasoningModel,
    prepared: Prepared,
    samples: Integers,
    on_batch: Callable[[int], None],
) -> Answers:
    """What the network would answer if served; `on_batch` is told how many samples more."""
    tensors = Tensors(prepared, model.settings.network.input.window, model.device)
    parts = []
    for chosen in torch.from_numpy(samples).to(model.device).split(BATCH):
        outputs, segments_B = served(model, *tensors.inputs(chosen))
        parts.append(
            (
                outputs["action_type"].argmax(dim=-1),
                outputs["quantity"].double(),
                outputs["value"].double(),
                outputs["q_values"][:, 0].double(),
                segments_B,
            )
        )
        on_batch(len(chosen))
    action, quantity, value, q_halt, segments = (
        torch.cat(arrays).cpu().numpy() for arrays in zip(*parts, strict=True)
    )
    return Answers(samples, {NETWORK: Predictions(action, quantity, value)}, q_halt, segments)


def judgement(prepared: Prepared, answers: Answers, max_segments: int) -> Judgement:
    """How all that was answered compares with hindsight."""
    truth = Hindsight.of(prepared, answers.samples)
    stamps = prepared.sample_stamp[answers.samples]
    majority = answers.predictions.get(MAJORITY)
    return Judgement(
        samples=len(truth),
        first=int(stamps.min()),
        last=int(stamps.max()),
        blocks=truth.blocks,
        predictors={
            name: metrics(truth, found, None if name == MAJORITY else majority)
            for name, found in answers.predictions.items()
        },
        calibration=calibration(
            answers.q_halt,
            truth.regret(answers.predictions[NETWORK].action) == 0,
            answers.segments,
            max_segments,
        ),
    )


def pooled_answers(parts: Sequence[Answers]) -> Answers:
    """All answers together, of the predictors that answered every part."""
    names = [
        name for name in parts[0].predictions if all(name in part.predictions for part in parts)
    ]
    return Answers(
        samples=np.concatenate([part.samples for part in parts]),
        predictions={name: joined([part.predictions[name] for part in parts]) for name in names},
        q_halt=np.concatenate([part.q_halt for part in parts]),
        segments=np.concatenate([part.segments for part in parts]),
    )
