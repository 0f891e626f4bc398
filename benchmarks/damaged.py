"""Load 300 damaged and hostile artifacts, each of which must be refused.

Each is made in a temporary folder from ARTIFACT and loaded by a process of its own, whose address
space is bounded where the system can. Shown are the errors, the slowest `load` and what it added
most to the memory of a process that has imported the library. Exits 1 if one was accepted, raised
anything but a `DoNotStart`, or did not come back.

    python benchmarks/damaged.py ARTIFACT [--count 300] [--seed 0]
"""

import argparse
import collections
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
from hostile import CONTRACT, Damage, damages  # noqa: E402, beside the tests

from hrm_runtime.measure.turns import end_with_parent, lifeline  # noqa: E402, as above

MOST_ADDRESSES = 4 * 2**30
SAFETY_S = 120.0


def peak_mb() -> float:
    """The most resident memory this process had; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def bound() -> None:
    """Let this process take so much address space and no more, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    except (ImportError, ValueError, OSError):
        return


def one(folder: str, pin: str | None) -> dict[str, Any]:
    """What loading does: the error's name, "accepted", or "untyped" before it."""
    from hrm_runtime.artifact.folder import load
    from hrm_runtime.errors import DoNotStart

    bound()
    before, begin, said = peak_mb(), time.perf_counter(), ""
    try:
        load(folder, sha256=pin)
        outcome = "accepted"
    except DoNotStart as error:
        outcome, said = type(error).__name__, str(error)
    except BaseException as error:
        outcome, said = f"untyped {type(error).__name__}", str(error)
    seconds = time.perf_counter() - begin
    return {
        "outcome": outcome,
        "said": said[:300],
        "seconds": seconds,
        "mb": peak_mb() - before,
    }


def tried(damage: Damage | None, artifact: Path, pin: str) -> dict[str, Any]:
    """The answer of a process that loads a copy of `artifact` with that damage, or with none."""
    with tempfile.TemporaryDirectory(prefix="hrm-damaged-") as temporary:
        folder = Path(shutil.copytree(artifact, Path(temporary, "artifact")))
        if damage is not None:
            damage.make(folder)
        pinned = ["--pin", pin] if damage is None or damage.pinned else []
        try:
            with lifeline() as stdin:
                done = subprocess.run(
                    [sys.executable, __file__, str(folder), "--one", *pinned],
                    stdin=stdin,
                    capture_output=True,
                    text=True,
                    timeout=SAFETY_S,
                    check=True,
                )
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return {"outcome": "did not end", "said": "", "seconds": SAFETY_S, "mb": 0.0}
        except (subprocess.CalledProcessError, IndexError, ValueError) as error:
            return {"outcome": "crashed", "said": str(error), "seconds": 0.0, "mb": 0.0}
        return answer


def main() -> None:
    """Make, load and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="these only")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pin", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        end_with_parent()
        print(json.dumps(one(str(args.artifact), args.pin)))
        return

    pin = hashlib.sha256((args.artifact / CONTRACT).read_bytes()).hexdigest()
    sound = tried(None, args.artifact, pin)
    if sound["outcome"] != "accepted":
        sys.exit(f"{args.artifact}: expected a sound artifact, found {sound}")
    print(f"undamaged: accepted in {sound['seconds']:.2f} s, {sound['mb']:.0f} MB more\n")
    kinds: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    failed: list[str] = []
    for damage in damages(args.artifact, args.count, args.seed):
        if args.kinds and damage.kind not in args.kinds:
            continue
        answer = tried(damage, args.artifact, pin)
        kinds[damage.kind].append(answer)
        if not answer["outcome"].isidentifier() or answer["outcome"] in ("accepted", "crashed"):
            failed.append(f"{damage.kind}, {damage.name}: {answer['outcome']}: {answer['said']}")
    print(f"{'kind':<21}{'how many':>8}{'slowest':>10}{'memory':>10}  errors")
    for kind, answers in kinds.items():
        outcomes = collections.Counter(answer["outcome"] for answer in answers)
        print(
            f"{kind:<21}{len(answers):>8}{max(a['seconds'] for a in answers):>8.2f} s"
            f"{max(a['mb'] for a in answers):>7.0f} MB  "
            + ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
        )
    total = sum(map(len, kinds.values()))
    print(f"\n{total - len(failed)} of {total} were refused with an error of their own")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
