"""What an artifact promises."""

from rich.markup import escape

from hrm_cli.show import console
from hrm_cli.show.ladder import parity
from hrm_runtime import Contract
from hrm_runtime.market.stamps import moment


def contract(promised: Contract) -> None:
    """The contract on one screen, and the id that `load` takes on a line of its own."""
    graph, features = promised.graph, promised.features
    table = console.framed("", "", title=escape(promised.name), show_header=False)
    trading = ", ".join(f"{name} {value:g}" for name, value in vars(promised.trading).items())
    for name, value in (
        ("created", promised.created),
        ("trained until", moment(promised.provenance.trained_until)),
        ("graph", f"{graph.cycles} cycles x {graph.timesteps} timesteps, {graph.precision}"),
        ("states", f"{graph.tokens} tokens, H {graph.h_dim} wide, L {graph.l_dim} wide"),
        ("L reset between cycles", "yes" if graph.reset_l else "no"),
        ("segments, at most", promised.max_segments),
        ("bars behind one decision", promised.bars_needed),
        ("features", f"{len(features.names)}, definition {features.version}"),
        ("account", ", ".join(promised.account)),
        ("actions", ", ".join(f"{number} {name}" for name, number in promised.actions.items())),
        ("quantity", f"{promised.quantity.min:g} to {promised.quantity.max:g} lots"),
        ("instruments", ", ".join(promised.instruments)),
        ("timeframes", ", ".join(promised.timeframes)),
        ("unknown instruments", "allowed" if promised.allow_unknown_instrument else "refused"),
        ("unknown timeframes", "allowed" if promised.allow_unknown_timeframe else "refused"),
        ("trading", trading),
        ("versions", ", ".join(f"{k} {v}" for k, v in promised.provenance.versions.items())),
    ):
        table.add_row(name, escape(str(value)))
    console.out.print(table)
    for name, value in (
        ("id", promised.id),
        ("checkpoint", promised.provenance.checkpoint_sha256),
    ):
        # whole, to be copied
        console.out.print(f"{name:<11} {value}", highlight=False, soft_wrap=True)
    parity(promised.parity)
