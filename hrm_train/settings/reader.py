"""Settings from YAML, each problem in words."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hrm_train.errors import SettingsInvalid
from hrm_train.settings.names import NETWORK, SHARED, closest, homes, keys_at
from hrm_train.settings.nodes import StrictLoader
from hrm_train.settings.schema import Settings
from hrm_train.settings.sections import our_sections


def load_settings(path: str | Path) -> Settings:
    """Settings from a YAML file, ours or a host's that has our sections beside its own.

    Every key left out has its default. The host's sections are left alone, and a host's file must
    have `hierarchical_reasoning_model`. `training`, `trading`, `instruments` and `timeframes` may
    stand inside that; one at the top is the host's then. Otherwise one at the top of a host's file
    is ours if all its keys are, and the host's if none is.

    Raises:
        SettingsInvalid: the file is missing or not YAML; a section of ours is misspelt, given
            twice, missing from a host's file or at another level; or a value is unknown, mistyped
            or impossible. One line per problem: path of the value, what was expected, what was
            found.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: expected a readable settings file: {error}") from error
    return read_settings(text, str(path))


def read_settings(text: str, source: str) -> Settings:
    """Settings from the text of a YAML file.

    Raises:
        SettingsInvalid: as `load_settings`.
    """
    try:
        loader = StrictLoader(text)
        top = loader.get_single_node()
        if not isinstance(top, yaml.MappingNode):
            return parse_settings({} if top is None else loader.construct_document(top), source)
        sections, problems = our_sections(loader, top)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsInvalid(f"{source}: expected YAML: {error}") from error
    if problems:
        raise SettingsInvalid("\n".join(f"{source}: {problem}" for problem in problems))
    return parse_settings(sections, source)


def parse_settings(document: object, source: str = "settings") -> Settings:
    """Settings from parsed YAML that holds nothing else.

    `training` and the sections after it stand at the top, or in `hierarchical_reasoning_model`.

    Raises:
        SettingsInvalid: as `load_settings`.
    """
    document, inside = _lifted(document, source)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems = "\n".join(
            f"{source}: {_explain(dict(problem), inside)}"
            for problem in error.errors(include_url=False)
        )
        raise SettingsInvalid(problems) from error


def _lifted(document: object, source: str) -> tuple[object, list[str]]:
    """The document with every section at the top, and which of them stood in the network's."""
    network = document.get(NETWORK) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(network, dict):
        return document, []
    inside = [name for name in SHARED if name in network]
    both = [
        f"{source}: {name}: expected once, found at the top and inside {NETWORK}; remove one"
        for name in inside
        if name in document
    ]
    if both:
        raise SettingsInvalid("\n".join(both))
    rest = {name: value for name, value in network.items() if name not in inside}
    return document | {NETWORK: rest} | {name: network[name] for name in inside}, inside


def _explain(problem: dict[str, Any], inside: list[str]) -> str:
    """A problem in words; `inside` are the sections that stand inside the network's."""
    where = [str(part) for part in problem["loc"]]
    path = ".".join([NETWORK] * (where[:1] != [] and where[0] in inside) + where)
    if problem["type"] == "extra_forbidden":
        advice = _advice(where, inside)
        return f"{path}: unknown key; {advice} (found {problem['input']!r})"
    if problem["type"] == "missing":
        return f"{path}: expected, but missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # ours: says what was expected and found
        return f"{path or 'file'}: {message}"
    message = message.replace("Input should be ", "expected ")
    return f"{path or 'file'}: {message}, found {problem['input']!r}"


def _advice(where: list[str], inside: list[str]) -> str:
    """What to do about an unknown key."""
    *path, key = where
    if meant := closest(key, keys_at(path)):
        return f"did you mean {meant}?"
    if known := homes(key):
        return f"it belongs in {' or '.join(known)}"
    if path and path[0] in SHARED and path[0] not in inside:
        return (
            f"check its name and its level, or, if {path[0]} is the host's, write ours as "
            f"{NETWORK}.{path[0]}"
        )
    return "check its name and its level"
