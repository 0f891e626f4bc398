"""What is installed beside a host: our names alone, and the one command."""

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


PACKAGES = {
    "hrm_cli": ROOT / "cli/hrm_cli",
    "hrm_export": ROOT / "hrm_export",
    "hrm_runtime": ROOT / "hrm_runtime",
    "hrm_train": ROOT / "hrm_train",
}


def packages() -> set[str]:
    """What setuptools finds, by the words of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]
    return {
        name
        for where in found["where"]
        for name in find_packages(str(ROOT / where), include=found["include"])
    }


def test_nothing_is_installed_under_a_name_that_a_host_may_have() -> None:
    """Two distributions with one top-level package overwrite each other's files, silently."""
    assert {name.partition(".")[0] for name in packages()} == set(PACKAGES)


def test_every_module_is_in_a_package_that_is_found() -> None:
    """A folder of modules without `__init__.py` would be left out of the wheel, silently."""
    folders = {
        ".".join((name, *module.relative_to(root).parent.parts))
        for name, root in PACKAGES.items()
        for module in root.rglob("*.py")
    }
    assert folders == packages()


def test_every_package_says_that_it_is_typed() -> None:
    for root in PACKAGES.values():
        assert (root / "py.typed").is_file()


def test_the_command_is_ours() -> None:
    (command,) = entry_points(group="console_scripts", name="hrm")
    assert command.value == "hrm_cli.__main__:main"
