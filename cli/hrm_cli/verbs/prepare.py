"""`hrm prepare`: bars to tensors."""

from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import Data, Json, Settings, also
from hrm_cli.verb import print_json, verb

app = typer.Typer()


@app.command(context_settings=also(bars="data"))
@verb("train")
def prepare(
    settings: Settings,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="New tensor file, .safetensors.")],
    as_json: Json = False,
) -> None:
    """Turn bars into training tensors, once."""
    from hrm_cli.show import bars, console
    from hrm_train import load_settings
    from hrm_train import prepare as make
    from hrm_train.data.prepared import require_new_file, skipped_of

    require_new_file(out)
    prepared = make(load_settings(settings), data)
    prepared.save(out)
    series = prepared.manifest.series
    if as_json:
        print_json({"samples": len(prepared), "series": series, "skipped": skipped_of(series)})
    else:
        bars.series(series)
        bars.skipped(skipped_of(series))
        console.note(f"wrote {len(prepared):,} samples to {out}")
