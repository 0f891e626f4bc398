"""Where training stands: read back bit for bit, refused once damaged, resumed only by the same."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import assert_equal
from safetensors import safe_open
from safetensors.torch import save_file

from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.state import Origin, Position, State, require_same
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]


def origin(settings: Settings, **changes: Any) -> Origin:
    known = Origin(
        settings=settings.model_dump(mode="json"),
        data="a" * 64,
        boundary=1_700_000_000,
        judged_from=1_700_000_300,
        judged_until=None,
        initialized_from=None,
        quantised=False,
    )
    return replace(known, **changes)


def epoch(number: int) -> Epoch:
    return Epoch(
        number=number, train_loss=1 / 3, validation_loss=0.1 + 0.2, accuracy=2 / 3, regret=1e-17,
        segments=1.5,
    )  # fmt: skip


def state(settings: Settings) -> State:
    return State(
        origin(settings),
        Position(step=7, epochs=(epoch(1), epoch(2)), loss_sum=2 / 7, loss_steps=3),
        {
            "model/weight": torch.randn(3, 4, requires_grad=True),
            "slots/z_H": torch.randn(1, 4, 5).expand(2, 4, 5),  # not contiguous
            "slots/halted": torch.tensor([True, False]),
            "slots/count": torch.tensor([5, 2**60]),
            "optimizer/0/step": torch.tensor(7.0),
            "odd": torch.tensor([float("nan"), float("inf"), -0.0], dtype=torch.float64),
        },
    )


def test_a_state_is_read_back_as_it_was_written(settings: Settings, tmp_path: Path) -> None:
    written = state(settings)
    written.save(tmp_path / "last")
    found = State.load(tmp_path / "last")
    assert found.origin == written.origin
    assert found.position == written.position  # every float to its last digit
    assert found.tensors.keys() == written.tensors.keys()
    for name, tensor in written.tensors.items():
        torch.testing.assert_close(
            found.tensors[name], tensor.detach(), rtol=0, atol=0, equal_nan=True
        )
        assert not found.tensors[name].requires_grad
    assert_equal(found.tensors["odd"].signbit(), written.tensors["odd"].signbit())
    require_same(found.origin, written.origin, tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_position_is_read_alone_and_told_in_words(settings: Settings, tmp_path: Path) -> None:
    state(settings).save(tmp_path / "last")
    position = State.position_in(tmp_path / "last")
    assert position == state(settings).position
    assert position.told(5) == "step 7, in epoch 3 of 5"
    assert (
        replace(position, loss_steps=0, step=7000).told(2) == "step 7,000, the end of epoch 2 of 2"
    )
    assert replace(position, loss_steps=0, epochs=()).told(2) == "no step yet"


def test_the_same_state_is_the_same_bytes(settings: Settings, tmp_path: Path) -> None:
    written = state(settings)
    for name in ("one", "two"):
        written.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_state_cut_short_is_refused(share: float, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "last"
    state(settings).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointInvalid, match=r"last: expected a state of training: .*header"):
        State.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="last: expected a state of training: No such file"):
        State.load(tmp_path / "last")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.clear(), "'training'"),
        (lambda m: m.update(training="{"), "Expecting property"),
        (lambda m: m.update(training="[]"), r"document: expected an object, found \[\]"),
        (lambda m: edited(m, lambda d: d.pop("position")), "position: expected, but missing"),
        (lambda m: edited(m, lambda d: d.update(more=1)), "more: unknown"),
        (
            lambda m: edited(m, lambda d: d["position"].update(step="7")),
            "position.step: expected an integer, found '7'",
        ),
        (
            lambda m: edited(m, lambda d: d["position"]["epochs"][1].pop("regret")),
            r"position.epochs\[1\].regret: expected, but missing",
        ),
        (
            lambda m: edited(m, lambda d: d["origin"].update(boundary=None)),
            "origin.boundary: expected an integer, found None",
        ),
    ],
)
def test_a_file_of_another_meaning_is_refused(
    change: Callable[[dict[str, str]], object], message: str, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "last"
    state(settings).save(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = dict(file.metadata())
    change(metadata)
    save_file({"weight": torch.ones(2)}, path, metadata or None)
    with pytest.raises(CheckpointInvalid, match=f"last: expected a state of training: {message}"):
        State.load(path)


def edited(metadata: dict[str, str], change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(metadata["training"])
    change(document)
    metadata["training"] = json.dumps(document)


# resumed only by the same


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"training.epochs": 9}, ["settings.training.epochs: now 9, saved 1"]),
    (
        {"network.h_module.dropout": 0.25, "training.save_minutes": 0.0},
        [
            "settings.hierarchical_reasoning_model.h_module.dropout: now 0.25, saved 0.1",
            "settings.training.save_minutes: now 0.0, saved 10.0",
        ],
    ),
    (
        {"instruments.Nifty.option_premium_range": [0.02, 0.03]},
        ["settings.instruments.Nifty.option_premium_range: now [0.02, 0.03], saved [0.01, 0.02]"],
    ),
    ({"timeframes": {"w": {"seconds": 7}}}, ["settings.timeframes: now only: w"]),
]


@pytest.mark.parametrize(("changes", "named"), CHANGES)
def test_every_setting_that_differs_is_named_by_its_path(
    changes: dict[str, Any],
    named: list[str],
    settings: Settings,
    make_settings: MakeSettings,
) -> None:
    expected = (
        f"last: expected to resume what was begun, but it differs in {'; '.join(named)}; resume "
        "with the same settings and data, or go on from its weights with --init-from"
    )
    with pytest.raises(CheckpointInvalid, match=f"^{re.escape(expected)}$"):
        require_same(origin(settings), origin(make_settings(changes)), Path("last"))


def test_a_setting_that_was_taken_away_is_named_too(
    settings: Settings, make_settings: MakeSettings
) -> None:
    saved = origin(make_settings({"timeframes": {"w": {"seconds": 7}}}))
    message = "differs in settings.timeframes: saved only: w; resume"
    with pytest.raises(CheckpointInvalid, match=message):
        require_same(saved, origin(settings), Path("last"))


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "b" * 64},
        {"boundary": 1_700_000_001},
        {"judged_from": 1_700_000_600},
        {"judged_until": 1_700_000_900},
        {"initialized_from": "c" * 64},
        {"quantised": True},
        {"data": "b" * 64, "boundary": 5, "initialized_from": "c" * 64},
    ],
)
def test_data_split_or_source_that_differ_are_named(
    changes: dict[str, Any], settings: Settings
) -> None:
    saved = origin(settings)
    named = "; ".join(
        f"{name}: now {value}, saved {asdict(saved)[name]}" for name, value in changes.items()
    )
    with pytest.raises(CheckpointInvalid, match=re.escape(f"but it differs in {named}; resume")):
        require_same(saved, replace(saved, **changes), Path("last"))


def test_a_state_of_another_format_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_train.learning.state.FORMAT_VERSION", 2)
    state(settings).save(tmp_path / "last")
    monkeypatch.undo()
    with pytest.raises(CheckpointInvalid, match="last: expected format version 1, found 2; resume"):
        State.load(tmp_path / "last")
