"""What `hrm_export` offers by name, and what importing it costs."""

import json
import subprocess
import sys

import pytest

import hrm_export
import hrm_runtime

NAMES = ["Exported", "ParityReport", "check_parity", "export"]


def test_the_public_names_are_pinned() -> None:
    assert list(hrm_export.__all__) == NAMES
    assert dir(hrm_export) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(hrm_export, name)
    assert value.__name__ == name
    assert value is getattr(sys.modules[value.__module__], name)


def test_the_version_is_that_of_all_packages_and_known_without_torch() -> None:
    program = (
        "import hrm_export, json, sys\n"
        "print(json.dumps([hrm_export.__version__, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    version, modules = json.loads(done.stdout)
    assert version == hrm_runtime.__version__
    assert {"numpy", "torch", "onnx", "onnxscript"}.isdisjoint(modules)
