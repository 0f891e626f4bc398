"""What a measurement was made on: processor, system, versions."""

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

INSTRUCTION_SETS: Final = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "amx": {"amx_int8", "amx_bf16"},
}
"""Those that decide how fast a matrix product is, with the flags Linux shows for them."""

_PROCESSORS: Final = Path("/proc/cpuinfo")
_OWN_MEMORY: Final = Path("/proc/self/status")
_KIB: Final = 1024 / 1e6


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a measurement was made; None where the system does not tell.

    Attributes:
        core: the one that everything was pinned to.
        versions: of the libraries that are installed, by name.
    """

    cpu: str
    instruction_sets: tuple[str, ...] | None
    cores: int | None
    core: int | None
    os: str
    python: str
    versions: dict[str, str]


def machine(libraries: Iterable[str]) -> Machine:
    """The one this runs on."""
    told = _processor()
    flags = set(told.get("flags", "").split())
    return Machine(
        cpu=told.get("model name") or platform.processor() or platform.machine(),
        instruction_sets=tuple(name for name, any_of in INSTRUCTION_SETS.items() if flags & any_of)
        if flags
        else None,
        cores=os.cpu_count(),
        core=one_core(),
        os=platform.platform(),
        python=platform.python_version(),
        versions=_versions(libraries),
    )


def usable_cores() -> int:
    """Those that this process may use, where the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_core() -> int | None:
    """The core to pin to: of those this process may use the second, which the system's own work
    tends to leave alone, or the only one. None where processes cannot be pinned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[:2][-1]


def pin(core: int | None) -> None:
    """Let this process run on `core` alone."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def resident_megabytes() -> float | None:
    """Memory this process holds; its peak where only that is told; None where neither is."""
    try:
        status = _OWN_MEMORY.read_text()
    except OSError:
        return _peak_megabytes()
    return _KIB * int(_fields(status)["VmRSS"].split()[0])


def _peak_megabytes() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else _KIB * peak


def _processor() -> dict[str, str]:
    """What Linux tells of the first processor; nothing elsewhere."""
    try:
        return _fields(_PROCESSORS.read_text().partition("\n\n")[0])
    except OSError:
        return {}


def _fields(text: str) -> dict[str, str]:
    """Lines of `name : value`."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
