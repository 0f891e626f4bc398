"""Errors of training, part of the tree in `hrm_runtime.errors`.

HrmError
├── SettingsInvalid      mend settings.yaml; nothing has started
├── DataInvalid          mend the data files; nothing was written
├── CheckpointInvalid    not a checkpoint, or one of other dimensions
└── TrainingDiverged     lower the learning rate; the last good epoch is kept
"""

from hrm_runtime.errors import HrmError


class SettingsInvalid(HrmError):
    """Settings that are unknown, mistyped or impossible."""


class DataInvalid(HrmError):
    """Data from which nothing can be trained."""


class CheckpointInvalid(HrmError):
    """A checkpoint that is missing, incomplete, or of other dimensions."""


class TrainingDiverged(HrmError):
    """A loss that is no longer a number."""
