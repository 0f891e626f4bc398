"""From a checkpoint to an artifact that proves itself."""

from hrm_export.exporter import Exported, export
from hrm_export.parity import ParityReport, check_parity

__all__ = ["Exported", "ParityReport", "check_parity", "export"]
