"""Which sections of a YAML file are ours: all of our own file, of a host's those that we know.

A host's file has keys at its top that are not ours. What they hold is left alone: it is neither
made into values nor checked. `NETWORK` is at the top of any file, the others beside it or in it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from hrm_train.settings.names import (
    NETWORK,
    SHARED,
    closest,
    dotted,
    facts_at,
    homes,
    inner_key,
    keys_at,
    same,
)
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
    host = any(not _stray(name, found[name], False, inside) for name in strange)
    ours: dict[str, Nodes] = {}
    left: dict[str, Nodes] = {}
    problems: list[str] = []
    for name, section in meant.items():
        mine, problem = _judged(name, section, found[name], host, inside)
        (ours if mine else left)[name] = found[name]
        problems += problem
    if host and not problems:
        problems += _elsewhere(left, found.get(NETWORK, ()))
    return {} if problems else loader.construct_document(only(top, ours)), problems


def names_network(name: str, node: yaml.Node) -> bool:
    """Whether a key is `NETWORK`, up to its spelling.

    A host has names that resemble it, of a flag or a path: of those that are not it up to case and
    dashes, one holds nothing, or something of ours.
    """
    if closest(name, [NETWORK]) is None:
        return False
    empty = node.tag == _NULL or (isinstance(node, yaml.MappingNode) and not node.value)
    return same(name, NETWORK) or empty or bool(_content([NETWORK], [node]).ours)


def _judged(
    name: str, section: str | None, nodes: Nodes, host: bool, inside: Collection[str]
) -> tuple[bool, list[str]]:
    """Whether a key at the top is ours, and what is wrong with it.

    Args:
        section: what it is called, if it is spelt as it should be; None: nothing of ours.
        host: whether this is a host's file.
        inside: the keys inside `NETWORK`.
    """
    if section is None:
        stray = _stray(name, nodes, host, inside)
        return False, [f"{name}: unknown key; {stray}"] if stray else []
    own = f"{NETWORK}.{section}"
    content = _content([section], nodes) if section in SHARED else _Content((), ())
    both = section in inside
    theirs = (both and host) or (not content.ours and (both or host))
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
    if meant in (name, None):
        return meant
    if meant == NETWORK:
        return meant if any(names_network(name, node) for node in nodes) else None
    return meant if _content([meant], nodes).ours else None


def _content(path: Sequence[str], nodes: Nodes) -> _Content:
    """What stands in a section of ours that has this path."""
    known = keys_at(path)
    ours: list[str] = []
    others: list[str] = []
    for name, node in _bodies(path[-1], nodes, by_name=facts_at(path) is not None):
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


def _stray(name: str, nodes: Nodes, host: bool, inside: Collection[str]) -> str:
    """Where a key at the top, no section of ours, belongs if it is ours; nothing if it is not.

    A host may have keys that are called as some of ours are, but not parts of the network.
    """
    path = dotted(name)
    top = f"{NETWORK}."
    exact = name.removeprefix(top) == ".".join(path).removeprefix(top)
    if path and not (host and (path[0] in inside or not exact)):
        return f"write {path[-1]} in {'.'.join(path[:-1])}, without dots"
    if part := closest(name, Network.model_fields):
        return _belongs(name, part) if _is_part(name, part, nodes, host) else ""
    if host:
        return ""
    key = inner_key(name)
    return _belongs(name, key) if key else _renamed(nodes, inside)


def _belongs(name: str, meant: str) -> str:
    where = " or ".join(homes(meant))
    return f"it belongs in {where}" if name == meant else f"did you mean {meant}, in {where}?"


def _is_part(name: str, part: str, nodes: Nodes, host: bool) -> bool:
    """Whether a key at the top that is called as a part of the network is, or nearly so, is it."""
    content = _content([NETWORK, part], nodes)
    if host:
        return any(_spelt([key], [NETWORK, part]) for key in content.ours)
    empty = not (content.ours or content.others)
    scalar = all(isinstance(node, yaml.ScalarNode) for node in nodes)
    return bool(content.ours) or empty or (scalar and name == part)


def _renamed(nodes: Nodes, inside: Collection[str]) -> str:
    """Which section it is that has another name and nothing but keys of ours, if it is one."""
    paths = [[name] for name in SHARED] + [[NETWORK, name] for name in Network.model_fields]
    contents = [(path, _content(path, nodes)) for path in paths]
    likely = [
        path
        for path, content in contents
        if content.ours and not content.others and _spelt(content.ours, path)
    ]
    if not likely or any(path[-1] in inside for path in likely):
        return ""
    meant = " or ".join(".".join(path) for path in likely)
    return (
        f"all in it is ours, did you mean {meant}? If it is the host's, write ours as "
        f"{NETWORK}.{likely[0][-1]}, {{}} if there are none"
    )


def _spelt(names: Iterable[str], path: Sequence[str]) -> bool:
    """Whether all are keys of the section of ours that has this path, up to case and dashes."""
    known = keys_at(path)
    return all(any(same(name, key) for key in known) for name in names)


def _elsewhere(left: Mapping[str, Nodes], network: Nodes) -> list[str]:
    """What is wrong where `NETWORK` stands below the host's keys, or nowhere in a host's file."""
    places = [
        (path, node)
        for name, nodes in left.items()
        for one in nodes
        for path, key, node in below(one, name)
        if names_network(key, node)
    ]
    if not network:
        found, what = f"only {_some(left)}, which are not ours", "add it with hrm init FOLDER --add"
        if places:
            found, what = f"it as {places[0][0]}", "move it there"
        return [f"file: expected {NETWORK} at the top, found {found}; {what}"]
    return [
        f"{path}: expected {NETWORK} once, found it here and at the top; remove one of them"
        for path, node in places
        if node not in network and _content([NETWORK], [node]).ours
    ]


def _some(names: Iterable[str]) -> str:
    """A few of them, and how many more there are."""
    some = list(dict.fromkeys(names))
    return ", ".join(some[:3]) + f" and {len(some) - 3} more" * (len(some) > 3)
