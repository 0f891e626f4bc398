"""Names of a package that are imported when they are first used, and its version."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

NOT_INSTALLED: Final = "0+unknown"
"""The version of a tree that was never installed: no metadata says which it is."""


def lazily(
    package: str, home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package. It also has the `__version__` of us all.

    Args:
        package: its name.
        home: the module of each of its names.
    """

    def resolve(name: str) -> Any:
        if name == "__version__":
            value = _version()
        elif name in home:
            value = getattr(import_module(f"{package}.{home[name]}"), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # asked for once
        return value

    return resolve, lambda: sorted([*home, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than all of this

    try:
        return version("hrm")
    except PackageNotFoundError:
        return NOT_INSTALLED
