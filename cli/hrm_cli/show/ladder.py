"""An export: its passes over the graph, and the ladder of comparisons with torch."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hrm_cli.show import console
from hrm_runtime.artifact.contract import Stage

if TYPE_CHECKING:
    from hrm_export.graph.build import Change

PLAIN: Final = "torch eager"
"""The reference that computes in float32."""

GATES: Final = (
    "A decision is an action, its segments and whole lots. What says passed or FAILED is held to "
    "tolerances, near ties excused; what says within or beyond is told only."
)
"""Below the ladder: what an artifact depends on."""

MOST_FLIPS: Final = 10
"""Decisions that differ, listed one by one."""


def changes(made: Sequence["Change"]) -> None:
    """What each pass over the graph did."""
    table = console.framed("pass over the graph", "changes")
    for change in made:
        table.add_row(change.name, f"{change.count:,}")
    console.out.print(table)


def parity(stages: Sequence[Stage]) -> None:
    """The ladder, a line for each stage; then how agreement depends on the gap, and what failed."""
    table = console.framed(
        "stage", "against", "windows", "largest difference", "decisions equal", ""
    )
    for stage in stages:
        verdict = "[green]passed[/green]" if stage.passed else "[red]FAILED[/red]"
        table.add_row(
            stage.stage,
            stage.reference,
            f"{stage.windows:,}",
            f"{stage.max_rel:.1e}",
            f"{stage.action_agreement:.2%}",
            verdict if stage.gated else f"[dim]{'within' if stage.passed else 'beyond'}[/dim]",
        )
    console.out.print(table)
    console.out.print(GATES, style="dim", highlight=False)
    twins = [stage.reference for stage in stages if stage.reference.startswith(f"{PLAIN}, ")]
    for stage in stages:
        _bands(stage)
        if stage.flips and stage.reference == PLAIN and stage.stage == "artifact" and twins:
            console.out.print(_fewer_bits(stage, twins[0]), style="dim", highlight=False)
        for name, output in stage.outputs.items():
            if output.beyond:
                console.out.print(
                    f"  {stage.stage} against {stage.reference}: [red]{name}[/red] differs by "
                    f"{output.max_rel:.1e}, tolerance {output.tolerance:.0e}, in {output.beyond:,} "
                    "windows beyond it"
                )
        for flip in stage.flips[:MOST_FLIPS]:
            console.out.print(
                f"  window {flip.window}: {flip.what} differs, top-two gap {flip.gap:.2e}"
            )
        if len(stage.flips) > MOST_FLIPS:
            console.out.print(f"  and {len(stage.flips) - MOST_FLIPS:,} more")


def _fewer_bits(stage: Stage, twin: str) -> str:
    """Why an artifact of fewer bits decides otherwise than the float32 network, and what to do."""
    what = Counter(flip.what for flip in stage.flips)
    if stage.gated:
        held = (
            "Actions of which the network is sure, by a gap above 0.2, are held to it, no lots: "
            f"what was trained and is judged is {twin}."
        )
    elif "quantised" in twin:
        held = (
            "It is told only. hrm train --quantise --init-from CHECKPOINT trains the network as "
            "int8 computes, so that what is deployed is what was trained and is judged."
        )
    else:
        held = "It is told only."
    return (
        f"{stage.stage} against {stage.reference}: {what['action']:,} of {stage.windows:,} differ "
        f"in the action, {what['quantity']:,} in lots alone, {what['segments']:,} in segments. "
        "This is what fewer bits do: near ties turn, as the gaps show, and lots are whole numbers "
        f"that a small change moves. {held}"
    )


def _bands(stage: Stage) -> None:
    """Agreement by gap, where not all decisions agree."""
    if not stage.flips:
        return
    table = console.framed(
        "gap from",
        "windows",
        "same action",
        "same decision",
        title=f"{stage.stage} against {stage.reference}, by the latter's top-two gap",
    )
    for band in stage.by_gap:
        shares = (
            f"{count / band.windows:.2%}" if band.windows else ""
            for count in (band.same_action, band.same_decision)
        )
        table.add_row(f"{band.above:g}", f"{band.windows:,}", *shares)
    console.out.print(table)
