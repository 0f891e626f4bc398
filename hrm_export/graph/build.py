"""How a graph is made: the steps from torch, the passes over them, the whole written out.

Every pass says what it needs to find, how much it will change and what it leaves none of. A pass
that does anything else stops the export: a fusion that did not fire costs time, a quantiser that
did not costs its whole purpose, and neither shows in the outputs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import onnx_ir as ir

from hrm_export.errors import PassFailed
from hrm_export.graph import passes
from hrm_export.graph.compose import Composed, Schedule, compose
from hrm_export.graph.steps import Steps, convert
from hrm_runtime.artifact.contract import Precision
from hrm_train.network.model import HierarchicalReasoningModel

COMPOSED: Final = "composed"
FUSED: Final = "fused"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass over the graph of a step, and what it is held to.

    Attributes:
        apply: changes a graph and counts its changes.
        per_block, per_join, per_step: how many changes are due for each of those; 0 of all is any
            number from 1.
        needs: operators that must be there before.
        leaves: operators of which none may be left after.
    """

    name: str
    apply: Callable[[ir.Model], int]
    per_block: int = 0
    per_join: int = 0
    per_step: int = 0
    needs: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Change:
    """What a pass did: how many changes over both steps, or the nodes spared by composition."""

    name: str
    count: int


CLEANING: Final = (
    Pass(
        name="fold transposes of weights",
        apply=passes.fold_transposes,
        per_block=4,
        per_join=1,
        needs=frozenset({"Transpose", "MatMul"}),
    ),
    Pass(
        name="fold constants and drop what nothing reads",
        apply=passes.clean,
        leaves=frozenset({"Constant", "Identity", "SequenceAt", "SplitToSequence"}),
    ),
)
"""What makes torch's graphs plain; what they compute is still written as torch writes it."""

FUSION: Final = (
    Pass(
        name="settle the scale of norms",
        apply=passes.settle_norms,
        per_block=2,
        needs=frozenset({"RMSNormalization"}),
        leaves=frozenset({"Shape", "ConstantOfShape"}),
    ),
    Pass(
        name="split products instead of their results",
        apply=passes.split_products,
        per_block=2,
        needs=frozenset({"Split"}),
    ),
    Pass(
        name="fuse rotation and attention",
        apply=passes.fuse_attention,
        per_block=1,
        needs=frozenset({"Attention", "Neg"}),
        leaves=frozenset({"Transpose", "Reshape", "Split", "Neg", "Concat"}),
    ),
    Pass(
        name="fuse SiLU",
        apply=passes.fuse_silu,
        per_block=1,
        needs=frozenset({"Sigmoid"}),
        leaves=frozenset({"Sigmoid"}),
    ),
    Pass(
        name="fuse the residual",
        apply=passes.fuse_residual,
        per_step=1,
        needs=frozenset({"ReduceMean"}),
        leaves=frozenset({"ReduceMean", "Sqrt", "Pow", "Unsqueeze"}),
    ),
)
"""The fewest and fastest operators onnxruntime's CPU has kernels for; docs/export.md."""


def quantisation(scales: dict[str, float]) -> Pass:
    """Integers instead of floats in every product with a weight: q, k, v, out, gate, up, down."""
    return Pass(
        name="quantise products",
        apply=partial(passes.quantise, scales=scales),
        per_block=7,
        per_join=1,
        needs=frozenset({"MatMul"}),
        leaves=frozenset({"MatMul"}),
    )


@dataclass(frozen=True, eq=False)
class Built:
    """A whole graph at one stage of its making, and the changes that led there."""

    stage: str
    model: ir.Model
    changes: tuple[Change, ...]

    def to_bytes(self) -> bytes:
        """The ONNX file; the same graph gives the same bytes."""
        content: bytes = ir.to_proto(self.model).SerializeToString(deterministic=True)
        return content


def stages(model: HierarchicalReasoningModel, precision: Precision) -> Iterator[Built]:
    """The graph in torch's operators, then fused, then in `precision` where that is not fp32.

    Args:
        model: N and T are its `cycles` and `timesteps`; for "int8" its quantisers must be on, for
            the others they do not count.

    Raises:
        PassFailed: a pass did not do what it says; torch made another graph than was expected.
    """
    schedule = _schedule(model)
    steps = convert(model.without_quantisers())
    changes = [run(each, steps) for each in CLEANING]
    for step in (steps.encode, steps.decode):
        passes.fold_transposes(step)
        passes.clean(step)
    yield Built(COMPOSED, compose(steps, schedule, hoist=False).model, tuple(changes))

    changes += [run(each, steps) for each in FUSION]
    fused = compose(steps, schedule)
    changes.append(_hoisted(fused, steps, schedule))
    yield Built(FUSED, fused.model, tuple(changes))

    if precision == "fp16":
        half = compose(steps, schedule).model
        yield Built(precision, half, (*changes, _stored_half(half)))
    elif precision == "int8":
        scales = {name: float(scale) for name, scale in model.scales.items()}
        quantised = run(quantisation(scales), steps)
        yield Built(precision, compose(steps, schedule).model, (*changes, quantised))


def build(model: HierarchicalReasoningModel, precision: Precision) -> bytes:
    """The ONNX file alone, the last of `stages`."""
    *_, last = stages(model, precision)
    return last.to_bytes()


def run(each: Pass, steps: Steps) -> Change:
    """Apply a pass to both recurrent steps.

    Raises:
        PassFailed: what it needs is not there, it changed more or less than was due, or left what
            it should not.
    """
    total = 0
    for name, step in (("low", steps.low), ("high", steps.high)):
        where = f"pass {each.name!r} on the {name} step"
        if missing := each.needs - _operators(step.graph):
            raise PassFailed(f"{where}: expected to find {_names(missing)}, found none")
        due = each.per_block * step.blocks + each.per_join * step.joins + each.per_step
        changed = each.apply(step.graph)
        if changed != due if due else changed < 1:
            raise PassFailed(
                f"{where}: expected {due or 'some'} changes, made {changed}; torch writes the "
                "graph in another way than this pass knows: install the versions of "
                "constraints.txt, or mend the pass"
            )
        if left := each.leaves & _operators(step.graph):
            raise PassFailed(f"{where}: expected none of {_names(left)} after it, found some")
        total += changed
    return Change(each.name, total)


def _hoisted(fused: Composed, steps: Steps, schedule: Schedule) -> Change:
    """Hold composition to computing what L gets from H and the input once in a cycle.

    That is their sum, and the product that brings H's state to L's width where there is one.
    """
    due = (1 + steps.low.joins) * schedule.cycles * (schedule.timesteps - 1)
    if fused.spared != due:
        raise PassFailed(f"composition: expected to spare {due} nodes, spared {fused.spared}")
    return Change("compute once what a cycle does not change", fused.spared)


def _stored_half(model: ir.Model) -> Change:
    """Hold the storage of halves to all matrices of weights."""
    changed = passes.store_half(model)
    if left := passes.matrices(model):
        raise PassFailed(f"storing halves: expected no float32 matrix, found {_names(left)}")
    return Change("store weights as float16", changed)


def _schedule(model: HierarchicalReasoningModel) -> Schedule:
    z_H, z_L = (state.detach().contiguous().numpy() for state in model.initialize_states())
    return Schedule(model.cycles, model.timesteps, model.reset_l, z_H, z_L)


def _operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


def _names(operators: Iterable[str]) -> str:
    return ", ".join(sorted(operators))
