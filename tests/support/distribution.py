"""What `make dist` has built: the files in it, and whether a fresh installation of it decides.

    python tests/support/distribution.py

The sdist and the wheel, which is made from it, must hold the modules that git tracks and nothing
else. The wheel is then installed with the extra `cli` into an environment of its own, without
torch. There `hrm predict` decides with the frozen artifact of the tests, and PACKAGE.md runs as
written, on the released model. With RELEASE_TAG in the environment that must be this version's, and
the changelog must have its date. Exits 1 and says what differs.
"""

import math
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

from documents import ROOT, blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME, VERSION = PROJECT["name"].replace("-", "_"), PROJECT["version"]

BARS = 600
"""More than either model needs."""


def require(what: str, expected: Iterable[str], found: Iterable[str]) -> None:
    """Both hold the same, or the end."""
    missing, more = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    if missing or more:
        sys.exit(f"{what}: expected also {missing or 'nothing'}, found also {more or 'nothing'}")
    print(f"{what}: as expected")


def tracked() -> set[str]:
    """The modules and markers of the packages."""
    listed = subprocess.run(
        ["git", "ls-files", "hrm_*.py", "cli/hrm_*.py", "*/py.typed"],  # noqa: S607, as make finds it
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.splitlines())


def contents(sdist: Path, wheel: Path) -> None:
    """Hold both to what git tracks."""
    modules = tracked()
    about = {f"{NAME}.egg-info/{name}.txt" for name in ("SOURCES", "dependency_links", "requires")}
    about |= {
        f"{NAME}.egg-info/{name}" for name in ("PKG-INFO", "entry_points.txt", "top_level.txt")
    }
    about |= {"LICENSE", "PACKAGE.md", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    with tarfile.open(sdist) as archive:
        found = {member.name for member in archive if not member.isdir()}
    expected = {f"{NAME}-{VERSION}/{name}" for name in modules | about}
    require(sdist.name, expected, found)

    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    expected = {name.removeprefix("cli/") for name in modules}
    expected |= {f"{NAME}-{VERSION}.dist-info/{name}" for name in about}
    require(wheel.name, expected, zipfile.ZipFile(wheel).namelist())


def write_bars(path: Path, seconds: int) -> None:
    """A file of bars, made without the library."""
    lines = ["datetime,open,high,low,close"]
    for number in range(BARS):
        price = round(100 + 5 * math.sin(number / 7), 2)
        opening = 1_672_531_200 + seconds * number
        lines.append(f"{opening},{price},{price + 0.5:.2f},{price - 0.5:.2f},{price}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def decides(wheel: Path, folder: Path) -> None:
    """Install the wheel into a fresh environment and let it decide in `folder`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout.strip()

    run(sys.executable, "-m", "venv", "fresh")
    programs = folder / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    python, hrm = programs / "python", programs / "hrm"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[cli]")
    run(*pip, "check")
    require("hrm --version", {f"hrm {VERSION}"}, {run(hrm, "--version")})
    torch = "import importlib.util; print(importlib.util.find_spec('torch'))"
    require("torch", {"None"}, {run(python, "-c", torch)})

    (folder / "models").symlink_to(ROOT / "models", target_is_directory=True)
    write_bars(folder / "IBM_D.csv", 86_400)
    write_bars(folder / "Alpha_5.csv", 300)
    frozen = max((ROOT / "tests" / "data").glob("artifact-*"))
    print(run(hrm, "predict", frozen, "--data", "Alpha_5.csv"))
    for block in blocks(ROOT / "PACKAGE.md"):
        if block.language == "python":
            print(decision := run(python, "-c", block.text))
            require("its reason", {"ok"}, {decision.split()[-1]})
        else:
            print(run(*[hrm if word == "hrm" else word for word in block.text.split()]))


def released() -> None:
    """Hold the tag that is to be published, if there is one, to this version."""
    if tag := os.environ.get("RELEASE_TAG"):
        require("RELEASE_TAG", {f"v{VERSION}"}, {tag})
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        if f"## {VERSION}, unreleased" in changes:
            sys.exit("CHANGELOG.md: expected the date of the release, found unreleased")


def main() -> None:
    """All of it."""
    released()
    sdist, wheel = (
        ROOT / f"dist/{NAME}-{VERSION}{suffix}" for suffix in (".tar.gz", "-py3-none-any.whl")
    )
    require("dist", {sdist.name, wheel.name}, {path.name for path in (ROOT / "dist").iterdir()})
    contents(sdist, wheel)
    with tempfile.TemporaryDirectory(prefix="hrm-dist-") as folder:
        decides(wheel, Path(folder))


if __name__ == "__main__":
    main()
