"""docs/guarantees.md: each promise has tests, and each test is there."""

import ast
import re
from functools import cache

import pytest
from documents import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

PACKAGES = {
    "hrm_runtime": "hrm_runtime/README.md",
    "hrm_train": "hrm_train/README.md",
    "hrm_export": "hrm_export/README.md",
    "hrm_cli": "cli/README.md",
}

NODE = re.compile(r"^    - `(?P<file>tests/[\w/]+\.py)::(?P<test>\w+)`$", re.MULTILINE)


def guarantees(package: str) -> dict[str, list[tuple[str, str]]]:
    """Of a package: each promise in its words, and its tests by file and name."""
    section = PAGE.split(f"\n## {package}\n")[1].split("\n## ")[0]
    promises = re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    return {promise.split("\n\n")[0]: NODE.findall(promise) for promise in promises}


@cache
def defined_in(file: str) -> frozenset[str]:
    """The names of the tests of a file, which is parsed and not imported."""
    path = ROOT / file
    assert path.exists(), f"{file}: expected a file of tests, found none"
    return frozenset(
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_each_package_has_its_guarantees() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == [*PACKAGES]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_guarantee_is_without_a_test(package: str) -> None:
    found = guarantees(package)
    assert len(found) >= 5
    assert [promise for promise, tests in found.items() if not tests] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_test_that_is_named_is_there(package: str) -> None:
    named = [node for tests in guarantees(package).values() for node in tests]
    assert [f"{file}::{test}" for file, test in named if test not in defined_in(file)] == []


def test_everything_that_looks_like_a_test_on_the_page_is_read_as_one() -> None:
    read = [f"{file}::{test}" for package in PACKAGES for tests in guarantees(package).values()
            for file, test in tests]  # fmt: skip
    items = PAGE[PAGE.index("\n## hrm_runtime") :]
    assert re.findall(r"tests/\S+?(?=`)", items) == read


@pytest.mark.parametrize(("package", "readme"), PACKAGES.items())
def test_a_readme_leads_there_and_repeats_nothing(package: str, readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert f"](../docs/guarantees.md#{package})" in text
    assert [promise for promise in guarantees(package) if f"- {promise}" in text] == []
