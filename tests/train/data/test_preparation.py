"""Bars to training tensors: ids, the report, and what is skipped or refused."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import constant_bars, random_bars
from training_tensors import assert_equal

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.instruments import Instrument, Timeframe
from hrm_runtime.market.series import SkippedSeries
from hrm_runtime.market.stamps import EARLIEST_STAMP
from hrm_train.data.preparation import load_or_prepare, prepare, prepare_series
from hrm_train.data.prepared import Prepared, skipped_of
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Settings, TimeframeFacts

MakeSettings = Callable[..., Settings]
AllSeries = dict[tuple[str, str], Bars]

HISTORY, HORIZON = 200, 6
NEEDED = HISTORY + HORIZON + HORIZON  # the horizon, here not less than the window, leads
KINDS = [("Nifty", "15"), ("Nifty", "5"), ("Reliance", "5")]


def without_last(bars: Bars, count: int) -> Bars:
    return bars[: len(bars) - count]


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
    end = ", which the checkpoint does not know; nor does it allow unknown ones"
    reasons = {
        "Reliance_5": f"instrument: expected one of Aaa, Nifty; found 'Reliance'{end}",
        "Nifty_15": f"timeframe: expected one of 5; found '15'{end}",
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
    with pytest.raises(DataInvalid, match="Other_15: bars: expected bars of 900 s, found"):
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
        "timeframes.weekly: expected its seconds to be declared, a week at most, or a name such as "
        "5, 5m, 5min, 1h, D, 1d or W, since 'weekly' says no length"
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
    enough, still = random_bars(NEEDED), constant_bars(NEEDED)
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
    given = {("Short", "5"): random_bars(20), ("Still", "15"): constant_bars(300)}
    given["Still", "15"] = Bars(EARLIEST_STAMP + 900 * np.arange(300), *np.full((4, 300), 100.0))
    message = (
        "expected at least one series that something can be done with, found none: "
        f"Short_5: 20 bars, {NEEDED} needed; Still_15: the price never moves"
    )
    with pytest.raises(DataInvalid, match=re.escape(message)):
        prepare_series(settings, given)


@pytest.mark.parametrize(
    ("named", "seconds"), [("5", 900), ("15", 300), ("1h", 3_599), ("60", 86_400)]
)
def test_bars_of_another_timeframe_than_their_files_name_are_refused(
    named: str, seconds: int, settings: Settings
) -> None:
    called = "60" if named == "1h" else named
    message = (
        rf"^Nifty_{called}: bars: expected bars of {60 * int(called)} s, .* {seconds} s .*: "
        "another timeframe; the file is named after another, or its seconds are wrong$"
    )
    with pytest.raises(DataInvalid, match=message):
        prepare_series(settings, {("Nifty", named): random_bars(NEEDED, seconds=seconds)})


def test_hours_whose_first_is_cut_are_taken(settings: Settings) -> None:
    """As vendors give them for a session from 09:30: 09:30, 10:00, 11:00, ..."""
    bars = random_bars(NEEDED, seconds=3_600)
    clock = np.array([0, 1_800, 5_400, 9_000, 12_600, 16_200, 19_800])
    day, bar = np.divmod(np.arange(NEEDED), len(clock))
    bars = Bars(
        1_700_000_000 + 86_400 * day + clock[bar], bars.open, bars.high, bars.low, bars.close
    )
    prepared = prepare_series(settings, {("Nifty", "60"): bars})
    assert prepared.manifest.series[0].skipped is None


# spellings


def test_a_timeframe_is_prepared_as_one_in_every_spelling(
    settings: Settings, series: AllSeries
) -> None:
    spelt = {"5": "5min", "15": "M15"}
    given = {(name, spelt[timeframe]): bars for (name, timeframe), bars in series.items()}
    assert_equal(prepare_series(settings, given), prepare_series(settings, series))


def test_files_are_prepared_alike_in_every_spelling(
    settings: Settings, series: AllSeries, tmp_path: Path
) -> None:
    spelt = {"5": "5min", "15": "M15"}  # which come in another order
    for folder, names in (("one", {}), ("other", spelt)):
        (tmp_path / folder).mkdir()
        for (name, timeframe), bars in series.items():
            file = f"{name}_{names.get(timeframe, timeframe)}.csv"
            write_csv(bars, tmp_path / folder / file)
    one, other = (prepare(settings, [tmp_path / folder]) for folder in ("one", "other"))
    assert other.digest() == one.digest()


def test_two_spellings_of_one_series_are_refused(settings: Settings, series: AllSeries) -> None:
    twice = {("Nifty", "five"): series["Nifty", "5"], ("Nifty", "5m"): series["Nifty", "5"]}
    declaring = settings.model_copy(update={"timeframes": {"five": TimeframeFacts(seconds=300)}})
    message = "^Nifty: expected one series of a timeframe, found 'five' and '5m', which are one"
    with pytest.raises(DataInvalid, match=message):
        prepare_series(declaring, twice)


def test_a_spelling_is_that_of_a_given_vocabulary(settings: Settings, series: AllSeries) -> None:
    known = Vocabulary.of(settings, [("Nifty", "5")])
    known = replace(known, timeframes={"5m": known.timeframes["5"]})
    prepared = prepare_series(settings, {("Nifty", "5"): series["Nifty", "5"]}, known)
    assert (set(prepared.sample_timeframe), prepared.manifest.series[0].timeframe) == ({1}, "5m")


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
    write_csv(constant_bars(5), tmp_path / "Short_5.csv")
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
    given = {name: series[name] for name in KINDS[1:]} | {("Short", "5"): constant_bars(5)}
    prepare_series(settings, given).save(path)
    with pytest.raises(SettingsInvalid, match=r"^instruments\.Tcs: expected a name of the data; "):
        load_or_prepare(settings, path)
    assert len(load_or_prepare(settings, path, prepared.manifest.vocabulary))
    known = Vocabulary.of(settings, [("Tcs", "5")])
    assert len(load_or_prepare(settings, path, known=known))
    short = make_settings({"instruments.Short": {"lot_size": 7}})
    prepare_series(short, given).save(tmp_path / "short.safetensors")
    assert len(load_or_prepare(short, tmp_path / "short.safetensors"))
