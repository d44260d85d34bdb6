"""observe: one sentence about an epoch, computed from its numbers and those of the epochs before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from finetune_eval import _checks

# A relative change of a loss smaller than this is called no change. Prechelt (1998) measures the rise of the
# validation loss over its lowest in per cent (the generalisation loss); 1 % is his smallest threshold.
_FLAT = 0.01


def observe(
    history: Sequence[Mapping[str, float]], *, rows: int | None = None, val_rows: int | None = None
) -> str:
    """Say in one sentence what the last epoch's numbers show against the epochs before.

    The rules, in the order of what matters:

    * A loss that is NaN or infinite is said first, and nothing else.
    * *Overfitting since epoch k*: the validation loss rose, and is more than 1 % above its lowest (in epoch
      k - 1), while the training loss fell, and is below what it was then.
    * *Within noise*: an accuracy moved by no more than one standard error, sqrt(p (1 - p) / n) on its n rows.
      p is taken as (hits + 2) / (n + 4), so that it is not 0 for a perfect epoch. It is said only where the
      number of rows is known. Two epochs are judged on the same rows, so this is a rule of thumb and no test.
    * A loss that moved by less than 1 % *held*.
    * *As for a model that always answers the same*: recall is 1 and precision equals accuracy (always the
      positive class), recall is 0 though some rows are right (never the positive class), or recall is 1/K
      and precision accuracy/K (averages over K classes, of which only one is ever answered).

    Args:
        history: One mapping of Keras names to values for each epoch so far, the last one last.
        rows: Number of training rows behind `accuracy`, if known.
        val_rows: Number of validation rows behind `val_accuracy`, if known.

    Returns:
        One sentence, without a full stop.

    Raises:
        ValueError: `history` is empty.

    Example:
        >>> observe([{"loss": 0.65, "val_loss": 0.60}, {"loss": 0.48, "val_loss": 0.66}])
        'validation loss rose 0.60 → 0.66 while training loss fell 0.65 → 0.48: overfitting since epoch 2'

    Reference:
        L. Prechelt, "Early stopping - but when?", 1998 (the generalisation loss). L. Breiman et al.,
        "Classification and Regression Trees", 1984, section 3.4.3 (the one-standard-error rule).
        A. Agresti and B. Coull, The American Statistician 52, 1998 (two hits and two misses added).
    """
    _checks.not_empty("history", history)
    now = history[-1]
    broken = _not_finite(history)
    if broken:
        return broken
    moved = _first_epoch(now) if len(history) == 1 else _movement(history, rows, val_rows)
    return "; ".join(part for part in (moved, _one_class(now)) if part)


def _not_finite(history: Sequence[Mapping[str, float]]) -> str:
    loss, val_loss = history[-1].get("loss", 0.0), history[-1].get("val_loss", 0.0)
    if not math.isfinite(loss):
        first = len(history)
        while first > 1 and not math.isfinite(history[first - 2].get("loss", 0.0)):
            first -= 1
        since = f" since epoch {first}" if first < len(history) else ""
        word = "NaN" if math.isnan(loss) else "infinite"
        return (
            f"loss is {word}{since}: training has diverged; lower the learning rate, "
            "or look for NaN and huge values in the inputs"
        )
    if not math.isfinite(val_loss):
        word = "NaN" if math.isnan(val_loss) else "infinite"
        training = f" while training loss is {_figure(loss)}" if "loss" in history[-1] else ""
        return (
            f"validation loss is {word}{training}: the last steps of this epoch diverged, "
            "or the validation rows hold NaN or huge values"
        )
    return ""


def _first_epoch(now: Mapping[str, float]) -> str:
    said = [
        f"{words} {_figure(now[name])}"
        for name, words in (
            ("loss", "loss"),
            ("accuracy", "accuracy"),
            ("val_loss", "validation loss"),
            ("val_accuracy", "validation accuracy"),
        )
        if name in now
    ]
    return f"first epoch: {', '.join(said)}" if said else "first epoch, with no loss or accuracy recorded"


def _movement(history: Sequence[Mapping[str, float]], rows: int | None, val_rows: int | None) -> str:
    before, now = history[-2], history[-1]
    accuracy, noise = _accuracy_clause(before, now, rows, val_rows)
    overfitting = _overfitting(history)
    if overfitting:
        if noise:
            accuracy += f", within noise ({noise})"
        return f"{overfitting}; {accuracy}" if accuracy else overfitting

    losses = [
        _loss_clause(history, name, words)
        for name, words in (("loss", "loss"), ("val_loss", "validation loss"))
        if _both(before, now, name)
    ]
    flat = not any(_direction(before, now, name) for name in ("loss", "val_loss"))
    if noise and flat:
        return f"changes are within noise: {accuracy} ({noise})"
    if noise:
        accuracy += f", within noise ({noise})"
    said = [*losses, *([accuracy] if accuracy else [])]
    return ", ".join(said) if said else "the epoch before has no loss or accuracy to compare with"


def _overfitting(history: Sequence[Mapping[str, float]]) -> str:
    before, now = history[-2], history[-1]
    if _direction(before, now, "loss", flat=0.0) >= 0 or _direction(before, now, "val_loss", flat=0.0) <= 0:
        return ""
    lowest = _lowest(history, "val_loss")
    at_lowest = history[lowest]
    if now["val_loss"] <= at_lowest["val_loss"] * (1 + _FLAT) or not now["loss"] < at_lowest.get("loss", 0.0):
        return ""
    return (
        f"validation loss rose {_pair(before['val_loss'], now['val_loss'])} while training loss fell "
        f"{_pair(before['loss'], now['loss'])}: overfitting since epoch {lowest + 2}"
    )


def _loss_clause(history: Sequence[Mapping[str, float]], name: str, words: str) -> str:
    before, now = history[-2], history[-1]
    direction = _direction(before, now, name)
    if direction == 0:
        said = f"{words} held at {_figure(now[name])}"
    else:
        said = f"{words} {'rose' if direction > 0 else 'fell'} {_pair(before[name], now[name])}"
    first = history[0].get(name, math.nan)
    if name == "loss":
        if len(history) > 2 and direction > 0 and now[name] > first:
            said += f" (above the first epoch's {_figure(first)})"
        return said
    lowest = _lowest(history, name)
    if lowest < len(history) - 2 and now[name] > history[lowest][name]:
        said += f" (lowest: {_figure(history[lowest][name])} in epoch {lowest + 1})"
    return said


def _accuracy_clause(
    before: Mapping[str, float], now: Mapping[str, float], rows: int | None, val_rows: int | None
) -> tuple[str, str]:
    """Return how the accuracy moved (validation if both epochs have it) and, if that is noise, why."""
    if _both(before, now, "val_accuracy"):
        name, words, n = "val_accuracy", "validation accuracy", val_rows
    elif _both(before, now, "accuracy"):
        name, words, n = "accuracy", "accuracy", rows
    else:
        return "", ""
    change = now[name] - before[name]
    if abs(change) < 5e-5:
        return f"{words} unchanged at {_figure(now[name])}", ""
    said = f"{words} {'up' if change > 0 else 'down'} {_points(abs(change))}"
    if n:
        hits = (before[name] + now[name]) / 2 * n
        share = (hits + 2) / (n + 4)
        error = math.sqrt(share * (1 - share) / n)
        if abs(change) <= error:
            return said, f"standard error on {n:,} {'row' if n == 1 else 'rows'}: {_points(error)}"
    return said, ""


def _one_class(now: Mapping[str, float]) -> str:
    """Say that the figures are those of a model that answers one class only, if they are."""
    for prefix, words in (("val_", "validation "), ("", "")):
        values = [now.get(prefix + name, math.nan) for name in ("accuracy", "precision", "recall")]
        accuracy, precision, recall = values
        if any(not math.isfinite(value) for value in values):
            continue
        if accuracy >= 1 - 1e-6:
            return ""
        if recall >= 1 - 1e-6 and abs(precision - accuracy) < 1e-6:
            return (
                f"{words}recall is 1 and precision equals accuracy, "
                "as for a model that always answers the positive class"
            )
        if recall < 1e-6 < accuracy:
            return (
                f"{words}recall is 0 while accuracy is {_figure(accuracy)}, "
                "as for a model that never answers the positive class"
            )
        classes = round(1 / recall) if recall > 1e-6 else 0
        if classes >= 2 and abs(recall * classes - 1) < 1e-6 and abs(precision * classes - accuracy) < 1e-6:
            return f"{words}precision and recall are those of a model that always answers the same class"
        return ""
    return ""


def _both(before: Mapping[str, float], now: Mapping[str, float], name: str) -> bool:
    return math.isfinite(before.get(name, math.nan)) and math.isfinite(now.get(name, math.nan))


def _direction(before: Mapping[str, float], now: Mapping[str, float], name: str, flat: float = _FLAT) -> int:
    """Return 1 if the loss rose, -1 if it fell, 0 if it held or is missing."""
    if not _both(before, now, name):
        return 0
    change = now[name] - before[name]
    if abs(change) <= flat * abs(before[name]):
        return 0
    return 1 if change > 0 else -1


def _lowest(history: Sequence[Mapping[str, float]], name: str) -> int:
    finite = [i for i, logs in enumerate(history) if math.isfinite(logs.get(name, math.nan))]
    return min(finite, key=lambda i: (history[i][name], i))


def _pair(before: float, now: float) -> str:
    """Both values with as many decimals as their difference needs to be seen in size, at least two."""
    change = abs(now - before)
    if max(abs(before), abs(now)) >= 1000 or 0 < change < 1e-7:
        return f"{before:.4g} → {now:.4g}"
    decimals = 2 if change == 0 else min(8, max(2, 1 - math.floor(math.log10(change))))
    a, b = f"{before:.{decimals}f}", f"{now:.{decimals}f}"
    while decimals > 2 and a.endswith("0") and b.endswith("0"):
        decimals -= 1
        a, b = a[:-1], b[:-1]
    return f"{a} → {b}"


def _figure(value: float) -> str:
    if abs(value) >= 1000 or 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return text[:-1] if text.endswith("0") else text


def _points(share: float) -> str:
    points = 100 * share
    text = f"{points:.1f}" if points >= 0.05 else f"{points:.2g}"
    text = text.removesuffix(".0")
    return f"{text} point" + ("" if text == "1" else "s")
