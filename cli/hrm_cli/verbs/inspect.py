"""`hrm inspect`: what an artifact promises."""

from dataclasses import asdict

import typer

from hrm_cli.options import Artifact, Json
from hrm_cli.verb import print_json, verb

app = typer.Typer()


@app.command()
@verb()
def inspect(artifact: Artifact, as_json: Json = False) -> None:
    """Show what an artifact promises."""
    from hrm_cli.show.contract import contract
    from hrm_runtime import load_contract

    promised = load_contract(artifact)
    if as_json:
        print_json({"model_id": promised.id, **asdict(promised)})
    else:
        contract(promised)
