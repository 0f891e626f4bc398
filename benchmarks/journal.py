"""What the journal costs, survives and proves, and what reloading does.

    python benchmarks/journal.py overhead ARTIFACT        decisions with and without a journal
    python benchmarks/journal.py kill ARTIFACT            kill -9 at 100 random moments, and replay
    python benchmarks/journal.py day ARTIFACT             50 streams for a day, and replay
    python benchmarks/journal.py full ARTIFACT            a small disk that fills (Linux, as root)
    python benchmarks/journal.py reload ARTIFACT          500 reloads while 8 threads decide

ARTIFACT decides for instruments of any name, as those of `benchmarks/untrained.py` do. Exits with 1
where something is lost, differs or fails.
"""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from hrm_runtime import Account, Decision, Journal, LiveEngine, LiveSettings, load
from hrm_runtime.artifact.contract import CONTRACT, read_contract
from hrm_runtime.artifact.schema import seal
from hrm_runtime.journal.file import files_in
from hrm_runtime.live.replay import replay
from hrm_runtime.machine import resident_megabytes
from hrm_runtime.measure.turns import end_with_parent

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
from synthetic import random_bars  # noqa: E402, beside the tests

DAY: Final = 75
"""Bars of five minutes in a session of 6:15 hours."""

SETTINGS: Final = LiveSettings(clock=lambda: 4e9, stale_after={"5": 1e12}, deadline=60.0)
"""Nothing is too old."""

FLAT: Final = Account.flat(1e6)


def line(number: int) -> dict[str, str]:
    """The names of a stream."""
    return {"instrument": f"I{number}", "timeframe": "5"}


def told(seconds: list[float]) -> str:
    """Median and tail of durations, in milliseconds."""
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return f"p50 {p50:.3f} ms, p99 {p99:.3f}"


def overhead(artifact: Path, count: int) -> bool:
    """Decide in turn with an engine that has a journal and with one that has none."""
    model = load(artifact)
    bars = random_bars(model.contract.bars_needed + count, seed=1)
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        LiveEngine(model, SETTINGS) as without,
        LiveEngine(model, SETTINGS, Journal(folder)) as recording,
    ):
        engines = {"without": without, "with": recording}
        for engine in engines.values():
            engine.feed(bars[:-count], **line(0))
        for place in range(len(bars) - count, len(bars)):
            bar = bars[place : place + 1].newest()
            for name, engine in engines.items() if place % 2 else reversed(engines.items()):
                start = time.perf_counter()
                engine.decide(bar, FLAT, **line(0))
                seconds[name].append(time.perf_counter() - start)
    warm = {name: taken[count // 10 :] for name, taken in seconds.items()}
    for name, taken in warm.items():
        print(f"{name} a journal: {told(taken)}")
    more = 1e3 * (np.percentile(warm["with"], 99) - np.percentile(warm["without"], 99))
    print(f"the journal adds {more:.3f} ms at p99")
    return bool(more <= 0.3)


def written(artifact: Path, folder: Path) -> None:
    """Decide on four threads until killed, printing what is committed."""
    model, journal = load(artifact), Journal(folder)
    bars = random_bars(model.contract.bars_needed + 5000, seed=2)
    needed = model.contract.bars_needed
    with LiveEngine(model, SETTINGS, journal) as engine:

        def trade(number: int) -> None:
            engine.feed(bars[:needed], **line(number))
            for place in range(needed, len(bars)):
                engine.decide(bars[place : place + 1].newest(), FLAT, **line(number))

        for number in range(4):
            threading.Thread(target=trade, args=(number,), daemon=True).start()
        while True:
            print(journal.committed, flush=True)
            time.sleep(0.001)


def kill(artifact: Path, times: int) -> bool:
    """Kill such a process at random moments; hold what is there to what it said was committed."""
    rng, model = np.random.default_rng(0), load(artifact)
    lost = differing = decisions = torn = 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.Popen(
                [sys.executable, __file__, "written", str(artifact), folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            acknowledged = 0
            while not acknowledged:
                acknowledged = int(child.stdout.readline() or 0)
            time.sleep(float(rng.uniform(0.0, 0.7)))
            child.kill()
            lines = child.stdout.read().splitlines()
            child.wait()
            whole = [int(text) for text in lines[:-1] if text]
            acknowledged = max([acknowledged, *whole])
            (file,) = files_in(Path(folder))
            with closing(sqlite3.connect(file)) as connection:
                query = "SELECT sequence FROM decision ORDER BY sequence"
                there = [row[0] for row in connection.execute(query)]
            torn += there != list(range(1, len(there) + 1))
            lost += acknowledged > len(there)
            found = replay(folder, [model])
            differing += found.difference is not None
            decisions += found.recomputed
    print(
        f"{times} times killed: {decisions} decisions replayed; acknowledged and lost in {lost}, "
        f"holes in {torn}, differences in {differing}"
    )
    return not (lost or torn or differing)


def day(artifact: Path, streams: int) -> bool:
    """Record a day of every stream, replay it, and find what was planted."""
    model = load(artifact)
    needed = model.contract.bars_needed
    series = [random_bars(needed + DAY, seed=number) for number in range(streams)]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(folder)
        with LiveEngine(model, SETTINGS, journal) as engine:
            for number, bars in enumerate(series):
                engine.feed(bars[:needed], **line(number))
            for place in range(needed, needed + DAY):
                for number, bars in enumerate(series):
                    engine.decide(bars[place : place + 1].newest(), FLAT, **line(number))
        (file,) = files_in(Path(folder))
        start = time.perf_counter()
        found = replay(folder, [model])
        taken = time.perf_counter() - start
        print(f"{streams} streams, {DAY} bars: {file.stat().st_size / 1e6:.1f} MB; {found}")
        print(f"replayed in {taken:.1f} s")
        passed = found.difference is None and found.recomputed == streams * DAY
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(
                "UPDATE bar SET close = (high + low) / 2 WHERE event = (SELECT event FROM bar "
                "ORDER BY event LIMIT 1 OFFSET (SELECT count(*) / 2 FROM bar))"
            )
        edited = replay(folder, [model]).difference
        print(f"one bar edited: {edited}")
        another = replay(folder, [load(renamed(artifact, Path(folder, "another")))]).difference
        print(f"another artifact: {another}")
    return passed and edited is not None and another is not None and another.what == "artifact"


def renamed(artifact: Path, copy: Path) -> Path:
    """A copy with another name, hence another id."""
    shutil.copytree(artifact, copy)
    contract = read_contract((copy / CONTRACT).read_bytes())
    (copy / CONTRACT).write_bytes(seal(replace(contract, name="another")))
    return copy


def full(artifact: Path, megabytes: int) -> bool:
    """Trade while the journal's disk is full, and after there is space again."""
    model = load(artifact)
    needed = model.contract.bars_needed
    bars = random_bars(needed + 600, seed=3)
    states, wrong = [], 0
    with tempfile.TemporaryDirectory() as disk:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=True
        )
        try:
            ballast = Path(disk, "ballast")
            journal = Journal(Path(disk, "journal"))
            with LiveEngine(model, SETTINGS, journal) as engine:
                engine.feed(bars[:needed], **line(0))
                for place in range(needed, len(bars)):
                    if place == needed + 200:
                        fill(ballast)
                    if place == needed + 400:
                        states.append(engine.health().journal)
                        ballast.unlink()
                        wait_until_written(journal)
                    decision = engine.decide(bars[place : place + 1].newest(), FLAT, **line(0))
                    alone = model.decide(bars[place + 1 - needed : place + 1], FLAT, **line(0))
                    wrong += decision != alone
                states.append(engine.health().journal)
            found = replay(Path(disk, "journal"), [model])
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
    for state in states:
        print(state)
    print(f"decisions that differ from a model's: {wrong}; {found}")
    troubled = states[0] is not None and states[0].trouble is not None
    return troubled and not wrong and found.difference is None


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def wait_until_written(journal: Journal) -> None:
    """Wait until there is no trouble."""
    until = time.monotonic() + 30
    while journal.health().trouble is not None and time.monotonic() < until:
        time.sleep(0.01)


def reload(artifact: Path, times: int) -> bool:
    """Exchange two artifacts while 8 threads decide; each decision must be one of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [artifact, renamed(artifact, Path(folder, "another"))]
        models = [load(path) for path in folders]
        needed = models[0].contract.bars_needed
        bars = random_bars(needed, seed=4)
        accounts = [Account.flat(1e6 + number) for number in range(16)]
        expected = {
            (number, model.id): model.decide(bars, account, **line(0))
            for model in models
            for number, account in enumerate(accounts)
        }
        made: Counter[str] = Counter()
        wrong: list[Decision] = []
        memory: dict[int, float] = {}
        ended = threading.Event()
        with LiveEngine(models[0], SETTINGS) as engine:
            for number in range(8):
                engine.feed(bars, **line(number))

            def decide(number: int) -> None:
                turn = 0
                while not ended.is_set():
                    turn = (turn + 1) % len(accounts)
                    decision = engine.decide(bars.newest(), accounts[turn], **line(number))
                    made[decision.model_id] += 1
                    known = expected[turn, decision.model_id] if number == 0 else decision
                    if decision.degraded or decision != known:
                        wrong.append(decision)

            callers = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
            for caller in callers:
                caller.start()
            start = time.perf_counter()
            for count in range(1, times + 1):
                engine.reload(folders[count % 2])
                if count in (20, times):
                    memory[count] = round(resident_megabytes() or 0.0, 1)
            taken = time.perf_counter() - start
            ended.set()
            for caller in callers:
                caller.join()
    print(
        f"{times} reloads in {taken:.0f} s; {sum(made.values())} decisions by {len(made)} artifacts"
    )
    print(f"failed or mixed: {len(wrong)}; memory after {memory} MB")
    return not wrong and memory[times] - memory[20] < 10


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for name, run, default in (
        ("overhead", overhead, 5000),
        ("kill", kill, 100),
        ("day", day, 50),
        ("full", full, 16),
        ("reload", reload, 500),
    ):
        verb = verbs.add_parser(name)
        verb.add_argument("artifact", type=Path)
        verb.add_argument("--count", type=int, default=default)
        verb.set_defaults(run=run)
    if sys.argv[1:2] == ["written"]:
        end_with_parent()
        written(Path(sys.argv[2]), Path(sys.argv[3]))
    asked = parser.parse_args()
    sys.exit(not asked.run(asked.artifact, asked.count))


if __name__ == "__main__":
    main()
