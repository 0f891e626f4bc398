"""Footprint of a production install: `make bench`.

Installs the package into an environment of its own as production would, and measures there: the
size of what was installed, the time from starting Python to a first decision, and the cost of a
feature row and of a decision. The artifact is the small frozen one of the tests, or the folder
given as the first argument.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ABSENT = ("torch", "onnx", "pydantic", "polars", "typer", "yaml", "safetensors")
STARTS = 15

PROBE = """
import json, sys, time
start = time.perf_counter()
from hrm_runtime import Account, load
imported = time.perf_counter()
model = load(sys.argv[1])
loaded = time.perf_counter()
from synthetic import random_bars
contract = model.contract
instrument = next(name for name, entry in contract.instruments.items() if entry.id > 0)
timeframe = next(iter(contract.timeframes))
bars, account = random_bars(contract.bars_needed + 1000), Account.flat(1e6)
begin = time.perf_counter()
model.decide(bars, account, instrument=instrument, timeframe=timeframe)
first = time.perf_counter() - begin

from hrm_runtime.market.features import rows
begin = time.perf_counter()
table = rows(bars, contract.features.history_bars)
row_us = 1e6 * (time.perf_counter() - begin) / len(table)
def decide():
    begin = time.perf_counter()
    model.decide_rows(table, account, instrument=instrument, timeframe=timeframe)
    return 1e3 * (time.perf_counter() - begin)
decisions = sorted(decide() for _ in range(1000))
print(json.dumps({
    "import": imported - start, "load": loaded - imported, "first decision": first,
    "row_us": row_us, "p50_ms": decisions[500], "p99_ms": decisions[990],
}))
"""


def main() -> None:
    """Install, measure, print."""
    artifact = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/data/artifact-1"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        before = _packages(Path(folder))
        shutil.rmtree(ROOT / "build", ignore_errors=True)  # an old one would be installed too
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", ROOT], check=True)
        added = {k: size for k, size in _packages(Path(folder)).items() if k not in before}
        found = [name for name in ABSENT if any(k.split("-")[0] == name for k in added)]
        runs = [_run(python, artifact.resolve()) for _ in range(STARTS)]

    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    ready = [run["import"] + run["load"] + run["first decision"] for run in runs]
    largest = sorted(added.items(), key=lambda item: -item[1])[:4]
    print(f"installed           {sum(added.values()) / 1e6:.0f} MB, of which")
    for name, size in largest:
        print(f"                    {size / 1e6:.0f} MB {name}")
    print(f"training libraries  {', '.join(found) or 'none'}")
    print(f"ready               {statistics.median(ready):.2f} s: import, load, first decision")
    print(f"                    {middle['load']:.2f} s of it verify, open, warm up and replay")
    print(f"feature row         {middle['row_us']:.0f} us")
    print(f"decide_rows         {middle['p50_ms']:.2f} ms p50, {middle['p99_ms']:.2f} ms p99")


def _packages(environment: Path) -> dict[str, int]:
    """Bytes of each entry of site-packages."""
    (site,) = environment.glob("lib/python*/site-packages")
    return {
        entry.name: sum(f.stat().st_size for f in [entry, *entry.rglob("*")] if f.is_file())
        for entry in site.iterdir()
    }


def _run(python: Path, artifact: Path) -> dict[str, float]:
    answer = subprocess.run(
        [python, "-c", PROBE, artifact],
        check=True,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "tests/support"), "OMP_NUM_THREADS": "1"},
        cwd="/",
    )
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


if __name__ == "__main__":
    main()
