"""What is installed beside a host: our names alone, and the one command."""

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def test_nothing_is_installed_under_a_name_that_a_host_may_have() -> None:
    """Two distributions with one top-level package overwrite each other's files, silently."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]
    packages = {
        name
        for where in found["where"]
        for name in find_packages(str(ROOT / where), include=found["include"])
    }
    assert {name.partition(".")[0] for name in packages} == {
        "hrm_cli",
        "hrm_export",
        "hrm_runtime",
        "hrm_train",
    }


def test_the_command_is_ours() -> None:
    (command,) = entry_points(group="console_scripts", name="hrm")
    assert command.value == "hrm_cli.__main__:main"
