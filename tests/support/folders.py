"""What stands in a folder."""

from pathlib import Path


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and of those in it, by its path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
