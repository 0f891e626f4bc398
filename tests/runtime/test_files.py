"""A file is there whole, or as it was."""

import os
from pathlib import Path

import pytest

from hrm_runtime.files import whole


def test_a_file_takes_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("before")
    with whole(path) as partial:
        partial.write_text("after")
        assert partial.parent == tmp_path
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_what_is_not_whole_vanishes(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("before")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise error

    with pytest.raises(error), whole(path) as partial:
        fail(partial)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_at_all_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError), whole(tmp_path / "nowhere" / "one.txt") as partial:
        partial.write_text("half")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), whole(tmp_path / "one.txt") as partial:
        partial.write_text("half")
    assert list(tmp_path.iterdir()) == []
