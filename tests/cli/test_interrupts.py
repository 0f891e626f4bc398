"""Ctrl-C and SIGTERM: what stands is whole and told, and training goes on as if none had come."""

import os
import pkgutil
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import typer
from command import hrm
from folders import content
from forks import forking
from synthetic import SMALL

from hrm_cli.__main__ import main
from hrm_cli.interrupts import SIGNALS, Interrupted, Interrupts, command_with, quoted
from hrm_cli.verbs.train import resumable
from hrm_train.errors import TrainingStopped
from hrm_train.settings import parse_settings, render

INTERRUPTED = Path(__file__).parents[1] / "support" / "interrupted.py"

IN_A_STEP = "hrm_train.learning.run.Average.update"
"""Called when the weights are those of the next step, and what counts steps is not yet."""
IN_VALIDATION = "hrm_train.learning.epochs.evaluate"

TRAINING = {"epochs": 2, "batch_size": 128, "ema_decay": 0.9, "save_minutes": 1e6}


@pytest.fixture(scope="module")
def place(few_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space in its name, of settings and the tensors made with them."""
    folder = tmp_path_factory.mktemp("a place")
    settings = parse_settings({**SMALL, "training": {**SMALL["training"], **TRAINING}})
    (folder / "settings.yaml").write_text(render(settings))
    done = hrm(*ask(folder, "prepare", "--out", folder / "bars.safetensors", data=few_bars))
    assert done.exit_code == 0, done.output
    return folder


def ask(place: Path, verb: str, *options: object, data: Path | None = None) -> list[str]:
    tensors = data or place / "bars.safetensors"
    return list(map(str, (verb, place / "settings.yaml", "--data", tensors, *options)))


Trained = Callable[..., dict[str, bytes]]


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The content of a folder of training, with some options, that nothing interrupted."""
    kept: dict[tuple[str, ...], dict[str, bytes]] = {}

    def train(*options: str) -> dict[str, bytes]:
        if options not in kept:
            out = tmp_path_factory.mktemp("whole") / "out"
            done = hrm(*ask(place, "train", "--out", out, *options))
            assert done.exit_code == 0, done.output
            kept[options] = content(out)
        return kept[options]

    return train


@pytest.fixture(scope="module")
def forks() -> Iterator[dict[str, str]]:
    """The environment in which `INTERRUPTED` is a fork of one process that has loaded torch."""
    with forking(INTERRUPTED, "--listen") as environment:
        yield {**os.environ, **environment}


Ended = tuple[int, str, list[str]]
"""The exit code of `hrm`, its standard output, and the lines of its standard error."""


def process_signalled(
    environment: Mapping[str, str],
    arguments: list[str],
    name: str,
    number: int,
    one: int,
    rank: int = 0,
) -> Ended:
    """How a process of its own ends that gets a signal when it is held."""
    process = subprocess.Popen(
        [sys.executable, INTERRUPTED, *arguments],
        env={**environment, "HELD": f"{rank} {name} {number}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said, pid = "", 0
    for line in process.stderr:
        if line.startswith("held "):
            pid = int(line.split()[1])
            break
        said += line
    assert pid, said
    os.kill(pid, one)
    out, err = process.communicate("\n")
    return process.returncode, out, (said + err).splitlines()


Signalled = Callable[..., Ended]


@pytest.fixture
def signalled(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Signalled]:
    """How `hrm` ends in this process, where the call of some number of a function gets signals."""

    def unexpected(number: int, _: object) -> None:
        raise AssertionError(f"signal {number}: expected hrm to take it")

    def run(arguments: list[str], name: str, number: int, *signals: int) -> Ended:
        place, _, attribute = name.rpartition(".")
        owner = pkgutil.resolve_name(place)
        function, calls = getattr(owner, attribute), count(1)

        def call(*given: Any, **named: Any) -> Any:
            if next(calls) == number:
                for one in signals:
                    signal.raise_signal(one)
            return function(*given, **named)

        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, call)
            patch.setattr(sys, "argv", ["hrm", *arguments])
            patch.setattr(sys, "orig_argv", [sys.executable, str(INTERRUPTED), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err.splitlines()

    before = {one: signal.signal(one, unexpected) for one in SIGNALS}
    yield run
    for one, handler in before.items():
        signal.signal(one, handler)


NOTICE = "hrm: stopping after this step; Ctrl-C again ends at once"


def test_training_that_is_interrupted_is_saved_and_the_line_it_prints_resumes_it(
    place: Path, trained: Trained, tmp_path: Path, forks: dict[str, str]
) -> None:
    """The process that is interrupted is no fork, but one as any shell starts it."""
    out = tmp_path / "it's here"
    arguments = ask(place, "train", "--out", out, "--device", "cpu", "--json")
    returned, printed, said = process_signalled(os.environ, arguments, IN_A_STEP, 3, signal.SIGINT)
    assert (returned, printed) == (130, "")
    assert NOTICE in said
    told, line = said[-2:]
    assert told.startswith(f"hrm: interrupted; {out} holds training up to ")
    assert told.endswith("step 3, in epoch 1 of 2; go on with")
    words = shlex.split(line)
    assert words == [sys.executable, str(INTERRUPTED), *arguments, "--resume"]
    assert content(out) != trained()
    resumed = subprocess.run(words, env=forks, capture_output=True, text=True, check=True)
    assert resumed.stderr.startswith(f"{out}: going on after ")
    assert resumed.stderr.splitlines()[0].endswith("step 3, in epoch 1 of 2")
    assert content(out) == trained()


def test_training_that_gets_sigterm_is_saved_and_goes_on(
    place: Path, trained: Trained, tmp_path: Path, signalled: Signalled
) -> None:
    out = tmp_path / "out"
    arguments = ask(place, "train", "--out", out, "--device", "cpu", "--json")
    returned, printed, said = signalled(arguments, IN_VALIDATION, 1, signal.SIGTERM)
    assert (returned, printed) == (143, "")
    assert NOTICE in said
    told, line = said[-2:]
    assert told.startswith(f"hrm: interrupted; {out} holds training up to ")
    assert told.endswith("the end of epoch 1 of 2; go on with")
    assert shlex.split(line) == [sys.executable, str(INTERRUPTED), *arguments, "--resume"]
    assert content(out) != trained()
    resumed = hrm(*arguments, "--resume")
    assert resumed.exit_code == 0
    assert resumed.stderr.startswith(f"{out}: going on after ")
    assert resumed.stderr.splitlines()[0].endswith("the end of epoch 1 of 2")
    assert content(out) == trained()


def test_a_second_ctrl_c_ends_at_once_and_tells_what_stands(
    place: Path, trained: Trained, tmp_path: Path, signalled: Signalled
) -> None:
    out = tmp_path / "out"
    arguments = ask(place, "train", "--out", out)
    returned, _, said = signalled(arguments, IN_A_STEP, 3, signal.SIGINT, signal.SIGINT)
    assert returned == 130
    assert said[-2] == f"hrm: interrupted; {out} holds what was saved before; go on with"
    again = hrm(*arguments, "--resume")
    assert f"{out}: going on after no step yet" in again.stderr
    assert content(out) == trained()


def test_a_second_sigterm_waits_as_the_first(
    place: Path, tmp_path: Path, signalled: Signalled
) -> None:
    out = tmp_path / "out"
    arguments = ask(place, "train", "--out", out)
    returned, _, said = signalled(arguments, IN_A_STEP, 2, signal.SIGTERM, signal.SIGTERM)
    assert returned == 143
    assert said.count(NOTICE) == 1
    assert said[-2].endswith("holds training up to step 2, in epoch 1 of 2; go on with")


def test_a_walk_forward_goes_on_in_the_fold_that_was_interrupted(
    place: Path, trained: Trained, tmp_path: Path, signalled: Signalled
) -> None:
    whole = trained("--folds", "2")
    out = tmp_path / "out"
    arguments = ask(place, "train", "--out", out, "--folds", "2")
    returned, _, said = signalled(arguments, IN_VALIDATION, 3, signal.SIGINT)
    assert returned == 130
    assert said[-2].startswith(f"hrm: interrupted; {out / 'fold-2'} holds training up to step ")
    again = hrm(*shlex.split(said[-1])[2:])
    assert again.exit_code == 0
    one, two, *_ = again.stderr.splitlines()
    assert one.startswith(f"{out / 'fold-1'}: going on after step ")
    assert one.endswith("the end of epoch 2 of 2")
    assert two.endswith("the end of epoch 1 of 2")
    assert content(out) == whole


def test_of_several_processes_all_stop_where_one_is_interrupted(
    place: Path, tmp_path: Path, forks: dict[str, str]
) -> None:
    """The exit code is that of Ctrl-C: the first process does not know what came to another."""
    arguments = ask(place, "train", "--devices", "2", "--device", "cpu", "--out")
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = [sys.executable, str(INTERRUPTED), *arguments]
    subprocess.run([*command, whole], env=forks, capture_output=True, check=True)
    returned, _, said = process_signalled(
        forks, [*arguments, str(out)], IN_A_STEP, 3, signal.SIGTERM, rank=1
    )
    assert returned == 130
    told = [line for line in said if line.startswith("hrm: ")]
    assert told == [
        f"hrm: interrupted; {out} holds training up to step 3, in epoch 1 of 2; go on with"
    ]
    resume = shlex.split(said[said.index(told[0]) + 1])
    subprocess.run(resume, env=forks, capture_output=True, check=True)
    assert content(out) == content(whole)


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("arguments", "name", "stands"),
    [
        (("prepare", "{settings}", "--data", "{bars}", "--out", "bars.safetensors"),
         "os.replace", "nothing was written"),
        (("train", "{settings}", "--data", "{bars}", "--out", "out"),
         "hrm_train.learning.trainer.load_or_prepare", "nothing was written"),
        (("train", "{settings}", "--data", "{bars}", "--out", "out", "--folds", "2"),
         "hrm_train.learning.trainer.walk_forward", "nothing was written"),
        (("export", "{checkpoint}", "--out", "artifact"),
         "hrm_export.exporter.write_files", "nothing was written"),
        (("evaluate", "{checkpoint}", "--data", "{bars}"),
         "hrm_train.judging.evaluation.judge", "nothing was written"),
        (("demo", "--out", "demo"),
         "hrm_cli.demo.parse_settings", "what it had made is removed"),
    ],
    ids=["prepare", "train", "folds", "export", "evaluate", "demo"],
)  # fmt: skip
def test_a_verb_that_is_interrupted_says_so_in_a_line_and_leaves_nothing(
    arguments: tuple[str, ...], name: str, stands: str, place: Path, few_bars: Path,
    checkpoint_folder: Path, tmp_path: Path, signalled: Signalled, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    there = {
        "settings": place / "settings.yaml", "bars": few_bars, "checkpoint": checkpoint_folder,
    }  # fmt: skip
    given = [argument.format(**there) for argument in arguments]
    one = signal.SIGTERM if given[0] == "export" else signal.SIGINT
    returned, printed, said = signalled(given, name, 1, one)
    assert (returned, printed, said[-1]) == (128 + one, "", f"hrm: interrupted; {stands}")
    assert not any("Traceback" in line for line in said)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_interrupted_removes_nothing_that_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("hrm_cli.demo.run", interrupted)
    (tmp_path / "mine").touch()
    assert hrm("demo", "--out", tmp_path).exit_code == 130
    assert (tmp_path / "mine").exists()


def test_a_process_that_is_not_the_first_stops_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a failure the launcher would kill the first, which still has to speak."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(typer.Exit) as ended, resumable(Path("out"), None):
        raise TrainingStopped("out holds")
    assert ended.value.exit_code == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("there", [False, True])
def test_a_resume_of_nothing_says_so(there: bool, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    done = hrm(*ask(place, "train", "--out", out, "--resume", "--json"))
    found = "nothing to resume in it" if there else "no such folder to resume"
    assert done.stderr.splitlines()[0] == f"{out}: {found}; training from the beginning"
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith('{"best_epoch"')


def test_signals_are_as_before_once_the_context_is_left() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_a_process_was_started_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert not interrupts.came()
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C does what it does at first; what a shell starts in its background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_a_signal_waits_only_once_somebody_asks(capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupts("wait") as interrupts:
        with pytest.raises(Interrupted) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 143
    with Interrupts("wait") as interrupts:
        assert not interrupts.came()
        assert interrupts.code == 130
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.came()
        assert interrupts.code == 143
        assert capfd.readouterr().err == "wait"
        with pytest.raises(Interrupted) as ended:
            signal.raise_signal(signal.SIGINT)
        assert ended.value.code == 130


@pytest.mark.parametrize(
    ("original", "arguments", "expected"),
    [
        (["/usr/bin/python3", "/on/path/hrm"], ["train", "a b"], "hrm train 'a b' --resume"),
        (["python3", "/off/path/hrm"], ["train", "x"], "/off/path/hrm train x --resume"),
        (["python", "-m", "hrm_cli"], ["train", "x"], "python -m hrm_cli train x --resume"),
        (["python", "here.py"], ["train", "x"], "python here.py train x --resume"),
        (["python", "-m", "hrm_cli"], ["train", "--resume", "x"],
         "python -m hrm_cli train --resume x"),
        (["python", "-m", "hrm_cli"], ["train", "--", "-x"],
         "python -m hrm_cli train --resume -- -x"),
    ],
)  # fmt: skip
def test_the_command_is_told_as_it_is_typed(
    original: list[str], arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [*original, *arguments])
    monkeypatch.setattr(sys, "argv", ["hrm", *arguments])
    monkeypatch.setattr("shutil.which", lambda name: f"/on/path/{name}")
    assert command_with("--resume") == expected


def test_words_are_quoted_for_the_shell_at_hand() -> None:
    words = ["hrm", "train", "my settings.yaml", "it's"]
    assert quoted(words, windows=False) == """hrm train 'my settings.yaml' 'it'"'"'s'"""
    assert quoted(words, windows=True) == """hrm train "my settings.yaml" it's"""
