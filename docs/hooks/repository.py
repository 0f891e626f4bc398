"""Pages from the rest of the repository, and links to it.

The documents link out of `docs/` by relative paths, as a code host shows them. On the site a file
from out there stands at `repository/` and its path: a Markdown file as a page, an image as itself,
any other file as a page with its text. Whatever is linked is brought along, and what that links to.
A link to what is no file of the repository is left as it is, and MkDocs reports it.
"""

import posixpath
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

DOCS: Final = "docs/"
ELSEWHERE: Final = "repository/"

IMAGES: Final = (".png", ".svg")

TELLING: Final = ("index.md", "README.md")
"""What tells of the folder that it stands in."""

AFTER_OTHERS: Final = "---\nsearch:\n  boost: 0.1\n---\n\n"
"""Begins a page that a search is to find last."""

LINK: Final = re.compile(r"(?P<before>\]\()(?P<path>[^)\s#]+)(?P<after>(?:#[^)\s]*)?\))")
"""Of Markdown, to a path, with or without an anchor."""

FENCED: Final = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""What is code, in which nothing is a link."""


@cache
def tracked() -> frozenset[str]:
    """The files that git tracks or would, by path from the top of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(listed.stdout.split("\0"))


def site_path(path: str) -> str:
    """Where the file at `path` of the repository stands among the sources of the site."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return ELSEWHERE + (path if path.endswith((".md", *IMAGES)) else f"{path}.md")


def repository_path(source: str) -> str:
    """The inverse, of a Markdown file: the path in the repository of a source of the site."""
    return source.removeprefix(ELSEWHERE) if source.startswith(ELSEWHERE) else DOCS + source


def target(link: str, page: str) -> str | None:
    """The path of the file that `link` means on `page`, or None where there is nothing there.

    Args:
        link: a relative path, without its anchor. A folder means what tells of it: its `index.md`,
            its README, or the nearest one above.
        page: the path of the file that it stands in.
    """
    if "://" in link or link.startswith("mailto:"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if path in tracked():
        return path
    if not any(file.startswith(f"{path}/") for file in tracked()):
        return None
    folders = [path, *map(str, PurePosixPath(path).parents)]
    telling = (posixpath.normpath(f"{folder}/{name}") for folder in folders for name in TELLING)
    return next(file for file in telling if file in tracked())


def prose(markdown: str) -> Iterator[tuple[bool, str]]:
    """The parts of a document in order, and whether a link in it is one: not so in code."""
    end = 0
    for code in FENCED.finditer(markdown):
        yield True, markdown[end : code.start()]
        yield False, code[0]
        end = code.end()
    yield True, markdown[end:]


def as_on_site(markdown: str, page: str) -> str:
    """The text of `page` with its links turned to where the site has what they mean."""
    here = posixpath.dirname(site_path(page))

    def turned(link: re.Match[str]) -> str:
        path = target(link["path"], page)
        if path is None:
            return link[0]
        return link["before"] + posixpath.relpath(site_path(path), here) + link["after"]

    return "".join(LINK.sub(turned, part) if text else part for text, part in prose(markdown))


def linked(page: str) -> Iterator[str]:
    """The paths of the files that the Markdown file at `page` links to."""
    parts = [part for text, part in prose((ROOT / page).read_text(encoding="utf-8")) if text]
    links = (link["path"] for part in parts for link in LINK.finditer(part))
    return (path for link in links if (path := target(link, page)) is not None)


def brought_along(pages: Iterable[str]) -> set[str]:
    """The files outside `docs/` that `pages` lead to, from one to the next."""
    found: set[str] = set()
    waiting = [*pages]
    while waiting:
        page = waiting.pop()
        for path in {*linked(page)} - found:
            if not path.startswith(DOCS):
                found.add(path)
                if path.endswith(".md"):
                    waiting.append(path)
    return found


def shown(path: str) -> str:
    """A page with the text of a file that is none itself."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip("\n")
    suffix = Path(path).suffix.removeprefix(".")
    language = {"cff": "yaml"}.get(suffix, suffix)
    return f"{AFTER_OTHERS}# `{path}`\n\n~~~~~{language}\n{text}\n~~~~~\n"


def on_files(files: Any, config: Any) -> Any:
    """Add what the documents link to: MkDocs calls this once it knows the files of `docs/`."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = [DOCS + file.src_uri for file in files.documentation_pages()]
    for path in sorted(brought_along(pages)):
        source = site_path(path)
        if path.endswith((".md", *IMAGES)):
            file = File.generated(config, source, abs_src_path=str(ROOT / path))
        else:
            file = File.generated(config, source, content=shown(path))
        file.inclusion = InclusionLevel.NOT_IN_NAV  # and where it is in it, that is no fault
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page: MkDocs calls this before it renders one."""
    return as_on_site(markdown, repository_path(page.file.src_uri))
