"""Loading an artifact: verify, open, check the graph, replay, warm up; only then return."""

import copyreg
import ctypes
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from pickle import PicklingError
from typing import Final

from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, MODEL, OUTPUTS, Contract, read_contract
from hrm_runtime.artifact.golden import Golden, replay
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.schema import converted, is_converted
from hrm_runtime.artifact.session import Session, Signature
from hrm_runtime.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    BadInput,
    ContractInvalid,
    HrmError,
    InferenceFailed,
    SelfTestFailed,
)
from hrm_runtime.market.actions import Action

MOST_BYTES: Final[Mapping[str, int]] = {
    CONTRACT: 4 * 2**20,
    MODEL: 512 * 2**20,
    GOLDEN: 256 * 2**20,
}
"""Of each file, so that no folder can take a host's memory before its first hash is compared.

A contract has some 13 kB, most of them the parity of its stages. `hrm export` writes a graph of at
most 100 MB unless told otherwise, and cannot be told to write a larger one than this. Golden
vectors hold 32 windows with the states of each segment: 0.1 to 10 MB.
"""

MOST_SEGMENTS: Final = 256
"""Of one decision; networks are trained with 2 to 16. A window that never halts takes them all."""

_WARM_UP_RUNS: Final = 3

_OPENING: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe put there meanwhile
    | getattr(os, "O_BINARY", 0)
)


def load(path: str | Path, sha256: str | None = None, threads: int = 1) -> Model:
    """Load the artifact folder at `path`; what is returned has proven itself on this machine.

    Args:
        path: a folder written by `hrm export`.
        sha256: the artifact's id to insist on, against a deliberate exchange: `Contract.id`, as
            `hrm export` and `hrm inspect` print it.
        threads: CPU threads for one decision; 1 gives the steadiest latency.

    Raises:
        ArtifactNotFound: the path is missing, unreadable or not an artifact folder, or a link, a
            pipe or the like stands for one of its files.
        ArtifactDamaged: a byte differs from what was written, or the id from `sha256`; a file is
            too large, or is being written to.
        UnsupportedFormat: written for another version of this library.
        ContractInvalid: the contract contradicts itself, its graph or this library.
        SelfTestFailed: this machine does not compute what torch computed.
        BadInput: `threads` is not a count, or `sha256` not text.
    """
    if not isinstance(sha256, str | None):
        raise BadInput(f"sha256: expected text, found {sha256!r}")
    model = _load(Path(path), sha256, threads)
    with suppress(AttributeError, OSError, TypeError):  # not every C library can
        ctypes.CDLL(None).malloc_trim(0)  # gives back what loading freed, as much as the graph
    return model


def _load(path: Path, sha256: str | None, threads: int) -> Model:
    files = _read(path)
    model_id = hashlib.sha256(files[CONTRACT]).hexdigest()
    if sha256 is not None and sha256.lower() != model_id:
        if is_converted(files[CONTRACT], sha256.lower()):
            raise ArtifactDamaged(converted(CONTRACT))
        raise ArtifactDamaged(_another(path, sha256, model_id, files[CONTRACT]))
    contract = read_contract(files[CONTRACT])
    _verify_files(contract, files)
    if contract.max_segments > MOST_SEGMENTS:
        raise ContractInvalid(
            f"{CONTRACT}: max_segments: expected at most {MOST_SEGMENTS}, found "
            f"{contract.max_segments}; a window that never halts would take them all"
        )
    golden = Golden.from_bytes(files[GOLDEN])
    session = _open(contract, files[MODEL], threads)
    model = Model(contract, model_id, session, path.absolute())
    replay(golden, model)
    _warm_up(model, golden)
    try:
        session.shrink(golden.inputs(1))  # replaying took the memory of a large batch
        model.self_test()  # later ones must answer alike
    except InferenceFailed as error:
        raise SelfTestFailed(f"{MODEL}: expected a window alone to run: {error}") from error
    return model


def _another(path: Path, sha256: str, model_id: str, contract: bytes) -> str:
    """What to say of an artifact with another id: its contract is hashed, and not interpreted."""
    digest = sha256.lower()
    sealed = f'"digest": "{digest}"'.encode(errors="replace")
    if hashlib.sha256(contract.replace(sealed, b'"digest": ""')).hexdigest() == digest:
        return (
            f"{path}: expected an artifact's id as sha256, found {sha256}, the digest inside this "
            f"artifact's contract; its id is {model_id}: give that"
        )
    return f"{path}: expected the artifact {sha256}, found {model_id}"


def _open(contract: Contract, graph: bytes, threads: int) -> Session:
    """A session whose graph is the one that the contract describes."""
    try:
        session = Session(graph, threads)
        _verify_graph(contract, session)
    except HrmError:
        raise
    except (ValueError, LookupError, ArithmeticError, MemoryError) as error:  # from its C++
        raise ContractInvalid(
            f"{MODEL}: expected a graph that onnxruntime can describe: {error!r}; export it again"
        ) from error
    return session


def _pickled(model: Model) -> tuple[Callable[..., Model], tuple[str, str, int]]:
    """How another process gets a model: it loads the same one.

    Raises:
        PicklingError: it was loaded from no folder.
    """
    if model.folder is None:
        raise PicklingError(f"{model!r}: expected a model that was loaded from a folder")
    return load, (str(model.folder), model.id, model.threads)


copyreg.pickle(Model, _pickled)


def load_contract(path: str | Path) -> Contract:
    """The contract of the artifact at `path`, its files verified but not loaded.

    Its `id` is the artifact's, to be given to `load`.

    Raises:
        ArtifactNotFound, ArtifactDamaged, UnsupportedFormat, ContractInvalid: as `load`.
    """
    files = _read(Path(path))
    contract = read_contract(files[CONTRACT])
    _verify_files(contract, files)
    return contract


def save(model: Model, path: str | Path) -> None:
    """Copy the artifact that `model` was loaded from to a new folder at `path`.

    Raises:
        BadInput: `path` exists, its parent does not, or the model was not loaded from a folder.
        ArtifactNotFound, ArtifactDamaged: that folder is gone, or no longer what was loaded.
    """
    path = Path(path)
    if model.folder is None:
        raise BadInput("model: expected one loaded from a folder")
    files = _read(model.folder)
    found = hashlib.sha256(files[CONTRACT]).hexdigest()
    if found != model.id:
        raise ArtifactDamaged(f"{model.folder}: expected the artifact {model.id}, found {found}")
    _verify_files(model.contract, files)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".hrm-") as temporary:
            made = Path(temporary, "artifact")
            made.mkdir()
            for name, content in files.items():
                (made / name).write_bytes(content)
            if path.exists():
                raise BadInput(f"{path}: expected a new folder, found something there")
            made.rename(path)
    except OSError as error:
        raise BadInput(f"{path}: expected a folder that can be written: {error}") from error


def _read(folder: Path) -> dict[str, bytes]:
    if not os.path.isdir(folder):  # false where unreadable too; Path.is_dir raises there
        raise ArtifactNotFound(f"{folder}: expected an artifact folder, found no folder there")
    root = os.path.realpath(folder)  # of one artifact, where a link to it is switched meanwhile
    try:
        return {name: _read_file(Path(root, name), most) for name, most in MOST_BYTES.items()}
    except OSError as error:
        raise ArtifactNotFound(
            f"{folder}: expected an artifact ({CONTRACT}, {MODEL}, {GOLDEN}): {error}"
        ) from error


def _read_file(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes, read without following a link.

    Raises:
        ArtifactNotFound: it is something else.
        ArtifactDamaged: it is larger, or its size changes meanwhile.
        OSError: it cannot be read.
    """
    _require_regular(path, os.lstat(path))  # opening a device can do more than open it
    with open(os.open(path, _OPENING), "rb") as file:
        found = os.fstat(file.fileno())
        _require_regular(path, found)
        if found.st_size > most:
            raise ArtifactDamaged(
                f"{path}: expected at most {most} bytes, found {found.st_size}; export it again"
            )
        content = file.read(found.st_size + 1) or b""  # None where it would block
    if len(content) != found.st_size:
        raise ArtifactDamaged(
            f"{path}: expected the {found.st_size} bytes of its size, found "
            f"{'more' if len(content) > found.st_size else len(content)}; it is being written to: "
            "load an artifact once it is complete"
        )
    return content


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise ArtifactNotFound(
            f"{path}: expected an artifact's file, found {kind}; put the file itself there "
            "(a link to the whole folder is followed)"
        )


_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def _verify_files(contract: Contract, files: dict[str, bytes]) -> None:
    for name, expected in contract.files.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise ArtifactDamaged(
                f"{name}: expected sha256 {expected}, found {found}; the file was changed"
            )


def _verify_graph(contract: Contract, session: Session) -> None:
    """Hold names, types and shapes of the graph to the contract; None stands for a batch axis."""
    graph = contract.graph
    z_h, z_l = (None, graph.tokens, graph.h_dim), (None, graph.tokens, graph.l_dim)
    floats, integers = "tensor(float)", "tensor(int64)"
    window = (None, contract.features.window, len(contract.features.names))
    expected: dict[str, Signature] = {
        "inputs": {
            "features": (floats, window),
            "account": (floats, (None, len(contract.account))),
            "instrument": (integers, (None,)),
            "timeframe": (integers, (None,)),
        },
        "optional inputs": {"z_H": (floats, z_h), "z_L": (floats, z_l)},
        "outputs": {
            "action_type": (floats, (None, len(Action))),
            "quantity": (floats, (None,)),
            "value": (floats, (None,)),
            "q_values": (floats, (None, 2)),
            "z_H_out": (floats, z_h),
            "z_L_out": (floats, z_l),
            "l_residual": (floats, (None, graph.cycles, graph.timesteps)),
            "h_residual": (floats, (None, graph.cycles)),
        },
    }
    assert tuple(expected["outputs"]) == OUTPUTS
    found = {
        "inputs": session.inputs(),
        "optional inputs": session.optional_inputs(),
        "outputs": session.outputs(),
    }
    for kind, signature in expected.items():
        seen = {
            name: (type_, tuple(size if isinstance(size, int) else None for size in shape))
            for name, (type_, shape) in found[kind].items()
        }
        if seen != signature:
            raise ContractInvalid(
                f"{MODEL}: {kind}: the contract expects {signature}, the graph has {seen}"
            )


def _warm_up(model: Model, golden: Golden) -> None:
    """Run single decisions with the largest ids, so that one beyond its table fails here."""
    contract = model.contract
    instrument = max(entry.id for entry in contract.instruments.values())
    timeframe = max((entry.id for entry in contract.timeframes.values()), default=0)
    try:
        for _ in range(_WARM_UP_RUNS):
            model.run(golden.features[:1], golden.account[:1], [instrument], [timeframe])
    except (InferenceFailed, BadInput) as error:  # BadInput: ids that no int64 holds
        raise ContractInvalid(
            f"{CONTRACT}: expected ids within the graph's tables; instrument {instrument} with "
            f"timeframe {timeframe} fails: {error}"
        ) from error
