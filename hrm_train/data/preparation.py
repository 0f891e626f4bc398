"""Bars to training tensors, once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.series import listed, none_left, read_series, series_files
from hrm_runtime.market.spacing import require_spacing
from hrm_train.data.parquet import READERS
from hrm_train.data.prepared import TENSORS_SUFFIX, Manifest, Prepared, Series, skipped_of
from hrm_train.data.samples import series_samples
from hrm_train.data.vocabulary import NAMELESS, Vocabulary, require_names
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Settings


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
        DataInvalid: a file's bars are not of its timeframe, two hold one series, every series was
            skipped, or there are more names than the embedding tables have rows.
        SettingsInvalid: as `require_names`, before a file is read.
    """
    paths = listed(paths)
    if vocabulary is None:
        require_names(settings, series_files(paths), known)
    series = (vocabulary or NAMELESS).named(settings, read_series(paths, READERS))
    return prepare_series(settings, dict(sorted(series.items())), vocabulary)


def prepare_series(
    settings: Settings,
    series: Mapping[tuple[str, str], Bars],
    vocabulary: Vocabulary | None = None,
) -> Prepared:
    """`prepare` of bars already read, by (instrument, timeframe)."""
    series = (vocabulary or NAMELESS).named(settings, series)
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
            arrays, skipped = series_samples(
                settings, bars, name, candidates.instrument(name), timeframe
            )
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


def _require_spacing(name: str, bars: Bars, seconds: int) -> None:
    try:
        require_spacing(bars.datetime, seconds)
    except BadBars as error:
        raise DataInvalid(
            f"{name}: {error}; the file is named after another, or its seconds are wrong"
        ) from error
