"""Golden vectors: inputs with the outputs torch computed from them, replayed on every load.

They catch a processor, a library or a file that computes something else than was trained.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.account import Account
from hrm_runtime.actions import Action
from hrm_runtime.bars import Bars
from hrm_runtime.contract import GOLDEN, INPUTS, LEAST_WINDOWS, name_of
from hrm_runtime.decision import Decision
from hrm_runtime.errors import ArtifactDamaged, BadInput, InferenceFailed, SelfTestFailed
from hrm_runtime.model import Model, Outputs, decisions

WITH_BARS: Final = 4
"""How many of the windows are also stored as bars and replayed through `Model.decide`."""

_STORED: Final[dict[str, tuple[str, tuple[int | None, ...]]]] = {
    "features": ("f", (None, None, None)),
    "account": ("f", (None, None)),
    "instrument": ("i", (None,)),
    "timeframe": ("i", (None,)),
    "raw_account": ("f", (None, 6)),
    "actions": ("i", (None,)),
    "segments": ("i", (None,)),
    "quantities": ("f", (None,)),
    "bars": ("f", (None, 5, None)),
}
"""The kind and shape of each array beside the passes; None is any size."""


@dataclass(frozen=True, eq=False)
class Golden:
    """G windows and what torch made of them.

    Attributes:
        features: float32 [G, W, F].
        account: float32 [G, A].
        instrument, timeframe: int64 [G].
        raw_account: float64 [G, 6], the fields of `Account`.
        passes: the graph's outputs per segment, each [G, ...].
        actions, segments: int64 [G], of the decision.
        quantities: float64 [G], lots of the decision.
        bars: float64 [WITH_BARS, 5, bars_needed], datetime and prices behind the first windows.
    """

    features: npt.NDArray[np.float32]
    account: npt.NDArray[np.float32]
    instrument: npt.NDArray[np.int64]
    timeframe: npt.NDArray[np.int64]
    raw_account: npt.NDArray[np.float64]
    passes: tuple[Outputs, ...]
    actions: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    quantities: npt.NDArray[np.float64]
    bars: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.features)

    def inputs(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """What the graph gets for the first `count` windows, by name."""
        return {name: getattr(self, name)[:count] for name in INPUTS}

    def accounts(self) -> list[Account]:
        """The G accounts."""
        return [Account(*values) for values in self.raw_account.tolist()]

    def to_bytes(self) -> bytes:
        """The content of `golden.npz`: the same vectors give the same bytes."""
        arrays = {name: value for name, value in vars(self).items() if name != "passes"}
        for number, outputs in enumerate(self.passes):
            arrays |= {f"pass{number}/{name}": value for name, value in outputs.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """The vectors stored in `golden.npz`.

        Raises:
            ArtifactDamaged: not such a file, an array is missing or unknown, or lengths disagree.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays: dict[str, Any] = dict(file)
        except (TypeError, ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ArtifactDamaged(f"{GOLDEN}: expected golden vectors: {error}") from error
        passes: list[Outputs] = []
        while own := [name for name in arrays if name.startswith(f"pass{len(passes)}/")]:
            passes.append({name.partition("/")[2]: arrays.pop(name) for name in own})
        if not passes or arrays.keys() != _STORED.keys():
            raise ArtifactDamaged(
                f"{GOLDEN}: expected the arrays {', '.join(sorted(_STORED))} and passes; "
                f"found {', '.join(sorted(arrays))}"
            )
        golden = cls(passes=tuple(passes), **arrays)
        for name, (kind, shape) in _STORED.items():
            found = arrays[name]
            sizes = zip(found.shape, shape, strict=False)
            if (
                found.dtype.kind != kind
                or found.ndim != len(shape)
                or any(expected not in (None, size) for size, expected in sizes)
            ):
                raise ArtifactDamaged(
                    f"{GOLDEN}: {name}: expected {kind} of shape {shape}, "
                    f"found {found.dtype} of shape {found.shape}"
                )
        lengths = {value.shape[:1] for name, value in arrays.items() if name != "bars"}
        lengths |= {value.shape[:1] for outputs in passes for value in outputs.values()}
        if len(lengths) != 1:
            raise ArtifactDamaged(f"{GOLDEN}: expected arrays of one length, found {lengths}")
        return golden


def replay(golden: Golden, model: Model) -> None:
    """Run the golden vectors through `model` and hold it to what torch computed.

    Raises:
        SelfTestFailed: too few vectors, a decision that differs, or an output beyond the
            contract's tolerance; the message names the window, the output and by how much.
    """
    if len(golden) < LEAST_WINDOWS or len(golden.bars) < WITH_BARS:
        raise SelfTestFailed(
            f"{GOLDEN}: expected at least {LEAST_WINDOWS} windows, {WITH_BARS} of them with bars; "
            f"found {len(golden)} and {len(golden.bars)}"
        )
    tolerances = model.contract.tolerances
    try:
        passes = model.run_segments(*golden.inputs(len(golden)).values())
        if len(passes) != len(golden.passes):
            raise SelfTestFailed(
                f"{GOLDEN}: expected {len(golden.passes)} segments, found {len(passes)}"
            )
        for number, (found, expected) in enumerate(zip(passes, golden.passes, strict=True)):
            for name, output in found.items():
                _compare(f"segment {number}, {name}", output, expected[name], tolerances[name])
        made = decisions(passes, golden.accounts(), model.id)
        for window, decision in enumerate(made):
            _compare_decision(golden, window, decision, tolerances["quantity"])
        for window in range(WITH_BARS):
            decision = _decide(golden, window, model)
            _compare_decision(golden, window, decision, tolerances["quantity"])
            for name in ("probabilities", "q_values", "value"):
                _compare(
                    f"window {window} from its bars, {name}",
                    np.array(getattr(decision, name)),
                    np.array(getattr(made[window], name)),
                    tolerances["action_type" if name == "probabilities" else name],
                )
    except (BadInput, InferenceFailed, KeyError) as error:
        raise SelfTestFailed(f"{GOLDEN}: does not fit the contract: {error}") from error


def deviation(found: npt.NDArray[Any], reference: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """|found - reference| / max(1, |reference|), elementwise: absolute below 1, relative above."""
    expected = reference.astype(np.float64)
    error: npt.NDArray[np.float64] = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    return error


def lots_agree(action: Action, expected: float, found: float, tolerance: float) -> bool:
    """Whether rounding explains two quantities of one action.

    An opening is rounded down to whole lots, so it may differ by one, or by its output's relative
    tolerance where that is more. Other quantities do not come from the network.
    """
    opening = action in (Action.BUY_LONG, Action.SELL_SHORT)
    return abs(found - expected) <= (max(1.0, tolerance * expected) if opening else 0.0)


def _decide(golden: Golden, window: int, model: Model) -> Decision:
    stamps, *prices = golden.bars[window]
    contract = model.contract
    return model.decide(
        Bars(stamps, *prices),
        golden.accounts()[window],
        instrument=name_of(contract.instruments, int(golden.instrument[window])),
        timeframe=name_of(contract.timeframes, int(golden.timeframe[window])),
    )


def _compare(
    what: str, found: npt.NDArray[Any], reference: npt.NDArray[Any], tolerance: float
) -> None:
    if found.shape != reference.shape:
        raise SelfTestFailed(f"{GOLDEN}: {what}: expected {reference.shape}, found {found.shape}")
    error = deviation(found, reference)
    if not (error <= tolerance).all():  # a NaN fails too
        where = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
        place = "[" + ", ".join(map(str, where)) + "]" if where else ""
        raise SelfTestFailed(
            f"{GOLDEN}: {what}{place}: expected {reference[where]:.9g} within {tolerance:g}, "
            f"found {found[where]:.9g}; this machine does not compute what was trained"
        )


def _compare_decision(golden: Golden, window: int, decision: Decision, tolerance: float) -> None:
    """Action and segments must be equal, and the lots as `lots_agree` says."""
    expected = (int(golden.actions[window]), int(golden.segments[window]))
    lots = float(golden.quantities[window])
    if decision.degraded or expected != (int(decision.action), decision.segments):
        raise SelfTestFailed(
            f"{GOLDEN}: window {window}: expected action {expected[0]} in segment {expected[1]}, "
            f"found {int(decision.action)} in {decision.segments} ({decision.reason})"
        )
    if not lots_agree(decision.action, lots, decision.quantity, tolerance):
        raise SelfTestFailed(
            f"{GOLDEN}: window {window}: expected {lots:g} lots, found {decision.quantity:g}"
        )
