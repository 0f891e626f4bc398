"""Which files of bars the command line reads."""

from collections.abc import Mapping
from importlib.util import find_spec

from hrm_runtime import bars
from hrm_runtime.bars import Reader


def readers() -> Mapping[str, Reader]:
    """CSV, and Parquet where polars is installed."""
    if find_spec("polars") is None:
        return bars.READERS
    from hrm_train import parquet

    return parquet.READERS
