"""Parquet reads as CSV does: the same bars, the same refusals, the same training."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from exactly import assert_equal
from synthetic import random_bars

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars, Cleaning
from hrm_runtime.market.csv_files import read_csv, write_csv
from hrm_runtime.market.series import READERS as WITHOUT_PARQUET
from hrm_runtime.market.series import read_bars, read_series
from hrm_train import load_checkpoint, train
from hrm_train.data.parquet import READERS, read_parquet
from hrm_train.data.preparation import prepare
from hrm_train.data.prepared import Prepared
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]

COLUMNS: dict[str, list[float]] = {
    "datetime": [31_536_300, 31_536_600, 31_536_900],
    "open": [10.0, 11.0, 12.0],
    "high": [11.5, 12.5, 13.5],
    "low": [9.5, 10.5, 11.5],
    "close": [11.0, 12.0, 13.0],
    "volume": [0.0, 7.0, 9.0],
}


def write(path: Path, columns: dict[str, Any]) -> Path:
    polars.DataFrame(columns).write_parquet(path)
    return path


def columns_of(bars: Bars) -> dict[str, Any]:
    return {name: getattr(bars, name) for name in COLUMNS if getattr(bars, name) is not None}


def assert_same(found: Bars, expected: Bars) -> None:
    assert columns_of(found).keys() == columns_of(expected).keys()
    for name, column in columns_of(expected).items():
        np.testing.assert_array_equal(getattr(found, name), column, strict=True)
    assert found.cleaning == expected.cleaning


@pytest.fixture
def mixed_folder(bars_folder: Path, tmp_path: Path) -> Path:
    """The series of `bars_folder`, of which one is Parquet."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for file in bars_folder.iterdir():
        bars = read_csv(file)
        if file.stem == "Nifty_5":
            write(folder / "Nifty_5.parquet", columns_of(bars))
        else:
            write_csv(bars, folder / file.name)
    return folder


# one file


@pytest.mark.parametrize("volume", [True, False], ids=["volume", "no volume"])
def test_parquet_and_csv_of_the_same_bars_read_bit_equal(tmp_path: Path, volume: bool) -> None:
    clean = random_bars(50, seed=3)
    noise = np.random.default_rng(3).random(50)  # no short decimals
    written = Bars(
        clean.datetime, clean.open, clean.high + noise, clean.low - noise, clean.close,
        noise if volume else None,
    )  # fmt: skip
    write_csv(written, tmp_path / "bars.csv")
    read = read_parquet(write(tmp_path / "bars.parquet", columns_of(written)))
    assert_same(read, written)
    assert_same(read, read_csv(tmp_path / "bars.csv"))


def test_columns_are_found_by_name_and_others_of_whatever_type_are_ignored(tmp_path: Path) -> None:
    columns = {
        "index": [{"a": 1}] * 3,
        "symbol": ["Nifty 50", None, ""],
        **dict(reversed(COLUMNS.items())),
        "timestamp": [datetime.datetime(2024, 1, 1)] * 3,
    }
    assert_same(read_parquet(write(tmp_path / "x.parquet", columns)), Bars(**COLUMNS))


@pytest.mark.parametrize("volume", [[None, 7.0, -1.0], [None] * 3], ids=["some", "none"])
def test_a_volume_that_nobody_knows_is_as_an_empty_cell(tmp_path: Path, volume: list[Any]) -> None:
    columns = {**COLUMNS, "volume": volume}
    polars.DataFrame(columns).write_parquet(tmp_path / "bars.parquet")
    rows = [
        ",".join("" if cell is None else str(cell) for cell in row)
        for row in zip(*columns.values(), strict=True)
    ]
    (tmp_path / "bars.csv").write_text("\n".join([",".join(columns), *rows]))
    ours, theirs = read_parquet(tmp_path / "bars.parquet"), read_csv(tmp_path / "bars.csv")
    np.testing.assert_array_equal(ours.volume, [np.nan, volume[1] or np.nan, np.nan])
    np.testing.assert_array_equal(theirs.volume, ours.volume)


def test_disorder_and_duplicates_are_mended_and_counted_as_in_csv(tmp_path: Path) -> None:
    order = [2, 0, 1, 1]
    columns = {name: [column[i] for i in order] for name, column in COLUMNS.items()}
    read = read_parquet(write(tmp_path / "x.parquet", columns))
    assert read.cleaning == Cleaning(duplicates=1, disordered=1)
    assert {name: column.tolist() for name, column in columns_of(read).items()} == COLUMNS


@pytest.mark.parametrize(
    "kind",
    [polars.Int8, polars.UInt64, polars.Int128, polars.Float32, polars.Decimal(10, 2)],
    ids=str,
)
def test_a_column_of_any_kind_of_number_is_read(kind: Any, tmp_path: Path) -> None:
    close = polars.Series([11, 12, 13]).cast(kind)
    columns = {
        **COLUMNS,
        "close": close,
        "datetime": polars.Series([31_536_300, 31_536_600, 31_536_900]).cast(polars.Int32),
    }
    assert_same(read_parquet(write(tmp_path / "x.parquet", columns)), Bars(**COLUMNS))


def test_no_rows_are_no_bars(tmp_path: Path) -> None:
    schema = {name: polars.Int64 if name == "datetime" else polars.Float64 for name in COLUMNS}
    polars.DataFrame(schema=schema).write_parquet(tmp_path / "x.parquet")
    assert len(read_parquet(tmp_path / "x.parquet")) == 0


@pytest.mark.parametrize("name", ["Nifty_*_5.parquet", "[N]ifty_5.parquet", "file:Nifty_5.parquet"])
def test_a_name_is_no_pattern_or_address(name: str, tmp_path: Path) -> None:
    write(tmp_path / "Nifty_5.parquet", {**COLUMNS, "close": [10.5, 11.5, 12.5]})
    assert_same(read_parquet(write(tmp_path / name, COLUMNS)), Bars(**COLUMNS))


def test_a_host_s_file_of_features_is_read_as_the_bars_in_it(tmp_path: Path) -> None:
    stamps = {"datetime_epoch": COLUMNS["datetime"]}
    features = {f"sma_{period}": [None, 0.01, 0.02] for period in range(1, 49)}
    prices = {name: column for name, column in COLUMNS.items() if name != "datetime"}
    for more in ({}, {"datetime": polars.Series(COLUMNS["datetime"]).cast(polars.Int32)}):
        path = write(
            tmp_path / "features_Nifty_5.parquet", {**prices, **stamps, **features, **more}
        )
        assert_same(read_parquet(path), Bars(**COLUMNS))
        assert [*read_series(tmp_path, READERS)] == [("Nifty", "5")]


# refusals

DAY = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"close": None}, "missing close; found datetime, open, high, low, volume"),
        ({"datetime": [DAY] * 3}, "integers in column datetime, whole epoch seconds .* Datetime"),
        ({"datetime": [DAY.date()] * 3}, "integers in column datetime, .*; found Date"),
        (
            {"datetime": [31_536_300.0, 31_536_600.0, 31_536_900.0]},
            "integers in column datetime, .*; found Float64",
        ),
        ({"datetime": ["300", "600", "900"]}, "integers in column datetime, .*; found String"),
        (
            {"datetime_epoch": [31_536_300, 31_536_601, 31_536_902]},
            "row 1: expected one stamp, found 31536600 in datetime and 31536601 in datetime_epoch",
        ),
        ({"datetime_epoch": ["1", "2", "3"]}, "integers in column datetime_epoch, .*; found Str"),
        ({"datetime": [3 * 10**11, 1, 2]}, "whole epoch seconds .* found 300000000000 in row 0"),
        (
            {"datetime": [31_536_300, None, 31_536_900]},
            "row 1: expected a number .*: found null in datetime",
        ),
        ({"close": [11.0, 12.0, None]}, "row 2: expected a number .*: found null in close"),
        ({"open": [None] * 3}, "expected numbers in column open: found Null"),
        ({"open": ["10", "11", "12"]}, "expected numbers in column open: found String"),
        ({"open": [True] * 3}, "expected numbers in column open: found Boolean"),
        ({"open": [[10.0]] * 3}, r"expected numbers in column open: found List\(Float64\)"),
        ({"open": [10.0, float("nan"), 12.0]}, "expected finite prices .* at 31536600"),
        ({"low": [9.5, 12.5, 11.5]}, "low <= open, close <= high; found .* at 31536600"),
        (
            {"datetime": [31_536_300, 31_536_600, 31_536_600]},
            "one bar per stamp; at 31536600 two differ",
        ),
    ],
)
def test_what_is_no_bars_is_refused_by_file_and_reason(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    columns = {name: c for name, c in {**COLUMNS, **changes}.items() if c is not None}
    path = write(tmp_path / "feed.parquet", columns)
    with pytest.raises(BadBars, match=rf"feed\.parquet: .*{message}"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("dates", "seconds"),
    [
        ([DAY], 1704067200),
        ([DAY.replace(tzinfo=None)], 1704067200 - 19800),
        ([DAY.date()], 1704067200 - 19800),
        (["2024-01-01 09:15:00"], 1704067200 + 33300 - 19800),
    ],
)
def test_dates_are_refused_with_the_line_that_converts_them(
    dates: list[Any], seconds: int, tmp_path: Path
) -> None:
    """Those without a zone in that of the example."""
    one = {name: column[:1] for name, column in COLUMNS.items()} | {"datetime": dates}
    path = write(tmp_path / "feed.parquet", one)
    with pytest.raises(BadBars, match="; convert dates with polars: ") as refused:
        read_parquet(path)
    line = str(refused.value).partition("polars: ")[2]
    line = line.removesuffix(", with the zone of the market's clock")
    frame = eval(line, {"polars": polars, "frame": polars.read_parquet(path)})  # noqa: S307, told
    frame.write_parquet(path)
    assert read_parquet(path).datetime.tolist() == [seconds]


@pytest.mark.parametrize(
    "content",
    [b"", b"datetime,open\n1,2\n", b"PAR1" + bytes(50) + b"PAR1"],
    ids=["empty", "CSV", "hollow"],
)
def test_a_file_that_is_not_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "feed.parquet"
    path.write_bytes(content)
    with pytest.raises(BadBars, match=r"feed\.parquet: expected a readable Parquet file: "):
        read_parquet(path)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_half_a_file_is_refused(kept: float, tmp_path: Path) -> None:
    path = write(tmp_path / "feed.parquet", columns_of(random_bars(1000)))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BadBars, match=r"feed\.parquet: expected a readable Parquet file: "):
        read_parquet(path)


def test_a_file_over_which_polars_panics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: Any, **__: Any) -> None:
        raise polars.exceptions.PanicException("out of range")

    monkeypatch.setattr(polars, "read_parquet", panic)
    path = write(tmp_path / "feed.parquet", COLUMNS)
    with pytest.raises(BadBars, match=r"feed\.parquet: expected a readable .*: out of range"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.parquet", "No such file"), ("", "Is a directory")]
)
def test_a_path_that_is_no_file_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadBars, match=f"expected a readable Parquet file: .*{reason}"):
        read_parquet(tmp_path / name)


# folders


def test_a_folder_may_hold_both(mixed_folder: Path, bars_folder: Path) -> None:
    assert {file.suffix for file in mixed_folder.iterdir()} == {".csv", ".parquet"}
    found, expected = read_series(mixed_folder, READERS), read_series(bars_folder)
    assert list(found) == list(expected)
    for name, bars in expected.items():
        assert_same(found[name], bars)


@pytest.mark.parametrize("name", ["Nifty_5.parquet", "Nifty_5.PARQUET"])
def test_a_file_is_read_by_its_suffix(name: str, tmp_path: Path) -> None:
    assert_same(read_bars(write(tmp_path / name, COLUMNS), READERS), Bars(**COLUMNS))


def test_a_series_in_both_forms_is_refused(mixed_folder: Path, bars_folder: Path) -> None:
    with pytest.raises(BadBars, match=r"Nifty_5\.parquet: expected one file per series, .*\.csv"):
        read_series([bars_folder, mixed_folder / "Nifty_5.parquet"], READERS)


def test_without_a_reader_a_folder_that_holds_parquet_is_refused_with_what_helps(
    mixed_folder: Path,
) -> None:
    message = r"Nifty_5\.parquet: expected CSV; .* hrm_train\.parquet, .* pip install '\.\[train\]'"
    with pytest.raises(BadBars, match=message):
        read_series(mixed_folder, WITHOUT_PARQUET)


def test_csv_alone_needs_no_polars(bars_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    assert list(read_series(bars_folder, READERS)) == list(read_series(bars_folder))
    with pytest.raises(ModuleNotFoundError, match="polars"):
        read_parquet("Nifty_5.parquet")


def test_tensors_of_a_mixed_folder_are_those_of_csv(
    mixed_folder: Path, prepared: Prepared, settings: Settings
) -> None:
    found = prepare(settings, [mixed_folder])
    assert found.manifest == prepared.manifest
    for name, array in vars(prepared).items():
        if name != "manifest":
            np.testing.assert_array_equal(getattr(found, name), array, strict=True)


def test_training_on_a_mixed_folder_gives_the_weights_of_csv(
    mixed_folder: Path, trained: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    found = train(make_settings({"training.epochs": 2}), [mixed_folder], tmp_path / "out")
    expected = load_checkpoint(trained).model
    assert_equal(dict(found.model.state_dict()), dict(expected.state_dict()))
