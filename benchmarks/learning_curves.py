"""Draw what checkpoints say of their epochs: losses, accuracy and regret on validation samples.

    python benchmarks/learning_curves.py CHECKPOINT [CHECKPOINT ...] --out curves.png

A CHECKPOINT may be a folder of folds. Each gets a line, in the style of its folder and the colour
of its place in it; a dot marks the epoch that was kept.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hrm_cli.show.draw import DARK, GREY, LIGHT, RED, SAND, WARM, require_picture
from hrm_train.learning.checkpoint import Description, folds_in, read_description

PANELS = {
    "train_loss": "loss on training samples",
    "validation_loss": "loss on validation samples",
    "accuracy": "share of best actions",
    "regret": "regret, ATR",
}
COLOURS = (DARK, WARM, LIGHT, SAND, GREY, RED)
STYLES = ("-", "--", ":", "-.")


def described(folder: Path) -> dict[str, Description]:
    """By name, the descriptions of a checkpoint or of the folds in a folder of them."""
    inside = [*folds_in(folder).values()] or [folder]
    return {str(one.relative_to(folder.parent)): read_description(one)[1] for one in inside}


def draw(folders: list[dict[str, Description]], path: Path) -> None:
    """Four panels over epochs."""
    lines = [
        (name, one, style, colour)
        for style, inside in zip(STYLES, folders, strict=False)
        for colour, (name, one) in zip(COLOURS, inside.items(), strict=False)
    ]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    panels = list(figure.subplots(2, 2).flat)
    for panel, (field, title) in zip(panels, PANELS.items(), strict=True):
        for name, one, style, colour in lines:
            values = [getattr(epoch, field) for epoch in one.epochs]
            numbers = range(1, len(values) + 1)
            panel.plot(numbers, values, color=colour, linestyle=style, label=name)
            panel.plot(one.best_epoch, values[one.best_epoch - 1], "o", color=colour)
        panel.set_title(title, loc="left")
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    asked = parser.parse_args()
    require_picture(asked.out)
    found = [described(folder) for folder in asked.checkpoint]
    if len(found) > len(STYLES) or max(map(len, found)) > len(COLOURS):
        parser.error(f"expected at most {len(STYLES)} folders of {len(COLOURS)} checkpoints each")
    draw(found, asked.out)


if __name__ == "__main__":
    main()
