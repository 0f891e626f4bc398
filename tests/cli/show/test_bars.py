"""What was read of bars is shown whole."""

from dataclasses import replace

import pytest
from terminal import Table

from hrm_cli.show.bars import price, series
from hrm_train.data.prepared import Series


@pytest.mark.parametrize("width", [60, 80])
def test_the_data_of_a_training_is_shown_whole(width: int, whole: Table) -> None:
    long = Series(
        instrument="Bank_Nifty_Futures",
        timeframe="15",
        bars=1_234_567,
        duplicates=1000,
        disordered=1000,
        samples=0,
        skipped="50 bars, 212 needed",
    )
    lines = whole(width, series, [replace(long, samples=123_456, skipped=None), long])
    assert lines[0] == ["series", "bars", "duplicates", "out of order", "samples"]
    table = list(zip(*lines[1:], strict=True))
    assert "".join(table[0]) == "Bank_Nifty_Futures_15" * 2
    assert [cell for cell in table[1] if cell] == ["1,234,567", "1,234,567"]
    assert [cell for cell in table[2] if cell] == ["1000", "1000"]
    assert " ".join(table[4]).split() == ["123,456", "skipped:", "50", "bars,", "212", "needed"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1_234.5, "1,234.50"), (56.14, "56.14"), (1.23456, "1.235"), (0.99996, "1.0000"),
        (1.2345e-5, "0.00001234"), (1e-12, "0.000000000001000"), (1e12, "1,000,000,000,000.00"),
    ],
)  # fmt: skip
def test_a_price_is_shown_to_four_digits_however_small(value: float, shown: str) -> None:
    assert price(value) == shown
