"""What a release says of itself, in several files, and what its workflows run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

HEAD = re.compile(r"^## (?P<version>\S+), (?P<when>unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)
"""The first one of CHANGELOG.md is the version at hand."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.fixture
def citation() -> dict[str, Any]:
    return yaml.safe_load(read("CITATION.cff"))


# what is said twice


def test_the_version_is_the_same_wherever_it_stands(
    project: dict[str, Any], citation: dict[str, Any]
) -> None:
    head = HEAD.search(read("CHANGELOG.md"))
    assert head
    assert project["version"] == citation["version"] == head["version"]


def test_a_release_has_one_date_and_what_is_unreleased_has_none(citation: dict[str, Any]) -> None:
    head = HEAD.search(read("CHANGELOG.md"))
    assert head
    assert str(citation.get("date-released", "unreleased")) == head["when"]


def test_the_address_is_the_same_wherever_it_stands(
    project: dict[str, Any], citation: dict[str, Any]
) -> None:
    assert project.get("urls", {}).get("Repository") == citation.get("repository-code")


def test_the_licence_is_the_same_wherever_it_stands(
    project: dict[str, Any], citation: dict[str, Any]
) -> None:
    assert project["license"] == citation["license"]
    assert not any("License ::" in one for one in project["classifiers"]), "the expression says it"


def test_what_an_index_shows_has_no_link_into_the_repository(project: dict[str, Any]) -> None:
    links = re.findall(r"\]\(([^)]*)\)|^\[[^]]+\]: *(\S+)", read(project["readme"]), re.MULTILINE)
    assert [link for both in links for link in both if link and "://" not in link] == []


def test_what_an_index_shows_names_every_extra_but_that_of_developers(
    project: dict[str, Any],
) -> None:
    shown = set(re.findall(r"`(\w+)`", read(project["readme"])))
    assert set(project["optional-dependencies"]) - {"dev"} <= shown


# workflows


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def test_there_are_workflows() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"check", "release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_nothing_but_what_the_makefile_has(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    steps = [step for job in jobs(path).values() for step in job.get("steps", ())]
    lines = {step["run"] for step in steps if "run" in step}
    assert lines
    assert lines <= {f"make {target}" for target in targets}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_little_and_not_for_long(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job or job["uses"].startswith("./")
        for step in job.get("steps", ()):
            assert re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", step.get("uses", "a@v1"))


def test_only_jobs_that_run_nothing_of_ours_may_sign_and_publish() -> None:
    writing = {
        (path.stem, name): job
        for path in WORKFLOWS
        for name, job in jobs(path).items()
        if "write" in job.get("permissions", {}).values()
    }
    assert {key: {*job["permissions"]} for key, job in writing.items()} == {
        ("docs", "publish"): {"pages", "id-token"},
        ("release", "publish"): {"attestations", "id-token"},
    }
    for job in writing.values():
        assert not any("run" in step for step in job["steps"])
        assert not any("checkout" in step["uses"] for step in job["steps"])
    assert set(writing["release", "publish"]["needs"]) == {"check", "build"}


def test_a_site_is_published_from_main_alone_and_where_the_host_was_told_to() -> None:
    publish = jobs(ROOT / ".github/workflows/docs.yml")["publish"]
    assert publish["needs"] == "docs"
    assert publish["if"] == "github.event_name == 'push' && vars.PUBLISH_DOCS == 'true'"
