"""How often do the intervals that `evaluate` prints hold the truth? Simulates sets; prints Markdown tables.

python benchmarks/interval_coverage.py                    # all designs, about ten minutes of one core
python benchmarks/interval_coverage.py --sets 100         # a quick look
python benchmarks/interval_coverage.py --cells cells.csv  # also writes every cell to a file

A design is a population and a number of rows. A cell is a design and a metric. The "chosen" designs were
looked at while the intervals were being chosen; the "held out" designs only judge them. A set of rows
counts as marked where `.method` warns that the interval may be off: too narrow ("unreliable", "over 2 of 3
classes") or wider than need be (a fallback, named with its reason). A cell counts as marked where at least
half of its sets are marked; a cell below, too, where at most 7.5 % of its sets miss without a warning. A
cell is "constant" where the metric is the same in every set, as the recall of a class that is never
predicted.

Of 1,600 cells some are outside by chance. Cells of 200 rows and more that are outside are therefore drawn
again, with other seeds and as many resamples as `evaluate` makes, and the second result replaces the first.
docs/statistics.md keeps the tables that this script prints.
"""

from __future__ import annotations

import argparse
import csv
import re
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from coverage_designs import CHOSEN, HELD_OUT, SIZES, Population, Rows, populations

from finetune_eval.evaluation import scores
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion, per_class_scores
from finetune_eval.evaluation.rankings import ranking_influence
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.sample import Sample, Sampling

FAST, FULL = Sampling(n_resamples=400), Sampling(n_resamples=2000)  # FULL is what `evaluate` does
TRUTH_ROWS = 600_000
LOW, HIGH = 0.925, 0.985  # a cell inside is as good as nominal
MARK = re.compile(
    r"unreliable|wider of|widened|over [\d,]+ of|no variance|not vary|undefined|a class 0|Clopper-Pearson"
    r"|conservative"
)
# Precision, recall and F1 are those of the last class, which is the rarest.
OF_LAST = ("precision", "recall", "f1")
WHOLE = ("accuracy", "balanced_accuracy", "mcc", "kappa", "roc_auc", "pr_auc", "loss", "brier")
AVERAGED = ("macro precision", "macro-F1", "weighted F1")
NAMES = (*WHOLE, *OF_LAST, *AVERAGED)


def estimates(rows: Rows, sampling: Sampling, names: tuple[str, ...]) -> dict[str, Estimate | None]:
    y, p = rows
    predicted = p.argmax(axis=1)
    macro = Sample(y, p, predicted, average="macro")
    weighted = Sample(y, p, predicted, average="weighted")

    def estimate(name: str) -> Estimate | None:
        if name in OF_LAST:
            return scores.of_class(name, p.shape[1] - 1, macro, sampling)
        if name in WHOLE:
            return METRICS[name].interval(macro, sampling)
        function = scores.precision if name == "macro precision" else scores.f1
        return function(weighted if name == "weighted F1" else macro, sampling)

    return {name: estimate(name) for name in names}


def truths(rows: Rows) -> dict[str, float]:
    y, p = rows
    k = p.shape[1]
    table = confusion_matrix(y, p.argmax(axis=1), k)
    out = {
        name: float(from_confusion(name, table)) for name in ("accuracy", "balanced_accuracy", "mcc", "kappa")
    }
    of_class = per_class_scores(table)
    out |= {name: float(of_class[name][-1]) for name in OF_LAST}
    out["macro precision"] = float(from_confusion("precision", table, "macro"))
    out["macro-F1"] = float(from_confusion("f1", table, "macro"))
    out["weighted F1"] = float(from_confusion("f1", table, "weighted"))
    for name in ("roc_auc", "pr_auc"):
        found = ranking_influence(name, y, p, "binary" if k == 2 else "macro")
        assert found is not None
        out[name] = found.value
    for name in ("loss", "brier"):
        function = METRICS[name].function
        assert function is not None
        out[name] = float(function(y, p).mean())
    if (table.sum(axis=0) == 0).any():  # a class that is never predicted has no precision
        out["precision"] = out["macro precision"] = float("nan")
    return out


@dataclass(frozen=True)
class Cell:
    where: str
    design: str
    n: int
    metric: str
    truth: float
    coverage: float
    above: float  # share of sets whose interval lies below the truth
    marked: float
    silent: float  # share of sets that miss without a word
    width: float  # mean width, in multiples of 3.92 standard deviations of the metric

    @property
    def verdict(self) -> str:
        if self.width > 1e6:
            return "constant"
        if self.coverage < LOW:
            return "below, marked" if self.marked >= 0.5 or self.silent <= 1 - LOW else "below"
        if self.coverage > HIGH:
            return "above, marked" if self.marked >= 0.5 else "above"
        return "inside"


def cells_of(
    population: Population,
    n: int,
    true: dict[str, float],
    sets: int,
    *,
    names: tuple[str, ...] = NAMES,
    sampling: Sampling = FAST,
    stage: tuple[int, ...] = (),
) -> list[Cell]:
    # The seed depends on the design, so that a lucky draw is not the luck of all designs of as many rows.
    random = np.random.default_rng([n, zlib.crc32(population.name.encode()), *stage])
    found = defaultdict(list)
    for seed in range(sets):
        made_of = estimates(population.draw(random, n), replace(sampling, seed=seed), names)
        for name, made in made_of.items():
            if made is not None:
                marked = bool(MARK.search(made.method))
                found[name].append((made.value, made.low, made.high, marked))
    out = []
    for name, rows in found.items():
        value, low, high, marked = np.array(rows, dtype=np.float64).T
        truth = true[name]
        if np.isnan(truth):
            continue
        # Rounding of a truth that is 0 or 1 is no miss.
        above, below = truth > high + 1e-9, truth < low - 1e-9
        missed = above | below
        out.append(
            Cell(
                population.where,
                population.name,
                n,
                name,
                truth,
                float(1 - missed.mean()),
                float(above.mean()),
                float(marked.mean()),
                float((missed & (marked == 0)).mean()),
                float((high - low).mean() / max(3.92 * value.std(), 1e-12)),
            )
        )
    return out


def drawn_again(cells: list[Cell], truth: dict[str, dict[str, float]], sets: int) -> list[Cell]:
    """Replace the cells of 200 rows and more that are outside by those of new sets, with all resamples."""
    outside = defaultdict(list)
    for cell in cells:
        if cell.n >= 200 and cell.verdict not in ("inside", "constant"):
            outside[cell.design, cell.n].append(cell.metric)
    again = {}
    for population in populations():
        for n in SIZES[population.where]:
            names = tuple(outside.get((population.name, n), ()))
            true = truth.get(population.name, {})
            for cell in (
                cells_of(population, n, true, sets, names=names, sampling=FULL, stage=(2,)) if names else ()
            ):
                again[cell.design, cell.n, cell.metric] = cell
    return [again.get((cell.design, cell.n, cell.metric), cell) for cell in cells]


def heading(title: str, columns: tuple[str, ...]) -> None:
    print(f"\n#### {title}\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")


def summary(cells: list[Cell], title: str) -> None:
    verdicts = ("inside", "below", "below, marked", "above", "above, marked", "constant")
    heading(title, ("Metric", "cells", *verdicts, "mean coverage", "silent misses"))
    names = list(dict.fromkeys(cell.metric for cell in cells))
    for name in [*names, "all"]:
        some = [cell for cell in cells if name in (cell.metric, "all")]
        counts = " | ".join(str(sum(cell.verdict == v for cell in some)) for v in verdicts)
        mean, silent = np.mean([cell.coverage for cell in some]), np.mean([cell.silent for cell in some])
        print(f"| {name} | {len(some)} | {counts} | {mean:.3f} | {silent:.3f} |")


def worst(cells: list[Cell], title: str) -> None:
    heading(title, ("Rows", "Design", "Metric", "Truth", "Coverage", "above", "marked", "silent", "width"))
    for cell in sorted(cells, key=lambda cell: cell.coverage):
        numbers = (cell.truth, cell.coverage, cell.above, cell.marked, cell.silent, cell.width)
        print(
            f"| {cell.n:,} | {cell.design} ({cell.where}) | {cell.metric} | "
            + " | ".join(f"{number:.3f}" for number in numbers)
            + " |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=500, help="simulated sets of rows for each design")
    parser.add_argument("--again", type=int, default=2000, help="new sets for each cell that is outside")
    parser.add_argument("--only", default="", help="designs whose name has this in it")
    parser.add_argument("--cells", type=Path, help="CSV file for every cell")
    arguments = parser.parse_args()
    start, cells, truth = time.process_time(), [], {}
    for population in populations():
        if arguments.only in population.name:
            truth[population.name] = truths(population.draw(np.random.default_rng(77), TRUTH_ROWS))
            for n in SIZES[population.where]:
                cells += cells_of(population, n, truth[population.name], arguments.sets)
    first = sum(cell.n >= 200 and cell.verdict not in ("inside", "constant") for cell in cells)
    cells = drawn_again(cells, truth, arguments.again)
    if arguments.cells is not None:
        with arguments.cells.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*Cell.__dataclass_fields__, "verdict"])
            writer.writerows([*vars(cell).values(), cell.verdict] for cell in cells)
    error, error_again = ((0.95 * 0.05 / sets) ** 0.5 for sets in (arguments.sets, arguments.again))
    print(
        f"Coverage of nominal 95 % intervals: {len({(c.design, c.n) for c in cells})} designs, "
        f"{len(cells):,} cells, {arguments.sets} sets of rows each; standard error of a coverage of .95: "
        f"{error:.3f}. Inside: {LOW:.1%} to {HIGH:.1%}. The {first} cells of 200 rows and more that were "
        f"outside were drawn again: {arguments.again:,} new sets each, standard error {error_again:.3f}."
    )
    large = [cell for cell in cells if cell.n >= 200]
    for where in (CHOSEN, HELD_OUT):
        summary([cell for cell in large if cell.where == where], f"200 rows and more, {where} designs")
    summary([cell for cell in cells if cell.n < 200], "60 to 120 rows, all designs")
    worst([cell for cell in large if cell.verdict.startswith("below")], "Below, 200 rows and more")
    worst([cell for cell in large if cell.verdict == "above"], "Above and not marked, 200 rows and more")
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
