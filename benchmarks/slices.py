"""How often weak parts of the rows are found, and how often parts are called weak that are not.

    python benchmarks/slices.py     the table of docs/statistics.md: about five minutes of one core

Columns of eight values and words of which nothing is planted surround one weak value of a column and one weak
word. "alike" is Benjamini-Hochberg over all parts, with the same p-values and plain Wilson intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control

from finetune_eval.evaluation.intervals import wilson
from finetune_eval.evaluation.slices import search_slices

VALUE, WORD = ("device", "old"), ("word", "not")


@dataclass(frozen=True)
class Design:
    name: str
    n: int
    rest: float  # share right of the other rows
    value: float  # of the rows of one value of a column, a tenth of all
    word: float  # of the rows with one word, a twentieth
    columns: int  # without meaning
    words: int

    @property
    def planted(self) -> dict[tuple[str, str], float]:
        return {key: share for key, share in ((VALUE, self.value), (WORD, self.word)) if share < self.rest}

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, list[str] | None, dict]:
        old, said = random.random(self.n) < 0.1, random.random(self.n) < 0.05
        share = np.where(old, self.value, np.where(said, self.word, self.rest))
        right = random.random(self.n) < share
        metadata = {"device": np.where(old, "old", "new")}
        metadata |= {f"c{i}": random.choice(list("abcdefgh"), self.n) for i in range(self.columns)}
        if not self.words:
            return right, None, metadata
        drawn = random.integers(0, self.words, (self.n, 30))
        texts = [
            " ".join([*(f"w{i}" for i in row[1:]), "not" if has else f"w{row[0]}"])
            for row, has in zip(drawn, said, strict=True)
        ]
        return right, texts, metadata


DESIGNS = [
    Design("nothing", 200, 0.90, 0.90, 0.90, 6, 0),
    Design("nothing", 1000, 0.85, 0.85, 0.85, 3, 400),
    Design("nothing", 300, 0.97, 0.97, 0.97, 3, 100),
    Design("a value, .65", 300, 0.88, 0.65, 0.88, 14, 0),
    Design("a value, .77", 1000, 0.90, 0.77, 0.90, 3, 400),
    Design("a value, .76, and a word, .68", 1000, 0.88, 0.76, 0.68, 3, 400),
    Design("a word, .72", 2000, 0.88, 0.88, 0.72, 10, 1000),
]


def run(design: Design, sets: int, seed: int) -> list[str]:
    """Return the cells of the table: ours / alike."""
    found = {key: np.zeros(2) for key in (VALUE, WORD)}
    false, covered, picked = np.zeros(2), np.zeros(2), np.zeros(2)
    for i in range(sets):
        right, texts, metadata = design.draw(np.random.default_rng(seed + i))
        slices, search = search_slices(right, texts=texts, metadata=metadata)
        others = np.ones(
            search.parts + search.words - len(slices)
        )  # words that are not shown: larger p-values
        alike = false_discovery_control(np.append([one.p_value for one in slices], others))[: len(slices)]
        weak = (
            [one for one in slices if one.weak],
            [one for one, q in zip(slices, alike, strict=True) if q <= 0.05],
        )
        for which in (0, 1):
            for one in weak[which]:
                key = (one.column, one.value)
                if key not in design.planted:
                    false[which] += 1 / len(weak[which])
                    continue
                plain = wilson(round(one.accuracy.value * one.n), one.n)
                estimate = plain if which else one.accuracy
                found[key][which] += 1
                picked[which] += 1
                covered[which] += estimate.low <= design.planted[key] <= estimate.high
    cells = [
        " / ".join(f"{x / sets:.2f}" for x in found[key]) if key in design.planted else "" for key in found
    ]
    cells.append(" / ".join(f"{x / sets:.3f}" for x in false))
    return [*cells, " / ".join(f"{x:.3f}" for x in covered / picked) if design.planted else ""]


def main(sets: int, seed: int) -> None:
    print(f"{sets:,} simulated sets a row; the first number is ours, the second that of all parts alike.\n")
    heads = "value found | word found | false discoveries | their intervals cover"
    print(f"| Weak | Rows | Columns, words | {heads} |\n|---|---|---|---|---|---|---|")
    for design in DESIGNS:
        cells = run(design, sets, seed)
        print(
            f"| {design.name} | {design.n:,} | {design.columns + 1}, {design.words} | {' | '.join(cells)} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.sets, options.seed)
