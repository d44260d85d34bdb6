"""Answers without probabilities, some of them no label: coverage of intervals, and error of comparisons.

python benchmarks/answers_coverage.py            # about five minutes of one core
python benchmarks/answers_coverage.py --sets 50  # a quick look

A model answers right with a probability that differs between easy and hard rows, with another label, or with
no label. Two equally good models answer the same rows independently given the row: `compare` should find a
difference in 5 % of the sets at most. The truth of a design is what 400,000 rows show.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import evaluate_predictions

TRUTH_ROWS = 400_000
METRICS = ("accuracy", "precision", "recall", "f1", "mcc", "kappa")
COMPARED = ("accuracy", "f1", "mcc")


@dataclass(frozen=True)
class Design:
    name: str
    priors: tuple[float, ...]
    right: float
    none: float  # how often the answer is no label
    average: str = "macro"

    def draw(self, random: np.random.Generator, n: int, models: int = 1):
        """Return (n,) true classes and (models, n) answers, K where one is no label."""
        k = len(self.priors)
        y = random.choice(k, n, p=self.priors)
        hard = random.random(n) < 0.3
        right = np.where(hard, self.right - 0.2, self.right + 0.1)
        shape = (models, n)
        wrong = (y + random.integers(1, k, shape)) % k
        said = np.where(random.random(shape) < right, y, wrong)
        return y, np.where(random.random(shape) < self.none * np.where(hard, 2, 0.6), k, said)


DESIGNS = (
    Design("2 classes, 10 % no label", (0.5, 0.5), 0.85, 0.1, "binary"),
    Design("rare class, 5 % no label", (0.9, 0.1), 0.9, 0.05, "binary"),
    Design("4 classes, 10 % no label", (0.4, 0.3, 0.2, 0.1), 0.8, 0.1),
    Design("4 classes, 10 % no label, micro", (0.4, 0.3, 0.2, 0.1), 0.8, 0.1, "micro"),
    Design("4 classes, 40 % no label", (0.25,) * 4, 0.8, 0.4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=300, help="simulated sets of rows for each design")
    arguments = parser.parse_args()
    start = time.process_time()
    print(
        f"{arguments.sets} sets of rows a line. Coverage of nominal 95 % intervals; error at alpha = 0.05.\n"
    )
    heads = [*METRICS, *(f"error, {name}" for name in COMPARED)]
    print("| Design | Rows | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 2) + "|")
    for design in DESIGNS:
        labels = [str(k) for k in range(len(design.priors))]
        options = {"labels": labels, "average": design.average, "baselines": False}
        y, said = design.draw(np.random.default_rng(1), TRUTH_ROWS)
        true = evaluate_predictions(y, predicted=said[0], n_resamples=100, **options)
        for n in (100, 400):
            random = np.random.default_rng(n)
            held, found = np.zeros(len(METRICS)), np.zeros(len(COMPARED))
            for seed in range(arguments.sets):
                y, said = design.draw(random, n, models=2)
                a, b = (
                    evaluate_predictions(y, predicted=one, n_resamples=400, seed=seed, **options)
                    for one in said
                )
                held += [a[name].low <= true[name].value <= a[name].high for name in METRICS]
                outcomes = [compare(a, b, metric=name, n_resamples=400, seed=seed) for name in COMPARED]
                found += [one.outcome in ("better", "worse") for one in outcomes]
            shares = [f"{share:.3f}" for share in np.concatenate([held, found]) / arguments.sets]
            print(f"| {design.name} | {n} | " + " | ".join(shares) + " |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
