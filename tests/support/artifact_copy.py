"""A copy of the frozen artifact that a test may damage, deliberately and consistently."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, Contract, read_contract
from hrm_runtime.artifact.golden import Golden
from hrm_runtime.artifact.schema import seal


@dataclass(frozen=True)
class ArtifactCopy:
    """An artifact folder; every edit hashes and seals again, so that only its meaning is wrong."""

    path: Path

    @property
    def contract(self) -> Contract:
        return read_contract((self.path / CONTRACT).read_bytes())

    @property
    def golden(self) -> Golden:
        return Golden.from_bytes((self.path / GOLDEN).read_bytes())

    def reseal(self, **changes: Any) -> None:
        """Write the contract with other fields."""
        (self.path / CONTRACT).write_bytes(seal(replace(self.contract, **changes)))

    def reseal_part(self, part: str, **changes: Any) -> None:
        """Write the contract with other fields in its `part`, for example its graph."""
        self.reseal(**{part: replace(getattr(self.contract, part), **changes)})

    def put(self, name: str, content: bytes) -> None:
        """Replace a file and promise its new hash."""
        (self.path / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.reseal(files={**self.contract.files, name: digest})

    def edit_golden(self, edit: Callable[[Golden], Golden]) -> None:
        """Replace the golden vectors by `edit` of them."""
        self.put(GOLDEN, edit(self.golden).to_bytes())
