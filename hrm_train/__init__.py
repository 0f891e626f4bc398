"""Train a Hierarchical Reasoning Model on market bars.

Names are resolved when first used: reading Parquet needs no torch.
"""

from typing import TYPE_CHECKING

from hrm_runtime.lazy import lazily

if TYPE_CHECKING:
    from hrm_train.data.preparation import prepare as prepare
    from hrm_train.learning.checkpoint import load_checkpoint as load_checkpoint
    from hrm_train.learning.checkpoint import load_model as load_model
    from hrm_train.learning.extension import extend_vocabulary as extend_vocabulary
    from hrm_train.learning.trainer import train as train
    from hrm_train.network.convergence import converge as converge
    from hrm_train.network.embedding import ModelInput as ModelInput
    from hrm_train.network.model import HierarchicalReasoningModel as HierarchicalReasoningModel
    from hrm_train.settings import load_settings as load_settings

    __version__: str

_HOME = {
    "HierarchicalReasoningModel": "network.model",
    "ModelInput": "network.embedding",
    "converge": "network.convergence",
    "extend_vocabulary": "learning.extension",
    "load_checkpoint": "learning.checkpoint",
    "load_model": "learning.checkpoint",
    "load_settings": "settings",
    "prepare": "data.preparation",
    "train": "learning.trainer",
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
