"""How far several judges (people, or models that answer with a label) agree, and what that allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import Shown, counted, fill, pad, shorten, visible
from finetune_eval.evaluation import confusion as formulas
from finetune_eval.evaluation._limits import times
from finetune_eval.evaluation.cells import cells_of_rows
from finetune_eval.evaluation.confusion import ClassCounts
from finetune_eval.evaluation.means import loss_interval
from finetune_eval.evaluation.proportions import wilson
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.resampling import bias_corrected, resample_sums
from finetune_eval.evaluation.tables import FEW_OUTCOMES, table_interval

Floats = NDArray[np.float64]
LEVELS = ("nominal", "ordinal", "interval")
_MOST_PAIRS = 10  # that are printed
_NAME = 20  # columns for the name of a judge
# Krippendorff 2004, Content Analysis, p. 241: conclusions from 0.8 on; tentative ones from 0.667 on.
_RELIABLE, _TENTATIVE = 0.8, 0.667


@dataclass(frozen=True)
class PairOfJudges:
    """How far two judges agree on the items that both labelled.

    Attributes:
        judges: Their names.
        n: How many items both labelled.
        agreement: The share of these on which they give the same label.
        kappa: Cohen's kappa: agreement above that of chance, as a share of what chance leaves.
    """

    judges: tuple[str, str]
    n: int
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Agreement(Shown):
    """How far judges agree, and what that allows a model to reach. Intervals are over items.

    Attributes:
        judges: The names of the judges.
        labels: The names of the labels.
        level: "nominal", "ordinal" or "interval": what alpha counts as how far apart.
        n: Items with at least two labels; the others say nothing about agreement.
        left_out: Items with one label or none.
        agreement: How often two judges give an item the same label, on average over the items: the accuracy
            of one judge, held against another.
        alpha: Krippendorff's alpha; 1 is perfect, 0 is chance.
        kappa: Cohen's kappa, the mean over all pairs of judges that share items (Light's kappa).
        ceiling: The accuracy that no model can exceed in the long run if each item's truth is the label of
            one judge, drawn at random.
        pairs: Every two judges that share items.
    """

    judges: tuple[str, ...]
    labels: tuple[str, ...]
    level: str
    n: int
    left_out: int
    agreement: Estimate
    alpha: Estimate
    kappa: Estimate
    ceiling: Estimate
    pairs: tuple[PairOfJudges, ...]

    def __str__(self) -> str:
        left = f" ({counted(self.left_out, 'other item')} with fewer)" if self.left_out else ""
        many = len(self.pairs)
        kappa = f"kappa (mean of {counted(many, 'pair')})" if many > 1 else "Cohen's kappa"
        lines = [
            fill(f"{len(self.judges):,} judges, {counted(self.n, 'item')} with two labels or more{left}"),
            "",
            f"{'agreement of two judges':<34}{self.agreement}",
            f"{f'alpha of Krippendorff ({self.level})':<34}{self.alpha}",
            f"{kappa:<34}{self.kappa}",
            "",
            fill(self._reliability),
            fill(self._ceiling),
        ]
        if len(self.pairs) > 1:
            lines += ["", f"{'pair of judges':<44} {'items':>6}  kappa"]
            for pair in sorted(self.pairs, key=lambda pair: pair.kappa.value)[:_MOST_PAIRS]:
                names = " and ".join(shorten(visible(judge), _NAME) for judge in pair.judges)
                lines.append(f"{pad(names, 44)} {pair.n:>6,}  {pair.kappa}")
            if len(self.pairs) > _MOST_PAIRS:
                lines.append(f"... and {len(self.pairs) - _MOST_PAIRS} pairs that agree more")
        level = f"{100 * self.alpha.confidence:g} %"
        lines += [
            "",
            fill(f"Intervals ({level}) cover the choice of the items, not that of the judges."),
        ]
        return "\n".join(lines)

    @property
    def _reliability(self) -> str:
        low, value = self.alpha.low, self.alpha.value
        if low >= _RELIABLE:
            return "The labels are reliable: the whole interval of alpha is at or above 0.8."
        if value >= _TENTATIVE:
            return (
                "Conclusions from these labels are tentative: alpha should be at least 0.8 with its whole "
                "interval (Krippendorff 2004)."
            )
        return (
            "These labels are not reliable enough to conclude from: alpha is under 0.667 (Krippendorff 2004)."
        )

    @property
    def _ceiling(self) -> str:
        return (
            f"If the truth of an item is the label of one judge, another judge is right on "
            f"{self.agreement.value:.3f} of the items, and no model can be right on more than "
            f"{self.ceiling.value:.3f} [{self.ceiling.low:.3f}, {self.ceiling.high:.3f}] in the long run (if "
            "the judges label independently of each other)."
        )


def agreement(
    ratings: Any,
    labels: Sequence[Any] | None = None,
    *,
    level: Literal["nominal", "ordinal", "interval"] = "nominal",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Estimate how far several judges agree on the labels of the same items.

    Args:
        ratings: (items, judges) labels: a DataFrame with a column for each judge, a dictionary of columns, or
            an array. None, NaN or an empty text stand for a label that was not given.
        labels: The names of the labels, in their order where `level` is "ordinal"; None: those that occur.
        level: How far apart two labels are, for alpha: "nominal" (the same or not), "ordinal" (by how many
            labels lie between them), or "interval" (by the difference of the numbers that they are).
        confidence: Nominal coverage of the intervals, in (0, 1).
        n_resamples: Bootstrap resamples of the items, at least 100.
        seed: Their seed.

    Returns:
        Agreement, Krippendorff's alpha, Cohen's kappa of every pair, and the ceiling, each with an interval.

    Raises:
        TypeError: The ratings are no table.
        ValueError: There are fewer than two judges, no item has two labels, a label is unknown, or `level` is
            "ordinal" without `labels`.

    Example:
        >>> judges = {"ann": ["a", "a", "b", "b", "c"], "bob": ["a", "b", "b", "b", "c"]}
        >>> found = agreement(judges)
        >>> round(found.alpha.value, 3), round(found.kappa.value, 3), found.agreement.value
        (0.71, 0.688, 0.8)

    Reference:
        Krippendorff 2011, Computing Krippendorff's Alpha-Reliability. Light 1971, Psychol. Bull. 76:365-377
        (mean kappa). The ceiling: an item on which two judges agree with probability a has a label that a
        random judge gives with probability at most (1 + sqrt((K - 1) (K a - 1))) / K, by Cauchy and Schwarz;
        that is concave in a, so the mean of a bounds the mean.
    """
    _checks.one_of("level", level, LEVELS)
    _checks.number("confidence", confidence, above=0, below=1)
    n_resamples = _checks.positive_int(
        "n_resamples", n_resamples, minimum=100, maximum=_checks.MOST_RESAMPLES
    )
    seed = _checks.positive_int("seed", seed, minimum=0)
    codes, judges, names = _read(ratings, labels, level)
    kept = (codes >= 0).sum(axis=1) >= 2
    if not kept.any():
        raise ValueError("`ratings` has no item with two labels; nothing is known about agreement.")
    left_out, codes = int((~kept).sum()), codes[kept]
    counts = (codes[:, :, None] == np.arange(len(names))).sum(axis=1).astype(np.float64)
    shared = _agreement(counts, len(judges), confidence)
    pairs = _pairs(codes, judges, len(names), confidence, n_resamples, seed)
    return Agreement(
        judges,
        names,
        level,
        len(codes),
        left_out,
        shared,
        _alpha(counts, _distances(level, names), confidence, n_resamples, seed),
        _mean_kappa(codes, pairs, counts, confidence, n_resamples, seed),
        _ceiling_of(shared, len(names)),
        pairs,
    )


def _read(
    ratings: Any, labels: Sequence[Any] | None, level: str
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """Return (items, judges) label indices, -1 where there is none, the judges and the labels."""
    if labels is None and level == "ordinal":
        raise ValueError("`level` 'ordinal' needs `labels` in their order.")
    columns, judges = _columns(ratings)
    if len(judges) < 2:
        raise ValueError(f"`ratings` must have a column for each of at least two judges; got {len(judges)}.")
    given = np.concatenate(columns)
    blank = np.array([isinstance(v, str) and not v.strip() for v in given.tolist()], dtype=bool)
    absent = _rows.missing(given) | blank
    codes = np.full(len(given), -1, dtype=np.int64)
    if absent.all():
        raise ValueError("`ratings` has no label at all.")
    some = given[~absent]
    if labels is None:
        codes[~absent], names = _labels.find("ratings", some)
    else:
        names = _labels.class_names(labels)
        words = [value if isinstance(value, str) else _labels.written(value) for value in some.tolist()]
        codes[~absent] = _labels.read("ratings", words, names)  # numbers are names here, if any name is one
    if level == "interval" and any(_labels.number_of(name) is None for name in names):
        raise ValueError(f"`level` 'interval' needs labels that are numbers; got {list(names)}.")
    return codes.reshape(len(judges), -1).T, judges, names


def _columns(ratings: Any) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Return a column of labels for each judge, all of the same length, and the names of the judges."""
    if isinstance(ratings, dict) or hasattr(ratings, "columns"):
        keys = list(ratings) if isinstance(ratings, dict) else list(ratings.columns)
        columns = [np.asarray(_rows.column(f"ratings[{key!r}]", ratings[key]), dtype=object) for key in keys]
    else:
        table = np.asarray(_rows.column("ratings", ratings), dtype=object)
        if table.ndim != 2:
            raise TypeError(f"`ratings` must be a table of shape (items, judges); got shape {table.shape}.")
        keys, columns = [f"judge {place}" for place in range(1, table.shape[1] + 1)], list(table.T)
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"`ratings` must have as many items for each judge; got {lengths}.")
    return columns, tuple(str(key) for key in keys)


def _agreement(counts: Floats, judges: int, confidence: float) -> Estimate:
    """Estimate how often two judges agree on an item, each item counting the same."""
    given = counts.sum(axis=1)
    same = (counts * (counts - 1)).sum(axis=1) / (given * (given - 1))
    if judges == 2:
        return wilson(int(same.sum()), len(same), confidence=confidence)
    of_not = loss_interval(1 - same, confidence=confidence, high=1.0)
    return replace(of_not, value=1 - of_not.value, low=1 - of_not.high, high=1 - of_not.low)


def _distances(level: str, names: tuple[str, ...]) -> Callable[[Floats], Floats]:
    """Return the function from (..., K) label counts to (..., K, K) squared distances of the labels."""
    if level == "ordinal":

        def ordinal(n: Floats) -> Floats:
            below = np.cumsum(n, axis=-1) - n / 2  # half of a label's own lie below it
            return np.asarray((below[..., :, None] - below[..., None, :]) ** 2)

        return ordinal
    at = np.arange(len(names), dtype=np.float64)
    if level == "interval":
        at = np.array([_labels.number_of(name) for name in names], dtype=np.float64)
    apart = (at[:, None] - at) ** 2 if level == "interval" else (at[:, None] != at).astype(np.float64)
    return lambda n: apart


def _alpha(
    counts: Floats, distances: Callable[[Floats], Floats], confidence: float, n_resamples: int, seed: int
) -> Estimate:
    """Estimate Krippendorff's alpha by a bootstrap of the items."""
    from scipy.sparse import csr_matrix

    items, k = counts.shape
    given = counts.sum(axis=1, keepdims=True)
    # What an item adds to the coincidences of the labels: pairs of its labels, by different judges.
    together = (counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k)) / (
        given[:, :, None] - 1
    )
    parts = csr_matrix(np.concatenate([together.reshape(items, k * k), counts], axis=1))

    def alpha(sums: Floats) -> Floats:
        n = sums[:, k * k :]
        apart = np.broadcast_to(distances(n), (len(sums), k, k))
        seen = (sums[:, : k * k].reshape(-1, k, k) * apart).sum(axis=(1, 2))
        chance = np.einsum("bi,bij,bj->b", n, apart, n) / (n.sum(axis=1) - 1)
        # Of a single label nothing is known: 0, as kappa has it.
        return formulas.ratio(chance - seen, chance)

    total = np.asarray(parts.sum(axis=0), dtype=np.float64).reshape(1, -1)
    value = float(alpha(total)[0])
    drawn = alpha(resample_sums(parts, n_resamples, seed))
    low, high = bias_corrected(value, drawn, confidence)
    method = "bias-corrected bootstrap of items"
    apart = np.broadcast_to(distances(total[:, k * k :]), (1, k, k))[0]
    n, most = total[0, k * k :], float(apart.max())
    chance = float(n @ apart @ n) / (n.sum() - 1)
    seen = (together * apart).sum(axis=(1, 2)) / given[:, 0] / max(most, 1e-300)
    fewest = min(int((seen > 0).sum()), int((seen < seen.max()).sum()) if seen.any() else 0)
    if chance <= 0:
        return Estimate(value, -1.0, 1.0, "undefined: only one label occurs", confidence)
    if fewest < FEW_OUTCOMES:
        # Limits of the mean disagreement, held against the disagreement by chance as it is.
        mean = loss_interval(seen, confidence=confidence, high=1.0)
        scale = most * n.sum() / chance
        low, high = min(low, 1 - mean.high * scale), max(high, 1 - mean.low * scale)
        what = "disagree" if int((seen > 0).sum()) == fewest else "agree"
        method = f"wider of bootstrap and limits of disagreement (only {times(fewest, 'item')} {what})"
    return Estimate(value, max(-1.0, min(low, value)), min(1.0, max(high, value)), method, confidence)


def _kappa(counts: ClassCounts) -> Floats:
    return np.asarray(np.clip(formulas.kappa(counts, "macro"), -1.0, 1.0))


def _pairs(
    codes: NDArray[np.int64],
    judges: tuple[str, ...],
    classes: int,
    confidence: float,
    n_resamples: int,
    seed: int,
) -> tuple[PairOfJudges, ...]:
    out = []
    for a, b in itertools.combinations(range(len(judges)), 2):
        both = (codes[:, a] >= 0) & (codes[:, b] >= 0)
        if both.any():
            one, other = codes[both, a], codes[both, b]
            same = wilson(int((one == other).sum()), len(one), confidence=confidence)
            kappa = table_interval(
                _kappa,
                cells_of_rows(one, other, classes),
                confidence=confidence,
                n_resamples=n_resamples,
                seed=seed,
                bounds=(-1.0, 1.0),
            )
            out.append(PairOfJudges((judges[a], judges[b]), len(one), same, kappa))
    return tuple(out)


def _mean_kappa(
    codes: NDArray[np.int64],
    pairs: tuple[PairOfJudges, ...],
    counts: Floats,
    confidence: float,
    n_resamples: int,
    seed: int,
) -> Estimate:
    """Estimate the mean of the kappas of all pairs of judges: the items are drawn once for all pairs."""
    if len(pairs) == 1:
        return pairs[0].kappa
    from scipy.sparse import csr_matrix

    items, k = counts.shape
    drawn = np.zeros(n_resamples)
    for a, b in itertools.combinations(range(codes.shape[1]), 2):
        both = np.flatnonzero((codes[:, a] >= 0) & (codes[:, b] >= 0))
        if len(both):
            one, other = codes[both, a], codes[both, b]
            hit = one == other
            rows = np.concatenate([both[hit], both, both])
            columns = np.concatenate([one[hit], k + one, 2 * k + other])
            parts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(items, 3 * k))
            drawn += _kappa(formulas.split_counts(resample_sums(parts, n_resamples, seed)))
    value = math.fsum(pair.kappa.value for pair in pairs) / len(pairs)
    low, high = bias_corrected(value, drawn / len(pairs), confidence)
    method = f"bias-corrected bootstrap of items, mean of {len(pairs)} pairs"
    alike = int(((counts > 0).sum(axis=1) == 1).sum())
    if min(alike, items - alike) < FEW_OUTCOMES:
        low = min(low, math.fsum(pair.kappa.low for pair in pairs) / len(pairs))
        high = max(high, math.fsum(pair.kappa.high for pair in pairs) / len(pairs))
        what, few = ("agree", alike) if alike <= items - alike else ("disagree", items - alike)
        method = f"wider of bootstrap and the mean limits of the pairs (only {times(few, 'item')} {what})"
    return Estimate(value, max(-1.0, min(low, value)), min(1.0, max(high, value)), method, confidence)


def _ceiling_of(shared: Estimate, classes: int) -> Estimate:
    """Return the largest share of items of which a model can give the label of a random judge."""

    def bound(share: float) -> float:
        return (1 + math.sqrt(max((classes - 1) * (classes * share - 1), 0.0))) / classes

    return Estimate(
        bound(shared.value),
        bound(shared.low),
        bound(shared.high),
        f"largest share that the agreement allows; its {shared.method}",
        shared.confidence,
    )


__all__ = ["Agreement", "PairOfJudges", "agreement"]
