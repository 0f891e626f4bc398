"""From a checkpoint to an artifact that proves itself.

Names are resolved when first used.
"""

from typing import TYPE_CHECKING

from hrm_runtime.lazy import lazily

if TYPE_CHECKING:
    from hrm_export.exporter import Exported as Exported
    from hrm_export.exporter import export as export
    from hrm_export.proof.parity import ParityReport as ParityReport
    from hrm_export.proof.parity import check_parity as check_parity

    __version__: str

_HOME = {
    "Exported": "exporter",
    "ParityReport": "proof.parity",
    "check_parity": "proof.parity",
    "export": "exporter",
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
