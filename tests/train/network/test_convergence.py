"""L until it settles: row by row against a plain loop, and against N x T steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from exactly import assert_equal
from torch import Tensor

from hrm_train import HierarchicalReasoningModel
from hrm_train.network.convergence import Converged, converge
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]
Batch = Any

HEADS = ("action_type", "quantity", "value", "q_values")
EQUAL_WIDTHS = {"network.h_module.hidden_dim": 8}


def inputs(batch: Batch, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return batch.features.to(dtype), batch.account.to(dtype), batch.instrument, batch.timeframe


def picked(arrays: tuple[Tensor, ...], rows: list[int]) -> tuple[Tensor, ...]:
    return tuple(array[rows] for array in arrays)


def row_by_row(
    model: HierarchicalReasoningModel, arrays: tuple[Tensor, ...], steps: int, threshold: float
) -> list[dict[str, Any]]:
    """Each row by itself, in the plainest way."""
    rows = []
    for row in range(len(arrays[0])):
        alone = picked(arrays, [row])
        x = model.encode(*alone)
        z_H, z_L = model.initialize_states()
        l_residual, h_residual, settled = [], [], []
        for n in range(model.cycles):
            z_L = model.reset_l_module(z_L) if n else z_L
            trace = [float("inf")]
            while trace[-1] > threshold and len(trace) <= steps:
                before, z_L = z_L, model.low(z_L, z_H, x)
                trace.append((z_L - before).pow(2).mean().sqrt().item())
            l_residual.append(trace[1:])
            settled.append(trace[-1] <= threshold)
            before, z_H = z_H, model.high(z_H, z_L)
            h_residual.append((z_H - before).pow(2).mean().sqrt().item())
        rows.append(
            {
                "outputs": {name: value[0] for name, value in model.decode(z_H, alone[1]).items()},
                "states": (z_H[0], z_L[0]),
                "l_residual": l_residual,
                "h_residual": h_residual,
                "settled": settled,
            }
        )
    return rows


def assert_rows(found: Converged, expected: list[dict[str, Any]]) -> None:
    near = {"rtol": 1e-9, "atol": 1e-9}
    for row, one in enumerate(expected):
        own = {name: value[row] for name, value in found.outputs.items()}
        torch.testing.assert_close(own, one["outputs"], **near)
        torch.testing.assert_close(tuple(z[row] for z in found.states), one["states"], **near)
        assert found.l_steps[row].tolist() == [len(trace) for trace in one["l_residual"]]
        for residual, trace in zip(found.l_residual[row], one["l_residual"], strict=True):
            assert residual[: len(trace)].tolist() == pytest.approx(trace, rel=1e-9)
            assert residual[len(trace) :].isnan().all()
        assert found.h_residual[row].tolist() == pytest.approx(one["h_residual"], rel=1e-9)
        assert found.settled[row].tolist() == one["settled"]


@pytest.mark.parametrize("given", [False, True], ids=["initial states", "given states"])
@pytest.mark.parametrize(
    "changes",
    [{}, EQUAL_WIDTHS, {"network.hierarchical.reset_l_module": False}],
    ids=["as default", "equal widths", "no reset"],
)
def test_with_threshold_0_and_t_steps_it_is_the_forward_pass_bit_for_bit(
    changes: dict[str, Any],
    given: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    model = make_model(make_settings({"network.hierarchical.T_timesteps": 3, **changes}))
    arrays = inputs(batch, torch.float32)
    states = model(*arrays)[1] if given else None
    with torch.no_grad():
        expected, expected_states = model(*arrays, states)

    found = converge(model, *arrays, z_init=states, steps=3, threshold=0)

    residuals = {"l_residual": found.l_residual, "h_residual": found.h_residual}
    assert_equal(found.outputs | residuals, expected)
    assert_equal(found.states, expected_states)
    assert_equal(found.l_steps, torch.full((9, 2), 3))
    assert not found.settled.any()


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("steps", "threshold"), [(3, 0.2), (12, 0.05), (60, 1e-6)])
def test_each_row_is_what_a_loop_over_it_alone_comes_to(
    steps: int,
    threshold: float,
    reset: bool,
    make_settings: MakeSettings,
    make_model: MakeModel,
    batch: Batch,
) -> None:
    settings = make_settings({"network.hierarchical.reset_l_module": reset})
    model = make_model(settings).double()
    found = converge(model, *inputs(batch), steps=steps, threshold=threshold)
    assert_rows(found, row_by_row(model, inputs(batch), steps, threshold))
    assert len(found.l_steps.unique()) > 1  # rows differ in how many steps they take
    assert found.settled.any()


def test_a_row_does_not_depend_on_its_neighbours(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    model.double()
    whole = converge(model, *inputs(batch), steps=40, threshold=1e-3)
    near = {"rtol": 1e-9, "atol": 1e-9, "equal_nan": True}
    for rows in ([8, 0, 4], [3], [5, 5, 5, 5]):
        part = converge(model, *picked(inputs(batch), rows), steps=40, threshold=1e-3)
        for name in ("l_residual", "h_residual"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[rows], **near)
        for name in ("l_steps", "settled"):
            assert_equal(getattr(part, name), getattr(whole, name)[rows])
        for name in HEADS:
            torch.testing.assert_close(part.outputs[name], whole.outputs[name][rows], **near)
        torch.testing.assert_close(part.states, picked(whole.states, rows), **near)


def test_only_rows_that_still_move_are_computed(
    model: HierarchicalReasoningModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.double()
    computed: list[int] = []
    low = model.low

    def counted(zL: Tensor, zH: Tensor, x: Tensor) -> Tensor:
        computed.append(len(x))
        return low(zL, zH, x)

    monkeypatch.setattr(model, "low", counted)
    found = converge(model, *inputs(batch), steps=20, threshold=0.05)
    expected = [
        int((found.l_steps[:, n] > t).sum())
        for n in range(2)
        for t in range(int(found.l_steps[:, n].max()))
    ]
    assert computed == expected
    assert min(computed) < 9


def test_a_wide_threshold_stops_after_the_first_step_of_each_cycle(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings({"network.hierarchical.T_timesteps": 1}))
    arrays = inputs(batch, torch.float32)
    with torch.no_grad():
        expected, states = model(*arrays)
    found = converge(model, *arrays, steps=30, threshold=1e9)
    assert_equal(found.outputs, {name: expected[name] for name in HEADS})
    assert_equal(found.states, states)
    assert_equal(found.l_residual[:, :, :1], expected["l_residual"])
    assert found.l_residual[:, :, 1:].isnan().all()
    assert_equal(found.l_steps, torch.ones(9, 2, dtype=torch.int64))
    assert found.settled.all()


def test_a_settled_state_is_a_fixed_point_of_l_and_another_is_not(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    model = make_model(make_settings({"network.hierarchical.N_cycles": 1})).double()
    found = converge(model, *inputs(batch), steps=500, threshold=1e-12)
    z_H, _ = model.initialize_states()
    z_L = found.states[1]
    moved = (model.low(z_L, z_H, model.encode(*inputs(batch))) - z_L).abs().amax(dim=(1, 2))
    settled = found.settled[:, 0]
    assert settled.any()
    assert not settled.all()  # L does not settle for every window
    assert moved[settled].max() < 1e-11
    assert moved[~settled].min() > 1e-6
    assert_equal(model.high(z_H, z_L), found.states[0])


def test_the_settings_say_when_to_stop_unless_the_caller_does(
    make_settings: MakeSettings, make_model: MakeModel, batch: Batch
) -> None:
    limits = {
        "network.hierarchical.convergence_threshold": 0.1,
        "network.hierarchical.max_convergence_steps": 7,
    }
    model = make_model(make_settings(limits)).double()
    arrays = inputs(batch)
    for options in ({}, {"steps": 5}, {"threshold": 0.3}):
        found = converge(model, *arrays, **options)
        full: dict[str, Any] = {"steps": 7, "threshold": 0.1, **options}
        assert_rows(found, row_by_row(model, arrays, **full))
        assert found.l_residual.shape == (9, 2, full["steps"])


def test_a_row_that_is_no_number_neither_settles_nor_spreads(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    model.double()
    features, *others = inputs(batch)
    features[4] = torch.nan
    found = converge(model, features, *others, steps=30, threshold=0.05)
    assert found.l_steps[4].tolist() == [30, 30]
    assert found.settled[4].tolist() == [False, False]
    assert found.outputs["value"][4].isnan()
    rest = [row for row in range(9) if row != 4]
    clean = converge(model, *inputs(batch), steps=30, threshold=0.05)
    assert_equal(found.l_steps[rest], clean.l_steps[rest])
    torch.testing.assert_close(
        found.outputs["value"][rest], clean.outputs["value"][rest], rtol=1e-9, atol=1e-9
    )


def test_nothing_it_returns_holds_a_gradient(
    model: HierarchicalReasoningModel, batch: Batch
) -> None:
    found = converge(model, *inputs(batch, torch.float32), steps=2)
    tensors = (*found.outputs.values(), *found.states, found.l_residual, found.h_residual)
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, found 0"),
        ({"threshold": -1e-9}, "threshold: expected at least 0, found -1e-09"),
        ({"threshold": float("nan")}, "threshold: expected at least 0, found nan"),
    ],
)
def test_limits_that_mean_nothing_are_refused(
    options: dict[str, Any], message: str, model: HierarchicalReasoningModel, batch: Batch
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        converge(model, *inputs(batch, torch.float32), **options)
