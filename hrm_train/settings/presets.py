"""Presets: what each sets otherwise than the defaults, and a file or a section to begin with."""

import os
import shutil
from pathlib import Path
from typing import Any, Final

from hrm_runtime.files import whole
from hrm_train.errors import SettingsInvalid
from hrm_train.settings.extension import extended
from hrm_train.settings.reader import parse_settings
from hrm_train.settings.schema import Settings
from hrm_train.settings.writer import render

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "base": {},
    "tiny": {
        "hierarchical_reasoning_model": {
            "h_module": {
                "hidden_dim": 64, "num_layers": 2, "num_heads": 4, "ffn_dim": 128, "dropout": 0.0,
            },
            "l_module": {
                "hidden_dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64, "dropout": 0.0,
            },
            "hierarchical": {"N_cycles": 2, "T_timesteps": 3},
            "embeddings": {"max_instruments": 100},
        },
        "training": {"epochs": 4, "learning_rate": 1e-3, "warmup_steps": 50},
    },
}  # fmt: skip
"""What each preset sets otherwise than the defaults; `base` is the defaults."""


def preset(name: str) -> Settings:
    """The settings of a preset.

    Raises:
        SettingsInvalid: no such preset.
    """
    if name not in PRESETS:
        raise SettingsInvalid(f"preset: expected one of {', '.join(PRESETS)}; found {name!r}")
    return parse_settings(PRESETS[name])


def write_preset(folder: str | Path, name: str) -> Path:
    """Write the commented settings of a preset to `folder`/settings.yaml.

    Raises:
        SettingsInvalid: no such preset, the file exists, or it cannot be written.
    """
    path = Path(folder) / "settings.yaml"
    text = render(preset(name))
    if os.path.lexists(path):
        raise SettingsInvalid(
            f"{path}: expected to write a new file, found one; remove it, give another folder, or "
            "add to it with --add"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsInvalid(f"{path}: expected to write a new file: {error}") from error
    return path


def _keep_owner(path: Path, new: Path) -> None:
    """Give the owner and group of `path` to `new`, which is to take its place."""
    if not hasattr(os, "chown"):  # on Windows
        return
    old = path.stat()
    try:
        os.chown(new, old.st_uid, old.st_gid)
    except PermissionError as error:
        raise SettingsInvalid(
            f"{path}: expected to keep owner {old.st_uid} and group {old.st_gid} of the file, "
            f"found that this process may not; add as its owner: {error}"
        ) from error


def add_preset(folder: str | Path, name: str) -> Path:
    """Add the commented settings of a preset to `folder`/settings.yaml, a host's file.

    They are one section at its end. Every byte that was there stays, and so do the file's mode,
    owner and group.

    Raises:
        SettingsInvalid: no such preset, there is no such file, it has ours already, is no block
            mapping of YAML, or would say something else than before; or it cannot be written. It
            is as it was then.
    """
    path = Path(folder) / "settings.yaml"
    try:
        before = path.read_bytes()
        after = extended(before.decode("utf-8"), preset(name), str(path)).encode("utf-8")
        with whole(path.resolve()) as partial:  # a link stays one
            partial.write_bytes(after)
            _keep_owner(path, partial)
            shutil.copymode(path, partial)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"{path}: expected a settings file to add to; without --add one is written: {error}"
        ) from error
    return path
