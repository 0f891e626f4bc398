"""Make the frozen artifact of the current format version: `python tests/data/make_artifact.py`.

The artifact is committed, so that the runtime is tested without torch and so that a later
library is held to reading it. Run this only for a new format version.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))
os.environ["SOURCE_DATE_EPOCH"] = "1700000000"

from halting import train_halting  # noqa: E402
from synthetic import SMALL, random_bars  # noqa: E402

from hrm_export import export  # noqa: E402
from hrm_runtime.artifact.contract import FORMAT_VERSION  # noqa: E402
from hrm_runtime.market.csv_files import write_csv  # noqa: E402
from hrm_train.settings import parse_settings  # noqa: E402


def main() -> None:
    """Train a few steps on random bars and export."""
    settings = parse_settings(SMALL)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "bars")
        data.mkdir()
        write_csv(random_bars(900, seed=1), data / "Alpha_5.csv")
        write_csv(random_bars(900, seed=2), data / "Beta_5.csv")
        write_csv(random_bars(900, seed=3, seconds=900), data / "Beta_15.csv")
        train_halting(settings, [data], Path(folder, "checkpoint"))
        exported = export(Path(folder, "checkpoint"), HERE / f"artifact-{FORMAT_VERSION}")
    print(exported.path, exported.model_id)


if __name__ == "__main__":
    main()
