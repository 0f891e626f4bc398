"""Train a Hierarchical Reasoning Model on market bars.

Names are resolved when first used: reading Parquet needs no torch.
"""

from typing import TYPE_CHECKING

from hrm_runtime.lazy import lazily

if TYPE_CHECKING:
    from hrm_train.checkpoint import load_checkpoint as load_checkpoint
    from hrm_train.checkpoint import load_model as load_model
    from hrm_train.convergence import converge as converge
    from hrm_train.extension import extend_vocabulary as extend_vocabulary
    from hrm_train.model import HierarchicalReasoningModel as HierarchicalReasoningModel
    from hrm_train.prepared import prepare as prepare
    from hrm_train.settings import load_settings as load_settings
    from hrm_train.trainer import train as train

    __version__: str

_HOME = {
    "HierarchicalReasoningModel": "model",
    "converge": "convergence",
    "extend_vocabulary": "extension",
    "load_checkpoint": "checkpoint",
    "load_model": "checkpoint",
    "load_settings": "settings",
    "prepare": "prepared",
    "train": "trainer",
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
