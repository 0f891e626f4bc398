"""The site that `make docs` builds: what stands in it, its links, and what it must not load."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from documents import ROOT

import hrm_export
import hrm_runtime
import hrm_train

HOOKS = ROOT / "docs" / "hooks"
POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'


def hook(name: str) -> ModuleType:
    """A file of `docs/hooks`, as MkDocs loads it: by its path."""
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository() -> ModuleType:
    return hook("repository")


@pytest.fixture(scope="module")
def offline() -> ModuleType:
    return hook("offline")


@pytest.fixture
def several_names(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With griffe or without it, which only `.venv-docs` has."""
    monkeypatch.setitem(sys.modules, "griffe", SimpleNamespace(Extension=object, Object=object))
    return hook("several_names")


# the API


@pytest.mark.parametrize("package", [hrm_runtime, hrm_train, hrm_export], ids=lambda p: p.__name__)
def test_every_public_name_is_on_a_page(package: ModuleType) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    shown = {*re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    missing = {f"{package.__name__}.{name}" for name in package.__all__} - shown
    errors = {f"hrm_runtime.{name}" for name in hrm_runtime.errors.__all__}
    assert "hrm_runtime.errors" in shown, "it shows them all"
    assert missing - errors == set()


def test_names_that_share_their_words_become_entries_of_their_own(
    several_names: ModuleType,
) -> None:
    docstring = """Walk.

Args:
    high, low: prices
        in currency.
    model: of either,
        bars, account: not an entry.

Raises:
    BadBars, BadAccount: as `decide`."""
    of = SimpleNamespace(docstring=SimpleNamespace(value=docstring))
    several_names.SeveralNames().on_object(obj=of)
    several_names.SeveralNames().on_object(obj=SimpleNamespace(docstring=None))
    assert (
        of.docstring.value
        == """Walk.

Args:
    high: prices
        in currency.
    low: prices
        in currency.
    model: of either,
        bars, account: not an entry.

Raises:
    BadBars: as `decide`.
    BadAccount: as `decide`."""
    )


# links


@pytest.mark.parametrize(
    ("page", "link", "turned"),
    [
        ("docs/export.md", "training.md#on-a-gpu", "training.md#on-a-gpu"),
        ("docs/export.md", "bench.png", "bench.png"),
        ("docs/export.md", "../README.md#numbers", "repository/README.md#numbers"),
        ("docs/export.md", "../models/base/MODEL_CARD.md", "repository/models/base/MODEL_CARD.md"),
        ("docs/export.md", "../hrm_runtime/errors.py", "repository/hrm_runtime/errors.py.md"),
        ("docs/api/live.md", "../operations.md", "../operations.md"),
        ("docs/api/live.md", "../../README.md", "../repository/README.md"),
        # a folder is what tells of it
        ("README.md", "docs/", "../index.md"),
        ("docs/model.md", "../hrm_train/network", "repository/hrm_train/README.md"),
        ("docs/model.md", "../examples/", "repository/README.md"),
        ("README.md", "docs/model.md#does-depth-pay", "../model.md#does-depth-pay"),
        ("README.md", "LICENSE", "LICENSE.md"),
        ("models/base/MODEL_CARD.md", "curves.png", "curves.png"),
        ("models/base/MODEL_CARD.md", "market.yaml", "market.yaml.md"),
        ("models/base/MODEL_CARD.md", "../../docs/export.md", "../../../export.md"),
        # what is no file of the repository is left to MkDocs, which reports it
        ("docs/export.md", "absent.md", "absent.md"),
        ("docs/export.md", "../absent.py", "../absent.py"),
        ("docs/export.md", "../../outside.md", "../../outside.md"),
        ("docs/export.md", "https://example.org/README.md", "https://example.org/README.md"),
        ("docs/export.md", "#bench", "#bench"),
    ],
)
def test_a_link_leads_to_the_same_file_on_the_site(
    page: str, link: str, turned: str, repository: ModuleType
) -> None:
    text = f"see [it]({link}), `[it]({link})`\n\n```\n[it]({link})\n```\n"
    expected = text.replace(link, turned, 1)
    assert repository.as_on_site(text, page) == expected
    source = repository.site_path(page)
    assert repository.repository_path(source) == page
    of = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    assert repository.on_page_markdown(text, of, config=None, files=None) == expected


def test_what_the_documents_link_to_comes_along_and_what_that_links_to(
    repository: ModuleType,
) -> None:
    found = repository.brought_along(["docs/export.md"])
    assert {"models/base/MODEL_CARD.md", "models/base/curves.png"} <= found  # linked by the card
    assert not any(path.startswith("docs/") for path in found)
    assert found <= repository.tracked()


def test_a_file_that_is_no_page_is_shown_as_it_is(repository: ModuleType) -> None:
    text = (ROOT / "models/base/market.yaml").read_text(encoding="utf-8")
    shown = repository.shown("models/base/market.yaml")
    assert (
        shown == f"{repository.AFTER_OTHERS}# `models/base/market.yaml`\n\n~~~~~yaml\n{text}~~~~~\n"
    )
    assert repository.shown("CITATION.cff").startswith(
        f"{repository.AFTER_OTHERS}# `CITATION.cff`\n\n~~~~~yaml\n"
    )


def test_what_comes_along_is_added_to_the_files_of_the_site(
    repository: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(
        File=SimpleNamespace(
            generated=lambda _, source, **of: SimpleNamespace(src_uri=source, given=of)
        ),
        InclusionLevel=SimpleNamespace(NOT_IN_NAV="not in nav"),
    )
    monkeypatch.setitem(sys.modules, "mkdocs.structure.files", made)
    pages = [SimpleNamespace(src_uri=page) for page in ("artifact.md", "training.md")]

    class Files(list):
        documentation_pages = list.copy

    found = {file.src_uri: file for file in repository.on_files(Files(pages), None)[2:]}

    assert {*found} == {
        repository.site_path(path)
        for path in repository.brought_along(["docs/artifact.md", "docs/training.md"])
    }
    card = found["repository/models/base/MODEL_CARD.md"]
    assert card.given == {"abs_src_path": str(ROOT / "models/base/MODEL_CARD.md")}
    gates = found["repository/hrm_export/proof/gates.py.md"]
    assert gates.given == {"content": repository.shown("hrm_export/proof/gates.py")}
    assert {file.inclusion for file in found.values()} == {"not in nav"}


# nothing from elsewhere


@pytest.mark.parametrize(
    ("element", "address"),
    [
        ('<script src="https://x.org/a.js"></script>', "https://x.org/a.js"),
        ('<script src="//x.org/a.js"></script>', "//x.org/a.js"),
        ('<img src="HTTP://x.org/a.png">', "HTTP://x.org/a.png"),
        ('<img srcset="a.png 1x, https://x.org/a.png 2x">', "https://x.org/a.png 2x"),
        ('<link rel="stylesheet" href="https://x.org/a.css">', "https://x.org/a.css"),
        ('<link rel="preconnect" href="https://x.org">', "https://x.org"),
        ('<p style="background: url(https://x.org/a.png)">', "https://x.org/a.png"),
        ("<style>p {background: url(https://x.org/a.png)}</style>", "https://x.org/a.png"),
        ('<form action="https://x.org/">', "https://x.org/"),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(
    element: str, address: str, offline: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "one.html").write_text(f"{POLICY}{element}")
    assert [*offline.troubles(tmp_path)] == [
        f"one.html: expected files of the site alone, found {address}"
    ]


@pytest.mark.parametrize(
    "element",
    [
        '<a href="https://x.org/">x</a>',
        '<link rel="canonical" href="https://x.org/">',
        '<img src="a.png"><img src="data:image/png;base64,//8=">',
        '<script src="../assets/a.js"></script><link rel="stylesheet" href="a.css">',
        '<p style="color: red">https://x.org/a.png</p>',
        "<option selected>",
    ],
)
def test_what_no_page_loads_is_left_alone(
    element: str, offline: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "one.html").write_text(f"{POLICY}{element}")
    assert [*offline.troubles(tmp_path)] == []


def test_a_page_tells_the_browser_to_load_nothing_from_elsewhere(
    offline: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "one.html").write_text("<p>")
    assert [*offline.troubles(tmp_path)] == [
        "one.html: expected a Content-Security-Policy, found none"
    ]


@pytest.mark.parametrize("rule", ['@import "https://x.org/a"', "p {x: url('https://x.org/a')}"])
def test_a_style_loads_nothing_from_elsewhere(
    rule: str, offline: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "one.css").write_text(f"p {{background: url(a.png)}} {rule}")
    assert [*offline.troubles(tmp_path)] == [
        "one.css: expected files of the site alone, found https://x.org/a"
    ]


def test_a_site_that_would_load_from_elsewhere_is_not_built(
    offline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mkdocs.exceptions", SimpleNamespace(PluginError=ValueError))
    page = tmp_path / "one.html"
    page.write_text(POLICY)
    offline.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    page.write_text(f'{POLICY}<img src="https://x.org/a.png">')
    with pytest.raises(ValueError, match=r"^one\.html: expected files of the site"):
        offline.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
