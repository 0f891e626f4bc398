"""Presets: what each sets otherwise than the defaults, and a file to begin with."""

import os
from pathlib import Path
from typing import Any, Final

from hrm_runtime.files import whole
from hrm_train.errors import SettingsInvalid
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
            f"{path}: expected to write a new file, found one; remove it or give another folder"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsInvalid(f"{path}: expected to write a new file: {error}") from error
    return path
