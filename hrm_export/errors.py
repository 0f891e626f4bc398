"""Errors of exporting, part of the tree in `hrm_runtime.errors`.

HrmError
├── ExportRefused     mend the call: the output path exists or cannot be written
└── GateFailed
    ├── ParityFailed  the graph is not what torch computes
    ├── PassFailed    a pass did not do what it says
    └── LimitExceeded the file is too large, or has operators it must not have

Whatever is raised, nothing was written.
"""

from hrm_runtime.errors import GateFailed, HrmError


class ExportRefused(HrmError):
    """The export cannot start or be written where it was asked for."""


class ParityFailed(GateFailed):
    """The graph does not compute what torch computes."""


class PassFailed(GateFailed):
    """A pass over the graph found, changed or left something else than it says."""


class LimitExceeded(GateFailed):
    """The graph is too large, or has operators, an opset or data that it must not have."""
