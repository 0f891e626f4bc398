"""What a decision is about, as tokens: tables and standardised values."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from batch import Batch
from exactly import assert_equal

from hrm_train import HierarchicalReasoningModel
from hrm_train.network.embedding import (
    INITIALIZATIONS,
    InstrumentEmbedding,
    Standardise,
    TimeframeEmbedding,
    VocabularyEmbedding,
)
from hrm_train.network.layers import truncated_normal_
from hrm_train.settings import Embeddings, Settings

MakeSettings = Callable[..., Settings]


def test_a_standardised_value_is_clipped() -> None:
    standardise = Standardise(3, clip=5.0)
    standardise.mean.copy_(torch.tensor([1.0, 0.0, -2.0]))
    standardise.std.copy_(torch.tensor([2.0, 0.5, 1.0]))
    found = standardise(torch.tensor([[2.0, 1.0, -2.0], [12.0, -3.0, 1e30], [11.0, 2.5, -7.0]]))
    assert_equal(found, torch.tensor([[0.5, 2.0, 0.0], [5.0, -5.0, 5.0], [5.0, 5.0, -5.0]]))


@pytest.mark.parametrize(
    ("initialization", "deviation"),
    [("truncated_normal", 1.0), ("xavier", math.sqrt(2 / 1064)), ("he", math.sqrt(2 / 64))],
)
def test_tables_start_at_the_deviation_of_their_initialization(
    initialization: str, deviation: float
) -> None:
    torch.manual_seed(0)
    table = VocabularyEmbedding(999, 64, initialization).weight
    assert table.shape == (1000, 64)
    assert table.mean().item() == pytest.approx(0, abs=0.02 * deviation)
    assert table.std().item() == pytest.approx(deviation, rel=0.02)


def test_every_initialization_of_the_settings_is_drawn_in_both_tables_and_the_first_by_default(
    make_settings: MakeSettings,
) -> None:
    offered = get_args(Embeddings.model_fields["initialization"].annotation)
    assert offered == tuple(INITIALIZATIONS)
    tables = {}
    for name in offered:
        config = make_settings({"network.embeddings.initialization": name}).network.embeddings
        torch.manual_seed(0)
        tables[name] = InstrumentEmbedding(config).weight, TimeframeEmbedding(config).weight
    torch.manual_seed(0)
    default = make_settings().network.embeddings
    assert_equal(
        (InstrumentEmbedding(default).weight, TimeframeEmbedding(default).weight),
        tables["truncated_normal"],
    )
    torch.manual_seed(0)
    drawn = truncated_normal_(torch.empty(9, 8), 1.0), truncated_normal_(torch.empty(5, 4), 1.0)
    assert_equal(tables["truncated_normal"], drawn)
    torch.manual_seed(0)
    normal = torch.empty(9, 8).normal_(), torch.empty(5, 4).normal_()
    for name, widths in (("xavier", (9 + 8, 5 + 4)), ("he", (8, 4))):
        expected = tuple(t * math.sqrt(2 / w) for t, w in zip(normal, widths, strict=True))
        torch.testing.assert_close(tables[name], expected)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_under_every_initialization_the_rows_that_were_read_and_only_they_have_a_gradient(
    initialization: str, make_settings: MakeSettings, batch: Batch
) -> None:
    torch.manual_seed(0)
    model = HierarchicalReasoningModel(
        make_settings({"network.embeddings.initialization": initialization})
    )
    outputs, _ = model(*batch.inputs)
    assert all(tensor.isfinite().all() for tensor in outputs.values())
    outputs["value"].sum().backward()
    for table, read in (
        (model.input_network.instrument_embedding, batch.instrument),
        (model.input_network.timeframe_embedding, batch.timeframe),
    ):
        assert table.weight.grad is not None
        moved = table.weight.grad.ne(0).any(dim=1)
        assert moved.nonzero().flatten().tolist() == read.unique().tolist()
