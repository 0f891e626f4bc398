"""Errors of training, part of the tree in `hrm_runtime.errors`.

HrmError
├── SettingsInvalid      mend settings.yaml; nothing has started
├── DataInvalid          mend the data files; nothing was written
├── DeviceMissing        ask for a device that this machine has
├── CheckpointInvalid    not a checkpoint, or one of other dimensions
├── ReportRefused        install what reports training, or report it elsewhere
├── TrainingDiverged     lower the learning rate; the last good epoch is kept
└── TrainingStopped      as it was asked to; resume it
"""

from hrm_runtime.errors import HrmError


class SettingsInvalid(HrmError):
    """Settings that are unknown, mistyped or impossible."""


class DataInvalid(HrmError):
    """Data from which nothing can be trained."""


class DeviceMissing(HrmError):
    """A device was asked for that is not there."""


class CheckpointInvalid(HrmError):
    """A checkpoint that is missing, incomplete, or of other dimensions."""


class ReportRefused(HrmError):
    """Progress that cannot be reported as asked for; what was saved before stands."""


class TrainingDiverged(HrmError):
    """A loss that is no longer a number."""


class TrainingStopped(HrmError):
    """Training ended before its end because it was asked to."""
