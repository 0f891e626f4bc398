"""What a run leaves in its folder while it goes on."""

from dataclasses import dataclass
from pathlib import Path

from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_train.data.prepared import Prepared
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import (
    FORMAT_VERSION,
    LAST,
    MANIFEST,
    CheckpointWriter,
    Description,
    Epoch,
)
from hrm_train.learning.plan import Plan
from hrm_train.learning.run import Run
from hrm_train.learning.state import Origin, Position, State, require_same


def state_file(folder: Path) -> Path | None:
    """The state of the training in `folder`; None where it wrote nothing to go on from."""
    file = folder / LAST
    if file.exists():
        return file
    if (folder / MANIFEST).exists():
        raise CheckpointInvalid(
            f"{file}: expected a state of training to resume, found a checkpoint without one; "
            "choose another folder, and go on from its weights with --init-from"
        )
    return None


def saved_state(folder: Path, origin: Origin) -> State | None:
    """Where the training in `folder` was stopped, held to what is to be resumed."""
    file = state_file(folder)
    if file is None:
        return None
    state = State.load(file)
    require_same(state.origin, origin, file)
    return state


@dataclass(frozen=True, eq=False)
class Saver:
    """What the run of a plan leaves in its folder.

    `prepared` are the tensors of the plan, under the ids of the network that is trained.
    """

    writer: CheckpointWriter
    plan: Plan
    prepared: Prepared
    run: Run

    def save(self, position: Position) -> None:
        """Where training stands, to go on from."""
        state = State(self.plan.origin, position, self.run.capture())  # by all processes
        if self.run.fabric.is_global_zero:
            self.writer.write(LAST, state.save)

    def describe(self, epochs: tuple[Epoch, ...]) -> None:
        """What was trained, and the weights of its last epoch where that is the best."""
        if not self.run.fabric.is_global_zero:
            return
        plan, manifest, best = self.plan, self.prepared.manifest, best_of(epochs)
        self.writer.describe(
            Description(
                format_version=FORMAT_VERSION,
                digest="",
                feature_version=FEATURE_VERSION,
                features=FEATURES,
                account=ACCOUNT,
                vocabulary=manifest.vocabulary,
                series=manifest.series,
                train_samples=len(plan.split.train),
                validation_samples=len(plan.split.validation),
                boundary=plan.split.boundary,
                judged_from=plan.judged_from,
                judged_until=plan.judged_until,
                initialized_from=plan.origin.initialized_from,
                quantised=plan.quantised,
                best_epoch=best.number,
                epochs=epochs,
                files={},
            ),
            self.run.average.model if best is epochs[-1] else None,
        )

    def tidy(self, epochs: tuple[Epoch, ...]) -> None:
        """Drop the weights of all epochs but the best."""
        if epochs and self.run.fabric.is_global_zero:
            self.writer.keep_only(best_of(epochs).number)


def best_of(epochs: tuple[Epoch, ...]) -> Epoch:
    """The first of those of lowest validation loss."""
    return min(epochs, key=lambda epoch: epoch.validation_loss)
