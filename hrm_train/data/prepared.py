"""Bars to training tensors, once, in one safetensors file.

Each bar with a full window behind it and a label horizon ahead gives up to three samples: flat,
long and short, each with a synthesised account.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hrm_runtime.artifact.schema import SchemaMismatch, build
from hrm_runtime.files import whole
from hrm_runtime.market.account import vector
from hrm_runtime.market.actions import Side
from hrm_runtime.market.bars import PRICES, Bars, counted
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_runtime.market.instruments import Instrument, Timeframe, Trading
from hrm_runtime.market.series import SkippedSeries, listed, none_left, read_series, series_files
from hrm_train.data.accounts import accounts
from hrm_train.data.labels import action_returns, execution_costs, risk_lots
from hrm_train.data.parquet import READERS
from hrm_train.data.vocabulary import Vocabulary, require_names
from hrm_train.differences import differences
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Settings

FORMAT_VERSION: Final = 1
TENSORS_SUFFIX: Final = ".safetensors"

_BASIS: Final = (
    "seed",
    "label_horizon",
    "label_capital",
    "risk_fraction",
    "capital_min",
    "capital_max",
)
"""The training settings that the tensors depend on."""

_SPACING: Final = (0.75, 1.25)
"""The closest two bars may be this far apart, in timeframes: holidays and clocks shift stamps."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What was read of one series."""

    instrument: str
    timeframe: str
    bars: int
    duplicates: int
    disordered: int
    samples: int
    skipped: str | None


def skipped_of(series: Iterable[Series]) -> tuple[SkippedSeries, ...]:
    """Those of which nothing was made, and why."""
    return tuple(
        SkippedSeries(one.instrument, one.timeframe, one.skipped)
        for one in series
        if one.skipped is not None
    )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the tensors mean: vocabularies with their facts, and the settings behind them."""

    format_version: int
    feature_version: int
    features: tuple[str, ...]
    account: tuple[str, ...]
    vocabulary: Vocabulary
    basis: dict[str, Any]
    series: tuple[Series, ...]

    @classmethod
    def of(cls, settings: Settings, vocabulary: Vocabulary, series: Iterable[Series]) -> "Manifest":
        """Of tensors that this library makes with `settings`."""
        return cls(
            format_version=FORMAT_VERSION,
            feature_version=FEATURE_VERSION,
            features=FEATURES,
            account=ACCOUNT,
            vocabulary=vocabulary,
            basis=basis(settings),
            series=tuple(series),
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """Training tensors: b bars, r rows and m samples of all series, concatenated.

    Attributes:
        manifest: what they mean.
        bar_stamp: int64 [b], epoch seconds.
        bar_price: float64 [b, 4], open, high, low, close.
        row_bar: int64 [r], the bar of each row.
        features: float32 [r, F].
        sample_row: int64 [m], the newest row of the window.
        sample_instrument, sample_timeframe: int64 [m] ids.
        sample_account: float32 [m, C], as the network sees it.
        sample_raw_account: float64 [m, 6], the fields of `Account`.
        sample_returns: float32 [m, 5], best return by first action in ATR; NaN where illegal.
        sample_lots: float32 [m], what an opening should be.
        sample_end: int64 [m], the stamp at which the label is known.
    """

    manifest: Manifest
    bar_stamp: npt.NDArray[np.int64]
    bar_price: npt.NDArray[np.float64]
    row_bar: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    sample_row: npt.NDArray[np.int64]
    sample_instrument: npt.NDArray[np.int64]
    sample_timeframe: npt.NDArray[np.int64]
    sample_account: npt.NDArray[np.float32]
    sample_raw_account: npt.NDArray[np.float64]
    sample_returns: npt.NDArray[np.float32]
    sample_lots: npt.NDArray[np.float32]
    sample_end: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sample_row)

    def __repr__(self) -> str:
        series, bars = len(self.manifest.series), len(self.bar_stamp)
        return (
            f"Prepared({counted(len(self), 'sample')} of {counted(bars, 'bar')}, {series} series)"
        )

    @property
    def sample_stamp(self) -> npt.NDArray[np.int64]:
        """int64 [m]: the stamp of each window's newest bar."""
        return self.bar_stamp[self.row_bar[self.sample_row]]

    @property
    def sample_side(self) -> npt.NDArray[np.int64]:
        """int64 [m]: the side of each account, as -1, 0 or 1."""
        return np.sign(self.sample_raw_account[:, 1]).astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write one new safetensors file, whole or not at all.

        Raises:
            DataInvalid: as `require_new_file`, or the path cannot be written.
        """
        require_new_file(path)
        arrays = {name: value for name, value in vars(self).items() if name != "manifest"}
        try:
            with whole(Path(path)) as partial:
                partial.write_bytes(save(arrays, {"manifest": json.dumps(asdict(self.manifest))}))
        except OSError as error:
            raise DataInvalid(f"{path}: expected to write training tensors: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Prepared":
        """Read a file written by `save`.

        Raises:
            DataInvalid: not such a file, or made with other feature definitions.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                manifest = build(Manifest, json.loads((file.metadata() or {})["manifest"]))
            prepared = cls(manifest=manifest, **arrays)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, SchemaMismatch) as error:
            raise DataInvalid(f"{path}: expected training tensors: {error}") from error
        found = (manifest.format_version, manifest.feature_version)
        names = (manifest.features, manifest.account)
        if found != (FORMAT_VERSION, FEATURE_VERSION) or names != (FEATURES, ACCOUNT):
            raise DataInvalid(
                f"{path}: expected format {FORMAT_VERSION} and feature definitions "
                f"{FEATURE_VERSION}, found {found[0]} and {found[1]}; prepare it again"
            )
        return prepared

    def require(self, settings: Settings) -> None:
        """Hold the tensors to the settings they are to be trained with.

        Raises:
            DataInvalid: naming what differs.
        """
        called = ("settings", "tensors")
        if differing := differences(basis(settings), self.manifest.basis, called):
            raise DataInvalid(
                f"the tensors were prepared with other settings ({differing}); prepare them again"
            )
        self.manifest.vocabulary.require_rows(settings.network.embeddings)

    def renumbered(self, vocabulary: Vocabulary) -> "Prepared":
        """The same samples under the ids of another vocabulary, which knows all their names.

        Raises:
            DataInvalid: it has other facts of one of them than these samples were made with.
        """
        own = self.manifest.vocabulary
        known = Vocabulary(
            instruments={name: vocabulary.instruments[name] for name in own.instruments},
            timeframes={name: vocabulary.timeframes[name] for name in own.timeframes},
        )
        if differing := known.differences(own, ("known", "found"), ids=False):
            raise DataInvalid(
                f"expected the facts of names that are known; they differ in {differing}; declare "
                "the same in the settings, and prepare tensors again"
            )
        return replace(
            self,
            manifest=replace(self.manifest, vocabulary=vocabulary),
            sample_instrument=_renumbered(
                self.sample_instrument, own.instruments, vocabulary.instruments
            ),
            sample_timeframe=_renumbered(
                self.sample_timeframe, own.timeframes, vocabulary.timeframes
            ),
        )

    def digest(self) -> str:
        """The sha256 of everything in it."""
        found = hashlib.sha256(json.dumps(asdict(self.manifest), sort_keys=True).encode())
        for name, array in vars(self).items():
            if name != "manifest":
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def _renumbered(
    ids: npt.NDArray[np.int64],
    before: Mapping[str, Instrument] | Mapping[str, Timeframe],
    after: Mapping[str, Instrument] | Mapping[str, Timeframe],
) -> npt.NDArray[np.int64]:
    table = np.zeros(1 + len(before), dtype=np.int64)  # 0 stays 0
    for name, entry in before.items():
        table[entry.id] = after[name].id
    return table[ids]


def require_new_file(path: str | Path) -> None:
    """Hold a path for training tensors to what can be written, before any work.

    Raises:
        DataInvalid: not called *.safetensors, in no folder, or already there.
    """
    path = Path(path)
    if path.suffix.lower() != TENSORS_SUFFIX:
        raise DataInvalid(f"{path}: expected a name ending in {TENSORS_SUFFIX}")
    if not os.path.isdir(path.parent):
        raise DataInvalid(f"{path}: expected its folder to exist")
    if os.path.lexists(path):
        raise DataInvalid(f"{path}: expected a new file; choose another name or remove it")


def basis(settings: Settings) -> dict[str, Any]:
    """The settings that training tensors depend on, as JSON."""
    training = settings.training.model_dump(mode="json")
    return {
        **{f"training.{key}": training[key] for key in _BASIS},
        **{
            f"input.{key}": getattr(settings.network.input, key)
            for key in ("history_bars", "window")
        },
        "trading": settings.trading.model_dump(mode="json"),
        "quantity": [
            settings.network.output_heads.quantity_min,
            settings.network.output_heads.quantity_max,
        ],
        "instruments": {k: v.model_dump(mode="json") for k, v in settings.instruments.items()},
        "timeframes": {k: v.model_dump(mode="json") for k, v in settings.timeframes.items()},
    }


def prepare(
    settings: Settings,
    paths: Iterable[str | Path],
    vocabulary: Vocabulary | None = None,
    known: Vocabulary | None = None,
) -> Prepared:
    """Read bars files and make training tensors of every series that has samples.

    The manifest names those that have none and were skipped: too short or motionless, of a
    timeframe whose seconds are not declared, or of a name that `vocabulary` lacks where the network
    does not decide for unknown ones.

    Args:
        settings: what to make.
        paths: files and folders of CSV and Parquet, as `hrm_runtime.market.series.read_series`.
        vocabulary: ids to use, with 0 for names outside it; made from the data if left out.
        known: where it is left out, names besides the data's that settings may have facts of.

    Raises:
        BadBars: a file cannot be read as bars.
        DataInvalid: a file's bars are not of its timeframe, every series was skipped, or there are
            more names than the embedding tables have rows.
        SettingsInvalid: as `require_names`, before a file is read.
    """
    paths = listed(paths)
    if vocabulary is None:
        require_names(settings, series_files(paths), known)
    return prepare_series(settings, read_series(paths, READERS), vocabulary)


def prepare_series(
    settings: Settings,
    series: Mapping[tuple[str, str], Bars],
    vocabulary: Vocabulary | None = None,
) -> Prepared:
    """`prepare` of bars already read, by (instrument, timeframe)."""
    undeclared = _undeclared(settings, vocabulary, series)
    candidates = vocabulary or Vocabulary.of(settings, series.keys() - undeclared.keys())
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    reports: list[Series] = []
    bars_before = rows_before = 0
    for (name, timeframe_name), bars in series.items():
        arrays, skipped = None, undeclared.get((name, timeframe_name))
        if skipped is None:
            timeframe = candidates.timeframe(settings, timeframe_name)
            _require_spacing(f"{name}_{timeframe_name}", bars, timeframe.seconds)
            skipped = candidates.refusal(settings.network.embeddings, name, timeframe_name)
        if skipped is None:
            arrays, skipped = _samples(settings, bars, name, candidates.instrument(name), timeframe)
        if arrays is not None:
            arrays["row_bar"] += bars_before
            arrays["sample_row"] += rows_before
            bars_before += len(bars)
            rows_before += len(arrays["row_bar"])
            parts[name, timeframe_name] = arrays
        reports.append(
            Series(
                instrument=name,
                timeframe=timeframe_name,
                bars=len(bars),
                duplicates=bars.cleaning.duplicates,
                disordered=bars.cleaning.disordered,
                samples=0 if arrays is None else len(arrays["sample_row"]),
                skipped=skipped,
            )
        )
    if not parts:
        raise DataInvalid(none_left(skipped_of(reports)))
    # a name of which every series was skipped stays unknown
    vocabulary = vocabulary or Vocabulary.of(settings, parts)
    for (name, timeframe_name), arrays in parts.items():
        count = len(arrays["sample_row"])
        timeframe = vocabulary.timeframe(settings, timeframe_name)
        arrays["sample_instrument"] = np.full(count, vocabulary.instrument(name).id)
        arrays["sample_timeframe"] = np.full(count, timeframe.id)
    columns = next(iter(parts.values())).keys()
    prepared = Prepared(
        Manifest.of(settings, vocabulary, reports),
        **{name: np.concatenate([part[name] for part in parts.values()]) for name in columns},
    )
    prepared.require(settings)
    return prepared


def load_or_prepare(
    settings: Settings,
    data: str | Path | Iterable[str | Path],
    vocabulary: Vocabulary | None = None,
    known: Vocabulary | None = None,
) -> Prepared:
    """Training tensors from one prepared file, or from bars.

    Args:
        vocabulary: for bars, as `prepare`; a prepared file has its own.
        known: as `prepare`.

    Raises:
        DataInvalid: tensors beside other data, or made with other settings.
        BadBars, SettingsInvalid: as `prepare`.
    """
    paths = listed(data)
    if not any(path.suffix.lower() == TENSORS_SUFFIX for path in paths):
        return prepare(settings, paths, vocabulary, known)
    if len(paths) > 1:
        raise DataInvalid("data: expected one prepared tensor file, or bars; found both or several")
    prepared = Prepared.load(paths[0])
    prepared.require(settings)
    if vocabulary is None:
        series = prepared.manifest.series
        require_names(settings, [(one.instrument, one.timeframe) for one in series], known)
    return prepared


def _undeclared(
    settings: Settings, vocabulary: Vocabulary | None, series: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """The series of which nobody says how long a bar is, and what to do about it."""
    found = {}
    for name, timeframe in series:
        if vocabulary is None or timeframe not in vocabulary.timeframes:
            try:
                settings.seconds(timeframe)
            except SettingsInvalid as error:
                found[name, timeframe] = str(error)
    return found


def trading_rules(settings: Settings) -> Trading:
    """The host's rules as the contract states them."""
    return Trading(**settings.trading.model_dump())


def _samples(
    settings: Settings, bars: Bars, name: str, instrument: Instrument, timeframe: Timeframe
) -> tuple[dict[str, Any] | None, str | None]:
    """The arrays of one series, or why it has none."""
    from hrm_runtime.market.features import rows  # training from tensors has no TA-Lib

    config, training = settings.network.input, settings.training
    horizon, trading = training.label_horizon, trading_rules(settings)
    lead = max(config.window - 1, horizon)  # rows before the first sample: its window, its entries
    needed = config.history_bars + lead + horizon
    if len(bars) < needed:
        return None, f"{len(bars)} bars, {needed} needed"

    table = rows(bars, config.history_bars)
    first_bar = config.history_bars - 1
    atr = np.full(len(bars), np.nan)
    atr[first_bar:] = [row.atr for row in table]
    costs = execution_costs(bars.open, instrument, trading, training.label_capital)
    returns = action_returns(bars, horizon, *costs)
    at = np.arange(first_bar + lead, len(bars) - horizon)
    # a motionless stretch has no ATR to measure a return or a stop in
    at = at[(sliding_window_view(atr, horizon + 1)[at - horizon] > 0).all(axis=1)]
    if not len(at):
        return None, "the price never moves"

    rng = np.random.default_rng([training.seed, *f"{name}_{timeframe.seconds}".encode()])
    bounds = (
        settings.network.output_heads.quantity_min,
        settings.network.output_heads.quantity_max,
    )
    columns: dict[str, list[Any]] = {
        "row": [], "account": [], "raw_account": [], "returns": [], "lots": [], "end": [],
    }  # fmt: skip
    for side in Side:
        made = accounts(bars, atr, at, side, instrument, trading, settings, rng)
        for bar, account in zip(at.tolist(), made, strict=True):
            if account is None:
                continue
            close, range_ = float(bars.close[bar]), float(atr[bar])
            columns["row"].append(bar - first_bar)
            columns["account"].append(
                vector(
                    account,
                    close=close,
                    atr=range_,
                    instrument=instrument,
                    brokerage_entry=trading.brokerage_entry,
                    quantity_max=bounds[1],
                )
            )
            columns["raw_account"].append(list(vars(account).values()))
            columns["returns"].append(returns[bar, side + 1] / range_)
            columns["lots"].append(
                risk_lots(
                    account.capital,
                    close,
                    range_,
                    instrument,
                    trading,
                    training.risk_fraction,
                    bounds,
                )
            )
            columns["end"].append(bars.datetime[bar + horizon])
    return {
        "bar_stamp": bars.datetime,
        "bar_price": np.stack([getattr(bars, price) for price in PRICES], axis=1),
        "row_bar": np.arange(first_bar, len(bars)),
        "features": np.stack([row.values for row in table]),
        "sample_row": np.array(columns["row"], dtype=np.int64),
        "sample_account": np.array(columns["account"], dtype=np.float32),
        "sample_raw_account": np.array(columns["raw_account"], dtype=np.float64),
        "sample_returns": np.array(columns["returns"], dtype=np.float32),
        "sample_lots": np.array(columns["lots"], dtype=np.float32),
        "sample_end": np.array(columns["end"], dtype=np.int64),
    }, None


def _require_spacing(name: str, bars: Bars, seconds: int) -> None:
    if len(bars) < 2:
        return
    closest = int(np.diff(bars.datetime).min())
    low, high = (share * seconds for share in _SPACING)
    if not low <= closest <= high:
        raise DataInvalid(
            f"{name}: expected bars {seconds} s apart, the closest are {closest} s; "
            "the file is named after another timeframe, or the timeframe's seconds are wrong"
        )
