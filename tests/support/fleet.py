"""An engine of many streams: their bars, what is asked of them at once, and what it must answer."""

import asyncio
from collections.abc import Iterable

from live import Gate, bar_at
from synthetic import ACCOUNTS

from hrm_runtime import Account, Bars, Decision, LiveEngine, Model

KINDS = list(ACCOUNTS.values())

LATER = 5
"""Bars of each series that are not fed but decided at."""

Series = dict[str, Bars]


def on(name: str) -> dict[str, str]:
    """The names of a stream."""
    return {"instrument": name, "timeframe": "5"}


def expected(model: Model, bars: Bars, number: int, account: Account) -> Decision:
    """What the model decides at one of the last bars."""
    return model.decide(bars[: len(bars) + number + 1], account, **on("any"))


def asked(
    engine: LiveEngine, series: Series, names: Iterable[str], number: int = -LATER
) -> list[asyncio.Task[Decision]]:
    """An ask of each stream, on its way in this order once the loop has had a turn."""
    return [
        asyncio.create_task(
            engine.decide_async(bar_at(series[name], number), KINDS[int(name[1:]) % 3], **on(name))
        )
        for name in names
    ]


def expected_of(model: Model, series: Series, names: Iterable[str]) -> list[Decision]:
    """What the model decides where `asked` asks."""
    return [expected(model, series[name], -LATER, KINDS[int(name[1:]) % 3]) for name in names]


async def behind_a_gate(
    engine: LiveEngine, gate: Gate, series: Series, names: list[str]
) -> list[asyncio.Task[Decision]]:
    """Asks of S0, which stands before the gate, and of `names`, which wait behind it."""
    (first,) = asked(engine, series, ["S0"])
    await asyncio.sleep(0)
    gate.wait()
    others = asked(engine, series, names)
    await asyncio.sleep(0)
    return [first, *others]
