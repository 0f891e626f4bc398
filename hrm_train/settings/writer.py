"""Settings as commented YAML."""

import math
from collections.abc import Iterator

import yaml

from hrm_train.settings.names import NETWORK, SHARED
from hrm_train.settings.schema import Section, Settings


def render(settings: Settings) -> str:
    """The settings as commented YAML that `load_settings` reads back equal."""
    return "\n".join([*_field(settings, NETWORK, 0), *_shared(settings, 0)]) + "\n"


def render_inside(settings: Settings) -> str:
    """The same with all sections inside the network's, where a host's file has room for them."""
    return "\n".join([*_field(settings, NETWORK, 0), *_shared(settings, 1)]) + "\n"


def _shared(settings: Settings, depth: int) -> Iterator[str]:
    for name in SHARED:
        yield ""
        yield from _field(settings, name, depth)


def _lines(section: Section, depth: int) -> Iterator[str]:
    for name in type(section).model_fields:
        yield from _field(section, name, depth)


def _field(section: Section, name: str, depth: int) -> Iterator[str]:
    field, value, indent = type(section).model_fields[name], getattr(section, name), "  " * depth
    comment = f"  # {field.description}" if field.description else ""
    if isinstance(value, Section):
        title = (type(value).__doc__ or "").splitlines()[0]
        yield f"{indent}# {title}"
        yield f"{indent}{name}:"
        yield from _lines(value, depth + 1)
    elif isinstance(value, dict):
        yield f"{indent}{name}:{comment}" if value else f"{indent}{name}: {{}}{comment}"
        yield from _entries(value, depth + 1)
        if not value:
            assert field.examples  # of every such field
            yield f"{indent}# for example, instead of {{}}:"
            yield from (f"{indent}# {line}" for line in _entries(field.examples[0], 1))
    else:
        yield f"{indent}{name}: {_scalar(value)}{comment}"


def _entries(facts: dict[str, Section], depth: int) -> Iterator[str]:
    for name, entry in facts.items():
        yield f"{'  ' * depth}{_key(name)}:"
        yield from _lines(entry, depth + 1)


def _key(name: str) -> str:
    """Quoted, so that no name is read as something else or broken over lines."""
    return yaml.safe_dump(name, default_style='"', allow_unicode=True, width=math.inf).strip()


def _scalar(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()
