from dataclasses import replace

import pytest

from hrm_runtime import Contract
from hrm_runtime.artifact.unknown import told_unknown, unknown_names


@pytest.mark.parametrize(
    ("instrument", "timeframe", "unknown"),
    [
        ("Alpha", "5", ()),
        ("Alpha", "5m", ()),
        ("ALPHA", "5", ("instrument",)),
        ("unknown", "15", ("instrument",)),
        ("Beta", "60", ("timeframe",)),
        ("Gamma", "1h", ("instrument", "timeframe")),
    ],
)
def test_names_that_the_artifact_was_not_trained_on_are_unknown(
    contract: Contract, instrument: str, timeframe: str, unknown: tuple[str, ...]
) -> None:
    assert unknown_names(contract, instrument, timeframe) == unknown


def test_what_is_told_of_them_has_the_closest_that_there_are(contract: Contract) -> None:
    known = contract.instruments
    contract = replace(contract, instruments=known | {"Bank_Nifty": replace(known["Beta"], id=3)})
    assert told_unknown(contract, "BANKNIFTY", "5") == (
        "instrument 'BANKNIFTY' is unknown to the artifact, which decides for it as for any other: "
        "the closest is Bank_Nifty, which is spelt otherwise"
    )
    assert told_unknown(contract, "Gamma", "60") == (
        "instrument 'Gamma' is unknown to the artifact, which decides for it as for any other: "
        "known are Alpha, Bank_Nifty, Beta; timeframe '60' is unknown to the artifact, which "
        "decides for it as for any other: known are 15, 5"
    )


def test_nothing_is_told_of_names_that_are_known(contract: Contract) -> None:
    assert told_unknown(contract, "Alpha", "5min") == ""
