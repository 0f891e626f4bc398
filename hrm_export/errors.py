"""Errors of exporting, part of the tree in `hrm_runtime.errors`.

HrmError
├── ExportRefused     mend the call: the output path exists or cannot be written
└── GateFailed
    └── ParityFailed  the graph is not what torch computes; nothing was written
"""

from hrm_runtime.errors import GateFailed, HrmError


class ExportRefused(HrmError):
    """The export cannot start or be written where it was asked for."""


class ParityFailed(GateFailed):
    """The graph does not compute what torch computes."""
