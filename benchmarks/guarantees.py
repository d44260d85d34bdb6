"""How often the true recall, precision or error misses the goal it was chosen for.

    python benchmarks/guarantees.py                 thresholds: about four minutes of one core
    python benchmarks/guarantees.py --abstention    abstentions and the AUGRC: about four minutes

docs/statistics.md keeps the tables. Validation sets with 50, 100 and 200 rows of the second class, or with
100 to 2,000 rows; the truth is that of the distribution they were drawn from. "held out" designs were run
after the method was chosen and only judge.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

from finetune_eval.evaluation.abstention import choose_abstention
from finetune_eval.evaluation.risk_coverage import risk_coverage
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


class Answers:
    """Answers whose confidence is `0.5 + 0.5 * u ** power` for uniform u, and how often they are wrong."""

    def __init__(self, name: str, error: Tail, power: float = 1.0, step: float = 0.0):
        self.name, self.error, self.power, self.step = name, error, power, step
        self.grid = np.sort(self.confidence((np.arange(400_000) + 0.5) / 400_000))[::-1]
        self.wrong = np.cumsum(error(self.grid)) / len(self.grid)  # of all rows, the surest so many
        share = np.arange(1, len(self.grid) + 1) / len(self.grid)
        ends = np.append(np.flatnonzero(np.diff(self.grid)), len(self.grid) - 1)  # of equal confidences
        wrong, share = np.append(0, self.wrong[ends]), np.append(0, share[ends])
        self.area = float(np.sum((wrong[1:] + wrong[:-1]) / 2 * np.diff(share)))

    def confidence(self, u: np.ndarray) -> np.ndarray:
        c = 0.5 + 0.5 * u**self.power
        return np.round(c / self.step) * self.step if self.step else c

    def draw(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        c = self.confidence(random.random(n))
        return random.random(n) >= self.error(c), c

    def truth(self, value: float) -> float:
        """Return the true error of the answers from a confidence on."""
        kept = int(np.searchsorted(-self.grid, -value, side="right"))
        return float(self.wrong[kept - 1]) * len(self.grid) / kept if kept else 0.0


def noisy(c: np.ndarray) -> np.ndarray:
    return 0.03 + 0.94 * (1 - c)


def band(c: np.ndarray) -> np.ndarray:
    return np.where((c > 0.8) & (c < 0.9), 0.26, 0.0)  # 0.2 of the rows: 0.052 of all are wrong


ANSWERS = [
    Answers("right as often as their confidence says", lambda c: 1 - c),
    Answers("the same, most rows sure", lambda c: 1 - c, power=0.25),
    Answers("too sure: three times as many wrong", lambda c: np.minimum(3 * (1 - c), 0.6), power=0.25),
    Answers("3 % of the labels wrong", noisy, power=0.25),
    Answers("confidence says nothing, error 0.05", lambda c: np.full(len(c), 0.05)),
    Answers("confidence says nothing, error 0.055", lambda c: np.full(len(c), 0.055)),
    Answers("the surest tenth is wrong in 0.15", lambda c: np.where(c > 0.95, 0.15, 0.06 * (1 - c)), 1.0),
    Answers("all errors in a band of confidence", band),
    Answers("confidence in steps of 0.05", lambda c: 1 - c, power=0.25, step=0.05),
]
ERROR_GOALS = ("error<=0.05", "error<=0.05@95%", "error<=0.1@95%")


def abstentions(sets: int, seed: int) -> None:
    print("Share of all sets in which the true error of what is answered is over the goal (share with an")
    print(f"abstention; mean share answered); coverage of the AUGRC's interval. {sets:,} sets a row.\n")
    print(f"| Answers | Rows | {' | '.join(ERROR_GOALS)} | AUGRC |\n|---|---|---|---|---|---|")
    for design in ANSWERS:
        for n in (100, 200, 500, 2000):
            random = np.random.default_rng(seed)
            missed, answered = dict.fromkeys(ERROR_GOALS, 0), {goal: [] for goal in ERROR_GOALS}
            covered = 0
            for _ in range(sets):
                right, c = design.draw(random, n)
                if right.any():
                    interval = risk_coverage(right, c).augrc
                    covered += interval.low <= design.area <= interval.high
                for goal in ERROR_GOALS:
                    try:
                        chosen = choose_abstention(right.astype(np.int64), c, goal=goal)
                    except ValueError:
                        continue
                    bound = 0.05 if "0.05" in goal else 0.1
                    missed[goal] += design.truth(chosen.value) > bound + 1e-9
                    answered[goal].append(chosen.coverage)
            cells = []
            for goal in ERROR_GOALS:
                found = answered[goal]
                more = f" ({len(found) / sets:.2f}; {np.mean(found):.2f})" if found else " (0)"
                cells.append(f"{missed[goal] / sets:.3f}{more}")
            print(f"| {design.name} | {n:,} | {' | '.join(cells)} | {covered / sets:.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--abstention", action="store_true", help="abstentions in the place of thresholds")
    options = parser.parse_args()
    (abstentions if options.abstention else main)(options.sets, options.seed)
