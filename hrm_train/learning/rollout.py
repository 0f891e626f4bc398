"""The N x T steps of a segment, and the exact gradient of those that are to have one.

Of a step only its state is kept. What else its gradient needs is computed again on the way back, so
that memory hardly grows with N x T.

Suffixes as in `hrm_train.network.model`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hrm_train.network.dropout import keys_of
from hrm_train.network.model import HierarchicalReasoningModel, States

Gradient = Literal["one_step", "last_cycle", "full"]


def rollout(
    model: HierarchicalReasoningModel,
    x_BSD: Tensor,
    states: States,
    gradient: Gradient,
    key: Tensor | None = None,
) -> States:
    """The states after one segment from `states`.

    Args:
        x_BSD: the encoded input.
        gradient: `full` goes through every step, `last_cycle` through the last T of L and the
            last of H, `one_step` through the last of each. The last approximates the gradient at
            the fixed point by the first term of its Neumann series (section 2 of the paper).
        key: of the dropout, as `hrm_train.network.dropout`.
    """
    steps = _steps(model, key)
    through = {"full": len(steps), "last_cycle": model.timesteps + 1, "one_step": 2}[gradient]
    silent = len(steps) - through if torch.is_grad_enabled() else len(steps)
    zH_BSD, zL_BSD = states
    with torch.no_grad():
        for step in steps[:silent]:
            zH_BSD, zL_BSD = step.run(zH_BSD, zL_BSD, x_BSD)
    torch.clear_autocast_cache()  # older versions keep casts made without gradient
    if through > 2 and silent < len(steps):
        weights = [*model.l_module.parameters(), *model.h_module.parameters()]
        after: States = _Exact.apply(steps[silent:], x_BSD, zH_BSD, zL_BSD, *weights)  # type: ignore[no-untyped-call]
        return after
    for step in steps[silent:]:
        zH_BSD, zL_BSD = step.run(zH_BSD, zL_BSD, x_BSD)
    return zH_BSD, zL_BSD


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of L, or of H.

    Attributes:
        anew: L starts from its initial state, or where it is not reset, goes on.
        key: of its dropout.
    """

    model: HierarchicalReasoningModel
    low: bool
    anew: bool
    key: Tensor | None

    def before(self, zL_BSD: Tensor) -> Tensor:
        """z_L as it comes into the step."""
        return self.model.reset_l_module(zL_BSD) if self.anew else zL_BSD

    def state(self, zH_BSD: Tensor, zL_BSD: Tensor, x_BSD: Tensor) -> Tensor:
        """The next state of its module."""
        if self.low:
            return self.model.low(zL_BSD, zH_BSD, x_BSD, self.key)
        return self.model.high(zH_BSD, zL_BSD, self.key)

    def run(self, zH_BSD: Tensor, zL_BSD: Tensor, x_BSD: Tensor) -> States:
        """Both states after it."""
        zL_BSD = self.before(zL_BSD)
        after_BSD = self.state(zH_BSD, zL_BSD, x_BSD)
        return (zH_BSD, after_BSD) if self.low else (after_BSD, zL_BSD)


def _steps(model: HierarchicalReasoningModel, key: Tensor | None) -> list[_Step]:
    """All of a segment, in order."""
    places = [(n, t) for n in range(model.cycles) for t in range(model.timesteps + 1)]
    keys: Sequence[Tensor | None] = (
        [None] * len(places) if key is None else keys_of(key, len(places)).unbind()
    )
    return [
        _Step(model, low=t < model.timesteps, anew=n > 0 and t == 0, key=key)
        for (n, t), key in zip(places, keys, strict=True)
    ]


class _Exact(torch.autograd.Function):
    """Steps whose gradient is exact, each computed again when that comes back to it.

    As one function, since a graph of N x T small nodes would lie scattered between what steps need
    for a moment, and leave holes in memory that nothing else fits into. Sums are those of such a
    graph, in its order.
    """

    @staticmethod
    def forward(
        ctx: Any,
        steps: list[_Step],
        x_BSD: Tensor,
        zH_BSD: Tensor,
        zL_BSD: Tensor,
        *weights: Tensor,
    ) -> States:
        kind = x_BSD.device.type
        ctx.steps, ctx.weights, ctx.x = steps, weights, x_BSD.detach()
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
            "cache_enabled": False,
        }
        ctx.before = []
        places: dict[bool, list[Tensor]] = {}
        for number, step in enumerate(steps):
            zL_BSD = step.before(zL_BSD)
            ctx.before.append((zH_BSD, zL_BSD))
            after_BSD = step.state(zH_BSD, zL_BSD, x_BSD)
            if step.low not in places:  # all of a kind at once: they lie side by side
                count = sum(other.low == step.low for other in steps[number:])
                places[step.low] = [torch.empty_like(after_BSD) for _ in range(count)]
            after_BSD = places[step.low].pop().copy_(after_BSD)
            zH_BSD, zL_BSD = (zH_BSD, after_BSD) if step.low else (after_BSD, zL_BSD)
        ctx.set_materialize_grads(False)
        return zH_BSD, zL_BSD

    @staticmethod
    def backward(ctx: Any, toH_BSD: Tensor | None, toL_BSD: Tensor | None) -> tuple[Any, ...]:
        found: dict[int, Tensor | None] = dict.fromkeys(range(len(ctx.weights)))
        to_x: Tensor | None = None
        while ctx.steps:
            step, (zH_BSD, zL_BSD) = ctx.steps.pop(), ctx.before.pop()
            arriving = toL_BSD if step.low else toH_BSD
            if arriving is not None:
                inputs = [z.detach().requires_grad_() for z in (zH_BSD, zL_BSD, ctx.x)]
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    after_BSD = step.state(*inputs)
                to_zH, to_zL, more_x, *more = torch.autograd.grad(
                    after_BSD, [*inputs, *ctx.weights], arriving, allow_unused=True
                )
                for number, one in enumerate(more):
                    if one is not None:
                        before = found[number]
                        found[number] = one if before is None else before.add_(one)
                to_x = _sum(to_x, more_x)
                toH_BSD = _sum(toH_BSD, to_zH) if step.low else to_zH
                toL_BSD = to_zL if step.low else _sum(toL_BSD, to_zL)
            if step.anew:
                toL_BSD = None if step.model.reset_l else toL_BSD
        return None, to_x, toH_BSD, toL_BSD, *found.values()


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
