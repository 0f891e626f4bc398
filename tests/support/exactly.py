"""Equality of tensors without a tolerance."""

import torch


def assert_equal(found: object, expected: object) -> None:
    """Bit for bit, in whatever holds the tensors."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
