"""Prepared tensors against the bars they came from, their file, and what is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from synthetic import random_bars

from hrm_runtime.errors import BadBars
from hrm_runtime.market.account import Account, vector
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.features import rows
from hrm_runtime.market.instruments import Instrument, Timeframe
from hrm_runtime.market.series import SkippedSeries
from hrm_train.data.labels import action_returns, execution_costs, risk_lots
from hrm_train.data.prepared import (
    Prepared,
    load_or_prepare,
    prepare,
    prepare_series,
    skipped_of,
    trading_rules,
)
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
AllSeries = dict[tuple[str, str], Bars]

HISTORY, WINDOW, HORIZON = 200, 6, 6
NEEDED = HISTORY + HORIZON + HORIZON  # the horizon, here not less than the window, leads
KINDS = [("Nifty", "15"), ("Nifty", "5"), ("Reliance", "5")]


def arrays(prepared: Prepared) -> dict[str, Any]:
    return {name: value for name, value in vars(prepared).items() if name != "manifest"}


def assert_equal(found: Prepared, expected: Prepared) -> None:
    assert found.manifest == expected.manifest
    for name, array in arrays(expected).items():
        assert getattr(found, name).dtype == array.dtype, name
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name, strict=True)


def without_last(bars: Bars, count: int) -> Bars:
    return bars[: len(bars) - count]


def joined(*parts: Bars) -> Bars:
    """The prices of all parts, one bar after another, 300 s apart."""
    columns = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("open", "high", "low", "close")
    )
    return Bars(300 * np.arange(sum(map(len, parts))), *columns)


def constant(count: int) -> Bars:
    return Bars(300 * np.arange(count), *np.full((4, count), 100.0))


def test_it_is_shown_in_a_line(prepared: Prepared, series: AllSeries) -> None:
    bars = sum(map(len, series.values()))
    shown = f"Prepared({len(prepared):,} samples of {bars:,} bars, {len(series)} series)"
    assert repr(prepared) == shown


# samples


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("name", KINDS, ids="_".join)
def test_a_sample_is_what_its_bars_say(
    name: tuple[str, str], side: Side, prepared: Prepared, series: AllSeries, settings: Settings
) -> None:
    vocabulary = prepared.manifest.vocabulary
    instrument, trading = vocabulary.instrument(name[0]), trading_rules(settings)
    kind = (
        (prepared.sample_instrument == instrument.id)
        & (prepared.sample_timeframe == vocabulary.timeframes[name[1]].id)
        & (np.sign(prepared.sample_raw_account[:, 1]) == side)
    )
    sample = int(np.flatnonzero(kind)[kind.sum() // 2])
    bars = series[name]
    bar = int(np.searchsorted(bars.datetime, prepared.sample_stamp[sample]))
    table = rows(bars[bar - HISTORY - WINDOW + 2 : bar + 1], HISTORY)
    close, atr = table[-1].close, table[-1].atr
    account = Account(*prepared.sample_raw_account[sample].tolist())

    newest = prepared.sample_row[sample]
    window = prepared.features[newest - WINDOW + 1 : newest + 1]
    assert np.array_equal(window, [row.values for row in table])
    assert account.side is side
    assert np.array_equal(
        prepared.sample_account[sample],
        vector(
            account, close=close, atr=atr, instrument=instrument, brokerage_entry=25.0,
            quantity_max=1e5,
        ),
    )  # fmt: skip
    costs = execution_costs(bars.open, instrument, trading, 1e6)
    returns = action_returns(bars, HORIZON, *costs)[bar, side + 1] / atr
    assert np.array_equal(prepared.sample_returns[sample], returns.astype("f4"), equal_nan=True)
    lots = risk_lots(account.capital, close, atr, instrument, trading, 0.01, (1.0, 1e5))
    assert prepared.sample_lots[sample] == np.float32(lots)
    assert prepared.sample_end[sample] == bars.datetime[bar + HORIZON]


def test_every_bar_with_its_window_and_its_horizon_is_a_flat_sample(
    prepared: Prepared, series: AllSeries
) -> None:
    flat = prepared.sample_stamp[prepared.sample_raw_account[:, 1] == 0]
    expected = [bars.datetime[HISTORY - 1 + HORIZON : -HORIZON] for bars in series.values()]
    assert np.array_equal(flat, np.concatenate(expected))


def test_the_bars_of_all_series_are_kept_one_after_another(
    prepared: Prepared, series: AllSeries
) -> None:
    kept = list(series.values())
    assert np.array_equal(prepared.bar_stamp, np.concatenate([bars.datetime for bars in kept]))
    prices = [np.stack([b.open, b.high, b.low, b.close], axis=1) for b in kept]
    assert np.array_equal(prepared.bar_price, np.concatenate(prices))
    offsets = np.cumsum([0, *map(len, kept)])
    own = [o + np.arange(HISTORY - 1, len(b)) for o, b in zip(offsets, kept, strict=False)]
    assert np.array_equal(prepared.row_bar, np.concatenate(own))


def test_preparing_twice_gives_the_same_and_files_the_same_as_bars(
    prepared: Prepared, series: AllSeries, settings: Settings, bars_folder: Path
) -> None:
    assert_equal(prepare_series(settings, series), prepared)
    assert_equal(prepare(settings, [bars_folder]), prepared)


def test_a_series_has_the_same_samples_whatever_is_prepared_beside_it(
    prepared: Prepared, series: AllSeries, settings: Settings
) -> None:
    name = ("Reliance", "5")
    alone = prepare_series(settings, {name: series[name]})
    count = len(alone)
    for array in ("sample_account", "sample_raw_account", "sample_returns", "sample_lots"):
        assert np.array_equal(
            getattr(alone, array), getattr(prepared, array)[-count:], equal_nan=True
        )


def test_another_seed_makes_other_accounts_of_the_same_bars(
    prepared: Prepared, series: AllSeries, make_settings: MakeSettings
) -> None:
    other = prepare_series(make_settings({"training.seed": 1}), series)
    assert np.array_equal(other.features, prepared.features)
    flat, others = (
        p.sample_raw_account[p.sample_raw_account[:, 1] == 0] for p in (prepared, other)
    )
    assert not (flat[:, 0] == others[:, 0]).any()


@pytest.mark.parametrize(
    "bars",
    [joined(constant(230), random_bars(40)), joined(random_bars(230), constant(230))],
    ids=["still, then moving", "moving, then still"],
)
def test_a_sample_has_an_atr_at_its_bar_and_wherever_it_may_have_entered(
    bars: Bars, settings: Settings
) -> None:
    prepared = prepare_series(settings, {("Stiff", "5"): bars})
    moving = {row.datetime for row in rows(bars, HISTORY) if row.atr > 0}
    expected = [
        stamp
        for stamp in bars.datetime[HISTORY - 1 + HORIZON : -HORIZON].tolist()
        if {stamp - 300 * back for back in range(HORIZON + 1)} <= moving
    ]
    flat = prepared.sample_raw_account[:, 1] == 0
    assert prepared.sample_stamp[flat].tolist() == expected
    assert not np.isinf(prepared.sample_returns).any()


def test_two_series_have_accounts_of_their_own(settings: Settings) -> None:
    bars = random_bars(NEEDED + 10)
    one, other = (prepare_series(settings, {(name, "5"): bars}) for name in ("A", "B"))
    assert np.array_equal(one.features, other.features)
    capitals = {*one.sample_raw_account[:, 0]} & {*other.sample_raw_account[:, 0]}
    assert capitals == set()


# ids


def test_ids_count_from_one_in_sorted_order_of_name_and_zero_is_unknown(
    prepared: Prepared,
) -> None:
    vocabulary = prepared.manifest.vocabulary
    stock = {"type": "stock", "lot_size": 1, "premium_min": 0.025, "premium_max": 0.05}
    index = {"type": "index", "lot_size": 75, "premium_min": 0.01, "premium_max": 0.02}
    assert vocabulary.instruments == {
        "unknown": Instrument(id=0, tick_size=0.05, **stock),  # type: ignore[arg-type]
        "Nifty": Instrument(id=1, tick_size=0.05, **index),  # type: ignore[arg-type]
        "Reliance": Instrument(id=2, tick_size=0.05, **stock),  # type: ignore[arg-type]
    }
    assert vocabulary.timeframes == {
        "15": Timeframe(id=1, seconds=900),
        "5": Timeframe(id=2, seconds=300),
    }


OPEN = {
    "network.embeddings.allow_unknown_instruments": True,
    "network.embeddings.allow_unknown_timeframes": True,
}


def test_a_given_vocabulary_keeps_its_ids_and_calls_other_names_unknown(
    make_settings: MakeSettings, series: AllSeries
) -> None:
    settings = make_settings(OPEN)
    known = Vocabulary.of(settings, [("Aaa", "5"), ("Nifty", "5")])
    prepared = prepare_series(settings, series, known)
    assert prepared.manifest.vocabulary == known
    ids = set(zip(prepared.sample_instrument, prepared.sample_timeframe, strict=True))
    assert ids == {(2, 0), (2, 1), (0, 1)}  # Nifty_15, Nifty_5, Reliance_5


@pytest.mark.parametrize(
    ("allowed", "made"),
    [
        ({}, ["Nifty_5"]),
        ({"instruments"}, ["Nifty_5", "Reliance_5"]),
        ({"timeframes"}, ["Nifty_15", "Nifty_5"]),
    ],
    ids=["none", "instruments", "timeframes"],
)
def test_names_outside_a_given_vocabulary_are_skipped_where_they_are_not_allowed(
    allowed: set[str], made: list[str], make_settings: MakeSettings, series: AllSeries
) -> None:
    changes = {f"network.embeddings.allow_unknown_{kind}": True for kind in allowed}
    settings = make_settings(changes)
    known = Vocabulary.of(settings, [("Aaa", "5"), ("Nifty", "5")])
    prepared = prepare_series(settings, series, known)
    reports = {f"{one.instrument}_{one.timeframe}": one for one in prepared.manifest.series}
    assert [name for name, one in reports.items() if one.samples] == made
    end = ", which the checkpoint does not know, nor does it allow unknown ones"
    reasons = {
        "Reliance_5": f"instrument: expected one of Aaa, Nifty, found 'Reliance'{end}",
        "Nifty_15": f"timeframe: expected one of 5, found '15'{end}",
        "Nifty_5": None,
    }
    assert {name: one.skipped for name, one in reports.items()} == reasons | dict.fromkeys(made)
    assert [f"{one}" for one in skipped_of(prepared.manifest.series)] == [
        f"{name}: {reasons[name]}" for name in reports if name not in made
    ]


def test_bars_of_a_name_that_is_skipped_must_still_be_of_their_timeframe(
    settings: Settings, series: AllSeries
) -> None:
    known = Vocabulary.of(settings, series)
    with pytest.raises(DataInvalid, match="Other_15: expected bars 900 s apart"):
        prepare_series(settings, {**series, ("Other", "15"): random_bars(NEEDED)}, known)


def test_a_name_that_was_skipped_has_no_id(settings: Settings, series: AllSeries) -> None:
    short = {("Adani", "60"): random_bars(10, seconds=3600)}
    vocabulary = prepare_series(settings, short | series).manifest.vocabulary
    assert set(vocabulary.instruments) == {"unknown", "Nifty", "Reliance"}
    assert set(vocabulary.timeframes) == {"15", "5"}


def test_an_instrument_called_unknown_is_refused(settings: Settings) -> None:
    with pytest.raises(DataInvalid, match="expected series by name; 'unknown' stands for all"):
        prepare_series(settings, {("unknown", "5"): random_bars(NEEDED)})


@pytest.mark.parametrize("given", [False, True], ids=["own names", "given names"])
def test_a_series_of_an_undeclared_timeframe_is_skipped_and_named(
    given: bool, make_settings: MakeSettings, series: AllSeries
) -> None:
    settings = make_settings(OPEN)
    known = Vocabulary.of(settings, series) if given else None
    weekly = {("Nifty", "weekly"): random_bars(NEEDED)}
    prepared = prepare_series(settings, series | weekly, known)
    reason = (
        "timeframes.weekly: expected its seconds to be declared, since 'weekly' is neither a "
        "number of minutes nor D"
    )
    assert skipped_of(prepared.manifest.series) == (SkippedSeries("Nifty", "weekly", reason),)
    assert set(prepared.manifest.vocabulary.timeframes) == {"15", "5"}
    clean = prepare_series(settings, series, known)
    assert_equal(replace(prepared, manifest=clean.manifest), clean)
    with pytest.raises(DataInvalid, match=f"found none: Nifty_weekly: {re.escape(reason)}$"):
        prepare_series(settings, weekly, known)


def test_a_timeframe_that_a_given_vocabulary_declares_is_known(
    settings: Settings, make_settings: MakeSettings
) -> None:
    declaring = make_settings({"timeframes": {"weekly": {"seconds": 300}}})
    known = Vocabulary.of(declaring, [("Nifty", "weekly")])
    prepared = prepare_series(settings, {("Nifty", "weekly"): random_bars(NEEDED)}, known)
    assert set(prepared.sample_timeframe) == {1}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("max_instruments", "embeddings.max_instruments: expected at least 2, was 1"),
        ("max_timeframes", "embeddings.max_timeframes: expected at least 2, was 1"),
    ],
)
def test_more_names_than_the_tables_have_rows_are_refused(
    limit: str, message: str, series: AllSeries, make_settings: MakeSettings
) -> None:
    with pytest.raises(DataInvalid, match=message):
        prepare_series(make_settings({f"network.embeddings.{limit}": 1}), series)


# the report


def test_the_report_counts_what_was_read_cleaned_and_made(
    settings: Settings, series: AllSeries, tmp_path: Path
) -> None:
    bars = series["Reliance", "5"]
    path = tmp_path / "Reliance_5.csv"
    write_csv(bars, path)
    header, *lines = path.read_text().splitlines()
    seams = [*lines[100:], *lines[:100], lines[99], lines[99]]  # one break, two duplicates
    path.write_text("\n".join([header, *seams]) + "\n")

    prepared = prepare(settings.model_copy(update={"instruments": {}}), [path])

    (report,) = prepared.manifest.series
    assert asdict(report) == {
        "instrument": "Reliance", "timeframe": "5", "bars": 300, "duplicates": 2, "disordered": 1,
        "samples": len(prepared), "skipped": None,
    }  # fmt: skip
    clean = prepare_series(settings, {("Reliance", "5"): bars})
    assert_equal(replace(prepared, manifest=clean.manifest), clean)


def test_a_series_that_is_too_short_or_stands_still_is_skipped_and_named(
    settings: Settings, series: AllSeries
) -> None:
    enough, still = random_bars(NEEDED), constant(NEEDED)
    given = {
        ("Short", "5"): without_last(enough, 1),
        ("Enough", "5"): enough,
        ("Still", "5"): still,
        ("One", "5"): enough[:1],
    }
    reports = prepare_series(settings, given).manifest.series
    assert [(r.instrument, r.skipped, r.samples > 0) for r in reports] == [
        ("Short", f"{NEEDED - 1} bars, {NEEDED} needed", False),
        ("Enough", None, True),
        ("Still", "the price never moves", False),
        ("One", f"1 bars, {NEEDED} needed", False),
    ]


def test_no_series_left_is_an_error_that_names_them_all(settings: Settings) -> None:
    given = {("Short", "5"): random_bars(20), ("Still", "15"): constant(300)}
    given["Still", "15"] = Bars(900 * np.arange(300), *np.full((4, 300), 100.0))
    message = (
        "expected at least one series that something can be done with, found none: "
        f"Short_5: 20 bars, {NEEDED} needed; Still_15: the price never moves"
    )
    with pytest.raises(DataInvalid, match=re.escape(message)):
        prepare_series(settings, given)


@pytest.mark.parametrize(("named", "seconds"), [("5", 900), ("15", 300), ("60", 2_699)])
def test_bars_of_another_timeframe_than_their_files_name_are_refused(
    named: str, seconds: int, settings: Settings
) -> None:
    message = f"Nifty_{named}: expected bars {60 * int(named)} s apart, the closest are {seconds} s"
    with pytest.raises(DataInvalid, match=message):
        prepare_series(settings, {("Nifty", named): random_bars(NEEDED, seconds=seconds)})


def test_bars_almost_a_timeframe_apart_are_taken(settings: Settings) -> None:
    prepared = prepare_series(settings, {("Nifty", "60"): random_bars(NEEDED, seconds=2_700)})
    assert prepared.manifest.vocabulary.timeframes["60"].seconds == 3_600


# names of the settings


def test_facts_of_a_name_that_is_not_in_the_data_are_refused_before_a_file_is_read(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings({"instruments.nifty": {"lot_size": 50}})
    (tmp_path / "Nifty_5.csv").write_text("no bars")
    with pytest.raises(SettingsInvalid, match=r"instruments\.nifty: .*; the closest is Nifty, wh"):
        prepare(settings, [tmp_path])
    with pytest.raises(BadBars, match="missing datetime"):
        prepare(make_settings(), [tmp_path])


def test_facts_of_a_name_whose_series_is_too_short_are_taken(
    make_settings: MakeSettings, series: AllSeries, tmp_path: Path
) -> None:
    write_csv(series["Nifty", "5"], tmp_path / "Nifty_5.csv")
    write_csv(constant(5), tmp_path / "Short_5.csv")
    prepared = prepare(make_settings({"instruments.Short": {"lot_size": 2}}), [tmp_path])
    assert [one.skipped is None for one in prepared.manifest.series] == [True, False]


def test_a_vocabulary_that_is_given_says_which_names_there_are(
    make_settings: MakeSettings, prepared: Prepared, series: AllSeries, tmp_path: Path
) -> None:
    write_csv(series["Reliance", "5"], tmp_path / "Reliance_5.csv")
    settings = make_settings({"timeframes.15": {"seconds": 900}})
    known = prepared.manifest.vocabulary
    prepare(settings, [tmp_path], known)  # such as for judging on part of the data
    with pytest.raises(SettingsInvalid, match=r"instruments\.Nifty: .*\ntimeframes\.15: "):
        prepare(settings, [tmp_path])
    own = prepare(settings, [tmp_path], known=known).manifest.vocabulary
    assert own.instruments.keys() == {"unknown", "Reliance"}


def test_tensors_are_held_to_the_names_of_the_settings_too(
    make_settings: MakeSettings, prepared: Prepared, series: AllSeries, tmp_path: Path
) -> None:
    settings = make_settings({"instruments.Tcs": {"lot_size": 7}})
    path = tmp_path / "bars.safetensors"
    given = {name: series[name] for name in KINDS[1:]} | {("Short", "5"): constant(5)}
    prepare_series(settings, given).save(path)
    with pytest.raises(SettingsInvalid, match=r"^instruments\.Tcs: expected a name of the data; "):
        load_or_prepare(settings, path)
    assert len(load_or_prepare(settings, path, prepared.manifest.vocabulary))
    known = Vocabulary.of(settings, [("Tcs", "5")])
    assert len(load_or_prepare(settings, path, known=known))
    short = make_settings({"instruments.Short": {"lot_size": 7}})
    prepare_series(short, given).save(tmp_path / "short.safetensors")
    assert len(load_or_prepare(short, tmp_path / "short.safetensors"))


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
