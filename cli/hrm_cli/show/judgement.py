"""The judgement of a checkpoint in words: a table per fold, and what it does and does not say."""

from hrm_cli.show import console
from hrm_train.judging.evaluation import Evaluation
from hrm_train.judging.judgement import Judgement
from hrm_train.judging.metrics import Estimate

CAPTION = (
    "Accuracy is the share of samples whose action was a best one in hindsight, then weighted by "
    "what was at stake; the majority's is what it has to beat. In brackets, 95 % intervals over "
    "blocks of time; one of a difference that spans zero is no evidence."
)
CHOSEN = (
    "The epoch was chosen on the training data of this time: where these are the same data, they "
    "flatter the network."
)


def evaluation(found: Evaluation) -> None:
    """The network beside what it has to beat, fold by fold and over all folds."""
    for fold in found.folds:
        _judgement("Checkpoint" if fold.number is None else f"Fold {fold.number}", fold.judgement)
        if fold.chosen_on_judged:
            console.out.print(CHOSEN)
        if fold.no_baselines is not None:
            console.out.print(f"No baselines: {fold.no_baselines}.")
    if len(found.folds) > 1:
        _judgement("All folds", found.pooled)
    console.out.print(CAPTION, style="dim")


def _judgement(title: str, found: Judgement) -> None:
    first, last = map(console.day, (found.first, found.last))
    table = console.framed(
        "",
        "accuracy",
        "by\nstake",
        "macro\nF1",
        "regret, ATR",
        "quantity\nerror",
        "value\nR2",
        title=f"{title}: {found.samples:,} samples from {first} to {last} UTC, "
        f"{found.blocks:,} blocks of time",
    )
    for name, one in found.predictors.items():
        table.add_row(
            name,
            f"{one.accuracy.value:.1%}{_within(one.accuracy, '{:.1f}', 100)}",
            "" if one.weighted_accuracy is None else f"{one.weighted_accuracy:.1%}",
            f"{one.macro_f1:.3f}",
            f"{one.regret.value:.3f}{_within(one.regret, '{:.3f}')}",
            f"{one.quantity_error:.3f}",
            "" if one.value_r2 is None else f"{one.value_r2:.3f}",
        )
    console.out.print(table)
    for name, one in found.predictors.items():
        over = one.over_majority
        if over is not None:
            within = _within(over, "{:+.1f}", 100).replace("\n", " ")
            points = f"{100 * over.value:+.1f} points{within}"
            console.out.print(f"{name} over majority: {points}, {_verdict(over)}", highlight=False)
    halting = found.calibration
    shares = ", ".join(f"{number}: {s:.0%}" for number, s in enumerate(halting.segments, start=1))
    console.out.print(
        f"q_halt: {halting.mean_q:.3f} on average where {halting.correct:.1%} are correct, "
        f"calibration error {halting.error:.3f}, Brier score {halting.brier:.3f}; "
        f"{halting.mean_segments:.2f} segments per decision ({shares})",
        highlight=False,
    )


def _within(found: Estimate, form: str, scale: float = 1.0) -> str:
    if found.low is None or found.high is None:
        return ""
    low, high = form.format(scale * found.low), form.format(scale * found.high)
    return f"\n\\[{low}, {high}]"


def _verdict(difference: Estimate) -> str:
    if difference.low is None or difference.high is None:
        return "too few blocks of time to tell"
    if difference.low <= 0 <= difference.high:
        return "no evidence of a difference"
    return "better" if difference.low > 0 else "worse"
