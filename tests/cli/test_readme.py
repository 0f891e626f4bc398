"""README.md followed from its first line to its last, as somebody would in a fresh clone.

All of it runs in one folder, in order: programs in an interpreter each, commands one by one. What
stands in for something larger is written here and nowhere else:

- `hrm-demo` is what a demo of few bars left, whose network trains in seconds;
- `models/base/artifact` is the frozen artifact of the tests, allowed to decide for every name;
- `hrm evaluate` grows no trees, which take longer than all the rest;
- `hrm bench` measures two rounds of as few passes as there may be;
- the lines of `SKIPPED` are not run.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, blocks, commands
from typer.testing import CliRunner

from hrm_cli.app import app
from hrm_runtime.measure import bench as measuring
from hrm_train.judging import baselines

README = ROOT / "README.md"
CARD = ROOT / "models" / "base" / "MODEL_CARD.md"

INSTALLS = "installs: packages come from a network, and CI does it"
SKIPPED = {
    "make demo": "installs, and trains for minutes: its folder is made here",
    "hrm demo": "trains for minutes: its folder is made here",
    "python3 -m venv .venv": INSTALLS,
    "python3 -m venv .venv-serve": INSTALLS,
    ". .venv/bin/activate": "of a shell: this test runs in the environment that it makes",
    "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": INSTALLS,
    'pip install --constraint constraints.txt ".[demo]"': INSTALLS,
    ".venv-serve/bin/pip install --constraint constraints.txt .": INSTALLS,
}
"""Lines that are not run, and why."""


@pytest.fixture
def clone(
    released: Path, demo_run: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A clone in which the demo has run."""
    shutil.copytree(released, tmp_path / "models" / "base" / "artifact")
    shutil.copytree(demo_run[0], tmp_path / "hrm-demo")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.delitem(baselines.BASELINES, "trees")
    for name, value in (("ROUNDS", 2), ("BATCH_ROUNDS", 2), ("TURN", 0.0)):
        monkeypatch.setattr(measuring, name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require(command: str) -> None:
    """Run a command, or an interpreter of our own with it; it must succeed."""
    program, *arguments = shlex.split(command)
    if program == "hrm":
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    else:
        assert program == "python", "expected a line that is run here, or one of SKIPPED"
        interpret(*arguments)


def interpret(*arguments: str) -> str:
    """What an interpreter of its own prints."""
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.usefixtures("clone", "quick_export")
def test_every_block_runs_as_written_in_order() -> None:
    skipped, decided = set(), 0
    for block in blocks(README):
        if block.language == "python":
            decided += "ok" in interpret("-c", block.text).split()
        elif block.language == "sh":
            for line, command in commands(block):
                if command in SKIPPED:
                    skipped.add(command)
                    continue
                try:
                    require(command)
                except AssertionError as error:
                    pytest.fail(f"README.md, line {line}: {command}\n{error}")
        else:  # what something prints
            where = f"README.md, line {block.line}: expected a block of output, python or sh"
            assert not block.language, where
            assert not re.search(r"^(hrm|make|pip|python|\.)\b", block.text, re.MULTILINE), where
    assert skipped == set(SKIPPED), "expected to skip no line that is not there"
    assert decided == 2  # both programs


@pytest.mark.usefixtures("clone")
def test_the_program_of_the_card_decides() -> None:
    (program,) = (block.text for block in blocks(CARD) if block.language == "python")
    assert ", ok, " in interpret("-c", program)


def test_the_version_of_torch_is_the_one_that_ci_uses() -> None:
    pinned = re.findall(r"^(torch==\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert re.findall(r"torch==[\d.]+", README.read_text(encoding="utf-8")) == pinned
