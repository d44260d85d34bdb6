"""check_drift: are new rows like those that were judged, and which accuracy to expect on them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _pairs, _rows
from finetune_eval._text import Shown, counted, fill, listed, p_value
from finetune_eval.data.folds import units_of_rows
from finetune_eval.data.leakage import row_keys
from finetune_eval.data.ledger import rows_hash
from finetune_eval.data.words import same_text
from finetune_eval.evaluation._arrays import classified_rows
from finetune_eval.evaluation._inputs import read_probabilities
from finetune_eval.evaluation._limits import quantile
from finetune_eval.evaluation._result import Evaluation
from finetune_eval.evaluation.abstention import answer_confidence
from finetune_eval.evaluation.baselines import terms
from finetune_eval.evaluation.folds import ranking_over_folds
from finetune_eval.evaluation.rankings import logit_limits, newcombe_auc
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import decided

__all__ = ["Drift", "check_drift"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_FOLDS = 5
_FEWEST = 30  # rows of each side: a fold needs some of both
_LEVEL = 0.05  # of the test
_TERMS = 5  # words that are named for each side
_PENALTY = 1.0  # of the ridge regression; rows have unit length, so that it weighs as much as one row


@dataclass(frozen=True, repr=False)
class Drift(Shown):
    """Whether new rows are like the old ones, and the accuracy to expect on them.

    Attributes:
        n_old: How many old rows there are, those that were judged.
        n_new: How many new rows.
        used: How many of each were compared: at most `most_rows` old and new ones, drawn at random.
        auc: How well a classifier tells new rows from old ones it has not seen: 0.5 is not at all, 1 is
            always. Cross-fitted, with the interval of the mean of the folds.
        chance: The AUC that is reached in 5 % of the permutations: a smaller difference would not be noticed.
        p_value: Of the permutation test of equal distributions.
        shared: How many of the new rows are also among the old ones, letter case and white space apart.
        new_terms: Words of new texts that tell them apart best; nothing for rows that are numbers.
        old_terms: The same of old texts.
        accuracy: The accuracy on the old rows; None where these were not judged.
        expected: The accuracy to expect on the new rows, if answers of the same confidence are right as often
            as on the old rows; None without probabilities.
    """

    n_old: int
    n_new: int
    used: tuple[int, int]
    auc: Estimate
    chance: float
    p_value: float
    shared: int
    new_terms: tuple[str, ...]
    old_terms: tuple[str, ...]
    accuracy: Estimate | None
    expected: Estimate | None

    @property
    def drifted(self) -> bool:
        """Whether the test finds the new rows to differ, at a level of 5 %."""
        return self.p_value <= _LEVEL

    @property
    def verdict(self) -> str:
        """What was found, in sentences."""
        rows = f"{counted(self.n_new, 'new row')} and {counted(self.n_old, 'old row')}"
        told = f"A classifier tells them apart with an AUC of {self.auc} ({p_value(self.p_value)})."
        if self.auc.high < 1 - self.chance:
            return (
                f"The comparison of {rows} decides nothing: the classifier's AUC is {self.auc}. So far below "
                "0.5 it took rows for those of the other side: each new row is most like an old one, as if "
                "one side were a changed copy of the other. Leave the copies out, and compare again."
            )
        if not self.drifted:
            return (
                f"No difference is found between {rows}. {told} That is no proof that they are alike: with "
                f"so many rows an AUC under {self.chance:.3f} goes unnoticed."
            )
        words = ""
        if self.new_terms:
            words = (
                f" Commoner among the new ones: {listed(self.new_terms)}; among the old ones: "
                f"{listed(self.old_terms)}."
            )
        return f"The {rows} differ. {told}{words}"

    @property
    def outlook(self) -> str:
        """Which accuracy to expect on the new rows, and when not to believe it."""
        if self.expected is None:
            return ""
        expects = (
            f"Expect an accuracy of {self.expected} on the new rows; it was {self.accuracy} on the old ones."
        )
        if self.drifted:
            return (
                f"{expects} This holds only if answers of the same confidence are right as often as before, "
                "and rows of a new kind are often not. Do not rely on it: label a hundred of the new rows, "
                "and evaluate them."
            )
        return (
            f"{expects} This holds if answers of the same confidence are right as often as before. It cannot "
            "see labels that have come to mean something else, another share of the classes, nor errors that "
            "the model is sure of."
        )

    def __repr__(self) -> str:
        return f"<Drift of {self.n_new:,} new rows: AUC {self.auc}, {p_value(self.p_value)}>"

    def __str__(self) -> str:
        sentences = [self.verdict, self.outlook]
        if self.shared:
            verb = "is" if self.shared == 1 else "are"
            sentences.append(f"{counted(self.shared, 'new row')} {verb} among the old rows, too.")
        if self.used != (self.n_old, self.n_new):
            sentences.append(
                f"Compared were {self.used[0]:,} old and {self.used[1]:,} new rows, drawn at random."
            )
        return "\n".join(fill(sentence) for sentence in sentences if sentence)


def check_drift(
    old: Any,
    new_rows: Any,
    *,
    probabilities: Any = None,
    permutations: int = 499,
    most_rows: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Drift:
    """Compare new rows with those that were judged, without labels of the new ones.

    A classifier is trained to tell new rows from old ones, and asked about rows it has not seen (five folds).
    It is a ridge regression on TF-IDF of words and word pairs, or for numbers one with a Gaussian kernel. The
    test permutes which rows are new and trains anew for each permutation, so that its level is exact where
    rows are independent. Rows of nearly the same text are in one fold.

    Args:
        old: An evaluation that has its texts, or the old rows themselves: (n,) texts or (n, d) numbers.
        new_rows: (m,) texts, or (m, d) numbers.
        probabilities: (m, K) of the new rows, by the model that was evaluated: for the accuracy to expect.
        permutations: How many, at least 99.
        most_rows: How many old and how many new rows are compared at most; time grows with its cube.
        confidence: Nominal coverage of the intervals, in (0, 1).
        seed: Of the permutations and of rows that are drawn.

    Returns:
        What was found; print it.

    Raises:
        ValueError: There are fewer than 30 old or new rows, the rows have weights or come in groups, or
            probabilities are given without an evaluation.
        TypeError: One side is texts and the other numbers.

    Example:
        >>> old = [f"film number {i} was good" for i in range(60)]
        >>> new = [f"phone number {i} was good" for i in range(60)]
        >>> check_drift(old, new, permutations=99).drifted
        True

    Reference:
        Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests", arXiv:1610.06545; Kim et al. 2021,
        Ann. Stat. 49:411-434 (permutation). Expected accuracy: Guillory et al. 2021, arXiv:2107.03315;
        Garg et al. 2022, arXiv:2201.04234 (and why no such number can always be right).
    """
    permutations = _checks.positive_int(
        "permutations", permutations, minimum=99, maximum=_checks.MOST_RESAMPLES
    )
    most_rows = _checks.positive_int("most_rows", most_rows, minimum=_FEWEST)
    confidence = _checks.number("confidence", confidence, above=0, below=1)
    seed = _checks.positive_int("seed", seed, minimum=0)
    evaluation = old if isinstance(old, Evaluation) else None
    _rows.same_columns(old=old, new_rows=new_rows)
    before, after = _checked("old", _rows_of(old)), _checked("new_rows", new_rows)
    _check_sides(before, after)
    accuracy = expected = None
    if probabilities is not None:
        if evaluation is None:
            raise ValueError("`probabilities` needs an evaluation as `old`: how often answers were right.")
        accuracy = evaluation["accuracy"]
        expected = expected_accuracy(evaluation, probabilities, len(after), confidence)
    # The same seed gives other permutations of other rows: no set of them is right for all rows.
    random = np.random.default_rng([seed, int(rows_hash(before), 16), int(rows_hash(after), 16)])
    sides = [_some(rows, most_rows, random) for rows in (before, after)]
    order = random.permutation(len(sides[0]) + len(sides[1]))  # nothing may depend on the order of the rows
    is_new = np.repeat([0, 1], [len(side) for side in sides])[order]
    pooled = np.concatenate(sides)[order]
    kernel, columns = _texts_kernel(pooled) if pooled.ndim == 1 else (_numbers_kernel(pooled), None)
    fold = _folds_of(pooled, random)
    auc, level, chance = _test(kernel, is_new, fold, permutations, confidence, random)
    named = ((), ()) if columns is None else _terms_apart(kernel, is_new, *columns)
    known = set(_keys(before))
    return Drift(
        n_old=len(before),
        n_new=len(after),
        used=(len(sides[0]), len(sides[1])),
        auc=auc,
        chance=chance,
        p_value=level,
        shared=sum(key in known for key in _keys(after)),
        new_terms=named[0],
        old_terms=named[1],
        accuracy=accuracy,
        expected=expected,
    )


def _rows_of(old: Any) -> Any:
    if not isinstance(old, Evaluation):
        return old
    frame = old.predictions
    odd = next((name for name in ("weight", "group") if name in frame), None)
    if odd is not None:
        raise ValueError(
            f"`old` must be an evaluation of rows that count alike, one by one; these have a {odd}. Pass the "
            "texts themselves, one of each group."
        )
    if "text" not in frame:
        raise ValueError("`old` has no texts: evaluate with texts=..., or pass the old rows themselves.")
    return frame["text"].to_numpy(dtype=object)


def _checked(name: str, rows: Any) -> NDArray[Any]:
    """Return (n,) texts, or (n, d) numbers."""
    array = _rows.column(name, rows)
    _checks.not_empty(name, array)
    if array.dtype.names:
        raise TypeError(
            f"`{name}` has a text and columns beside it; drift is looked for in texts or in numbers: pass "
            f"`{name}[{array.dtype.names[0]!r}]`, and the numbers in a second call."
        )
    if _rows.are_texts(array):
        return _rows.texts(name, array)
    if _pairs.are_pairs(array):
        return _pairs.texts(name, array)
    if array.ndim < 2:
        raise TypeError(
            f"`{name}` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    return _rows.numbers(name, array.reshape(len(array), -1))


def _check_sides(before: NDArray[Any], after: NDArray[Any]) -> None:
    if before.ndim != after.ndim or (before.ndim == 2 and before.shape[1] != after.shape[1]):
        kinds = [
            "texts" if side.ndim == 1 else f"rows of {side.shape[1]} numbers" for side in (before, after)
        ]
        raise TypeError(f"`old` and `new_rows` must be of one kind; got {kinds[0]} and {kinds[1]}.")
    for name, side in (("old", before), ("new_rows", after)):
        if len(side) < _FEWEST:
            raise ValueError(f"`{name}` must have at least {_FEWEST} rows to be compared; got {len(side)}.")


def _some(rows: NDArray[Any], most: int, random: np.random.Generator) -> NDArray[Any]:
    return rows if len(rows) <= most else rows[np.sort(random.choice(len(rows), most, replace=False))]


def _keys(rows: NDArray[Any]) -> list[Any]:
    return [same_text(text) for text in rows] if rows.ndim == 1 else row_keys(rows)


def _texts_kernel(texts: NDArray[Any]) -> tuple[Floats, tuple[Any, NDArray[Any]] | None]:
    """Return inner products of TF-IDF vectors, and the vectors with the names of their columns."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=terms, sublinear_tf=True)
    try:
        vectors = vectorizer.fit_transform(texts.tolist())
    except ValueError:  # no text has a word
        return np.zeros((len(texts), len(texts))), None
    return np.asarray((vectors @ vectors.T).todense()), (vectors, vectorizer.get_feature_names_out())


def _numbers_kernel(rows: NDArray[Any]) -> Floats:
    """Return Gaussian similarities of standardised rows; the width is their median distance."""
    values = rows.astype(np.float64)
    # Squares of very large numbers overflow, of very small ones vanish. Powers of two change no other digit.
    values = np.ldexp(values, -np.frexp(np.abs(values).max(axis=0))[1])
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    squares = (values**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * values @ values.T, 0.0)
    middle = float(np.median(distances[np.triu_indices(len(values), 1)]))
    return np.asarray(np.exp(-distances / middle)) if middle > 0 else (distances == 0).astype(np.float64)


def _folds_of(rows: NDArray[Any], random: np.random.Generator) -> Integers:
    """Return the fold of each row, drawn at random; rows of nearly the same text are in one.

    Folds know nothing of old and new, which keeps the test exact. They are not dealt out by contents, as
    those of `split` are: a test set that `split` drew would fall into few of them.
    """
    units, _ = units_of_rows(rows, near_duplicates=True)
    sizes = np.unique(units, return_counts=True)[1]
    if len(sizes) < _FOLDS:
        raise ValueError(
            f"`old` and `new_rows` repeat themselves too much to be compared: their {len(rows):,} rows are "
            f"{len(sizes):,} different ones, near-duplicates apart, and at least {_FOLDS} are needed."
        )
    filled, fold_of_unit = np.zeros(_FOLDS), np.empty(len(sizes), dtype=np.int64)
    order = random.permutation(len(sizes))
    for unit in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first
        fold_of_unit[unit] = filled.argmin()
        filled[fold_of_unit[unit]] += sizes[unit]
    return fold_of_unit[np.unique(units, return_inverse=True)[1]]


def _test(
    kernel: Floats,
    is_new: Integers,
    fold: Integers,
    permutations: int,
    confidence: float,
    random: np.random.Generator,
) -> tuple[Estimate, float, float]:
    """Return the cross-fitted AUC, the p-value of its permutation test, and its 95 % point by chance."""
    sides = np.column_stack([is_new, *(random.permutation(is_new) for _ in range(permutations))])
    scores = _cross_fitted(kernel, sides.astype(np.float64), fold)
    above = _areas(scores, sides, fold)
    level = (1 + int((above[1:] >= above[0] - 1e-12).sum())) / (permutations + 1)
    chance = float(np.quantile(above[1:], 1 - _LEVEL))
    own = np.column_stack([-scores[:, 0], scores[:, 0]])
    auc = ranking_over_folds("roc_auc", is_new, own, fold, "binary", confidence=confidence)
    if auc is None:  # a perfect ranking, or a fold without rows of one side
        value, new = float(above[0]), int(is_new.sum())
        limits = newcombe_auc(value, new, len(is_new) - new, confidence)
        auc = Estimate(value, *limits, "Newcombe's method 5, as of one ranking", confidence)
    return auc, level, chance


def _cross_fitted(kernel: Floats, sides: Floats, fold: Integers) -> Floats:
    """Return (n, permutations + 1) scores of rows, by ridge regressions on the rows of the other folds."""
    from scipy.linalg import cho_factor, cho_solve

    scores = np.empty_like(sides)
    for k in range(_FOLDS):
        test, train = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        factor = cho_factor(kernel[np.ix_(train, train)] + _PENALTY * np.eye(len(train)))
        centred = sides[train] - sides[train].mean(axis=0)
        scores[test] = kernel[np.ix_(test, train)] @ cho_solve(factor, centred)
    return scores


def _areas(scores: Floats, sides: Integers, fold: Integers) -> Floats:
    """Return the AUC of each column over the pairs of a new and an old row that are in one fold."""
    from scipy.stats import rankdata

    right = pairs = np.zeros(scores.shape[1])
    for k in range(_FOLDS):
        rows = np.flatnonzero(fold == k)
        ranks = rankdata(scores[rows].round(12), axis=0)
        new = sides[rows].sum(axis=0)
        right = right + (ranks * sides[rows]).sum(axis=0) - new * (new + 1) / 2
        pairs = pairs + new * (len(rows) - new)
    return np.asarray(right / pairs)


def _terms_apart(
    kernel: Floats, is_new: Integers, vectors: Any, names: NDArray[Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the terms with the largest weights for new and for old texts, in a regression on all of them."""
    centred = is_new - is_new.mean()
    dual = np.linalg.solve(kernel + _PENALTY * np.eye(len(kernel)), centred)
    weights = np.asarray(vectors.T @ dual).ravel()
    order = np.argsort(weights, kind="stable")
    old, new = order[:_TERMS], order[::-1][:_TERMS]
    return (
        tuple(str(names[k]) for k in new if weights[k] > 0),
        tuple(str(names[k]) for k in old if weights[k] < 0),
    )


def expected_accuracy(
    evaluation: Evaluation, probabilities: Any, rows: int, confidence: float = 0.95
) -> Estimate:
    """Estimate the accuracy on new rows from how often answers of each confidence were right on old ones.

    A logistic curve from confidence to the share of right answers is fitted on the old rows (Platt 1999), and
    averaged over the new ones. Where the old rows have few wrong answers it stays near the confidences
    themselves. The interval covers the fit of the curve and the choice of the new rows.

    Args:
        evaluation: Of the old rows, with probabilities.
        probabilities: (m, K) of the new rows.
        rows: How many new rows there are.
        confidence: Nominal coverage of the interval.
    """
    old = classified_rows(evaluation.predictions, evaluation.labels, evaluation.task, "old")
    p, named, _ = read_probabilities(probabilities, "classification", evaluation.labels)
    if p.shape != (rows, len(evaluation.labels)) or (named or evaluation.labels) != evaluation.labels:
        raise ValueError(
            f"`probabilities` must have a row for each of the {counted(rows, 'new row')} and a column for "
            f"each of the {len(evaluation.labels)} classes; got shape {np.shape(probabilities)}."
        )
    before = _logit(answer_confidence(old.p, old.predicted))
    threshold = evaluation.threshold
    assert not isinstance(threshold, tuple)  # each row has one class
    after = _logit(answer_confidence(p, decided(p, threshold)))
    right = (old.y == old.predicted).astype(np.float64)
    curve, covariance = _fitted_curve(before, right)
    shares = _expit(curve[0] + curve[1] * after)
    value = float(shares.mean())
    slopes = shares * (1 - shares)
    gradient = np.array([slopes.mean(), (slopes * after).mean()])
    variance = float(gradient @ covariance @ gradient) + float(shares.var()) / rows
    limits = logit_limits(value, variance, quantile(confidence))
    return Estimate(value, *limits, "logistic curve of confidence, logit scale", confidence)


def _fitted_curve(x: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Fit intercept and slope of a logistic curve, drawn towards 0 and 1; return their covariance too."""
    design, prior = np.column_stack([np.ones(len(x)), x]), np.array([0.0, 1.0])
    curve = prior.copy()
    for _ in range(100):
        shares = _expit(design @ curve)
        information = (design * (shares * (1 - shares))[:, None]).T @ design + np.eye(2)
        step = np.linalg.solve(information, design.T @ (right - shares) - (curve - prior))
        # Newton's method may overshoot where shares are near 0 or 1.
        curve = curve + step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-300))
        if float(np.abs(step).max()) < 1e-9:
            break
    return curve, np.asarray(np.linalg.inv(information), dtype=np.float64)


def _logit(p: NDArray[Any]) -> Floats:
    clipped = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _expit(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
