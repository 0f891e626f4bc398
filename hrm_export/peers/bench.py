"""What an artifact is measured beside: its products alone, its other precisions, other libraries.

All have the artifact's settings, N and T, and random weights: time does not depend on them. What
they are served from is made before, each thing in a process of its own:

    python -m hrm_export.peers.bench THING ARTIFACT FOLDER
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hrm_export.peers import process as peer_process
from hrm_export.peers.process import ANSWERS, by_name, plain, silent_openvino
from hrm_runtime.artifact.contract import INPUTS, MODEL, Contract, Precision
from hrm_runtime.artifact.folder import load_contract
from hrm_runtime.measure import bench as measuring
from hrm_runtime.measure.bench import (
    BATCHES,
    INPUTS_FILE,
    Bench,
    OnProgress,
    Result,
    Site,
    Skipped,
    Variant,
)
from hrm_runtime.measure.turns import (
    Worker,
    WorkerFailed,
    end_with_parent,
    read_inputs,
    say,
    standard_output,
)

if TYPE_CHECKING:
    from hrm_train.network.model import HierarchicalReasoningModel

LIBRARIES: Final = (*measuring.LIBRARIES, "torch", "onnx", "onnxscript", "openvino", "nncf")

WEIGHTS: Final = "weights.safetensors"
SEED: Final = 0

PLAIN: Final = "plain onnx"
ANY: Final = "any batch"
ALONE: Final = "compiled for batch 1 alone"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Files that something is served from.

    Attributes:
        make: writes them, given the artifact and the folder.
        of: the things it is made of.
    """

    make: Callable[[Path, Path], None]
    of: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A line of the comparison.

    Attributes:
        variation: tells apart those of one name.
        thing: what it is served from.
        worker: a kind of `peer_process` and its arguments, of which those with a dot are files;
            none for a graph that `hrm_runtime` serves.
        graph: the graph's files.
        packages: what it needs beside the extra `export`.
        served, batches: as `Variant`.
    """

    name: str
    variation: str | None = None
    thing: str
    worker: tuple[str, ...] = ()
    graph: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    served: bool = True
    batches: tuple[int, ...] = BATCHES

    @property
    def label(self) -> str:
        """Its name and variation."""
        return f"{self.name}, {self.variation}" if self.variation else self.name


def bench(artifact: str | Path, on_progress: OnProgress = lambda *_: None) -> Bench:
    """As `measure.bench.bench`, beside all of `PEERS`. What lacks a package or fails is named.

    Raises:
        DoNotStart: as `load`.
        ModuleNotFoundError: a package is not there without which there is no export.
    """
    import hrm_export.exporter  # noqa: F401, before any work: most of them are made with it

    found = measuring.bench(artifact, on_progress, make, LIBRARIES)
    return replace(
        found,
        results=merged(found.results),
        skipped=named(found.skipped, {result.name for result in found.results}),
    )


def make(site: Site, on_progress: OnProgress) -> tuple[list[Variant], list[Skipped]]:
    """Make what peers are served from: those that can be measured, and those that cannot."""
    wanted = [peer for peer in PEERS if peer.name != _own(site.contract.graph.precision)]
    reasons: dict[str, str] = {}
    variants, skipped = [], []
    for number, peer in enumerate(wanted):
        on_progress(f"making {peer.label}", number, len(wanted))
        absent = [package for package in peer.packages if find_spec(package) is None]
        if absent:
            skipped.append(Skipped(peer.label, f"needs {absent[0]}: pip install '.[bench]'"))
        elif reason := _made(peer.thing, site, reasons):
            skipped.append(Skipped(peer.label, reason))
        else:
            variants.append(_variant(peer, site))
    return variants, skipped


def merged(results: Sequence[Result]) -> tuple[Result, ...]:
    """One result a name, in the order of `PEERS`; its note tells the variation, and the others'.

    Of plain graphs it is the faster one, of others the first, which answers any batch.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(_NAME_OF.get(result.name, result.name), []).append(result)
    chosen = []
    for name in dict.fromkeys(_NAME_OF.values()):
        ranked = found.get(name, [])
        if name == PLAIN:
            ranked = sorted(ranked, key=lambda result: result.p50_ms)
        for first in ranked[:1]:
            remarks = [_VARIATION_OF.get(first.name)] + [
                f"{_VARIATION_OF[other.name]}: p50 {other.p50_ms:.3g} ms" for other in ranked[1:]
            ]
            note = "; ".join(remark for remark in remarks if remark)
            chosen.append(replace(first, name=name, note=note or None))
    return tuple(chosen)


def named(skipped: Sequence[Skipped], measured: set[str]) -> tuple[Skipped, ...]:
    """What was skipped, by its name alone and once, where nothing of that name was measured."""
    whole = {_NAME_OF.get(label, label) for label in measured}
    found: dict[str, Skipped] = {}
    for one in skipped:
        name = _NAME_OF.get(one.name, one.name)
        name = one.name if name in whole else name
        found.setdefault(name, Skipped(name, one.reason))
    return tuple(found.values())


def random_model(contract: Contract) -> "HierarchicalReasoningModel":
    """The network of a contract's settings, N and T, with seeded random weights and statistics."""
    import torch

    from hrm_train.network.model import HierarchicalReasoningModel
    from hrm_train.settings import parse_settings

    graph, settings = contract.graph, contract.provenance.settings
    network = settings["hierarchical_reasoning_model"]
    depth = {
        "N_cycles": graph.cycles, "T_timesteps": graph.timesteps, "reset_l_module": graph.reset_l,
    }  # fmt: skip
    network = {**network, "hierarchical": {**network["hierarchical"], **depth}}
    document = {**settings, "hierarchical_reasoning_model": network}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = HierarchicalReasoningModel(parse_settings(document, "settings of the contract"))
        torch.nn.init.normal_(model.q_head.logits.weight)
        for standardise in (model.input_network.features, model.input_network.account):
            torch.nn.init.normal_(standardise.mean, std=0.1)
            torch.nn.init.uniform_(standardise.std, 0.5, 2.0)
    return model.eval()


def main(arguments: Sequence[str]) -> None:
    """Make one thing, and say so."""
    thing, artifact, folder = arguments
    end_with_parent()
    with standard_output() as answers:
        THINGS[thing].make(Path(artifact), Path(folder))
        say(answers, made=thing)


def _made(thing: str, site: Site, reasons: dict[str, str]) -> str:
    """Make a thing and what it is made of, once; why that failed, or nothing.

    Args:
        reasons: of what was tried before.
    """
    if thing not in reasons:
        of = (_made(other, site, reasons) for other in THINGS[thing].of)
        reasons[thing] = next(filter(None, of), "") or _make_apart(thing, site)
    return reasons[thing]


def _make_apart(thing: str, site: Site) -> str:
    command = ("-m", "hrm_export.peers.bench", thing, str(site.artifact), str(site.folder))
    with Worker(*command) as worker:
        try:
            worker.listen()
        except WorkerFailed as error:
            return f"{thing}: {error}"
    return ""


def _variant(peer: Peer, site: Site) -> Variant:
    graph = tuple(site.folder / name for name in peer.graph)
    if peer.worker:
        kind, *arguments = peer.worker
        located = [str(site.folder / each) if "." in each else each for each in arguments]
        command = (peer_process.__file__, kind, *site.worker_arguments, *located)
    else:
        command = site.own_worker(*graph)
    return Variant(
        name=peer.label,
        weights="random",
        command=command,
        files=graph,
        served=peer.served,
        batches=peer.batches,
    )


def _make_weights(artifact: Path, folder: Path) -> None:
    random_model(load_contract(artifact)).save_model(folder / WEIGHTS)


def _make_own(artifact: Path, folder: Path, precision: Precision) -> None:
    """Our graph in a precision: the artifact's, where it has that."""
    from hrm_export.graph.build import build
    from hrm_train.network.scales import calibrate

    graph = folder / _file(precision)
    if load_contract(artifact).graph.precision == precision:
        graph.write_bytes((artifact / MODEL).read_bytes())
        return
    model = _model(folder)
    if precision == "int8":
        model.quantise(calibrate(model, *read_inputs(folder / INPUTS_FILE)))
    graph.write_bytes(build(model, precision))


def _make_products(_: Path, folder: Path) -> None:
    import numpy as np

    from hrm_export.peers.products import products_alone

    inputs = read_inputs(folder / INPUTS_FILE)
    feeds = by_name([array[:1] for array in inputs])
    graph, levels = products_alone((folder / _file("int8")).read_bytes(), feeds)
    (folder / "products.onnx").write_bytes(graph)
    np.savez(folder / "products.npz", allow_pickle=False, **levels)


def _make_plain(_: Path, folder: Path, opset: int) -> None:
    """What `torch.onnx.export` makes of the four answers alone."""
    import torch

    inputs = read_inputs(folder / INPUTS_FILE)
    torch.onnx.export(
        plain(_model(folder)),
        tuple(torch.from_numpy(array[:2]) for array in inputs),
        folder / f"plain-{opset}.onnx",
        dynamo=True,
        opset_version=opset,
        external_data=False,
        input_names=INPUTS,
        output_names=ANSWERS,
        dynamic_shapes=({0: torch.export.Dim("B")},) * len(INPUTS),
    )


def _make_openvino(_: Path, folder: Path) -> None:
    """The plain graph, converted. Unfolded, transposes hide its weights from a quantiser."""
    openvino = silent_openvino()
    from openvino.passes import ConstantFolding, Manager

    network = openvino.Core().read_model(folder / "plain-20.onnx")
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(network)
    openvino.save_model(network, folder / "openvino.xml", compress_to_fp16=False)


def _make_openvino_int8(_: Path, folder: Path) -> None:
    """That, quantised after training by the rules for transformers."""
    openvino = silent_openvino()
    import nncf

    inputs = read_inputs(folder / INPUTS_FILE)
    windows = [by_name([array[row : row + 1] for array in inputs]) for row in range(len(inputs[0]))]
    network = nncf.quantize(
        openvino.Core().read_model(folder / "openvino.xml"),
        nncf.Dataset(windows),
        subset_size=len(windows),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(network, folder / "openvino-int8.xml", compress_to_fp16=False)


def _model(folder: Path) -> "HierarchicalReasoningModel":
    from hrm_train.network.model import HierarchicalReasoningModel

    return HierarchicalReasoningModel.load_model(folder / WEIGHTS)


def _own(precision: Precision) -> str:
    return f"hrm {precision}"


def _file(precision: Precision) -> str:
    return f"hrm-{precision}.onnx"


THINGS: Final = {
    "weights": Thing(make=_make_weights),
    "hrm fp32": Thing(make=partial(_make_own, precision="fp32"), of=("weights",)),
    "hrm fp16": Thing(make=partial(_make_own, precision="fp16"), of=("weights",)),
    "hrm int8": Thing(make=partial(_make_own, precision="int8"), of=("weights",)),
    "products": Thing(make=_make_products, of=("hrm int8",)),
    "plain 20": Thing(make=partial(_make_plain, opset=20), of=("weights",)),
    "plain 23": Thing(make=partial(_make_plain, opset=23), of=("weights",)),
    "openvino": Thing(make=_make_openvino, of=("plain 20",)),
    "openvino int8": Thing(make=_make_openvino_int8, of=("openvino",)),
}

_IR: Final = ("openvino.xml", "openvino.bin")
_IR_INT8: Final = ("openvino-int8.xml", "openvino-int8.bin")
_OPENVINO: Final = (
    ("openvino fp32", "openvino", "f32", _IR, ("openvino",)),
    ("openvino bf16", "openvino", "bf16", _IR, ("openvino",)),
    ("openvino int8", "openvino int8", "f32", _IR_INT8, ("openvino", "nncf")),
)

PEERS: Final = (
    Peer(name="hrm fp32", thing="hrm fp32", graph=("hrm-fp32.onnx",)),
    Peer(name="hrm fp16", thing="hrm fp16", graph=("hrm-fp16.onnx",)),
    Peer(name="hrm int8", thing="hrm int8", graph=("hrm-int8.onnx",)),
    Peer(
        name="products int8",
        thing="products",
        worker=("products", "products.onnx", "products.npz"),
        served=False,
    ),
    Peer(name="torch eager", thing="weights", worker=("torch-eager", WEIGHTS)),
    Peer(name="torch compile", thing="weights", worker=("torch-compile", WEIGHTS)),
    *(
        Peer(
            name=PLAIN,
            variation=f"opset {opset}",
            thing=f"plain {opset}",
            worker=("onnx", f"plain-{opset}.onnx"),
            graph=(f"plain-{opset}.onnx",),
        )
        for opset in (20, 23)
    ),
    *(
        Peer(
            name=name,
            variation=variation,
            thing=thing,
            worker=("openvino", graph[0], precision, batch),
            graph=graph,
            packages=packages,
            batches=batches,
        )
        for name, thing, precision, graph, packages in _OPENVINO
        for variation, batch, batches in ((ANY, "any", BATCHES), (ALONE, "1", (1,)))
    ),
)

_NAME_OF: Final = {peer.label: peer.name for peer in PEERS}
_VARIATION_OF: Final = {peer.label: peer.variation for peer in PEERS}


if __name__ == "__main__":
    main(sys.argv[1:])
