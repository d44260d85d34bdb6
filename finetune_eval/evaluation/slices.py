"""Where a model is weak: slices, worst rows, confused classes, possible label errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.evaluation import _parts
from finetune_eval.evaluation._inputs import row_weights
from finetune_eval.evaluation._result import Evaluation, rows_of_highest_loss
from finetune_eval.evaluation.confusion import confusion_matrix
from finetune_eval.evaluation.proportions import effective_wilson, wilson
from finetune_eval.evaluation.records import FALSE_DISCOVERIES, Estimate, Slice, SliceSearch
from finetune_eval.evaluation.significance import benjamini_hochberg

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ConfusedPair", "Slice", "confused_pairs", "find_slices", "possible_label_errors", "worst_rows"]

SMALL = 30  # rows below which a slice is marked: its Wilson interval is wider than 30 points
_SHOWN_WORDS = 20
_POWER = 0.8
_FEW_TERMS = 100_000  # of a hypergeometric sum, which are all added up


_PICKED = (
    "The parts called weak were picked for their low accuracy, and so they look worse than they are; their "
    "intervals allow for that."
)


def about_slices(evaluation: Evaluation) -> list[str]:
    """Return what must be known to read the slices: that they were picked, or what could have been found."""
    search = evaluation.slice_search
    if search is None:
        return []
    weak = any(one.weak for one in evaluation.slices)
    found = [_PICKED if weak else search.nothing_found] if evaluation.slices else []
    return [*found, *([search.not_looked_at] if search.left_out else [])]


def find_slices(
    correct: Any,
    *,
    texts: Sequence[str] | None = None,
    metadata: Any = None,
    confidence: float = 0.95,
    sample_weight: Any = None,
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Look for parts of the rows that are predicted worse than the rest.

    Lengths of the texts in fifths, words, and the values (numbers and dates: quarters) of every metadata
    column; rows whose value is missing are a slice of their own. Columns that tell every row from the others
    (ids, running numbers) are left out; of columns with more than 50 values those in fewer than 20 rows are
    one slice. Every slice is tested against the other rows by Fisher's test, one-sided, with its
    mid-p-value. The q-values are over all that were looked at, shown or not, and weighted, so that
    thousands of words do not drown a column.

    Args:
        correct: (n,) whether each row is right.
        texts: (n,) the rows as texts, or None.
        metadata: DataFrame of n rows, or a dictionary of columns, or None.
        confidence: Nominal coverage of the intervals.
        sample_weight: (n,) weights of the rows, or None. Shares are weighted then; interval and test take
            them as of so many whole rows as the weights are worth (Kish's effective number, rounded down).
        seed: Seed of the sample of texts whose words are counted, where there are more than 50,000.

    Returns:
        The slices, weakest first: all of lengths and columns, and the twenty weakest words.

    Raises:
        ValueError: Lengths differ.

    Example:
        >>> correct = [True] * 90 + [False] * 10
        >>> weak = find_slices(correct, metadata={"year": ["2020"] * 85 + ["2021"] * 15})[0]
        >>> weak.value, weak.n, round(weak.accuracy.value, 3), weak.weak
        ('2021', 15, 0.333, True)

    Reference:
        Genovese, Roeder and Wasserman 2006, Biometrika 93:509-524 (weighted Benjamini-Hochberg); Benjamini
        and Yekutieli 2005, JASA 100:71-81 (intervals of what was selected); Rao and Scott 1992, Biometrics
        48:577-585 (tests of effective counts).
    """
    return search_slices(
        correct, texts=texts, metadata=metadata, confidence=confidence, sample_weight=sample_weight, seed=seed
    )[0]


def search_slices(
    correct: Any,
    *,
    texts: Sequence[str] | None = None,
    metadata: Any = None,
    confidence: float = 0.95,
    sample_weight: Any = None,
    seed: int = 0,
) -> tuple[tuple[Slice, ...], SliceSearch]:
    """Return what `find_slices` returns, and how far the search went."""
    right = np.asarray(correct).astype(bool)
    _checks.not_empty("correct", right)
    weights = np.ones(len(right)) if sample_weight is None else row_weights(sample_weight)
    _checks.same_length("correct", right, "sample_weight", weights)
    # What adds up over rows: rows, weights, weights of right rows, and squares for Kish's number.
    summed = np.column_stack([weights > 0, weights, weights * right, weights**2])
    sums, left_out = _sums(summed, texts, metadata, seed)
    total = summed.sum(axis=0)
    return _tested(sums, left_out, total, confidence=confidence, weighted=sample_weight is not None)


def slices_of_counts(
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
    left_out: Sequence[tuple[str, str]],
    n: int,
    right: int,
    *,
    confidence: float,
) -> tuple[tuple[Slice, ...], SliceSearch]:
    """Return what `search_slices` returns, of the values of columns whose rows were counted.

    Args:
        counts: Column to value to how many rows have it, and how many of them are right.
        left_out: Columns that are not looked at, each with the reason.
        n: How many rows there are.
        right: How many of them are right.
        confidence: Nominal coverage of the intervals.
    """
    total = np.array([n, n, right, n], dtype=np.float64)
    families = [k for k, values in enumerate(counts.values()) for _ in values]
    names = [(column, value) for column, values in counts.items() for value in values]
    inside = [(rows, rows, hits, rows) for values in counts.values() for rows, hits in values.values()]
    sums = _looked_at(names, families, inside, [total] * len(names)) if names else None
    return _tested(sums, tuple(left_out), total, confidence=confidence, weighted=False)


def _tested(
    sums: _Sums | None,
    left_out: tuple[tuple[str, str], ...],
    total: NDArray[np.float64],
    *,
    confidence: float,
    weighted: bool,
) -> tuple[tuple[Slice, ...], SliceSearch]:
    """Test every slice against the other rows; `total` is what adds up over all of the rows."""
    if sums is None:
        return (), SliceSearch(0, 0, left_out, 0, None)
    ours, rest = sums.inside, sums.whole - sums.inside
    share, other = ours[:, 2] / ours[:, 1], rest[:, 2] / rest[:, 1]
    units, others = ours[:, 1] ** 2 / ours[:, 3], rest[:, 1] ** 2 / rest[:, 3]
    p = _fisher_lower(*_whole(share, units, up=True), *_whole(other, others, up=False))
    penalty = sums.penalty
    q = benjamini_hochberg(np.minimum(1.0, p * penalty / len(p)))
    found = int(np.count_nonzero(q <= FALSE_DISCOVERIES))
    order = np.lexsort((share, p, q))
    is_word = sums.is_word
    shown = order[~is_word[order] | (np.cumsum(is_word[order]) <= _SHOWN_WORDS)]

    def interval(i: int) -> Estimate:
        level = confidence
        if (
            q[i] <= FALSE_DISCOVERIES
        ):  # R of m were selected: 1 - (1 - confidence) R / m, weighted as the test is
            level = 1 - (1 - confidence) * min(1.0, found / float(penalty[i]))
        if not weighted:
            made = wilson(round(ours[i, 2]), int(ours[i, 0]), confidence=level)
        else:
            made = effective_wilson(float(share[i]), float(units[i]), confidence=level)
        if level == confidence:
            return made
        method = f"{made.method} at {100 * level:.4g} %, since it was picked as weak"
        return dataclasses.replace(made, method=method, confidence=confidence)

    slices = tuple(
        Slice(
            sums.names[i][0],
            sums.names[i][1],
            int(ours[i, 0]),
            interval(i),
            float(other[i]),
            float(p[i]),
            float(q[i]),
            bool(units[i] < SMALL - 1e-9),
        )
        for i in shown.tolist()
    )
    n = int(total[1] ** 2 / total[3] + 1e-6)
    size = max(1, min(max(SMALL, n // 10), n // 2))
    given = penalty[~is_word] if (~is_word).any() else penalty
    points = _findable(float(total[2] / total[1]), n, size, FALSE_DISCOVERIES / float(np.median(given)))
    words = int(is_word.sum())
    return slices, SliceSearch(len(p) - words, words, left_out, size, points)


@dataclass(frozen=True)
class _Sums:
    """What adds up over the rows of each slice: rows, weights, weights of right rows, squares of weights."""

    names: list[tuple[str, str]]  # column and value
    families: NDArray[np.int64]  # slices of the same column have the same number, and so have all words
    is_word: NDArray[np.bool_]
    inside: NDArray[np.float64]  # (m, 4)
    whole: NDArray[np.float64]  # (m, 4): of all rows that the slice was looked for in

    @property
    def penalty(self) -> NDArray[np.float64]:
        """By what Bonferroni would multiply each p-value; words have half of the error, columns the rest."""
        halves = len(np.unique(self.is_word))
        columns = len(np.unique(self.families[~self.is_word]))
        sizes = np.bincount(self.families)[self.families]
        return np.asarray(halves * sizes * np.where(self.is_word, 1, columns), dtype=np.float64)


def _sums(
    summed: NDArray[np.float64], texts: Sequence[str] | None, metadata: Any, seed: int
) -> tuple[_Sums | None, tuple[tuple[str, str], ...]]:
    """Add up the rows of every slice; None where there is nothing to look at."""
    found = [] if texts is None else list(_parts.of_lengths(texts, len(summed)))
    left_out: list[tuple[str, str]] = []
    families = [0] * len(found)
    if metadata is not None:
        columns, left_out = _parts.of_columns(metadata, len(summed))
        found += columns
        number: dict[str, int] = {}
        families += [1 + number.setdefault(part.column, len(number)) for part in columns]
    names = [(part.column, part.value) for part in found]
    inside = [summed[part.rows].sum(axis=0) for part in found]
    whole = [summed.sum(axis=0)] * len(found)
    if texts is not None:
        words, of_words, looked_at = _parts.of_words(texts, summed, seed)
        names += [("word", word) for word in words]
        families += [-1] * len(words)
        inside += list(of_words)
        whole += [looked_at] * len(words)
    if not names:
        return None, tuple(left_out)
    return _looked_at(names, families, inside, whole), tuple(left_out)


def _looked_at(
    names: list[tuple[str, str]], families: list[int], inside: Sequence[Any], whole: Sequence[Any]
) -> _Sums | None:
    """Return the slices that say something; `inside` and `whole` are (m, 4) as in `_Sums`."""
    ours, every = np.array(inside, dtype=np.float64), np.array(whole, dtype=np.float64)
    rest = every - ours
    # A slice of rows without weight, or with all of it, says nothing.
    kept = np.flatnonzero((ours[:, 1] > 0) & (rest[:, 1] > 1e-9 * every[:, 1]) & (rest[:, 0] > 0))
    if not len(kept):
        return None
    family = np.array(families)[kept]
    codes = np.unique(family, return_inverse=True)[1].astype(np.int64)
    return _Sums([names[i] for i in kept], codes, family < 0, ours[kept], every[kept])


def _findable(accuracy: float, n: int, size: int, level: float) -> float | None:
    """Return how much worse a part of `size` of n rows must be to be found with 80 % probability.

    Args:
        accuracy: Of the other rows.
        n: All rows.
        size: Rows of the part.
        level: Of the test.
    """
    from scipy.special import bdtr

    def power(worse: float) -> float:
        share = max(0.0, accuracy - worse)
        hits, chances = _hypergeometric(size, round(accuracy * (n - size) + share * size), n)
        rejected = hits[np.cumsum(chances) - chances / 2 <= level]
        return float(bdtr(int(rejected.max()), size, share)) if len(rejected) else 0.0

    steps = np.arange(1, math.ceil(100 * accuracy) + 1) / 100
    low, high = 0, len(steps) - 1
    if high < 0 or power(float(steps[high])) < _POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(float(steps[middle])) >= _POWER else (middle + 1, high)
    return float(steps[low])


def _whole(
    share: NDArray[np.float64], rows: NDArray[np.float64], *, up: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hits and rows as whole numbers, rounded so that a weak slice looks the less weak."""
    n = np.floor(rows + 1e-6)
    hits = np.ceil(share * n - 1e-6) if up else np.floor(share * n + 1e-6)
    return np.clip(hits, 0, n).astype(np.int64), n.astype(np.int64)


def _fisher_lower(
    hits: NDArray[np.int64],
    n: NDArray[np.int64],
    other_hits: NDArray[np.int64],
    other_n: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return P(fewer than `hits` right among n drawn without replacement) + P(so many) / 2: Fisher's mid-p.

    Fisher's own p-value counts the second term in full, and is too large on average (Lancaster 1961, JASA
    56:223-234). scipy.stats has the hypergeometric distribution, and takes half a second to import.
    """
    out = np.empty(len(n))
    for i, (k, size, right, total) in enumerate(zip(hits, n, hits + other_hits, n + other_n, strict=True)):
        chances = _hypergeometric(size, right, total, most=k)[1]
        out[i] = chances.sum() - chances[-1] / 2
    return np.clip(out, 0.0, 1.0)


def _hypergeometric(
    size: int, right: int, total: int, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how many may be right of `size` drawn from `total`, up to `most`, and with which probability."""
    from scipy.special import gammaln

    low, high = max(0, size - (total - right)), min(size, right) if most is None else most
    if high - low > _FEW_TERMS:  # what is 40 standard deviations away has a probability of 0 in float64
        mean = size * right / total
        away = 40 * math.sqrt(max(mean * (1 - right / total) * (1 - size / total), 1.0))
        low, high = max(low, int(min(high, mean) - away)), min(high, int(mean + away))
    hits = np.arange(low, high + 1)
    rest, wrong = size - hits, total - right
    logs = gammaln(np.array([right, wrong, size, total - size, total]) + 1.0)
    terms = gammaln(np.stack([hits, right - hits, rest, wrong - rest]) + 1.0).sum(axis=0)
    return hits, np.asarray(np.exp(logs[:4].sum() - logs[4] - terms))


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one class predicted as another.

    Attributes:
        label: What they are.
        prediction: What was predicted; "no label" for all answers that are no label.
        n: How many rows.
        share: Of the rows of that class, with its Wilson interval.
    """

    label: str
    prediction: str
    n: int
    share: Estimate


def confused_pairs(evaluation: Evaluation, *, n: int = 10) -> tuple[ConfusedPair, ...]:
    """List the classes that are most often taken for another, most rows first.

    Args:
        evaluation: Of classification rows.
        n: How many pairs at most.

    Returns:
        The pairs; none where nothing is wrong.
    """
    _single_label(evaluation)
    size = len(evaluation.labels)
    if evaluation.keeps_rows:
        frame = evaluation.predictions
        codes = {label: k for k, label in enumerate(evaluation.labels)}
        y, predicted = (
            frame[name].map(codes).fillna(size).to_numpy(dtype=np.int64) for name in ("label", "prediction")
        )
        counts = confusion_matrix(y, predicted, size + 1)[:size]
    else:
        counts = np.column_stack([evaluation.confusion_matrix, np.zeros(size, dtype=np.int64)])
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    answers = (*evaluation.labels, "no label")
    order = np.argsort(-counts.ravel(), kind="stable")[: _checks.positive_int("n", n)]
    return tuple(
        ConfusedPair(
            evaluation.labels[i],
            answers[j],
            int(counts[i, j]),
            wilson(int(counts[i, j]), int(support[i]), confidence=evaluation.confidence),
        )
        for i, j in (divmod(int(cell), size + 1) for cell in order)
        if counts[i, j]
    )


def worst_rows(evaluation: Evaluation, *, n: int = 20) -> pd.DataFrame:
    """Return the rows with the highest loss, worst first: the columns of `evaluation.predictions`.

    Of answers without probabilities, which have no loss, the first wrong rows are returned.

    Args:
        evaluation: Any evaluation.
        n: How many rows at most.
    """
    n = _checks.positive_int("n", n)
    if not evaluation.keeps_rows:
        return evaluation.worst_rows.head(n)
    return rows_of_highest_loss(evaluation.predictions, n)


def possible_label_errors(evaluation: Evaluation, *, n: int = 20) -> pd.DataFrame:
    """List rows whose label is a possible label error: look at them, do not trust the list.

    Confident learning: a row is confidently of class j if its probability of j is at least the mean
    probability of j over the rows labelled j; of several such classes the most probable counts. A row that is
    confidently of another class than its label is listed, unless its label is as probable: the most clear-cut
    first (by the probability of the label less that of the class suggested). The probabilities must be out of
    sample, as those of test rows are.

    Args:
        evaluation: Of classification rows.
        n: How many rows at most.

    Returns:
        id, label, suggested, p_label, p_suggested (and text), the most suspicious first; p_suggested is
        always above p_label.

    Raises:
        ValueError: The rows have several labels each, or the model gave answers without probabilities.

    Reference:
        Northcutt et al. 2021, JAIR 70:1373-1411; as in cleanlab, a label that is the model's answer stays.
    """
    _single_label(evaluation)
    if not evaluation.has_probabilities:
        raise ValueError(
            "`evaluation` must have probabilities, by which possible label errors are found; this model gave "
            "answers only."
        )
    n = _checks.positive_int("n", n)
    frame = evaluation.predictions
    labels = evaluation.labels
    p = frame[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)
    y = frame["label"].map({label: k for k, label in enumerate(labels)}).to_numpy(dtype=np.int64)
    rows = np.arange(len(y))
    support = np.bincount(y, minlength=len(labels))
    given = p[rows, y]
    own = np.bincount(y, weights=given, minlength=len(labels))
    # A class without rows has no threshold; nothing is confidently of it.
    threshold = np.divide(own, support, out=np.full(len(labels), np.inf), where=support > 0)
    confident = np.where((p >= threshold) & (p > given[:, None]), p, -1.0)
    suggested = confident.argmax(axis=1)
    suspect = np.flatnonzero(confident[rows, suggested] >= 0)
    margin = given[suspect] - p[suspect, suggested[suspect]]
    chosen = suspect[np.argsort(margin, kind="stable")[:n]]
    out = frame.iloc[chosen][["id", "label"]].reset_index(drop=True)
    out["suggested"] = [labels[k] for k in suggested[chosen]]
    out["p_label"] = given[chosen]
    out["p_suggested"] = p[chosen, suggested[chosen]]
    if "text" in frame:
        out["text"] = frame["text"].to_numpy()[chosen]
    return out


def _single_label(evaluation: Evaluation) -> None:
    if evaluation.task != "classification":
        raise ValueError(f"`evaluation` must be of classification rows; got task {evaluation.task!r}.")
