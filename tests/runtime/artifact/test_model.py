from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from artifact_copy import ArtifactCopy
from live import unknown_allowed
from outputs import assert_equal
from random_windows import Windows
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    BadAccount,
    BadBars,
    BadFeatures,
    Bars,
    Contract,
    Decision,
    InferenceFailed,
    Model,
    Reason,
    SelfTestFailed,
    TooFewBars,
    UnknownInstrument,
    UnknownTimeframe,
    load,
)
from hrm_runtime.artifact.contract import MODEL, OUTPUTS
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.model import network_inputs
from hrm_runtime.artifact.segments import Outputs, decisions
from hrm_runtime.artifact.session import Session, Stop
from hrm_runtime.market.actions import LEGAL
from hrm_runtime.market.features import rows

BARS = random_bars(260, seed=21)

ON = {"instrument": "Alpha", "timeframe": "5"}


def columns(bars: Bars) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(bars, name) for name in ("datetime", "open", "high", "low", "close")}


# decide


def bits(decision: Decision) -> tuple[Any, ...]:
    """What equality compares, with every float spelt out to its last bit."""
    floats = (decision.quantity, decision.value, *decision.probabilities, *decision.q_values)
    return (decision, *(number.hex() for number in floats))


@pytest.mark.parametrize("side", ACCOUNTS)
@pytest.mark.parametrize("instrument", ["Alpha", "Beta"])
@pytest.mark.parametrize("timeframe", ["5", "15"])
def test_decide_equals_decide_rows_on_its_rows(
    model: Model, side: str, instrument: str, timeframe: str
) -> None:
    names = {"instrument": instrument, "timeframe": timeframe}
    bars = random_bars(260, seed=21, seconds=60 * int(timeframe))
    for end in range(205, len(bars) + 1, 11):
        series = rows(bars[:end], model.contract.features.history_bars)
        by_rows = model.decide_rows(series, ACCOUNTS[side], **names)
        assert bits(model.decide(bars[:end], ACCOUNTS[side], **names)) == bits(by_rows)
        assert by_rows.reason is Reason.OK


def test_a_decision_is_that_of_its_passes(model: Model, contract: Contract) -> None:
    account, bars = ACCOUNTS["flat"], random_bars(260, seed=21, seconds=900)
    window = rows(bars[-205:], 200)
    given = network_inputs(contract, window, account, contract.instruments["Beta"], 1)
    np.testing.assert_array_equal(given[0], [[row.values for row in window]])
    assert (given[2].tolist(), given[3].tolist()) == ([2], [1])
    expected = decisions(model.run_segments(*given), [account], model.id)[0]
    assert bits(model.decide(bars, account, instrument="Beta", timeframe="15")) == bits(expected)


def test_a_mapping_of_columns_decides_as_its_bars(model: Model) -> None:
    given = {**columns(BARS), "index": range(len(BARS))}
    account = ACCOUNTS["long"]
    assert bits(model.decide(given, account, **ON)) == bits(model.decide(BARS, account, **ON))


def test_more_history_than_needed_changes_nothing(model: Model) -> None:
    needed = model.contract.bars_needed
    account = ACCOUNTS["short"]
    expected = bits(model.decide(BARS[-needed:], account, **ON))
    assert bits(model.decide(BARS, account, **ON)) == expected
    assert bits(model.decide(BARS[-needed - 1 :], account, **ON)) == expected


def test_more_rows_than_needed_change_nothing(model: Model) -> None:
    series = rows(BARS, 200)
    account = ACCOUNTS["flat"]
    assert bits(model.decide_rows(series, account, **ON)) == bits(
        model.decide_rows(tuple(series[-6:]), account, **ON)
    )


def newest_changed() -> Bars:
    changed = columns(BARS)
    changed["close"] = changed["close"].copy()
    changed["close"][-1] = changed["low"][-1]
    assert changed["close"][-1] != BARS.close[-1]
    return Bars(**changed)


@pytest.mark.parametrize(
    "change",
    [
        {"window": rows(newest_changed(), 200)},
        {"account": Account.flat(50_000.0)},
        {"account": ACCOUNTS["long"]},
        {"instrument": "Beta"},
        {"timeframe": "15"},
    ],
    ids=["newest bar", "capital", "side", "instrument", "timeframe"],
)
def test_every_part_of_the_input_alone_changes_the_decision(
    model: Model, change: dict[str, Any]
) -> None:
    base = {"window": rows(BARS, 200), "account": ACCOUNTS["flat"], **ON}
    one, other = model.decide_rows(**base), model.decide_rows(**{**base, **change})
    assert one.probabilities != other.probabilities
    assert one.value != other.value


def test_the_model_numbers_nothing_and_signs_everything(model: Model) -> None:
    made = model.decide(BARS, ACCOUNTS["flat"], **ON)
    assert (made.sequence, made.model_id) == (0, model.id)


@pytest.mark.parametrize("side", ACCOUNTS)
def test_an_illegal_action_is_never_chosen(model: Model, windows: Windows, side: str) -> None:
    account = ACCOUNTS[side]
    chosen = windows[windows.account[:, 0] == account.side]
    made = decisions(model.run_segments(*chosen.arrays), [account] * len(chosen.features), "abc")
    assert len(made) > 150
    legal = LEGAL[account.side]
    assert {decision.action for decision in made} <= set(legal)
    for decision in made:
        assert [p for a, p in enumerate(decision.probabilities) if a not in legal] == [0.0] * (
            5 - len(legal)
        )
        assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-15)


def test_concurrent_decisions_equal_sequential_ones(model: Model) -> None:
    jobs = [
        (BARS[: 205 + number], ACCOUNTS[side], instrument)
        for number in range(0, 50, 5)
        for side in ACCOUNTS
        for instrument in ("Alpha", "Beta")
    ]

    def decide(job: tuple[Bars, Account, str]) -> tuple[Any, ...]:
        return bits(model.decide(job[0], job[1], instrument=job[2], timeframe="5"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        assert list(pool.map(decide, jobs)) == list(map(decide, jobs))


# what decide refuses


def test_too_few_bars_are_refused(model: Model) -> None:
    with pytest.raises(TooFewBars, match="at least 205 for one decision, found 204"):
        model.decide(BARS[:204], ACCOUNTS["flat"], **ON)


def test_a_mapping_without_a_column_is_refused(model: Model) -> None:
    given = {name: column for name, column in columns(BARS).items() if name != "low"}
    with pytest.raises(BadBars, match="missing low"):
        model.decide(given, ACCOUNTS["flat"], **ON)


def test_too_few_rows_are_refused(model: Model) -> None:
    with pytest.raises(BadFeatures, match="rows: expected at least 6, found 5"):
        model.decide_rows(rows(BARS, 200)[:5], ACCOUNTS["flat"], **ON)


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 5, 4], [5, 4, 3, 2, 1, 0]], ids=str
)
def test_rows_out_of_order_are_refused(model: Model, order: list[int]) -> None:
    series = rows(BARS, 200)
    with pytest.raises(BadFeatures, match="stamps that increase, oldest bar first"):
        model.decide_rows([series[number] for number in order], ACCOUNTS["flat"], **ON)


def test_a_row_that_is_not_finite_is_refused(model: Model) -> None:
    *series, newest = rows(BARS, 200)
    broken = replace(newest, values=newest.values * np.float32(np.nan))
    with pytest.raises(
        BadFeatures, match=r"features: expected finite numbers, found nan at \(0, 5"
    ):
        model.decide_rows([*series, broken], ACCOUNTS["flat"], **ON)


def test_rows_made_from_another_history_are_refused(model: Model) -> None:
    with pytest.raises(BadFeatures, match=r"history_bars=200\), found rows made from \[205\] bars"):
        model.decide_rows(rows(BARS, 205), ACCOUNTS["flat"], **ON)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.decide(BARS, None, **ON),
            BadAccount,
            "account: expected an Account or a mapping, found NoneType",
        ),
        (
            lambda m: m.decide_rows(rows(BARS, 200), {"capital": 1e6}, **ON),
            BadAccount,
            "account: expected the values capital, .*; found capital",
        ),
        (
            lambda m: m.inputs(rows(BARS, 200)[-6:], 1e6, **ON),
            BadAccount,
            "account: expected an Account or a mapping, found float",
        ),
        (lambda m: m.decide(None, ACCOUNTS["flat"], **ON), BadBars, "a mapping .*, found NoneType"),
        (
            lambda m: m.decide(BARS, ACCOUNTS["flat"], instrument=1, timeframe="5"),
            UnknownInstrument,
            "instrument: expected a name, found 1",
        ),
        (
            lambda m: m.decide(BARS, ACCOUNTS["flat"], instrument="Alpha", timeframe=5),
            UnknownTimeframe,
            "timeframe: expected a name, found 5",
        ),
    ],
)
def test_arguments_of_another_type_are_refused(
    model: Model, call: Callable[[Model], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(model)


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=list(ACCOUNTS))
def test_an_account_may_be_a_mapping_of_its_values(model: Model, account: Account) -> None:
    window, expected = rows(BARS, 200), model.decide(BARS, account, **ON)
    assert model.decide(BARS, vars(account), **ON) == expected
    assert model.decide_rows(window, vars(account), **ON) == expected
    for given, read in zip(
        model.inputs(window[-6:], vars(account), **ON),
        model.inputs(window[-6:], account, **ON),
        strict=True,
    ):
        np.testing.assert_array_equal(given, read, strict=True)


def test_an_unknown_instrument_is_refused_with_the_known_ones(model: Model) -> None:
    with pytest.raises(UnknownInstrument, match="expected one of Alpha, Beta; found 'Gamma'"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Gamma", timeframe="5")


def test_an_unknown_timeframe_is_refused_with_the_known_ones(model: Model) -> None:
    with pytest.raises(UnknownTimeframe, match="expected one of 15, 5; found '60'"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Alpha", timeframe="60")


def test_unknown_names_decide_with_id_0_where_allowed(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.reseal(allow_unknown_instrument=True, allow_unknown_timeframe=True)
    model = load(copy_artifact.path)
    contract, account = model.contract, ACCOUNTS["flat"]
    hours = random_bars(205, seed=21, seconds=3600)
    given = network_inputs(contract, rows(hours, 200), account, contract.instruments["unknown"], 0)
    assert (given[2].tolist(), given[3].tolist()) == ([0], [0])
    expected = decisions(model.run_segments(*given), [account], model.id)[0]
    found = model.decide(hours, account, instrument="Gamma", timeframe="60")
    assert bits(found) == bits(expected)
    assert found.unknown == ("instrument", "timeframe")
    known = model.decide_rows(rows(hours, 200), account, **ON)
    assert known.unknown == ()
    assert found.probabilities != known.probabilities


def test_a_decision_that_is_made_as_for_any_other_name_says_so(model: Model) -> None:
    model = unknown_allowed(model)
    found = model.decide(BARS, ACCOUNTS["flat"], instrument="ALPHA", timeframe="5")
    assert found.unknown == ("instrument",)
    assert found != model.decide(BARS, ACCOUNTS["flat"], **ON)
    assert ", ok, unknown instrument, id " in repr(found)


@pytest.mark.parametrize("timeframe", ["5m", "5min", "05", "M5"])
def test_every_spelling_of_a_timeframe_gives_the_same_decision(
    model: Model, timeframe: str
) -> None:
    account = ACCOUNTS["long"]
    found = model.decide(BARS, account, instrument="Alpha", timeframe=timeframe)
    assert bits(found) == bits(model.decide(BARS, account, **ON))
    assert found.unknown == ()


@pytest.mark.parametrize("timeframe", ["tea", "1M", "unknown"])
def test_a_timeframe_of_unknown_length_is_refused_as_live(model: Model, timeframe: str) -> None:
    with pytest.raises(UnknownTimeframe, match="the length of its bars must be known"):
        unknown_allowed(model).decide(
            BARS, ACCOUNTS["flat"], instrument="Alpha", timeframe=timeframe
        )


@pytest.mark.parametrize(("seconds", "timeframe"), [(300, "15"), (900, "5")])
def test_bars_of_another_timeframe_are_refused(model: Model, seconds: int, timeframe: str) -> None:
    bars = random_bars(260, seed=21, seconds=seconds)
    expected = f"expected bars of {60 * int(timeframe)} s, .* {seconds} s .*: another timeframe$"
    with pytest.raises(BadBars, match=expected):
        model.decide(bars, ACCOUNTS["flat"], instrument="Alpha", timeframe=timeframe)


def test_bars_before_those_needed_may_be_of_any_timeframe(model: Model) -> None:
    needed = BARS[-205:]
    older = {name: column[:40].copy() for name, column in columns(BARS).items()}
    older["datetime"] = needed.datetime[0] - 60 * np.arange(1, 41)[::-1]
    both = Bars(**{n: np.concatenate((older[n], c)) for n, c in columns(needed).items()})
    account = ACCOUNTS["flat"]
    assert bits(model.decide(both, account, **ON)) == bits(model.decide(needed, account, **ON))


# outputs that cannot be trusted


class Spoiling:
    """A session whose outputs hold one value that is not a number."""

    def __init__(self, artifact: Path, name: str, value: float) -> None:
        self.session = Session((artifact / MODEL).read_bytes())
        self.name, self.value = name, value

    def run(self, feeds: dict[str, Any], stop: Stop | None = None) -> Outputs:
        outputs = self.session.run(feeds, stop)
        outputs[self.name].reshape(-1)[-1] = self.value
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_not_finite_is_hold_with_its_reason(
    artifact: Path, model: Model, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(model, "_session", Spoiling(artifact, name, value))
    found = model.decide(BARS, ACCOUNTS["flat"], **ON)
    assert found == hold(Reason.NON_FINITE, model.id, segments=1)
    assert found.degraded


def test_a_failing_run_is_raised(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = replace(
        model.contract,
        instruments={
            **model.contract.instruments,
            "Beyond": replace(model.contract.instruments["Alpha"], id=10_000),
        },
    )
    monkeypatch.setattr(model, "contract", contract)
    with pytest.raises(InferenceFailed, match="onnxruntime failed while running the graph"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Beyond", timeframe="5")


# the self-test


class Changing:
    """A session whose outputs are changed by `change`, while there is one."""

    def __init__(self, model: Model) -> None:
        self.session = model._session
        self.change: Callable[[Outputs], object] | None = None
        self.asked: list[dict[str, Any]] = []

    def run(self, feeds: dict[str, Any], stop: Stop | None = None) -> Outputs:
        self.asked.append(feeds)
        outputs = self.session.run(feeds, stop)
        if self.change is not None:
            self.change(outputs)
        return outputs


@pytest.fixture
def changing(model: Model) -> Changing:
    return Changing(model)


@pytest.fixture
def untested(model: Model, changing: Changing) -> Model:
    """The frozen model as it was before its first self-test, on a session that may change."""
    return Model(model.contract, model.id, changing)  # type: ignore[arg-type]


def last_of(name: str, change: Callable[[np.float32], Any]) -> Callable[[Outputs], None]:
    """Changes the last element of the output `name`."""

    def apply(outputs: Outputs) -> None:
        flat = outputs[name].reshape(-1)
        flat[-1] = change(flat[-1])

    return apply


def one_bit_up(value: np.float32) -> Any:
    return np.nextafter(value, np.float32(np.inf))


def test_a_self_test_runs_a_window_of_zeros_as_often_as_one_likes(
    untested: Model, changing: Changing
) -> None:
    for _ in range(3):
        untested.self_test()
    assert len(changing.asked) == 3
    for feeds in changing.asked:
        assert_equal(
            feeds,
            {
                "features": np.zeros((1, 6, 54), np.float32),
                "account": np.zeros((1, 5), np.float32),
                "instrument": np.zeros(1, np.int64),
                "timeframe": np.zeros(1, np.int64),
            },
        )


def test_decisions_between_self_tests_change_nothing(untested: Model) -> None:
    untested.self_test()
    before = bits(untested.decide(BARS, ACCOUNTS["flat"], **ON))
    untested.self_test()
    assert bits(untested.decide(BARS, ACCOUNTS["flat"], **ON)) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_differs_in_a_bit_fails_the_self_test(
    untested: Model, changing: Changing, name: str
) -> None:
    untested.self_test()
    changing.change = last_of(name, one_bit_up)
    with pytest.raises(
        SelfTestFailed,
        match=rf"^self-test: expected the outputs of the first one, found other \['{name}'\]; "
        "this machine cannot be relied on$",
    ):
        untested.self_test()
    changing.change = None
    untested.self_test()


def test_a_loaded_model_is_held_to_what_it_answered_when_loaded(artifact: Path) -> None:
    loaded = load(artifact)
    changing = Changing(loaded)
    changing.change = last_of("value", one_bit_up)
    loaded._session = changing  # type: ignore[assignment]
    with pytest.raises(SelfTestFailed, match=r"found other \['value'\]"):
        loaded.self_test()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_an_output_that_is_not_finite_fails_the_self_test(
    untested: Model, changing: Changing, name: str, value: float, first: bool
) -> None:
    if not first:
        untested.self_test()
    changing.change = last_of(name, lambda _: value)
    for _ in range(2):  # and again: what is broken is no example
        with pytest.raises(
            SelfTestFailed, match=r"^self-test: expected finite outputs of a window of zeros$"
        ):
            untested.self_test()


def test_a_self_test_that_cannot_run_is_an_inference_failure(
    untested: Model, changing: Changing
) -> None:
    def fail(outputs: Outputs) -> None:
        raise InferenceFailed("no memory")

    changing.change = fail
    with pytest.raises(InferenceFailed, match=r"^no memory$"):
        untested.self_test()


# where it came from


def test_a_model_knows_its_folder_whatever_the_current_one_is(
    artifact: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.folder == artifact
    monkeypatch.chdir(artifact.parent)
    loaded = load(artifact.name)
    monkeypatch.chdir("/")
    assert loaded.folder == artifact


def test_a_model_that_was_made_otherwise_has_no_folder(untested: Model) -> None:
    assert untested.folder is None
