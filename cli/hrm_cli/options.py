"""What several verbs take, and how its help puts it: one thing has one name in all of them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hrm_runtime import Account

Settings = Annotated[
    Path, typer.Argument(metavar="SETTINGS", help="A settings.yaml, as hrm init writes it.")
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder, as hrm train writes it.")
]
Artifact = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="Artifact folder, as hrm export writes it.")
]
_BARS = (
    "Bars file SYMBOL_TIMEFRAME.csv or .parquet, or a folder of them; repeatable. "
    "EUR%2FUSD_60.csv is EUR/USD at 60."
)
Data = Annotated[list[Path], typer.Option(metavar="BARS", help=_BARS)]
BarsOrTensors = Annotated[
    list[Path],
    typer.Option(metavar="BARS", help=f"{_BARS} Or the one file that hrm prepare wrote."),
]
OneFile = Annotated[
    list[Path],
    typer.Option(
        metavar="BARS",
        help="One file of closed bars, SYMBOL_TIMEFRAME.csv or .parquet; or of any name, with "
        "both of the options below.",
    ),
]
Instrument = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the one bars file, such as EUR/USD, instead of what its name says.",
    ),
]
Timeframe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the one bars file, such as 60 or D, instead of what its name says.",
    ),
]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="PNG file to draw.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Capital = Annotated[
    float, typer.Option(help="Currency realised so far; what a position cost is not taken off.")
]
Position = Annotated[float, typer.Option(help="Lots held; short below 0.")]
EntryPrice = Annotated[float, typer.Option(help="Of the position.")]
UnrealizedPnl = Annotated[float, typer.Option(help="Of the position, currency.")]
DistanceToTrail = Annotated[float, typer.Option(help="Share of the price.")]


class Device(StrEnum):
    """Names of `hrm_train.learning.devices.Device`, known without importing torch."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def also(**earlier: str) -> dict[str, Any]:
    """Settings of a verb whose options answer to earlier names too: the name of each by earlier."""
    return {"token_normalize_func": lambda name: earlier.get(name, name)}


def account_of(
    capital: float, position: float, entry_price: float, unrealized_pnl: float, trail: float
) -> "Account":
    """What the options of an account describe."""
    from hrm_runtime import Account

    return Account(capital, position, entry_price, unrealized_pnl, position != 0, trail)
