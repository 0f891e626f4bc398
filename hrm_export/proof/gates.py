"""The one table of what two ways to compute the same decisions may differ by, and why.

A tolerance bounds |a - b| / max(1, |reference|), the largest over all windows and entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hrm_runtime.artifact.contract import LARGEST_ALLOWANCE, NEAR, OUTPUTS, Precision

FLOAT_TOLERANCES: Final[Mapping[str, float]] = {
    # Float32 sums in another order differ by some 1e-7 of states of RMS 1; each of N x T steps
    # passes that on, and a further segment again. Measured: 1.5e-5 for the trained tiny preset,
    # 7.6e-4 for the base preset with random weights, two segments, where nothing has learned to
    # contract. Twice the latter:
    "z_H_out": 1.5e-3,
    "z_L_out": 1.5e-3,
    "action_type": 1e-3,  # one product with a state whose errors are independent
    "value": 1e-3,  # as above
    "q_values": 3e-4,  # a sigmoid of such a product: its slope is at most 1/4
    "quantity": 2e-3,  # exp of 11.5 sigmoids of one: relative error is multiplied by up to 3
    # The root mean square of a change: it moves by no more than the errors of two states do in root
    # mean square, which is far below their largest. Measured: 1.4e-4 for base at 3 x 50.
    "l_residual": 5e-4,
    "h_residual": 5e-4,
}

INT8_TOLERANCES: Final[Mapping[str, float]] = {
    # Where float32 rounding moves an input of a product over the middle between two levels, it
    # moves by a whole level, and the steps after pass that on: half of the windows of a trained
    # tiny preset are free of that and differ by 4e-7, a few end far away, one in 10,000 in another
    # state. Measured is what 99.9 % of windows stay within; more is allowed, since a larger network
    # has more to round, and a share of windows may be beyond:
    "z_H_out": 0.5,  # measured 0.36 in one entry of a state of RMS 1
    "z_L_out": 0.5,  # measured 0.16
    "action_type": 0.25,  # measured 0.05
    "value": 0.1,  # measured 0.015
    "q_values": 0.05,  # measured 0.007
    "quantity": 0.25,  # measured 0.06
    "l_residual": 0.1,  # measured 0.02
    "h_residual": 0.1,  # measured 0.04
}

GAPS: Final = (0.0, 1e-4, 0.01, 0.05, 0.2)
"""Where bands of the reference's top-two gap begin, in which agreement is counted."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a comparison is held to.

    Attributes:
        tolerances: by output; None where outputs are listed only.
        near_tie: an action may differ where the reference's two largest probabilities are closer.
        near_halt: the number of segments may, with all that follows, where the reference's halting
            values of the pass at which they part are closer.
        whole: whether segments and lots must agree too, not actions alone.
        allowance: share of windows that may decide otherwise, or be beyond a tolerance, for no
            reason above.
    """

    tolerances: Mapping[str, float] | None
    near_tie: float
    near_halt: float
    whole: bool
    allowance: float


FLOAT: Final = Gate(
    tolerances=FLOAT_TOLERANCES,
    near_tie=NEAR["fp32"],
    near_halt=NEAR["fp32"],
    whole=True,
    allowance=0.0,
)
"""The same arithmetic on both sides, added up in another order."""

INT8: Final = Gate(
    tolerances=INT8_TOLERANCES,
    near_tie=0.0,
    near_halt=NEAR["int8"],
    whole=True,
    allowance=LARGEST_ALLOWANCE,
)
"""Integers on both sides, of inputs that float32 rounds otherwise."""

QUANTISED: Final = Gate(
    tolerances=None, near_tie=0.2, near_halt=NEAR["int8"], whole=False, allowance=0.0
)
"""Integers against float32 of the same weights: what quantisation does, not whether it is right."""

OF_PRECISION: Final[Mapping[Precision, Gate]] = {"fp32": FLOAT, "fp16": FLOAT, "int8": INT8}
"""The gate of an artifact against torch of the same arithmetic."""

assert FLOAT_TOLERANCES.keys() == INT8_TOLERANCES.keys() == set(OUTPUTS)
