"""Training tensors: their file, what they are held to, other ids, and their digest."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from training_tensors import arrays, assert_equal

from hrm_runtime.market.bars import Bars
from hrm_train.data.preparation import load_or_prepare, prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.errors import DataInvalid
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
AllSeries = dict[tuple[str, str], Bars]
KINDS = [("Nifty", "15"), ("Nifty", "5"), ("Reliance", "5")]


def test_it_is_shown_in_a_line(prepared: Prepared, series: AllSeries) -> None:
    bars = sum(map(len, series.values()))
    shown = f"Prepared({len(prepared):,} samples of {bars:,} bars, {len(series)} series)"
    assert repr(prepared) == shown


OPEN = {
    "network.embeddings.allow_unknown_instruments": True,
    "network.embeddings.allow_unknown_timeframes": True,
}


# the file


def test_a_file_may_be_called_in_capitals(
    prepared: Prepared, settings: Settings, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "BARS.SAFETENSORS")
    assert_equal(load_or_prepare(settings, tmp_path / "BARS.SAFETENSORS"), prepared)


def test_a_loaded_file_equals_what_was_saved(
    prepared: Prepared, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "tensors.safetensors"
    prepared.save(path)
    loaded = Prepared.load(path)
    assert_equal(loaded, prepared)
    assert len(loaded) == len(prepared) == sum(s.samples for s in prepared.manifest.series)
    loaded.require(settings)  # the settings survived JSON
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_refused_and_nothing_stays(
    prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "taken.safetensors").write_text("mine")
    with pytest.raises(DataInvalid, match=r"taken\.safetensors: expected a new file"):
        prepared.save(tmp_path / "taken.safetensors")
    with pytest.raises(DataInvalid, match=r"bars\.safetensors: expected its folder to exist"):
        prepared.save(tmp_path / "absent" / "bars.safetensors")
    with pytest.raises(DataInvalid, match=r"Nifty_5\.csv: expected a name ending in \.safetensors"):
        prepared.save(tmp_path / "Nifty_5.csv")
    long = tmp_path / f"{250 * 'x'}.safetensors"
    with pytest.raises(DataInvalid, match=r"expected to write training tensors: .*too long"):
        prepared.save(long)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]
    assert (tmp_path / "taken.safetensors").read_text() == "mine"


def rewritten(prepared: Prepared, path: Path, manifest: dict[str, Any] | None) -> None:
    """The file with its manifest changed, or without one."""
    whole = asdict(prepared.manifest)
    metadata = None if manifest is None else {"manifest": json.dumps({**whole, **manifest})}
    save_file(arrays(prepared), path, metadata)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "expected training tensors: 'manifest'"),
        ({"extra": 1}, "expected training tensors: extra: unknown"),
        ({"series": 3}, "expected training tensors: series: expected a list, found 3"),
        ({"format_version": 2}, "expected format 1 and feature definitions 1, found 2 and 1; prep"),
        ({"feature_version": 9}, "definitions 1, found 1 and 9; prepare it again"),
        ({"features": ["a"]}, "expected format 1 and feature definitions 1"),
        ({"account": ["a"]}, "expected format 1 and feature definitions 1"),
    ],
)
def test_a_file_of_other_meaning_is_refused(
    manifest: dict[str, Any] | None, message: str, prepared: Prepared, tmp_path: Path
) -> None:
    path = tmp_path / "tensors.safetensors"
    rewritten(prepared, path, manifest)
    with pytest.raises(DataInvalid, match=f"tensors.safetensors: .*{message}"):
        Prepared.load(path)


def test_a_missing_or_unknown_tensor_is_refused_by_name(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    metadata = {"manifest": json.dumps(asdict(prepared.manifest))}
    own = arrays(prepared)
    save_file({name: own[name] for name in own if name != "sample_lots"}, path, metadata)
    with pytest.raises(DataInvalid, match=r"expected training tensors: .*missing.*'sample_lots'"):
        Prepared.load(path)
    save_file(own | {"surplus": np.zeros(1)}, path, metadata)
    with pytest.raises(DataInvalid, match=r"expected training tensors: .*unexpected.*'surplus'"):
        Prepared.load(path)


def test_a_file_that_is_missing_or_garbage_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="absent: expected training tensors: No such file"):
        Prepared.load(tmp_path / "absent")
    (tmp_path / "garbage").write_bytes(b"not tensors at all")
    with pytest.raises(DataInvalid, match=r"garbage: expected training tensors: .*header"):
        Prepared.load(tmp_path / "garbage")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.seed", 1, "training.seed: settings 1, tensors 0"),
        ("training.label_horizon", 7, "training.label_horizon: settings 7, tensors 6"),
        ("training.label_capital", 1e5, "training.label_capital: settings 100000.0, tensors 1000"),
        ("training.risk_fraction", 0.02, "training.risk_fraction: settings 0.02, tensors 0.01"),
        ("training.capital_min", 6e4, "training.capital_min: settings 60000.0, tensors 50000.0"),
        ("training.capital_max", 6e7, "training.capital_max: settings 60000000.0, tensors 1000"),
        ("network.input.window", 8, "input.window: settings 8, tensors 6"),
        ("network.input.history_bars", 512, "input.history_bars: settings 512, tensors 200"),
        ("network.output_heads.quantity_max", 9, "quantity: settings [1.0, 9.0], tensors [1.0, 1"),
        ("trading.stop_atr", 2.5, "trading.stop_atr: settings 2.5, tensors 1.5"),
        ("instruments.Nifty.lot_size", 50, "instruments.Nifty.lot_size: settings 50, tensors 75"),
        ("timeframes", {"5": {"seconds": 301}}, "timeframes: settings only: 5"),
    ],
)
def test_settings_that_differ_from_those_of_the_tensors_are_named(
    key: str, value: object, message: str, prepared: Prepared, make_settings: MakeSettings
) -> None:
    expected = f"the tensors were prepared with other settings ({message}"
    with pytest.raises(DataInvalid, match=re.escape(expected)) as caught:
        prepared.require(make_settings({key: value}))
    assert str(caught.value).count("; ") == 1  # nothing else is blamed
    assert str(caught.value).endswith("); prepare them again")


# other ids


def named(prepared: Prepared) -> list[tuple[str, str]]:
    """Instrument and timeframe of every sample, by name."""
    vocabulary = prepared.manifest.vocabulary
    instruments = {entry.id: name for name, entry in vocabulary.instruments.items()}
    timeframes = {0: "unknown"} | {e.id: name for name, e in vocabulary.timeframes.items()}
    return [
        (instruments[one], timeframes[other])
        for one, other in zip(
            prepared.sample_instrument.tolist(), prepared.sample_timeframe.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("known", [[("Zeta", "5")], [("Zeta", "5"), ("Adani", "60")]])
@pytest.mark.parametrize("given", [None, [("Aaa", "15"), ("Nifty", "15")]])
def test_renumbered_samples_are_the_same_under_the_ids_of_another_vocabulary(
    given: list[tuple[str, str]] | None,
    known: list[tuple[str, str]],
    make_settings: MakeSettings,
    series: AllSeries,
) -> None:
    settings = make_settings(OPEN)
    own = None if given is None else Vocabulary.of(settings, given)  # without some: those are 0
    prepared = prepare_series(settings, series, own)
    other = Vocabulary.of(settings, known).extended(settings, [*series, *(given or [])])

    found = prepared.renumbered(other)

    assert found.manifest == replace(prepared.manifest, vocabulary=other)
    assert named(found) == named(prepared)
    assert not np.array_equal(found.sample_timeframe, prepared.sample_timeframe)
    for name, array in arrays(prepared).items():
        if name in {"sample_instrument", "sample_timeframe"}:
            assert getattr(found, name).dtype == np.int64
        else:
            np.testing.assert_array_equal(getattr(found, name), array, err_msg=name, strict=True)


def test_renumbering_back_gives_the_same(prepared: Prepared, settings: Settings) -> None:
    own = prepared.manifest.vocabulary
    other = Vocabulary.of(settings, [("Zeta", "5")]).extended(settings, KINDS)
    back = prepared.renumbered(other).renumbered(
        replace(own, instruments={**other.instruments, **own.instruments})
    )
    assert_equal(replace(back, manifest=prepared.manifest), prepared)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"instruments.Nifty.lot_size": 50},
            r"known; they differ in instruments\.Nifty\.lot_size: known 50, found 75; declare",
        ),
        (
            {"instruments.Reliance": {"tick_size": 0.1}},
            r"differ in instruments\.Reliance\.tick_size: known 0\.1, found 0\.05; declare",
        ),
        (
            {"instruments.unknown": {"lot_size": 3}},
            r"differ in instruments\.unknown\.lot_size: known 3, found 1; instruments\.Reliance",
        ),
        (
            {"timeframes": {"5": {"seconds": 301}}},
            r"differ in timeframes\.5\.seconds: known 301, found 300; declare",
        ),
    ],
)
def test_other_facts_of_a_name_than_its_samples_were_made_with_are_refused(
    changes: dict[str, Any], message: str, prepared: Prepared, make_settings: MakeSettings
) -> None:
    other = Vocabulary.of(make_settings(changes), KINDS)
    with pytest.raises(DataInvalid, match=message):
        prepared.renumbered(other)


def test_facts_of_names_without_samples_do_not_matter(
    prepared: Prepared, make_settings: MakeSettings
) -> None:
    other = Vocabulary.of(
        make_settings({"instruments.Adani.lot_size": 9}), [*KINDS, ("Adani", "D")]
    )
    assert named(prepared.renumbered(other)) == named(prepared)


# its digest


def test_the_digest_survives_the_file_and_depends_on_content_alone(
    prepared: Prepared, settings: Settings, series: AllSeries, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "tensors.safetensors")
    assert Prepared.load(tmp_path / "tensors.safetensors").digest() == prepared.digest()
    assert prepare_series(settings, series).digest() == prepared.digest()
    strided = replace(prepared, features=np.repeat(prepared.features, 2, axis=0)[::2])
    assert not strided.features.flags.c_contiguous
    assert strided.digest() == prepared.digest()


@pytest.mark.parametrize(
    "name",
    ["bar_stamp", "bar_price", "row_bar", "features", "sample_row", "sample_instrument",
     "sample_timeframe", "sample_account", "sample_raw_account", "sample_returns", "sample_lots",
     "sample_end"],
)  # fmt: skip
def test_the_digest_changes_with_the_last_value_of_every_array(
    name: str, prepared: Prepared
) -> None:
    assert name in arrays(prepared)
    array = getattr(prepared, name).copy()
    array.flat[-1] = 7
    assert replace(prepared, **{name: array}).digest() != prepared.digest()


def test_the_digest_changes_with_the_meaning_of_the_arrays(
    prepared: Prepared, settings: Settings
) -> None:
    other = Vocabulary.of(settings, [*KINDS, ("Zeta", "5")])
    manifest = prepared.manifest
    digests = {
        replace(prepared, manifest=changed).digest()
        for changed in (
            manifest,
            replace(manifest, vocabulary=other),
            replace(manifest, basis={**manifest.basis, "training.seed": 1}),
            replace(manifest, series=manifest.series[:-1]),
        )
    }
    assert len(digests) == 4
