"""Our sections in a host's file: they are read strictly, and the host's are left alone."""

import re
from pathlib import Path

import pytest

from hrm_train import load_settings
from hrm_train.errors import SettingsInvalid
from hrm_train.settings import Settings, parse_settings, preset, render

HOST = """\
# a trading process
environment: &environment
  lookback_window: 50
  initial_capital: 100000
  initial_capital: 200000  # a host may read its own file as it likes
agents: [ppo, moe, {name: hrm, weight: !percent 40}]
log_level: INFO
paths: !path {data: ./data}
risk:
  <<: *environment
  stop: {atr: 1.5, atr: 2}
? [complex, key]
: 1
feed: *environment
timeframe: 5
tracking: {uri: "http://localhost"}
environment: {twice: yes}
trading:
  symbol: Nifty
  max_positions: 2
training:
  total_timesteps: 1000000
  gamma: 0.99
instruments:
  - {name: Nifty, lot_size: 75}
timeframes: ["1", "5", D]
"""

OURS = """\
hierarchical_reasoning_model:
  h_module: {num_layers: 2}
"""

INSIDE = """\
  training: {epochs: 7, batch_size: 64}
  trading: {stop_atr: 2.5}
  instruments: {Nifty: {type: index, lot_size: 75}}
  timeframes: {weekly: {seconds: 604800}}
"""

NETWORK = "hierarchical_reasoning_model"

INSIDE_PARSED = {
    NETWORK: {"h_module": {"num_layers": 2}},
    "training": {"epochs": 7, "batch_size": 64},
    "trading": {"stop_atr": 2.5},
    "instruments": {"Nifty": {"type": "index", "lot_size": 75}},
    "timeframes": {"weekly": {"seconds": 604_800}},
}


def load(folder: Path, text: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def refused(folder: Path, text: str) -> str:
    """What is said of a file, without its name."""
    with pytest.raises(SettingsInvalid) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder / 'settings.yaml'}: ", "")


@pytest.mark.parametrize("text", [HOST + OURS, OURS + HOST])
def test_a_hosts_sections_are_left_alone_whatever_they_are(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, text) == parse_settings({NETWORK: {"h_module": {"num_layers": 2}}})


def test_ours_stand_inside_our_section_beside_a_hosts_of_the_same_names(tmp_path: Path) -> None:
    settings = load(tmp_path, HOST + OURS + INSIDE)
    assert settings == parse_settings(INSIDE_PARSED)
    assert (settings.training.epochs, settings.trading.stop_atr) == (7, 2.5)
    assert settings.instruments["Nifty"].lot_size == 75
    assert settings.seconds("weekly") == 604_800


def test_ours_stand_inside_our_section_in_a_file_of_our_own(tmp_path: Path) -> None:
    assert load(tmp_path, OURS + INSIDE) == parse_settings(INSIDE_PARSED)
    assert render(load(tmp_path, OURS + INSIDE)) == render(parse_settings(INSIDE_PARSED))
    nested = {NETWORK: INSIDE_PARSED[NETWORK] | {"training": INSIDE_PARSED["training"]}}
    assert parse_settings(nested).training == parse_settings(INSIDE_PARSED).training


def test_a_section_at_the_top_of_a_hosts_file_is_ours_if_all_its_keys_are(tmp_path: Path) -> None:
    text = "environment: {}\n" + OURS + "training: {epochs: 7, seed: 3}\n"
    settings = load(tmp_path, text)
    assert (settings.training.epochs, settings.training.seed) == (7, 3)
    facts = "instruments: {Nifty: {lot_size: 75}, TCS: {}}\ntimeframes: {W: {seconds: 604800}}\n"
    settings = load(tmp_path, text + facts)
    assert {name: one.lot_size for name, one in settings.instruments.items()} == {
        "Nifty": 75, "TCS": 1,
    }  # fmt: skip
    assert settings.seconds("W") == 604_800


@pytest.mark.parametrize(
    "section",
    [
        "training: {epochs: 7, gamma: 0.99}",
        "training: {epochs: 7, epochs: 8}",
        "training: &us {epochs: 7, us: *us}",
        "instruments: {Nifty: {lot_size: 75, symbol: NIFTY}}",
        "Training: {epochs: 7}",
    ],
)
def test_once_ours_stands_inside_any_at_the_top_is_the_hosts(section: str, tmp_path: Path) -> None:
    settings = load(tmp_path, f"environment: 1\n{section}\n{OURS}{INSIDE}")
    assert settings == parse_settings(INSIDE_PARSED)


def test_a_file_of_our_names_may_have_the_hosts_trading_beside_ours_inside(tmp_path: Path) -> None:
    settings = load(tmp_path, f"trading: {{symbol: !host Nifty}}\n{OURS}{INSIDE}")
    assert settings == parse_settings(INSIDE_PARSED)


def test_ours_may_use_what_a_host_has_named(tmp_path: Path) -> None:
    text = (
        "shared: &shared {epochs: 7, seed: 3}\n"
        "hierarchical_reasoning_model:\n"
        "  training: {<<: *shared, seed: 4}\n"
        "  trading: &trading {stop_atr: 2}\n"
    )
    settings = load(tmp_path, text)
    assert (settings.training.epochs, settings.training.seed) == (7, 4)
    assert settings.trading.stop_atr == 2
    assert load(
        tmp_path, f"defaults: &all\n  {NETWORK}: {{training: {{epochs: 7}}}}\n<<: *all\n"
    ) == (parse_settings({"training": {"epochs": 7}}))


def test_a_host_may_have_our_name_below_its_own_beside_our_section(tmp_path: Path) -> None:
    text = f"log_levels: {{{NETWORK}: DEBUG}}\nweights: [{{{NETWORK}: {{share: 0.4}}}}]\n"
    assert load(tmp_path, text + OURS).network.h_module.num_layers == 2


THE_HOSTS = f"If it is the host's, write ours as {NETWORK}.training"
MISSING = f"file: expected {NETWORK} at the top, found "
BAD: dict[str, tuple[str, str]] = {
    "no section of ours": (
        HOST,
        MISSING + "only environment, agents, log_level and 10 more, which are not ours; add it "
        "with hrm init FOLDER --add",
    ),
    "the others of ours alone": (
        "environment: 1\ntraining: {epochs: 3}\n",
        MISSING + "only environment, which are not ours; add it with hrm init FOLDER --add",
    ),
    "misspelt": (
        HOST + OURS.replace("model", "modle"),
        "hierarchical_reasoning_modle: unknown key; did you mean hierarchical_reasoning_model?",
    ),
    "misspelt beside ours": (
        "environment: 1\n" + OURS + "Hierarchical-Reasoning-Model: {}\n",
        "Hierarchical-Reasoning-Model: unknown key; did you mean hierarchical_reasoning_model?",
    ),
    "a shared one misspelt": (
        "environment: 1\n" + OURS + "trainning: {epochs: 3}\n",
        "trainning: unknown key; did you mean training? " + THE_HOSTS,
    ),
    "a shared one misspelt in our own file": (
        OURS + "Training: {epochs: 3}\n",
        "Training: unknown key; did you mean training? " + THE_HOSTS,
    ),
    "a key misspelt in a shared one": (
        "environment: 1\n" + OURS + "training: {epoch: 3}\n",
        "training.epoch: unknown key; did you mean epochs? (found 3)",
    ),
    "a key misspelt in ours": (
        HOST + OURS + "  l_modul: {}\n",
        f"{NETWORK}.l_modul: unknown key; did you mean l_module? (found {{}})",
    ),
    "a key misspelt inside ours": (
        HOST + OURS + INSIDE.replace("epochs", "epoch"),
        f"{NETWORK}.training.epoch: unknown key; did you mean epochs? (found 7)",
    ),
    "a wrong value inside ours": (
        HOST + OURS + INSIDE.replace("2.5", "-1"),
        f"{NETWORK}.trading.stop_atr: expected greater than 0, found -1",
    ),
    "foreign keys in ours": (
        HOST + OURS + "  environment: {}\n",
        f"{NETWORK}.environment: unknown key; check its name and its level (found {{}})",
    ),
    "one of both": (
        "environment: 1\n" + OURS + "training: {epochs: 3, gamma: 0.99, n_steps: 4}\n",
        ("training: expected keys of ours alone, or of the host's alone, found ours (epochs) "
        f"beside others (gamma, n_steps); write ours as {NETWORK}.training, {{}} if there are "
        "none, and this section is left to the host"),
    ),
    "facts of both": (
        "environment: 1\n" + OURS + "instruments: {Nifty: {lot_size: 75}, TCS: stock}\n",
        ("instruments: expected keys of ours alone, or of the host's alone, found ours (lot_size) "
        f"beside others (TCS); write ours as {NETWORK}.instruments, {{}} if there are none, and "
        "this section is left to the host"),
    ),
    "a host's section in a file of our names": (
        OURS + "trading: {symbol: Nifty}\n",
        ("trading.symbol: unknown key; check its name and its level, or, if trading is the host's, "
        f"write ours as {NETWORK}.trading (found 'Nifty')"),
    ),
    "inside and at the top": (
        "training: {epochs: 3}\n" + OURS + INSIDE,
        f"training: expected once, found at the top and inside {NETWORK}; remove one",
    ),
    "below a host's": (
        "models:\n  - " + OURS.replace("\n  ", "\n      "),
        MISSING + f"it as models.0.{NETWORK}; move it there",
    ),
    "below a host's and misspelt": (
        "models: {hierarchical_reasoning_modle: {}}\n",
        MISSING + "it as models.hierarchical_reasoning_modle; move it there",
    ),
    "below a host's and at the top": (
        f"models: {{{NETWORK}: {{training: {{epochs: 9}}}}}}\n" + OURS,
        (f"models.{NETWORK}: expected {NETWORK} once, found it here and at the top; remove one of "
        "them"),
    ),
    "a part at the top": (
        HOST + "l_module: {num_heads: 2}\n" + OURS,
        f"l_module: unknown key; it belongs in {NETWORK}",
    ),
    "a part alone": (
        "h_module: {}\n",
        f"h_module: unknown key; it belongs in {NETWORK}",
    ),
    "a key at the top of our own file": (
        OURS + "max_segments: 3\n",
        "max_segments: unknown key; it belongs in training",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_ours_is_named_with_its_path_and_what_to_do(
    case: str, tmp_path: Path
) -> None:
    text, message = BAD[case]
    assert refused(tmp_path, text) == message


PART = f"unknown key; did you mean {{}}, in {NETWORK}?"
KEY = "unknown key; did you mean {}, in {}?"
RENAMED = (
    "unknown key; all in it is ours, did you mean {}? If it is the host's, write ours as "
    f"{NETWORK}.{{}}, {{{{}}}} if there are none"
)
NEAR = {
    "h_modul: {hidden_dim: 64}": PART.format("h_module"),
    "h_modul: {hidden_dims: 64}": PART.format("h_module"),
    "h_modul:": PART.format("h_module"),
    "H_module: {hidden_dim: 64}": PART.format("h_module"),
    "l-module: {hidden_dim: 64}": PART.format("l_module"),
    "embedding: {allow_unknown_instruments: true}": PART.format("embeddings"),
    "output_head: {quantity_max: 10}": PART.format("output_heads"),
    "inputs: {window: 100}": PART.format("input"),
    "Epochs: 3": KEY.format("epochs", "training"),
    "epoch: 3": KEY.format("epochs", "training"),
    "learning-rate: 0.5": KEY.format("learning_rate", "training"),
    "n_cycles: 2": KEY.format("N_cycles", f"{NETWORK}.hierarchical"),
    "trainer: {epochs: 3}": RENAMED.format("training", "training"),
    "trading_rules: {stop_atr: 9}": RENAMED.format("trading", "trading"),
    "symbols: {Nifty: {lot_size: 75}}": RENAMED.format("instruments", "instruments"),
    "encoder: {hidden_dim: 64}": RENAMED.format(
        f"{NETWORK}.h_module or {NETWORK}.l_module", "h_module"
    ),
    "training.epochs: 3": "unknown key; write epochs in training, without dots",
    "training.epoch: 3": "unknown key; write epochs in training, without dots",
    "h_module.hidden_dim: 64": f"unknown key; write hidden_dim in {NETWORK}.h_module, without dots",
    f"{NETWORK}.training.epochs: 3": "unknown key; write epochs in training, without dots",
    "instruments.Nifty.lot_size: 75": (
        "unknown key; write lot_size in instruments.Nifty, without dots"
    ),
}


@pytest.mark.parametrize("line", NEAR)
def test_a_near_miss_at_the_top_is_named_with_the_key_meant(line: str, tmp_path: Path) -> None:
    name = line.partition(":")[0]
    message = f"{name}: {NEAR[line]}"
    assert refused(tmp_path, f"{NETWORK}: {{}}\n{line}\n") == message
    unknown = "training: {epoch_count: 3}\n"  # is told once the near miss is mended
    assert refused(tmp_path, f"{NETWORK}: {{}}\n{line}\n{unknown}") == message


@pytest.mark.parametrize(
    "line",
    [
        "H_module: {hidden_dim: 64}",
        "hierarchical: {n_cycles: 7}",
        "training.epochs: 3",
        f"{NETWORK}.training.epochs: 3",
    ],
)
def test_what_is_no_host_s_is_told_beside_the_host_s_keys_too(line: str, tmp_path: Path) -> None:
    name = line.rpartition(":")[0].partition(":")[0]
    assert refused(tmp_path, f"environment: 1\n{OURS}{line}\n").startswith(f"{name}: unknown key; ")


@pytest.mark.parametrize(
    "theirs",
    [
        "inputs: data.csv",
        "embedding: {kind: words}",
        "environment: 1\nepoch: 3",
        "environment: 1\ntrainer: {epochs: 3}",
        "environment: 1\ninput.path: bars",
        "logging.level: INFO",
        f"use_{NETWORK}: true",
        f"{NETWORK}_path: models/x",
        f"{NETWORK}_v2: true",
        f"{NETWORK}_v2: {{path: models/x}}",
        f"{NETWORK}_old: {{training: {{epochs: 1}}}}",
        f"models: {{{NETWORK}_old: {{input: data.csv}}}}",
        f"models: {{use_{NETWORK}: true}}",
    ],
)
def test_a_host_has_names_that_resemble_ours(theirs: str, tmp_path: Path) -> None:
    assert load(tmp_path, f"{theirs}\n{OURS}").network.h_module.num_layers == 2


@pytest.mark.parametrize(
    "theirs",
    ["trainer: {epochs: 3}", "environment: 1\ntraining.epochs: 3", "environment: {seed: 3}"],
)
def test_once_ours_stands_inside_a_section_of_our_keys_is_the_hosts(
    theirs: str, tmp_path: Path
) -> None:
    assert load(tmp_path, f"{theirs}\n{OURS}  training: {{}}\n").training.epochs == 20


@pytest.mark.parametrize(
    ("merged", "found"), [("5", "5"), (NETWORK, NETWORK), ("[5]", "5"), ("[[5]]", "a list")]
)
def test_a_merge_of_no_mapping_is_refused(merged: str, found: str, tmp_path: Path) -> None:
    message = f"expected YAML: expected << to merge a mapping or a list of them, found {found}; "
    assert refused(tmp_path, f"{OURS}<<: {merged}\n").startswith(message)


@pytest.mark.parametrize("name", [NETWORK, "training"])
def test_a_section_of_ours_that_is_given_twice_is_refused(name: str, tmp_path: Path) -> None:
    text = f"environment: 1\n{name}: {{}}\n{name}: {{}}\n"
    if name != NETWORK:
        text = text.replace("{}", "{epochs: 3}") + OURS
    assert refused(tmp_path, text).startswith(f"expected YAML: {name} is given twice\n")


def test_every_misplaced_section_has_its_own_line(tmp_path: Path) -> None:
    text = HOST + "Training: {epochs: 3}\nh_module: {num_layers: 1}\n" + OURS
    lines = refused(tmp_path, text).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Training", "h_module"]


def test_a_hosts_input_and_embeddings_are_no_parts_of_ours(tmp_path: Path) -> None:
    text = "environment: 1\ninput: {path: bars}\nembeddings: {kind: words}\n"
    assert load(tmp_path, text + OURS).network.h_module.num_layers == 2


def test_nodes_that_hold_themselves_or_each_other_many_times_are_read(tmp_path: Path) -> None:
    doubled = "".join(f"b{n}: &b{n} [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 60))
    merged = "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 60))
    text = f"a: &a {{a: *a}}\nb0: &b0 [x]\n{doubled}m0: &m0 {{k: 1}}\n{merged}training: *m59\n"
    assert load(tmp_path, text + OURS).network.h_module.num_layers == 2


def test_a_file_of_our_own_reads_as_before(tmp_path: Path) -> None:
    assert load(tmp_path, "training: {epochs: 3}\n") == parse_settings({"training": {"epochs": 3}})
    assert load(tmp_path, "") == preset("base")
    assert re.match("expected YAML: .*single document", refused(tmp_path, "{}\n---\n{}\n"))
