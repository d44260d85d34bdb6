"""How often do nominal 95 % intervals cover the truth? Simulated; prints Markdown tables.

python benchmarks/interval_coverage.py             # all tables, about six minutes of one core
python benchmarks/interval_coverage.py --runs 100  # a quick look

The defaults of finetune_eval were chosen by the designs marked "chosen"; those marked "held out" only judge
them. docs/statistics.md keeps the tables it printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from finetune_eval.evaluation.means import mean_interval
from finetune_eval.evaluation.metrics import ClassCounts, class_counts, from_confusion
from finetune_eval.evaluation.proportions import paired_difference, wilson, wilson_f1_interval
from finetune_eval.evaluation.rankings import (
    auc_influence,
    average_precision_influence,
    delong_variance,
    limits_of_share,
    ranking_interval,
)
from finetune_eval.evaluation.tables import FEW_OUTCOMES, FEW_ROWS, resampled_interval
from finetune_eval.evaluation.units import clustered_variance

Floats = NDArray[np.float64]
Limits = tuple[float, float]
CONFIDENCE = 0.95
RESAMPLES = 400
CHOSEN, HELD_OUT = "chosen", "held out"


@dataclass(frozen=True)
class Design:
    """Rows of a classifier: how many, of which classes, how often right."""

    where: str
    name: str
    n: int
    shares: tuple[float, ...]
    accuracy: float | tuple[float, ...]

    def population(self) -> Floats:
        """The true share of each cell: errors spread unevenly, the same way every time."""
        k = len(self.shares)
        random = np.random.default_rng(0)
        right = np.broadcast_to(self.accuracy, (k,))
        table = np.zeros((k, k))
        for i in range(k):
            table[i, np.arange(k) != i] = (1 - right[i]) * random.dirichlet(np.full(k - 1, 0.7))
            table[i, i] = right[i]
        return np.array(self.shares)[:, None] * table

    def samples(self, runs: int) -> NDArray[np.int64]:
        k = len(self.shares)
        drawn = np.random.default_rng(1).multinomial(self.n, self.population().ravel(), size=runs)
        return drawn.reshape(runs, k, k)


def even(k: int, rare: float | None = None) -> tuple[float, ...]:
    if rare is None:
        return (1 / k,) * k
    return (*((1 - rare) / (k - 1),) * (k - 1), rare)


DESIGNS = [
    Design(CHOSEN, "50 rows, 3 classes, rarest 5 %", 50, (0.60, 0.35, 0.05), 0.8),
    Design(CHOSEN, "50 rows, 3 classes, 98 % right", 50, even(3), 0.98),
    Design(CHOSEN, "100 rows, 3 classes, rarest 5 %", 100, (0.60, 0.35, 0.05), 0.8),
    Design(CHOSEN, "100 rows, 10 classes", 100, even(10), 0.8),
    Design(CHOSEN, "200 rows, 2 classes", 200, even(2), 0.8),
    Design(CHOSEN, "200 rows, 2 classes, 98 % right", 200, even(2), 0.98),
    Design(CHOSEN, "200 rows, 3 classes, rarest 5 %", 200, (0.60, 0.35, 0.05), 0.8),
    Design(CHOSEN, "500 rows, 2 classes, rarest 1 %", 500, (0.99, 0.01), (0.995, 0.6)),
    Design(CHOSEN, "500 rows, 5 classes", 500, even(5), 0.9),
    Design(CHOSEN, "1,000 rows, 3 classes, rarest 1 %", 1000, (0.70, 0.29, 0.01), 0.85),
    Design(CHOSEN, "1,000 rows, 20 classes", 1000, even(20), 0.8),
    Design(CHOSEN, "5,000 rows, 20 classes, rarest 1 %", 5000, even(20, 0.01), 0.85),
    Design(HELD_OUT, "75 rows, 4 classes, rarest 10 %", 75, (0.4, 0.3, 0.2, 0.1), 0.75),
    Design(HELD_OUT, "250 rows, 2 classes, rarest 20 %", 250, (0.8, 0.2), (0.95, 0.7)),
    Design(HELD_OUT, "300 rows, 6 classes, 65 % right", 300, even(6), 0.65),
    Design(HELD_OUT, "300 rows, 4 classes, 95 % right", 300, even(4), 0.95),
    Design(HELD_OUT, "400 rows, 2 classes, 60 % right", 400, even(2), 0.6),
    Design(HELD_OUT, "600 rows, 4 classes, rarest 3 %", 600, (0.5, 0.3, 0.17, 0.03), (0.9, 0.8, 0.8, 0.5)),
    Design(HELD_OUT, "800 rows, 2 classes, rarest 5 %", 800, (0.95, 0.05), (0.98, 0.75)),
    Design(HELD_OUT, "1,500 rows, 8 classes, rarest 2 %", 1500, even(8, 0.02), 0.93),
    Design(HELD_OUT, "2,500 rows, 12 classes", 2500, even(12), 0.7),
    Design(HELD_OUT, "3,000 rows, 2 classes, rarest 1 %", 3000, (0.99, 0.01), (0.99, 0.8)),
]


@dataclass(frozen=True)
class Scores:
    """Scores of two classes: the positive ones are `gap` higher, and of another shape where it says so."""

    where: str
    n: int
    share: float
    gap: float
    shape: str = "normal"

    @property
    def name(self) -> str:
        return f"{self.n:,} rows, {self.share:.0%} positive, {self.shape}"

    def draw(self, random: np.random.Generator, size: int) -> tuple[NDArray[np.bool_], Floats]:
        positive, gap = random.random(size) < self.share, self.gap
        if self.shape == "exponential":
            return positive, random.exponential(size=size) * np.where(positive, 1 + 2 * gap, 1)
        noise = random.standard_t(3, size) if self.shape == "heavy tails" else random.normal(size=size)
        if self.shape == "positives spread twice":
            noise = np.where(positive, 2 * noise, noise)
        if self.shape == "positives spread half":
            noise = np.where(positive, noise / 2, noise)
        if self.shape.endswith("of positives not seen"):
            hidden = random.random(size) < float(self.shape.split(" ")[0]) / 100
            gap = np.where(hidden, 0.0, gap)
        scores = noise + gap * positive
        return positive, scores.round() if self.shape == "whole numbers" else scores


RANKINGS = [
    Scores(CHOSEN, 100, 0.3, 1.5),
    Scores(CHOSEN, 200, 0.5, 1.0),
    Scores(CHOSEN, 200, 0.1, 1.5),
    Scores(CHOSEN, 200, 0.5, 3.0),
    Scores(CHOSEN, 1000, 0.05, 1.5),
    Scores(CHOSEN, 1000, 0.02, 2.5),
    Scores(CHOSEN, 2000, 0.01, 2.0),
    Scores(CHOSEN, 500, 0.06, 4.0, "positives spread twice"),
    Scores(CHOSEN, 500, 0.04, 3.0, "8 % of positives not seen"),
    Scores(CHOSEN, 500, 0.1, 3.0, "8 % of positives not seen"),
    Scores(HELD_OUT, 60, 0.5, 1.0),
    Scores(HELD_OUT, 250, 0.15, 1.0, "heavy tails"),
    Scores(HELD_OUT, 250, 0.5, 2.0),
    Scores(HELD_OUT, 300, 0.4, 4.0, "15 % of positives not seen"),
    Scores(HELD_OUT, 400, 0.25, 2.0, "whole numbers"),
    Scores(HELD_OUT, 600, 0.1, 0.3),
    Scores(HELD_OUT, 800, 0.03, 2.2),
    Scores(HELD_OUT, 800, 0.05, 3.0, "positives spread half"),
    Scores(HELD_OUT, 1500, 0.02, 3.5, "heavy tails"),
    Scores(HELD_OUT, 3000, 0.03, 2.0, "exponential"),
]


def calibrated(random: np.random.Generator, size: int) -> Floats:
    p = 0.5 + 0.499 * random.beta(6, 1, size)
    return -np.log(np.where(random.random(size) < p, p, 1 - p))


def accurate(random: np.random.Generator, size: int) -> Floats:
    """Log-loss where 3 % of the rows are wrong, and surely so."""
    wrong = random.random(size) < 0.03
    return np.where(wrong, 1 + random.exponential(2.0, size), 0.02 * random.exponential(size=size))


def of_five_classes(random: np.random.Generator, size: int) -> Floats:
    logits = random.normal(size=(size, 5))
    logits[:, 0] += 2
    logits *= 2
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[:, 0]


LOSSES: list[tuple[str, str, Callable[[np.random.Generator, int], Floats], tuple[int, ...]]] = [
    (CHOSEN, "log-loss, calibrated", calibrated, (30, 100, 200, 1000, 5000)),
    (
        CHOSEN,
        "log-loss, over-confident",
        lambda random, size: np.logaddexp(0, -random.normal(3, 3, size)),
        (30, 100, 200, 1000, 5000),
    ),
    (
        CHOSEN,
        "log-loss, 98 % right",
        lambda random, size: np.logaddexp(0, -random.normal(5, 2.5, size)),
        (100, 200, 500),
    ),
    (
        CHOSEN,
        "Brier, over-confident",
        lambda random, size: 1 / (1 + np.exp(random.normal(3, 3, size))) ** 2,
        (30, 200),
    ),
    (HELD_OUT, "log-loss, 3 % surely wrong", accurate, (50, 300, 800, 2500)),
    (HELD_OUT, "log-loss, five classes", of_five_classes, (50, 300, 2500)),
    (
        HELD_OUT,
        "Brier, calibrated",
        lambda random, size: (1 - np.exp(-calibrated(random, size))) ** 2,
        (50, 300, 2500),
    ),
]


class Coverage:
    """Limits of several methods, by name, and how often they hold the truth."""

    def __init__(self) -> None:
        self.limits: dict[str, list[Limits]] = {}

    def add(self, name: str, limits: Iterable[float]) -> None:
        low, high = limits
        self.limits.setdefault(name, []).append((low, high))

    def extend(self, name: str, limits: Floats) -> None:
        for each in limits:
            self.add(name, each)

    def cells(self, truth: float, names: Iterable[str]) -> str:
        return " | ".join(self.cell(truth, name) for name in names)

    def cell(self, truth: float, name: str) -> str:
        if name not in self.limits:
            return "-"
        low, high = np.array(self.limits[name]).T
        return f"{np.mean((low <= truth) & (truth <= high)):.3f} ({np.mean(high - low):.3f})"


def heading(title: str, columns: Iterable[str]) -> None:
    columns = list(columns)
    print(f"\n### {title}\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")


# name -> (metric, average, which macro mean it is)
OF_TABLES: dict[str, tuple[str, str, str | None]] = {
    "macro-F1": ("f1", "macro", "f1"),
    "weighted F1": ("f1", "weighted", None),
    "balanced accuracy": ("balanced_accuracy", "macro", "balanced_accuracy"),
    "macro precision": ("precision", "macro", "precision"),
    "MCC": ("mcc", "macro", None),
    "kappa": ("kappa", "macro", None),
}
CANDIDATES = ("macro-F1", "balanced accuracy", "MCC")


CELLS = 4_000_000  # of all resampled tables at a time: 32 MB


def of_confusion(runs: int) -> None:
    """Metrics of the confusion matrix: the defaults over all designs, then the candidates there were."""
    names = ["accuracy", *OF_TABLES]
    heading("Metrics of the confusion matrix: the defaults", ["Design", "", *names])
    found: list[tuple[Design, dict[str, float], dict[str, Coverage]]] = []
    for design in DESIGNS:
        population = design.population()
        truths = {"accuracy": float(np.trace(population))}
        for name, (metric, average, _) in OF_TABLES.items():
            truths[name] = float(from_confusion(metric, population, average))
        coverages = {name: Coverage() for name in names}
        step = max(1, CELLS // (RESAMPLES * population.size))
        samples = design.samples(runs)
        for seed, start in enumerate(range(0, runs, step)):
            cover(coverages, samples[start : start + step], design.where == CHOSEN, seed)
        cells = " | ".join(coverages[name].cell(truths[name], "default") for name in names)
        print(f"| {design.name} | {design.where} | {cells} |", flush=True)
        found.append((design, truths, coverages))
    for name in CANDIDATES:
        methods = ["percentile", "bias-corrected", "Dirichlet", "default"]
        heading(f"Candidates for {name}", ["Design", "True value", *methods])
        for design, truths, coverages in found:
            if design.where == CHOSEN:
                cells = coverages[name].cells(truths[name], methods)
                print(f"| {design.name} | {truths[name]:.3f} | {cells} |")


def cover(coverages: dict[str, Coverage], samples: NDArray[np.int64], candidates: bool, seed: int) -> None:
    """Add the limits of all samples, drawn for all at once."""
    runs, k, _ = samples.shape
    n, random = int(samples[0].sum()), np.random.default_rng(seed)
    shares = samples.reshape(runs, 1, -1) / n
    draws = class_counts(random.multinomial(n, shares, size=(runs, RESAMPLES)).reshape(runs, RESAMPLES, k, k))
    posterior = None
    if candidates and k <= 10:
        gammas = random.standard_gamma(n * shares + 1 / k**2, size=(runs, RESAMPLES, k * k))
        posterior = class_counts(gammas.reshape(runs, RESAMPLES, k, k))
    right, true = samples.trace(axis1=1, axis2=2), samples.sum(axis=2)
    for hits in right:
        known = wilson(int(hits), n)
        coverages["accuracy"].add("default", (known.low, known.high))
    # Where no fallback acts, the default is the bias-corrected bootstrap.
    plain = (np.minimum(right, n - right) >= FEW_OUTCOMES) & (true.min(axis=1) >= FEW_ROWS)
    for name, (metric, average, macro) in OF_TABLES.items():

        def score(
            tables: NDArray[np.int64] | ClassCounts, metric: str = metric, average: str = average
        ) -> Floats:
            return from_confusion(metric, tables, average)

        values = score(draws)
        corrected = all_bias_corrected(score(samples), values)
        combined = macro in ("precision", "balanced_accuracy")
        for i, sample in enumerate(samples):
            # The first of each batch is made twice, to see that both ways are the same.
            if i and plain[i] and not combined:
                coverages[name].add("default", corrected[i])
                continue
            made = resampled_interval(
                score,
                sample.astype(np.float64),
                ClassCounts(*(part[i] for part in draws)),
                confidence=CONFIDENCE,
                macro=macro,
                bounds=(-1.0 if name in ("MCC", "kappa") else 0.0, 1.0),
                seed=i,
            )
            coverages[name].add("default", (made.low, made.high))
            if plain[i] and not combined:
                assert np.allclose((made.low, made.high), corrected[i], atol=1e-9), name
        if candidates and name in CANDIDATES:
            coverages[name].extend("percentile", np.quantile(values, [0.025, 0.975], axis=1).T)
            coverages[name].extend("bias-corrected", corrected)
            if posterior is not None:
                limits = np.quantile(score(posterior), [0.025, 0.975], axis=1).T
                coverages[name].extend("Dirichlet", limits)


def all_bias_corrected(values: Floats, resampled: Floats) -> Floats:
    """`bias_corrected` of many samples: (runs,) values and (runs, B) resamples to (runs, 2) limits."""
    count = resampled.shape[1]
    tie = np.abs(resampled - values[:, None]) <= 1e-12
    below = (((resampled < values[:, None]) & ~tie) + tie / 2).mean(axis=1)
    z0, draws = ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count)), np.sort(resampled, axis=1)
    limits = []
    for z in (ndtri(0.025), ndtri(0.975)):
        place = ndtr(2 * z0 + z) * (count - 1)
        first = np.minimum(place.astype(int), count - 2)
        each = np.arange(len(draws))
        rest = place - first
        limits.append((1 - rest) * draws[each, first] + rest * draws[each, first + 1])
    return np.stack(limits, axis=1)


def of_one_class(runs: int) -> None:
    names = ("precision", "recall", "F1")
    heading("Scores of one class (the second of two): Wilson", ["Design", "", *names])
    designs = [design for design in DESIGNS if len(design.shares) == 2]
    designs += [
        Design(CHOSEN, "20 rows, 2 classes", 20, even(2), 0.8),
        Design(CHOSEN, "5,000 rows, rarest 1 %", 5000, (0.99, 0.01), (0.995, 0.6)),
    ]
    for design in designs:
        coverage = Coverage()
        population = design.population()
        truths = [float(from_confusion(name, population, "binary")) for name in ("precision", "recall", "f1")]
        for sample in design.samples(runs):
            hits, predicted, true = int(sample[1, 1]), int(sample[:, 1].sum()), int(sample[1].sum())
            # A sample without the class has no such score; evaluate says so.
            for name, rows in (("precision", predicted), ("recall", true), ("F1", predicted + true - hits)):
                if rows:
                    made = (wilson_f1_interval if name == "F1" else wilson)(hits, rows)
                    coverage.add(name, (made.low, made.high))
        cells = " | ".join(coverage.cell(truth, name) for truth, name in zip(truths, names, strict=True))
        print(f"| {design.name} | {design.where} | {cells} |", flush=True)


def rankings(runs: int) -> None:
    roc = ["DeLong", "DeLong, logit", "DeLong, logit, t", "default"]
    precision = ["percentile", "logit", "default"]
    printed: dict[str, list[str]] = {"ROC-AUC": [], "PR-AUC": []}
    for design in RANKINGS:
        random = np.random.default_rng(2)
        everyone = design.draw(random, 2_000_000)
        true_roc, true_precision = auc_influence(*everyone)[0], average_precision_influence(*everyone)[0]
        found_roc, found_precision = Coverage(), Coverage()
        weights = random.multinomial(design.n, np.full(design.n, 1 / design.n), size=RESAMPLES)
        for _ in range(runs):
            positive, scores = design.draw(random, design.n)
            if not 0 < positive.sum() < design.n:
                continue
            rank(found_roc, found_precision, positive, scores)
            if design.where == CHOSEN and design.n <= 200:
                found_precision.add("percentile", percentile(positive, scores, weights))
        for name, truth, found, columns in (
            ("ROC-AUC", true_roc, found_roc, roc),
            ("PR-AUC", true_precision, found_precision, precision),
        ):
            cells = found.cells(truth, columns)
            printed[name].append(f"| {design.name} | {design.where} | {truth:.3f} | {cells} |")
    for name, columns in (("ROC-AUC", roc), ("PR-AUC", precision)):
        heading(name, ["Design", "", "True value", *columns])
        print("\n".join(printed[name]), flush=True)


def rank(roc: Coverage, precision: Coverage, positive: NDArray[np.bool_], scores: Floats) -> None:
    trials = float(min(positive.sum(), (~positive).sum()))
    value, moves = auc_influence(positive, scores)
    variance, df = delong_variance(positive, moves)
    for name, logit, with_df in (
        ("DeLong", False, np.inf),
        ("DeLong, logit", True, np.inf),
        ("DeLong, logit, t", True, df),
    ):
        limits = limits_of_share(
            value, variance, confidence=CONFIDENCE, trials=trials, df=with_df, logit=logit
        )
        roc.add(name, limits[:2])
    value, moves = average_precision_influence(positive, scores)
    plain = limits_of_share(value, clustered_variance(moves, None)[0], confidence=CONFIDENCE, trials=trials)
    precision.add("logit", plain[:2])
    y, p = positive.astype(np.int64), np.column_stack([-scores, scores])
    for name, found in (("roc_auc", roc), ("pr_auc", precision)):
        made = ranking_interval(name, y, p, "binary", confidence=CONFIDENCE)
        assert made is not None
        found.add("default", (made.low, made.high))


def percentile(positive: NDArray[np.bool_], scores: Floats, weights: NDArray[np.int64]) -> Limits:
    """Percentile bootstrap of the average precision; scores without ties."""
    there = weights * positive[np.argsort(-scores)]
    hits, total = np.cumsum(there, axis=1), np.maximum(np.cumsum(weights, axis=1), 1)
    found = (there * hits / total).sum(axis=1)[hits[:, -1] > 0] / hits[hits[:, -1] > 0, -1]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def losses(runs: int) -> None:
    methods = ["Student's t", "BCa", "default"]
    heading("Mean log-loss and Brier score", ["Design", "", "True value", *methods])
    for where, name, draw, sizes in LOSSES:
        for n in sizes:
            random = np.random.default_rng(3)
            truth = float(draw(random, 4_000_000).mean())
            rows = draw(random, runs * n).reshape(runs, n)
            found = Coverage()
            half = stdtrit(n - 1, 0.975) * rows.std(axis=1, ddof=1) / n**0.5
            for limits in np.stack([rows.mean(axis=1) - half, rows.mean(axis=1) + half], axis=1):
                found.add("Student's t", limits)
            for limits in bca(rows, random):
                found.add("BCa", limits)
            for row in rows:
                made = mean_interval(row, confidence=CONFIDENCE, bounds=(0.0, np.inf))
                found.add("default", (made.low, made.high))
            print(
                f"| {name}, {n:,} rows | {where} | {truth:.3f} | {found.cells(truth, methods)} |", flush=True
            )


def bca(rows: Floats, random: np.random.Generator) -> Floats:
    """BCa limits of the mean of each of many samples, (runs, 2), from the same draws of places."""
    runs, n = rows.shape
    away = rows - rows.mean(axis=1, keepdims=True)
    weights = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    draws = np.sort(away @ weights.T / n, axis=1)
    below = np.clip((draws < 0).mean(axis=1), 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES)
    z0, acceleration = ndtri(below), (away**3).sum(axis=1) / (6 * (away**2).sum(axis=1) ** 1.5)
    limits = []
    for z in (ndtri(0.025), ndtri(0.975)):
        at = ndtr(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
        place = np.clip((at * RESAMPLES).astype(int), 0, RESAMPLES - 1)
        limits.append(rows.mean(axis=1) + draws[np.arange(runs), place])
    return np.stack(limits, axis=1)


def paired(runs: int) -> None:
    """Difference of two accuracies on the same rows. Chosen and held out do not differ: nothing is fitted."""
    methods = ["newcombe", "tango", "bonett_price"]
    heading("Difference of two paired accuracies", ["Rows", "only a, only b, neither right", *methods])
    for n, only_a, only_b, neither in (
        (50, 0.1, 0.1, 0.1),
        (50, 0.02, 0.02, 0.05),
        (100, 0.15, 0.05, 0.1),
        (200, 0.02, 0.02, 0.02),
        (200, 0.1, 0.1, 0.2),
        (200, 0.06, 0.01, 0.1),
        (500, 0.005, 0.005, 0.1),
        (500, 0.05, 0.02, 0.05),
        (1000, 0.01, 0.01, 0.01),
        (2000, 0.2, 0.15, 0.2),
    ):
        shares = [1 - only_a - only_b - neither, only_a, only_b, neither]
        # Cheap, so ten times as many: the differences between methods are small.
        tables = np.random.default_rng(4).multinomial(n, shares, size=10 * runs)
        distinct, counts = np.unique(tables, axis=0, return_counts=True)
        cells = []
        for method in methods:
            made = [paired_difference(*map(int, table), method=method) for table in distinct]
            truth = only_a - only_b
            covers = np.array([interval.low <= truth <= interval.high for interval in made])
            width = np.array([interval.high - interval.low for interval in made])
            cells.append(
                f"{np.average(covers, weights=counts):.3f} ({np.average(width, weights=counts):.3f})"
            )
        print(f"| {n:,} | {only_a}, {only_b}, {neither} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated coverage of nominal 95 % intervals.")
    parser.add_argument("--runs", type=int, default=2000, help="simulated test sets for each design")
    runs = parser.parse_args().runs
    print(
        f"Coverage (mean width) of nominal 95 % intervals over {runs:,} simulated test sets a design; "
        f"Monte-Carlo error of a coverage near .95: {(0.95 * 0.05 / runs) ** 0.5:.3f}."
    )
    for part in (of_confusion, of_one_class, rankings, losses, paired):
        start = time.process_time()
        part(runs)
        print(f"\n{time.process_time() - start:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
