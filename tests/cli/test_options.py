"""The options of all verbs: one name for one thing, its earlier names, and a word of help."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from synthetic import random_bars
from typer.testing import CliRunner

import hrm_cli.verbs
import hrm_runtime
from hrm_cli.app import VERBS as NAMES
from hrm_cli.app import app
from hrm_cli.options import Device
from hrm_cli.verbs.backtest import RulesName
from hrm_runtime.artifact.contract import FORMAT_VERSION
from hrm_runtime.backtest.rules import RULES
from hrm_runtime.market.csv_files import write_csv
from hrm_train.learning import devices

ARTIFACT = Path(__file__).parents[1] / "data" / f"artifact-{FORMAT_VERSION}"
COMMAND: Any = typer.main.get_command(app)
VERBS: dict[str, Any] = COMMAND.commands

DONE, BAD_INPUT = 0, 2

ACCOUNT = "--capital --position --entry-price --unrealized-pnl --distance-to-trail"
SERIES = "--data --instrument --timeframe"
TABLE = {
    "init": "DIR --preset --add",
    "prepare": "SETTINGS --data --out --json",
    "train": "SETTINGS --data --out --resume --init-from --quantise --folds --device --devices "
    "--nodes --tensorboard --json",
    "evaluate": "CHECKPOINT --data --device --json",
    "export": "CHECKPOINT --out --precision --calibration --golden --cycles --timesteps "
    "--max-megabytes --json",
    "parity": "ARTIFACT --checkpoint --data --windows --json",
    "inspect": "ARTIFACT --json",
    "predict": f"ARTIFACT {SERIES} {ACCOUNT} --json",
    "bench": "ARTIFACT --peers --picture --json",
    "backtest": f"ARTIFACT {SERIES} --capital --since --rules --picture --json",
    "trace": f"ARTIFACT {SERIES} --picture {ACCOUNT} --json",
    "replay": "JOURNAL --artifact --json",
    "demo": "--out --artifact",
}
"""What each verb takes, by the one name it has everywhere.

--data: bars. --picture: a PNG file. --out: the new file or folder that a verb is for. --artifact
and --checkpoint: where the verb's argument is something else. --calibration and --golden are bars
of which an export may take both.
"""

EARLIER = {"--data": "--bars", "--picture": "--out", "--artifact": "--model"}
"""Another name that each of these answers to, wherever it is."""


def hrm(*arguments: object, **environment: str) -> Any:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, prog_name="hrm", env=environment)


def test_every_verb_is_a_module_that_is_listed_once() -> None:
    modules = [module.name for module in pkgutil.iter_modules(hrm_cli.verbs.__path__)]
    assert sorted(NAMES) == sorted(modules) == sorted(VERBS)
    assert list(NAMES) == list(VERBS)


def is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


# names


def test_the_rules_are_those_of_the_library() -> None:
    assert tuple(name.value for name in RulesName) == tuple(RULES)


def test_the_devices_are_those_of_the_library() -> None:
    assert tuple(name.value for name in Device) == get_args(devices.Device)


def test_one_thing_has_one_name_in_all_verbs() -> None:
    found = {
        verb: {
            name
            for parameter in command.params
            for name in ([parameter.metavar] if is_argument(parameter) else parameter.opts)
        }
        for verb, command in VERBS.items()
    }
    assert found == {verb: {*names.split()} for verb, names in TABLE.items()}


@pytest.mark.parametrize(
    ("verb", "name"),
    [(verb, name) for verb, names in TABLE.items() for name in EARLIER if name in names.split()],
)
def test_an_earlier_name_is_the_same_and_not_shown(verb: str, name: str) -> None:
    assert EARLIER[name] not in TABLE[verb].split()
    values = parsed(verb, name, name)
    assert "given" in str(values)
    assert parsed(verb, name, EARLIER[name]) == values
    assert parsed(verb, name, EARLIER[name], joined=True) == values
    assert EARLIER[name] not in hrm(verb, "--help").stdout.split()


def parsed(verb: str, name: str, spelled: str, joined: bool = False) -> dict[str, Any]:
    """What a verb takes the option `name` to be, called `spelled`, with all that it needs."""
    words = []
    for parameter in VERBS[verb].params:
        if is_argument(parameter):
            words.append("here")
        elif parameter.required and name not in parameter.opts:
            words += [parameter.opts[0], "there"]
    words += [f"{spelled}=given"] if joined else [spelled, "given"]
    found: dict[str, Any] = VERBS[verb].make_context(verb, words).params
    return found


def test_out_is_a_picture_only_where_there_is_one() -> None:
    assert str(parsed("prepare", "--out", "--out")["out"]) == "given"
    result = hrm("inspect", ARTIFACT, "--bars", "x")
    assert result.exit_code == BAD_INPUT
    assert "No such option" in result.stderr


# help


def test_everything_has_a_word_of_help() -> None:
    silent = [
        (verb, parameter.name)
        for verb, command in {**VERBS, "hrm": COMMAND}.items()
        for parameter in command.params
        if not (parameter.help or "").strip()
    ]
    assert silent == []
    assert [verb for verb, command in VERBS.items() if not command.help] == []


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in TABLE)], ids="".join)
def test_help_has_a_short_name(verb: tuple[str, ...]) -> None:
    short, long = hrm(*verb, "-h"), hrm(*verb, "--help")
    assert (short.exit_code, short.stdout) == (DONE, long.stdout)
    assert f"Usage: hrm {''.join(verb)}" in short.stdout


def test_the_exit_codes_are_told() -> None:
    codes = (
        "Exit codes: 0 done, 1 a gate failed or a replay differed, 2 bad input or usage, 130 "
        "Ctrl-C, 143 SIGTERM."
    )
    assert codes in " ".join(hrm("--help").stdout.split())


# the version


def test_the_version_is_printed_alone_and_without_a_training_library() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'talib', 'matplotlib', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "from hrm_cli.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (DONE, "")
    assert done.stdout == f"hrm {hrm_runtime.__version__}\n" == hrm("--version").stdout


# completion


@pytest.mark.parametrize(
    ("words", "found"),
    [("hrm pr", ["prepare", "predict"]), ("hrm replay --a", ["--artifact"])],
)
def test_a_shell_completes_verbs_and_options(words: str, found: list[str]) -> None:
    completing = {
        "_HRM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert hrm(**completing).stdout.split() == found


def test_completion_can_be_installed() -> None:
    names = {name for parameter in COMMAND.params for name in parameter.opts}
    assert {"--install-completion", "--show-completion"} <= names


# which series


@pytest.fixture(scope="module")
def alpha(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bars of Alpha at 5, under four names."""
    folder = tmp_path_factory.mktemp("alpha")
    for name in ("Alpha_5.csv", "feed.csv", "Gamma_15.csv", "EUR%2FUSD_5.csv"):
        write_csv(random_bars(420, seed=36), folder / name)
    return folder


def decided(verb: str, folder: Path, *options: object) -> Any:
    """What a verb says of the series that it is given by `options`, but for the time it took."""
    picture = ("--picture", folder / "one.png") if verb == "trace" else ()
    result = hrm(verb, ARTIFACT, *options, *picture, "--json")
    assert result.exit_code == DONE, result.output
    return json.loads(
        result.stdout, object_hook=lambda d: {k: v for k, v in d.items() if k != "latency_ms"}
    )


DECIDING = ["predict", "trace", "backtest"]


@pytest.mark.parametrize("verb", DECIDING)
def test_a_series_is_named_by_its_file_or_by_options(
    verb: str, alpha: Path, tmp_path: Path
) -> None:
    expected = decided(verb, tmp_path, "--data", alpha / "Alpha_5.csv")
    instrument, timeframe = ("--instrument", "Alpha"), ("--timeframe", "5")
    for file, options in (
        ("Alpha_5.csv", (*instrument, *timeframe)),
        ("Alpha_5.csv", timeframe),
        ("feed.csv", (*instrument, *timeframe)),
        ("Gamma_15.csv", (*instrument, *timeframe)),
        ("EUR%2FUSD_5.csv", instrument),
    ):
        assert decided(verb, tmp_path, "--data", alpha / file, *options) == expected


def test_predict_shows_the_series_that_its_file_names(alpha: Path) -> None:
    assert "Alpha 5" in hrm("predict", ARTIFACT, "--data", alpha / "Alpha_5.csv").stdout


@pytest.mark.parametrize("verb", DECIDING)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "EUR%2FUSD_5.csv"), "expected one of Alpha, Beta; found 'EUR/USD'"),
        (
            ("--data", "Alpha_5.csv", "--instrument", "EUR/USD"),
            "expected one of Alpha, Beta; found 'EUR/USD'",
        ),
        (("--data", "Alpha_5.csv", "--timeframe", "60"), "found '60'"),
        (("--data", "feed.csv", "--instrument", "Alpha"), "or give both --instrument and --timef"),
        (
            ("--data", "Alpha_5.csv", "--data", "Gamma_15.csv", "--instrument", "Alpha"),
            "instrument: expected to name one bars file, found Alpha_5.csv, Gamma_15.csv; give",
        ),
        (("--data", ".", "--timeframe", "5"), "timeframe: expected to name one bars file, found "),
        (
            ("--data", "feed.csv", "--instrument", "", "--timeframe", "5"),
            "instrument: expected a n",
        ),
        (("--data", "absent_5.csv"), "absent_5.csv: expected a bars file or a folder of"),
    ],
)
def test_a_series_that_cannot_be_told_is_refused(
    verb: str,
    options: tuple[str, ...],
    message: str,
    alpha: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(alpha)
    picture = ("--picture", tmp_path / "one.png") if verb == "trace" else ()
    result = hrm(verb, ARTIFACT, *options, *picture)
    assert result.exit_code == BAD_INPUT
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["predict", "trace"])
def test_a_decision_is_about_one_series(verb: str, alpha: Path, tmp_path: Path) -> None:
    picture = ("--picture", tmp_path / "one.png") if verb == "trace" else ()
    files = [alpha / "Alpha_5.csv", alpha / "Gamma_15.csv"]
    result = hrm(verb, ARTIFACT, "--data", files[0], "--data", files[1], *picture)
    assert result.exit_code == BAD_INPUT
    given = ", ".join(map(str, files))
    assert f"hrm: {given}: expected one bars file, found 2\n" in result.stderr
