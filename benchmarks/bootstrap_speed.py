"""Macro-F1 of 100,000 rows, 1,000 resamples: the confusion matrix against the rows.

python benchmarks/bootstrap_speed.py

Both bootstraps are run whole, in one process; it fails unless ours is at least 1,000 times faster and gives
the same interval to three digits.
"""

from __future__ import annotations

import time

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score

from finetune_eval.evaluation.metrics import confusion_matrix
from finetune_eval.evaluation.tables import f1_interval

ROWS, CLASSES, RESAMPLES = 100_000, 5, 1_000
LEAST_SPEED_UP = 1_000
SAME = 0.0005  # three digits


def main() -> None:
    random = np.random.default_rng(0)
    y = random.choice(CLASSES, ROWS, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    predicted = np.where(random.random(ROWS) < 0.8, y, random.integers(0, CLASSES, ROWS))
    table = confusion_matrix(y, predicted, CLASSES)
    f1_interval(table, average="macro", method="percentile", n_resamples=100)  # imports SciPy's functions

    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        table = confusion_matrix(y, predicted, CLASSES)
        counted = time.perf_counter()
        ours = f1_interval(table, average="macro", method="percentile", n_resamples=RESAMPLES)
        seconds.append((time.perf_counter() - counted, counted - start))
    resampling, counting = np.median(seconds, axis=0)
    print(f"finetune_eval: {ours.value:.5f} [{ours.low:.5f}, {ours.high:.5f}]  {resampling:.4f} s")
    print(f"  (and {counting:.4f} s, once, to count the confusion matrix of {ROWS:,} rows)")

    start = time.perf_counter()
    theirs = stats.bootstrap(
        (y, predicted),
        lambda a, b: f1_score(a, b, average="macro"),
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    elapsed = time.perf_counter() - start
    value = f1_score(y, predicted, average="macro")
    print(f"scipy + scikit-learn: {value:.5f} [{theirs.low:.5f}, {theirs.high:.5f}]  {elapsed:.1f} s")
    print(f"ratio: {elapsed / resampling:,.0f} (with the counting: {elapsed / (resampling + counting):,.0f})")

    assert elapsed / resampling >= LEAST_SPEED_UP, "less than 1,000 times faster"
    assert abs(ours.low - theirs.low) < SAME and abs(ours.high - theirs.high) < SAME, "different intervals"


if __name__ == "__main__":
    main()
