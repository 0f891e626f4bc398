"""What training takes for the served answer is what the runtime's segment loop answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal

from hrm_runtime.artifact.segments import run_segments, segments_of
from hrm_train import HierarchicalReasoningModel
from hrm_train.data.prepared import Prepared
from hrm_train.learning.run import Tensors
from hrm_train.network.embedding import ModelInput
from hrm_train.network.serving import served
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]
Inputs = tuple[torch.Tensor, ...]

MOST = 4


@pytest.fixture(scope="module")
def model(make_settings: MakeSettings, make_model: MakeModel) -> HierarchicalReasoningModel:
    """Up to four segments; its halting head lets rows halt after any of them."""
    model = make_model(make_settings({"training.max_segments": MOST}))
    with torch.no_grad():
        model.q_head.logits.bias.copy_(torch.tensor([0.0, 0.0]))
    return model


@pytest.fixture(scope="module")
def inputs(prepared: Prepared, model: HierarchicalReasoningModel) -> Inputs:
    window = model.settings.network.input.window
    return Tensors(prepared, window).inputs(torch.arange(0, len(prepared), 7))


def torch_run(model: HierarchicalReasoningModel) -> Callable[..., dict[str, Any]]:
    """The model as the runtime's loop calls what it runs."""

    @torch.inference_mode()
    def run(*arrays: Any, z_H: Any = None, z_L: Any = None) -> dict[str, Any]:
        states = None if z_H is None else (torch.from_numpy(z_H), torch.from_numpy(z_L))
        outputs, (zH_BSD, zL_BSD) = model.segment(
            ModelInput(*map(torch.from_numpy, arrays)), states
        )
        named = {**outputs, "z_H_out": zH_BSD, "z_L_out": zL_BSD}
        return {name: tensor.numpy() for name, tensor in named.items()}

    return run


def test_every_row_answers_as_the_runtimes_loop_would(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> None:
    passes = run_segments(torch_run(model), *(array.numpy() for array in inputs), MOST)
    expected = segments_of(passes)
    outputs, segments_B = served(model, *inputs)
    assert set(expected.tolist()) == {1, 2, 3, 4}
    assert segments_B.tolist() == expected.tolist()
    assert set(outputs) == set(passes[0]) - {"z_H_out", "z_L_out"}
    for name, found in outputs.items():
        chosen = [passes[last - 1][name][row] for row, last in enumerate(expected)]
        assert_equal(found, torch.from_numpy(np.stack(chosen)))


def test_a_row_that_is_no_number_halts_and_disturbs_no_other(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> None:
    features = inputs[0].clone()
    features[3] = torch.nan
    arrays = [array.numpy() for array in (features, *inputs[1:])]
    expected = segments_of(run_segments(torch_run(model), *arrays, MOST))
    outputs, segments_B = served(model, features, *inputs[1:])
    assert segments_B.tolist() == expected.tolist()
    assert segments_B[3] == 1
    others = torch.arange(len(features)) != 3
    sound, _ = served(model, *inputs)
    assert_equal(outputs["action_type"][others], sound["action_type"][others])


@pytest.mark.parametrize(
    ("bias", "most", "calls"),
    [((9.0, -9.0), MOST, 1), ((-9.0, 9.0), MOST, MOST), ((-9.0, 9.0), 1, 1), ((0.0, 0.0), 3, 3)],
    ids=["all halt at once", "none halts", "one segment at most", "a tie goes on"],
)
def test_segments_end_once_all_rows_have_halted(
    bias: tuple[float, float],
    most: int,
    calls: int,
    make_settings: MakeSettings,
    make_model: MakeModel,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(make_settings({"training.max_segments": most}))
    with torch.no_grad():
        model.q_head.logits.weight.zero_()
        model.q_head.logits.bias.copy_(torch.tensor(bias))
    encoded = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a: encoded.append(1) or encode(*a))
    _, segments_B = served(model, *inputs)
    assert len(encoded) == calls
    assert segments_B.tolist() == [calls] * len(inputs[0])


def test_nothing_is_recorded_for_a_gradient(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> None:
    outputs, _ = served(model, *inputs)
    assert not any(tensor.requires_grad for tensor in outputs.values())
