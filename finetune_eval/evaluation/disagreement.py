"""Why the more accurate of two models may have the worse log-loss: its calibration, or something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune_eval._text import p_value
from finetune_eval.evaluation._paired_differences import Difference, difference_of
from finetune_eval.evaluation._paired_rows import ScoredRows, Settings
from finetune_eval.evaluation.calibration import apply_temperature, fit_temperature
from finetune_eval.evaluation.metrics import METRICS, row_loss
from finetune_eval.evaluation.outcomes import range_text

# Twice the gain in log-likelihood from which a temperature other than 1 is more than chance: the .95 quantile
# of the chi-squared distribution with one degree of freedom.
_MORE_THAN_CHANCE = 3.841


@dataclass(frozen=True)
class LossParts:
    """The log-loss of a model, with and without what one temperature would mend.

    Attributes:
        loss: Of its probabilities as they are.
        temperature: That fits these rows best: above 1 the model is over-confident.
        fitted: Its log-loss at that temperature.
        miscalibrated: Whether the temperature differs from 1 by more than chance.
    """

    loss: float
    temperature: float
    fitted: float
    miscalibrated: bool


def loss_parts(rows: ScoredRows) -> LossParts:
    """Take the log-loss apart into calibration (which one temperature mends) and the rest.

    Reference:
        Broecker 2009, Q. J. R. Meteorol. Soc. 135:1512-1519 (calibration and refinement of proper scores);
        Guo et al. 2017, ICML (temperature).
    """
    y, p, loss = rows.codes("label"), rows.probabilities, float(rows.loss.mean())
    temperature = fit_temperature(y, p)
    fitted = min(loss, float(row_loss(y, apply_temperature(p, temperature)).mean()))
    return LossParts(loss, temperature, fitted, 2 * len(y) * (loss - fitted) > _MORE_THAN_CHANCE)


def disagreement_note(a: ScoredRows, b: ScoredRows, settings: Settings, alpha: float) -> list[str]:
    """Return a note where one model has the better accuracy and the other the better log-loss."""
    if not (a.has_probabilities and b.has_probabilities):
        return []
    accuracy = [float(np.average(rows.correct, weights=rows.weights)) for rows in (a, b)]
    loss = [float(np.average(rows.loss, weights=rows.weights)) for rows in (a, b)]
    if (accuracy[0] - accuracy[1]) * (loss[0] - loss[1]) <= 0:
        return []
    more, less = (a, b) if accuracy[0] > accuracy[1] else (b, a)
    of_loss = difference_of(a, b, Settings("loss", settings.average, 0, settings.seed, settings.groups))
    note = disagreement_sentences((a.name, b.name), accuracy, loss, of_loss, settings.metric, alpha)
    if more.multilabel or more.weights is not None:
        return [note]
    return [f"{note} {explanation(more.name, loss_parts(more), less.name, loss_parts(less))}"]


def disagreement_sentences(
    names: tuple[str, str],
    accuracy: Sequence[float],
    loss: Sequence[float],
    difference: Difference,
    metric: str,
    alpha: float,
) -> str:
    """Return that one model has the better accuracy and the other the better log-loss; empty where not.

    Args:
        names: What the two models are called.
        accuracy: The accuracy of each.
        loss: The log-loss of each.
        difference: The difference of the losses.
        metric: The metric that was declared to decide.
        alpha: The level of the test.
    """
    if (accuracy[0] - accuracy[1]) * (loss[0] - loss[1]) <= 0:
        return ""
    more, less = names if accuracy[0] > accuracy[1] else names[::-1]
    found, p = difference.interval(alpha), difference.test.p_value
    return (
        f"{disagreement_text(more, less, max(accuracy), min(accuracy), max(loss), min(loss))} The "
        f"difference of the losses, {found.value:+.4f} {range_text('loss', found)}, {p_value(p)}, "
        f"{'is more than chance' if p <= alpha else 'may be chance'}. The metric declared to decide is "
        f"{METRICS[metric].title}."
    )


def disagreement_text(
    more: str, less: str, high: float, low: float, high_loss: float, low_loss: float
) -> str:
    """Return that one model has more rows right and the other the lower loss."""
    return (
        f"Accuracy and log-loss disagree: {more} has more rows right ({high:.3f} against {low:.3f}), {less} "
        f"has the lower loss ({low_loss:.3f} against {high_loss:.3f})."
    )


def explanation(more: str, of_more: LossParts, less: str, of_less: LossParts) -> str:
    """Return whether calibration is what gives a model with fewer rows right the lower loss.

    Args:
        more: The model with more rows right and the higher loss.
        of_more: Its loss, taken apart.
        less: The other model.
        of_less: Its loss, taken apart.
    """
    separates = f"the probabilities of {less} separate right from wrong answers better"
    best = f"the temperature that fits {more} best on these rows is {of_more.temperature:.2f}"
    if not of_more.miscalibrated:
        return (
            f"That is not a matter of over- or under-confidence: {best}, which chance does not tell from 1. "
            f"Rather, {separates}, and no temperature changes that."
        )
    word = "over-confident" if of_more.temperature > 1 else "under-confident"
    start = (
        f"{more} is {word}: {best}. At its best temperature each model has a loss of {of_more.fitted:.3f} "
        f"({more}) and {of_less.fitted:.3f} ({less}), so "
    )
    left, gap = of_more.fitted - of_less.fitted, of_more.loss - of_less.loss
    mend = "A temperature, fitted on validation rows, would lower the loss of"
    if left <= 0:
        return (
            f"{start}the lower loss of {less} is a matter of calibration. {mend} {more} and change no "
            "decision."
        )
    if left < gap:
        return (
            f"{start}{gap - left:.3f} of the difference of {gap:.3f} is a matter of calibration; for the "
            f"rest {separates}. {mend} {more}, not below that of {less}."
        )
    return f"{start}the difference is not a matter of calibration: {separates}."
