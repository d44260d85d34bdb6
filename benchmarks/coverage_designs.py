"""Populations of rows and of what a model says of them, for the simulations of coverage.

Those of `CHOSEN` were looked at while the intervals were being chosen; those of `HELD_OUT` only judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri, softmax

Floats = NDArray[np.float64]
Rows = tuple[NDArray[np.int64], Floats]
CHOSEN, HELD_OUT = "chosen", "held out"


@dataclass(frozen=True)
class Population:
    """Rows without end: `draw(random, n)` gives (n,) true classes and (n, K) probabilities."""

    where: str
    name: str
    draw: Callable[[np.random.Generator, int], Rows]


def two(y: NDArray[np.bool_], p: Floats) -> Rows:
    return y.astype(np.int64), np.column_stack([1 - p, p])


def calibrated(share: float, spread: float = 1.0, *, digits: int | None = None, heat: float = 1.0):
    """Probabilities that come true as often as they say, then heated (over-confident below 1) and rounded."""

    def draw(random: np.random.Generator, n: int) -> Rows:
        p = random.beta(share * spread, (1 - share) * spread, n)
        y = random.random(n) < p
        if heat != 1:
            p = expit(logit(np.clip(p, 1e-12, 1 - 1e-12)) / heat)
        return two(y, p if digits is None else p.round(digits))

    return draw


def normal_scores(share: float, right: float, *, noise: float = 0.0, hidden: float = 0.0):
    """Two normal classes, right on `right` of even ones; some labels are noise, some positives not seen."""
    gap = 2 * ndtri(right)

    def draw(random: np.random.Generator, n: int) -> Rows:
        y = random.random(n) < share
        x = gap * (y & (random.random(n) >= hidden)) + random.normal(size=n)
        return two(y ^ (random.random(n) < noise), expit(gap * (x - gap / 2) + logit(share)))

    return draw


def heavy_tails(share: float):
    def draw(random: np.random.Generator, n: int) -> Rows:
        y = random.random(n) < share
        return two(y, np.clip(expit(2 * y + random.standard_t(2, n) - 1 + logit(share)), 1e-7, 1 - 1e-7))

    return draw


def estimated(share: float):
    """A logistic model whose coefficients are off, as those of 400 training rows are."""
    true = np.array([1.2, -0.8, 0.6, 0.4, 0, 0, 0, 0]) * 1.5
    said = true + np.random.default_rng(5).normal(0, 0.25, 8)
    x = np.random.default_rng(6).normal(size=(100_000, 8)) @ true
    low, high = -15.0, 10.0
    for _ in range(50):
        low, high = (
            (middle, high) if expit(x + (middle := (low + high) / 2)).mean() < share else (low, middle)
        )

    def draw(random: np.random.Generator, n: int) -> Rows:
        x = random.normal(size=(n, 8))
        return two(random.random(n) < expit(x @ true + low), expit(x @ said + low))

    return draw


def skewed(share: float):
    """Log-normal scores, wider in the positive class; a probit model that is under-confident."""

    def draw(random: np.random.Generator, n: int) -> Rows:
        y = random.random(n) < share
        x = random.lognormal(0.9 * y, np.where(y, 0.6, 0.4))
        return two(y, ndtr(0.7 * np.log(x) - 0.6 + ndtri(share)))

    return draw


def constant(share: float):
    return lambda random, n: two(random.random(n) < share, np.full(n, share))


def zipf(classes: int, power: float = 1.0) -> Floats:
    weights = 1 / np.arange(1, classes + 1) ** power
    return weights / weights.sum()


def many(shares: Floats, gap: float, *, heavy: bool = False, heat: float = 1.0, digits: int | None = None):
    """The score of the true class is `gap` higher; the posterior, or a heated one of heavy tails."""
    classes = len(shares)

    def draw(random: np.random.Generator, n: int) -> Rows:
        y = random.choice(classes, n, p=shares)
        z = random.standard_t(3, (n, classes)) if heavy else random.normal(size=(n, classes))
        z[np.arange(n), y] += gap
        p = softmax(((1.0 if heavy else gap) * z + np.log(shares)) / heat, axis=1)
        return y, p if digits is None else p.round(digits)

    return draw


def populations() -> list[Population]:
    chosen = [
        *((f"calibrated, {s:.0%}", calibrated(s)) for s in (0.03, 0.1, 0.5)),
        *((f"over-confident, {s:.0%}", calibrated(s, heat=0.3)) for s in (0.03, 0.1, 0.5)),
        *((f"two decimals, {s:.0%}", calibrated(s, 2.0, digits=2)) for s in (0.03, 0.1, 0.5)),
        *((f"heavy tails, {s:.0%}", heavy_tails(s)) for s in (0.03, 0.1, 0.5)),
        *((f"99 % right, {s:.0%}", normal_scores(s, 0.99)) for s in (0.03, 0.1, 0.5)),
        *((f"nearly random, {s:.0%}", normal_scores(s, 0.52)) for s in (0.1, 0.5)),
        *((f"logistic, {s:.0%}", estimated(s)) for s in (0.03, 0.1, 0.5)),
        *((f"{k} classes", many(zipf(k), 2.0)) for k in (3, 7)),
        *((f"{k} classes, heavy tails", many(zipf(k), 2.2, heavy=True, heat=0.3)) for k in (3, 7)),
        *((f"{k} classes, 99 % right", many(zipf(k), 3.7)) for k in (3, 7)),
    ]
    held_out = [
        ("under-confident, 5%", calibrated(0.05, heat=2.0)),
        ("over-confident, 30%", calibrated(0.3, 3.0, heat=0.5)),
        ("three decimals, 20%", calibrated(0.2, 0.5, digits=3)),
        ("one decimal, 20%", calibrated(0.2, 2.0, digits=1)),
        ("2 % of labels wrong, 20%", normal_scores(0.2, 0.97, noise=0.02)),
        ("1 % of labels wrong, 50%", normal_scores(0.5, 0.995, noise=0.01)),
        ("5 % of positives not seen, 15%", normal_scores(0.15, 0.96, hidden=0.05)),
        ("98 % right, 5%", normal_scores(0.05, 0.98)),
        ("99.5 % right, 30%", normal_scores(0.3, 0.995)),
        ("80 % right, 8%", normal_scores(0.08, 0.8)),
        ("skewed scores, 25%", skewed(0.25)),
        ("skewed scores, 6%", skewed(0.06)),
        ("constant, 20%", constant(0.2)),
        ("4 even classes", many(np.full(4, 0.25), 1.2)),
        ("4 even classes, 98 % right", many(np.full(4, 0.25), 3.4)),
        ("5 classes, two decimals", many(zipf(5, 1.5), 2.5, digits=2)),
        ("6 uneven classes, over-confident", many(zipf(6, 2.0), 2.0, heat=0.4)),
        ("10 classes", many(zipf(10, 0.7), 2.5)),
        ("20 even classes, 95 % right", many(np.full(20, 0.05), 3.5)),
    ]
    return [
        Population(where, name, draw)
        for where, several in ((CHOSEN, chosen), (HELD_OUT, held_out))
        for name, draw in several
    ]


SIZES = {CHOSEN: (60, 200, 350, 1500), HELD_OUT: (80, 250, 1000)}
