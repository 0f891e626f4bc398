"""Refuses a site that would load anything from elsewhere: it is read on desks without a network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

LOADING: Final = {"src", "srcset", "poster", "data", "action"}
"""Attributes whose address a browser loads; `href` of a link, too, which is told apart below."""

NOT_LOADED: Final = {"canonical", "prev", "next", "alternate"}
"""What a `link` names and no browser loads."""

ADDRESS: Final = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
STYLE: Final = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)

ELSEWHERE: Final = "expected files of the site alone"

POLICY: Final = "Content-Security-Policy"
"""What tells the browser to load nothing from elsewhere, whatever a script may ask for."""


class Page(HTMLParser):
    """Collects from a page what it loads from elsewhere, and whether it has the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []
        self.has_policy = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = {name: value or "" for name, value in attrs}
        self.has_policy |= values.get("http-equiv") == POLICY
        is_loaded = tag == "link" and not NOT_LOADED & {*values.get("rel", "").split()}
        for name in values.keys() & (LOADING | {"href"} if is_loaded else LOADING):
            addresses = values[name].split(",") if name == "srcset" else [values[name]]
            self.external += [address for address in addresses if ADDRESS.match(address)]
        self.external += STYLE.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Look at the text of one element."""
        if self.cdata_elem == "style":
            self.external += STYLE.findall(data)


def troubles(folder: Path) -> Iterator[str]:
    """What of the site in `folder` would be loaded from elsewhere, in words."""
    for path in sorted(folder.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        for address in page.external:
            yield f"{path.relative_to(folder)}: {ELSEWHERE}, found {address.strip()}"
        if not page.has_policy:
            yield f"{path.relative_to(folder)}: expected a {POLICY}, found none"
    for path in sorted(folder.rglob("*.css")):
        for address in STYLE.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(folder)}: {ELSEWHERE}, found {address}"


def on_post_build(config: Any) -> None:
    """Look at what was built: MkDocs calls this last."""
    from mkdocs.exceptions import PluginError

    found = [*troubles(Path(config.site_dir))]
    if found:
        raise PluginError("\n".join(found))
