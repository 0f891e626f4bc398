"""Files that are what was written, and do not agree with each other or this machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy

from hrm_runtime import ArtifactDamaged, ContractInvalid, InferenceFailed, SelfTestFailed, load
from hrm_runtime.artifact.contract import GOLDEN, MODEL
from hrm_runtime.artifact.golden import Golden


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("features", {"window": 7}, r"inputs: the contract expects .*7, 54.*the graph has .*6, 54"),
        ("graph", {"cycles": 3}, r"outputs: the contract expects .*\(None, 3, 2\).*\(None, 2, 2\)"),
        ("graph", {"timesteps": 1}, r"outputs: .*\(None, 2, 1\).*the graph has .*\(None, 2, 2\)"),
        (
            "graph",
            {"h_dim": 17},
            r"optional inputs: .*\(None, 4, 17\).*graph has .*\(None, 4, 16\)",
        ),
        ("graph", {"l_dim": 9}, r"optional inputs: .*\(None, 4, 9\).*graph has .*\(None, 4, 8\)"),
        (
            "graph",
            {"tokens": 5},
            r"optional inputs: .*\(None, 5, 16\).*graph has .*\(None, 4, 16\)",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_contract_that_disagrees_with_its_graph_is_refused(
    copy_artifact: ArtifactCopy, part: str, change: dict[str, int], message: str
) -> None:
    copy_artifact.reseal_part(part, **change)
    with pytest.raises(ContractInvalid, match=rf"^model\.onnx: {message}"):
        load(copy_artifact.path)


def test_an_id_beyond_the_graph_s_tables_is_refused(copy_artifact: ArtifactCopy) -> None:
    instruments = dict(copy_artifact.contract.instruments)
    instruments["Gamma"] = replace(instruments["Beta"], id=9)  # the table has 9 rows, 0 to 8
    copy_artifact.reseal(instruments=instruments)
    with pytest.raises(ContractInvalid, match="ids within the graph's tables; instrument 9 with"):
        load(copy_artifact.path)


@pytest.mark.parametrize(
    "content", [b"", b"not a graph", b"\x08\x0a" * 500], ids=["empty", "text", "binary"]
)
def test_a_graph_that_is_none_is_refused_even_with_the_right_hash(
    copy_artifact: ArtifactCopy, content: bytes
) -> None:
    copy_artifact.put(MODEL, content)
    with pytest.raises(ContractInvalid, match=r"model\.onnx: onnxruntime refuses it: "):
        load(copy_artifact.path)


def test_renamed_outputs_are_refused_even_with_the_right_hash(copy_artifact: ArtifactCopy) -> None:
    content = (copy_artifact.path / MODEL).read_bytes()
    copy_artifact.put(MODEL, content.replace(b"l_residual", b"L_residual"))
    with pytest.raises(
        ContractInvalid, match=r"outputs: the contract .*'l_residual'.*'L_residual'"
    ):
        load(copy_artifact.path)


def test_a_decision_of_endless_segments_is_refused(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.reseal(max_segments=257)
    with pytest.raises(
        ContractInvalid, match=r"^contract\.json: max_segments: expected at most 256, found 257;"
    ):
        load(copy_artifact.path)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30])
def test_an_id_beyond_integers_is_refused(copy_artifact: ArtifactCopy, number: int) -> None:
    instruments = dict(copy_artifact.contract.instruments)
    instruments["Gamma"] = replace(instruments["Beta"], id=number)
    copy_artifact.reseal(instruments=instruments)
    with pytest.raises(ContractInvalid, match=f"the graph's tables; instrument {number} with"):
        load(copy_artifact.path)


@pytest.mark.parametrize("error", [MemoryError, IndexError, OverflowError, UnicodeDecodeError])
def test_what_onnxruntime_s_own_code_raises_is_named(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def failing(session: object) -> None:
        raise error(*(["utf-8", b"x", 0, 1, "ours"] if error is UnicodeDecodeError else ["ours"]))

    monkeypatch.setattr("hrm_runtime.artifact.session.Session.inputs", failing)
    with pytest.raises(
        ContractInvalid, match=rf"^model\.onnx: expected a graph .* describe: {error.__name__}\("
    ):
        load(artifact)


def test_a_graph_that_fails_on_one_window_alone_is_refused(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(session: object, feeds: object) -> None:
        raise InferenceFailed("out of order")

    monkeypatch.setattr("hrm_runtime.artifact.session.Session.shrink", failing)
    with pytest.raises(
        SelfTestFailed, match=r"^model\.onnx: expected a window alone to run: out of order$"
    ):
        load(artifact)


def none_of(golden: Golden) -> Golden:
    arrays = {name: array[:0] for name, array in vars(golden).items() if name != "passes"}
    empty = tuple({name: array[:0] for name, array in p.items()} for p in golden.passes)
    return Golden(passes=empty, **arrays)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda g: replace(g, features=g.features[:, :, 1:]),
            "does not fit .*: features: expected",
        ),
        (lambda g: replace(g, account=g.account[:, 1:]), "does not fit the contract: account: "),
        (
            lambda g: replace(g, features=g.features + np.float32(np.nan)),
            "does not fit .*: features",
        ),
        (
            lambda g: replace(g, instrument=g.instrument + 90),
            "does not fit .*: instrument: expected",
        ),
        (
            lambda g: replace(g, passes=g.passes[:1]),
            "expected the passes of 2 segments, found those of 1",
        ),
        (lambda g: replace(g, actions=np.roll(g.actions, 1)), r"window \d+: expected action"),
        (
            lambda g: replace(g, segments=g.segments + 1),
            "expected the passes of 3 segments, found those of 2",
        ),
        (lambda g: replace(g, quantities=g.quantities + 2), r"window 0: expected \d+ lots, found"),
        (
            lambda g: replace(g, passes=(scaled_output(g, "value", 1.01), g.passes[1])),
            r"segment 0, value\[\d+\]: expected .* within 0\.001, found",
        ),
        (none_of, "expected at least 32 windows, 4 of them with bars; found 0 and 0"),
    ],
    ids=[
        *("features", "account", "nan", "ids", "passes", "action", "segments", "quantity"),
        *("output", "none"),
    ],
)
def test_golden_vectors_that_do_not_replay_are_refused(
    copy_artifact: ArtifactCopy, edit: Callable[[Golden], Golden], message: str
) -> None:
    copy_artifact.edit_golden(edit)
    with pytest.raises(SelfTestFailed, match=rf"^golden\.npz: {message}"):
        load(copy_artifact.path)


def scaled_output(golden: Golden, name: str, factor: float) -> dict[str, Any]:
    first = golden.passes[0]
    return {**first, name: first[name] * np.float32(factor)}


def test_golden_vectors_that_are_none_are_refused(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.put(GOLDEN, b"not vectors")
    with pytest.raises(ArtifactDamaged, match=r"golden\.npz: expected golden vectors"):
        load(copy_artifact.path)


def test_a_graph_that_fails_on_the_vectors_is_refused(copy_artifact: ArtifactCopy) -> None:
    contract = copy_artifact.contract
    beyond = replace(contract.instruments["Beta"], id=10_000)
    copy_artifact.reseal(instruments={**contract.instruments, "Beta": beyond})
    copy_artifact.edit_golden(
        lambda g: replace(g, instrument=np.where(g.instrument == 2, 10_000, g.instrument))
    )
    with pytest.raises(SelfTestFailed, match="onnxruntime failed while running the graph"):
        load(copy_artifact.path)


def test_a_tolerance_that_is_missing_is_refused(copy_artifact: ArtifactCopy) -> None:
    tolerances = dict(copy_artifact.contract.tolerances)
    del tolerances["z_L_out"]
    copy_artifact.reseal(tolerances=tolerances)
    with pytest.raises(ContractInvalid, match="tolerances: expected one per output"):
        load(copy_artifact.path)
