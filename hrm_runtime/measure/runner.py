"""A worker that serves an artifact as a trading process does, or another graph of its network.

python -m hrm_runtime.measure.runner INPUTS CORE ARTIFACT [GRAPH]
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hrm_runtime.measure.turns import Opened, answer

if TYPE_CHECKING:
    from hrm_runtime.artifact.model import Model

NOT_SERVED: Final = ("pandas", "polars")
"""TA-Lib's wrapper takes these where it finds them; where an artifact is served they are not."""


def main(arguments: Sequence[str]) -> None:
    """Be the worker."""
    for package in NOT_SERVED:
        sys.modules[package] = None  # type: ignore[assignment]  # any import of it fails
    inputs, core, artifact, *graph = arguments
    answer(partial(_graph if graph else _artifact, artifact, *graph), inputs, core)


def _artifact(path: str) -> Callable[[], Opened]:
    from hrm_runtime.artifact.folder import load

    def open_it() -> Opened:
        model = load(path)
        windows = cache(partial(_decisions, model, Path(path)))
        return Opened(model.run, lambda number: windows()[number % len(windows())]())

    return open_it


def _graph(artifact: str, graph: str) -> Callable[[], Opened]:
    from hrm_runtime.artifact.folder import load_contract
    from hrm_runtime.artifact.model import Model
    from hrm_runtime.artifact.session import Session

    contract = load_contract(artifact)

    def open_it() -> Opened:
        return Opened(Model(contract, "", Session(Path(graph).read_bytes())).run)

    return open_it


def _decisions(model: "Model", artifact: Path) -> list[Callable[[], object]]:
    """A call of `decide_rows` for each golden window that has bars; its rows are made before."""
    from hrm_runtime.artifact.contract import GOLDEN
    from hrm_runtime.artifact.golden import Golden
    from hrm_runtime.market.bars import Bars
    from hrm_runtime.market.features import rows
    from hrm_runtime.market.instruments import name_of

    golden = Golden.from_bytes((artifact / GOLDEN).read_bytes())
    contract = model.contract
    return [
        partial(
            model.decide_rows,
            rows(Bars(*columns), contract.features.history_bars),
            account,
            instrument=name_of(contract.instruments, int(instrument)),
            timeframe=name_of(contract.timeframes, int(timeframe)),
        )
        for columns, account, instrument, timeframe in zip(
            golden.bars, golden.accounts(), golden.instrument, golden.timeframe, strict=False
        )
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
