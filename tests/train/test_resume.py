"""A run that is killed, again and again, at any moment, ends as one that was not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from synthetic import random_bars

from hrm_train import train
from hrm_train.data.preparation import prepare_series
from hrm_train.settings import Settings, render

KILLED = Path(__file__).parents[1] / "support" / "killed.py"


def test_twenty_kills_at_random_moments_change_no_byte(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(
        {
            "network.h_module.dropout": 0.1,
            "network.hierarchical.N_cycles": 1,
            "network.hierarchical.T_timesteps": 1,
            "training.epochs": 2,
            "training.batch_size": 64,
            "training.ema_decay": 0.9,
            "training.max_segments": 3,
            "training.save_minutes": 0.0,
            "instruments": {},
        }
    )
    (tmp_path / "settings.yaml").write_text(render(settings))
    tensors, out = tmp_path / "bars.safetensors", tmp_path / "runs"
    prepare_series(settings, {("Alpha", "5"): random_bars(365, seed=1)}).save(tensors)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            KILLED,
            tmp_path / "settings.yaml",
            tensors,
            out,
            "20",
            "1",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 kills")
    # and a finished run that is resumed stays as it is
    reference = out / "reference"
    before = (reference / "last.safetensors").read_bytes()
    train(settings, tensors, reference, resume=True)
    assert (reference / "last.safetensors").read_bytes() == before
