"""The N x T graph, written out of the graphs of its steps over one set of weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from hrm_export.graph.steps import CHANGE, NEXT, OPSET, Steps
from hrm_runtime.artifact.contract import OUTPUTS
from hrm_runtime.market.actions import Action

CONTRIB: Final = "com.microsoft"
_IR_VERSION: Final = 10


@dataclass(frozen=True)
class Schedule:
    """What is written out: N `cycles` of T `timesteps`, and how each cycle's L starts.

    Attributes:
        z_H, z_L: float32 [1, S, D], the initial states; broadcast over the batch.
        reset_l: cycles after the first start L from z_L, else from where it stands.
    """

    cycles: int
    timesteps: int
    reset_l: bool
    z_H: npt.NDArray[np.float32]
    z_L: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Composed:
    """A whole graph, and how many nodes it was spared since their inputs had not changed."""

    model: ir.Model
    spared: int


def low_state(cycle: int, timestep: int) -> str:
    """The name of z_L after a low step, both counted from 1."""
    return f"cycle{cycle}/step{timestep}/{NEXT}"


def high_state(cycle: int) -> str:
    """The name of z_H after a cycle, counted from 1."""
    return f"cycle{cycle}/{NEXT}"


def compose(steps: Steps, schedule: Schedule, hoist: bool = True) -> Composed:
    """Write out the steps.

    Args:
        steps: their graphs; not changed.
        schedule: how often and from where.
        hoist: compute once what a step computes from unchanged inputs: what L gets from H and
            the input is the same for every step of a cycle.
    """
    writer = _Writer(hoist)
    given = {
        name: writer.input(value)
        for graph in (steps.encode, steps.low.graph, steps.high.graph)
        for value in graph.graph.inputs
        if (name := name_of(value)) != "x"
    }
    x = writer.write("encode", steps.encode, "encode", given)["x"]
    z_H, z_L = given["z_H"], given["z_L"]
    l_changes, h_changes = [], []
    for cycle in range(1, schedule.cycles + 1):
        if cycle > 1 and schedule.reset_l:
            z_L = writer.constant("initial/z_L", schedule.z_L)
        for step in range(1, schedule.timesteps + 1):
            states = {"z_L": z_L, "z_H": z_H, "x": x}
            made = writer.write("low", steps.low.graph, f"cycle{cycle}/step{step}", states)
            z_L = made[NEXT]
            l_changes.append(made[CHANGE])
        made = writer.write("high", steps.high.graph, f"cycle{cycle}", {"z_H": z_H, "z_L": z_L})
        z_H = made[NEXT]
        h_changes.append(made[CHANGE])
    final = {"z_H": z_H, "account": given["account"]}
    answers = writer.write("decode", steps.decode, "decode", final)
    answers |= {"z_H_out": writer.copy(z_H), "z_L_out": writer.copy(z_L)}
    answers["l_residual"] = writer.stack(l_changes, (schedule.cycles, schedule.timesteps))
    answers["h_residual"] = writer.stack(h_changes, (schedule.cycles,))
    _, tokens, h_dim = schedule.z_H.shape
    shapes = {
        "action_type": (len(Action),),
        "quantity": (),
        "value": (),
        "q_values": (2,),
        "z_H_out": (tokens, h_dim),
        "z_L_out": (tokens, schedule.z_L.shape[2]),
        "l_residual": (schedule.cycles, schedule.timesteps),
        "h_residual": (schedule.cycles,),
    }
    for name, value in answers.items():
        value.name = name
        value.shape, value.type = ir.Shape(["B", *shapes[name]]), ir.TensorType(ir.DataType.FLOAT)
    model = writer.finish([*given.values()], [answers[name] for name in OUTPUTS])
    _make_states_optional(model, {"z_H": schedule.z_H, "z_L": schedule.z_L})
    return Composed(model, writer.spared)


class _Writer:
    """Copies graphs into one, initializers by name."""

    def __init__(self, hoist: bool) -> None:
        self.spared = 0
        self._hoist = hoist
        self._nodes: list[ir.Node] = []
        self._constants: dict[str, ir.Value] = {}
        self._made: dict[tuple[ir.Node, tuple[ir.Value | None, ...]], Sequence[ir.Value]] = {}

    def input(self, like: ir.Value) -> ir.Value:
        return ir.Value(name=like.name, shape=like.shape, type=like.type)

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        if name not in self._constants:
            self._constants[name] = initializer(name, ir.tensor(array, name=name))
        return self._constants[name]

    def write(
        self, step: str, graph: ir.Model, prefix: str, inputs: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """One run of `step`, its values named after `prefix`; its outputs by name."""
        values: dict[ir.Value | None, ir.Value | None] = {None: None}
        values |= {value: inputs[name_of(value)] for value in graph.graph.inputs}
        for value in graph.graph.initializers.values():
            values[value] = self._shared(step, value)
        for node in graph.graph:
            taken = tuple(values[value] for value in node.inputs)
            made = self._made.get((node, taken)) if self._hoist else None
            if made is None:
                made = self._node(node, taken, prefix)
                self._made[node, taken] = made
            else:
                self.spared += 1
            values.update(zip(node.outputs, made, strict=True))
        outputs = {name_of(value): values[value] for value in graph.graph.outputs}
        return {name: value for name, value in outputs.items() if value is not None}

    def copy(self, value: ir.Value) -> ir.Value:
        """`value` under a name of its own."""
        return self._op("Identity", [value])

    def stack(self, changes: list[ir.Value], shape: tuple[int, ...]) -> ir.Value:
        """[B, 1, 1] each, as one [B, *shape]."""
        name = f"shape/{len(shape)}"
        sizes = self.constant(name, np.array([-1, *shape], dtype=np.int64))
        return self._op("Reshape", [self._op("Concat", changes, axis=1), sizes])

    def finish(self, inputs: list[ir.Value], outputs: list[ir.Value]) -> ir.Model:
        used = {value for node in self._nodes for value in node.inputs}
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=[value for value in self._constants.values() if value in used],
            opset_imports={"": OPSET, CONTRIB: 1},
            name="hrm",
        )
        return ir.Model(graph, ir_version=_IR_VERSION)

    def _shared(self, step: str, value: ir.Value) -> ir.Value:
        """The initializer of that name: one for all runs of a step."""
        name, tensor = name_of(value), value.const_value
        assert tensor is not None
        if "." not in name:  # not a weight's: torch numbers constants anew in every graph
            name = f"{step}/{name}"
        return self._constants.setdefault(name, initializer(name, tensor))

    def _node(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], prefix: str
    ) -> Sequence[ir.Value]:
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes,
            num_outputs=len(node.outputs),
            name=f"{prefix}/{node.op_type}{len(self._nodes)}",
        )
        for own, original in zip(copy.outputs, node.outputs, strict=True):
            own.name = f"{prefix}/{original.name}"
        self._nodes.append(copy)
        return copy.outputs

    def _op(self, op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"{op_type}{len(self._nodes)}")
        node.outputs[0].name = f"value{len(self._nodes)}"
        self._nodes.append(node)
        return node.outputs[0]


def with_outputs(graph: bytes, names: Iterable[str]) -> bytes:
    """`graph`, an ONNX file, that also answers with values inside it."""
    model = onnx.load_model_from_string(graph)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    content: bytes = model.SerializeToString()
    return content


def initializer(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A constant of a graph."""
    return ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def name_of(value: ir.Value) -> str:
    """Its name, which every value here has."""
    assert value.name is not None
    return value.name


def _make_states_optional(model: ir.Model, states: dict[str, npt.NDArray[np.float32]]) -> None:
    """Give each state input a default [1, S, D] and a batch axis of its own: 1 fits any batch."""
    for value in model.graph.inputs:
        if (name := name_of(value)) in states:
            value.shape = ir.Shape(["Bz", *states[name].shape[1:]])
            value.const_value = ir.tensor(states[name], name=name)
            model.graph.register_initializer(value)
