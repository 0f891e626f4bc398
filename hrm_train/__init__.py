"""Train a Hierarchical Reasoning Model on market bars.

Names are resolved when first used: reading Parquet needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm_train.checkpoint import load_checkpoint as load_checkpoint
    from hrm_train.checkpoint import load_model as load_model
    from hrm_train.convergence import converge as converge
    from hrm_train.extension import extend_vocabulary as extend_vocabulary
    from hrm_train.model import HierarchicalReasoningModel as HierarchicalReasoningModel
    from hrm_train.prepared import prepare as prepare
    from hrm_train.settings import load_settings as load_settings
    from hrm_train.trainer import train as train

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
