"""What a report says of an evaluation, part by part: the one place for every sentence that reports share.

The text of an evaluation, the HTML page and the model card render this list. Each adds its own tables and
drawings to a section, by the section's key. A new part of every report is one more entry of `sections`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_eval._text import counted, quoted, share, visible
from finetune_eval.evaluation import abstention, thresholds
from finetune_eval.evaluation._result import NO_PROBABILITIES
from finetune_eval.evaluation._trust import opening, simpler_models
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.outcomes import P_VALUE
from finetune_eval.evaluation.power import detectable_sentence
from finetune_eval.evaluation.slices import about_slices

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation
    from finetune_eval.evaluation.outcomes import Comparison
    from finetune_eval.evaluation.seeds import SeedSummary

_MOST_COUNTED = 12  # classes up to which a sentence counts the rows of each
_NARROWER = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # half widths of an interval that a reader may want


@dataclass(frozen=True)
class Section:
    """One titled part of a report.

    Attributes:
        key: What it is about; a renderer finds the tables and drawings of the section by it.
        title: Its heading.
        sentences: What it says, a paragraph each.
        warnings: What speaks against the numbers, to be marked as such and to stand before the sentences.
    """

    key: str
    title: str
    sentences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def sections(
    evaluation: Evaluation, *, comparison: Comparison | None = None, seeds: SeedSummary | None = None
) -> list[Section]:
    """Return the sections of a report on an evaluation, in the order in which they are read.

    A section without sentences is there for the tables and drawings that a renderer adds; a renderer leaves
    out a section for which it has none of these.

    Args:
        evaluation: What to report.
        comparison: The evaluation against others on the same rows.
        seeds: Runs of the same recipe that differ in their seed only.
    """
    answers_only = () if evaluation.has_probabilities else (NO_PROBABILITIES,)
    against, checked = _trust(evaluation)
    return [
        Section("verdict", "Evaluation", (verdict(evaluation),), simpler_models(evaluation)),
        Section("comparison verdict", "", () if comparison is None else (comparison.verdict,)),
        Section("care", "", warnings=_care(evaluation)),
        Section("trust", "Can it be trusted?", (*checked, *answers_only), against),
        Section("rows", "The rows", _rows(evaluation)),
        Section("metrics", "How good"),
        Section("classes", "Each class"),
        Section("comparison", "Against another model", () if comparison is None else comparison.notes),
        Section(
            "baselines",
            "Against simple models on the same rows",
            tuple(baseline.verdict for baseline in evaluation.baselines),
        ),
        Section("power", "What these rows could show", _said(detectable_sentence(evaluation))),
        Section("calibration", "Do the probabilities mean what they say?", _calibration(evaluation)),
        Section("threshold", "The threshold", _said(thresholds.sentence(evaluation))),
        Section("abstention", "Answers that are withheld", _said(abstention.sentence(evaluation))),
        Section("weak", "Where it is weak", tuple(about_slices(evaluation))),
        Section("seeds", "Other seeds", () if seeds is None else (" ".join(str(seeds).split()),)),
        Section("limits", "How to read these numbers", _limits(evaluation)),
    ]


def _said(sentence: str) -> tuple[str, ...]:
    return (sentence,) if sentence else ()


def verdict(evaluation: Evaluation) -> str:
    """Return how many rows are right, the accuracy with its interval, and what guessing would give."""
    accuracy = evaluation.estimates["accuracy"]
    weighted, by_weight = ("weighted ", " by weight") if "weight" in evaluation.predictions else ("", "")
    right = "right" if evaluation.task == "classification" else "right in every label"
    sentence = opening(
        evaluation,
        f"{evaluation.right:,} of {counted(evaluation.n, 'row')} {right}: {weighted}accuracy "
        f"{share(accuracy.value)}, {evaluation.confidence * 100:g} % interval {share(accuracy.low)} to "
        f"{share(accuracy.high)}",
    )
    if evaluation.task != "classification":
        return f"{sentence}."
    label, rows = evaluation.majority
    always = rows / evaluation.total
    if accuracy.low > always:
        where = "the whole interval is above that"
    elif accuracy.high < always:
        where = "the whole interval is below that"
    else:
        where = "the interval includes that"
    return (
        f"{sentence}. Always answering {quoted(label)} would be right on {count(rows)} of "
        f"{count(evaluation.total)}{by_weight} ({always:.3f}): {where}."
    )


def _care(evaluation: Evaluation) -> tuple[str, ...]:
    """Return what speaks so loudly against the verdict that it stands beside it."""
    reasons = []
    if evaluation.leaks is not None and evaluation.leaks.rows:
        reasons.append(f"{len(evaluation.leaks.rows):,} of the rows may be in the training rows too")
    if evaluation.looks is not None and evaluation.looks.optimistic:
        reasons.append(
            f"it is the best of {evaluation.looks.models} models on these rows, which is optimistic if it "
            "was chosen for that"
        )
    return (f"Read with care: {'; '.join(reasons)}.",) if reasons else ()


def _trust(evaluation: Evaluation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what speaks against the numbers, and what was looked for and does not."""
    against = [*evaluation.warnings]
    checked: list[str] = []
    looks, leaks = evaluation.looks, evaluation.leaks
    if looks is not None:
        (against if looks.models > 1 else checked).insert(0, looks.verdict)
    if leaks is not None:
        (against if leaks.rows else checked).insert(0, leaks.verdict)
    if not against:
        unknown = "" if leaks is not None else "; whether these rows were in its training was not checked"
        checked.insert(0, f"No check found a problem with how the model was evaluated{unknown}.")
    return tuple(against), tuple(checked)


def _rows(evaluation: Evaluation) -> tuple[str, ...]:
    """Return how many rows each class has, how the rows are known, and how wide that makes the interval."""
    labels = evaluation.labels
    sentence = f"{counted(evaluation.n, 'row')}, {len(labels):,} classes"
    if evaluation.task == "multilabel":
        sentence += ", several of which a row can have"
    if len(labels) <= _MOST_COUNTED:
        counts = (
            f"{count(score.support)} {quoted(score.label)} ({100 * part:.1f} %)"
            for score, part in zip(evaluation.per_class, class_shares(evaluation), strict=True)
        )
        by_weight = ", by weight" if "weight" in evaluation.predictions else ""
        sentence += f"{by_weight}: {', '.join(counts)}"
    known = f"Hash of the rows and their labels: {visible(evaluation.rows_hash)}"
    return f"{sentence}.", _precision(evaluation), f"{known}; evaluations of the same rows share it."


def class_shares(evaluation: Evaluation) -> list[float]:
    """Return each class's share of the rows or of their weight; shares of multilabel rows overlap."""
    total = evaluation.total or 1.0
    if evaluation.task == "multilabel":
        total /= len(evaluation.labels)  # `total` counts every pair of a row and a label
    return [score.support / total for score in evaluation.per_class]


def _precision(evaluation: Evaluation) -> str:
    """Return how well the accuracy is known, and how many rows a narrower interval would take."""
    from scipy.special import ndtri

    accuracy = evaluation.estimates["accuracy"]
    half = (accuracy.high - accuracy.low) / 2
    z = float(ndtri(0.5 + evaluation.confidence / 2))
    target = next((step for step in _NARROWER if step < half * 0.75), None)
    sentence = f"With {counted(evaluation.n, 'row')} the accuracy is known to about "
    sentence += f"+-{half * 100:.2g} percentage points"
    equal = {"weight", "group"}.isdisjoint(evaluation.predictions.columns)
    if target is not None and 0 < accuracy.value < 1 and equal:
        # Half the width of a normal interval is z sqrt(p (1 - p) / n). Two digits: an order of magnitude.
        needed = int(float(f"{z**2 * accuracy.value * (1 - accuracy.value) / target**2:.1e}"))
        if needed > evaluation.n:
            sentence += f"; +-{target * 100:g} would take about {needed:,} rows in all"
    return f"{sentence}."


def _calibration(evaluation: Evaluation) -> tuple[str, ...]:
    if evaluation.calibration is None:
        return ()
    parts = evaluation.calibration.brier
    return (
        evaluation.calibration.verdict,
        f"Brier score {parts.brier:.3f} = reliability {parts.reliability:.3f} (0 is perfect) - resolution "
        f"{parts.resolution:.3f} (more is better) + uncertainty {parts.uncertainty:.3f} (of the class sizes) "
        f"+ within bins {round(parts.within, 3) + 0.0:.3f}.",  # no minus zero
    )


def _limits(evaluation: Evaluation) -> tuple[str, ...]:
    percent = f"{evaluation.confidence * 100:g}"
    tested = evaluation.baselines or evaluation.calibration is not None
    return (
        f"A {percent} % interval holds the score on all rows of this kind in about {percent} of 100 such "
        "evaluations; it is no range for single rows, and leaves out other seeds of the training and rows of "
        "another source or time.",
        *((P_VALUE,) if tested else ()),
        "Compare two models row by row; whether their intervals overlap decides nothing.",
        "A model, setting or threshold chosen on these rows looks better than it is.",
    )


def metric_names(evaluation: Evaluation, first: str = "accuracy") -> list[str]:
    """Return the names of the estimates in the order of `METRICS`, but for the one that comes first."""
    order = [name for name in dict.fromkeys((first, *METRICS)) if name in evaluation.estimates]
    return [*order, *(name for name in evaluation.estimates if name not in order)]


def metric_title(evaluation: Evaluation, name: str) -> str:
    """Return a metric's name for a table, with the class or the average that it is of."""
    if name not in METRICS:
        return name
    if not METRICS[name].averaged:
        return METRICS[name].title
    of = f"of {quoted(evaluation.labels[1])}" if evaluation.average == "binary" else evaluation.average
    return f"{METRICS[name].title} ({of})"


def directed_title(evaluation: Evaluation, name: str) -> str:
    """Return a metric's name for a table that does not say what it means: a loss is best where it is low."""
    loss = name in METRICS and METRICS[name].direction == "lower"
    return metric_title(evaluation, name) + (" (lower is better)" if loss else "")


def metric_meaning(evaluation: Evaluation, name: str) -> str:
    """Return what a metric is of these rows, in the words of someone who is no statistician."""
    if name not in METRICS:
        return ""
    binary = evaluation.average == "binary"
    over = {"binary": "", "macro": ", averaged over the classes", "micro": ", all classes counted together"}
    several = evaluation.task == "multilabel"
    return METRICS[name].meaning.format(
        one=quoted(evaluation.labels[1]) if binary else "a class",
        over=over.get(evaluation.average, ", averaged over the classes by their rows"),
        in_every_label=" in every label" if several else "",
        guessing="" if several else f"; {math.log(len(evaluation.labels)):.3f} is guessing",
    )


def count(value: float) -> str:
    """Return a count, or a sum of weights, with thousands separated."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


__all__ = ["Section", "sections"]
