"""How often do the intervals of `agreement` hold the truth? Simulated; prints a Markdown table.

python benchmarks/agreement_coverage.py            # about ten minutes of one core
python benchmarks/agreement_coverage.py --sets 50  # a quick look

An item has a class and is easy or hard. Judges label it independently of each other: right more often if it
is easy, and else another class at random. The truth of a design is what 200,000 items show.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from finetune_eval.evaluation.agreement import agreement

TRUTH_ITEMS = 200_000
MEASURES = ("agreement", "alpha", "kappa", "ceiling")


@dataclass(frozen=True)
class Design:
    name: str
    priors: tuple[float, ...]
    easy: float  # how often a judge is right on an easy item
    hard: float
    judges: int
    missing: float = 0.0
    level: str = "nominal"

    def draw(self, random: np.random.Generator, items: int) -> np.ndarray:
        """Return (items, judges) labels as texts, None where one is missing."""
        k = len(self.priors)
        truth = random.choice(k, items, p=self.priors)
        right = np.where(random.random(items) < 0.7, self.easy, self.hard)
        shape = (items, self.judges)
        wrong = (truth[:, None] + random.integers(1, k, shape)) % k
        said = np.where(random.random(shape) < right[:, None], truth[:, None], wrong)
        words = said.astype(str).astype(object)
        words[random.random(shape) < self.missing] = None
        return words


EVEN3, RARE, FIVE = (1 / 3, 1 / 3, 1 / 3), (0.9, 0.1), (0.2,) * 5
DESIGNS = (
    Design("2 classes, good judges", (0.5, 0.5), 0.97, 0.8, 2),
    Design("2 classes, poor judges", (0.5, 0.5), 0.8, 0.6, 2),
    Design("rare class", RARE, 0.97, 0.8, 2),
    Design("3 classes, 3 judges", EVEN3, 0.95, 0.6, 3),
    Design("rare class, 3 judges", RARE, 0.97, 0.8, 3),
    Design("3 classes, 4 judges, 30 % missing", EVEN3, 0.95, 0.6, 4, missing=0.3),
    Design("5 ordered classes, 3 judges", FIVE, 0.9, 0.5, 3, level="ordinal"),
    Design("5 numbers, 3 judges", FIVE, 0.9, 0.5, 3, level="interval"),
    Design("nearly perfect, 3 judges", EVEN3, 0.995, 0.97, 3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=400, help="simulated sets of items for each design")
    arguments = parser.parse_args()
    start = time.process_time()
    print(f"Coverage of nominal 95 % intervals, {arguments.sets} sets of items a row.\n")
    print("| Design | Items | " + " | ".join(MEASURES) + " | width of alpha |\n" + "|---" * 7 + "|")
    for design in DESIGNS:
        labels = [str(k) for k in range(len(design.priors))]
        options = {"labels": labels, "level": design.level}
        everything = design.draw(np.random.default_rng(1), TRUTH_ITEMS)
        true = agreement(everything, **options, n_resamples=100)
        for items in (30, 100, 400):
            random, held, width = np.random.default_rng(items), np.zeros(len(MEASURES)), 0.0
            for seed in range(arguments.sets):
                found = agreement(design.draw(random, items), **options, n_resamples=400, seed=seed)
                for place, name in enumerate(MEASURES):
                    one = getattr(found, name)
                    held[place] += one.low - 1e-9 <= getattr(true, name).value <= one.high + 1e-9
                width += found.alpha.high - found.alpha.low
            shares = " | ".join(f"{share:.3f}" for share in held / arguments.sets)
            print(f"| {design.name} | {items} | {shares} | {width / arguments.sets:.3f} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
