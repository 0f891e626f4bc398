"""Outputs of a graph, compared."""

import numpy as np

from hrm_runtime.artifact.segments import Outputs


def assert_equal(found: Outputs, expected: Outputs) -> None:
    """Bit for bit, every output."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
