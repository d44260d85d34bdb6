"""Which interval? The candidates, side by side, on simulated rows; prints Markdown tables.

python benchmarks/interval_candidates.py             # about six minutes of one core
python benchmarks/interval_candidates.py --sets 100  # a quick look

Each cell is coverage (mean width in multiples of 3.92 standard deviations). The "chosen" populations were
looked at while the defaults of finetune_eval were being chosen, "held out" ones judge. The candidates that
lost are written here, and nowhere in the library.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np
from coverage_designs import HELD_OUT, Population, populations
from numpy.typing import NDArray
from scipy.special import stdtrit

from finetune_eval.evaluation.cells import cells_of, dirichlet_counts, draw_cells
from finetune_eval.evaluation.losses import (
    brier_costs,
    expected_loss,
    log_costs,
    row_brier,
    row_loss,
    ruled_out,
)
from finetune_eval.evaluation.means import loss_interval, mean_interval
from finetune_eval.evaluation.metrics import class_counts, confusion_matrix, from_confusion
from finetune_eval.evaluation.proportions import paired_difference, wilson_limits
from finetune_eval.evaluation.rankings import (
    auc_influence,
    delong,
    delong_variance,
    logit_limits,
    ranking_interval,
)
from finetune_eval.evaluation.resampling import bias_corrected
from finetune_eval.evaluation.shares import score_limits
from finetune_eval.evaluation.tables import table_interval, tail_limits

Floats = NDArray[np.float64]
Limits = tuple[float, float]
Z = 1.959964
TRUTH_ROWS = 600_000
RESAMPLES = 400
# Parts of the names of the populations that each kind of metric is simulated on.
OF_LOSSES = (
    *("calibrated, 3%", "over-confident, 10%", "heavy tails, 50%", "99 % right, 10%", "two decimals, 10%"),
    *("7 classes, 99 % right", "one decimal", "98 % right, 5%", "1 % of labels wrong", "skewed scores, 6%"),
)
OF_TABLES = (
    *("heavy tails, 3%", "99 % right, 3%", "logistic, 3%", "calibrated, 50%", "7 classes"),
    *("80 % right, 8%", "99.5 % right", "10 classes", "4 even classes", "20 even classes"),
)
OF_RANKINGS = (
    *("calibrated, 3%", "heavy tails, 3%", "99 % right", "logistic, 3%", "2 % of labels", "not seen"),
    *("98 % right, 5%", "99.5 % right", "80 % right, 8%", "skewed scores"),
)


class Tally:
    """Values and limits of several methods, and how often the limits hold the truth."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.limits: dict[str, list[Limits]] = defaultdict(list)

    def add(self, value: float, **limits: Limits) -> None:
        self.values.append(value)
        for name, (low, high) in limits.items():
            self.limits[name].append((min(low, value), max(high, value)))

    def cells(self, truth: float) -> str:
        out, spread = [], max(3.92 * float(np.std(self.values)), 1e-12)
        for limits in self.limits.values():
            low, high = np.array(limits).T
            covered = ((low <= truth + 1e-9) & (truth <= high + 1e-9)).mean()
            out.append(f"{covered:.3f} ({(high - low).mean() / spread:.2f})")
        return " | ".join(out)


def heading(title: str, columns: list[str]) -> None:
    print(f"\n### {title}\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)


def row(population: Population, n: int, truth: float, tally: Tally) -> None:
    print(
        f"| {n:,} rows, {population.name} | {population.where} | {truth:.3f} | {tally.cells(truth)} |",
        flush=True,
    )


def named(*parts: str) -> list[Population]:
    return [population for population in populations() if any(part in population.name for part in parts)]


def students_t(rows: Floats) -> Limits:
    half = stdtrit(len(rows) - 1, 0.975) * rows.std(ddof=1) / len(rows) ** 0.5
    return rows.mean() - half, rows.mean() + half


def losses(sets: int) -> None:
    columns = ["Student's t", "t, skewness removed", "growing variance", "and what is expected: the default"]
    for name, function, costs in (("log-loss", row_loss, log_costs), ("Brier score", row_brier, brier_costs)):
        heading(name, ["Rows", "", "True value", *columns])
        for population in named(*OF_LOSSES):
            n = 350 if population.where == HELD_OUT else 200
            random, tally = np.random.default_rng(n), Tally()
            truth = float(function(*population.draw(random, TRUTH_ROWS)).mean())
            for _ in range(sets):
                y, p = population.draw(random, n)
                rows, high = function(y, p), 87.3 if name == "log-loss" else 1.0 + (p.shape[1] > 2)
                ruled = ruled_out(y, p) if name == "log-loss" else None
                options = {"confidence": 0.95, "high": high}
                hall = mean_interval(rows, confidence=0.95, bounds=(0.0, high))
                seen = loss_interval(rows, **options)
                default = loss_interval(rows, expected=expected_loss(p, costs), ruled=ruled, **options)
                tally.add(
                    float(rows.mean()),
                    t=students_t(rows),
                    hall=(hall.low, hall.high),
                    seen=(seen.low, seen.high),
                    default=(default.low, default.high),
                )
            row(population, n, truth, tally)


def square_and_add(hits: Floats, trials: Floats) -> Limits:
    """Zou and Donner 2008: distances of the classes from their Wilson limits, squared and added."""
    values = hits / trials
    low, high = np.array([wilson_limits(h, n, Z) for h, n in zip(hits, trials, strict=True)]).T
    down, up = (float(np.sqrt((part**2).sum()) / len(hits)) for part in (values - low, high - values))
    return float(values.mean()) - down, float(values.mean()) + up


def yan_su(hits: Floats, trials: Floats) -> Limits:
    """Yan and Su 2010: the classes' Wilson limits at the quantile at which their mean has the right width."""
    deviation = np.sqrt(hits / trials * (1 - hits / trials) / trials)
    total = float(deviation.sum())
    z = Z * (float(np.sqrt((deviation**2).sum())) / total if total > 0 else len(hits) ** -0.5)
    low, high = np.array([wilson_limits(h, n, z) for h, n in zip(hits, trials, strict=True)]).T
    return float(low.mean()), float(high.mean())


def means_over_classes(sets: int) -> None:
    columns = ["Wilson limits squared and added", "stratified Wilson (Yan and Su)", "score: the default"]
    heading("Balanced accuracy", ["Rows", "", "True value", *columns])
    for population in named("classes", "99 % right, 10%", "logistic, 10%", "98 % right, 5%"):
        for n in (120, 350) if population.where == HELD_OUT else (200,):
            random, tally = np.random.default_rng(n), Tally()
            y, p = population.draw(random, TRUTH_ROWS)
            truth = float(
                from_confusion("balanced_accuracy", confusion_matrix(y, p.argmax(axis=1), p.shape[1]))
            )
            for _ in range(sets):
                y, p = population.draw(random, n)
                hits, _, trials = class_counts(confusion_matrix(y, p.argmax(axis=1), p.shape[1]))
                if (trials > 0).all():
                    limits = (function(hits, trials) for function in (square_and_add, yan_su))
                    mover, stratified = limits
                    score = score_limits(hits, trials, Z)
                    tally.add(float((hits / trials).mean()), mover=mover, stratified=stratified, score=score)
            row(population, n, truth, tally)


def functions_of_tables(sets: int) -> None:
    for metric in ("mcc", "f1"):
        heading(metric, ["Rows", "", "True value", "bootstrap", "Dirichlet posterior", "the default"])
        for population in named(*OF_TABLES):
            n = 250 if population.where == HELD_OUT else 350
            random, tally = np.random.default_rng(n), Tally()
            y, p = population.draw(random, TRUTH_ROWS)
            k, lowest = p.shape[1], -1.0 if metric == "mcc" else 0.0
            truth = float(from_confusion(metric, confusion_matrix(y, p.argmax(axis=1), k), "macro"))
            for seed in range(sets):
                y, p = population.draw(random, n)
                cells = cells_of(confusion_matrix(y, p.argmax(axis=1), k))
                draws = draw_cells(cells, RESAMPLES, seed)

                def score(counts, metric=metric):
                    return from_confusion(metric, counts, "macro")

                value = float(score(cells.class_counts))
                made = table_interval(
                    score, cells, confidence=0.95, seed=seed, bounds=(lowest, 1.0), draws=draws
                )
                tally.add(
                    value,
                    bootstrap=bias_corrected(value, score(draws)),
                    posterior=tail_limits(score(dirichlet_counts(cells, RESAMPLES, seed)), 0.95),
                    default=(made.low, made.high),
                )
            row(population, n, truth, tally)


def rankings(sets: int) -> None:
    columns = ["DeLong", "logit scale, t", "t by the kurtosis, too", "widened: the default"]
    heading("ROC-AUC", ["Rows", "", "True value", *columns])
    for population in named(*OF_RANKINGS):
        for n in (450,) if population.where == HELD_OUT else (200, 350, 1500):
            random, tally = np.random.default_rng(n), Tally()
            y, p = population.draw(random, TRUTH_ROWS)
            if p.shape[1] > 2:
                continue
            truth = auc_influence(y == 1, p[:, 1])[0]
            for _ in range(sets):
                y, p = population.draw(random, n)
                if 1 < y.sum() < n - 1:
                    add_areas(tally, y, p)
            row(population, n, truth, tally)


def add_areas(tally: Tally, y: NDArray[np.int64], p: Floats) -> None:
    plain, default = delong(y, p[:, 1]), ranking_interval("roc_auc", y, p, "binary", confidence=0.95)
    assert default is not None
    value, moves = auc_influence(y == 1, p[:, 1])
    variance, freedom = delong_variance(y == 1, moves)
    logit = kurtosis = (plain.low, plain.high)  # Clopper-Pearson, where there is no variance
    if variance > 1e-15:
        n = len(moves)
        few = max(2 * n / (n * (moves**4).sum() / (moves**2).sum() ** 2 - 1), 2)
        logit = logit_limits(value, variance, stdtrit(freedom, 0.975))
        kurtosis = logit_limits(value, variance, stdtrit(min(freedom, few), 0.975))
    tally.add(
        value,
        delong=(plain.low, plain.high),
        logit=logit,
        kurtosis=kurtosis,
        default=(default.low, default.high),
    )


def paired(sets: int) -> None:
    """Difference of two accuracies on the same rows; nothing was chosen by these."""
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
        # Cheap, so many times as many: the differences between methods are small.
        tables = np.random.default_rng(4).multinomial(n, shares, size=40 * sets)
        distinct, counts = np.unique(tables, axis=0, return_counts=True)
        cells = []
        for method in methods:
            made = [paired_difference(*map(int, table), method=method) for table in distinct]
            covers = [interval.low <= only_a - only_b <= interval.high for interval in made]
            widths = [interval.high - interval.low for interval in made]
            cells.append(
                f"{np.average(covers, weights=counts):.3f} ({np.average(widths, weights=counts):.3f})"
            )
        print(f"| {n:,} | {only_a}, {only_b}, {neither} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=500, help="simulated sets of rows for each design")
    sets = parser.parse_args().sets
    error = (0.95 * 0.05 / sets) ** 0.5
    print(f"Coverage over {sets} sets of rows; standard error of a coverage of .95: {error:.3f}.")
    for part in (losses, means_over_classes, functions_of_tables, rankings, paired):
        start = time.process_time()
        part(sets)
        print(f"\n{time.process_time() - start:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
