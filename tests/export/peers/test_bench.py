"""What an artifact is measured beside is made of its settings; what cannot be made is named."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_openvino
import numpy as np
import onnx
import pytest
import torch

from hrm_export.peers import bench as peers
from hrm_export.peers import process as peer_process
from hrm_export.peers.bench import PEERS, THINGS, WEIGHTS, make, merged, named, random_model
from hrm_export.peers.products import PRODUCT
from hrm_export.proof.inputs import Inputs
from hrm_runtime import Contract
from hrm_runtime.artifact.contract import MODEL
from hrm_runtime.artifact.session import Session
from hrm_runtime.machine import machine
from hrm_runtime.measure import bench as measuring
from hrm_runtime.measure.bench import BATCHES, INPUTS_FILE, Bench, Result, Site, Skipped, Variant
from hrm_runtime.measure.turns import write_inputs
from hrm_train.network.model import HierarchicalReasoningModel

NAMES = [
    "hrm fp32",
    "hrm fp16",
    "hrm int8",
    "products int8",
    "torch eager",
    "torch compile",
    "plain onnx",
    "openvino fp32",
    "openvino bf16",
    "openvino int8",
]


@pytest.fixture
def site(artifact_folder: Path, contract: Contract, inputs: Inputs, tmp_path: Path) -> Site:
    write_inputs(tmp_path / INPUTS_FILE, inputs.arrays)
    return Site(
        artifact=artifact_folder,
        contract=contract,
        folder=tmp_path,
        inputs=tmp_path / INPUTS_FILE,
        core=1,
    )


def in_this_process(thing: str, site: Site) -> str:
    """What a worker of its own would do."""
    THINGS[thing].make(site.artifact, site.folder)
    return ""


# the network


def test_the_network_is_that_of_the_contract_with_its_own_depth(contract: Contract) -> None:
    deeper = replace(contract, graph=replace(contract.graph, cycles=3, timesteps=1, reset_l=False))
    model = random_model(deeper)
    assert (model.cycles, model.timesteps, model.reset_l) == (3, 1, False)
    trained = contract.provenance.settings["hierarchical_reasoning_model"]
    found = model.settings.network.model_dump(mode="json")
    assert {key for key in found if found[key] != trained[key]} == {"hierarchical"}
    assert not model.training


def test_its_weights_are_random_and_always_the_same(contract: Contract) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = random_model(contract), random_model(contract)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        if name.endswith((".mean", ".std", "logits.weight")):
            assert value.unique().numel() == value.numel(), name


# what is made


@pytest.mark.usefixtures("quick_export")
def test_our_precisions_are_made_of_the_same_weights(site: Site, inputs: Inputs) -> None:
    for thing in ("weights", "hrm fp16", "hrm int8", "products"):
        in_this_process(thing, site)
    model = HierarchicalReasoningModel.load_model(site.folder / WEIGHTS)
    feeds = peer_process.by_name(inputs.arrays)
    with torch.inference_mode():
        expected, _ = model(*map(torch.from_numpy, inputs.arrays))
    for precision, tolerance in (("fp16", 0.02), ("int8", 0.5)):
        found = Session((site.folder / f"hrm-{precision}.onnx").read_bytes()).run(feeds)
        assert np.abs(found["value"] - expected["value"].numpy()).max() < tolerance, precision
    whole, alone = (onnx.load(site.folder / f"{name}.onnx") for name in ("hrm-int8", "products"))
    counts = [sum(node.op_type == PRODUCT for node in each.graph.node) for each in (whole, alone)]
    assert counts == [46, 46]
    with np.load(site.folder / "products.npz") as levels:
        assert sorted(levels) == sorted(entry.name for entry in alone.graph.input)


def test_the_artifacts_own_precision_is_its_own_graph(site: Site) -> None:
    in_this_process("hrm fp32", site)
    made = (site.folder / "hrm-fp32.onnx").read_bytes()
    assert made == (site.artifact / MODEL).read_bytes()


def test_openvino_gets_the_plain_graph_with_its_transposes_folded(
    site: Site, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openvino.install(monkeypatch)
    (site.folder / "plain-20.onnx").write_text("plain")
    for thing in ("openvino", "openvino int8"):
        in_this_process(thing, site)
    assert (site.folder / "openvino.xml").read_text() == "plain; folded"
    quantised = f"quantised on {len(inputs)} windows, "
    options = {"subset_size": len(inputs), "model_type": "transformer"}
    assert (site.folder / "openvino-int8.xml").read_text() == f"plain; folded; {quantised}{options}"


def test_a_thing_is_made_in_a_process_of_its_own(site: Site) -> None:
    assert peers._make_apart("weights", site) == ""
    made = HierarchicalReasoningModel.load_model(site.folder / WEIGHTS)
    for name, value in random_model(site.contract).state_dict().items():
        assert torch.equal(value, made.state_dict()[name]), name


def test_one_that_cannot_be_made_is_told_by_its_last_line(site: Site) -> None:
    absent = replace(site, artifact=site.folder / "absent")
    found = peers._make_apart("weights", absent)
    assert found.startswith("weights: exit code 1: hrm_runtime.errors.ArtifactNotFound: ")


def test_the_command_line_makes_one_thing(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chat(artifact: Path, folder: Path) -> None:
        os.write(1, f"{artifact} {folder}\n".encode())

    ends: list[bool] = []
    monkeypatch.setattr(peers, "end_with_parent", lambda: ends.append(True))
    monkeypatch.setitem(THINGS, "it", peers.Thing(make=chat))
    peers.main(["it", str(site.artifact), str(site.folder)])
    out, err = capfd.readouterr()
    assert ends == [True]
    assert out == '{"made": "it"}\n'
    assert err == f"{site.artifact} {site.folder}\n"


# what is measured


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, in order; nothing really is. Every package is there."""
    things: list[str] = []
    monkeypatch.setattr(peers, "_make_apart", lambda thing, _: things.append(thing) or "")
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    return things


def test_all_is_made_once_and_measured_under_its_name(site: Site, made: list[str]) -> None:
    told: list[tuple[str, int, int]] = []
    variants, skipped = make(site, lambda *stage: told.append(stage))
    assert skipped == []
    assert sorted(made) == sorted(THINGS.keys() - {"hrm fp32"})
    assert made.index("weights") == 0
    assert made.index("plain 20") < made.index("openvino") < made.index("openvino int8")
    labels = [variant.name for variant in variants]
    assert list(dict.fromkeys(label.partition(",")[0] for label in labels)) == NAMES[1:]
    assert told == [(f"making {label}", n, len(labels)) for n, label in enumerate(labels)]
    assert {variant.weights for variant in variants} == {"random"}


def test_each_is_served_from_the_files_that_were_made(site: Site, made: list[str]) -> None:
    variants = {variant.name: variant for variant in make(site, lambda *_: None)[0]}
    worker, inputs = peer_process.__file__, str(site.inputs)

    def at(name: str) -> str:
        return str(site.folder / name)

    half = variants["hrm fp16"]
    assert half.command == site.own_worker(site.folder / "hrm-fp16.onnx")
    assert half.files == (site.folder / "hrm-fp16.onnx",)
    eager = variants["torch eager"]
    assert eager.command == (worker, "torch-eager", inputs, "1", at(WEIGHTS))
    assert (eager.files, eager.served, eager.batches) == ((), True, BATCHES)
    products = variants["products int8"]
    files = (at("products.onnx"), at("products.npz"))
    assert products.command == (worker, "products", inputs, "1", *files)
    assert not products.served
    alone = variants["openvino int8, compiled for batch 1 alone"]
    assert alone.command == (worker, "openvino", inputs, "1", at("openvino-int8.xml"), "f32", "1")
    assert alone.files == tuple(site.folder / f"openvino-int8.{kind}" for kind in ("xml", "bin"))
    assert alone.batches == (1,)
    kinds = {variant.command[1] for variant in variants.values() if variant.command[0] == worker}
    assert kinds == peer_process.KINDS.keys()
    assert made


def test_an_int8_artifact_is_measured_beside_its_own_products(site: Site, made: list[str]) -> None:
    graph = replace(site.contract.graph, precision="int8")
    variants, _ = make(replace(site, contract=replace(site.contract, graph=graph)), lambda *_: None)
    assert [variant.name for variant in variants][:3] == ["hrm fp32", "hrm fp16", "products int8"]
    assert "hrm int8" in made  # of which the products are taken


def test_a_missing_package_is_named(
    site: Site, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: name if name == "openvino" else None)
    variants, skipped = make(site, lambda *_: None)
    reason = "needs nncf: pip install '.[bench]'"
    assert [one.reason for one in skipped] == [reason, reason]
    assert named(skipped, {variant.name for variant in variants}) == (
        Skipped("openvino int8", reason),
    )
    assert "openvino" in made
    assert "openvino int8" not in made


def test_a_package_that_is_not_there_is_found_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_make_apart", lambda *_: "")
    for package in ("openvino", "nncf"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [])
    _, skipped = make(site, lambda *_: None)
    assert {one.name.partition(",")[0] for one in skipped} == set(NAMES[7:])


def test_what_is_made_of_something_that_failed_is_not_tried(
    site: Site, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(thing: str, _: Site) -> str:
        made.append(thing)
        return "plain 20: exit code 1: no memory" if thing == "plain 20" else ""

    monkeypatch.setattr(peers, "_make_apart", failing)
    variants, skipped = make(site, lambda *_: None)
    assert "openvino" not in made
    assert made.count("plain 20") == 1
    assert {one.reason for one in skipped} == {"plain 20: exit code 1: no memory"}
    found = named(skipped, {variant.name for variant in variants})
    assert [one.name for one in found] == [
        "plain onnx, opset 20",
        "openvino fp32",
        "openvino bf16",
        "openvino int8",
    ]


# what is told


def result(name: str, p50_ms: float) -> Result:
    return Result(
        name=name,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        max_ms=3 * p50_ms,
        rows_per_s={1: 1000 / p50_ms},
        rss_mb=None,
        load_s=None,
        size_mb=None,
        weights="artifact" if name == "hrm int8" else "random",
    )


@pytest.mark.parametrize(
    ("times", "note"),
    [
        ((30.0, 31.25), "opset 20; opset 23: p50 31.2 ms"),
        ((9.0, 8.0), "opset 23; opset 20: p50 9 ms"),
    ],
)
def test_of_plain_graphs_the_faster_one_is_told(times: tuple[float, float], note: str) -> None:
    labels = ("plain onnx, opset 20", "plain onnx, opset 23")
    (found,) = merged([*map(result, labels, times)])
    assert found == replace(result("plain onnx", min(times)), note=note)


def test_of_openvino_that_for_any_batch_is_told_however_fast_the_other_is() -> None:
    labels = ("openvino int8, any batch", "openvino int8, compiled for batch 1 alone")
    (found,) = merged([*map(result, labels, (15.0, 10.123))])
    note = "any batch; compiled for batch 1 alone: p50 10.1 ms"
    assert found == replace(result("openvino int8", 15.0), note=note)
    (alone,) = merged([result(labels[1], 10.0)])
    assert (alone.name, alone.note) == ("openvino int8", "compiled for batch 1 alone")


def test_results_are_told_in_one_order_by_the_promised_names() -> None:
    results = [result(peer.label, 1.0) for peer in PEERS]
    own = results.pop(2)
    found = merged([own, *results])
    assert [one.name for one in found] == NAMES
    assert [one.weights for one in found].count("artifact") == 1
    assert [one.name for one in found if one.note is None] == NAMES[:6]


def test_a_bench_beside_peers_is_merged_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def measured(*arguments: Any) -> Bench:
        given.append(arguments)
        return Bench(
            results=(result("hrm int8", 9.0), result("plain onnx, opset 23", 30.0)),
            skipped=(
                Skipped("plain onnx, opset 20", "a"),
                Skipped("openvino bf16, any batch", "b"),
                Skipped("openvino bf16, compiled for batch 1 alone", "b"),
            ),
            decide_rows=None,
            host=machine(()),
        )

    monkeypatch.setattr(measuring, "bench", measured)
    found = peers.bench("artifact", print)
    assert given == [("artifact", print, make, peers.LIBRARIES)]
    assert [one.name for one in found.results] == ["hrm int8", "plain onnx"]
    assert found.skipped == (Skipped("plain onnx, opset 20", "a"), Skipped("openvino bf16", "b"))


def test_a_peer_is_really_measured(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROUNDS", 2), ("BATCH_ROUNDS", 2), ("TURN", 0.0)):
        monkeypatch.setattr(measuring, name, value)
    in_this_process("weights", site)
    (eager,) = (peer for peer in PEERS if peer.name == "torch eager")
    variant: Variant = peers._variant(eager, replace(site, core=measuring.one_core()))
    found = measuring.measure([variant], lambda *_: None)
    assert found.skipped == ()
    (told,) = found.results
    assert told.rows_per_s.keys() == set(BATCHES)
    assert told.weights == "random"
