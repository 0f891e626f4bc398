"""Draw what checkpoints say of their epochs: losses, accuracy and regret on validation samples.

    python benchmarks/learning_curves.py CHECKPOINT [CHECKPOINT ...] --out curves.png

A CHECKPOINT may be a folder of folds. Each gets a line; a dot marks the epoch that was kept.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cli.draw import require_picture
from hrm_train.checkpoint import MANIFEST, Description, read_description

PANELS = {
    "train_loss": "loss on training samples",
    "validation_loss": "loss on validation samples",
    "accuracy": "share of best actions",
    "regret": "regret, ATR",
}
COLOURS = ("#0b5394", "#b45f06", "#5b9bd5", "#f0a04b", "#1a1a1a", "#8c8c8c")


def described(folders: list[Path]) -> dict[str, Description]:
    """By name, the descriptions of checkpoints and of the folds in folders of them."""
    found = {}
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob(f"fold-*/{MANIFEST}"))
        for checkpoint in inside or [folder]:
            _, found[str(checkpoint.relative_to(folder.parent))] = read_description(checkpoint)
    return found


def draw(checkpoints: dict[str, Description], path: Path) -> None:
    """Four panels over epochs."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    for panel, (field, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for (name, one), colour in zip(checkpoints.items(), COLOURS, strict=False):
            values = [getattr(epoch, field) for epoch in one.epochs]
            numbers = range(1, len(values) + 1)
            panel.plot(numbers, values, color=colour, label=name)
            panel.plot(one.best_epoch, values[one.best_epoch - 1], "o", color=colour)
        panel.set_title(title, loc="left")
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    asked = parser.parse_args()
    require_picture(asked.out)
    draw(described(asked.checkpoint), asked.out)


if __name__ == "__main__":
    main()
