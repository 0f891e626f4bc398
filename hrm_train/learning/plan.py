"""What a run is a function of, and what it starts from."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from hrm_runtime.artifact.contract import LEAST_WINDOWS
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Fold, Split, account_statistics, feature_statistics, judged_samples
from hrm_train.data.windows import Windows, spread, windows
from hrm_train.errors import CheckpointInvalid, DataInvalid
from hrm_train.learning.checkpoint import Checkpoint, fold_name, load_checkpoint
from hrm_train.learning.extension import extended
from hrm_train.learning.run import Tensors
from hrm_train.learning.state import Origin
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.scales import calibrate
from hrm_train.settings import Settings

HELD_OUT_WINDOWS: Final = 512
CALIBRATION_WINDOWS: Final = 512


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run is a function of: settings, tensors, their split, and where it starts from.

    `judged_from` and `judged_until` as in `checkpoint.Description`. The boundary of the split is
    not before what the source knew.
    """

    settings: Settings
    prepared: Prepared
    split: Split
    judged_from: int
    judged_until: int | None
    source: Checkpoint | None
    quantise: bool

    @property
    def quantised(self) -> bool:
        """Whether quantisers are on: a source that has them keeps them."""
        return self.quantise or (self.source is not None and self.source.model.quantised)

    @cached_property  # it reads all of the tensors
    def origin(self) -> Origin:
        """The same, to be written down."""
        return Origin(
            settings=self.settings.model_dump(mode="json"),
            data=self.prepared.digest(),
            boundary=self.split.boundary,
            judged_from=self.judged_from,
            judged_until=self.judged_until,
            initialized_from=None if self.source is None else self.source.sha256,
            quantised=self.quantised,
        )

    def start(self) -> "Start":
        """The network before the first step: drawn from the seed, or that of the source.

        Raises:
            SettingsInvalid, DataInvalid: as `extension.extended`, or the data has other facts of a
                name than the source knows.
        """
        prepared, train = self.prepared, self.split.train
        if self.source is None:
            model = initial_model(self.settings, prepared, self.split)
            return Start(model, prepared, _untrained(prepared, train))
        known = self.source.description.vocabulary
        series = prepared.manifest.series
        model, vocabulary = extended(
            self.source.model,
            known,
            self.settings,
            [(one.instrument, one.timeframe) for one in series if one.skipped is None],
        )
        prepared = prepared.renumbered(vocabulary)
        instruments, timeframes = _untrained(prepared, train)
        untrained = (  # what the source knew it was trained on
            instruments - {one.id for one in known.instruments.values()},
            timeframes - {one.id for one in known.timeframes.values()},
        )
        return Start(model, prepared, untrained)


@dataclass(frozen=True, eq=False)
class Start:
    """Where a run starts.

    Attributes:
        model: with the statistics, the names and the weights of before the first step.
        prepared: the tensors, under the ids of its names.
        untrained: ids of instruments and of timeframes of which neither this run nor its source has
            a training sample.
    """

    model: HierarchicalReasoningModel
    prepared: Prepared
    untrained: tuple[set[int], set[int]]


def initial_model(
    settings: Settings, prepared: Prepared, split: Split
) -> HierarchicalReasoningModel:
    """A model drawn from the seed, with the statistics of the training part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        model = HierarchicalReasoningModel(settings)
    for standardise, found in (
        (model.input_network.features, feature_statistics(prepared, split)),
        (model.input_network.account, account_statistics(prepared, split)),
    ):
        standardise.mean.copy_(torch.from_numpy(found.mean))
        standardise.std.copy_(torch.from_numpy(found.std))
    return model


def held_out(settings: Settings, prepared: Prepared, split: Split) -> Windows:
    """Windows of the validation part, over all sides, instruments and timeframes."""
    config = settings.network.input
    if len(split.validation) < LEAST_WINDOWS:
        raise DataInvalid(
            f"expected at least {LEAST_WINDOWS} validation samples for an artifact to prove itself "
            f"on, found {len(split.validation)}; give more bars or a larger validation_fraction"
        )
    chosen = spread(prepared, split.validation, HELD_OUT_WINDOWS, settings.training.seed)
    return windows(prepared, chosen, config.bars_needed)


def switch_quantisers_on(
    model: HierarchicalReasoningModel, prepared: Prepared, split: Split
) -> None:
    """Switch quantisers on, calibrated on samples from all over the training part."""
    settings = model.settings
    chosen = spread(prepared, split.train, CALIBRATION_WINDOWS, settings.training.seed)
    tensors = Tensors(prepared, settings.network.input.window, model.device)
    model.quantise(calibrate(model, *tensors.inputs(torch.from_numpy(chosen).to(model.device))))


def unseen_by(
    source: Checkpoint, named: str, prepared: Prepared, split: Split, horizon: int
) -> Split:
    """The split, validating on nothing that the checkpoint called `named` has seen.

    Raises:
        DataInvalid: it has seen all of it.
    """
    seen = source.description.judged_from
    unseen = judged_samples(prepared, seen, None, horizon)
    validation = np.intersect1d(split.validation, unseen)
    if not len(validation):
        raise DataInvalid(
            f"{named}: expected bars to validate on that are later than what this "
            "checkpoint knows, found none; give later bars"
        )
    return replace(split, boundary=max(split.boundary, seen), validation=validation)


def fold_source(walk: str | Path, fold: Fold) -> Checkpoint:
    """The checkpoint of a fold in the folder of an earlier walk over the same parts."""
    folder = Path(walk) / fold_name(fold.number)
    source = load_checkpoint(folder)
    known = source.description
    found = (known.boundary, known.judged_from, known.judged_until)
    if found != (fold.split.boundary, fold.start, fold.end):
        raise CheckpointInvalid(
            f"{folder}: expected a fold that knows and is judged on the same parts of time, "
            f"{(fold.split.boundary, fold.start, fold.end)}, found {found}; give the same data, "
            "folds, label_horizon and validation_fraction as it was trained with"
        )
    return source


def _untrained(prepared: Prepared, train: npt.NDArray[np.int64]) -> tuple[set[int], set[int]]:
    """The ids of instruments and of timeframes that no training sample has."""
    vocabulary = prepared.manifest.vocabulary
    return (
        {one.id for one in vocabulary.instruments.values()}
        - {0, *prepared.sample_instrument[train].tolist()},
        {one.id for one in vocabulary.timeframes.values()}
        - {0, *prepared.sample_timeframe[train].tolist()},
    )
