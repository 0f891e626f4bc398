"""Progress keeps its words and numbers in any terminal."""

import re

import pytest
from terminal import Drawn

from hrm_cli.show.progress import advancing, stages


@pytest.mark.parametrize("width", [60, 80])
def test_other_progress_keeps_its_words_and_numbers(width: int, drawn: Drawn) -> None:
    def tell() -> None:
        with stages() as on_progress:
            on_progress("making plain torch.onnx.export, opset 23", 10, 12)

    def judge() -> None:
        with advancing("judging") as on_progress:
            on_progress(1_000_000, 2_000_000)

    assert re.fullmatch(r"judging [━╸╺]{20,} +1000000/2000000 -:--:--", drawn(width, judge)[-1])
    assert re.fullmatch(
        r"making plain torch.onnx.export, opset 23 [━╸╺]{10,} +10/12", drawn(width, tell)[-1]
    )
