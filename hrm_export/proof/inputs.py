"""What the network gets: windows of bars, as `Model.run` takes them, and windows at the edge."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.model import Floats, Ids, network_inputs
from hrm_runtime.market.account import Account
from hrm_runtime.market.features import rows
from hrm_runtime.market.instruments import name_of
from hrm_runtime.market.series import SkippedSeries, listed
from hrm_train.data.preparation import prepare
from hrm_train.data.prepared import Prepared, skipped_of
from hrm_train.data.windows import Windows, spread, windows
from hrm_train.learning.checkpoint import Checkpoint

HARD_WINDOWS: Final = 16
"""Of each kind that `hard` makes."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the network gets for g decisions; the fields as `Model.run`, and the accounts."""

    features: Floats
    account: Floats
    instrument: Ids
    timeframe: Ids
    accounts: tuple[Account, ...]

    def __len__(self) -> int:
        return len(self.accounts)

    def slice(self, start: int, stop: int) -> "Inputs":
        """A part of them."""
        return Inputs(**{name: value[start:stop] for name, value in vars(self).items()})

    @property
    def arrays(self) -> tuple[Floats, Floats, Ids, Ids]:
        """The arguments of `Model.run`."""
        return self.features, self.account, self.instrument, self.timeframe


def window_inputs(contract: Contract, found: Windows) -> Inputs:
    """The inputs of each window, by the feature and account code that serves."""
    parts = []
    accounts = []
    for index in range(len(found)):
        facts = contract.instruments[name_of(contract.instruments, int(found.instrument[index]))]
        account = found.account(index)
        parts.append(
            network_inputs(
                contract,
                rows(found.bars(index), contract.features.history_bars),
                account,
                facts,
                int(found.timeframe[index]),
            )
        )
        accounts.append(account)
    features, account_vectors, instrument, timeframe = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    return Inputs(features, account_vectors, instrument, timeframe, tuple(accounts))


def bars_windows(
    source: Checkpoint, data: str | Path | Iterable[str | Path], most: int
) -> tuple[Windows, tuple[SkippedSeries, ...]]:
    """Windows of bars files, spread over instruments, timeframes and sides; accounts are made up.

    Returns:
        them, and the series that gave none.

    Raises:
        BadBars, DataInvalid: the data cannot be read, or no series gives any.
    """
    prepared = prepare(source.settings, listed(data), source.description.vocabulary)
    chosen = spread(prepared, np.arange(len(prepared)), most, _seed(source))
    return _windows(source, prepared, chosen), skipped_of(prepared.manifest.series)


def unseen_windows(
    source: Checkpoint, data: Iterable[str | Path], most: int
) -> tuple[Windows, int, tuple[SkippedSeries, ...]]:
    """As `bars_windows`, those later than what was trained on first; second, how many those are."""
    prepared = prepare(source.settings, data, source.description.vocabulary)
    later = prepared.sample_stamp >= source.description.boundary
    unseen, seen = (
        spread(prepared, np.flatnonzero(part), most, _seed(source)) for part in (later, ~later)
    )
    chosen = np.concatenate((unseen, seen))[:most]
    found = _windows(source, prepared, chosen)
    return found, min(len(unseen), most), skipped_of(prepared.manifest.series)


def hard(inputs: Inputs) -> Inputs:
    """Windows at and beyond the edge of what happens, made from the first ones of `inputs`.

    Features huge, of both signs at once, and all zero; every entry of the account but the side at
    its extremes; a name nobody knows.
    """
    base = inputs.slice(0, HARD_WINDOWS)
    edges = _alternating(base.account) * 1e6
    edges[:, 0] = base.account[:, 0]  # the side, which says what is legal
    mirrored = -edges
    mirrored[:, 0] = base.account[:, 0]
    unknown = np.zeros_like(base.instrument)
    kinds = (
        replace(base, features=_alternating(base.features) * 1e6),
        replace(base, features=base.features * 1e3),
        replace(base, features=np.zeros_like(base.features)),
        replace(base, account=edges),
        replace(base, account=mirrored),
        replace(base, instrument=unknown, timeframe=unknown),
    )
    features, account, instrument, timeframe = (
        np.concatenate(arrays) for arrays in zip(*(kind.arrays for kind in kinds), strict=True)
    )
    return Inputs(features, account, instrument, timeframe, base.accounts * len(kinds))


def _alternating(like: Floats) -> Floats:
    """1 and -1 in turn, along every axis."""
    odd = np.indices(like.shape).sum(axis=0) % 2
    return np.where(odd == 1, np.float32(1), np.float32(-1))


def _windows(source: Checkpoint, prepared: Prepared, chosen: Ids) -> Windows:
    return windows(prepared, chosen, source.settings.network.input.bars_needed)


def _seed(source: Checkpoint) -> int:
    return source.settings.training.seed
