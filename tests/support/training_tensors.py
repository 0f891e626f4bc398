"""Training tensors, taken apart and compared."""

from typing import Any

import numpy as np

from hrm_train.data.prepared import Prepared


def arrays(prepared: Prepared) -> dict[str, Any]:
    """All but the manifest, by name."""
    return {name: value for name, value in vars(prepared).items() if name != "manifest"}


def assert_equal(found: Prepared, expected: Prepared) -> None:
    """Manifest, types and values."""
    assert found.manifest == expected.manifest
    for name, array in arrays(expected).items():
        assert getattr(found, name).dtype == array.dtype, name
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name, strict=True)
