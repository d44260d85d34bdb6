"""How often do the intervals of the metrics that are asked for hold the truth? Simulated; a Markdown table.

python benchmarks/further_coverage.py            # about ten minutes of one core
python benchmarks/further_coverage.py --sets 50  # a quick look

The designs are those of benchmarks/interval_coverage.py; multilabel rows have labels that share a cause, and
noisy scores predict them. "At prevalence" is at a prevalence of 5 %. A set of rows counts as marked where
`.method` warns.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
from coverage_designs import SIZES, populations
from interval_coverage import MARK, TRUTH_ROWS, Cell, summary, worst

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.prevalence import at_prevalence
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import Sample, Sampling

OF_CLASSES = ("f0.5", "f2", "specificity", "npv", "linear_kappa", "quadratic_kappa", "top_2_accuracy")
OF_LABELS = ("hamming", "samples_f1", "f2")
PREVALENCE = 0.05
SAMPLING = Sampling(confidence=0.95, n_resamples=400)


def estimates(y, p, predicted, sampling: Sampling, *, value_only: bool = False) -> dict[str, Estimate | None]:
    if y.ndim == 2:
        sample = Sample(y, None, predicted, average="macro", classes=y.shape[1])
        return {f"multilabel {name}": METRICS[name].interval(sample, sampling) for name in OF_LABELS}
    k = p.shape[1]
    sample = Sample(y, p, predicted, average="binary" if k == 2 else "macro")
    some = [name for name in OF_CLASSES if METRICS[name].classes[0] <= k <= METRICS[name].classes[1]]
    out = {name: METRICS[name].interval(sample, sampling) for name in some}
    if k == 2 and 0 < y.sum() < len(y) and not value_only:
        quick = {"baselines": False, "n_resamples": 100}
        result = evaluate_predictions(y, predicted=predicted, labels=["0", "1"], **quick)
        found = at_prevalence(result, PREVALENCE, seed=sampling.seed)
        out |= {f"{name} at prevalence": one for name, one in found.items()}
    return out


def truth_of(y, p, predicted) -> dict[str, float]:
    made = estimates(y, p, predicted, Sampling(n_resamples=100), value_only=True)
    out = {name: one.value for name, one in made.items() if one is not None}
    if y.ndim == 1 and p.shape[1] == 2:
        recall, specificity = predicted[y == 1].mean(), 1 - predicted[y == 0].mean()
        hits, alarms = PREVALENCE * recall, (1 - PREVALENCE) * (1 - specificity)
        right = (1 - PREVALENCE) * specificity
        out["precision at prevalence"] = hits / (hits + alarms) if hits + alarms else np.nan
        out["npv at prevalence"] = right / (right + PREVALENCE - hits)
        out["accuracy at prevalence"] = hits + right
    return out


def multilabel(labels: int, share: float, noise: float):
    """Labels with a cause in common; scores that see them through noise."""

    def draw(random: np.random.Generator, n: int):
        shift = np.log(share / (1 - share))
        cause = random.normal(size=(n, 1)) + random.normal(size=(n, labels)) + shift
        y = (cause > 0).astype(np.int64)
        return y, None, (cause + noise * random.normal(size=cause.shape) > 0).astype(np.int64)

    return draw


def designs():
    for population in populations():

        def draw(random, n, population=population):
            y, p = population.draw(random, n)
            return y, p, p.argmax(axis=1)

        yield population.where, population.name, draw
    for labels, share, noise in ((4, 0.4, 0.5), (6, 0.2, 1.0), (12, 0.1, 0.3), (5, 0.3, 0.05)):
        yield "held out", f"{labels} labels, {share:.0%}, noise {noise}", multilabel(labels, share, noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200, help="simulated sets of rows for each design")
    arguments = parser.parse_args()
    start, cells = time.process_time(), []
    for where, design, draw in designs():
        truth = truth_of(*draw(np.random.default_rng(77), TRUTH_ROWS))
        for n in SIZES[where]:
            random, found = np.random.default_rng(n), defaultdict(list)
            for seed in range(arguments.sets):
                for name, made in estimates(*draw(random, n), replace(SAMPLING, seed=seed)).items():
                    if made is not None:
                        found[name].append((made.value, made.low, made.high, bool(MARK.search(made.method))))
            for name, rows in found.items():
                value, low, high, marked = np.array(rows, dtype=np.float64).T
                true = truth.get(name, np.nan)
                if not np.isnan(true):
                    above, below = true > high + 1e-9, true < low - 1e-9
                    missed = above | below
                    silent = (missed & (marked == 0)).mean()
                    width = (high - low).mean() / max(3.92 * value.std(), 1e-12)
                    numbers = (1 - missed.mean(), above.mean(), marked.mean(), silent, width)
                    cells.append(Cell(where, design, n, name, true, *map(float, numbers)))
    print(f"Coverage of nominal 95 % intervals, {arguments.sets} sets of rows a design and size.")
    summary([cell for cell in cells if cell.n >= 200], "200 rows and more")
    summary([cell for cell in cells if cell.n < 200], "60 to 120 rows")
    worst(
        [c for c in cells if c.n >= 200 and c.verdict == "below"], "Below and not marked, 200 rows and more"
    )
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
