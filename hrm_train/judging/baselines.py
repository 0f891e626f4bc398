"""What the network has to beat: the majority, linear models and boosted trees.

They see the newest feature row, the account and the identity (one-hot instrument and timeframe);
not the rows before, for the indicators of the newest summarise them. Each is fitted side by side,
so that none can answer what is illegal.

k samples to learn from, X inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from hrm_runtime.market.actions import Action
from hrm_runtime.market.bars import Floats, Integers
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import statistics
from hrm_train.judging.metrics import MAJORITY, Predictions

CLIP: Final = 10.0
"""Inputs are cut off this many deviations from their mean."""

PENALTY: Final = 25.0
"""Weight of the squared coefficients of a linear model against its loss, summed over samples; some
25 of which share a label's bars, and count as one."""

LEAF_SHARE: Final = 0.01
"""Of the samples, in each leaf of a tree at least: labels of neighbouring bars overlap, so a few
samples are but one event."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Samples to learn from: inputs [k, X]; best action, best return and log lots [k]."""

    inputs: Floats
    action: Integers
    value: Floats
    log_lots: Floats


class Encoder:
    """Samples as inputs, float64 [m, X], standardised and one-hot as the `known` ones say."""

    def __init__(self, prepared: Prepared, known: Integers) -> None:
        self._prepared = prepared
        self._scale = statistics(self._numbers(known))
        self._instruments = np.unique(prepared.sample_instrument[known])
        self._timeframes = np.unique(prepared.sample_timeframe[known])

    def __call__(self, samples: Integers) -> Floats:
        """The inputs of the given samples."""
        numbers = (self._numbers(samples) - self._scale.mean) / self._scale.std
        instrument = self._prepared.sample_instrument[samples][:, None] == self._instruments
        timeframe = self._prepared.sample_timeframe[samples][:, None] == self._timeframes
        return np.concatenate((np.clip(numbers, -CLIP, CLIP), instrument, timeframe), axis=1)

    def _numbers(self, samples: Integers) -> Floats:
        rows = self._prepared.features[self._prepared.sample_row[samples]]
        accounts = self._prepared.sample_account[samples]
        return np.concatenate((rows, accounts), axis=1, dtype=np.float64)


def majority(lessons: Lessons, inputs: Floats, _seed: int) -> Predictions:
    """The action that was best most often, and medians."""
    count = len(inputs)
    return Predictions(
        action=np.full(count, np.bincount(lessons.action).argmax()),
        quantity=np.full(count, np.exp(np.median(lessons.log_lots))),
        value=np.full(count, np.median(lessons.value)),
    )


def logistic(lessons: Lessons, inputs: Floats, _seed: int) -> Predictions:
    """Multinomial logistic regression of the action, ridge regressions of value and log lots."""
    classifier = LogisticRegression(C=1 / PENALTY, solver="newton-cholesky")
    return _fitted(classifier, Ridge(alpha=PENALTY), lessons, inputs)


def trees(lessons: Lessons, inputs: Floats, seed: int) -> Predictions:
    """Gradient-boosted trees, a fixed number of them."""
    options: dict[str, Any] = {
        "learning_rate": 0.05,
        "max_leaf_nodes": 15,
        "min_samples_leaf": max(1, round(LEAF_SHARE * len(lessons.inputs))),
        "early_stopping": False,
        "random_state": seed,
    }
    return _fitted(
        HistGradientBoostingClassifier(**options),
        HistGradientBoostingRegressor(**options),
        lessons,
        inputs,
    )


BASELINES: Final[dict[str, Callable[[Lessons, Floats, int], Predictions]]] = {
    MAJORITY: majority,
    "logistic": logistic,
    "trees": trees,
}
"""From lessons of one side, inputs [m, X] of that side and a seed to the answers."""


def baselines(
    prepared: Prepared, known: Integers, judged: Integers, seed: int = 0
) -> dict[str, Predictions]:
    """What each of `BASELINES` answers for the samples `judged`, having learned from `known`.

    On a side of which nothing is known they hold; value and lots are then learned from the others.

    Args:
        known: at least one sample.
        judged: any samples.
        seed: the same gives the same answers.
    """
    encode = Encoder(prepared, known)
    known_sides, judged_sides = prepared.sample_side[known], prepared.sample_side[judged]
    answers = {name: _blank(len(judged)) for name in BASELINES}
    for side in np.unique(judged_sides):
        same = known[known_sides == side]
        lessons = _lessons(prepared, same if len(same) else known, encode)
        if not len(same):
            lessons = replace(lessons, action=np.full_like(lessons.action, Action.HOLD))
        asked = judged_sides == side
        inputs = encode(judged[asked])
        for name, fit in BASELINES.items():
            for field, values in vars(fit(lessons, inputs, seed)).items():
                getattr(answers[name], field)[asked] = values
    return answers


def _lessons(prepared: Prepared, samples: Integers, encode: Encoder) -> Lessons:
    returns = prepared.sample_returns[samples]
    return Lessons(
        inputs=encode(samples),
        action=np.nanargmax(returns, axis=1),
        value=np.nanmax(returns, axis=1).astype(np.float64),
        log_lots=np.log(prepared.sample_lots[samples].astype(np.float64)),
    )


def _blank(count: int) -> Predictions:
    return Predictions(np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count))


def _fitted(
    classifier: ClassifierMixin, regressor: RegressorMixin, lessons: Lessons, inputs: Floats
) -> Predictions:
    if len(np.unique(lessons.action)) == 1:  # nothing to tell apart
        action = np.full(len(inputs), lessons.action[0])
    else:
        action = classifier.fit(lessons.inputs, lessons.action).predict(inputs)
    log_lots, value = (
        clone(regressor).fit(lessons.inputs, target).predict(inputs)
        for target in (lessons.log_lots, lessons.value)
    )
    return Predictions(action, np.exp(log_lots), value)
