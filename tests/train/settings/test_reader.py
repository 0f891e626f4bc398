"""Settings that are read: what loads, what it builds, and what is refused with which words."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hrm_train import HierarchicalReasoningModel, load_settings
from hrm_train.errors import SettingsInvalid
from hrm_train.settings import Settings, parse_settings, preset

STORY = """
hierarchical_reasoning_model:
  # Dual-module architecture
  h_module:
    hidden_dim: 512
    num_layers: 4
    dropout: 0.1
  
  l_module:
    hidden_dim: 256
    num_layers: 3
    dropout: 0.1
  
  # Hierarchical convergence
  hierarchical:
    N_cycles: 3          # High-level reasoning cycles
    T_timesteps: 5       # Low-level timesteps per cycle
    convergence_threshold: 1e-6
    max_convergence_steps: 100
  
  # Embeddings
  embeddings:
    instrument_dim: 64
    timeframe_dim: 32
    max_instruments: 1000
    max_timeframes: 10
  
  # Output heads
  output_heads:
    action_dim: 5        # BUY, SELL, HOLD, etc.
    quantity_min: 1.0
    quantity_max: 100000.0
    value_estimation: true
    q_learning_prep: true  # For future ACT implementation
"""  # noqa: W293, the user's own lines, to the last blank


def shapes(settings: Settings) -> dict[str, torch.Size]:
    """Of every parameter, by name; nothing is allocated."""
    with torch.device("meta"):
        model = HierarchicalReasoningModel(settings)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_storys_block_builds_the_base_network(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, STORY))
    assert settings == preset("base")
    assert settings.network.hierarchical.convergence_threshold == 1e-6
    assert shapes(settings) == shapes(preset("base"))


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "# nothing\n")) == Settings() == preset("base")


def test_every_value_given_is_taken(tmp_path: Path) -> None:
    settings = load_settings(
        written(
            tmp_path,
            "training: {seed: 3, learning_rate: 2e-5, policy_temperature: 1E+1, value_weight: 2}\n"
            "trading: {stop_atr: 2.5}\n"
            "instruments:\n"
            "  Nifty: {type: index, lot_size: 75, option_premium_range: [1e-2, 0.02]}\n"
            "timeframes: {weekly: {seconds: 604800}}\n",
        )
    )
    training, nifty = settings.training, settings.instruments["Nifty"]
    assert (training.seed, training.learning_rate) == (3, 2e-5)
    assert (training.policy_temperature, training.value_weight) == (10.0, 2.0)
    assert settings.trading.stop_atr == 2.5
    assert (nifty.type, nifty.lot_size, nifty.option_premium_range) == ("index", 75, (0.01, 0.02))
    assert settings.timeframes["weekly"].seconds == 604_800


UNKNOWN_KEYS = [
    ("training.epoch", 3, "unknown key; did you mean epochs? (found 3)"),
    ("network.h_modul", {}, "unknown key; did you mean h_module? (found {})"),
    ("network.L-Module", {}, "unknown key; did you mean l_module? (found {})"),
    ("network.trainning", {}, "unknown key; did you mean training? (found {})"),
    ("network.h_module.heads", 8, "unknown key; check its name and its level (found 8)"),
    (
        "network.N_cycles",
        3,
        "unknown key; it belongs in hierarchical_reasoning_model.hierarchical (found 3)",
    ),
    (
        "network.ffn_dim",
        3,
        (
            "unknown key; it belongs in hierarchical_reasoning_model.h_module or "
            "hierarchical_reasoning_model.l_module (found 3)"
        ),
    ),
    ("network.environment", {}, "unknown key; check its name and its level (found {})"),
    ("network.training.symbol", 1, "unknown key; check its name and its level (found 1)"),
    (
        "instruments.TCS.lots",
        1,
        (
            "unknown key; check its name and its level, or, if instruments is the host's, write "
            "ours as hierarchical_reasoning_model.instruments (found 1)"
        ),
    ),
]
MISTYPED = [
    ("training", 3, "expected a valid dictionary or instance of Training, found 3"),
    ("training.epochs", "3", "expected a valid integer, found '3'"),
    ("training.epochs", True, "expected a valid integer, found True"),
    ("training.epochs", 3.0, "expected a valid integer, found 3.0"),
    ("training.learning_rate", "abc", "expected a valid number, found 'abc'"),
    ("training.learning_rate", True, "expected a valid number, found True"),
    ("training.learning_rate", None, "expected a valid number, found None"),
    ("training.learning_rate", float("nan"), "expected a finite number, found nan"),
    ("network.hierarchical.reset_l_module", 1, "expected a valid boolean, found 1"),
    ("instruments.TCS.type", "bond", "expected 'index' or 'stock', found 'bond'"),
    ("instruments.TCS", 3, "expected a valid dictionary or instance of InstrumentFacts, found 3"),
]
OUT_OF_RANGE = [
    ("training.epochs", 0, "expected greater than or equal to 1, found 0"),
    ("training.learning_rate", "0e0", "expected greater than 0, found '0e0'"),
    ("training.label_horizon", 1, "expected greater than or equal to 2, found 1"),
    ("training.validation_fraction", 1, "expected less than 1, found 1"),
    ("network.h_module.dropout", 1.0, "expected less than 1, found 1.0"),
    ("network.input.history_bars", 199, "expected greater than or equal to 200, found 199"),
    ("network.output_heads.quantity_min", 0.5, "expected greater than or equal to 1, found 0.5"),
]
IMPOSSIBLE = [
    (
        "network.h_module",
        {"num_heads": 3},
        "expected hidden_dim to be an even multiple of num_heads (rotary pairs), found 512 and 3",
    ),
    (
        "network.l_module",
        {"hidden_dim": 12, "num_heads": 4},
        "expected hidden_dim to be an even multiple of num_heads (rotary pairs), found 12 and 4",
    ),
    (
        "network.input",
        {"window": 52},
        "expected window to be a multiple of patch, found 52 and 5",
    ),
    (
        "network.output_heads",
        {"quantity_min": 9, "quantity_max": 9},
        "expected quantity_min < quantity_max, found 9 and 9",
    ),
    ("network.output_heads.action_dim", 3, "expected 5, found 3"),
    ("network.output_heads.value_estimation", False, "expected True, found False"),
    ("network.output_heads.q_learning_prep", False, "expected True, found False"),
    (
        "training",
        {"capital_min": 9, "capital_max": 8},
        "expected capital_min <= capital_max, found 9 and 8",
    ),
    (
        "training",
        {"min_segments": 3},
        "expected min_segments <= max_segments, found 3 and 2",
    ),
    (
        "instruments.TCS",
        {"option_premium_range": [0.2, 0.1]},
        "expected option_premium_range [low, high], found [0.2, 0.1]",
    ),
]


@pytest.mark.parametrize(
    ("where", "value", "message"), [*UNKNOWN_KEYS, *MISTYPED, *OUT_OF_RANGE, *IMPOSSIBLE]
)
def test_a_bad_value_is_refused_with_its_path_what_was_expected_and_what_was_found(
    where: str, value: object, message: str, tmp_path: Path
) -> None:
    where = where.replace("network", "hierarchical_reasoning_model")
    document = value
    for key in reversed(where.split(".")):
        document = {key: document}
    path = written(tmp_path, yaml.safe_dump(document))
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(f'{path}: {where}: {message}')}$"):
        load_settings(path)


def test_a_name_that_yaml_reads_as_a_number_is_a_name() -> None:
    assert parse_settings({"timeframes": {5: {"seconds": 7}}}).seconds("5") == 7


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"timeframes": {"weekly": {}}}, "timeframes.weekly.seconds: expected, but missing"),
        (
            {"timeframes": {"weekly": {"seconds": 1, "second": 7}}},
            "timeframes.weekly.second: unknown key; did you mean seconds? (found 7)",
        ),
        (
            {"timeframes": {5.5: {"seconds": 1}}},
            "timeframes.5.5.[key]: expected a valid string, found 5.5",
        ),
        (
            {"instruments": {"TCS": {"option_premium_range": [0.1]}}},
            "instruments.TCS.option_premium_range.1: expected, but missing",
        ),
    ],
)
def test_a_problem_within_a_value_is_named_by_its_own_path(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(f'here: {message}')}$"):
        parse_settings(document, source="here")


def test_every_problem_has_its_own_line() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_settings({"training": {"epochs": 0, "seed": -1}, "extra": 1}, source="here")
    assert str(caught.value).splitlines() == [
        "here: training.seed: expected greater than or equal to 0, found -1",
        "here: training.epochs: expected greater than or equal to 1, found 0",
        "here: extra: unknown key; check its name and its level (found 1)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training:\n  epochs: 1\n  epochs: 2\n",
            r"expected YAML: epochs is given twice\n.*line 2",
        ),
        ("training: {}\ntrading: {}\ntraining: {}\n", "expected YAML: training is given twice"),
        ("- 1\n", r"file: expected a valid dictionary or instance of Settings, found \[1\]"),
        ("just words\n", "file: expected a valid dictionary.*found 'just words'"),
        ("a: [\n", "expected YAML: while parsing a flow node"),
        (
            "training: !!python/object:os.system {}\n",
            "expected YAML: could not determine a constructor",
        ),
    ],
)
def test_a_file_that_is_not_one_mapping_of_yaml_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsInvalid, match=re.escape(f"{path}: ") + message):
        load_settings(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"absent.yaml: expected a readable settings file"):
        load_settings(tmp_path / "absent.yaml")


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsInvalid, match=r"settings.yaml: expected a readable settings file"):
        load_settings(tmp_path / "settings.yaml")
