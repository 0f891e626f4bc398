"""Errors of exporting, part of the tree in `hrm_runtime.errors`.

HrmError
├── ExportRefused     mend the call: the output path exists or cannot be written
└── GateFailed        the artifact is not what torch computed; none was written
    └── ParityFailed
"""

from hrm_runtime.errors import HrmError


class ExportRefused(HrmError):
    """The export cannot start or be written where it was asked for."""


class GateFailed(HrmError):
    """A check of the finished graph failed; nothing was written."""


class ParityFailed(GateFailed):
    """The graph does not compute what torch computes."""
