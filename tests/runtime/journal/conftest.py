"""Journals that are begun in a folder of their own, on a disk in a test's hands."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from journalled import LOADED, SETTINGS, Disk

from hrm_runtime.journal.writer import Journal

Begun = Callable[..., Journal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def begun(folder: Path) -> Iterator[Begun]:
    """Begins journals in `folder`; they are closed afterwards."""
    with ExitStack() as journals:

        def begin(**given: Any) -> Journal:
            journal = Journal(folder, **given)
            journal.begin(SETTINGS, LOADED)
            journals.callback(journal.close)
            return journal

        yield begin


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)
