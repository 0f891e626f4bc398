"""What a run starts from: its first model, and what is kept aside for checks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from exactly import assert_equal
from training_runs import copied

from hrm_train import HierarchicalReasoningModel
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split, account_statistics, feature_statistics
from hrm_train.data.windows import spread, windows
from hrm_train.errors import DataInvalid
from hrm_train.learning import plan
from hrm_train.learning.plan import held_out, initial_model
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]


def test_the_first_model_is_drawn_from_the_seed_and_knows_the_statistics(
    prepared: Prepared, split: Split, make_settings: MakeSettings
) -> None:
    one, same, other = (
        initial_model(make_settings({"training.seed": seed}), prepared, split) for seed in (0, 0, 1)
    )
    assert_equal(copied(one), copied(same))
    assert (one.h_module.initial_D != other.h_module.initial_D).all()
    for standardise, found in (
        (one.input_network.features, feature_statistics(prepared, split)),
        (one.input_network.account, account_statistics(prepared, split)),
    ):
        assert_equal(standardise.mean, torch.from_numpy(found.mean))
        assert_equal(standardise.std, torch.from_numpy(found.std))


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("most", [20, 100_000])
def test_held_out_windows_are_spread_over_the_validation_part(
    most: int,
    seed: int,
    prepared: Prepared,
    split: Split,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "HELD_OUT_WINDOWS", most)
    found = held_out(make_settings({"training.seed": seed}), prepared, split)
    expected = windows(prepared, spread(prepared, split.validation, most, seed), 205)
    assert len(found) == min(most, len(split.validation))
    for name, array in vars(expected).items():
        assert np.array_equal(getattr(found, name), array)


def test_too_few_windows_to_prove_an_artifact_with_are_refused(
    settings: Settings, prepared: Prepared, split: Split
) -> None:
    few = replace(split, validation=split.validation[:31])
    with pytest.raises(DataInvalid, match=r"at least 32 validation samples .*, found 31"):
        held_out(settings, prepared, few)
