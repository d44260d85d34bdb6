"""How often do nominal 95 % intervals cover the truth where rows come in groups, or have weights? Simulated.

python benchmarks/grouped_coverage.py             # about four minutes of one core
python benchmarks/grouped_coverage.py --sets 100  # a quick look

Groups have 1 to 20 rows (uniformly). In most designs each group has its own share of right rows and its own
mix of classes, drawn so that two rows of a group correlate as the design says. In the "calibrated" designs
all rows of a group have the same probability, which is true, and most probabilities lie near 0 or 1.
Weights are log-normal. They do not depend on the row, or are three times as large where the row is wrong.
docs/statistics.md keeps the tables that this script prints.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from coverage_designs import many, normal_scores, two, zipf
from interval_coverage import MARK
from numpy.typing import NDArray
from scipy.special import ndtri

from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion
from finetune_eval.evaluation.rankings import ranking_influence
from finetune_eval.evaluation.sample import Sample, Sampling

SAMPLING = Sampling(confidence=0.95, n_resamples=400)
LARGEST = 20  # rows of a group
NAMES = ("accuracy", "balanced_accuracy", "f1", "mcc", "kappa", "roc_auc", "loss", "brier")
TRUTH_ROWS = 300_000
Rows = tuple[NDArray[np.int64], NDArray[np.float64], dict[str, Any]]


@dataclass(frozen=True)
class Design:
    name: str
    draw: Callable[[np.random.Generator], Rows]
    everyone: Callable[[np.random.Generator], Rows]


def grouped(groups: int, correlation: float, shares: tuple[float, ...], accuracy: float) -> Design:
    k, precision = len(shares), 1 / correlation - 1

    def draw(random: np.random.Generator, groups: int) -> Rows:
        group = np.repeat(np.arange(groups), random.integers(1, LARGEST + 1, groups))
        right = random.beta(accuracy * precision, (1 - accuracy) * precision, groups)
        classes = random.dirichlet(np.array(shares) * precision, groups)
        y = (random.random(len(group))[:, None] > classes.cumsum(axis=1)[group]).sum(axis=1).clip(0, k - 1)
        wrong = random.random(len(group)) >= right[group]
        # A wrong row goes to the next class twice as often as to any other.
        step = np.minimum(random.integers(1, k + 1, len(group)), k) % k
        predicted = np.where(wrong, (y + np.where(step == 0, 1, step)) % k, y)
        sure = 1 / k + (1 - 1 / k) * random.beta(4, 1, len(group)).clip(1e-3, 0.999)
        p = np.repeat((1 - sure)[:, None] / (k - 1), k, axis=1)
        p[np.arange(len(group)), predicted] = sure
        return y, p, {"groups": group}

    return Design(
        f"{groups} groups, {k} classes, {accuracy:.0%} right, correlation {correlation:g}",
        lambda random: draw(random, groups),
        lambda random: draw(random, TRUTH_ROWS // 10),
    )


def alike(groups: int, correlation: float) -> Design:
    """Rows of a group share a calibrated probability; a normal copula correlates their labels."""

    def draw(random: np.random.Generator, groups: int) -> Rows:
        group = np.repeat(np.arange(groups), random.integers(1, LARGEST + 1, groups))
        p = random.beta(0.03, 0.07, groups)[group].clip(1e-7, 1 - 1e-7)
        shared, own = random.normal(size=groups)[group], random.normal(size=len(group))
        y, p = two(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own < ndtri(p), p)
        return y, p, {"groups": group}

    return Design(
        f"{groups} groups, calibrated, correlation {correlation:g}",
        lambda random: draw(random, groups),
        lambda random: draw(random, TRUTH_ROWS),
    )


def weighted(n: int, sigma: float, name: str, source: Any, heavier: float = 1.0) -> Design:
    def draw(random: np.random.Generator, n: int) -> Rows:
        y, p = source(random, n)
        weights = random.lognormal(0, sigma, n) * np.where(p.argmax(axis=1) == y, 1, heavier)
        return y, p, {"weights": weights}

    return Design(
        f"{n} rows, {name}, sigma {sigma:g}" + (", wrong ones heavier" if heavier > 1 else ""),
        lambda random: draw(random, n),
        lambda random: draw(random, TRUTH_ROWS),
    )


EVEN, RARE = (0.5, 0.5), (0.6, 0.35, 0.05)
GROUPED = [
    grouped(groups, correlation, shares, accuracy)
    for groups in (10, 30, 60, 200)
    for shares, accuracy in ((EVEN, 0.8), (RARE, 0.8), (EVEN, 0.97))
    for correlation in (0.05, 0.3)
] + [alike(groups, correlation) for groups in (30, 60, 200) for correlation in (0.0, 0.9)]
WEIGHTED = [
    weighted(n, sigma, name, source, heavier)
    for name, source in (
        ("80 % right, 35% positive", normal_scores(0.35, 0.8)),
        ("98 % right, 20% positive", normal_scores(0.2, 0.98)),
        ("3 classes", many(zipf(3), 2.0)),
    )
    for n, sigma, heavier in ((200, 0.5, 1.0), (200, 1.0, 1.0), (700, 1.0, 1.0), (350, 0.5, 3.0))
]


def truths(design: Design) -> dict[str, float]:
    y, p, options = design.everyone(np.random.default_rng(0))
    weights, k = options.get("weights"), p.shape[1]
    table = confusion_matrix(y, p.argmax(axis=1), k, sample_weight=weights)
    out = {name: float(from_confusion(name, table, "macro")) for name in NAMES[:5]}
    area = ranking_influence("roc_auc", y, p, "binary" if k == 2 else "macro", weights)
    assert area is not None
    out["roc_auc"] = area.value
    for name in ("loss", "brier"):
        function = METRICS[name].function
        assert function is not None
        out[name] = float(np.average(function(y, p), weights=weights))
    return out


def coverage(design: Design, sets: int) -> list[str]:
    """Return coverage and mean width of each metric's interval, with a star where most of them warn."""
    random, found = np.random.default_rng(1), defaultdict(list)
    for _ in range(sets):
        y, p, options = design.draw(random)
        sample = Sample(y, p, p.argmax(axis=1), average="macro", **options)
        for name in NAMES:
            made = METRICS[name].interval(sample, SAMPLING)
            if made is not None:
                found[name].append((made.low, made.high, bool(MARK.search(made.method))))
    out, true = [], truths(design)
    for name in NAMES:
        low, high, marked = np.array(found[name]).T
        covered = ((low <= true[name]) & (true[name] <= high)).mean()
        out.append(f"{covered:.3f}{'*' if marked.mean() >= 0.5 else ''} ({(high - low).mean():.3f})")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets of rows for each design")
    sets = parser.parse_args().sets
    start = time.process_time()
    error = (0.95 * 0.05 / sets) ** 0.5
    print(
        f"Coverage (mean width) over {sets} sets of rows; standard error of a coverage of .95: {error:.3f}. "
        "A star: `.method` warns in at least half of the sets."
    )
    for title, designs in (("Groups", GROUPED), ("Weights", WEIGHTED)):
        print(f"\n### {title}\n\n| Design | " + " | ".join(METRICS[name].title for name in NAMES) + " |")
        print("|---" * (len(NAMES) + 1) + "|")
        for design in designs:
            print(f"| {design.name} | {' | '.join(coverage(design, sets))} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
