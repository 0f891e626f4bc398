"""Settings: the schema of `settings.yaml`, its presets, its reader and its commented writer."""

from hrm_train.settings.presets import *  # noqa: F403, all of them
from hrm_train.settings.reader import *  # noqa: F403
from hrm_train.settings.schema import *  # noqa: F403
from hrm_train.settings.writer import *  # noqa: F403
