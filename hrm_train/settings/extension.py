"""Our section added to the text of a host's file, of which every character stays."""

import re
from typing import Final

import yaml

from hrm_train.errors import SettingsInvalid
from hrm_train.settings.names import NETWORK
from hrm_train.settings.nodes import entries
from hrm_train.settings.reader import read_settings
from hrm_train.settings.schema import Settings
from hrm_train.settings.sections import names_network
from hrm_train.settings.writer import render_inside

_BREAK: Final = re.compile(r"\r\n|\n|\r")


def extended(text: str, settings: Settings, source: str) -> str:
    """`text` with the commented `settings` behind it, as one section.

    Raises:
        SettingsInvalid: it has ours already, or none can be added so that it reads back as
            `settings` and all else as before. `source` begins the message.
    """
    indent = _indent(text, source)
    first = _BREAK.search(text)
    end = first[0] if first else "\n"
    head = text + end * (text != "" and not text.endswith(("\n", "\r")))
    lines = [f"{indent}{line}".rstrip() + end for line in render_inside(settings).splitlines()]
    gap = end * (text != "")
    for new in (head + gap + "".join(lines), head + "".join(lines)):  # text may end with a block,
        changed = _changed(text, new, settings, source)  # to which an empty line would belong
        if not changed:
            return new
    raise SettingsInvalid(
        f"{source}: expected to add {NETWORK} at its end, found that {changed}; add it by hand"
    )


def _indent(text: str, source: str) -> str:
    """What stands before each key at the top of a file to which a section can be added."""
    try:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsInvalid(f"{source}: expected YAML of one document: {error}") from error
    if top is None:
        return ""
    if not isinstance(top, yaml.MappingNode) or top.flow_style:
        raise SettingsInvalid(
            f"{source}: expected sections at the top, each on lines of its own, found "
            f"{'braces' if isinstance(top, yaml.MappingNode) else 'no sections'}; add {NETWORK} "
            "by hand"
        )
    for key, node in entries(top):
        if names_network(key, node):
            raise SettingsInvalid(
                f"{source}: expected no {NETWORK} yet, found {key}; edit it, or remove it first"
            )
    return " " * top.start_mark.column


def _changed(text: str, new: str, settings: Settings, source: str) -> str:
    """What `new` says otherwise than `text` with `settings` added to it; nothing if nothing."""
    try:
        before, after = _events(text), _events(new)
        added = _events(render_inside(settings))
        read = read_settings(new, source)
    except yaml.YAMLError as error:
        return f"it would be no YAML ({error})"
    except SettingsInvalid as error:
        return f"it would be refused ({error})"
    if before[2:]:  # their mapping goes on where it ended, and ends where ours does
        added = before[:-3] + added[3:]
    if after != added:
        return "something else in it would change"
    return "" if read == settings else "it would read back as other settings"


def _events(text: str) -> list[str]:
    """What a text says, from the stream's start to its end, wherever it stands in the text."""
    return [repr(event) for event in yaml.parse(text, Loader=yaml.SafeLoader)]
