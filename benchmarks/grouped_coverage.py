"""How often do nominal 95 % intervals cover the truth where rows come in groups? Simulated; prints a table.

python benchmarks/grouped_coverage.py             # about five minutes on one core
python benchmarks/grouped_coverage.py --runs 100  # a quick look

Groups of 1 to 20 rows (uniformly). Whether a row is right depends on its group: the group's share of right
rows is drawn from a beta distribution whose intra-group correlation is the design's. So does its class.
docs/statistics.md keeps the table it printed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_eval.evaluation._resampling import Resampler
from finetune_eval.evaluation.metrics import confusion_matrix, from_confusion

CONFIDENCE = 0.95
RESAMPLES = 600
LARGEST = 20  # rows of a group
METRICS = {
    "accuracy": "micro",
    "f1": "macro",
    "balanced_accuracy": "macro",
    "mcc": "macro",
    "kappa": "macro",
}
Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Design:
    groups: int
    correlation: float
    shares: tuple[float, ...]
    accuracy: float

    def __str__(self) -> str:
        return (
            f"{self.groups} groups, {len(self.shares)} classes, rarest {min(self.shares):.0%}, "
            f"{self.accuracy:.0%} right, correlation {self.correlation:g}"
        )

    def draw(self, random: np.random.Generator, groups: int) -> Rows:
        """Return true classes, predicted classes and groups of the rows."""
        k, precision = len(self.shares), 1 / self.correlation - 1
        group = np.repeat(np.arange(groups), random.integers(1, LARGEST + 1, groups))
        right = random.beta(self.accuracy * precision, (1 - self.accuracy) * precision, groups)
        classes = random.dirichlet(np.array(self.shares) * precision, groups)
        y = (random.random(len(group))[:, None] > classes.cumsum(axis=1)[group]).sum(axis=1).clip(0, k - 1)
        wrong = random.random(len(group)) >= right[group]
        # A wrong row goes to the next class twice as often as to any other.
        step = np.minimum(random.integers(1, k + 1, len(group)), k) % k
        return y, np.where(wrong, (y + np.where(step == 0, 1, step)) % k, y), group


EVEN, RARE = (0.5, 0.5), (0.6, 0.35, 0.05)
DESIGNS = [
    Design(groups, correlation, shares, accuracy)
    for groups in (10, 30, 60, 200)
    for shares, accuracy in ((EVEN, 0.8), (RARE, 0.8), (EVEN, 0.97))
    for correlation in (0.05, 0.3)
]


def limits(rows: Rows, classes: int, seed: int) -> dict[str, tuple[float, float]]:
    y, predicted, group = rows
    resampler = Resampler(
        confusion_matrix(y, predicted, classes),
        n_resamples=RESAMPLES,
        seed=seed,
        confidence=CONFIDENCE,
        row_cells=(y * classes + predicted)[:, None],
        groups=group,
    )
    out = {}
    for name, average in METRICS.items():
        if name == "accuracy":
            found = resampler.accuracy(y == predicted)
        else:
            found = resampler.interval(
                lambda tables, name=name, average=average: from_confusion(name, tables, average),
                low=-1.0 if name in ("mcc", "kappa") else 0.0,
                macro=name if name in ("f1", "balanced_accuracy") else None,
            )
        out[name] = found.low, found.high
    return out


def coverage(design: Design, runs: int) -> dict[str, tuple[float, float]]:
    """Return coverage and mean width of the default interval of each metric."""
    classes = len(design.shares)
    y, predicted, _ = design.draw(np.random.default_rng(0), 300_000)
    table = confusion_matrix(y, predicted, classes)
    random = np.random.default_rng(1)
    found = [limits(design.draw(random, design.groups), classes, run) for run in range(runs)]
    out = {}
    for name, average in METRICS.items():
        truth = float(from_confusion(name, table, average))
        low, high = np.array([one[name] for one in found]).T
        out[name] = float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated coverage of nominal 95 % intervals of groups.")
    parser.add_argument("--runs", type=int, default=300, help="simulated test sets for each design")
    runs = parser.parse_args().runs
    start = time.perf_counter()
    print(
        f"Coverage (mean width) over {runs} simulated test sets a design; Monte-Carlo error of a coverage "
        f"near .95: {(0.95 * 0.05 / runs) ** 0.5:.3f}.\n"
    )
    print("| Design | accuracy | macro-F1 | balanced accuracy | MCC | kappa |\n|---|---|---|---|---|---|")
    for design in DESIGNS:
        cells = " | ".join(f"{hit:.3f} ({width:.3f})" for hit, width in coverage(design, runs).values())
        print(f"| {design} | {cells} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
