"""What a run starts from: its first model, and what is kept aside for checks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exactly import assert_equal
from synthetic import random_bars
from training_runs import copied

from hrm_train import load_checkpoint
from hrm_train.data.preparation import prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split, account_statistics, chronological_split, feature_statistics
from hrm_train.data.windows import spread, windows
from hrm_train.errors import DataInvalid
from hrm_train.learning import plan
from hrm_train.learning.plan import Plan, held_out, initial_model
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]


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


# where a run starts


def test_a_run_starts_from_the_seed_and_knows_which_ids_no_training_sample_has(
    settings: Settings, prepared: Prepared, split: Split
) -> None:
    nifty_15 = (prepared.sample_instrument == 1) & (prepared.sample_timeframe == 1)
    few = replace(split, train=split.train[nifty_15[split.train]])
    start = Plan(settings, prepared, few, few.boundary, None, None, quantise=False).start()
    assert start.prepared is prepared
    assert start.untrained == ({2}, {2})  # Reliance, 5
    assert_equal(copied(start.model), copied(initial_model(settings, prepared, few)))


def test_a_run_that_goes_on_starts_from_its_source_whose_names_count_as_trained(
    trained: Path, settings: Settings
) -> None:
    source = load_checkpoint(trained)
    data = prepare_series(settings, {(name, "5"): random_bars(300) for name in ("Adani", "Nifty")})
    split = chronological_split(data, 0.4, 6)
    none = replace(split, train=split.train[:0])
    start = Plan(settings, data, none, none.boundary, None, source, quantise=False).start()
    known = source.description.vocabulary
    vocabulary = start.prepared.manifest.vocabulary
    assert vocabulary == known.extended(settings, [("Adani", "5")])
    assert set(start.prepared.sample_instrument.tolist()) == {1, 3}
    assert start.untrained == ({3}, set())  # Adani, which is new
    expected = copied(source.model)
    table = expected["input_network.instrument_embedding.weight"]
    table[3] = table[0]
    assert_equal(copied(start.model), expected)
