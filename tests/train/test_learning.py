"""A small network learns a planted rule, and nothing where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import ATTAINABLE, SECONDS, planted

from hrm_train import load_checkpoint, train
from hrm_train.data.prepared import Prepared
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.learning.devices import HERE, open_fabric
from hrm_train.learning.epochs import evaluate
from hrm_train.learning.run import Tensors
from hrm_train.settings import Settings, parse_settings

BARS = 6_000
UNSEEN = 2_000
"""Bars of each series that is trained on, and of each unseen one."""

DOCUMENT: dict[str, Any] = {
    "hierarchical_reasoning_model": {
        "h_module": {"hidden_dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64},
        "l_module": {"hidden_dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64},
        "hierarchical": {"N_cycles": 2, "T_timesteps": 2},
        "embeddings": {"max_instruments": 8, "max_timeframes": 4, "instrument_dim": 16,
                       "timeframe_dim": 4},
        "input": {"history_bars": 200, "window": 10, "patch": 10},
    },
    "training": {"learning_rate": 1e-2, "warmup_steps": 20, "batch_size": 192, "max_segments": 2,
                 "ema_decay": 0.98, "label_horizon": 6},
}  # fmt: skip
"""As large as the rule needs; its average over steps knows it after a third of the samples."""


def small(epochs: int, **training: Any) -> Settings:
    changed = {**DOCUMENT["training"], "epochs": epochs, **training}
    return parse_settings({**DOCUMENT, "training": changed})


def learn(settings: Settings, tensors: Prepared, folder: Path, **options: Any) -> Checkpoint:
    tensors.save(folder / "planted.safetensors")
    return train(settings, folder / "planted.safetensors", folder / "checkpoint", **options)


def accuracy_on_unseen_series(checkpoint: Checkpoint) -> float:
    """Of the best epoch, on series of another seed."""
    settings = checkpoint.settings
    unseen = planted(settings, UNSEEN, seed=2)
    fabric = open_fabric(HERE)
    window = settings.network.input.window
    everything = np.arange(len(unseen))
    found = evaluate(fabric, checkpoint.model, Tensors(unseen, window), everything, 1, 0.0)
    return found.accuracy


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint that has learned the rule."""
    folder = tmp_path_factory.mktemp("learned")
    settings = small(epochs=3)
    learn(settings, planted(settings, BARS, seed=1), folder)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def accuracy(learned: Path) -> float:
    return accuracy_on_unseen_series(load_checkpoint(learned))


def test_it_learns_a_rule_of_several_bars_the_account_and_the_instrument(accuracy: float) -> None:
    assert accuracy >= 0.95 * ATTAINABLE
    assert accuracy <= ATTAINABLE + 0.02  # more would be more than there is to know


def test_what_it_learned_survives_in_integers(
    learned: Path, accuracy: float, tmp_path: Path
) -> None:
    settings = small(epochs=1, learning_rate=1e-3)
    more = planted(settings, 1_500, seed=3)
    stamps = (more.bar_stamp + SECONDS * BARS, more.sample_end + SECONDS * BARS)
    later = replace(more, bar_stamp=stamps[0], sample_end=stamps[1])
    checkpoint = learn(settings, later, tmp_path, init_from=learned, quantise=True)
    assert checkpoint.model.quantised
    found = accuracy_on_unseen_series(checkpoint)
    assert found >= accuracy - 0.01


def test_it_stays_at_chance_where_labels_are_shuffled(tmp_path: Path) -> None:
    settings = small(epochs=2)
    tensors = planted(settings, 2_000, seed=1)
    rng = np.random.default_rng(3)
    returns = tensors.sample_returns.copy()
    for side in (-1, 0, 1):  # among samples with the same legal actions
        own = np.flatnonzero(tensors.sample_account[:, 0] == side)
        returns[own] = returns[rng.permutation(own)]
    shuffled = replace(tensors, sample_returns=returns)
    found = accuracy_on_unseen_series(learn(settings, shuffled, tmp_path))
    unseen = planted(settings, UNSEEN, seed=2)
    assert found == pytest.approx(chance(unseen), abs=0.03)


def chance(prepared: Prepared) -> float:
    """The accuracy of always the same action on each side, the most frequent best one."""
    best = np.nan_to_num(prepared.sample_returns, nan=-np.inf).argmax(axis=1)
    hits = 0
    for side in (-1, 0, 1):
        hits += np.bincount(best[prepared.sample_account[:, 0] == side]).max()
    return float(hits) / len(prepared)
