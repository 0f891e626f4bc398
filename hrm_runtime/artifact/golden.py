"""Golden vectors: inputs with the outputs torch computed from them, replayed on every load.

They catch a processor, a library or a file that computes something else than was trained.
"""

import io
import math
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.contract import GOLDEN, INPUTS, LEAST_WINDOWS, NEAR, OUTPUTS
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.segments import Outputs, decisions, segments_of
from hrm_runtime.errors import ArtifactDamaged, InferenceFailed, SelfTestFailed
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import OPENINGS, Action
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import rows
from hrm_runtime.market.instruments import name_of

WITH_BARS: Final = 4
"""How many of the windows are also stored as bars and replayed from these, as a host decides."""

MOST_DIRECTORY: Final = 2**18
"""Bytes of the zip's directory: thousands of arrays, where a segment has eight. Listing takes
twenty times the memory of what is listed."""

_END: Final = struct.Struct("<4s4H2LH")
"""The last record of a zip: its magic, four counts, size and place of the directory, a comment."""

_LOCATOR: Final = struct.Struct("<4s16x")
"""Stands before that record where another one, of 64 bits, is to be used instead."""

_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..)"
    rb"\{'descr': '(<[fi][48])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12},|\d{1,12}(?:, \d{1,12}){1,5})?)\), \} *\n"
)
"""Of an array as numpy writes it; numpy's own reader evaluates whatever stands there."""

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


_LEAST_SLOPE: Final = 0.01
"""Of a sigmoid, where what float32 still tells apart next to 1 would count for much."""


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
            arrays = _read_arrays(content)
        except _UNREADABLE as error:
            raise ArtifactDamaged(
                f"{GOLDEN}: expected golden vectors: {error}; export it again"
            ) from error
        passes: list[Outputs] = []
        while own := [name for name in arrays if name.startswith(f"pass{len(passes)}/")]:
            passes.append({name.partition("/")[2]: arrays.pop(name) for name in own})
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


_UNREADABLE: Final = (
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    RuntimeError,  # encrypted, or NotImplementedError
    struct.error,
    zipfile.BadZipFile,
)
"""What `zipfile` raises where it is given anything but a zip that it knows."""


def _read_arrays(content: bytes) -> dict[str, Any]:
    """The arrays by name. No more memory is taken than `content` has bytes, whatever it claims."""
    _require_directory(content)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = file.infolist()
        _require_names([member.filename for member in members])
        if packed := [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"expected arrays as they are, found {packed[0]} compressed")
        claimed = sum(member.file_size for member in members)
        if claimed > len(content):
            raise ValueError(
                f"expected arrays within the file's {len(content)} bytes, found {claimed} claimed"
            )
        return {m.filename.removesuffix(".npy"): _array(m.filename, file.read(m)) for m in members}


def _require_directory(content: bytes) -> None:
    """Bound what listing takes, before it is listed."""
    before = content[-_END.size - _LOCATOR.size : -_END.size]
    magic, *_, size, _, comment = _END.unpack(content[-_END.size :])
    if magic != b"PK\5\6" or comment or before.startswith(b"PK\6\7"):
        raise ValueError("expected a zip with its directory at the end, found none; cut off?")
    if size > MOST_DIRECTORY:
        raise ValueError(f"expected a directory of at most {MOST_DIRECTORY} bytes, found {size}")


def _require_names(found: list[str]) -> None:
    """Each known array once, and all outputs of as many passes as there are, at least one."""
    passes = {name.partition("/")[0] for name in found if re.match("pass[0-9]{1,5}/", name)}
    expected = [f"{name}.npy" for name in _STORED]
    for number in range(max(1, len(passes))):
        expected += [f"pass{number}/{output}.npy" for output in OUTPUTS]
    missing, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if missing or more:
        raise ValueError(
            "expected each array once and every output of each pass; "
            f"missing {_listed(missing)}; unknown or repeated {_listed(more)}"
        )


def _listed(names: Counter[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in sorted(names)[:8]) or "none"
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def _array(name: str, stored: bytes) -> npt.NDArray[Any]:
    """An array from the bytes of a `.npy`, which must hold as many as its header says."""
    header = _HEADER.match(stored)
    if header is None or header.end() != 10 + int.from_bytes(stored[8:10], "little"):
        raise ValueError(f"{name}: expected a header that numpy writes, of plain numbers")
    kind, order, sizes = (group.decode() for group in header.groups())
    shape = tuple(int(size) for size in sizes.split(",") if size)
    dtype = np.dtype(kind)
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(stored) - header.end():
        raise ValueError(
            f"{name}: expected {needed} bytes for its shape {shape}, "
            f"found {len(stored) - header.end()}"
        )
    array: npt.NDArray[Any] = np.ndarray(
        shape, dtype, stored, header.end(), order="F" if order == "True" else "C"
    )
    return array.copy("K")


def replay(golden: Golden, model: Model) -> None:
    """Run the golden vectors through `model` and hold it to what torch computed.

    Outputs are held to the contract's tolerances, and decisions must be equal. Where a stored
    window is a tie that rounding may turn, within `NEAR` by its `margins`, its outputs alone are.

    Raises:
        SelfTestFailed: too few vectors, a decision that differs, or an output beyond the
            contract's tolerance; the message names the window, the output and by how much.
    """
    if len(golden) < LEAST_WINDOWS or len(golden.bars) < WITH_BARS:
        raise SelfTestFailed(
            f"{GOLDEN}: expected at least {LEAST_WINDOWS} windows, {WITH_BARS} of them with bars; "
            f"found {len(golden)} and {len(golden.bars)}"
        )
    if len(golden.passes) != golden.segments.max():
        raise SelfTestFailed(
            f"{GOLDEN}: expected the passes of {golden.segments.max()} segments, found those of "
            f"{len(golden.passes)}"
        )
    tolerances = model.contract.tolerances
    near, most = NEAR[model.contract.graph.precision], model.contract.max_segments
    try:
        passes = model.run_segments(*golden.inputs(len(golden)).values())
        # where a tie turns, there may be fewer of them, or more
        for number, (found, expected) in enumerate(zip(passes, golden.passes, strict=False)):
            for name, output in found.items():
                _compare(f"segment {number}, {name}", output, expected[name], tolerances[name])
        accounts = golden.accounts()
        tied = ~(np.minimum(*margins(golden.passes, accounts, most)) > near)  # NaN too
        made = decisions(passes, accounts, model.id)
        for window, decision in enumerate(made):
            _compare_decision(golden, window, decision, tolerances["quantity"], tied[window])
        for window in range(WITH_BARS):
            decision = _decide(golden, window, model)
            _compare_decision(golden, window, decision, tolerances["quantity"], tied[window])
            for name in ("probabilities", "q_values", "value"):
                _compare(
                    f"window {window} from its bars, {name}",
                    np.array(getattr(decision, name)),
                    np.array(getattr(made[window], name)),
                    tolerances["action_type" if name == "probabilities" else name],
                )
    except (ValueError, LookupError, ArithmeticError, InferenceFailed) as error:
        raise SelfTestFailed(f"{GOLDEN}: does not fit the contract: {error}") from error


def deviation(found: npt.NDArray[Any], reference: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """|found - reference| / max(1, |reference|), elementwise: absolute below 1, relative above."""
    expected = reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite has no deviation: NaN
        error: npt.NDArray[np.float64] = np.abs(found - expected)
        error /= np.maximum(1.0, np.abs(expected))
    return error


def margins(
    passes: Sequence[Outputs], accounts: Sequence[Account], max_segments: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far each row's action, and its number of segments, are from being another, both [B].

    The second is the smallest |q_halt - q_continue| of the passes that the row runs, over the slope
    of the sigmoid that they come from, which is 1 where both are a half: towards 0 and 1 rounding
    moves them less. The last possible pass ends a row whatever it says. Infinite where there is no
    other, and where the two are one in every window: a halting head that was never trained goes on
    everywhere.
    """
    gaps = np.array([top_two_gap(made) for made in decisions(passes, accounts, "")])
    q_values = np.stack([p["q_values"].astype(np.float64) for p in passes])
    slope = (4.0 * q_values * (1.0 - q_values)).max(axis=-1).clip(min=_LEAST_SLOPE)
    asked = np.abs(np.diff(q_values)[:, :, 0]) / slope
    number = np.arange(1, len(passes) + 1)[:, None]
    decided_elsewhere = (number > segments_of(passes)) | (number >= max_segments)
    asked[decided_elsewhere | (asked == 0).all()] = np.inf
    return gaps, asked.min(axis=0)


def top_two_gap(decision: Decision) -> float:
    """The difference of a decision's two largest probabilities; illegal actions have 0."""
    first, second, *_ = sorted(decision.probabilities, reverse=True)
    return first - second


def lots_agree(action: Action, expected: float, found: float, tolerance: float) -> bool:
    """Whether rounding explains two quantities of one action.

    An opening is rounded down to whole lots, so it may differ by one, or by its output's relative
    tolerance where that is more. Other quantities do not come from the network.
    """
    opening = action in OPENINGS
    return abs(found - expected) <= (max(1.0, tolerance * expected) if opening else 0.0)


def _decide(golden: Golden, window: int, model: Model) -> Decision:
    stamps, *prices = golden.bars[window]
    contract = model.contract
    return model.decide_rows(
        rows(Bars(stamps, *prices), contract.features.history_bars),
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


def _compare_decision(
    golden: Golden, window: int, decision: Decision, tolerance: float, tied: bool
) -> None:
    """Action and segments must be equal unless `tied`, and the lots as `lots_agree` says."""
    expected = (int(golden.actions[window]), int(golden.segments[window]))
    lots = float(golden.quantities[window])
    same = expected == (int(decision.action), decision.segments)
    if decision.degraded or not (same or tied):
        raise SelfTestFailed(
            f"{GOLDEN}: window {window}: expected action {expected[0]} in segment {expected[1]}, "
            f"found {int(decision.action)} in {decision.segments} ({decision.reason})"
        )
    if same and not lots_agree(decision.action, lots, decision.quantity, tolerance):
        raise SelfTestFailed(
            f"{GOLDEN}: window {window}: expected {lots:g} lots, found {decision.quantity:g}"
        )
