"""Names that an artifact was not trained on, and decides for as for any others."""

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.market.instruments import UNKNOWN
from hrm_runtime.market.names import nearest_or_some


def unknown_names(contract: Contract, instrument: str, timeframe: str) -> tuple[str, ...]:
    """Which of the two names an artifact was not trained on: "instrument", "timeframe"."""
    known = contract.instruments.get(instrument)
    found = {
        "instrument": known is None or known.id == 0,
        "timeframe": contract.timeframe(timeframe) not in contract.timeframes,
    }
    return tuple(kind for kind, missing in found.items() if missing)


def told_unknown(contract: Contract, instrument: str, timeframe: str) -> str:
    """What to tell of those names, with the closest that there are; nothing where all are known."""
    names = {
        "instrument": (instrument, contract.instruments.keys() - {UNKNOWN}),
        "timeframe": (timeframe, contract.timeframes.keys()),
    }
    return "; ".join(
        f"{kind} {name!r} is unknown to the artifact, which decides for it as for any other: "
        f"{nearest_or_some(name, known)}"
        for kind in unknown_names(contract, instrument, timeframe)
        for name, known in [names[kind]]
    )
