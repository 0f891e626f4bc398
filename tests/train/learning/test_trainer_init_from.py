"""Training that goes on from a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exactly import assert_equal
from folders import content
from safetensors.torch import load_file
from synthetic import random_bars
from training_runs import copied, moved, stopped

from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_train import load_checkpoint, train
from hrm_train.data.preparation import prepare_series
from hrm_train.data.split import chronological_split
from hrm_train.errors import CheckpointInvalid, DataInvalid, SettingsInvalid
from hrm_train.learning.epochs import Progress
from hrm_train.learning.trainer import train_folds
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]

HORIZON = 6


@pytest.fixture(scope="module")
def more(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of later bars: a name before all known ones, and one of those."""
    path = tmp_path_factory.mktemp("more") / "bars.safetensors"
    series = {
        ("Adani", "5"): moved(random_bars(300, seed=5, price=50.0), 30),
        ("Nifty", "15"): moved(random_bars(260, seed=6, seconds=900, price=20_000.0), 30),
    }
    prepare_series(settings, series).save(path)
    return path


def test_training_goes_on_from_the_weights_and_statistics_of_the_source(
    trained: Path, more: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    before = content(trained)
    settings = make_settings({"training.ema_decay": 0.9, "training.learning_rate": 1e-4})
    stopped(settings, more, tmp_path / "out", 1, init_from=trained)
    state = load_file(tmp_path / "out" / "last.safetensors")
    source = load_checkpoint(trained)
    expected = copied(source.model)
    table = expected["input_network.instrument_embedding.weight"]
    table[3] = table[0]  # the new name starts as an unknown one
    for of in ("model", "average"):
        found = {n[len(of) + 1 :]: t for n, t in state.items() if n.startswith(f"{of}/")}
        assert_equal(found, expected)
    assert not any(name.startswith("optimizer") for name in state)
    assert content(trained) == before


def test_new_names_are_appended_and_the_samples_renumbered(
    trained: Path, more: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"training.unknown_probability": 0.0})
    source = load_checkpoint(trained)
    checkpoint = train(settings, more, tmp_path / "out", init_from=trained)
    description = checkpoint.description
    assert description.initialized_from == source.sha256
    assert {name: facts.id for name, facts in description.vocabulary.instruments.items()} == {
        "unknown": 0, "Nifty": 1, "Reliance": 2, "Adani": 3,
    }  # fmt: skip
    assert description.vocabulary.timeframes == source.description.vocabulary.timeframes
    assert [(one.instrument, one.timeframe) for one in description.series] == [
        ("Adani", "5"), ("Nifty", "15"),
    ]  # fmt: skip
    # by name, the rows that were trained are those of the data, and its windows say who they are
    name = "input_network.instrument_embedding.weight"
    changed = (copied(checkpoint.model)[name] != copied(source.model)[name]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [1, 3]
    cheap = checkpoint.windows.prices[:, 3].max(axis=1) < 1_000
    assert set(checkpoint.windows.instrument[cheap].tolist()) == {3}
    assert set(checkpoint.windows.instrument[~cheap].tolist()) == {1}
    assert set(checkpoint.windows.timeframe[cheap].tolist()) == {2}
    assert set(checkpoint.windows.timeframe[~cheap].tolist()) == {1}
    for of in ("features", "account"):
        one, other = (getattr(each.model.input_network, of) for each in (checkpoint, source))
        assert_equal((one.mean, one.std), (other.mean, other.std))


@pytest.mark.parametrize("days", [-30, 30])
@pytest.mark.parametrize("fold", [False, True], ids=["of a training", "of a fold"])
def test_what_a_source_knew_never_judges_what_went_on_from_it(
    fold: bool,
    days: int,
    trained: Path,
    folds: tuple[Path, list[Any], list[Progress]],
    settings: Settings,
    tmp_path: Path,
) -> None:
    source = folds[0] / "fold-1" if fold else trained
    known = load_checkpoint(source).description.judged_from
    data = prepare_series(settings, {("Nifty", "5"): moved(random_bars(300), days)})
    data.save(tmp_path / "bars.safetensors")
    own = chronological_split(data, 0.4, HORIZON).boundary
    assert (own > known) == (days > 0)
    arguments = (settings, tmp_path / "bars.safetensors", tmp_path / "out")
    if days < 0:
        with pytest.raises(DataInvalid, match="expected bars to validate on that are later than"):
            train(*arguments, init_from=source)
        return
    description = train(*arguments, init_from=source).description
    assert (description.boundary, description.judged_from) == (own, own)
    assert description.judged_until is None


def test_a_run_that_went_on_from_a_checkpoint_is_resumed_with_the_same_one_only(
    trained: Path, unstopped: Path, more: Path, short: Settings, tmp_path: Path
) -> None:
    whole = train(short, more, tmp_path / "whole", init_from=trained)
    stopped(short, more, tmp_path / "out", 4, init_from=trained)
    source = whole.description.initialized_from
    for other, digest in ((None, "None"), (unstopped, load_checkpoint(unstopped).sha256)):
        message = f"initialized_from: now {digest}, saved {source}; resume"
        with pytest.raises(CheckpointInvalid, match=message):
            train(short, more, tmp_path / "out", init_from=other, resume=True)
    train(short, more, tmp_path / "out", init_from=trained, resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"instruments.Nifty.lot_size": 50},
            DataInvalid,
            r"instruments\.Nifty\.lot_size: known 75, found 50",
        ),
        ({"timeframes": {"5": {"seconds": 301}}}, DataInvalid, r"5\.seconds: known 300, found 301"),
        (
            {"network.h_module.ffn_dim": 32},
            SettingsInvalid,
            r"h_module\.ffn_dim: expected 24, as trained, found 32",
        ),
    ],
)
def test_what_does_not_fit_the_source_is_refused_and_nothing_written(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    trained: Path,
    make_settings: MakeSettings,
    tmp_path: Path,
) -> None:
    settings = make_settings(changes)
    series = {("Nifty", "5"): random_bars(300, seconds=settings.seconds("5"))}
    prepare_series(settings, series).save(tmp_path / "bars.safetensors")
    with pytest.raises(error, match=message):
        train(settings, tmp_path / "bars.safetensors", tmp_path / "out", init_from=trained)
    assert not (tmp_path / "out").exists()


def test_settings_may_have_facts_of_what_the_data_lack_and_the_source_knows(
    trained: Path,
    folds: tuple[Path, list[Any], list[Progress]],
    series: dict[tuple[str, str], Bars],
    make_settings: MakeSettings,
    tmp_path: Path,
) -> None:
    write_csv(series["Reliance", "5"], tmp_path / "Reliance_5.csv")
    settings = make_settings({"instruments.TCS": {}, "timeframes.15": {"seconds": 900}})
    for go in (
        lambda **how: train(settings, tmp_path, tmp_path / "out", **how),
        lambda **how: train_folds(settings, tmp_path, tmp_path / "out", 2, **how),
    ):
        with pytest.raises(SettingsInvalid) as caught:
            go()
        refused = [line.partition(":")[0] for line in str(caught.value).splitlines()]
        assert refused == ["instruments.Nifty", "instruments.TCS", "timeframes.15"]
    for go_on in (
        lambda: train(settings, tmp_path, tmp_path / "out", init_from=trained),
        lambda: train_folds(settings, tmp_path, tmp_path / "out", 2, init_from=folds[0]),
    ):
        message = r"^instruments\.TCS: expected a name of the data or of the checkpoint; known are"
        with pytest.raises(SettingsInvalid, match=f"{message} Nifty, Reliance; correct it, or r"):
            go_on()
    assert not (tmp_path / "out").exists()


def test_a_source_that_cannot_be_read_is_refused_before_any_data_is_read(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointInvalid, match="absent/fold-1: expected a checkpoint folder"):
        train_folds(
            settings, tmp_path / "no.csv", tmp_path / "out", 2, init_from=tmp_path / "absent"
        )
    with pytest.raises(CheckpointInvalid, match="absent: expected a checkpoint folder"):
        train(settings, tmp_path / "no.csv", tmp_path / "out", init_from=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
