"""`hrm backtest` and `hrm trace` say what the library found, in words and in JSON."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Serving
from live import unknown_allowed
from rich.console import Console
from synthetic import random_bars
from typer.testing import CliRunner

from hrm_cli.app import app
from hrm_cli.show import console, report
from hrm_cli.show.decision import decision_fields
from hrm_runtime import Account, Action, Model, Reason, load
from hrm_runtime.artifact.contract import FORMAT_VERSION
from hrm_runtime.artifact.decision import hold
from hrm_runtime.backtest.rules import HOST_NO_TARGET, OURS, RULES, Rules
from hrm_runtime.backtest.walk import Backtest, backtest
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.measure.trace import Trace, trace

ARTIFACT = Path(__file__).parents[2] / "data" / f"artifact-{FORMAT_VERSION}"
ALPHA, BETA = random_bars(420, seed=36), random_bars(420, seed=37, seconds=900)
ON = {"instrument": "Alpha", "timeframe": "5"}

DONE, GATE_FAILED, BAD_INPUT = 0, 1, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bars")
    write_csv(ALPHA, folder / "Alpha_5.csv")
    write_csv(BETA, folder / "Beta_15.csv")
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    return load(ARTIFACT)


@pytest.fixture(scope="module")
def walked(model: Model) -> Backtest:
    return backtest(model, ALPHA, **ON)


@pytest.fixture(scope="module")
def traced(model: Model) -> Trace:
    return trace(model, ALPHA, Account.flat(1e6), **ON)


def hrm(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    result = hrm(*arguments, "--json")
    assert result.exit_code == DONE, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def words(text: str) -> str:
    """What a table says, its lines and frames taken away."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "┃│━─┏┓┡┩├┤└┘┳╇╈┼┴┬╪"), " ")).split())


def printed(capsys: pytest.CaptureFixture[str], write: Any, found: Any) -> str:
    write(found)
    return words(capsys.readouterr().out)


# hrm backtest


def test_backtest_prints_the_fields_of_every_series(data: Path, model: Model) -> None:
    said = answer("backtest", ARTIFACT, "--data", data)
    ours = [
        backtest(model, ALPHA, **ON),
        backtest(model, BETA, instrument="Beta", timeframe="15"),
    ]
    series = [json.loads(json.dumps(fields(one))) for one in ours]
    assert said == {"series": series, "skipped": []}


def fields(one: Backtest) -> dict[str, Any]:
    """The documented keys; an interval of too few bars is null on both sides."""
    few = [None, None]
    return {
        "instrument": one.instrument,
        "timeframe": one.timeframe,
        "unknown": [],
        "model_id": one.model_id,
        "rules": {**vars(one.rules), "all_in": None},
        "since": one.since,
        "in_sample": one.in_sample,
        "capital": one.capital,
        "datetime": one.datetime.tolist(),
        "equity": one.equity.tolist(),
        "buy_and_hold": one.buy_and_hold.tolist(),
        "trades": [
            {
                "side": trade.side.name,
                "lots": trade.lots,
                "entered": trade.entered,
                "entry_price": trade.entry_price,
                "exited": trade.exited,
                "exit_price": trade.exit_price,
                "costs": trade.costs,
                "profit": trade.profit,
                "ended": trade.ended.value,
            }
            for trade in one.trades
        ],
        "decisions": {action.name: one.decisions[action] for action in Action},
        "degraded": {},
        "unaffordable": one.unaffordable,
        "used_up": None,
        "block": one.block,
        "return_interval": one.return_interval if len(one.equity) > 100 else few,
        "excess_interval": one.excess_interval if len(one.equity) > 100 else few,
        "won": one.won,
        "costs": one.costs,
        "final_return": one.final_return,
        "buy_and_hold_return": one.buy_and_hold_return,
        "max_drawdown": one.max_drawdown,
    }


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (("--capital", 5e4), {"capital": 5e4}),
        (("--since", "2023-11-21"), {"since": 1_700_524_800}),
        *((("--rules", name), {"rules": rules}) for name, rules in RULES.items()),
    ],
    ids=["capital", "since", *RULES],
)
def test_options_of_backtest_reach_the_library(
    options: tuple[object, ...], how: dict[str, Any], monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    given: list[dict[str, Any]] = []

    def remember(model: Model, bars: object, **arguments: Any) -> Backtest:
        given.append(arguments)
        return backtest(model, bars, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("hrm_runtime.backtest.walk.backtest", remember)
    answer("backtest", ARTIFACT, "--data", data / "Alpha_5.csv", *options)
    (found,) = given
    del found["on_progress"]
    usual = {"capital": 1e6, "since": None, "rules": OURS}
    assert found == {**ON, **usual, **how}


def test_backtest_shows_a_line_per_series_and_what_it_is_not(data: Path, walked: Backtest) -> None:
    result = hrm("backtest", ARTIFACT, "--data", data)
    assert result.exit_code == DONE
    said = words(result.stdout)
    shares = (walked.final_return, walked.buy_and_hold_return)
    numbers = [f"{len(walked.trades)}", *(f"{share:+.1%}" for share in shares)]
    numbers += [f"{walked.max_drawdown:.1%}", f"{walked.costs / 1e6:.1%}"]
    for expected in (
        "Backtest, days in UTC",
        "Beta 15",
        " ".join(numbers),
        f"{walked.won} won",
        "says nothing about another",
        "An interval that spans zero is no evidence",
    ):
        assert expected in said
    assert "n sample" not in said
    assert result.stderr == "deciding\n"


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (OURS, "the rules called ours"),
        (HOST_NO_TARGET, "the rules called host-no-target"),
        (replace(OURS, target=True), "rules without a name"),
    ],
    ids=["ours", "host", "others"],
)
def test_whose_rules_they_were_is_said(
    rules: Rules, name: str, walked: Backtest, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, report.backtests, [replace(walked, rules=rules)])
    assert f"on these bars under {name}: one path" in said


def test_what_a_reader_must_know_is_said_below(
    walked: Backtest, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = replace(
        walked,
        instrument="Odd",
        in_sample=True,
        used_up=1_700_600_000,
        unaffordable=3,
        degraded={Reason.NON_FINITE: 1200, Reason.ERROR: 1},
        return_interval=(-np.inf, np.inf),
    )
    said = printed(capsys, report.backtests, [walked, odd, replace(odd, unaffordable=1)])
    after = (
        "capital used up on 2023-11-21 UTC; in sample, no evidence: the weights know this stretch"
    )
    degraded = "Odd 5: 1,200 decisions degraded, non_finite; 1 decision degraded, error"
    assert f"{degraded}; 3 orders skipped, not affordable; {after}" in said
    assert f"{degraded}; 1 order skipped, not affordable; {after}" in said
    assert "Alpha 5:" not in said
    assert said.count("too few bars") == 2


@pytest.fixture(params=[60, 80], ids=str)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    width = int(request.param)
    terminal = Console(width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    return width


def test_a_backtest_is_shown_whole(
    narrow: int, walked: Backtest, capsys: pytest.CaptureFixture[str]
) -> None:
    trades = walked.trades * 200
    odd = replace(walked, instrument="Bank_Nifty", return_interval=(-0.1234, 1.2344), trades=trades)
    report.backtests([odd])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= narrow
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    columns = [" ".join(map(str.strip, column)).split() for column in zip(*lines, strict=True)]
    first, last = (console.day(int(odd.datetime[end])) for end in (0, -1))
    assert columns == [
        ["Bank_Nifty", "5", first, last],
        [f"{len(trades):,}", f"{odd.won:,}", "won"],
        [f"{odd.final_return:+.1%}", "-12.3%", "to", "+123.4%"],
        [f"{odd.buy_and_hold_return:+.1%}"],
        [f"{odd.max_drawdown:.1%}"],
        [f"{odd.costs / odd.capital:.1%}"],
    ]


def test_a_trace_is_shown_whole(
    narrow: int, traced: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    report.trace(traced)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= narrow
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    columns = [" ".join(map(str.strip, column)).split() for column in zip(*lines, strict=True)]
    numbers = list(map(str, range(1, len(traced.segments) + 1)))
    residuals = [segment.l_residual for segment in traced.segments]
    steps = [f"{cycle[0]:.2g} to {cycle[-1]:.2g}" for one in residuals for cycle in one]
    assert columns[:2] == [numbers, " ".join(steps).split()]
    assert columns[2] == [f"{cycle:.2g}" for one in traced.segments for cycle in one.h_residual]
    assert [word for word in columns[3] if "█" not in word] == [
        word
        for one in traced.segments
        for action, share in zip(Action, one.decision.probabilities, strict=True)
        if share > 0
        for word in (action.name, f"{share:.0%}")
    ]
    q_values = [one.decision.q_values for one in traced.segments]
    assert columns[4] == " ".join(f"{halt:.3f}, {go_on:.3f}" for halt, go_on in q_values).split()


def test_an_interval_is_written_with_its_signs(walked: Backtest) -> None:
    assert report.interval_text(replace(walked, return_interval=(-0.1234, 0.05))) == (
        "-12.3% to +5.0%"
    )


def test_a_folder_is_walked_but_for_what_cannot_be_which_is_named_last(
    data: Path, tmp_path: Path
) -> None:
    write_csv(ALPHA[:230], tmp_path / "Beta_5.csv")
    write_csv(BETA, tmp_path / "Gamma_15.csv")
    reasons = {
        ("Beta", "5"): "expected at least two bars from 2023-11-21 13:55 UTC on, found the last of",
        ("Gamma", "15"): "instrument: expected one of Alpha, Beta; found 'Gamma', which this",
    }
    given = ("backtest", ARTIFACT, "--data", data, "--data", tmp_path)
    said = answer(*given)
    assert said["series"] == answer("backtest", ARTIFACT, "--data", data)["series"]
    assert [(one["instrument"], one["timeframe"]) for one in said["skipped"]] == [*reasons]
    for one, reason in zip(said["skipped"], reasons.values(), strict=True):
        assert one.keys() == {"instrument", "timeframe", "reason"}
        assert one["reason"].startswith(reason)
    result = hrm(*given)
    assert result.exit_code == DONE
    assert result.stdout.splitlines()[-2:] == [
        f"skipped {one['instrument']}_{one['timeframe']}: {one['reason']}"
        for one in said["skipped"]
    ]


def test_the_only_file_is_refused_where_it_cannot_be_walked_and_so_are_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.backtest.walk.backtest", None)
    write_csv(ALPHA[:230], tmp_path / "Beta_5.csv")
    for given in (tmp_path / "Beta_5.csv", tmp_path):
        result = hrm("backtest", ARTIFACT, "--data", given)
        assert (result.exit_code, result.stdout) == (BAD_INPUT, "")
        assert "Beta_5: expected at least two bars from 2023-11-21 13:55 UTC" in result.stderr
    write_csv(BETA, tmp_path / "Gamma_15.csv")
    result = hrm("backtest", ARTIFACT, "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (BAD_INPUT, "")
    assert "found none: Beta_5: expected at least two bars" in result.stderr
    assert "; Gamma_15: instrument: expected one of Alpha, Beta; found 'Gamma'" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Beta_5.csv", "hello", "missing datetime"),
        ("Beta.csv", "datetime", "expected a file named SYMBOL_TIMEFRAME.csv"),
        ("Alpha_5.csv", "datetime", "expected one file per series"),
        (
            "Beta_5.csv",
            "datetime,open,high,low,close\n1e9,1,1,1,1\n1e9,2,2,2,2\n",
            "one bar per stamp",
        ),
        ("Beta_5.csv", "datetime,open,high,low,close\n1e9,1,1,2,1\n", "expected low <= open"),
    ],
    ids=["unreadable", "misnamed", "twice", "conflicting", "impossible"],
)
def test_a_file_that_is_wrong_is_not_skipped(
    name: str, content: str, message: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    result = hrm("backtest", ARTIFACT, "--data", data, "--data", tmp_path)
    assert (result.exit_code, result.stdout) == (BAD_INPUT, "")
    assert message in result.stderr


@pytest.mark.parametrize("verb", ["backtest", "trace"])
def test_a_name_the_artifact_was_not_trained_on_is_told_with_the_closest(
    verb: str, data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.load", lambda path: unknown_allowed(model))
    given = ("--data", data / "Alpha_5.csv", "--instrument", "ALPHA", "--timeframe", "5m")
    result = hrm(verb, ARTIFACT, *given, "--picture", tmp_path / "some.png")
    assert result.exit_code == DONE
    assert result.stderr.count("instrument 'ALPHA' is unknown to the artifact, which decides") == 1
    assert "the closest is Alpha, which differs in upper and lower case\n" in result.stderr
    found = answer(verb, ARTIFACT, *given, "--picture", tmp_path / "some.png")
    told = found["series"][0] if verb == "backtest" else found["decision"]
    assert told["unknown"] == ["instrument"]


def test_since_is_a_day(data: Path) -> None:
    result = hrm("backtest", ARTIFACT, "--data", data, "--since", "yesterday")
    assert result.exit_code == BAD_INPUT
    assert "'yesterday' does not match the format" in words(result.stderr)


# hrm trace


def test_trace_prints_every_segment(data: Path, traced: Trace, tmp_path: Path) -> None:
    said = answer("trace", ARTIFACT, "--bars", data / "Alpha_5.csv", "--out", tmp_path / "one.png")
    for decision in (said["decision"], *(segment["decision"] for segment in said["segments"])):
        decision.pop("latency_ms")
    assert said == {
        **ON,
        "datetime": traced.datetime,
        "close": traced.close,
        "account": vars(Account.flat(1e6)),
        "decision": known_fields(traced.decision),
        "halted": traced.halted,
        "segments": [
            {
                "l_residual": segment.l_residual.tolist(),
                "h_residual": segment.h_residual.tolist(),
                "decision": known_fields(segment.decision),
            }
            for segment in traced.segments
        ],
    }


def known_fields(decision: Any) -> dict[str, Any]:
    shown = json.loads(json.dumps(decision_fields(decision)))
    shown.pop("latency_ms")
    return dict(shown)


def test_trace_is_for_the_account_it_is_given(data: Path, model: Model, tmp_path: Path) -> None:
    said = answer(
        "trace", ARTIFACT, "--bars", data / "Beta_15.csv", "--out", tmp_path / "one.png",
        "--capital", 2e5, "--position", -3, "--entry-price", 99, "--unrealized-pnl", -7,
        "--distance-to-trail", 0.01,
    )  # fmt: skip
    account = Account(2e5, -3.0, 99.0, -7.0, True, 0.01)
    decision = model.decide(BETA, account, instrument="Beta", timeframe="15")
    assert said["decision"]["probabilities"] == list(decision.probabilities)
    assert (said["instrument"], said["timeframe"]) == ("Beta", "15")
    assert said["account"] == vars(account)


def test_trace_shows_a_line_per_segment(data: Path, traced: Trace, tmp_path: Path) -> None:
    out = tmp_path / "one.png"
    result = hrm("trace", ARTIFACT, "--bars", data / "Alpha_5.csv", "--out", out)
    assert result.exit_code == DONE
    said = words(result.stdout)
    assert report.outcome(traced) in said
    for segment in traced.segments:
        (first, last), _ = segment.l_residual.tolist()
        assert f"{first:.2g} to {last:.2g} {segment.h_residual[0]:.2g}" in said
        halt, go_on = segment.decision.q_values
        assert f"{halt:.3f}, {go_on:.3f}" in said
    assert f"wrote {out}" in result.stderr.replace("\n", "")


def test_the_outcome_says_what_after_how_much_and_why(traced: Trace) -> None:
    def said(halted: bool = False, **changes: Any) -> str:
        q_values = (0.75, 0.5) if halted else (0.25, 0.5)
        decision = replace(traced.decision, q_values=q_values, **changes)
        return report.outcome(replace(traced, decision=decision))

    bought = {"action": Action.BUY_LONG, "quantity": 12_345.0}
    assert said(segments=2, **bought) == "BUY_LONG 12,345 lots, after 2 segments: the limit"
    assert said(True, segments=1, **{**bought, "quantity": 1.0}) == (
        "BUY_LONG 1 lot, after 1 segment: halt 0.750 > continue 0.500"
    )
    assert said(True, segments=3, action=Action.HOLD, quantity=1.0) == (
        "HOLD, after 3 segments: halt 0.750 > continue 0.500"
    )
    degraded = replace(traced, decision=hold(Reason.NON_FINITE, "abc"))
    assert report.outcome(degraded) == "HOLD, for the network's answer was non_finite"


def test_a_trace_that_ends_degraded_exits_with_1_and_is_drawn(
    data: Path, traced: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = hold(Reason.NON_FINITE, traced.decision.model_id, segments=2)
    first = traced.segments[0]
    broken = replace(first, l_residual=first.l_residual * np.nan, decision=safe)
    found = replace(traced, decision=safe, segments=(first, broken))
    monkeypatch.setattr("hrm_runtime.measure.trace.trace", lambda *_, **__: found)
    out = tmp_path / "one.png"
    result = hrm("trace", ARTIFACT, "--bars", data / "Alpha_5.csv", "--out", out)
    assert result.exit_code == GATE_FAILED
    assert "non_finite" in result.stdout
    assert out.exists()


def test_trace_takes_one_series(data: Path, tmp_path: Path) -> None:
    result = hrm("trace", ARTIFACT, "--bars", data, "--out", tmp_path / "one.png")
    assert result.exit_code == BAD_INPUT
    assert "expected one bars file, found 2" in result.stderr


# without what is not needed


@pytest.mark.parametrize("verb", ["backtest", "trace"])
def test_neither_needs_a_training_library(
    verb: str, data: Path, tmp_path: Path, serving: Serving
) -> None:
    picture = tmp_path / "one.png"
    options = {
        "backtest": ["--data", str(data), "--picture", str(picture)],
        "trace": ["--bars", str(data / "Alpha_5.csv"), "--out", str(picture)],
    }
    result = serving(verb, ARTIFACT, *options[verb], "--json")
    assert result.returncode == DONE, result.stderr
    assert json.loads(result.stdout)
    assert picture.exists()


@pytest.mark.parametrize("verb", ["backtest", "trace"])
def test_drawing_needs_matplotlib_and_says_so(
    verb: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "hrm_cli.show.draw")
    monkeypatch.delattr("hrm_cli.show.draw")
    options = {
        "backtest": ["--data", data],
        "trace": ["--bars", data / "Alpha_5.csv", "--out", tmp_path / "one.png"],
    }
    result = hrm(verb, ARTIFACT, *options[verb])
    assert result.exit_code == BAD_INPUT
    assert f"{verb} needs matplotlib: pip install '.[cli]'" in result.stderr
