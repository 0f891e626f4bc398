import importlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live import BARS, FLAT, ON, Clock, Live
from synthetic import random_bars

import hrm_runtime
from hrm_runtime import (
    Contract,
    HRMAgent,
    Journal,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
    TradingHours,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.backtest.walk import backtest
from hrm_runtime.market.features import row
from hrm_runtime.market.stamps import moment
from hrm_runtime.measure.trace import trace

LINE = 160
"""Characters that fit a line of a notebook."""

NAMES = [
    "Account",
    "Action",
    "ArtifactDamaged",
    "ArtifactNotFound",
    "BadAccount",
    "BadBars",
    "BadFeatures",
    "BadInput",
    "Bar",
    "Bars",
    "Contract",
    "ContractInvalid",
    "Decision",
    "DoNotStart",
    "GateFailed",
    "HRMAgent",
    "HrmError",
    "InferenceFailed",
    "Journal",
    "JournalUnreadable",
    "LiveEngine",
    "LiveSettings",
    "Model",
    "NothingToDecide",
    "Reason",
    "SelfTestFailed",
    "TooFewBars",
    "TradingHours",
    "UnknownInstrument",
    "UnknownTimeframe",
    "UnsupportedFormat",
    "Untrusted",
    "load",
    "load_contract",
    "read_csv",
]

HEAVY = ("numpy", "talib", "onnxruntime")
TRAINING = ("torch", "onnx", "onnxscript", "pydantic", "yaml", "polars", "pandas", "safetensors")
AS_IN_PRODUCTION = "import sys; sys.modules.update(polars=None, pandas=None)\n"
"""TA-Lib's wrapper imports these where it finds them, for a second; polars then sets a variable."""


def in_a_fresh_process(program: str, *arguments: str) -> Any:
    """What `program` prints as JSON; warnings are errors there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AS_IN_PRODUCTION + program, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# names


def test_the_public_names_are_pinned() -> None:
    assert list(hrm_runtime.__all__) == NAMES
    assert dir(hrm_runtime) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(hrm_runtime, name)
    assert value.__name__ == name
    assert value.__module__.startswith("hrm_runtime.")
    assert value is getattr(sys.modules[value.__module__], name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hrm_runtime' has no attribute 'Modell'"):
        hrm_runtime.Modell  # noqa: B018, looking it up is what is tested


def test_a_name_is_resolved_once() -> None:
    program = (
        "import hrm_runtime, json\n"
        "before = 'Bars' in vars(hrm_runtime)\n"
        "bars = hrm_runtime.Bars\n"
        "print(json.dumps([before, vars(hrm_runtime)['Bars'] is bars]))\n"
    )
    assert in_a_fresh_process(program) == [False, True]


# what a notebook shows of them

ID = r"id [0-9a-f]{12}\.\.\."
NAMED = rf"artifact-1, fp32, 2 x 2, {ID}"


def test_the_objects_of_a_decision_are_shown_in_a_line(model: Model, contract: Contract) -> None:
    decision = model.decide(BARS, FLAT, **ON)
    traced = trace(model, BARS, FLAT, **ON)
    bar = "2023-11-22 05:15 UTC"
    for shown, pattern in (
        (BARS, rf"Bars\(260 bars, 2023-11-21 07:40 UTC to {bar}\)"),
        (BARS[-1:], rf"Bars\(1 bar, {bar}\)"),
        (BARS[:0], r"Bars\(0 bars\)"),
        (random_bars(3270), r"Bars\(3,270 bars, .* UTC to .* UTC\)"),
        (row(BARS, 200), rf"Row\({bar}, close [\d.]+, atr [\d.]+, 54 values from 200 bars\)"),
        (model, rf"Model\({NAMED}\)"),
        (contract, rf"Contract\({NAMED}, 205 bars needed\)"),
        (decision, rf"Decision\({decision.order}, value [+-]\d+\.\d\d ATR, ok, {ID}\)"),
        (hold(Reason.STALE, model.id), rf"Decision\(HOLD, stale, {ID}\)"),
        (traced, rf"Trace\(Alpha 5, bar of {bar}, Decision\(.*\)\)"),
        (traced.segments[0], r"Segment\(change of L [\d.e-]+, of H [\d.e-]+, Decision\(.*\)\)"),
    ):
        assert re.fullmatch(pattern, repr(shown)), repr(shown)
        assert len(repr(shown)) <= LINE
    assert repr(model).count(model.id[:12]) == repr(contract).count(model.id[:12]) == 1


def test_a_backtest_is_shown_in_a_line(model: Model) -> None:
    bars = random_bars(420, seed=36)
    found = backtest(model, bars, **ON)
    first, last = (moment(int(found.datetime[end])) for end in (0, -1))
    assert repr(found) == (
        f"Backtest(Alpha 5, {first} to {last}, {len(found.trades)} trades, "
        f"return {found.final_return:+.1%})"
    )
    assert ", 1 trade, " in repr(replace(found, trades=found.trades[:1]))


def test_a_live_engine_tells_how_it_is_in_a_line(live: Live, clock: Clock, tmp_path: Path) -> None:
    engine = live(failures=1)
    assert re.fullmatch(rf"LiveEngine\({NAMED}, 0 streams\)", repr(engine))
    engine.feed(BARS[:-1], **ON)
    assert repr(engine).endswith("..., 1 stream)")
    engine._guards.breaker.failed()
    engine.kill("lunch")
    engine.close()
    assert repr(engine).endswith("..., 1 stream, killed, breaker open, closed)")
    assert len(repr(engine)) <= LINE


def test_an_agent_tells_what_it_reads_in_a_line(live: Live) -> None:
    engine = live()
    agent = HRMAgent(engine, "Alpha", "5")
    assert repr(agent) == "HRMAgent(Alpha 5, 50 bars x 53 columns)"
    agent = HRMAgent(engine, "Beta", "5", bars=lambda: BARS, account=lambda: FLAT, max_lots=10)
    assert repr(agent) == "HRMAgent(Beta 5, bars and account from callables, max_lots 10)"


def test_a_journal_tells_how_far_it_is_in_a_line(
    model: Model, clock: Clock, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    assert repr(journal) == f"Journal({tmp_path}, not begun)"
    with LiveEngine(model, LiveSettings(clock=clock), journal):
        assert repr(journal) == f"Journal({tmp_path}, committed 0)"
        journal._trouble = "disk full"
        assert repr(journal) == f"Journal({tmp_path}, trouble: disk full)"
        journal._trouble = None
    assert repr(journal) == f"Journal({tmp_path}, closed, committed 0)"


def test_settings_are_shown_where_they_are_not_the_usual_ones() -> None:
    hours = TradingHours(
        ["09:15-12:00", "13:00-15:30"],
        "Asia/Kolkata",
        holidays=["2024-11-15"],
        special={"2024-11-01": ["18:00-19:00"]},
    )
    shown = "TradingHours(09:15-12:00 13:00-15:30 Asia/Kolkata, holidays: 1, special days: 1)"
    assert repr(hours) == shown
    assert repr(TradingHours()) == "TradingHours(around the clock)"
    assert repr(LiveSettings()) == "LiveSettings()"
    assert repr(LiveSettings(hours=hours, deadline=0.5, strict=True)) == (
        f"LiveSettings(hours={shown}, deadline=0.5, strict=True)"
    )
    clock = TradingHours(["09:30-16:00"], grid="clock")
    shown = "TradingHours(09:30-16:00 UTC, holidays: 0, special days: 0, grid: clock)"
    assert repr(clock) == shown
    assert (
        repr(LiveSettings(markets={"Beta": clock})) == f"LiveSettings(markets={{'Beta': {shown}}})"
    )


# version


@pytest.fixture
def unresolved() -> Iterator[None]:
    """Nobody has asked for the version before, and nobody keeps what is found."""
    vars(hrm_runtime).pop("__version__", None)
    yield
    vars(hrm_runtime).pop("__version__", None)


@pytest.mark.usefixtures("unresolved")
def test_the_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"hrm": "7.8.9"}.__getitem__)
    assert hrm_runtime.__version__ == "7.8.9"


@pytest.mark.usefixtures("unresolved")
def test_a_tree_that_is_not_installed_does_not_guess_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert hrm_runtime.__version__ == "0+unknown"


def test_the_version_is_looked_up_when_it_is_asked_for_and_once() -> None:
    program = (
        "import hrm_runtime, json, sys\n"
        "before = 'importlib.metadata' in sys.modules, '__version__' in vars(hrm_runtime)\n"
        "version = hrm_runtime.__version__\n"
        "print(json.dumps([*before, vars(hrm_runtime)['__version__'] is version]))\n"
    )
    assert in_a_fresh_process(program) == [False, False, True]


# weight

NEEDED = {
    "import hrm_runtime": (),
    "from hrm_runtime import HrmError": (),
    "from hrm_runtime import Action": (),
    "import hrm_runtime.market.columns": (),
    "from hrm_runtime import Contract": (),
    "from hrm_runtime import TradingHours, Untrusted": (),
    "from hrm_runtime import Bar, Bars, Account, Decision, Reason": ("numpy",),
    "import hrm_runtime.backtest.bootstrap": ("numpy",),
    "import hrm_runtime.market.features": ("numpy", "talib"),
    "from hrm_runtime import LiveEngine, LiveSettings": HEAVY,
    "from hrm_runtime import HRMAgent": HEAVY,
    "from hrm_runtime import *": HEAVY,
}
"""Each needs all that those before it do."""

MODULES_AFTER = """
import json
found = {}
for statement in sys.argv[1:]:
    exec(statement)
    found[statement] = [name for name, module in sys.modules.items() if module is not None]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def modules() -> dict[str, list[str]]:
    """Those that are there after each statement of `NEEDED` in turn, in one process."""
    found: dict[str, list[str]] = in_a_fresh_process(MODULES_AFTER, *NEEDED)
    return found


@pytest.mark.parametrize("statement", NEEDED)
def test_a_module_imports_no_more_than_it_needs(
    statement: str, modules: dict[str, list[str]]
) -> None:
    assert "hrm_runtime" in modules[statement]
    assert {*modules[statement]} & {*HEAVY, *TRAINING} == {*NEEDED[statement]}


def test_the_session_needs_no_talib() -> None:
    statement = "import hrm_runtime.artifact.session"
    (found,) = in_a_fresh_process(MODULES_AFTER, statement).values()
    assert {*found} & {*HEAVY, *TRAINING} == {"numpy", "onnxruntime"}


# the host process

STATE = """
import faulthandler, json, locale, logging, os, signal, sys, threading, warnings

def state():
    import numpy
    root = logging.getLogger()
    return {
        "signals": [[str(n), str(signal.getsignal(n))] for n in sorted(signal.valid_signals())],
        "warnings": [str(entry) for entry in warnings.filters],
        "showwarning": str(warnings.showwarning),
        "loggers": [root.level, [str(handler) for handler in root.handlers], logging.root.disabled],
        "raise": logging.raiseExceptions,
        "float flags": numpy.geterr(),
        "subnormals": 5e-324 / 1.0 != 0.0,
        "float32 subnormals": float(numpy.float32(1e-40) * numpy.float32(0.5)) != 0.0,
        "print": str(numpy.get_printoptions()),
        "threads": threading.active_count(),
        "hooks": [str(sys.excepthook), str(threading.excepthook), faulthandler.is_enabled()],
        "streams": [str(sys.stdout), str(sys.stderr)],
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion": sys.getrecursionlimit(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "path": sys.path,
        "environment": dict(os.environ),
    }
"""


def test_loading_and_deciding_change_nothing_in_the_host(artifact: Path) -> None:
    program = (
        STATE
        + """
import numpy, talib
before = state()
from hrm_runtime import Account, load
model = load(sys.argv[1])
stamps = 31_536_000 + 300 * numpy.arange(model.contract.bars_needed)
prices = 100 + numpy.sin(stamps)
columns = dict(datetime=stamps, open=prices, high=prices, low=prices, close=prices)
decision = model.decide(columns, Account.flat(1e5), instrument="Alpha", timeframe="5")
after = state()
print(json.dumps([before, after, decision.reason]))
"""
    )
    before, after, reason = in_a_fresh_process(program, str(artifact))
    assert reason == "ok"
    after["environment"].pop("ORT_DISABLE_TELEMETRY")
    before["environment"].pop("ORT_DISABLE_TELEMETRY", None)
    assert after == before


def test_a_live_engine_that_was_closed_leaves_the_host_as_it_was(artifact: Path) -> None:
    program = (
        STATE
        + """
import asyncio, numpy, talib
before = state()
from hrm_runtime import Account, LiveEngine, LiveSettings, TradingHours, load
stamps = 31_536_000 + 300 * numpy.arange(400)
prices = 100 + numpy.sin(stamps)
columns = dict(datetime=stamps, open=prices, high=prices, low=prices, close=prices)
following = dict(datetime=31_656_000, open=100, high=100, low=100, close=100)
on = dict(instrument="Alpha", timeframe="5")
hours = TradingHours(["00:00-00:00"], "Asia/Kolkata", weekdays=range(7))
settings = LiveSettings(hours=hours, workers=3, deadline=60, clock=lambda: 31_656_300)
with LiveEngine(load(sys.argv[1]), settings) as engine:
    during = state()
    engine.feed(columns, **on)
    decisions = [engine.decide(following, Account.flat(1e5), **on)]
    decisions.append(engine.decide(None, None, **on))
    decisions.append(asyncio.run(engine.decide_async(following, Account.flat(1e4), **on)))
    engine.kill("now")
    decisions.append(engine.decide(following, Account.flat(1e3), **on))
    engine.revive()
    serving = engine.health().serving
after = state()
reasons = [decision.reason for decision in decisions]
print(json.dumps([before, during, after, reasons, serving]))
"""
    )
    before, during, after, reasons, serving = in_a_fresh_process(program, str(artifact))
    assert (reasons, serving) == (["ok", "bad_input", "ok", "killed"], True)
    for state in (before, during, after):
        state["environment"].pop("ORT_DISABLE_TELEMETRY", None)
    assert after == before
    assert during == {**before, "threads": before["threads"] + 3}


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="sets a register of this processor through this C library",
)
def test_a_host_that_flushes_denormals_to_zero_goes_on_to(artifact: Path) -> None:
    program = """
import ctypes, json, sys, numpy, talib
import hrm_runtime
maths = ctypes.CDLL("libm.so.6")
environment = (ctypes.c_uint8 * 32)()
maths.fegetenv(environment)
ctypes.c_uint32.from_buffer(environment, 28).value |= 0x8040  # MXCSR: FTZ, DAZ
maths.fesetenv(environment)
flushes = lambda: bool(numpy.float32(1e-30) * numpy.float32(1e-10) == 0)
before = flushes()
models = [hrm_runtime.load(sys.argv[1]) for _ in range(2)]
loaded = flushes()
models[0].self_test()
print(json.dumps([before, loaded, flushes()]))
"""
    assert in_a_fresh_process(program, str(artifact)) == [True, True, True]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads through /proc")
def test_one_thread_asked_for_starts_no_other(artifact: Path) -> None:
    program = """
import json, os, sys, numpy, talib
import hrm_runtime.artifact.session
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
model = hrm_runtime.load(sys.argv[1], threads=1)
print(json.dumps([before, threads()]))
"""
    before, after = in_a_fresh_process(program, str(artifact))
    assert after == before


@pytest.mark.parametrize(
    ("door", "room"),
    [
        ("actions", "market.actions"),
        ("bars", "market.bars"),
        ("bars", "market.csv_files"),
        ("bars", "market.series"),
        ("bars", "market.stamps"),
        ("contract", "artifact.contract"),
        ("contract", "market.instruments"),
        ("features", "market.features"),
        ("prometheus", "live.prometheus"),
        ("trace", "measure.trace"),
        ("backtest", "backtest.walk"),
        ("backtest", "backtest.book"),
        ("backtest", "backtest.rules"),
    ],
)
def test_documented_module_paths_lead_to_what_they_name(door: str, room: str) -> None:
    if door == "prometheus":
        pytest.importorskip("prometheus_client")
    entrance = importlib.import_module(f"hrm_runtime.{door}")
    module = importlib.import_module(f"hrm_runtime.{room}")
    public = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert public
    assert {name: getattr(entrance, name) for name in public} == public
