"""Training tensors: what they are, what they mean, and the one safetensors file of them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hrm_runtime.artifact.schema import SchemaMismatch, build
from hrm_runtime.files import whole
from hrm_runtime.market.bars import counted
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_runtime.market.instruments import Instrument, Timeframe, Trading
from hrm_runtime.market.series import SkippedSeries
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.differences import differences
from hrm_train.errors import DataInvalid
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
            timeframes={
                name: vocabulary.timeframes[vocabulary.own_timeframe(name)]
                for name in own.timeframes
            },
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
                self.sample_instrument, own.instruments, known.instruments
            ),
            sample_timeframe=_renumbered(self.sample_timeframe, own.timeframes, known.timeframes),
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


def trading_rules(settings: Settings) -> Trading:
    """Costs and distances as the contract states them."""
    return Trading(**settings.trading.model_dump())
