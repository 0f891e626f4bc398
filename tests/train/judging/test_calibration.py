"""Calibration of the halting head by hand and by construction."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from hrm_train.judging.calibration import Bin, calibration


def test_a_small_case_by_hand() -> None:
    q_halt = np.array([0.0, 0.125, 0.1875, 0.9375, 1.0])
    correct = np.array([False, False, True, True, False])
    found = calibration(q_halt, correct, np.array([2, 1, 1, 3, 1]), max_segments=4)
    assert found.bins == (
        Bin(0.0, 0.1, 1, 0.0, 0.0),
        Bin(0.1, 0.2, 2, 0.15625, 0.5),
        Bin(0.9, 1.0, 2, 0.96875, 0.5),
    )
    assert found.error == pytest.approx((2 * 0.34375 + 2 * 0.46875) / 5)
    assert found.brier == pytest.approx((0.125**2 + 0.8125**2 + 0.0625**2 + 1) / 5)
    assert found.mean_q == pytest.approx(0.45)
    assert found.correct == 0.4
    assert found.mean_segments == 1.6
    assert found.segments == (0.6, 0.2, 0.2, 0.0)


@pytest.mark.parametrize(("says", "error"), [(0.25, 0.0), (0.75, 0.5)])
def test_the_error_is_how_far_what_is_said_is_from_what_happens(says: float, error: float) -> None:
    correct = np.arange(100) % 4 == 0
    found = calibration(np.full(100, says), correct, np.ones(100, dtype=np.int64), 1)
    assert found.error == pytest.approx(error)
    assert found.brier == pytest.approx(0.25 * (1 - says) ** 2 + 0.75 * says**2)
    assert found.segments == (1.0,)


def test_every_decision_is_in_one_bin_and_the_score_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    q_halt = rng.uniform(size=1000)
    correct = rng.uniform(size=1000) < q_halt
    found = calibration(q_halt, correct, rng.integers(1, 4, 1000), 3)
    assert [one.samples for one in found.bins] == np.histogram(q_halt, 10, (0, 1))[0].tolist()
    assert all(one.low <= one.mean_q <= one.high for one in found.bins)
    assert sum(one.samples * one.correct for one in found.bins) == pytest.approx(correct.sum())
    assert found.brier == pytest.approx(brier_score_loss(correct, q_halt))
    assert found.error < 0.06  # what is said is what happens
    assert sum(found.segments) == pytest.approx(1.0)
