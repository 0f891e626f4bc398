"""`hrm`, also as `python -m hrm_cli`."""

import os
import sys


def main() -> None:
    """Run the command line, or say what to install."""
    # beside another process threads that spin at barriers wait for one that is not scheduled; torch
    # and scikit-learn read this when they are imported
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from hrm_cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"typer", "rich"}:
            raise
        sys.exit(f"hrm: the command line needs {package}: pip install '.[cli]'")
    app()


if __name__ == "__main__":
    main()
