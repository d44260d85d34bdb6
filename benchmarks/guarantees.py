"""How often the true recall or precision misses the goal that a threshold was chosen for.

    python benchmarks/guarantees.py     the table of docs/statistics.md: about four minutes of one core

Validation sets with 50, 100 and 200 rows of the second class; the truth is that of the distribution they were
drawn from. "held out" designs were run after the method was chosen and only judge.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

from finetune_eval.evaluation.thresholds import choose_threshold

Tail = Callable[[np.ndarray], np.ndarray]


class Design:
    """Scores of two classes; `others` rows of the first class for each of the second, drawn or fixed."""

    def __init__(
        self, name: str, part: str, positive: Tail, negative: Tail, others: float, step: float = 0.0
    ):
        self.name, self.part, self.others, self.step = name, part, others, step
        self.positive, self.negative = positive, negative  # P(score >= x) of a row of the class
        grid = np.linspace(-60, 60, 240_001)
        self.quantiles = [(1 - tail(grid), grid) for tail in (negative, positive)]

    def draw(self, random: np.random.Generator, positives: int) -> tuple[np.ndarray, np.ndarray]:
        n = round(positives * (1 + self.others))
        y = (random.random(n) < 1 / (1 + self.others)).astype(np.int64)
        u = random.random(n)
        score = np.where(y == 1, np.interp(u, *self.quantiles[1]), np.interp(u, *self.quantiles[0]))
        return y, expit(np.round(score / self.step) * self.step if self.step else score)

    def truth(self, threshold: float) -> tuple[float, float]:
        """Return the true recall and precision of a threshold."""
        cut = np.log(threshold / (1 - threshold))
        if self.step:  # rounded scores reach the cut from half a step below the next mark
            cut = np.ceil(cut / self.step - 1e-6) * self.step - self.step / 2
        recall, alarms = float(self.positive(cut)), float(self.negative(cut)) * self.others
        return recall, recall / (recall + alarms) if recall + alarms else 1.0


def heavy(x: np.ndarray) -> np.ndarray:
    return student.sf(x, 2)


DESIGNS = [
    Design("normal, 2 apart, 1 of 5", "chosen", lambda x: norm.sf(x - 2), norm.sf, 4),
    Design("normal, 3 apart, 1 of 5", "chosen", lambda x: norm.sf(x - 3), norm.sf, 4),
    Design("normal, 2 apart, half", "chosen", lambda x: norm.sf(x - 2), norm.sf, 1),
    Design("t with 2 df, 2.5 apart, 1 of 5", "chosen", lambda x: heavy(x - 2.5), heavy, 4),
    Design("t with 2 df, 4 apart, half", "chosen", lambda x: heavy(x - 4), heavy, 1),
    Design("normal, 2.5 apart, 1 of 3, tied", "held out", lambda x: norm.sf(x - 2.5), norm.sf, 2, step=0.5),
    Design("3 % of the labels wrong, half", "held out", lambda x: 0.97 * norm.sf(x - 3) + 0.03 * norm.sf(x),
           lambda x: 0.97 * norm.sf(x) + 0.03 * norm.sf(x - 3), 1),
    Design("exponential, 1 of 10", "held out", lambda x: np.exp(-np.maximum(x, 0) / 4),
           lambda x: np.exp(-np.maximum(x, 0)), 9),
    Design("wide positives, half", "held out", lambda x: norm.sf((x - 3) / 2), norm.sf, 1),
]  # fmt: skip
GOALS = ("recall>=0.9", "recall>=0.9@95%", "precision>=0.9", "precision>=0.9@95%")


def main(sets: int, seed: int) -> None:
    print(
        "Share of all sets in which the threshold misses the goal in truth (share with a threshold; mean of"
    )
    print(f"the other metric). {sets:,} validation sets a row; 'Rows' counts those of the second class.\n")
    print(f"| Scores |  | Rows | {' | '.join(GOALS)} |\n|---|---|---|---|---|---|---|")
    for design in DESIGNS:
        for positives in (50, 100, 200):
            cells = []
            for goal in GOALS:
                random = np.random.default_rng(seed)
                missed, others = 0, []
                for _ in range(sets):
                    y, p = design.draw(random, positives)
                    try:
                        value = choose_threshold(y, p, goal=goal).value
                    except ValueError:
                        continue
                    recall, precision = design.truth(value)
                    bounded, other = (recall, precision) if goal.startswith("recall") else (precision, recall)
                    missed += bounded < 0.9 - 1e-9
                    others.append(other)
                share = f" ({len(others) / sets:.2f}; {np.mean(others):.2f})" if others else " (0)"
                cells.append(f"{missed / sets:.3f}{share}")
            print(f"| {design.name} | {design.part} | {positives} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.sets, options.seed)
