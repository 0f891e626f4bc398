"""`hrm`, also as `python -m hrm_cli`."""

import sys


def main() -> None:
    """Run the command line, or say what to install."""
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
