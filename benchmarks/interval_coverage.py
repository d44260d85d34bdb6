"""How often do nominal 95 % intervals cover the truth? Simulated; prints Markdown tables.

python benchmarks/interval_coverage.py             # all tables, about three minutes on one core
python benchmarks/interval_coverage.py --runs 100  # a quick look

The defaults of finetune_eval are chosen by these tables; docs/statistics.md keeps the ones it printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation.intervals import (
    auc_influence,
    average_precision_influence,
    bias_corrected,
    bootstrap,
    clustered_variance,
    delong_variance,
    delta_interval,
    dirichlet,
    limits_of_share,
    resample_confusion,
    resampled_interval,
    wilson_f1,
)
from finetune_eval.evaluation.metrics import from_confusion

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 600


@dataclass(frozen=True)
class Design:
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


def even(k: int, rare: float | None = None) -> tuple[float, ...]:
    if rare is None:
        return (1 / k,) * k
    return (*((1 - rare) / (k - 1),) * (k - 1), rare)


DESIGNS = [
    Design("50 rows, 3 classes, rarest 5 %", 50, (0.60, 0.35, 0.05), 0.8),
    Design("50 rows, 3 classes, 98 % right", 50, even(3), 0.98),
    Design("100 rows, 3 classes, rarest 5 %", 100, (0.60, 0.35, 0.05), 0.8),
    Design("100 rows, 10 classes", 100, even(10), 0.8),
    Design("200 rows, 2 classes", 200, even(2), 0.8),
    Design("200 rows, 2 classes, 98 % right", 200, even(2), 0.98),
    Design("200 rows, 3 classes, rarest 5 %", 200, (0.60, 0.35, 0.05), 0.8),
    Design("500 rows, 2 classes, rarest 1 %", 500, (0.99, 0.01), (0.995, 0.6)),
    Design("500 rows, 5 classes", 500, even(5), 0.9),
    Design("1,000 rows, 3 classes, rarest 1 %", 1000, (0.70, 0.29, 0.01), 0.85),
    Design("1,000 rows, 20 classes", 1000, even(20), 0.8),
    Design("5,000 rows, 20 classes, rarest 1 %", 5000, even(20, 0.01), 0.85),
]

# Rows, share of positives, and how many standard deviations apart the scores of the two classes are.
RANKINGS = [
    (100, 0.3, 1.5),
    (200, 0.5, 1.0),
    (200, 0.1, 1.5),
    (200, 0.5, 3.0),
    (1000, 0.05, 1.5),
    (1000, 0.02, 2.5),
]

Limits = tuple[float, float]


def coverage(
    samples: list[object], truth: float, methods: dict[str, Callable[[object, int], Limits]]
) -> dict[str, tuple[float, float]]:
    """Return coverage and mean width of each method."""
    out = {}
    for name, method in methods.items():
        limits = np.array([method(sample, i) for i, sample in enumerate(samples)])
        covers = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
        out[name] = (float(covers.mean()), float((limits[:, 1] - limits[:, 0]).mean()))
    return out


def table(title: str, rows: list[tuple[str, float, dict[str, tuple[float, float]]]]) -> None:
    names = list(rows[0][2])
    print(f"### {title}\n")
    print("| Design | True value | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for design, truth, found in rows:
        cells = " | ".join(f"{found[name][0]:.3f} ({found[name][1]:.3f})" for name in names)
        print(f"| {design} | {truth:.3f} | {cells} |", flush=True)
    print()


def confusion_methods(metric: str, average: str) -> dict[str, Callable[[object, int], Limits]]:
    def score(tables: Floats) -> Floats:
        return from_confusion(metric, tables, average)

    cache: dict[int, tuple[object, Floats]] = {}

    def draws(sample: object, seed: int) -> Floats:
        if seed not in cache or cache[seed][0] is not sample:
            cache.clear()
            cache[seed] = (sample, resample_confusion(sample, RESAMPLES, seed).astype(float))
        return cache[seed][1]

    def percentile(sample: object, seed: int) -> Limits:
        low, high = np.quantile(score(draws(sample, seed)), [0.025, 0.975])
        return float(low), float(high)

    def corrected(sample: object, seed: int) -> Limits:
        return bias_corrected(float(score(sample)), score(draws(sample, seed)), CONFIDENCE)

    def default(sample: object, seed: int) -> Limits:
        by_class = metric if metric != "mcc" and average == "macro" else None
        estimate = resampled_interval(
            score,
            np.asarray(sample, dtype=float),
            draws(sample, seed),
            confidence=CONFIDENCE,
            macro=by_class,
            bounds=(-1.0, 1.0),
            seed=seed,
        )
        return estimate.low, estimate.high

    return {
        "delta": lambda sample, seed: delta_interval(score, np.asarray(sample, dtype=float), CONFIDENCE),
        "percentile": percentile,
        "bias-corrected": corrected,
        "Dirichlet": lambda sample, seed: dirichlet(
            score, np.asarray(sample, dtype=float), CONFIDENCE, RESAMPLES, seed
        ),
        "the default": default,
    }


def of_confusion(title: str, metric: str, average: str, designs: list[Design], runs: int) -> None:
    rows = []
    for design in designs:
        population = design.population()
        truth = float(from_confusion(metric, population, average))
        k = len(population)
        random = np.random.default_rng(1)
        samples = list(random.multinomial(design.n, population.ravel(), size=runs).reshape(runs, k, k))
        methods = confusion_methods(metric, average)
        if average == "binary":
            methods.pop("the default")
            methods["Wilson, Jaccard (the default)"] = jaccard
            # A sample without the class has no F1 to estimate; evaluate says so.
            samples = [sample for sample in samples if sample[1].sum() + sample[:, 1].sum()]
        rows.append((design.name, truth, coverage(samples, truth, methods)))
    table(title, rows)


def jaccard(sample: object, seed: int) -> Limits:
    counts = np.asarray(sample)
    low, high = wilson_f1(counts[1, 1], counts.sum() - counts[0, 0], CONFIDENCE)
    return float(low), float(high)


def rankings(runs: int) -> None:
    """PR-AUC and ROC-AUC of normal scores."""

    def precision_draws(rows: NDArray[np.object_], weights: Floats) -> Floats:
        hits = np.cumsum(weights * rows[:, 1], axis=1)
        total = np.cumsum(weights, axis=1)
        top = (weights * rows[:, 1] * hits / np.maximum(total, 1)).sum(axis=1)
        return np.divide(top, hits[:, -1], out=np.full(len(top), np.nan), where=hits[:, -1] > 0)

    def boot(method: str) -> Callable[[object, int], Limits]:
        def limits(sample: object, seed: int) -> Limits:
            positive, scores = sample
            rows = np.column_stack([scores, positive])[np.argsort(-scores)]
            found = bootstrap(rows, precision_draws, method=method, n_resamples=RESAMPLES, seed=seed)
            return found.low, found.high

        return limits

    def linearised(logit: bool) -> Callable[[object, int], Limits]:
        def limits(sample: object, seed: int) -> Limits:
            positive, scores = sample
            value, moves = average_precision_influence(positive, scores)
            variance = clustered_variance(moves, None)
            return limits_of_share(
                value, variance, confidence=CONFIDENCE, trials=positive.sum(), logit=logit
            )[:2]

        return limits

    def delong_limits(logit: bool | None) -> Callable[[object, int], Limits]:
        def limits(sample: object, seed: int) -> Limits:
            positive, scores = sample
            value, moves = auc_influence(positive, scores)
            trials = min(positive.sum(), (~positive).sum())
            return limits_of_share(
                value, delong_variance(positive, moves), confidence=CONFIDENCE, trials=trials, logit=logit
            )[:2]

        return limits

    precision, roc = [], []
    for n, share, gap in RANKINGS:
        random = np.random.default_rng(2)

        def draw(size: int, share: float = share, gap: float = gap, random: np.random.Generator = random):
            positive = random.random(size) < share
            return positive, random.normal(size=size) + gap * positive

        true_precision, true_roc = (
            f(*draw(2_000_000))[0] for f in (average_precision_influence, auc_influence)
        )
        samples = [sample for sample in (draw(n) for _ in range(runs)) if 0 < sample[0].sum() < n]
        name = f"{n:,} rows, {share:.0%} positive"
        methods = {
            "percentile": boot("percentile"),
            "bias-corrected": boot("bias_corrected"),
            "linearised": linearised(False),
            "linearised, logit (the default)": linearised(True),
        }
        precision.append((name, true_precision, coverage(samples, true_precision, methods)))
        methods = {
            "DeLong": delong_limits(False),
            "DeLong, logit": delong_limits(True),
            "DeLong, logit near 0 and 1 (the default)": delong_limits(None),
        }
        roc.append((name, true_roc, coverage(samples, true_roc, methods)))
    table("PR-AUC", precision)
    table("ROC-AUC", roc)


def losses(runs: int) -> None:
    """Mean log-loss of calibrated and of over-confident probabilities."""
    from scipy.special import stdtrit

    def student(sample: object, seed: int) -> Limits:
        rows = np.asarray(sample)
        half = stdtrit(len(rows) - 1, 0.975) * rows.std(ddof=1) / len(rows) ** 0.5
        return float(rows.mean() - half), float(rows.mean() + half)

    def boot(method: str) -> Callable[[object, int], Limits]:
        def limits(sample: object, seed: int) -> Limits:
            found = bootstrap(sample, method=method, n_resamples=RESAMPLES, seed=seed)
            return found.low, found.high

        return limits

    rows = []
    for name in ("calibrated", "over-confident"):
        for n in (30, 100, 200, 1000, 5000):
            random = np.random.default_rng(3)

            def draw(size: int, name: str = name, random: np.random.Generator = random) -> Floats:
                if name == "calibrated":
                    p = 0.5 + 0.499 * random.beta(6, 1, size)
                    return -np.log(np.where(random.random(size) < p, p, 1 - p))
                return np.logaddexp(0, -random.normal(3, 3, size))

            truth = float(draw(4_000_000).mean())
            samples = [draw(n) for _ in range(runs)]
            methods = {
                "Student's t": student,
                "percentile": boot("percentile"),
                "BCa (the default)": boot("bca"),
            }
            rows.append((f"{name}, {n:,} rows", truth, coverage(samples, truth, methods)))
    table("Mean log-loss", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated coverage of nominal 95 % intervals.")
    parser.add_argument("--runs", type=int, default=300, help="simulated test sets for each design")
    runs = parser.parse_args().runs
    start = time.perf_counter()
    print(
        f"Coverage (mean width) of nominal 95 % intervals over {runs} simulated test sets a design; "
        f"Monte-Carlo error of a coverage near .95: {(0.95 * 0.05 / runs) ** 0.5:.3f}.\n"
    )
    of_confusion("Macro-F1", "f1", "macro", DESIGNS, runs)
    two = [design for design in DESIGNS if len(design.shares) == 2]
    two += [
        Design("20 rows, 2 classes", 20, even(2), 0.8),
        Design("5,000 rows, rarest 1 %", 5000, (0.99, 0.01), (0.995, 0.6)),
    ]
    of_confusion("F1 of one class", "f1", "binary", two, runs)
    some = [DESIGNS[i] for i in (0, 3, 6, 7, 8, 9)]
    of_confusion("Balanced accuracy", "balanced_accuracy", "macro", some, runs)
    of_confusion("Macro precision", "precision", "macro", some, runs)
    of_confusion("MCC", "mcc", "macro", some, runs)
    rankings(runs)
    losses(runs)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
