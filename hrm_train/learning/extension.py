"""More instruments and timeframes for a trained network, without touching what it knows.

R rows of a table, D their width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from hrm_train.data.vocabulary import Vocabulary, require_names
from hrm_train.errors import SettingsInvalid
from hrm_train.learning.checkpoint import Checkpoint, CheckpointWriter, load_checkpoint
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import Settings

_NETWORK: Final = "hierarchical_reasoning_model"
_MAXIMA: Final = ("max_instruments", "max_timeframes")
_ABSENT: Final = "nothing"


def extend_vocabulary(
    checkpoint_folder: str | Path,
    out: str | Path,
    names: Iterable[tuple[str, str]],
    settings: Settings | None = None,
) -> Checkpoint:
    """Write the checkpoint folder `out`: the same training, knowing more names.

    Exported, it decides for new names as for unknown ones, until they are trained. Training goes
    on from it as from any checkpoint; it holds no state to resume.

    Args:
        checkpoint_folder: a checkpoint, which stays as it is.
        out: new or empty.
        names: as `extended`.
        settings: the checkpoint's, with maxima raised and facts of new names declared where need
            be; as they are if left out.

    Raises:
        CheckpointInvalid: the checkpoint cannot be read, or `out` cannot be written.
        SettingsInvalid: `settings` differ from the checkpoint's in anything else, or have facts of
            a name that is neither new nor known, or as `extended`.
        DataInvalid: as `extended`.
    """
    writer = CheckpointWriter(out)
    source = load_checkpoint(checkpoint_folder)
    known = source.description.vocabulary
    wanted = settings or source.settings
    names = list(names)
    _require_same_training(source.settings, wanted, known)
    require_names(wanted, names, known)
    model, vocabulary = extended(source.model, known, wanted, names)
    writer.begin(wanted, source.windows)
    writer.describe(replace(source.description, vocabulary=vocabulary), model)
    return load_checkpoint(out)


def extended(
    model: HierarchicalReasoningModel,
    vocabulary: Vocabulary,
    settings: Settings,
    names: Iterable[tuple[str, str]],
) -> tuple[HierarchicalReasoningModel, Vocabulary]:
    """A copy of the model, and its vocabulary, that know more names.

    New names get the next ids in sorted order; later additions are appended. Their rows start as
    copies of row 0, so that a new name decides exactly as an unknown one until it is trained. All
    else is bit-equal, hence so is every output for a name that was known before.

    Args:
        model: trained with `vocabulary`.
        vocabulary: its names keep their ids and facts.
        settings: give the facts of new names, and become those of the copy. They may raise
            `embeddings.max_instruments` and `max_timeframes`; the tables grow by copies of row 0.
        names: (instrument, timeframe) each; those that are known change nothing.

    Raises:
        SettingsInvalid: any other setting of the network differs from the model's, a maximum is
            lower, or the seconds of a new timeframe are not declared.
        DataInvalid: more names than the tables have rows, or one is called `unknown`.
    """
    _require_same_network(model.settings, settings)
    larger = vocabulary.extended(settings, names)
    limits = settings.network.embeddings
    larger.require_rows(limits)
    state = dict(model.state_dict())
    for table, most, known, facts in (
        ("instrument", limits.max_instruments, vocabulary.instruments, larger.instruments),
        ("timeframe", limits.max_timeframes, vocabulary.timeframes, larger.timeframes),
    ):
        name = f"input_network.{table}_embedding.weight"
        new = [entry.id for key, entry in facts.items() if key not in known]
        state[name] = _grown(state[name], 1 + most, new)
    with torch.random.fork_rng(devices=[]):  # what a new model draws is written over
        copy = HierarchicalReasoningModel(settings)
    copy.load_strict(state, "the extended network")
    return copy.train(model.training), larger


def _grown(table_RD: Tensor, rows: int, new: list[int]) -> Tensor:
    """The table with `rows` rows: those added, and those of the ids `new`, are copies of row 0."""
    unknown_1D = table_RD[:1]
    grown_RD = torch.cat((table_RD, unknown_1D.expand(rows - len(table_RD), -1)))
    grown_RD[new] = unknown_1D
    return grown_RD


def _require_same_network(trained: Settings, wanted: Settings) -> None:
    before, after = (each.network.model_dump(mode="json") for each in (trained, wanted))
    problems = []
    for limit in _MAXIMA:
        least, found = before["embeddings"].pop(limit), after["embeddings"].pop(limit)
        if found < least:
            problems.append(
                f"{_NETWORK}.embeddings.{limit}: expected at least {least}, as many as the table "
                f"has, found {found}"
            )
    _refuse([*problems, *_differences(before, after, f"{_NETWORK}.")])


def _require_same_training(trained: Settings, wanted: Settings, known: Vocabulary) -> None:
    """Hold everything but the network, and but the facts of names that are new."""
    before, after = (each.model_dump(mode="json", exclude={_NETWORK}) for each in (trained, wanted))
    for document in (before, after):
        for section, names in (
            ("instruments", known.instruments),
            ("timeframes", known.timeframes),
        ):
            document[section] = {k: v for k, v in document[section].items() if k in names}
    _refuse(list(_differences(before, after, "")))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SettingsInvalid("\n".join(problems))


def _differences(trained: dict[str, Any], wanted: dict[str, Any], path: str) -> Iterator[str]:
    for name in trained | wanted:
        before, after = trained.get(name, _ABSENT), wanted.get(name, _ABSENT)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{path}{name}.")
        elif before != after:
            yield f"{path}{name}: expected {before}, as trained, found {after}"
