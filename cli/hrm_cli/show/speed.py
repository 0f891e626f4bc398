"""What `hrm bench` shows."""

from dataclasses import asdict
from typing import Any

from rich.markup import escape

from hrm_cli.show import console
from hrm_runtime.machine import Machine
from hrm_runtime.measure.bench import BATCHES, Bench, Latency, Result

FIELDS = (
    "name", "p50_ms", "p99_ms", "max_ms", "rows_per_s", "rss_mb", "load_s", "size_mb", "weights",
)  # fmt: skip

LARGEST = BATCHES[-1]

RANDOM = "In bold the artifact; the others have its settings and random weights. "
UNITS = "One pass at batch 1, one thread; MB are 10^6 bytes."


def speeds(found: Bench) -> None:
    """One line per variant; below them what its name does not say, and what was not measured."""
    alone = all(result.weights == "artifact" for result in found.results)
    table = console.framed(
        "",
        "p50\nms",
        "p99\nms",
        "max\nms",
        f"rows/s\nat {LARGEST}",
        "memory\nMB",
        "load\ns",
        "file\nMB",
        title="Bench",
        caption=UNITS if alone else RANDOM + UNITS,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found.results:
        table.add_row(
            one.name,
            *map(short, (one.p50_ms, one.p99_ms, one.max_ms, one.rows_per_s.get(LARGEST))),
            *map(short, (one.rss_mb, one.load_s, one.size_mb)),
            style="bold" if one.weights == "artifact" else "",
        )
    console.out.print(table)
    for remark in remarks(found):
        console.out.print(escape(remark), highlight=False, soft_wrap=True)


def remarks(found: Bench) -> list[str]:
    """What the table does not say."""
    lines = [f"{one.name}: {one.note}" for one in found.results if one.note]
    if (decided := found.decide_rows) is not None:
        lines.append(f"decide_rows, all its segments: {_latency(decided)}")
    lines += [f"not measured: {one.name}: {one.reason}" for one in found.skipped]
    return [*lines, *where(found.host)]


def where(host: Machine) -> tuple[str, str]:
    """The processor and the core, and the libraries."""
    sets = f" with {', '.join(host.instruction_sets)}" if host.instruction_sets else ""
    core = "not pinned to a core" if host.core is None else f"all on core {host.core}"
    libraries = {"python": host.python, **host.versions}
    return (
        f"{host.cpu}{sets}, {core}",
        ", ".join(f"{name} {version}" for name, version in libraries.items()),
    )


def fields(found: Bench) -> dict[str, Any]:
    """A bench as `hrm bench --json` prints it."""
    return {
        "results": [_result(result) for result in found.results],
        "decide_rows": None if found.decide_rows is None else asdict(found.decide_rows),
        "skipped": [asdict(one) for one in found.skipped],
        "host": asdict(found.host),
    }


def short(number: float | None) -> str:
    """Three digits; nothing where there is no number."""
    if number is None:
        return ""
    digits = sum(number < limit for limit in (10, 100))
    return f"{number:,.{digits}f}"


def _result(result: Result) -> dict[str, Any]:
    note = {} if result.note is None else {"note": result.note}
    return {name: getattr(result, name) for name in FIELDS} | note


def _latency(of: Latency) -> str:
    p50, p99, longest = map(short, (of.p50_ms, of.p99_ms, of.max_ms))
    return f"{p50} ms p50, {p99} ms p99, {longest} ms at most"
