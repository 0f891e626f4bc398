"""Fewer gradient-boosted trees than a baseline has, where a test is not about what more learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from hrm_train.judging import baselines

FEW = 10
"""Of a hundred for each action and quantity; they cost by their number."""


@contextmanager
def few_trees() -> Iterator[None]:
    """Have baselines grow `FEW` trees, which are otherwise those of the product."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
            patch.setattr(baselines, name, partial(getattr(baselines, name), max_iter=FEW))
        yield
