"""What `hrm_train` offers by name, and what importing it costs."""

import json
import subprocess
import sys

import pytest

import hrm_runtime
import hrm_train
from hrm_train import parquet as documented
from hrm_train.data import parquet

NAMES = [
    "HierarchicalReasoningModel",
    "ModelInput",
    "converge",
    "extend_vocabulary",
    "load_checkpoint",
    "load_model",
    "load_settings",
    "prepare",
    "train",
]
HEAVY = {"numpy", "torch", "polars", "pydantic", "yaml", "safetensors", "talib", "onnxruntime"}


def test_the_public_names_are_pinned() -> None:
    assert list(hrm_train.__all__) == NAMES
    assert dir(hrm_train) == sorted([*NAMES, "__version__"])


def test_the_version_is_that_of_all_packages() -> None:
    assert hrm_train.__version__ == hrm_runtime.__version__


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(hrm_train, name)
    assert value.__name__ == name
    assert value is getattr(sys.modules[value.__module__], name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hrm_train' has no attribute 'trian'"):
        hrm_train.trian  # noqa: B018, looking it up is what is tested


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("hrm_train", set()),
        ("hrm_train.data.parquet", {"numpy"}),
        ("hrm_train.learning.tensorboard", set()),
        ("hrm_train.settings", {"pydantic", "yaml"}),
    ],
)
def test_a_module_imports_no_more_than_it_needs(module: str, needed: set[str]) -> None:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout)) & HEAVY == needed


def test_the_documented_path_of_parquet_leads_to_it() -> None:
    assert documented.read_parquet is parquet.read_parquet
    assert documented.READERS is parquet.READERS
