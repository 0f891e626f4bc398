"""The artifact that the tests of parity hold against torch."""

from pathlib import Path

import pytest

from hrm_runtime import Model, load


@pytest.fixture(scope="module")
def model(artifact_folder: Path) -> Model:
    return load(artifact_folder)
