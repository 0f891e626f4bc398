"""Which sections of a YAML file are ours: all of our own file, of a host's those that we know.

A host's file has keys at its top that are not ours. What they hold is left alone: it is neither
made into values nor checked. `NETWORK` is at the top of any file, the others beside it or in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from hrm_train.settings.names import NETWORK, SHARED, closest, facts_at, homes, keys_at
from hrm_train.settings.nodes import StrictLoader, below, entries, only, written
from hrm_train.settings.schema import Network, Settings

Nodes = Sequence[yaml.Node]
"""What stands under one key, as often as it is given."""

_NULL: Final = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class _Content:
    """The keys of a section: ours, up to their spelling, and others."""

    ours: Sequence[str]
    others: Sequence[str]


def our_sections(loader: StrictLoader, top: yaml.MappingNode) -> tuple[object, list[str]]:
    """What is ours of the file whose nodes are `top`, and what is wrong with where it stands.

    Where something is wrong, a line each, the sections mean nothing.

    Raises:
        yaml.YAMLError: a section of ours is given twice, or is no plain YAML.
    """
    found = written(top)
    inside = {key for node in found.get(NETWORK, ()) for key, _ in entries(node)}
    meant = {name: _meant(name, nodes) for name, nodes in found.items()}
    strange = [name for name, section in meant.items() if section is None]
    host = any(not _stray(name, found[name], host=False) for name in strange)
    ours: dict[str, Nodes] = {}
    left: dict[str, Nodes] = {}
    problems: list[str] = []
    for name, section in meant.items():
        mine, problem = _judged(name, section, found[name], host, section in inside)
        (ours if mine else left)[name] = found[name]
        problems += problem
    if host and not problems:
        problems += _elsewhere(left, found.get(NETWORK, ()))
    return {} if problems else loader.construct_document(only(top, ours)), problems


def _judged(
    name: str, section: str | None, nodes: Nodes, host: bool, inside: bool
) -> tuple[bool, list[str]]:
    """Whether a key at the top is ours, and what is wrong with it.

    Args:
        section: what it is called, if it is spelt as it should be; None: nothing of ours.
        host: whether this is a host's file.
        inside: whether this section stands inside `NETWORK` too.
    """
    if section is None:
        where = " or ".join(homes(name)) if _stray(name, nodes, host) else ""
        return False, [f"{name}: unknown key; it belongs in {where}"] if where else []
    own = f"{NETWORK}.{section}"
    content = _content(section, nodes) if section in SHARED else _Content((), ())
    theirs = (inside and host) or (not content.ours and (inside or host))
    if section in SHARED and theirs:
        return False, []
    if name != section:
        other = f" If it is the host's, write ours as {own}" * (section in SHARED)
        return True, [f"{name}: unknown key; did you mean {section}?{other}"]
    if host and content.others:
        message = (
            f"{name}: expected keys of ours alone, or of the host's alone, found ours "
            f"({_some(content.ours)}) beside others ({_some(content.others)}); write ours as "
            f"{own}, {{}} if there are none, and this section is left to the host"
        )
        return True, [message]
    return True, []


def _meant(name: str, nodes: Nodes) -> str | None:
    """The section that a key at the top names, up to its spelling; None where it is none of ours.

    A host has names that resemble ours: of the shared ones a misspelt one has something of ours.
    """
    meant = closest(name, Settings.model_fields)
    if meant in (name, NETWORK, None):
        return meant
    return meant if _content(meant, nodes).ours else None


def _content(section: str, nodes: Nodes) -> _Content:
    """What stands in a section of ours that is called so."""
    known = keys_at([section])
    ours: list[str] = []
    others: list[str] = []
    for name, node in _bodies(section, nodes, by_name=facts_at([section]) is not None):
        if isinstance(node, yaml.MappingNode):
            for key, _ in entries(node):
                (ours if closest(key, known) else others).append(key)
        elif node.tag != _NULL:
            others.append(name)
    return _Content(ours, others)


def _bodies(section: str, nodes: Nodes, by_name: bool) -> Iterator[tuple[str, yaml.Node]]:
    """The mappings, or what is in their place, that have the keys of a section."""
    for node in nodes:
        if by_name and isinstance(node, yaml.MappingNode):
            yield from entries(node)
        else:
            yield section, node


def _stray(name: str, nodes: Nodes, host: bool) -> bool:
    """Whether a key at the top, no section of ours, belongs into one.

    A host may have keys that are called as some of ours are, but not parts of the network.
    """
    if name in Network.model_fields:
        keys = [key for node in nodes for key, _ in entries(node)]
        return any(key in keys_at([NETWORK, name]) for key in keys) or not (host or keys)
    return not host and bool(homes(name))


def _elsewhere(left: Mapping[str, Nodes], network: Nodes) -> list[str]:
    """What is wrong where `NETWORK` stands below the host's keys, or nowhere in a host's file."""
    places = [
        (path, node)
        for name, nodes in left.items()
        for one in nodes
        for path, key, node in below(one, name)
        if closest(key, [NETWORK])
    ]
    if not network:
        found, what = f"only {_some(left)}, which are not ours", "add it with hrm init FOLDER --add"
        if places:
            found, what = f"it as {places[0][0]}", "move it there"
        return [f"file: expected {NETWORK} at the top, found {found}; {what}"]
    return [
        f"{path}: expected {NETWORK} once, found it here and at the top; remove one of them"
        for path, node in places
        if node not in network and _content(NETWORK, [node]).ours
    ]


def _some(names: Iterable[str]) -> str:
    """A few of them, and how many more there are."""
    some = list(dict.fromkeys(names))
    return ", ".join(some[:3]) + f" and {len(some) - 3} more" * (len(some) > 3)
