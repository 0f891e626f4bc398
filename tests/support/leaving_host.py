"""A host that closes no engine: `python leaving_host.py ARTIFACT JOURNAL THREADS|ASYNCIO HOW`.

It trades until 40 decisions are answered, and leaves while more are being made: it returns, exits
with the code 3, is interrupted, or gets SIGTERM, whose handler calls `kill`, `health` and `close`.
The numbers of what the network answered are the last it prints.
"""

import asyncio
import atexit
import json
import os
import signal
import sys
import threading
from itertools import count
from typing import Any

from synthetic import random_bars

from hrm_runtime import Account, Journal, LiveEngine, LiveSettings, load

BARS = random_bars(206, seed=3)
ON = {"instrument": "Alpha", "timeframe": "5"}
ENOUGH = 40

answered: list[int] = []
running = threading.Event()
capitals = count(1_000_000)


def tell() -> None:
    os.write(1, json.dumps(answered).encode())


def note(decision: Any) -> None:
    if decision.reason == "ok":
        answered.append(decision.sequence)
    if len(answered) >= ENOUGH:
        running.set()


def trade(engine: LiveEngine) -> None:
    while True:
        note(engine.decide(BARS.newest(), Account.flat(float(next(capitals))), **ON))


async def trade_async(engine: LiveEngine) -> None:
    while True:
        account = Account.flat(float(next(capitals)))
        note(await engine.decide_async(BARS.newest(), account, **ON))


def leave(engine: LiveEngine, how: str) -> None:
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        signal.raise_signal(signal.SIGINT)
    if how == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        trade(engine)  # and the handler interrupts it anywhere


def with_threads(engine: LiveEngine, how: str) -> None:
    for _ in range(2):
        threading.Thread(target=trade, args=(engine,), daemon=True).start()
    running.wait()
    leave(engine, how)


async def with_asyncio(engine: LiveEngine, how: str) -> None:
    tasks = [asyncio.create_task(trade_async(engine)) for _ in range(2)]
    while not running.is_set():
        await asyncio.sleep(0.001)
    leave(engine, how)
    assert tasks


def main(artifact: str, folder: str, kind: str, how: str) -> None:
    atexit.register(tell)  # before the engine's own, hence called after it
    settings = LiveSettings(clock=lambda: BARS.datetime[-1] + 300.0, deadline=60.0)
    engine = LiveEngine(load(artifact), settings, Journal(folder))
    engine.feed(BARS[:-1], **ON)

    def terminated(number: int, _: object) -> None:
        engine.kill("SIGTERM")
        assert not engine.health().serving
        engine.close()
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminated)
    if kind == "threads":
        with_threads(engine, how)
    else:
        asyncio.run(with_asyncio(engine, how))


if __name__ == "__main__":
    main(*sys.argv[1:])
