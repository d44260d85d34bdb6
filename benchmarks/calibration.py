"""How often tests find that probabilities are miscalibrated, and how often they are wrong to say so.

    python benchmarks/calibration.py     the table of docs/statistics.md: about five minutes of one core

The tests: the calibration error (15 bins) against its simulated 95th percentile; Spiegelhalter's z and the
likelihood ratio of Cox's intercept and slope with their textbook limits (normal; chi-squared with two degrees
of freedom); and `Calibration.deviation`, which simulates error, shift and spread together. Designs marked
"held out" were run after the choice and only judge.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit
from scipy.stats import chi2, norm

from finetune_eval.evaluation.calibration import calibrate

LEVEL = 0.05
# What the true probabilities are like; each takes a generator and a size.
SHAPES = {
    "even": lambda random, n: random.uniform(0.001, 0.999, n),
    "3 % positive": lambda random, n: expit(random.normal(-4.2, 1.3, n)),
    "tied at tenths": lambda random, n: np.clip(random.uniform(0, 1, n).round(1), 0.05, 0.95),
    "sharp": lambda random, n: expit(random.normal(0, 4, n)),
    "bell": lambda random, n: random.beta(4, 6, n),
    "10 % positive": lambda random, n: random.beta(0.4, 3.6, n).clip(1e-6, 1 - 1e-6),
    "two values": lambda random, n: random.choice([0.2, 0.7], n),
}


def wave(p: np.ndarray) -> np.ndarray:
    return np.clip(p + 0.12 * np.sin(3 * np.pi * p), 0.01, 0.99)


def ends(p: np.ndarray) -> np.ndarray:
    return np.where(abs(p - 0.5) > 0.46, p.round(), p)


# What the model says where the truth is p: name, function, shape, rows, whether it took part in the choice.
DESIGNS = [
    ("perfect", lambda p: p, "even", 200, "chosen"),
    ("perfect", lambda p: p, "3 % positive", 200, "chosen"),
    ("perfect", lambda p: p, "3 % positive", 1000, "chosen"),
    ("perfect", lambda p: p, "tied at tenths", 200, "chosen"),
    ("T = 1.5", lambda p: expit(logit(p) / 1.5), "even", 200, "chosen"),
    ("T = 0.67", lambda p: expit(logit(p) / 0.67), "even", 200, "chosen"),
    ("T = 1.25", lambda p: expit(logit(p) / 1.25), "even", 1000, "chosen"),
    ("log-odds 0.4 too high", lambda p: expit(logit(p) + 0.4), "even", 200, "chosen"),
    ("log-odds 0.5 too high", lambda p: expit(logit(p) + 0.5), "3 % positive", 1000, "chosen"),
    ("a wave", wave, "even", 200, "chosen"),
    ("perfect", lambda p: p, "sharp", 60, "held out"),
    ("perfect", lambda p: p, "10 % positive", 150, "held out"),
    ("perfect", lambda p: p, "two values", 100, "held out"),
    ("perfect", lambda p: p, "bell", 500, "held out"),
    ("T = 1.5", lambda p: expit(logit(p) / 1.5), "sharp", 200, "held out"),
    ("T = 1.5", lambda p: expit(logit(p) / 1.5), "10 % positive", 500, "held out"),
    ("T = 0.67", lambda p: expit(logit(p) / 0.67), "tied at tenths", 300, "held out"),
    ("T = 0.67", lambda p: expit(logit(p) / 0.67), "bell", 500, "held out"),
    ("log-odds 0.4 too low", lambda p: expit(logit(p) - 0.4), "bell", 300, "held out"),
    ("0 below 0.04, 1 above 0.96", ends, "even", 300, "held out"),
    ("a wave", wave, "even", 500, "held out"),
]  # fmt: skip


def likelihood_ratio(y: np.ndarray, q: np.ndarray) -> float:
    """Return the p-value of Cox's intercept and slope."""
    z = logit(np.clip(q, 1e-9, 1 - 1e-9))
    sign = 2 * y - 1

    def loss(at: np.ndarray) -> float:
        return -float(log_expit(sign * (at[0] + at[1] * z)).sum())

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-5}).fun
    return float(chi2.sf(2 * (loss(np.array([0.0, 1.0])) - best), 2))


def spiegelhalter(y: np.ndarray, q: np.ndarray) -> float:
    variance = ((1 - 2 * q) ** 2 * q * (1 - q)).sum()
    return float(2 * norm.sf(abs(((y - q) * (1 - 2 * q)).sum()) / np.sqrt(variance))) if variance else 1.0


def main(sets: int, seed: int) -> None:
    print(f"Share of {sets:,} simulated sets that are called miscalibrated, at a level of {LEVEL:.0%}.\n")
    tests = "error of 15 bins | Spiegelhalter | Cox | **ours** | direction right"
    print(f"| Probabilities | True ones | Rows |  | {tests} |\n|---|---|---|---|---|---|---|---|---|")
    for name, model, shape, n, part in DESIGNS:
        random = np.random.default_rng(seed)
        found = np.zeros(5)
        for i in range(sets):
            p = SHAPES[shape](random, n)
            y, q = (random.random(n) < p).astype(np.int64), model(p)
            made = calibrate(y, q, seed=i, n_resamples=500)
            ours = made.deviation.p_value <= LEVEL
            # Shift and spread that were found, against those of the log-odds that were planted.
            far = logit(np.clip(q, 1e-6, 1 - 1e-6)).std() - logit(p).std()
            right = np.sign(round(q.mean() - p.mean(), 2)), np.sign(round(far, 2))
            named = made.deviation.shift, made.deviation.spread
            wrong = any(a * b < 0 for a, b in zip(named, right, strict=True))
            found += [
                made.ece > made.null_high, spiegelhalter(y, q) <= LEVEL, likelihood_ratio(y, q) <= LEVEL,
                ours, ours and not wrong,
            ]  # fmt: skip
        shares = [f"{share:.3f}" for share in found[:4] / sets]
        direction = "" if name == "perfect" else f"{found[4] / max(found[3], 1):.2f}"
        print(f"| {name} | {shape} | {n:,} | {part} | {' | '.join([*shares, direction])} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.sets, options.seed)
