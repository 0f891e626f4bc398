"""A model is saved, loaded as a new one, and loaded in place, or refused and left as it was."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batch import Batch
from exactly import assert_equal
from safetensors.torch import save_file
from torch import Tensor

from hrm_train import HierarchicalReasoningModel
from hrm_train.errors import CheckpointInvalid
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]
MakeModel = Callable[[Settings], HierarchicalReasoningModel]


def inputs(batch: Batch) -> tuple[Tensor, ...]:
    return batch.features, batch.account, batch.instrument, batch.timeframe


def test_everything_learned_drawn_or_measured_is_in_the_state(
    model: HierarchicalReasoningModel,
) -> None:
    measured = {
        f"input_network.{of}.{what}" for of in ("features", "account") for what in ("mean", "std")
    }
    drawn = {"h_module.initial_D", "l_module.initial_D"}
    learned = set(dict(model.named_parameters()))
    assert set(model.state_dict()) == learned | drawn | measured


def test_a_loaded_model_equals_the_saved_one_bit_for_bit(
    model: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    model.save_model(tmp_path / "weights.safetensors")
    loaded = HierarchicalReasoningModel.load_model(tmp_path / "weights.safetensors")
    assert loaded.settings == model.settings
    assert not loaded.training
    assert_equal(dict(loaded.state_dict()), dict(model.state_dict()))
    assert_equal(loaded(*inputs(batch)), model(*inputs(batch)))


def changed(model: HierarchicalReasoningModel) -> HierarchicalReasoningModel:
    """A copy with every weight moved."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.add_(0.25)
    return twin


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_model_loads_in_place_and_keeps_none_of_its_weights(
    mode: str, model: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    model.save_model(path)
    other = getattr(changed(model), mode)()
    weights = dict(other.named_parameters())
    assert other.load_model(path) is other
    assert not other.training
    assert_equal(dict(other.state_dict()), dict(model.state_dict()))
    assert_equal(other(*inputs(batch)), model(*inputs(batch)))
    assert all(weights[name] is weight for name, weight in other.named_parameters())


def test_in_place_the_loops_are_those_of_the_file(
    model: HierarchicalReasoningModel, tmp_path: Path
) -> None:
    model.save_model(tmp_path / "weights.safetensors")
    other = changed(model)
    other.cycles, other.timesteps, other.reset_l = 7, 9, not other.reset_l
    other.load_model(tmp_path / "weights.safetensors")
    expected = model.cycles, model.timesteps, model.reset_l
    assert (other.cycles, other.timesteps, other.reset_l) == expected


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("network.l_module.ffn_dim", 20),
        ("network.hierarchical.N_cycles", 7),
        ("network.output_heads.quantity_max", 77.0),
    ],
)
def test_a_file_of_another_network_is_refused_in_place_and_the_model_stays_as_it_was(
    setting: str,
    value: float,
    model: HierarchicalReasoningModel,
    make_settings: MakeSettings,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.safetensors"
    make_model(make_settings({setting: value})).save_model(path)
    mine = changed(model).train()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    name = setting.removeprefix("network.")
    message = rf"stays as it was: {name}: this model .*, the file {value}; Hier.*load_model\(path\)"
    with pytest.raises(CheckpointInvalid, match=message):
        mine.load_model(path)
    assert_equal(dict(mine.state_dict()), before)
    assert mine.settings == model.settings
    assert mine.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.bfloat16(), "torch.bfloat16 .*, the file torch.float32"),
        (lambda model: model.to("meta"), "this model .* without memory, the file"),
        (lambda model: model.add_module("more", torch.nn.Linear(2, 2)), "this model only: more"),
        (
            lambda model: setattr(model, "h_module", torch.nn.Sequential(model.h_module)),
            "this model only: h_module.0",
        ),
    ],
    ids=["another type", "no memory", "a module more", "a module wrapped"],
)
def test_a_model_of_other_tensors_is_refused_in_place_and_stays_as_it_was(
    change: Callable[[HierarchicalReasoningModel], object],
    message: str,
    model: HierarchicalReasoningModel,
    tmp_path: Path,
) -> None:
    model.save_model(tmp_path / "weights.safetensors")
    mine = changed(model)
    change(mine)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(CheckpointInvalid, match=f"stays as it was: .*{message}"):
        mine.load_model(tmp_path / "weights.safetensors")
    assert_equal(dict(mine.state_dict()), before)


def test_a_subclass_with_a_constructor_of_its_own_loads_in_place(
    model: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    class Named(HierarchicalReasoningModel):
        def __init__(self, name: str, settings: Settings) -> None:
            super().__init__(settings)
            self.name = name

    model.save_model(tmp_path / "weights.safetensors")
    mine = Named("mine", model.settings)
    assert mine.load_model(tmp_path / "weights.safetensors") is mine
    assert_equal(mine(*inputs(batch)), model(*inputs(batch)))


def test_under_autocast_the_loaded_weights_are_used_at_once(
    model: HierarchicalReasoningModel, batch: Batch, tmp_path: Path
) -> None:
    model.save_model(tmp_path / "weights.safetensors")
    mine = changed(model)
    with torch.autocast("cpu", torch.bfloat16):
        before = mine(*inputs(batch))
        mine.load_model(tmp_path / "weights.safetensors")
        found = mine(*inputs(batch))
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(*inputs(batch))
    assert_equal(found, expected)
    assert (found[0]["value"] != before[0]["value"]).all()


def test_a_file_that_is_missing_changes_nothing_in_place(
    model: HierarchicalReasoningModel, tmp_path: Path
) -> None:
    mine = changed(model)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(CheckpointInvalid, match="expected weights of this model"):
        mine.load_model(tmp_path / "none")
    assert_equal(dict(mine.state_dict()), before)


def test_weights_of_other_dimensions_are_refused_with_the_first_that_differs(
    model: HierarchicalReasoningModel, make_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    wider = make_settings({"network.l_module.ffn_dim": 20})
    save_file(model.state_dict(), path, {"settings": wider.model_dump_json()})
    message = (
        f"{path}: 2 tensors differ from what the settings say; l_module.blocks.0.mlp.gate_up."
        "weight: expected ([40, 8], torch.float32), found ([32, 8], torch.float32)"
    )
    with pytest.raises(CheckpointInvalid, match=re.escape(message)):
        HierarchicalReasoningModel.load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("value_head.value.bias"),
            "value_head.value.bias: expected ([1], torch.float32), found nothing",
        ),
        (
            lambda state: state.update(extra=torch.ones(2)),
            "extra: expected nothing, found ([2], torch.float32)",
        ),
        (
            lambda state: state.update({"q_head.logits.bias": torch.ones(2).half()}),
            "q_head.logits.bias: expected ([2], torch.float32), found ([2], torch.float16)",
        ),
    ],
)
def test_a_tensor_missing_unknown_or_of_another_type_is_refused_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], object], message: str, model: HierarchicalReasoningModel
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    change(state)
    expected = re.escape(f"here: 1 tensors differ from what the settings say; {message}")
    with pytest.raises(CheckpointInvalid, match=expected):
        model.load_strict(state, "here")
    assert_equal(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "expected weights of this model: 'settings'"),
        ({"settings": "{"}, "expected weights of this model: Expecting property name"),
        (
            {"settings": json.dumps({"extra": 1})},
            "expected weights of this model: .*extra: unknown",
        ),
    ],
)
def test_weights_without_readable_settings_are_refused(
    metadata: dict[str, str] | None,
    message: str,
    model: HierarchicalReasoningModel,
    tmp_path: Path,
) -> None:
    save_file(model.state_dict(), tmp_path / "w.safetensors", metadata)
    with pytest.raises(CheckpointInvalid, match=message):
        HierarchicalReasoningModel.load_model(tmp_path / "w.safetensors")


def test_a_file_that_is_missing_or_no_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointInvalid, match=r"weights\.safetensors: expected weights of this"):
        HierarchicalReasoningModel.load_model(path)
    path.write_bytes(b"neither weights nor anything else")
    with pytest.raises(CheckpointInvalid, match=r"weights\.safetensors: expected weights of this"):
        HierarchicalReasoningModel.load_model(path)
