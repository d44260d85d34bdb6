"""Where a model is weak: slices, worst rows, confused classes, possible label errors."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks
from finetune_eval.data.words import unspaced
from finetune_eval.data.words import words as words_of
from finetune_eval.evaluation._inputs import row_weights
from finetune_eval.evaluation.intervals import Estimate, effective_wilson, wilson

if TYPE_CHECKING:
    import pandas as pd

    from finetune_eval.evaluation._result import Evaluation

__all__ = ["ConfusedPair", "Slice", "confused_pairs", "find_slices", "possible_label_errors", "worst_rows"]

SMALL = 30  # rows below which a slice is marked: its Wilson interval is wider than 30 points
_LENGTHS = 5
_QUANTILES = 4
_MOST_VALUES = 50  # of one column; the commonest
_FEWEST_IN_A_WORD = 20  # rows a word must be in to be looked at
_MOST_WORDS = 2000  # the commonest
_SHOWN_WORDS = 20
_MOST_TEXTS = 50_000  # texts whose words are looked at: a random sample of more


@dataclass(frozen=True)
class Slice:
    """Rows that have something in common.

    Attributes:
        column: What was looked at: "length", "word", or the name of a metadata column.
        value: Which rows: "3 to 12 words", "not", "2020".
        n: How many rows.
        accuracy: The share of them that is right (of their weight, where rows have weights), with its Wilson
            interval.
        rest: The share of the other rows that is right.
        p_value: One-sided: how often so few would be right if the slice were a random part of the rows.
        q_value: The same after Benjamini-Hochberg over all slices looked at.
        small: Fewer than 30 rows (effective ones, where rows have weights).
    """

    column: str
    value: str
    n: int
    accuracy: Estimate
    rest: float
    p_value: float
    q_value: float
    small: bool

    @property
    def weak(self) -> bool:
        """Whether the slice does worse than the rest at a false discovery rate of 5 %."""
        return self.q_value <= 0.05

    def __str__(self) -> str:
        mark = "weak" if self.weak else "small" if self.small else ""
        name = f"{self.column}: {self.value}"
        return f"{name[:38]:<38} {self.n:>7,}  {self.accuracy}  {self.rest:.3f}  {mark}".rstrip()


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

    Lengths of the texts in fifths, words, and the values (numbers: quarters) of every metadata column. Every
    slice is tested against the other rows by Fisher's exact test, one-sided; the q-values are over all that
    were looked at, shown or not.

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
        Benjamini and Hochberg 1995, JRSS B 57:289-300; Rao and Scott 1992, Biometrics 48:577-585 (tests of
        effective counts).
    """
    right = np.asarray(correct).astype(bool)
    _checks.not_empty("correct", right)
    weights = np.ones(len(right)) if sample_weight is None else row_weights(sample_weight)
    _checks.same_length("correct", right, "sample_weight", weights)
    # What adds up over rows: rows, weights, weights of right rows, and squares for Kish's number.
    parts = np.column_stack([weights > 0, weights, weights * right, weights**2])
    names: list[tuple[str, str]] = []
    inside: list[NDArray[np.float64]] = []
    for column, value, rows in (*_columns(metadata, len(right)), *_lengths(texts, len(right))):
        names.append((column, value))
        inside.append(parts[rows].sum(axis=0))
    whole = [parts.sum(axis=0)] * len(names)
    if texts is not None:
        words, sums, looked_at = _words(texts, parts, seed)
        names += [("word", word) for word in words]
        inside += list(sums)
        whole += [looked_at] * len(words)
    if not names:
        return ()
    ours, every = np.array(inside), np.array(whole)
    rest = every - ours
    # A slice of rows without weight, or with all of it, says nothing.
    proper = np.flatnonzero((ours[:, 1] > 0) & (rest[:, 1] > 1e-9 * every[:, 1]) & (rest[:, 0] > 0))
    if not len(proper):
        return ()
    ours, rest, names = ours[proper], rest[proper], [names[i] for i in proper]
    share, other = ours[:, 2] / ours[:, 1], rest[:, 2] / rest[:, 1]
    units, others = ours[:, 1] ** 2 / ours[:, 3], rest[:, 1] ** 2 / rest[:, 3]
    p = _fisher_lower(*_whole(share, units, up=True), *_whole(other, others, up=False))
    q = _benjamini_hochberg(p)
    order = np.lexsort((share, p))
    out, shown_words = [], 0
    for i in order.tolist():
        column, value = names[i]
        if column == "word":
            shown_words += 1
            if shown_words > _SHOWN_WORDS:
                continue
        n = int(ours[i, 0])
        out.append(
            Slice(
                column,
                value,
                n,
                wilson(round(ours[i, 2]), n, confidence=confidence)
                if sample_weight is None
                else effective_wilson(float(share[i]), float(units[i]), confidence=confidence),
                float(other[i]),
                float(p[i]),
                float(q[i]),
                bool(units[i] < SMALL - 1e-9),
            )
        )
    return tuple(out)


def _whole(
    share: NDArray[np.float64], rows: NDArray[np.float64], *, up: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hits and rows as whole numbers, rounded so that a weak slice looks the less weak."""
    n = np.floor(rows + 1e-6)
    hits = np.ceil(share * n - 1e-6) if up else np.floor(share * n + 1e-6)
    return np.clip(hits, 0, n).astype(np.int64), n.astype(np.int64)


_Found = Iterator[tuple[str, str, NDArray[np.int64]]]


def _proper(column: str, codes: NDArray[Any], names: Sequence[str]) -> _Found:
    """Yield the rows of each code that has some and not all of them."""
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        rows = order[edges[code] : edges[code + 1]]
        if 0 < len(rows) < len(codes):
            yield column, name, rows


def _quantiles(column: str, values: NDArray[Any], parts: int, unit: str = "") -> _Found:
    edges = np.unique(np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf"))
    codes = np.searchsorted(edges, values, side="left")
    names = []
    for code in range(len(edges) + 1):
        inside = values[codes == code]
        if not len(inside):
            names.append("")
        elif inside.min() == inside.max():
            names.append(f"{inside[0]:g}{unit}")
        else:
            names.append(f"{inside.min():g} to {inside.max():g}{unit}")
    return _proper(column, codes, names)


def _lengths(texts: Sequence[str] | None, n: int) -> _Found:
    if texts is None:
        return iter(())
    if len(texts) != n:
        raise ValueError(f"`texts` must have one text for each of the {n} rows; got {len(texts)}.")
    if unspaced(texts):
        return _quantiles(
            "length", np.array([len("".join(text.split())) for text in texts]), _LENGTHS, " characters"
        )
    return _quantiles("length", np.array([len(text.split()) for text in texts]), _LENGTHS, " words")


def _columns(metadata: Any, n: int) -> _Found:
    if metadata is None:
        return
    import pandas as pd

    frame = pd.DataFrame(metadata)
    if len(frame) != n:
        raise ValueError(f"`metadata` must have one row for each of the {n} rows; got {len(frame)}.")
    for column in frame.columns:
        values = frame[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            known = np.flatnonzero(values.notna().to_numpy())
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)[known]
            if len(np.unique(numbers)) > 2 * _QUANTILES:
                for name, value, rows in _quantiles(str(column), numbers, _QUANTILES):
                    yield name, value, known[rows]
                continue
        codes, names = pd.factorize(values.astype("str"))
        common = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")[
            :_MOST_VALUES
        ]
        rank = np.full(len(names) + 1, len(common))
        rank[common] = np.arange(len(common))
        yield from _proper(str(column), rank[codes], [str(names[code]) for code in common])


def _words(
    texts: Sequence[str], parts: NDArray[np.float64], seed: int
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the common words, the sums of `parts` over the rows of each, and over all rows looked at."""
    rows = np.arange(len(texts))
    if len(texts) > _MOST_TEXTS:
        rows = np.sort(np.random.default_rng(seed).choice(len(texts), _MOST_TEXTS, replace=False))
    number: dict[str, int] = {}
    words, sizes = array("q"), []
    for row in rows.tolist():
        found = {word for word in words_of(texts[row]) if len(word) > 1 or not word.isalnum()}
        words.extend([number.setdefault(word, len(number)) for word in found])
        sizes.append(len(found))
    place, of_row = np.array(words, dtype=np.int64), parts[np.repeat(rows, sizes)]
    sums = np.zeros((len(number), parts.shape[1]))
    for i, column in enumerate(of_row.T):
        sums[:, i] = np.bincount(place, column, len(number))
    seen: NDArray[np.float64] = parts[rows].sum(axis=0)
    common = [word for word, i in number.items() if _FEWEST_IN_A_WORD <= sums[i, 0] and sums[i, 0] < seen[0]]
    common = sorted(common, key=lambda word: (-sums[number[word], 0], word))[:_MOST_WORDS]
    return common, sums[[number[word] for word in common]].reshape(-1, parts.shape[1]), seen


def _fisher_lower(
    hits: NDArray[np.int64],
    n: NDArray[np.int64],
    other_hits: NDArray[np.int64],
    other_n: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return P(at most `hits` right among n drawn without replacement): the hypergeometric distribution.

    scipy.stats has it, and takes half a second to import.
    """
    from scipy.special import gammaln

    def log_choose(top: Any, bottom: Any) -> NDArray[np.float64]:
        return np.asarray(gammaln(top + 1.0) - gammaln(bottom + 1.0) - gammaln(top - bottom + 1.0))

    out = np.empty(len(n))
    for i, (k, size, right, total) in enumerate(zip(hits, n, hits + other_hits, n + other_n, strict=True)):
        counts = np.arange(max(0, size - (total - right)), k + 1)
        terms = log_choose(right, counts) + log_choose(total - right, size - counts) - log_choose(total, size)
        out[i] = np.exp(terms).sum()
    return np.clip(out, 0.0, 1.0)


def _benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    from finetune_eval.evaluation.comparison import benjamini_hochberg

    return np.asarray(benjamini_hochberg(p))


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one class predicted as another.

    Attributes:
        label: What they are.
        prediction: What was predicted.
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
    codes = {label: k for k, label in enumerate(evaluation.labels)}
    frame = evaluation.predictions
    y, predicted = (frame[name].map(codes).to_numpy(dtype=np.int64) for name in ("label", "prediction"))
    size = len(codes)
    counts = np.bincount(y * size + predicted, minlength=size * size).reshape(size, size)
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts.ravel(), kind="stable")[: _checks.positive_int("n", n)]
    return tuple(
        ConfusedPair(
            evaluation.labels[i],
            evaluation.labels[j],
            int(counts[i, j]),
            wilson(int(counts[i, j]), int(support[i]), confidence=evaluation.confidence),
        )
        for i, j in (divmod(int(cell), size) for cell in order)
        if counts[i, j]
    )


def worst_rows(evaluation: Evaluation, *, n: int = 20) -> pd.DataFrame:
    """Return the rows with the highest loss, worst first: the columns of `evaluation.predictions`.

    Args:
        evaluation: Any evaluation.
        n: How many rows at most.
    """
    n = _checks.positive_int("n", n)
    losses = evaluation.predictions["loss"].to_numpy()
    n = min(n, len(losses))
    candidates = np.sort(np.argpartition(-losses, n - 1)[:n])
    order = candidates[np.argsort(-losses[candidates], kind="stable")]
    return evaluation.predictions.iloc[order].reset_index(drop=True)


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

    Reference:
        Northcutt et al. 2021, JAIR 70:1373-1411; as in cleanlab, a label that is the model's answer stays.
    """
    _single_label(evaluation)
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
