"""More names: what was known is untouched to the last bit, what is new decides as unknown."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from folders import content
from torch import Tensor

from hrm_train import HierarchicalReasoningModel, extend_vocabulary, load_checkpoint
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.errors import CheckpointInvalid, DataInvalid, SettingsInvalid
from hrm_train.learning.extension import extended
from hrm_train.settings import Settings, parse_settings

MakeSettings = Callable[..., Settings]
Batch = Any

INSTRUMENTS = "input_network.instrument_embedding.weight"
TIMEFRAMES = "input_network.timeframe_embedding.weight"
KNOWN = [("Nifty", "15"), ("Nifty", "5"), ("Reliance", "5")]
NEW = [("Tcs", "5"), ("Adani", "D"), ("Nifty", "60")]

LARGER = {"network.embeddings.max_instruments": 20, "network.embeddings.max_timeframes": 9}


@pytest.fixture
def vocabulary(settings: Settings) -> Vocabulary:
    return Vocabulary.of(settings, KNOWN)


def answers(
    model: HierarchicalReasoningModel, batch: Batch, instrument: int, timeframe: int
) -> object:
    """Outputs and states for the batch's windows under one instrument and timeframe."""
    ids = (torch.full((9,), instrument), torch.full((9,), timeframe))
    return model(batch.features, batch.account, *ids)


@pytest.mark.parametrize("changes", [{}, LARGER], ids=["spare rows", "larger tables"])
def test_known_names_answer_as_before_and_new_ones_as_unknown(
    changes: dict[str, Any],
    model: HierarchicalReasoningModel,
    vocabulary: Vocabulary,
    make_settings: MakeSettings,
    batch: Batch,
) -> None:
    larger, names = extended(model, vocabulary, make_settings(changes), NEW)
    for instrument in range(3):
        for timeframe in range(3):
            before = answers(model, batch, instrument, timeframe)
            assert_equal(answers(larger, batch, instrument, timeframe), before)
    unknown = answers(larger, batch, 0, 0)
    for instrument in ("Adani", "Tcs"):
        for timeframe in ("60", "D"):
            ids = names.instruments[instrument].id, names.timeframes[timeframe].id
            assert_equal(answers(larger, batch, *ids), unknown)
    other = model(batch.features, batch.account, torch.full((9,), 3), torch.full((9,), 3))
    assert not torch.equal(other[0]["value"], unknown[0]["value"])  # rows that were drawn


def test_new_names_have_the_next_ids_and_the_facts_of_the_settings(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, make_settings: MakeSettings
) -> None:
    later = make_settings({"instruments.Tcs": {"lot_size": 7}})
    _, names = extended(model, vocabulary, later, NEW)
    assert names == vocabulary.extended(later, NEW)
    assert [(n, f.id, f.lot_size) for n, f in names.instruments.items()] == [
        ("unknown", 0, 1), ("Nifty", 1, 75), ("Reliance", 2, 1), ("Adani", 3, 1), ("Tcs", 4, 7),
    ]  # fmt: skip
    assert [(n, f.id) for n, f in names.timeframes.items()] == [
        ("15", 1), ("5", 2), ("60", 3), ("D", 4),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("changes", [{}, LARGER], ids=["spare rows", "larger tables"])
def test_every_tensor_but_the_new_rows_is_bit_equal(
    changes: dict[str, Any],
    mode: bool,
    model: HierarchicalReasoningModel,
    vocabulary: Vocabulary,
    make_settings: MakeSettings,
) -> None:
    model.train(mode)
    wanted = make_settings({"training.epochs": 9, **changes})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    larger, _ = extended(model, vocabulary, wanted, NEW)

    assert_equal(dict(model.state_dict()), before)  # the model itself stays
    after = dict(larger.state_dict())
    limits = wanted.network.embeddings
    for table, old_rows, rows in (
        (INSTRUMENTS, 9, 1 + limits.max_instruments),
        (TIMEFRAMES, 5, 1 + limits.max_timeframes),
    ):
        old, new = before.pop(table), after.pop(table)
        expected = torch.cat((old, old[:1].repeat(rows - old_rows, 1)))
        expected[3:5] = old[0]
        assert_equal(new, expected)
    assert_equal(after, before)
    assert larger.settings == wanted
    assert larger.training is mode


def test_tables_grow_without_a_new_name(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, make_settings: MakeSettings
) -> None:
    larger, names = extended(model, vocabulary, make_settings(LARGER), KNOWN)
    assert names == vocabulary
    for table, old_rows in ((INSTRUMENTS, 9), (TIMEFRAMES, 5)):
        old, new = model.get_parameter(table), larger.get_parameter(table)
        assert_equal(new[:old_rows], old.data)
        assert_equal(new[old_rows:], old[:1].repeat(len(new) - old_rows, 1))


def test_in_steps_or_at_once_new_names_answer_the_same(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, settings: Settings
) -> None:
    steps, names = extended(*extended(model, vocabulary, settings, NEW[:1]), settings, NEW[1:])
    once, others = extended(model, vocabulary, settings, NEW)
    assert {*names.instruments} == {*others.instruments}
    assert names.instruments["Tcs"].id == 3  # an earlier addition keeps its id
    assert_equal(dict(steps.state_dict()), dict(once.state_dict()))


def test_extending_draws_nothing_from_the_caller_s_generator(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, settings: Settings
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    extended(model, vocabulary, settings, NEW)
    assert_equal(torch.rand(4), expected)


def test_only_the_row_of_a_new_name_moves_when_it_is_trained(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, settings: Settings, batch: Batch
) -> None:
    larger, names = extended(model, vocabulary, settings, NEW)
    table: Tensor = larger.get_parameter(INSTRUMENTS)
    tcs = names.instruments["Tcs"].id
    larger(batch.features, batch.account, torch.full((9,), tcs), batch.timeframe)[0][
        "value"
    ].sum().backward()
    assert table.grad is not None
    assert table.grad.ne(0).any(dim=1).nonzero().flatten().tolist() == [tcs]


# what is refused


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        (
            {"network.l_module.ffn_dim": 20},
            ["l_module.ffn_dim: expected 16, as trained, found 20"],
        ),
        (
            {"network.embeddings.instrument_dim": 16},
            ["embeddings.instrument_dim: expected 8, as trained, found 16"],
        ),
        (
            {"network.hierarchical.N_cycles": 3, "network.input.clip": 4.0},
            [
                "hierarchical.N_cycles: expected 2, as trained, found 3",
                "input.clip: expected 5.0, as trained, found 4.0",
            ],
        ),
        (
            {"network.embeddings.max_instruments": 7},
            ["embeddings.max_instruments: expected at least 8, as many as the table has, found 7"],
        ),
        (
            {"network.embeddings.max_timeframes": 2, "network.embeddings.timeframe_dim": 2},
            [
                "embeddings.max_timeframes: expected at least 4, as many as the table has, found 2",
                "embeddings.timeframe_dim: expected 4, as trained, found 2",
            ],
        ),
    ],
)
def test_settings_of_another_network_are_refused_by_name(
    changes: dict[str, Any],
    problems: list[str],
    model: HierarchicalReasoningModel,
    vocabulary: Vocabulary,
    make_settings: MakeSettings,
) -> None:
    message = "\n".join(f"hierarchical_reasoning_model.{problem}" for problem in problems)
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(message)}$"):
        extended(model, vocabulary, make_settings(changes), NEW)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([(f"N{i}", "5") for i in range(7)], "max_instruments: expected at least 9, was 8"),
        ([("Nifty", str(i)) for i in (1, 2, 3)], "max_timeframes: expected at least 5, was 4"),
        ([("unknown", "5")], "expected series by name"),
    ],
)
def test_names_that_have_no_row_are_refused(
    names: list[tuple[str, str]],
    message: str,
    model: HierarchicalReasoningModel,
    vocabulary: Vocabulary,
    settings: Settings,
) -> None:
    with pytest.raises(DataInvalid, match=message):
        extended(model, vocabulary, settings, names)


def test_a_new_timeframe_of_unknown_length_is_refused(
    model: HierarchicalReasoningModel, vocabulary: Vocabulary, settings: Settings
) -> None:
    with pytest.raises(SettingsInvalid, match=r"timeframes\.weekly: expected its seconds"):
        extended(model, vocabulary, settings, [("Nifty", "weekly")])


# folders


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """The settings of a checkpoint with `changes` by dotted path."""
    document = settings.model_dump()
    for path, value in changes.items():
        *sections, key = path.replace("network.", "hierarchical_reasoning_model.").split(".")
        section = document
        for name in sections:
            section = section[name]
        section[key] = value
    return parse_settings(document)


def test_an_extended_folder_is_the_same_training_with_more_names(
    trained: Path, tmp_path: Path, batch: Batch
) -> None:
    before, source = content(trained), load_checkpoint(trained)

    made = extend_vocabulary(trained, tmp_path / "out", NEW)

    assert content(trained) == before
    read = load_checkpoint(tmp_path / "out")
    assert made.sha256 == read.sha256 != source.sha256
    model, vocabulary = extended(source.model, source.description.vocabulary, source.settings, NEW)
    assert_equal(dict(read.model.state_dict()), dict(model.state_dict()))
    assert read.settings == read.model.settings == source.settings
    for name, array in vars(source.windows).items():
        np.testing.assert_array_equal(getattr(read.windows, name), array, strict=True)
    assert read.description.vocabulary == vocabulary
    carried = {"vocabulary": vocabulary, "digest": "", "files": {}}
    assert replace(read.description, **carried) == replace(source.description, **carried)
    known = [answers(each.model, batch, 2, 1) for each in (source, read)]
    assert_equal(*known)
    tcs = vocabulary.instruments["Tcs"].id
    assert_equal(answers(read.model, batch, tcs, 1), answers(read.model, batch, 0, 1))


def test_an_extended_folder_is_extended_again_with_larger_tables_and_declared_names(
    trained: Path, tmp_path: Path
) -> None:
    extend_vocabulary(trained, tmp_path / "first", NEW)
    wanted = changed(
        load_checkpoint(trained).settings,
        {
            **LARGER,
            "instruments.Wipro": {"lot_size": 1500},
            "timeframes.W": {"seconds": 604_800},
        },
    )
    made = extend_vocabulary(tmp_path / "first", tmp_path / "second", [("Wipro", "W")], wanted)
    assert made.settings == wanted
    vocabulary = asdict(made.description.vocabulary)
    assert {name: facts["id"] for name, facts in vocabulary["instruments"].items()} == {
        "unknown": 0, "Nifty": 1, "Reliance": 2, "Adani": 3, "Tcs": 4, "Wipro": 5,
    }  # fmt: skip
    assert vocabulary["instruments"]["Wipro"]["lot_size"] == 1500
    assert vocabulary["timeframes"]["W"] == {"id": 5, "seconds": 604_800}
    assert made.model.get_parameter(INSTRUMENTS).shape == (21, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.epochs": 9}, "training.epochs: expected 2, as trained, found 9"),
        ({"trading.stop_atr": 2.5}, "trading.stop_atr: expected 1.5, as trained, found 2.5"),
        (
            {"instruments.Nifty.lot_size": 50},
            "instruments.Nifty.lot_size: expected 75, as trained, found 50",
        ),
        (
            {"instruments": {}, "timeframes.5": {"seconds": 300}},
            (
                "instruments.Nifty: expected {'type': 'index', 'lot_size': 75, 'tick_size': 0.05, "
                "'option_premium_range': [0.01, 0.02]}, as trained, found nothing\n"
                "timeframes.5: expected nothing, as trained, found {'seconds': 300}"
            ),
        ),
        (
            {"network.input.clip": 4.0},
            "hierarchical_reasoning_model.input.clip: expected 5.0, as trained, found 4.0",
        ),
    ],
)
def test_settings_that_are_not_the_checkpoint_s_are_refused_and_nothing_is_written(
    changes: dict[str, Any], message: str, trained: Path, tmp_path: Path
) -> None:
    wanted = changed(load_checkpoint(trained).settings, changes)
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(message)}$"):
        extend_vocabulary(trained, tmp_path / "out", NEW, wanted)
    assert not (tmp_path / "out").exists()


def test_facts_of_a_name_that_is_neither_new_nor_known_are_refused_and_nothing_is_written(
    trained: Path, tmp_path: Path
) -> None:
    wanted = changed(load_checkpoint(trained).settings, {"instruments.TCS": {"lot_size": 7}})
    message = (
        r"^instruments\.TCS: expected a name of the data or of the checkpoint; the closest is "
    )
    with pytest.raises(SettingsInvalid, match=f"{message}Tcs, which differs in upper and lower "):
        extend_vocabulary(trained, tmp_path / "out", iter(NEW), wanted)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused_before_any_work(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(CheckpointInvalid, match="expected a new or empty folder, found notes"):
        extend_vocabulary("absent", tmp_path, NEW)
    before = content(trained)
    with pytest.raises(CheckpointInvalid, match="expected a new or empty folder"):
        extend_vocabulary(trained, trained, NEW)
    assert content(trained) == before


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="absent: expected a checkpoint folder"):
        extend_vocabulary(tmp_path / "absent", tmp_path / "out", NEW)
    assert not (tmp_path / "out").exists()
