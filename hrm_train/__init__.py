"""Train a Hierarchical Reasoning Model on market bars."""

from hrm_train.checkpoint import load_checkpoint, load_model
from hrm_train.model import HierarchicalReasoningModel
from hrm_train.prepared import prepare
from hrm_train.settings import load_settings
from hrm_train.trainer import train

__all__ = [
    "HierarchicalReasoningModel",
    "load_checkpoint",
    "load_model",
    "load_settings",
    "prepare",
    "train",
]
