"""How often does `compare` call one of two equal models better, and how often does it find a real difference?

python benchmarks/compare_error_rates.py             # all tables, about twelve minutes of one core
python benchmarks/compare_error_rates.py --runs 100  # a quick look

Two models are scored on simulated rows. "Error" is the share of test sets on which the verdict names a better
one although both are equal in the declared metric; "power" is the share on which it names the better one of
two that differ. Beside both stands the best test known for the metric. No design chose a method of `compare`.
docs/statistics.md keeps the tables it printed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, rankdata

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion, row_brier, row_loss

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Rows = tuple[Whole, Floats, Floats]  # labels, probabilities of the first model, of the second
SWAPS = 499
MATTERS = 0.02


class Scored:
    """What `compare` reads of an evaluation, without the time that scoring takes."""

    task, average, identified, rows_hash = "classification", "auto", True, ""

    def __init__(self, y: Whole, p: Floats, **columns: Any) -> None:
        self.labels = tuple(f"c{k}" for k in range(p.shape[1]))
        names = np.array(self.labels, dtype=object)
        table = {"id": np.arange(1, len(y) + 1), "label": names[y], "prediction": names[p.argmax(axis=1)]}
        table |= {f"p_c{k}": p[:, k] for k in range(p.shape[1])}
        self.predictions = pd.DataFrame({**table, "loss": row_loss(y, p), **columns})


# --- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Two:
    """Two-class scores: a model sees a signal with noise, half of it the row's own, and exaggerates it."""

    name: str
    n: int
    positive: float
    signal: float
    metric: str
    noise: str = "normal"
    unlike: str = ""  # which property of the second model differs, its other one mended until both are equal
    worse: float = 0.8  # what the signal of the second model is multiplied by where it is worse

    def draw(self, random: np.random.Generator, n: int, signal: float, other: float) -> Rows:
        y = (random.random(n) < self.positive).astype(np.int64)
        shared = self._noise(random, n)
        scores = []
        for strength in (self.signal, signal):
            own = self._noise(random, n)
            seen = strength * (y - 0.5) + np.sqrt(0.5) * (shared + own)
            scores.append(strength * seen + logit(self.positive))
        if self.unlike == "over-confident":
            scores[1] = scores[1] * other
        if self.unlike == "other threshold":
            scores[1] = scores[1] + other
        if self.unlike == "other spread":
            scores[1] = np.where(y == 1, (scores[1] - self.signal) * 2 + self.signal, scores[1]) + other * y
        p = [expit(np.clip(score, -30, 30)) for score in scores]
        return y, np.column_stack([1 - p[0], p[0]]), np.column_stack([1 - p[1], p[1]])

    def _noise(self, random: np.random.Generator, n: int) -> Floats:
        return random.standard_t(3, n) / np.sqrt(3) if self.noise == "heavy tails" else random.normal(size=n)

    def equal(self) -> tuple[float, float]:
        """Return the second model's signal and other property at which both are equal on endless rows."""
        if not self.unlike:
            return self.signal, 1.0
        if self.unlike == "over-confident":  # it sees more than the first one, as much as it exaggerates
            return 1.4 * self.signal, self._root(lambda x: (1.4 * self.signal, x), 1.05, 20.0)
        if self.unlike == "other threshold":
            return self._root(lambda x: (x, -1.0), self.signal, 4 * self.signal), -1.0
        return self.signal, self._root(lambda x: (self.signal, x), -3.0, 6.0)

    def _root(self, at: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
        def gap(x: float) -> float:
            y, a, b = self.draw(np.random.default_rng(3), 400_000, *at(x))
            return value(self.metric, y, a) - value(self.metric, y, b)

        return float(brentq(gap, low, high, xtol=1e-3))

    def less(self) -> tuple[float, float]:
        return self.worse * self.signal, 1.0


@dataclass(frozen=True)
class Many:
    """Three or five classes of unequal size; a model sees each class with noise, half of it the row's own."""

    name: str
    n: int
    shares: tuple[float, ...]
    signal: float
    metric: str
    worse: float = 0.8
    unlike: str = ""

    def draw(self, random: np.random.Generator, n: int, signal: float, other: float) -> Rows:
        k = len(self.shares)
        y = random.choice(k, n, p=self.shares)
        shared, tables = random.normal(size=(n, k)), []
        for strength in (self.signal, signal):
            seen = np.sqrt(0.5) * (shared + random.normal(size=(n, k)))
            seen[np.arange(n), y] += strength
            powers = np.exp(strength * seen + np.log(self.shares))
            tables.append(powers / powers.sum(axis=1, keepdims=True))
        return y, tables[0], tables[1]

    def equal(self) -> tuple[float, float]:
        return self.signal, 1.0

    def less(self) -> tuple[float, float]:
        return self.worse * self.signal, 1.0


Design = Two | Many


def value(metric: str, y: Whole, p: Floats) -> float:
    """The metric, as `compare` has it."""
    if metric == "loss":
        return float(row_loss(y, p).mean())
    if metric == "brier":
        return float(row_brier(y, p).mean())
    if metric == "roc_auc":
        return float(areas(y, rankdata(p[:, 1])[None])[0])
    return float(from_confusion(metric, confusion_matrix(y, p.argmax(axis=1), p.shape[1])))


def areas(y: Whole, ranks: Floats) -> Floats:
    """ROC-AUC of (B, n) ranks."""
    positive = y == 1
    m = int(positive.sum())
    return np.asarray((ranks[:, positive].sum(axis=1) - m * (m + 1) / 2) / (m * (len(y) - m)))


# --- the best tests known ----------------------------------------------------------------------------------


def best_test(metric: str, y: Whole, a: Floats, b: Floats, random: np.random.Generator) -> float:
    """Return the probability with which the best test known for the metric rejects at 5 %."""
    if metric == "accuracy":
        return umpu(*(int(x.sum()) for x in ((right(y, a) > right(y, b)), (right(y, b) > right(y, a)))))
    swap = random.integers(0, 2, (SWAPS, len(y))).astype(bool)
    if metric in ("loss", "brier"):
        rows = row_loss if metric == "loss" else row_brier
        d = rows(y, a) - rows(y, b)
        drawn, seen = np.abs(np.where(swap, d, -d).sum(axis=1)), abs(d.sum())
    elif metric == "roc_auc":  # swaps of ranks: Venkatraman and Begg 1996, Biometrika 83:835-848
        first, second = rankdata(a[:, 1]), rankdata(b[:, 1])
        one, two = np.where(swap, first, second), np.where(swap, second, first)
        drawn = np.abs(areas(y, rankdata(one, axis=1)) - areas(y, rankdata(two, axis=1)))
        seen = abs(float(areas(y, first[None])[0] - areas(y, second[None])[0]))
    else:  # Student's t of the linearised difference, with the standard error of 499 resamples
        return bootstrapped(metric, y, a.argmax(axis=1), b.argmax(axis=1), random)
    return float((np.sum(drawn >= seen * (1 - 1e-12)) + 1) / (SWAPS + 1) <= 0.05)


def right(y: Whole, p: Floats) -> Whole:
    return (p.argmax(axis=1) == y).astype(np.int64)


def umpu(only_a: int, only_b: int, alpha: float = 0.05) -> float:
    """The uniformly most powerful unbiased test of two paired shares: the sign test, randomised at its edge.

    Reference: Lehmann and Romano 2005, Testing Statistical Hypotheses, section 4.5.
    """
    n = only_a + only_b
    if n == 0:
        return alpha
    k = np.arange(n // 2 + 1)
    tail = binom.cdf(k, n, 0.5)
    edge = int(np.searchsorted(tail, alpha / 2, side="right"))  # rejects below, at random on it
    below = float(tail[edge - 1]) if edge else 0.0
    few = min(only_a, only_b)
    if few < edge:
        return 1.0
    return float((alpha / 2 - below) / binom.pmf(edge, n, 0.5)) if few == edge else 0.0


def bootstrapped(metric: str, y: Whole, a: Whole, b: Whole, random: np.random.Generator) -> float:
    """A normal test with the standard error of the paired bootstrap: Berg-Kirkpatrick et al. 2012, EMNLP."""
    k = int(max(y.max(), a.max(), b.max(), 1)) + 1
    cells, counts = np.unique((y * k + a) * k + b, return_counts=True)
    label, rest = np.divmod(cells, k * k)
    of_a, of_b = np.divmod(rest, k)
    drawn = random.multinomial(len(y), counts / len(y), size=SWAPS + 1)
    drawn[0] = counts
    tables = [np.zeros((SWAPS + 1, k, k)) for _ in range(2)]
    for table, column in zip(tables, (of_a, of_b), strict=True):
        np.add.at(table, (slice(None), label, column), drawn)
    differences = from_confusion(metric, tables[0]) - from_confusion(metric, tables[1])
    return float(abs(differences[0]) > 1.959964 * differences[1:].std())


# --- tables ------------------------------------------------------------------------------------------------

DESIGNS: list[tuple[Design, int]] = [
    (Two("half positive", 100, 0.5, 2.0, "accuracy", worse=0.65), 4),
    (Two("half positive", 400, 0.5, 2.0, "accuracy"), 4),
    (Two("half positive, 97 % right", 400, 0.5, 3.8, "accuracy", worse=0.75), 4),
    (Two("3 % positive", 1000, 0.03, 2.5, "accuracy", worse=0.4), 4),
    (Two("half positive, other threshold", 400, 0.5, 2.0, "accuracy", unlike="other threshold"), 4),
    (Two("half positive", 300, 0.5, 2.0, "f1"), 1),
    (Two("10 % positive", 300, 0.1, 2.5, "f1", worse=0.7), 1),
    (Two("3 % positive", 300, 0.03, 3.0, "f1", worse=0.5), 1),
    (Two("20 % positive, other threshold", 300, 0.2, 2.0, "f1", unlike="other threshold"), 1),
    (Many("3 classes, rarest 5 %", 150, (0.6, 0.35, 0.05), 2.0, "f1", worse=0.7), 1),
    (Many("3 classes, rarest 5 %", 500, (0.6, 0.35, 0.05), 2.0, "f1"), 1),
    (Many("5 classes, rarest 5 %", 400, (0.35, 0.25, 0.2, 0.15, 0.05), 2.0, "balanced_accuracy"), 1),
    (Many("3 classes, rarest 5 %", 300, (0.6, 0.35, 0.05), 2.0, "mcc", worse=0.75), 1),
    (Two("10 % positive", 400, 0.1, 2.0, "kappa", worse=0.75), 1),
    (Two("half positive", 100, 0.5, 1.5, "roc_auc", worse=0.6), 2),
    (Two("10 % positive", 300, 0.1, 1.5, "roc_auc", worse=0.65), 2),
    (Two("3 % positive", 500, 0.03, 2.0, "roc_auc", worse=0.6), 2),
    (Two("30 % positive, heavy tails", 300, 0.3, 1.5, "roc_auc", noise="heavy tails", worse=0.7), 2),
    (Two("30 % positive, other spread", 300, 0.3, 1.5, "roc_auc", unlike="other spread", worse=0.75), 2),
    (Two("half positive", 50, 0.5, 2.0, "loss", worse=0.6), 4),
    (Two("half positive", 300, 0.5, 2.0, "loss"), 4),
    (Two("3 % positive", 300, 0.03, 2.5, "loss", worse=0.5), 4),
    (Two("30 % positive, heavy tails", 300, 0.3, 1.5, "loss", noise="heavy tails", worse=0.7), 4),
    (Two("half positive, 97 % right", 300, 0.5, 3.8, "loss", worse=0.75), 4),
    (Two("half positive, over-confident", 100, 0.5, 1.0, "loss", unlike="over-confident"), 4),
    (Two("30 % positive, over-confident", 200, 0.3, 1.8, "loss", unlike="over-confident"), 4),
    (Two("30 % positive, over-confident", 1000, 0.3, 1.8, "loss", unlike="over-confident"), 4),
    (Two("half positive", 200, 0.5, 2.0, "brier"), 4),
    (Two("half positive, over-confident", 200, 0.5, 1.0, "brier", unlike="over-confident"), 4),
]


def rates(design: Design, runs: int) -> list[str]:
    random, metric = np.random.default_rng(11), design.metric
    sign = 1 if METRICS[metric].direction == "higher" else -1
    alarms, found, best, missed, covered = 0, 0, np.zeros(2), 0, 0
    same, less = design.equal(), design.less()
    truth = np.diff(
        [value(metric, *part) for part in _parts(design.draw(np.random.default_rng(5), 400_000, *less))]
    )
    for _ in range(runs):
        y, a, b = design.draw(random, design.n, *same)
        outcome = _compared(y, a, b, metric)
        alarms += outcome.outcome in ("better", "worse")
        best[0] += best_test(metric, y, a, b, random)
        y, a, b = design.draw(random, design.n, *less)
        outcome = _compared(y, a, b, metric)
        found += outcome.outcome == "better"
        missed += outcome.outcome == "worse"
        covered += outcome.difference.low <= -float(truth[0]) <= outcome.difference.high
        best[1] += best_test(metric, y, a, b, random) * (
            sign * (value(metric, y, a) - value(metric, y, b)) > 0
        )
    figures = (alarms / runs, best[0] / runs, found / runs, best[1] / runs, covered / runs)
    return [METRICS[metric].title, design.name, f"{design.n:,}", *(f"{figure:.3f}" for figure in figures)]


def _parts(rows: Rows) -> list[tuple[Whole, Floats]]:
    return [(rows[0], rows[1]), (rows[0], rows[2])]


def _compared(y: Whole, a: Floats, b: Floats, metric: str, **columns: Any) -> Any:
    found = compare(Scored(y, a, **columns), Scored(y, b, **columns), metric=metric, n_resamples=400)
    excludes = found.difference.low > 0 or found.difference.high < 0
    assert (found.p_value <= 0.05) == excludes, found  # one voice, in every one of the test sets
    return found


def grouped(kind: str, metric: str, runs: int) -> list[str]:
    """Error and power where rows come in groups, or have weights; sign flips or swaps of whole units."""
    random, alarms, found = np.random.default_rng(12), 0, 0
    for _ in range(runs):
        for worse in (1.0, 0.55):
            if kind.endswith("groups"):
                sizes = random.integers(1, 15, int(kind.split()[0]))
                group = np.repeat(np.arange(len(sizes)), sizes)
                columns: dict[str, Any] = {"group": group}
            else:
                group = np.arange(int(kind.split()[0]))
                columns = {"weight": random.lognormal(0, 1.0, len(group))}
            n, both = len(group), random.normal(size=group.max() + 1)[group]
            y, shared = random.integers(0, 2, n), random.normal(size=n)
            p = []
            for strength in (1.6, 1.6 * worse):
                luck = 0.5 * both + 0.5 * random.normal(size=group.max() + 1)[group] + 0.7 * shared
                seen = (2 * y - 1) * (strength + luck + 0.5 * random.normal(size=n))
                p.append(np.column_stack([1 - expit(seen), expit(seen)]))
            outcome = _compared(y, p[0], p[1], metric, **columns).outcome
            alarms += worse == 1 and outcome in ("better", "worse")
            found += worse < 1 and outcome == "better"
    return [METRICS[metric].title, kind, f"{alarms / runs:.3f}", f"{found / runs:.3f}"]


def several(models: int, n: int, runs: int) -> list[str]:
    """Equal models: any false alarm, coverage of all. One better than the others: how often it is found."""
    random, alarms, all_cover, found, planned = np.random.default_rng(13), 0, 0, 0, 0.0
    for _ in range(runs):
        y, shared = random.integers(0, 2, n), random.normal(size=n)
        evaluations = []
        for _ in range(models):
            right = np.sqrt(0.8) * shared + np.sqrt(0.2) * random.normal(size=n) < 0.8416
            p = np.where(right == (y == 1), 0.8, 0.2)
            evaluations.append(Scored(y, np.column_stack([1 - p, p])))
        outcome = compare(*evaluations)
        alarms += any(pair.outcome in ("better", "worse") for pair in outcome.pairs)
        all_cover += all(pair.difference.low <= 0 <= pair.difference.high for pair in outcome.pairs)
        planned += outcome.detectable / runs
    for _ in range(runs):
        y, shared = random.integers(0, 2, n), random.normal(size=n)
        evaluations = []
        for gain in (planned, *(0.0,) * (models - 1)):
            right = np.sqrt(0.8) * shared + np.sqrt(0.2) * random.normal(size=n) < _quantile(0.8 + gain)
            p = np.where(right == (y == 1), 0.8, 0.2)
            evaluations.append(Scored(y, np.column_stack([1 - p, p])))
        found += compare(*evaluations).outcome == "better"
    figures = f"{alarms / runs:.3f}", f"{all_cover / runs:.3f}", f"{100 * planned:.2f}", f"{found / runs:.3f}"
    return [f"{models}", f"{n:,}", *figures]


def _quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    print("| " + " | ".join(head) + " |", "|" + "---|" * len(head), sep="\n")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--only", default="", help="metrics or kinds whose name begins so")
    options = parser.parse_args()
    started, runs = time.perf_counter(), options.runs
    noise = math.sqrt(0.05 * 0.95 / runs)
    print(
        f"{runs} simulated test sets a figure, of cheap metrics up to four times as many; Monte-Carlo error "
        f"of an error rate near .05: {noise:.3f} and less.\n"
    )
    print("### Two models\n")
    chosen = [(design, factor) for design, factor in DESIGNS if design.metric.startswith(options.only)]
    table(
        [
            "Metric",
            "Design",
            "Rows",
            "Error",
            "best known",
            "Power",
            "best known",
            "Coverage of a real difference",
        ],
        (rates(design, factor * runs) for design, factor in chosen),
    )
    if not options.only:
        print("### Groups and weights\n")
        kinds = ("12 groups", "40 groups", "150 weighted rows")
        table(
            ["Metric", "Design", "Error", "Power"],
            (grouped(kind, metric, runs) for metric in ("accuracy", "f1", "loss") for kind in kinds),
        )
        print("### Several models\n")
        table(
            [
                "Models",
                "Rows",
                "Any false alarm",
                "All intervals cover",
                "Planned difference, points",
                "Found",
            ],
            (several(5, n, runs) for n in (200, 1000)),
        )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
