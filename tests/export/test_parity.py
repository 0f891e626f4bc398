"""Parity measures whole tensors and whole decisions, and fails loudly when either is wrong."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from synthetic import SMALL

from hrm_export import check_parity
from hrm_export.errors import ParityFailed
from hrm_export.parity import (
    NEAR_TIE,
    TOLERANCES,
    Inputs,
    Measured,
    compare_eager,
    require,
    top_two_gap,
    torch_run,
    window_inputs,
)
from hrm_runtime import Account, Model, load
from hrm_runtime.contract import OUTPUTS
from hrm_runtime.model import Outputs, decisions, run_segments
from hrm_train import train
from hrm_train.errors import CheckpointInvalid
from hrm_train.settings import parse_settings

if TYPE_CHECKING:
    from hrm_train.checkpoint import Checkpoint
    from hrm_train.model import HierarchicalReasoningModel


@pytest.fixture(scope="module")
def model(artifact_folder: Path) -> Model:
    return load(artifact_folder)


@pytest.fixture(scope="module")
def inputs(model: Model, checkpoint: "Checkpoint") -> Inputs:
    spread = np.arange(0, len(checkpoint.windows), len(checkpoint.windows) // 60)
    return window_inputs(model.contract, checkpoint.windows[spread])


def test_an_artifact_equals_its_checkpoint_in_every_output_and_decision(
    model: Model, checkpoint: "Checkpoint", inputs: Inputs
) -> None:
    expected = run_segments(torch_run(checkpoint.model), *inputs.arrays, 2)
    found = model.run_segments(*inputs.arrays)
    assert len(expected) == len(found) == 2
    for one, other in zip(expected, found, strict=True):
        for name in OUTPUTS:
            np.testing.assert_allclose(
                other[name], one[name], rtol=TOLERANCES[name], atol=TOLERANCES[name]
            )
    reference = decisions(expected, inputs.accounts, "")
    assert {decision.segments for decision in reference} == {1, 2}
    assert len({decision.action for decision in reference}) >= 3
    ours = decisions(found, inputs.accounts, "")
    assert [(d.action, d.segments) for d in ours] == [(d.action, d.segments) for d in reference]


def test_check_parity_reads_everything_from_disk_and_passes(
    artifact_folder: Path, checkpoint_folder: Path, bars_folder: Path
) -> None:
    report = check_parity(artifact_folder, checkpoint_folder, [bars_folder], 100)
    assert report.passed
    assert (report.windows, report.unseen) == (100, 100)
    (stage,) = report.stages
    assert (stage.stage, stage.reference, stage.windows) == ("artifact", "torch eager", 100)
    assert set(stage.outputs) == set(OUTPUTS)
    assert 0 < stage.max_rel < 1e-4
    assert all(output.max_rel <= output.tolerance for output in stage.outputs.values())


@pytest.fixture(scope="module")
def other_checkpoints(
    bars_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One of other dimensions, and one that knows fewer names."""
    folder = tmp_path_factory.mktemp("others")
    wider = copy.deepcopy(SMALL)
    wider["hierarchical_reasoning_model"]["h_module"]["ffn_dim"] = 32
    train(parse_settings(wider), [bars_folder], folder / "wider")
    train(parse_settings(SMALL), [bars_folder / "Beta_5.csv"], folder / "fewer")
    return {"wider": folder / "wider", "fewer": folder / "fewer"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wider", r"they differ in h_module: .*'ffn_dim': 24.* and .*'ffn_dim': 32"),
        ("fewer", r"other instruments or timeframes: .*'Alpha'.* and .*'Beta'"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    name: str,
    message: str,
    artifact_folder: Path,
    other_checkpoints: dict[str, Path],
    bars_folder: Path,
) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        check_parity(artifact_folder, other_checkpoints[name], [bars_folder], 10)


def test_windows_of_the_training_part_only_fill_up(
    artifact_folder: Path, checkpoint_folder: Path, checkpoint: "Checkpoint", bars_folder: Path
) -> None:
    everything = check_parity(artifact_folder, checkpoint_folder, [bars_folder], 10**6)
    about = checkpoint.description
    assert everything.windows > about.train_samples + about.validation_samples  # and the embargo
    assert about.validation_samples <= everything.unseen
    assert everything.unseen <= everything.windows - about.train_samples


def swap_two_weights(model: "HierarchicalReasoningModel") -> None:
    attention = model.l_module.blocks[0].attention.qkv.weight
    attention.data = attention.data.flip(0)


def transpose_a_matrix(model: "HierarchicalReasoningModel") -> None:
    out = model.h_module.blocks[0].attention.out.weight
    out.data = out.data.T.contiguous()


def shift_a_feature_mean(model: "HierarchicalReasoningModel") -> None:
    model.input_network.features.mean[12] += 0.05


def exchange_two_actions(model: "HierarchicalReasoningModel") -> None:
    weight = model.policy_head.logits.weight
    weight.data = weight.data[[1, 0, 2, 3, 4]]


def forget_the_reset(model: "HierarchicalReasoningModel") -> None:
    model.reset_l = False


@pytest.mark.parametrize(
    "damage",
    [
        swap_two_weights,
        transpose_a_matrix,
        shift_a_feature_mean,
        exchange_two_actions,
        forget_the_reset,
    ],
)
def test_a_model_that_computes_something_else_is_caught(
    damage: Callable[["HierarchicalReasoningModel"], None],
    model: Model,
    checkpoint: "Checkpoint",
    inputs: Inputs,
) -> None:
    other = copy.deepcopy(checkpoint.model)
    damage(other)
    stage = compare_eager(other, model, inputs)
    assert not stage.passed
    with pytest.raises(ParityFailed, match=r"Outputs beyond tolerance: \w+: .* against"):
        require(stage)


def test_the_failure_names_decisions_that_differ(
    model: Model, checkpoint: "Checkpoint", inputs: Inputs
) -> None:
    other = copy.deepcopy(checkpoint.model)
    other.policy_head.logits.weight.data.neg_()
    with pytest.raises(ParityFailed, match=r"Decisions that differ: window \d+: action \(gap 0"):
        require(compare_eager(other, model, inputs))


FLAT = (Account.flat(1e6),)


def outputs_of(
    logits: list[float], quantity: float = 2.5, q_values: tuple[float, float] = (0.9, 0.1)
) -> Outputs:
    return {
        "action_type": np.array([logits], dtype=np.float32),
        "quantity": np.array([quantity], dtype=np.float32),
        "value": np.zeros(1, np.float32),
        "q_values": np.array([q_values], dtype=np.float32),
        "z_H_out": np.zeros((1, 2, 2), np.float32),
        "z_L_out": np.zeros((1, 2, 2), np.float32),
        "l_residual": np.zeros((1, 1, 1), np.float32),
        "h_residual": np.zeros((1, 1), np.float32),
    }


def measured(expected: list[Outputs], found: list[Outputs]) -> Measured:
    result = Measured(TOLERANCES)
    result.add(5, FLAT, expected, found)
    return result


BUY = [1.0, 0.0, -1e4, -1e4, 0.5]


@pytest.mark.parametrize(
    ("gap", "passed"), [(0.2 * NEAR_TIE, True), (4 * NEAR_TIE, False)], ids=["tie", "clear"]
)
def test_an_action_may_flip_only_at_a_near_tie(gap: float, passed: bool) -> None:
    logits = [1.0 + gap, 1.0, -1e4, -1e4, -1e4]  # probabilities gap / 2 apart
    flipped = [1.0, 1.0 + gap, -1e4, -1e4, -1e4]
    loose = Measured(dict.fromkeys(OUTPUTS, 1e-2))
    loose.add(5, FLAT, [outputs_of(logits)], [outputs_of(flipped)])
    stage = loose.stage("artifact", "torch eager")
    (flip,) = stage.flips
    assert (flip.window, flip.what) == (5, "action")
    assert flip.gap == pytest.approx(gap / 2, rel=1e-2)
    assert stage.action_agreement == 0.0
    assert stage.passed is passed


@pytest.mark.parametrize(
    ("reference", "found", "passed"),
    [(4.0001, 3.9999, True), (4.002, 3.998, True), (4.3, 6.3, False)],
)
def test_lots_may_flip_only_beside_a_whole_number(
    reference: float, found: float, passed: bool
) -> None:
    loose = Measured({**TOLERANCES, "quantity": 1e-3 if passed else 1.0})
    loose.add(0, FLAT, [outputs_of(BUY, reference)], [outputs_of(BUY, found)])
    (flip,) = loose.stage("a", "b").flips
    assert flip.what == "quantity"
    strict = Measured({**TOLERANCES, "quantity": 1e-3})
    strict.add(0, FLAT, [outputs_of(BUY, reference)], [outputs_of(BUY, found)])
    assert strict.stage("a", "b").passed is passed


@pytest.mark.parametrize(
    ("margin", "passed"), [(0.5 * NEAR_TIE, True), (20 * NEAR_TIE, False)], ids=["tie", "clear"]
)
def test_segments_may_flip_only_where_halting_is_a_near_tie(margin: float, passed: bool) -> None:
    expected = [outputs_of(BUY, q_values=(0.5 + margin, 0.5))]
    found = [outputs_of(BUY, q_values=(0.5, 0.5)), outputs_of(BUY)]
    loose = Measured({**TOLERANCES, "q_values": 0.1})
    loose.add(0, FLAT, expected, found)
    stage = loose.stage("a", "b")
    assert [flip.what for flip in stage.flips] == ["segments"]
    assert stage.passed is passed


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.0])
def test_each_output_alone_can_fail_the_gate(name: str, wrong: float) -> None:
    found = outputs_of(BUY)
    found[name] = found[name].copy()
    found[name].flat[0] += wrong
    stage = measured([outputs_of(BUY)], [found]).stage("artifact", "torch eager")
    assert not stage.passed
    assert [n for n, o in stage.outputs.items() if not o.max_rel <= o.tolerance] == [name]
    with pytest.raises(ParityFailed, match=f"beyond tolerance: {name}: "):
        require(stage)


def test_differences_are_relative_above_one_and_absolute_below() -> None:
    expected, found = outputs_of(BUY, quantity=1000.0), outputs_of(BUY, quantity=1001.0)
    expected["value"], found["value"] = np.float32([0.01]), np.float32([0.02])
    stage = measured([expected], [found]).stage("artifact", "torch eager")
    assert stage.outputs["quantity"].max_abs == pytest.approx(1.0)
    assert stage.outputs["quantity"].max_rel == pytest.approx(1e-3)
    assert stage.outputs["value"].max_rel == pytest.approx(0.01)
    assert (stage.max_abs, stage.max_rel) == pytest.approx((1.0, 0.01))


def test_the_gap_is_between_the_two_likeliest_actions() -> None:
    (decision,) = decisions([outputs_of(BUY)], FLAT, "")
    powers = np.exp([1.0, 0.5, 0.0])
    assert top_two_gap(decision) == pytest.approx((powers[0] - powers[1]) / powers.sum())
    assert top_two_gap(replace(decision, probabilities=(0.0, 0.0, 0.4, 0.0, 0.6))) == pytest.approx(
        0.2
    )


def test_torch_answers_as_the_runtime_asks(checkpoint: "Checkpoint", inputs: Inputs) -> None:
    run = torch_run(checkpoint.model)
    first = run(*inputs.arrays)
    again = run(*inputs.arrays, z_H=first["z_H_out"], z_L=first["z_L_out"])
    with torch.inference_mode():
        states = (torch.from_numpy(first["z_H_out"]), torch.from_numpy(first["z_L_out"]))
        expected, (zH_BSD, _) = checkpoint.model(*map(torch.from_numpy, inputs.arrays), states)
    assert np.array_equal(again["value"], expected["value"].numpy())
    assert np.array_equal(again["z_H_out"], zH_BSD.numpy())
    assert not np.array_equal(again["value"], first["value"])
