"""Presets: the files in models, what they build, and a file to begin with."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
import yaml

from hrm_train import HierarchicalReasoningModel, load_settings
from hrm_train.errors import SettingsInvalid
from hrm_train.settings import (
    PRESETS,
    Settings,
    add_preset,
    parse_settings,
    preset,
    render,
    write_preset,
)

MODELS = Path(__file__).parents[3] / "models"


def shapes(settings: Settings) -> dict[str, torch.Size]:
    """Of every parameter, by name; nothing is allocated."""
    with torch.device("meta"):
        model = HierarchicalReasoningModel(settings)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", PRESETS)
def test_the_files_in_models_are_the_rendered_presets(name: str) -> None:
    path = MODELS / name / "settings.yaml"
    assert path.read_text(encoding="utf-8") == render(preset(name))
    assert load_settings(path) == preset(name)


def test_the_released_model_was_trained_with_the_settings_beside_it() -> None:
    settings = load_settings(MODELS / "base" / "market.yaml")
    contract = json.loads((MODELS / "base" / "artifact" / "contract.json").read_text())
    assert parse_settings(contract["provenance"]["settings"]) == settings


def test_a_preset_is_written_once(tmp_path: Path) -> None:
    path = write_preset(tmp_path / "new" / "folder", "tiny")
    assert path == tmp_path / "new" / "folder" / "settings.yaml"
    assert load_settings(path) == preset("tiny")
    with pytest.raises(
        SettingsInvalid, match=r"settings.yaml: expected to write a new file, found"
    ):
        write_preset(tmp_path / "new" / "folder", "base")
    assert load_settings(path) == preset("tiny")


def test_an_unknown_preset_leaves_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="found 'huge'"):
        write_preset(tmp_path / "new", "huge")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsInvalid, match=r"preset: expected one of base, tiny; found 'huge'"):
        preset("huge")


def test_the_base_preset_has_27_million_parameters_within_one_percent() -> None:
    assert sum(map(torch.Size.numel, shapes(preset("base")).values())) == pytest.approx(
        27e6, rel=0.01
    )


HOSTS: dict[str, bytes] = {
    "a trading process": (
        b"# ours\nenvironment: {lookback: 50}\ntraining:\n  gamma: 0.99  # theirs\n\n"
        b"trading: {symbol: Nifty}\ninstruments:\n- {name: Nifty}\n"
    ),
    "keys of ours": b"environment: 1\ntraining: {epochs: 3, gamma: 1}\ntimeframes: [5, D]\n",
    "all its keys ours": b"environment: 1\ntraining: {epochs: 3}\n",
    "the lines of Windows": b"environment:\r\n  lookback: 50\r\ntraining: &t {gamma: 1}\r\n",
    "a byte order mark": b"\xef\xbb\xbfenvironment: 1\ntext: \xe0\xa4\xa8\n",
    "no final newline": b"environment: 1\ntrading: {symbol: Nifty}",
    "no final newline on Windows": b"environment: 1\r\nlast: word",
    "a comment and blanks at its end": b"environment: 1\n# end\n   \n\n  # of all",
    "a document marked": b"%YAML 1.1\n---\nenvironment: !theirs {a: 1, a: 2}\n",
    "indented": b"  environment: 1\n  other:\n  - 1\n",
    "a text at its end": b"environment: 1\nlast: |\n  two\n  lines\n",
    "a text that keeps its end": b"environment: 1\nlast: |+\n  two\n\n\n",
    "anchors": b"base: &b {a: 1}\nother: {<<: *b}\nlast:\n",
    "nothing but a comment": b"# to be written\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("case", HOSTS)
def test_a_preset_is_added_to_a_hosts_file_of_which_every_byte_stays(
    case: str, name: str, tmp_path: Path
) -> None:
    path, before = tmp_path / "settings.yaml", HOSTS[case]
    path.write_bytes(before)
    path.chmod(0o640)
    assert add_preset(tmp_path, name) == path
    after = path.read_bytes()
    assert after.startswith(before)
    assert (b"\r\n" in after, after.count(b"\n") - after.count(b"\r\n") == 0) == (
        (True, True) if b"\r\n" in before else (False, False)
    )
    assert load_settings(path) == preset(name)
    nodes, were = (yaml.compose(text, Loader=yaml.SafeLoader) for text in (after, before))
    kept = [] if were is None else were.value
    assert [yaml.serialize(value) for _, value in nodes.value[:-1]] == [
        yaml.serialize(value) for _, value in kept
    ]
    assert nodes.value[-1][0].value == "hierarchical_reasoning_model"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "chown"), reason="no owners that can be given")
def test_the_file_keeps_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("environment: 1\n")
    given: list[tuple[Path, int, int]] = []
    monkeypatch.setattr("os.chown", lambda *args: given.append(args))
    add_preset(tmp_path, "tiny")
    (owned,) = given
    assert owned[1:] == (path.stat().st_uid, path.stat().st_gid)
    assert owned[0] != path


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")
def test_a_file_to_which_root_adds_is_still_its_owner_s(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("environment: 1\n")
    path.chmod(0o640)
    os.chown(path, 1234, 4321)
    add_preset(tmp_path, "tiny")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 4321, 0o640)


@pytest.mark.skipif(not hasattr(os, "chown"), reason="no owners that can be given")
def test_a_file_whose_owner_cannot_be_kept_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("environment: 1\n")

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.chown", forbidden)
    with pytest.raises(
        SettingsInvalid, match=r"settings.yaml: expected to keep owner \d+ and group"
    ):
        add_preset(tmp_path, "tiny")
    assert path.read_text() == "environment: 1\n"
    assert list(tmp_path.iterdir()) == [path]


FLAGS = [
    f"{key}: {value}\n"
    for key in (
        "use_hierarchical_reasoning_model",
        "hierarchical_reasoning_model_path",
        "hierarchical_reasoning_model_v2",
    )
    for value in ("true", "models/x")
]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_preset_is_added_beside_a_hosts_flag_that_has_its_name(flag: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(flag)
    assert load_settings(add_preset(tmp_path, "tiny")) == preset("tiny")


REFUSED: dict[str, tuple[bytes, str]] = {
    "ours": (
        b"environment: 1\nhierarchical_reasoning_model: {}\n",
        "expected no hierarchical_reasoning_model yet, found hierarchical_reasoning_model; edit",
    ),
    "ours, misspelt": (
        b"environment: 1\nHierarchical-Reasoning-Model: {}\n",
        "expected no hierarchical_reasoning_model yet, found Hierarchical-Reasoning-Model; edit",
    ),
    "ours at the top": (
        b"training: {epochs: 3}\n",
        "it would be refused .*training: expected once, found at the top and inside",
    ),
    "ours below a host's": (
        b"models: {hierarchical_reasoning_model: {training: {}}}\n",
        r"it would be refused .*models.hierarchical_reasoning_model: expected .* once",
    ),
    "a merge of no mapping": (
        b"<<: 5\nenvironment: 1\n",
        "it would be refused .*expected << to merge a mapping or a list of them, found 5",
    ),
    "braces": (b"{environment: 1}\n", "expected sections at the top, .*, found braces; add"),
    "a list": (b"- environment\n", "expected sections at the top, .*, found no sections; add"),
    "two documents": (b"a: 1\n---\nb: 2\n", "expected YAML of one document: "),
    "a document that is ended": (b"a: 1\n...\n", "it would be no YAML .*document start"),
    "a text without a final newline": (b"a: |\n  x", "something else in it would change; add"),
    "no YAML": (b"a: [\n", "expected YAML of one document: "),
    "no text": (b"a: \xff\n", "expected a settings file to add to; without --add one is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_would_not_read_back_is_left_as_it_was(case: str, tmp_path: Path) -> None:
    before, message = REFUSED[case]
    path = tmp_path / "settings.yaml"
    path.write_bytes(before)
    with pytest.raises(SettingsInvalid, match=f"(?s)settings.yaml: .*{message}"):
        add_preset(tmp_path, "tiny")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_preset_is_added_once(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("environment: 1\n")
    once = add_preset(tmp_path, "tiny").read_bytes()
    with pytest.raises(SettingsInvalid, match="expected no hierarchical_reasoning_model yet"):
        add_preset(tmp_path, "base")
    assert (tmp_path / "settings.yaml").read_bytes() == once


def test_a_preset_is_added_only_to_a_file_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"settings.yaml: expected a settings file to add to"):
        add_preset(tmp_path, "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_is_added_where_a_link_leads(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.yaml"
    real.write_text("environment: 1\n")
    (tmp_path / "settings.yaml").symlink_to(real)
    add_preset(tmp_path, "tiny")
    assert (tmp_path / "settings.yaml").is_symlink()
    assert load_settings(real) == preset("tiny")


def test_a_disk_that_fails_leaves_the_hosts_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("environment: 1\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hrm_runtime.files.os.fsync", full)
    with pytest.raises(SettingsInvalid, match="No space left on device"):
        add_preset(tmp_path, "tiny")
    assert path.read_text() == "environment: 1\n"
    assert list(tmp_path.iterdir()) == [path]
