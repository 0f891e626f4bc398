"""Pictures hold the numbers that the library found; files are PNG, or refused before any work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from synthetic import random_bars
from typer.testing import CliRunner

from hrm_cli.app import app
from hrm_cli.show import draw, report
from hrm_runtime import Account, Action, BadInput, Reason
from hrm_runtime.artifact.contract import FORMAT_VERSION
from hrm_runtime.artifact.decision import Decision, hold
from hrm_runtime.backtest.book import Exit, Trade
from hrm_runtime.backtest.rules import OURS
from hrm_runtime.backtest.walk import Backtest
from hrm_runtime.market.actions import Side
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.measure.trace import Segment, Trace

ARTIFACT = Path(__file__).parents[2] / "data" / f"artifact-{FORMAT_VERSION}"
NOON = 1_704_110_400  # 2024-01-01 12:00 UTC
HOUR = 3600


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], Figure]:
    """The figure that a function would have saved."""

    def figure(function: Any, found: Any) -> Figure:
        kept: list[Figure] = []
        monkeypatch.setattr(draw, "_save", lambda figure, path: kept.append(figure))
        function(found, Path("unused.png"))
        (only,) = kept
        only.canvas.draw()
        return only

    return figure


def trade(side: Side, entered: int, exited: int, ended: Exit) -> Trade:
    return Trade(
        side=side,
        lots=1,
        entered=NOON + HOUR * entered,
        entry_price=1.0,
        exited=NOON + HOUR * exited,
        exit_price=1.0,
        costs=0.0,
        profit=0.0,
        ended=ended,
    )


WALKED = Backtest(
    instrument="Alpha",
    timeframe="60",
    unknown=(),
    model_id="abc",
    rules=OURS,
    since=NOON,
    in_sample=False,
    capital=200.0,
    datetime=NOON + HOUR * np.arange(7),
    equity=np.array([200.0, 210, 190, 200, 220, 230, 240]),
    buy_and_hold=np.array([200.0, 202, 204, 206, 208, 210, 212]),
    trades=(
        trade(Side.LONG, 1, 3, Exit.ACTION),
        trade(Side.SHORT, 3, 4, Exit.STOP),
        trade(Side.LONG, 6, 6, Exit.END),
    ),
    decisions=dict.fromkeys(Action, 0),
    degraded={},
    unaffordable=0,
    used_up=None,
    block=2,
    return_interval=(-0.05, 0.3),
    excess_interval=(-0.1, 0.2),
)


def lines(panel: Axes) -> list[tuple[list[float], list[float]]]:
    """x and y of each line that is not one of the axes' own."""
    found = [(line.get_xdata(), line.get_ydata()) for line in panel.get_lines()]
    return [(np.asarray(x).tolist(), np.asarray(y).tolist()) for x, y in found]


# backtests


def test_a_panel_shows_the_three_equities_in_percent(drawn: Any) -> None:
    (panel,) = drawn(draw.backtests, [WALKED]).axes
    nothing, held, model, stops = lines(panel)
    assert nothing == ([0, 1, 2, 3, 4, 5, 6], [100.0] * 7)
    assert held[1] == pytest.approx([100, 101, 102, 103, 104, 105, 106])
    assert model[1] == pytest.approx([100, 105, 95, 100, 110, 115, 120])
    assert stops == ([4], [pytest.approx(110.0)])
    assert panel.get_title("left") == "Alpha 60: +20.0% (95 %: -5.0% to +30.0%), 3 trades"
    (one,) = drawn(draw.backtests, [replace(WALKED, trades=WALKED.trades[:1])]).axes
    assert one.get_title("left").endswith(", 1 trade")
    labels = [label.get_text() for label in panel.get_xticklabels()]
    assert labels[0] == "2024-01-01\n12:00 UTC"
    assert labels[-1] == "2024-01-01\n18:00 UTC"


def test_positions_are_drawn_from_the_open_they_began_at(drawn: Any) -> None:
    (panel,) = drawn(draw.backtests, [WALKED]).axes
    found = {
        to_hex(part.get_facecolor()[0]): [
            (path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in part.get_paths()
        ]
        for part in panel.collections
    }
    # a bar's open stands at the close before it; a stop is at its bar's close
    assert found == {
        draw.SIDES[Side.LONG]: [(0.0, 2.0), (5.0, 6.0)],
        draw.SIDES[Side.SHORT]: [(2.0, 4.0)],
    }


def test_in_sample_is_written_in_red(drawn: Any) -> None:
    (panel,) = drawn(draw.backtests, [replace(WALKED, in_sample=True)]).axes
    assert panel.get_title("left").startswith("Alpha 60: in sample, no evidence: +20.0%")
    assert panel._left_title.get_color() == draw.RED


def test_a_series_without_trades_has_a_panel_too(drawn: Any) -> None:
    flat = replace(WALKED, trades=(), return_interval=(-np.inf, np.inf))
    (panel,) = drawn(draw.backtests, [flat]).axes
    assert lines(panel)[-1] == ([], [])
    assert panel.get_title("left") == "Alpha 60: +20.0% (95 %: too few bars), 0 trades"


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (3, 1)), (4, (2, 2)), (9, (5, 2))])
def test_there_is_a_panel_per_series(drawn: Any, count: int, shape: tuple[int, int]) -> None:
    figure = drawn(draw.backtests, [replace(WALKED, timeframe=str(n)) for n in range(count)])
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    shown = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title("left").partition(":")[0] for panel in shown] == [
        f"Alpha {n}" for n in range(count)
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "model", "buy and hold, no leverage", "do nothing", "long", "short", "stopped",
    ]  # fmt: skip


# traces


def segment(
    number: int, l_residual: Any, h_residual: Any, decision: Decision | None = None
) -> Segment:
    made = Decision(
        action=Action.SELL_SHORT,
        quantity=2.0,
        value=0.0,
        probabilities=(0.25, 0.5, 0.0, 0.0, 0.25),
        q_values=(0.125 * number, 0.25),
        segments=number,
        reason=Reason.OK,
        model_id="abc",
    )
    return Segment(
        np.array(l_residual, np.float32), np.array(h_residual, np.float32), decision or made
    )


def traced(*segments: Segment) -> Trace:
    return Trace(
        instrument="Alpha",
        timeframe="60",
        datetime=NOON,
        close=1234.5,
        account=Account.flat(1e6),
        decision=segments[-1].decision,
        segments=segments,
    )


TWO = traced(
    segment(1, [[1.0, 0.5, 0.25], [1.0, 0.5, 0.125]], [2.0, 1.0]),
    segment(2, [[0.5, 0.25, 0.125], [1.0, 0.5, 0.25]], [0.5, 0.25]),
)


def test_residuals_are_drawn_step_by_step_on_a_log_axis(drawn: Any) -> None:
    top, _ = drawn(draw.trace, TWO).axes
    assert top.get_yscale() == "log"
    first, second, updates, third, fourth, later, boundary = lines(top)
    # three steps of L and one of H make a cycle of four, two cycles a segment of eight
    assert first == ([0.5, 1.5, 2.5], [1.0, 0.5, 0.25])
    assert second == ([4.5, 5.5, 6.5], [1.0, 0.5, 0.125])
    assert updates == ([3.5, 7.5], [2.0, 1.0])
    assert third == ([8.5, 9.5, 10.5], [0.5, 0.25, 0.125])
    assert fourth == ([12.5, 13.5, 14.5], [1.0, 0.5, 0.25])
    assert later == ([11.5, 15.5], [0.5, 0.25])
    assert boundary[0] == [8, 8]
    assert top.get_xlim() == (0.0, 16.0)


def test_cycles_and_segments_are_labelled(drawn: Any) -> None:
    top, bottom = drawn(draw.trace, TWO).axes
    assert [text.get_text() for text in top.texts] == [
        "cycle 1", "cycle 2", "segment 1", "cycle 1", "cycle 2", "segment 2",
    ]  # fmt: skip
    assert [text.xy[0] for text in top.texts] == [2, 6, 4, 10, 14, 12]
    assert [text.get_text() for text in bottom.texts if "halt" in text.get_text()] == [
        "SELL_SHORT\nhalt 0.125\ncontinue 0.250",
        "SELL_SHORT\nhalt 0.250\ncontinue 0.250",
    ]


def test_a_hold_is_drawn_without_lots(drawn: Any) -> None:
    held = replace(TWO.decision, action=Action.HOLD, quantity=1.0)
    figure = drawn(draw.trace, traced(segment(1, [[1.0, 0.5]], [2.0], held)))
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert "HOLD\nhalt 0.250\ncontinue 0.250" in texts
    assert not any("lot" in text for text in [*texts, figure.get_suptitle()])


def test_many_steps_are_labelled_by_number_alone(drawn: Any) -> None:
    steps = np.geomspace(1, 1e-3, 24).reshape(1, 24).repeat(2, axis=0)
    top, _ = drawn(draw.trace, traced(*(segment(n, steps, [1.0, 0.5]) for n in (1, 2)))).axes
    assert " ".join(text.get_text() for text in top.texts) == "1 2 segment 1 1 2 segment 2"


def test_probabilities_of_the_legal_actions_stand_under_their_segment(drawn: Any) -> None:
    _, bottom = drawn(draw.trace, TWO).axes
    heights = [bar.get_height() for bar in bottom.patches]
    assert heights == [0.25, 0.5, 0.25] * 2
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bottom.patches]
    assert all(centre < 8 for centre in centres[:3])
    assert all(centre > 8 for centre in centres[3:])
    chosen = [text.get_text() for text in bottom.texts if text.get_fontweight() == "bold"]
    assert chosen == ["50%", "50%"]
    names = [text.get_text() for text in bottom.get_legend().get_texts()]
    assert names == ["BUY_LONG", "SELL_SHORT", "HOLD"]


def test_the_title_is_the_outcome_and_where(drawn: Any) -> None:
    figure = drawn(draw.trace, TWO)
    assert figure.get_suptitle() == (
        f"{report.outcome(TWO)}\nAlpha 60, bar of 2024-01-01 12:00 UTC, close 1,234.50"
    )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_a_log_axis_cannot_show_is_a_gap(drawn: Any, value: float) -> None:
    safe = hold(Reason.NON_FINITE, "abc", segments=1)
    found = traced(segment(1, [[1.0, value, 0.25]], [value], safe))
    top, bottom = drawn(draw.trace, found).axes
    steps, updates = lines(top)
    assert steps[1] == pytest.approx([1.0, np.nan, 0.25], nan_ok=True)
    assert updates[1] == pytest.approx([np.nan], nan_ok=True)
    assert bottom.texts[-1].get_text() == "non_finite"


# files


def test_pictures_are_png_and_may_be_drawn_again(tmp_path: Path) -> None:
    out = tmp_path / "one.PNG"
    for _ in range(2):
        draw.backtests([WALKED], out)
        assert out.read_bytes().startswith(b"\x89PNG\r\n")
    backtests = out.read_bytes()
    draw.trace(TWO, out)
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    assert out.read_bytes() != backtests


def test_backtest_draws_only_if_asked(tmp_path: Path) -> None:
    write_csv(random_bars(420, seed=36), tmp_path / "Alpha_5.csv")
    arguments = ["backtest", str(ARTIFACT), "--data", str(tmp_path / "Alpha_5.csv")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["Alpha_5.csv"]
    result = CliRunner().invoke(app, [*arguments, "--picture", str(tmp_path / "one.png")])
    assert result.exit_code == 0
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "one.png" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one.jpg", r"one\.jpg: expected a name ending in \.png"),
        ("png", r"png: expected a name ending in \.png"),
        ("nowhere/one.png", r"nowhere/one\.png: expected its folder to exist"),
    ],
)
def test_a_path_for_no_picture_is_refused_before_any_work(
    name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        draw.require_picture(tmp_path / name)
    for arguments in (
        ["backtest", "x", "--data", "x", "--picture"],
        ["trace", "x", "--bars", "x", "--out"],
    ):
        result = CliRunner().invoke(app, [*arguments, str(tmp_path / name)])
        assert result.exit_code == 2
        assert "expected" in result.stderr
        assert "artifact folder" not in result.stderr


def test_a_picture_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "one.png").mkdir()
    with pytest.raises(BadInput, match=r"one\.png: expected to write a picture there: .*directory"):
        draw.trace(TWO, tmp_path / "one.png")
