from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journalled import MADE, OUTPUTS

from hrm_runtime import Action, Reason
from hrm_runtime.journal.events import packed
from hrm_runtime.journal.reader import Record
from hrm_runtime.live.difference import Difference, Differs, compare, compare_outputs, named


def found(differs: pytest.ExceptionInfo[Differs]) -> tuple[str, str, str]:
    return differs.value.what, differs.value.recorded, differs.value.recomputed


def record(outputs: dict[str, Any] | None = OUTPUTS, **values: Any) -> Record:
    """Of a decision that had these outputs."""
    small, states = (None, None) if outputs is None else packed(outputs)
    return Record(Path("of.sqlite"), "decision", 4, {"outputs": small, "states": states, **values})


@pytest.mark.parametrize(
    ("name", "value", "recorded", "recomputed"),
    [
        ("reason", Reason.GAP, "ok", "gap"),
        ("action", Action.HOLD, "BUY_LONG", "HOLD"),
        ("quantity", 4.0, "3.0", "4.0"),
        ("value", 0.3, "0.30000000000000004", "0.3"),
        ("probabilities", (1.0, 0.0, 0.0, 0.0, 0.0), "(0.5, 0.25, 0.0, 0.0, 0.25)",
         "(1.0, 0.0, 0.0, 0.0, 0.0)"),
        ("q_values", (0.0, 0.0), "(0.3333333333333333, 0.6666666666666666)", "(0.0, 0.0)"),
        ("segments", 1, "2", "1"),
        ("model_id", "b", "a" * 64, "b"),
    ],
)  # fmt: skip
def test_each_value_of_a_decision_is_compared(
    name: str, value: Any, recorded: str, recomputed: str
) -> None:
    with pytest.raises(Differs) as differs:
        compare(MADE, replace(MADE, **{name: value}))
    assert found(differs) == (name, recorded, recomputed)


def test_the_reason_is_named_before_what_follows_from_it() -> None:
    with pytest.raises(Differs) as differs:
        compare(MADE, replace(MADE, action=Action.HOLD, reason=Reason.GAP))
    assert found(differs) == ("reason", "ok", "gap")


def test_when_and_in_what_order_is_no_part_of_a_decision() -> None:
    compare(MADE, replace(MADE, latency_ms=0.0, sequence=99))


def test_equal_outputs_are_equal_to_the_last_bit() -> None:
    compare_outputs(record(), {name: array.copy() for name, array in OUTPUTS.items()})
    compare_outputs(record(None), None)


@pytest.mark.parametrize("name", ["value", "action_type"])
def test_an_output_that_is_another_is_named(name: str) -> None:
    changed = np.nextafter(OUTPUTS[name], np.float32(9))
    with pytest.raises(Differs) as differs:
        compare_outputs(record(), {**OUTPUTS, name: changed})
    assert found(differs) == (
        name, " ".join(map(str, OUTPUTS[name])), " ".join(map(str, changed)),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["z_H_out", "z_L_out"])
def test_states_are_compared_by_their_digest(name: str) -> None:
    changed = {**OUTPUTS, name: OUTPUTS[name] + 1}
    with pytest.raises(Differs) as differs:
        compare_outputs(record(), changed)
    assert found(differs) == ("states", packed(OUTPUTS)[1].hex(), packed(changed)[1].hex())


@pytest.mark.parametrize(
    ("recorded", "made", "told"),
    [
        (None, OUTPUTS, ("none", packed(OUTPUTS)[0].hex())),
        (OUTPUTS, None, (packed(OUTPUTS)[0].hex(), "none")),
    ],
)
def test_a_graph_that_was_run_on_one_side_alone_is_a_difference(
    recorded: Any, made: Any, told: tuple[str, str]
) -> None:
    with pytest.raises(Differs) as differs:
        compare_outputs(record(recorded), made)
    assert found(differs) == ("outputs", *told)


def test_outputs_of_another_size_are_shown_whole() -> None:
    with pytest.raises(Differs) as differs:
        compare_outputs(record(), {**OUTPUTS, "more": np.zeros(1)})
    assert differs.value.what == "outputs"
    assert differs.value.recomputed == packed({**OUTPUTS, "more": np.zeros(1)})[0].hex()


def test_a_difference_has_the_place_of_its_record() -> None:
    values = {"sequence": 7, "instrument": "Alpha", "timeframe": "5", "datetime": 300}
    assert named(record(**values), Differs("action", Action.HOLD, None)) == Difference(
        file="of.sqlite", event=4, what="action", recorded="HOLD", recomputed="None", **values
    )  # fmt: skip


def test_what_a_record_does_not_have_is_none() -> None:
    differs = named(Record(Path("of.sqlite"), "artifact", 1, {}), Differs("artifact", "a", "b"))
    assert (differs.sequence, differs.instrument, differs.timeframe, differs.datetime) == 4 * (
        None,
    )
