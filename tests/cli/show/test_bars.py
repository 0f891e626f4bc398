"""What was read of bars is shown whole."""

from dataclasses import replace

import pytest
from terminal import Table

from hrm_cli.show.bars import series
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
