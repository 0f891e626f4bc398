"""YAML as nodes: what is written is seen without being made into values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import yaml

_MAPPING: Final = "tag:yaml.org,2002:map"

_MERGE: Final = "tag:yaml.org,2002:merge"

_STRING: Final = "tag:yaml.org,2002:str"


class StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last.

    Keys that `<<` merges are no second ones.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As the base class, which puts merged keys beside the node's own for good."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            keys = [
                str(self.construct_object(key, deep=True))
                for key, _ in node.value
                if key.tag != _MERGE
            ]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key} is given twice", problem_mark=node.start_mark
                    )
        super().flatten_mapping(node)


def written(top: yaml.MappingNode) -> dict[str, list[yaml.Node]]:
    """What stands under each key of a mapping, as often as it is given there.

    A key that `<<` merges into it is overridden by one of its own, and by one merged earlier.

    Raises:
        yaml.YAMLError: `<<` has something else than mappings.
    """
    own: dict[str, list[yaml.Node]] = {}
    for key, node in top.value:
        if key.tag != _MERGE:
            own.setdefault(_text(key), []).append(node)
            continue
        for one in _merged(node):
            if not isinstance(one, yaml.MappingNode):
                found = "a list" if isinstance(one, yaml.SequenceNode) else one.value
                raise yaml.MarkedYAMLError(
                    problem=f"expected << to merge a mapping or a list of them, found {found}; "
                    "name one by its anchor, *NAME",
                    problem_mark=one.start_mark,
                )
    merged: dict[str, list[yaml.Node]] = {}
    for name, node in entries(top):
        merged.setdefault(name, [node])
    return merged | own


def only(top: yaml.MappingNode, found: Mapping[str, Sequence[yaml.Node]]) -> yaml.MappingNode:
    """A mapping of what was `written` in another, as often as it was given there."""
    pairs = [
        (yaml.ScalarNode(_STRING, name), node) for name, nodes in found.items() for node in nodes
    ]
    return yaml.MappingNode(_MAPPING, pairs, top.start_mark, top.end_mark)


def entries(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """The keys of a mapping and what they hold, its own and merged ones; none of another node."""
    return _entries(node, set())


def below(node: yaml.Node, path: str) -> Iterator[tuple[str, str, yaml.Node]]:
    """The path of every key below `node`, the key, and what it holds; each node is seen once."""
    return _below(node, path, set())


def _entries(node: yaml.Node, seen: set[int]) -> Iterator[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))  # nodes may hold themselves, or each other many times over
    for key, value in node.value:
        if key.tag != _MERGE:
            yield _text(key), value
            continue
        for merged in _merged(value):
            yield from _entries(merged, seen)


def _merged(value: yaml.Node) -> list[yaml.Node]:
    """The nodes that `<<` merges."""
    return value.value if isinstance(value, yaml.SequenceNode) else [value]


def _below(node: yaml.Node, path: str, seen: set[int]) -> Iterator[tuple[str, str, yaml.Node]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = _text(key)
            yield f"{path}.{name}", name, value
            yield from _below(value, f"{path}.{name}", seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _below(value, f"{path}.{number}", seen)


def _text(key: yaml.Node) -> str:
    """A key as it is written; of one that is no scalar, the sign that YAML has for it."""
    return str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
