"""The parity ladder: whole tensors and whole decisions, held against torch, and loud when wrong."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from artifact_copy import ArtifactCopy
from synthetic import SMALL

from hrm_export import ParityReport, check_parity, export
from hrm_export.errors import ParityFailed
from hrm_export.graph.build import COMPOSED, FUSED, Built
from hrm_export.graph.compose import high_state, low_state
from hrm_export.proof.gates import FLOAT_TOLERANCES, INT8_TOLERANCES
from hrm_export.proof.inputs import HARD_WINDOWS, Inputs
from hrm_export.proof.parity import (
    as_deployed,
    lower_rungs,
    require,
    torch_run,
    twin_of,
    upper_rungs,
)
from hrm_runtime import Contract, Model
from hrm_runtime.artifact.contract import OUTPUTS, Growth, Precision, Stage
from hrm_runtime.artifact.segments import decisions, run_segments
from hrm_runtime.artifact.session import Session
from hrm_runtime.market.series import SkippedSeries
from hrm_train import train
from hrm_train.data.windows import Windows
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import parse_settings

Graphs = Callable[[Precision], dict[str, Built]]
EAGER = "torch eager"
HARD = 6 * HARD_WINDOWS


def of_precision(contract: Contract, source: HierarchicalReasoningModel) -> Contract:
    """The contract of a graph of `source`, in int8 where its quantisers are on."""
    scales = {name: float(scale) for name, scale in source.scales.items()}
    precision: Precision = "int8" if scales else contract.graph.precision
    return replace(
        contract, graph=replace(contract.graph, precision=precision, input_scales=scales)
    )


def served_by(contract: Contract, graph: bytes) -> Model:
    return Model(contract, "", Session(graph))


# torch on the other side


def test_an_artifact_equals_its_checkpoint_in_every_output_and_decision(
    model: Model, checkpoint: Checkpoint, inputs: Inputs
) -> None:
    expected = run_segments(torch_run(checkpoint.model), *inputs.arrays, 2)
    found = model.run_segments(*inputs.arrays)
    assert len(expected) == len(found) == 2
    for one, other in zip(expected, found, strict=True):
        for name in OUTPUTS:
            tolerance = FLOAT_TOLERANCES[name]
            np.testing.assert_allclose(other[name], one[name], rtol=tolerance, atol=tolerance)
    reference = decisions(expected, inputs.accounts, "")
    assert {decision.segments for decision in reference} == {1, 2}
    assert len({decision.action for decision in reference}) >= 3
    ours = decisions(found, inputs.accounts, "")
    assert [(d.action, d.segments) for d in ours] == [(d.action, d.segments) for d in reference]


def test_torch_answers_as_the_runtime_asks(checkpoint: Checkpoint, inputs: Inputs) -> None:
    run = torch_run(checkpoint.model)
    first = run(*inputs.arrays)
    again = run(*inputs.arrays, z_H=first["z_H_out"], z_L=first["z_L_out"])
    with torch.inference_mode():
        states = (torch.from_numpy(first["z_H_out"]), torch.from_numpy(first["z_L_out"]))
        expected, (zH_BSD, _) = checkpoint.model(*map(torch.from_numpy, inputs.arrays), states)
    assert tuple(again) == OUTPUTS
    assert np.array_equal(again["value"], expected["value"].numpy())
    assert np.array_equal(again["z_H_out"], zH_BSD.numpy())
    assert not np.array_equal(again["value"], first["value"])


def test_the_reference_has_the_contract_s_cycles_timesteps_and_scales(
    contract: Contract, quantised: Checkpoint
) -> None:
    graph = replace(contract.graph, cycles=3, timesteps=5)
    plain = as_deployed(quantised.model, replace(contract, graph=graph))
    assert (plain.cycles, plain.timesteps, plain.quantised) == (3, 5, False)
    scales = {name: 0.5 + number for number, name in enumerate(quantised.model.products)}
    graph = replace(graph, precision="int8", input_scales=scales)
    integers = as_deployed(quantised.model, replace(contract, graph=graph))
    assert {name: float(scale) for name, scale in integers.scales.items()} == scales
    assert (quantised.model.cycles, quantised.model.timesteps) == (2, 2)  # left alone
    assert float(next(iter(quantised.model.scales.values()))) != 0.5


def test_scales_of_other_products_are_refused(contract: Contract, checkpoint: Checkpoint) -> None:
    scales = dict.fromkeys(checkpoint.model.products, 0.1)
    scales["l_module.from_g"] = scales.pop("l_module.from_h")
    graph = replace(contract.graph, precision="int8", input_scales=scales)
    with pytest.raises(
        CheckpointInvalid,
        match=r"the artifact's contract: expected the scale .* found one of l_module\.from_g",
    ):
        as_deployed(checkpoint.model, replace(contract, graph=graph))


def test_the_twin_of_halves_has_rounded_matrices_and_nothing_else(checkpoint: Checkpoint) -> None:
    assert twin_of(checkpoint.model, "fp32") is checkpoint.model
    twin, differing = twin_of(checkpoint.model, "fp16"), set()
    for (name, rounded), weight in zip(
        twin.state_dict().items(), checkpoint.model.state_dict().values(), strict=True
    ):
        expected = weight.half().float() if weight.ndim == 2 else weight
        assert torch.equal(rounded, expected), name
        if not torch.equal(rounded, weight):
            differing.add(name)
    assert differing == {
        name for name, weight in checkpoint.model.named_parameters() if weight.ndim == 2
    }


# the rungs


def ladder(stages: tuple[Stage, ...]) -> list[tuple[str, str, bool, int]]:
    return [(stage.stage, stage.reference, stage.gated, stage.windows) for stage in stages]


def test_lower_rungs_are_the_graphs_on_the_way(
    graphs: Graphs, contract: Contract, quantised: Checkpoint, inputs: Inputs
) -> None:
    ours = of_precision(contract, quantised.model)
    made = {name: built.to_bytes() for name, built in graphs("int8").items() if name != "int8"}
    stages = lower_rungs(quantised.model, ours, made, inputs)
    assert ladder(stages) == [(COMPOSED, EAGER, True, 60), (FUSED, EAGER, True, 60)]
    for stage in stages:
        assert stage.passed
        assert 0 < stage.max_rel < 1e-3
        assert {n: o.tolerance for n, o in stage.outputs.items()} == FLOAT_TOLERANCES
        assert stage.growth is None
    only = lower_rungs(quantised.model, ours, {COMPOSED: made[COMPOSED]}, inputs)
    assert only == stages[:1]


def test_a_few_windows_are_enough_to_know_a_graph(
    graphs: Graphs, contract: Contract, checkpoint: Checkpoint, all_inputs: Inputs
) -> None:
    made = {COMPOSED: graphs("fp32")[COMPOSED].to_bytes()}
    (stage,) = lower_rungs(checkpoint.model, contract, made, all_inputs)
    assert stage.windows == 64


def test_a_graph_on_the_way_that_is_of_another_network_fails(
    graphs: Graphs, contract: Contract, quantised: Checkpoint, inputs: Inputs
) -> None:
    made = {COMPOSED: graphs("int8")[COMPOSED].to_bytes(), FUSED: graphs("fp32")[FUSED].to_bytes()}
    composed, fused = lower_rungs(quantised.model, contract, made, inputs)
    assert (composed.passed, fused.passed) == (True, False)
    with pytest.raises(ParityFailed, match=r"^fused differs from torch eager over 60 windows"):
        require((composed, fused))


def test_the_upper_rungs_of_single_precision(
    model: Model, artifact_folder: Path, checkpoint: Checkpoint, inputs: Inputs
) -> None:
    graph = (artifact_folder / "model.onnx").read_bytes()
    stages = upper_rungs(checkpoint.model, model, graph, inputs, trained=False)
    assert ladder(stages) == [
        ("artifact", EAGER, True, 60),
        ("artifact, hard windows", EAGER, True, HARD),
    ]
    assert all(stage.passed for stage in stages)
    assert [stage.growth is not None for stage in stages] == [True, False]
    assert stages[0].action_agreement == 1.0


def test_the_upper_rungs_of_halves(
    graphs: Graphs, contract: Contract, checkpoint: Checkpoint, inputs: Inputs
) -> None:
    half = replace(contract, graph=replace(contract.graph, precision="fp16"))
    graph = graphs("fp16")["fp16"].to_bytes()
    stages = upper_rungs(checkpoint.model, served_by(half, graph), graph, inputs, trained=False)
    twin = "torch eager, float16 weights"
    assert ladder(stages) == [
        ("artifact", twin, True, 60),
        ("artifact, hard windows", twin, True, HARD),
        ("artifact", EAGER, False, 60),
    ]
    same, hard, plain = stages
    assert same.passed
    assert hard.passed
    assert same.max_rel < 1e-3 < plain.max_rel  # what rounding the weights does
    assert {o.tolerance for o in plain.outputs.values()} == {None}
    assert {n: o.tolerance for n, o in same.outputs.items()} == FLOAT_TOLERANCES
    assert same.growth is not None
    assert plain.growth is not None
    assert max(same.growth.z_H) < 1e-5 < max(plain.growth.z_H)


@pytest.mark.parametrize("trained", [True, False])
def test_the_upper_rungs_of_integers(
    trained: bool, graphs: Graphs, contract: Contract, quantised: Checkpoint, inputs: Inputs
) -> None:
    ours = of_precision(contract, quantised.model)
    graph = graphs("int8")["int8"].to_bytes()
    stages = upper_rungs(quantised.model, served_by(ours, graph), graph, inputs, trained=trained)
    twin = "torch eager, quantised"
    assert ladder(stages) == [
        ("artifact", twin, True, 60),
        ("artifact, hard windows", twin, True, HARD),
        ("artifact", EAGER, trained, 60),
    ]
    same, hard, plain = stages
    assert same.passed
    assert hard.passed
    assert {n: o.tolerance for n, o in same.outputs.items()} == INT8_TOLERANCES
    assert (same.allowance, plain.allowance) == (0.005, 0.0)
    assert {o.tolerance for o in plain.outputs.values()} == {None}
    assert same.growth is not None
    assert plain.growth is not None
    assert max(same.growth.z_H) < 1e-2 < max(plain.growth.z_H)
    assert len(plain.flips) > len(same.flips)


def test_a_stage_that_need_not_pass_does_not_fail_the_report(
    graphs: Graphs, contract: Contract, quantised: Checkpoint, inputs: Inputs
) -> None:
    ours = of_precision(contract, quantised.model)
    graph = graphs("int8")["int8"].to_bytes()
    *_, plain = upper_rungs(quantised.model, served_by(ours, graph), graph, inputs, trained=False)
    failed = replace(plain, passed=False)
    passed = ParityReport(windows=60, unseen=60, stages=(failed,), skipped=())
    assert passed.passed
    assert repr(passed) == "ParityReport(60 windows, 60 unseen, 1 stage, passed)"
    require((failed,))
    must = replace(failed, gated=True)
    refused = ParityReport(windows=1, unseen=0, stages=(failed, must), skipped=())
    assert not refused.passed
    assert repr(refused) == "ParityReport(1 window, 0 unseen, 2 stages, FAILED)"
    with pytest.raises(ParityFailed, match=r"^artifact differs from torch eager over 60 windows"):
        require((failed, must))


# how errors grow


def states_by_hand(
    model: HierarchicalReasoningModel, inputs: Inputs
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """z_L after every low step and z_H after every high one, by the steps alone."""
    lows, highs = [], []
    with torch.inference_mode():
        x = model.encode(*map(torch.from_numpy, inputs.arrays))
        z_H, z_L = model.initialize_states()
        for cycle in range(model.cycles):
            z_L = model.initialize_states()[1] if cycle > 0 and model.reset_l else z_L
            for _ in range(model.timesteps):
                z_L = model.low(z_L, z_H, x)
                lows.append(z_L)
            z_H = model.high(z_H, z_L)
            highs.append(z_H)
    return lows, highs


def inner_values(
    graph: bytes, names: list[str], inputs: Inputs
) -> dict[str, npt.NDArray[np.float32]]:
    """What a graph computes on the way to its outputs."""
    opened = onnx.load_model_from_string(graph)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    names_in = ("features", "account", "instrument", "timeframe")
    return Session(opened.SerializeToString()).run(dict(zip(names_in, inputs.arrays, strict=True)))


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("precision", "cycles", "timesteps"), [("fp32", 2, 3), ("int8", 3, 1), ("fp16", 1, 4)]
)
def test_growth_is_the_difference_of_states_after_every_step(
    precision: Precision,
    cycles: int,
    timesteps: int,
    checkpoint_folder: Path,
    quantised_folder: Path,
    checkpoint: Checkpoint,
    quantised: Checkpoint,
    all_inputs: Inputs,
    tmp_path: Path,
) -> None:
    folder = quantised_folder if precision == "int8" else checkpoint_folder
    source = quantised if precision == "int8" else checkpoint
    done = export(
        folder, tmp_path / "artifact", precision=precision, cycles=cycles, timesteps=timesteps
    )
    graph = (done.path / "model.onnx").read_bytes()
    few = all_inputs.slice(0, 64)
    lows = [low_state(n, t) for n in range(1, cycles + 1) for t in range(1, timesteps + 1)]
    highs = [high_state(n) for n in range(1, cycles + 1)]
    found = inner_values(graph, [*lows, *highs], few)
    grown = [stage for stage in done.contract.parity if stage.growth is not None]
    assert len(grown) == (1 if precision == "fp32" else 2)
    for stage in grown:
        plain = stage.reference == EAGER
        reference = as_deployed(source.model, done.contract)
        reference = reference.without_quantisers() if plain else twin_of(reference, precision)
        expected = [
            float((torch.from_numpy(found[name]) - z).double().square().mean().sqrt())
            for name, z in zip([*lows, *highs], chain(*states_by_hand(reference, few)), strict=True)
        ]
        assert stage.growth is not None
        assert [len(row) for row in stage.growth.z_L] == [timesteps] * cycles
        flat = [value for row in stage.growth.z_L for value in row]
        assert [*flat, *stage.growth.z_H] == pytest.approx(expected, rel=1e-4)
        assert min(expected) > 0


def test_growth_of_a_graph_against_another_network_is_seen_from_where_they_part(
    artifact_folder: Path, model: Model, checkpoint: Checkpoint, inputs: Inputs
) -> None:
    other = copy.deepcopy(checkpoint.model)
    other.h_module.blocks[0].mlp.down.weight.data *= 1.5
    graph = (artifact_folder / "model.onnx").read_bytes()
    artifact, *_ = upper_rungs(other, model, graph, inputs, trained=False)
    growth = artifact.growth
    assert isinstance(growth, Growth)
    (first, second), (third, fourth) = growth.z_L
    assert max(first, second) < 1e-5
    assert min(third, fourth, *growth.z_H) > 1e-2


# checking an artifact on other bars


def test_check_parity_reads_everything_from_disk_and_passes(
    artifact_folder: Path, checkpoint_folder: Path, bars_folder: Path
) -> None:
    report = check_parity(artifact_folder, checkpoint_folder, [bars_folder], 100)
    assert report.passed
    assert (report.windows, report.unseen) == (100, 100)
    assert ladder(report.stages) == [
        ("artifact", EAGER, True, 100),
        ("artifact, hard windows", EAGER, True, HARD),
    ]
    for stage in report.stages:
        assert set(stage.outputs) == set(OUTPUTS)
        assert 0 < stage.max_rel < 1e-3
        assert all(output.beyond == 0 for output in stage.outputs.values())


def test_the_report_says_how_many_windows_training_has_not_seen(
    artifact_folder: Path,
    checkpoint_folder: Path,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skipped = (SkippedSeries("Short", "5", "50 bars, 212 needed"),)

    def few(
        source: Checkpoint, data: list[str], most: int
    ) -> tuple[Windows, int, tuple[SkippedSeries, ...]]:
        assert (source.sha256, data, most) == (checkpoint.sha256, ["bars"], 40)
        return checkpoint.windows[np.arange(most)], 17, skipped

    monkeypatch.setattr("hrm_export.proof.parity.unseen_windows", few)
    report = check_parity(artifact_folder, checkpoint_folder, ["bars"], 40)
    assert (report.windows, report.unseen, report.skipped) == (40, 17, skipped)
    assert report.stages[0].windows == 40


@pytest.fixture(scope="module")
def other_checkpoints(
    bars_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One of other dimensions, one that knows fewer names, one of other weights."""
    folder = tmp_path_factory.mktemp("others")
    wider, longer = copy.deepcopy(SMALL), copy.deepcopy(SMALL)
    wider["hierarchical_reasoning_model"]["h_module"]["ffn_dim"] = 32
    longer["training"]["learning_rate"] = 3e-3
    train(parse_settings(wider), [bars_folder], folder / "wider")
    train(parse_settings(SMALL), [bars_folder / "Beta_5.csv"], folder / "fewer")
    train(parse_settings(longer), [bars_folder], folder / "longer")
    return {name: folder / name for name in ("wider", "fewer", "longer")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wider", r"differ in h_module\.ffn_dim: artifact 24, checkpoint 32; give the one whose"),
        (
            "fewer",
            "differ in instruments: artifact only: Alpha; timeframes: artifact only: 15; give the",
        ),
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


def test_a_checkpoint_of_other_weights_does_not_pass(
    artifact_folder: Path, other_checkpoints: dict[str, Path], bars_folder: Path
) -> None:
    report = check_parity(artifact_folder, other_checkpoints["longer"], [bars_folder], 60)
    assert not report.passed
    assert [stage.passed for stage in report.stages] == [False, False]
    assert report.stages[0].outputs["z_H_out"].beyond == 60


def test_an_artifact_of_integers_is_held_to_the_scales_in_its_contract(
    graphs: Graphs,
    artifact_folder: Path,
    quantised: Checkpoint,
    quantised_folder: Path,
    bars_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not to those of the checkpoint, which may have none."""
    done = export_of(graphs, artifact_folder, quantised, tmp_path)
    monkeypatch.setattr("hrm_export.proof.parity.load", lambda _: done)
    right = check_parity(tmp_path, quantised_folder, [bars_folder], 100)
    assert [stage.passed for stage in right.stages if stage.gated] == [True] * 3
    scales = {name: 1.5 * scale for name, scale in done.contract.graph.input_scales.items()}
    graph = replace(done.contract.graph, input_scales=scales)
    done.contract = replace(done.contract, graph=graph)
    wrong = check_parity(tmp_path, quantised_folder, [bars_folder], 100)
    assert not wrong.stages[0].passed


def export_of(graphs: Graphs, artifact: Path, source: Checkpoint, folder: Path) -> Model:
    """A model of the int8 graph, whose file lies in `folder`."""
    content = graphs("int8")["int8"].to_bytes()
    (folder / "model.onnx").write_bytes(content)
    return served_by(of_precision(ArtifactCopy(artifact).contract, source.model), content)
