"""What parity catches, and what it says then."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hrm_export.errors import ParityFailed
from hrm_export.proof.gates import FLOAT
from hrm_export.proof.inputs import Inputs
from hrm_export.proof.parity import compare, failures, require, torch_run
from hrm_runtime import Model
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel, States

EAGER = "torch eager"


def swap_two_weights(model: HierarchicalReasoningModel) -> None:
    attention = model.l_module.blocks[0].attention.qkv.weight
    attention.data = attention.data.flip(0)


def transpose_a_matrix(model: HierarchicalReasoningModel) -> None:
    out = model.h_module.blocks[0].attention.out.weight
    out.data = out.data.T.contiguous()


def shift_a_feature_mean(model: HierarchicalReasoningModel) -> None:
    model.input_network.features.mean[12] += 0.05


def exchange_two_actions(model: HierarchicalReasoningModel) -> None:
    weight = model.policy_head.logits.weight
    weight.data = weight.data[[1, 0, 2, 3, 4]]


def forget_the_reset(model: HierarchicalReasoningModel) -> None:
    model.reset_l = False


def forget_a_step(model: HierarchicalReasoningModel) -> None:
    low, calls = model.low, [0]

    def skipping(z_L: torch.Tensor, z_H: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return z_L if calls[0] % 4 == 0 else low(z_L, z_H, x)

    model.low = skipping  # type: ignore[assignment, method-assign]


def ignore_given_states(model: HierarchicalReasoningModel) -> None:
    initial = model.initialize_states

    def forgetting(z_init: States | None = None) -> States:
        return initial()

    model.initialize_states = forgetting  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "damage",
    [
        swap_two_weights,
        transpose_a_matrix,
        shift_a_feature_mean,
        exchange_two_actions,
        forget_the_reset,
        forget_a_step,
        ignore_given_states,
    ],
)
def test_a_model_that_computes_something_else_is_caught(
    damage: Callable[[HierarchicalReasoningModel], None],
    model: Model,
    checkpoint: Checkpoint,
    inputs: Inputs,
) -> None:
    other = copy.deepcopy(checkpoint.model)
    damage(other)
    gathered = compare(FLOAT, torch_run(other), model.run, inputs, model.contract.max_segments)
    stage = gathered.stage("artifact", EAGER)
    assert not stage.passed
    with pytest.raises(
        ParityFailed, match=r"Outputs beyond tolerance: \w+: .* against [\d.e-]+ in \d+ windows"
    ):
        require([stage])


TWIN = "torch eager, quantised"


@pytest.mark.parametrize(
    ("failed", "others", "remedy"),
    [
        (("fused", EAGER), [], "train it longer, or with a lower learning_rate. If a well trained"),
        (("artifact", EAGER), [], "in float32, added up in another order. .* please report it"),
        (("artifact", "torch eager, float16 weights"), [], "please report it"),
        (
            ("artifact", TWIN),
            [("artifact", EAGER, False)],
            "It was calibrated only: train on with hrm train --quantise --init-from .*fp16",
        ),
        (("artifact", TWIN), [("artifact", EAGER, True)], "Train it longer with --quantise, so th"),
        (
            ("artifact, hard windows", TWIN),
            [("artifact", EAGER, False)],
            "more or other bars with --calibration",
        ),
        (("fused", EAGER), [("artifact", TWIN, True)], "please report it"),
        (("artifact", EAGER), [("artifact", TWIN, True)], "Quantisers change actions of which the"),
    ],
)
def test_a_failure_says_what_it_means_and_what_to_do(
    failed: tuple[str, str], others: list[tuple[str, str, bool]], remedy: str, model: Model,
    checkpoint: Checkpoint, inputs: Inputs,
) -> None:  # fmt: skip
    compared = compare(FLOAT, torch_run(checkpoint.model), model.run, inputs, 2)
    good = [compared.stage(name, reference, gated=gated) for name, reference, gated in others]
    bad = replace(compared.stage(*failed), passed=False, allowance=0.1)
    stages = [*good, bad]
    (told,) = failures(stages)
    assert told.startswith(
        f"{failed[0]} differs from {failed[1]} over {len(inputs)} windows; beyond near ties, "
        f"{len(inputs) // 10} of them may. Outputs beyond tolerance: none. "
    )
    assert re.search(remedy, told)
    with pytest.raises(ParityFailed) as refused:
        require(stages)
    assert str(refused.value) == f"{told}. Nothing was written"


def test_the_failure_names_decisions_that_differ(
    model: Model, checkpoint: Checkpoint, inputs: Inputs
) -> None:
    other = copy.deepcopy(checkpoint.model)
    other.policy_head.logits.weight.data.neg_()
    gathered = compare(FLOAT, torch_run(other), model.run, inputs, model.contract.max_segments)
    stage = gathered.stage("artifact", EAGER)
    assert len(stage.flips) > 10
    with pytest.raises(ParityFailed) as failed:
        require([stage])
    message = str(failed.value)
    assert f"Decisions that differ: {len(stage.flips)}: window {stage.flips[0].window}: " in message
    assert message.count("(gap ") == 10


def test_decisions_alone_can_fail(model: Model, checkpoint: Checkpoint, inputs: Inputs) -> None:
    gathered = compare(
        FLOAT, torch_run(checkpoint.model), model.run, inputs, model.contract.max_segments
    )
    stage = replace(gathered.stage("artifact", EAGER), passed=False)
    with pytest.raises(ParityFailed, match=r"tolerance: none\. Decisions that differ: 0: none\."):
        require([stage])


def test_windows_are_compared_batch_after_batch(
    model: Model, checkpoint: Checkpoint, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(checkpoint.model)
    other.policy_head.logits.weight.data.neg_()
    arguments = (FLOAT, torch_run(other), model.run, inputs, model.contract.max_segments)
    whole = compare(*arguments).stage("artifact", EAGER)
    monkeypatch.setattr("hrm_export.proof.parity.BATCH", 7)
    parts = compare(*arguments).stage("artifact", EAGER)
    assert (parts.windows, parts.by_gap) == (60, whole.by_gap)
    assert [flip.window for flip in parts.flips] == [flip.window for flip in whole.flips]
