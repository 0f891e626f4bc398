"""What the live engine does under load, for long, and beside training.

    python benchmarks/live.py rows ARTIFACT FOLDER     streamed rows against training's, all bits
    python benchmarks/live.py starts ARTIFACT FOLDER   processes started at 50 random bars
    python benchmarks/live.py threads ARTIFACT         100 threads, a decision a second each
    python benchmarks/live.py loop ARTIFACT            100 tasks of an event loop, and its stalls
    python benchmarks/live.py deadline ARTIFACT        a deadline of 20 ms and a slower network
    python benchmarks/live.py endurance ARTIFACT       a million decisions, memory and threads

FOLDER holds CSV files of bars of series that ARTIFACT knows; for the others ARTIFACT decides for
instruments of any name, as those of `benchmarks/untrained.py` do. `rows` needs the extra train.
Exits with 1 where bits differ or a decision is not what it should be.
"""

import argparse
import asyncio
import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from hrm_runtime import Account, Bar, Bars, Decision, LiveEngine, LiveSettings, Model, load
from hrm_runtime.live.stream import Stream
from hrm_runtime.machine import resident_megabytes
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.hours import TradingHours
from hrm_runtime.market.series import read_series

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
from synthetic import random_bars  # noqa: E402, beside the tests

CALLERS: Final = 100
STARTS: Final = 50
FOLLOWED: Final = 200
"""Bars that a process started later is compared over."""

NSE: Final = TradingHours(
    ["09:15-15:30"],
    "Asia/Kolkata",
    holidays=[
        "2024-03-25", "2024-03-29", "2024-04-11", "2024-04-17", "2024-05-01", "2024-05-20",
        "2024-06-17", "2024-07-17", "2024-08-15", "2024-10-02", "2024-11-15", "2024-11-20",
        "2024-12-25",
    ],
    special={"2024-05-18": ["09:15-10:00", "11:30-12:30"], "2024-11-01": ["18:00-19:00"]},
)  # fmt: skip
"""As the bars show them."""

FLAT: Final = Account.flat(1e6)


class Clock:
    """The moment at which the newest bar given was closed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


def each(bars: Bars) -> Iterator[Bar]:
    """One after another."""
    return (bars[place : place + 1].newest() for place in range(len(bars)))


def told(seconds: list[float]) -> str:
    """Median and tail of durations, in milliseconds."""
    p50, p99, p999 = 1e3 * np.percentile(seconds, [50, 99, 99.9])
    return (
        f"mean {1e3 * np.mean(seconds):.2f} ms, p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, "
        f"max {1e3 * max(seconds):.2f}"
    )


def compare_rows(model: Model, folder: Path) -> bool:
    """Hold the rows of streams, each bar given twice, to the tensors that training reads."""
    from hrm_train.data.preparation import prepare
    from hrm_train.settings import parse_settings

    features = model.contract.features
    given = {"history_bars": features.history_bars, "window": features.window}
    settings = parse_settings({"hierarchical_reasoning_model": {"input": given}})
    prepared, different, taken = prepare(settings, [folder]), 0, 0.0
    trained = iter(prepared.features)
    for (name, timeframe), bars in read_series(folder).items():
        stream = Stream(model.contract.timeframe_seconds(timeframe), NSE, model.contract, 0.0)
        start = time.perf_counter()
        streamed = []
        for bar in each(bars):
            for _ in range(2):
                stream.take(bar, bar.datetime + stream.seconds)
            streamed += stream.rows[-1:]
        taken += time.perf_counter() - start
        found = sum(not np.array_equal(row.values, next(trained)) for row in streamed)
        different += found
        print(f"{name} {timeframe}: {len(streamed)} rows, {found} differ")
    print(
        f"{len(prepared.features)} rows, {different} differ; "
        f"{1e6 * taken / len(prepared.bar_stamp):.0f} us for a bar given twice"
    )
    return different == 0 and next(trained, None) is None


def compare_starts(model: Model, folder: Path) -> bool:
    """Hold an engine that ran from the first bar to one started at each of 50 random bars."""
    rng, needed = np.random.default_rng(0), model.contract.bars_needed
    series = read_series(folder)
    names = sorted(series)
    starts: dict[tuple[str, str], list[int]] = {}
    for _ in range(STARTS):
        name = names[int(rng.integers(len(names)))]
        starts.setdefault(name, []).append(int(rng.integers(needed, len(series[name]) - FOLLOWED)))
    compared, reasons, seconds, passed = 0, Counter[str](), [], True
    for (instrument, timeframe), places in starts.items():
        line = {"instrument": instrument, "timeframe": timeframe}
        bars, clock = series[instrument, timeframe], Clock()
        seconds_each = model.contract.timeframe_seconds(timeframe)
        last = max(places) + FOLLOWED
        with LiveEngine(model, LiveSettings(hours=NSE, clock=clock)) as engine:
            always = []
            for place, bar in enumerate(each(bars[:last])):
                clock.now = float(NSE.closing(bar.datetime, seconds_each) or 0)
                start = time.perf_counter()
                always.append(engine.decide(bar, account(bar, place), **line))
                seconds.append(time.perf_counter() - start)
        for place in places:
            with LiveEngine(model, LiveSettings(hours=NSE, clock=clock)) as engine:
                clock.now = 1e10  # history may be of any age
                engine.feed(bars[place - needed + 1 : place], **line)
                for ahead, bar in enumerate(each(bars[place : place + FOLLOWED]), place):
                    clock.now = float(NSE.closing(bar.datetime, seconds_each) or 0)
                    decision = engine.decide(bar, account(bar, ahead), **line)
                    passed &= decision == always[ahead]
                    compared += 1
                    reasons[decision.reason] += 1
        print(f"{instrument} {timeframe}: {len(places)} starts, {last} bars")
    print(f"{compared} decisions after {STARTS} starts, all equal: {passed}; {dict(reasons)}")
    print(f"a decision: {told(seconds)}")
    return passed


def account(bar: Bar, number: int) -> Account:
    """Flat, long or short."""
    entry = round(bar.close * 0.998, 2)
    return (
        FLAT,
        Account(1e6, 3.0, entry, 500.0, True, 0.004),
        Account(1e6, -2.0, entry, -500.0, True, -0.004),
    )[number % 3]


class Callers:
    """100 streams with history, their next bars, and the answers a single thread gives."""

    def __init__(self, model: Model, bars_each: int) -> None:
        needed = model.contract.bars_needed
        self.model = model
        self.lines = [{"instrument": f"I{n}", "timeframe": "5"} for n in range(CALLERS)]
        series = random_bars(needed + CALLERS + bars_each, seed=1)
        self.histories = [series[n : n + needed - 1] for n in range(CALLERS)]
        self.bars = [list(each(series[n + needed - 1 :][:bars_each])) for n in range(CALLERS)]
        made = rows(series, model.contract.features.history_bars)
        window = model.contract.features.window
        self._windows = {made[end - 1].datetime: made[end - window : end]
                         for end in range(window, len(made) + 1)}  # fmt: skip

    def engine(self, deadline: float = 60.0) -> LiveEngine:
        """With everything but the last bars; nothing is too old for it."""
        settings = LiveSettings(deadline=deadline, stale_after={"5": 1e12}, clock=lambda: 4e9)
        engine = LiveEngine(self.model, settings)
        for line, history in zip(self.lines, self.histories, strict=True):
            engine.feed(history, **line)
        return engine

    def alone(self, stamp: int, line: dict[str, str]) -> Decision:
        """What one thread decides."""
        window: list[Row] = self._windows[stamp]
        return self.model.decide_rows(window, FLAT, **line)


def threads(model: Model, seconds: int) -> bool:
    """100 threads, each a decision a second at a phase of its own; then 100 bars at once."""
    callers = Callers(model, seconds + 3)
    durations: list[float] = []
    made: list[tuple[int, int, Decision]] = []
    phases = np.random.default_rng(0).random(CALLERS)
    with callers.engine() as engine:

        def call(number: int, place: int) -> None:
            bar = callers.bars[number][place]
            start = time.perf_counter()
            decision = engine.decide(bar, FLAT, **callers.lines[number])
            durations.append(time.perf_counter() - start)
            made.append((number, bar.datetime, decision))

        begin = time.perf_counter()

        def paced(number: int) -> None:
            for place in range(seconds):
                time.sleep(max(0.0, begin + place + phases[number] - time.perf_counter()))
                call(number, place)

        together([lambda n=n: paced(n) for n in range(CALLERS)])
        print(f"{CALLERS} threads, {seconds} s: {len(durations)} decisions, {told(durations)}")
        mean = float(np.mean(durations))
        drained = []
        for place in range(seconds, seconds + 3):
            durations.clear()
            barrier = threading.Barrier(CALLERS)

            def at_once(
                number: int, place: int = place, barrier: threading.Barrier = barrier
            ) -> None:
                barrier.wait()
                call(number, place)

            together([lambda n=n, at=at_once: at(n) for n in range(CALLERS)])
            drained.append(max(durations))
        print(f"{CALLERS} bars at once: all decided after {1e3 * min(drained):.0f} ms")
    wrong = [one for one in made if one[2] != callers.alone(one[1], callers.lines[one[0]])]
    print(f"of {len(made)} decisions {len(wrong)} differ from a single thread's")
    return not wrong and mean < 0.05


def loop(model: Model, seconds: int) -> bool:
    """100 tasks, each a decision a second: how long the event loop does not come round."""
    callers = Callers(model, 2 * seconds)
    durations: list[float] = []
    reasons = Counter[str]()

    async def caller(engine: LiveEngine, number: int, places: range, phase: float) -> None:
        begin = asyncio.get_running_loop().time()
        for turn, place in enumerate(places):
            await asyncio.sleep(max(0.0, begin + turn + phase - asyncio.get_running_loop().time()))
            start = time.perf_counter()
            decision = await engine.decide_async(
                callers.bars[number][place], FLAT, **callers.lines[number]
            )
            durations.append(time.perf_counter() - start)
            reasons[decision.reason] += 1

    async def beat(stalls: list[float]) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - start - 0.001)

    async def run(engine: LiveEngine, places: range, phases: np.ndarray) -> list[float]:
        stalls: list[float] = []
        watch = asyncio.create_task(beat(stalls))
        await asyncio.gather(*(caller(engine, n, places, float(phases[n])) for n in range(CALLERS)))
        watch.cancel()
        return stalls

    passed = True
    with callers.engine() as engine:
        for name, phases, first in (
            ("at random moments", np.random.default_rng(0).random(CALLERS), 0),
            ("all at once", np.zeros(CALLERS), seconds),
        ):
            durations.clear()
            stalls = asyncio.run(run(engine, range(first, first + seconds), phases))
            print(f"{CALLERS} tasks {name}, {seconds} s: decisions {told(durations)}")
            print(f"  stalls of the loop: {told(stalls)}")
            passed &= float(np.percentile(stalls, 99.9)) < 0.01
    print(f"reasons {dict(reasons)}")
    return passed and set(reasons) == {"ok"}


def deadline(model: Model, count: int) -> bool:
    """A deadline of 20 ms for a network that needs longer."""
    callers = Callers(model, count // CALLERS + 1)
    seconds, reasons = [], Counter[str]()
    alone = []
    for bar in callers.bars[0][:5]:
        start = time.perf_counter()
        callers.alone(bar.datetime, callers.lines[0])
        alone.append(time.perf_counter() - start)
    with callers.engine(deadline=0.02) as engine:
        for number in range(count):
            line = callers.lines[number % CALLERS]
            bar = callers.bars[number % CALLERS][number // CALLERS]
            engine.close_breaker()
            start = time.perf_counter()
            reasons[engine.decide(bar, FLAT, **line).reason] += 1
            seconds.append(time.perf_counter() - start)
    print(
        f"a decision takes {1e3 * np.median(alone):.0f} ms; with a deadline of 20: {told(seconds)}"
    )
    print(f"reasons {dict(reasons)}")
    return set(reasons) == {"deadline"} and float(np.percentile(seconds, 99.9)) < 0.025


def endurance(model: Model, count: int) -> bool:
    """Many decisions on one stream: memory, threads and open files from the first thousand on."""
    needed = model.contract.bars_needed
    bars, clock = random_bars(needed + 2000, seed=1), Clock()
    prices = np.stack([bars.open, bars.high, bars.low, bars.close], axis=1).tolist()
    line = {"instrument": "Alpha", "timeframe": "5"}
    settings = LiveSettings(clock=clock)
    reasons, before, start = Counter[str](), (0.0, 0, 0), time.perf_counter()
    with LiveEngine(model, settings) as engine:
        for number in range(needed + count):
            opening = 1_600_000_200 + 300 * number
            clock.now = opening + 300
            bar = Bar(opening, *prices[number % len(prices)])
            decision = engine.decide(bar, account(bar, number), **line)
            reasons[decision.reason] += 1
            if number == needed + 1000:
                before = held()
            if number > needed and (number - needed) % (count // 10) == 0:
                passed = time.perf_counter() - start
                print(f"{number - needed} decisions, {passed:.0f} s: {held()}", flush=True)
        after = held()
    print(f"from {before} to {after} (MB, threads, open files); reasons {dict(reasons)}")
    return after[0] - before[0] < 5 and after[1:] == before[1:]


def held() -> tuple[float, int, int]:
    """Megabytes, threads, open files of this process."""
    gc.collect()
    return (
        round(resident_megabytes() or 0.0, 2),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )


def together(calls: list[Callable[[], None]]) -> None:
    """Each on a thread of its own; returns when all have ended."""
    started = [threading.Thread(target=call) for call in calls]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for name, run, argument, default in (
        ("rows", compare_rows, "folder", None),
        ("starts", compare_starts, "folder", None),
        ("threads", threads, "--seconds", 60),
        ("loop", loop, "--seconds", 60),
        ("deadline", deadline, "--count", 3000),
        ("endurance", endurance, "--count", 1_000_000),
    ):
        verb = verbs.add_parser(name)
        verb.add_argument("artifact", type=Path)
        if default is None:
            verb.add_argument("given", type=Path, metavar=argument)
        else:
            verb.add_argument(argument, type=int, default=default, dest="given")
        verb.set_defaults(run=run)
    asked = parser.parse_args()
    sys.exit(not asked.run(load(asked.artifact), asked.given))


if __name__ == "__main__":
    main()
