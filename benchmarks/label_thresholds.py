"""Thresholds of single labels: each label's own, one for all, or each drawn towards the common one.

Run it: python benchmarks/label_thresholds.py [--repeats 200] [--labels 10]. Labels have drawn shares of the
rows (2 to 60 %), drawn separations, and logits that are scaled and moved for each label, by more or less
(`spread`, the standard deviation of how far a label's logits are off). Each way of choosing sees n rows; what
it loses is the mean over labels of the best F1 that any threshold has, minus that of the threshold it chose,
both of all rows there could be, by the formula. In points; the interval is of the paired difference.
"""

import argparse

import numpy as np
from scipy.stats import norm

from finetune_eval.evaluation.label_thresholds import choose_label_thresholds
from finetune_eval.evaluation.thresholds import choose_threshold

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--repeats", type=int, default=200)
parser.add_argument("--labels", type=int, default=10)
asked = parser.parse_args()


def logit(p):
    return np.log(p) - np.log1p(-p)


def f1(threshold, share, distance, scale, shift):
    """Return the F1 of a threshold, of all rows there could be."""
    from_score = ((logit(threshold) - shift) / scale - logit(share)) / distance
    hits = share * norm.sf(from_score - distance / 2)
    alarms = (1 - share) * norm.sf(from_score + distance / 2)
    return 2 * hits / (hits + alarms + share)


def once(random, rows, spread):
    """Return what each way of choosing loses, in points."""
    k = asked.labels
    share = np.clip(1 / (1 + np.exp(-random.normal(-2, 1.2, k))), 0.02, 0.6)
    label = share, random.uniform(0.7, 3, k), np.exp(random.normal(0, 0.25, k)), random.normal(0, spread, k)
    _, distance, scale, shift = label
    y = (random.random((rows, k)) < share).astype(int)
    score = random.normal(size=y.shape) + np.where(y, distance / 2, -distance / 2)
    p = 1 / (1 + np.exp(-(scale * (distance * score + logit(share)) + shift)))
    if not ((y.sum(axis=0) > 0) & (y.sum(axis=0) < rows)).any():
        return once(random, rows, spread)
    together = choose_label_thresholds(y, p)
    own = [
        choose_threshold(y[:, place], p[:, place]).value if 0 < y[:, place].sum() < rows else together.common
        for place in range(k)
    ]
    tried = 1 / (1 + np.exp(-np.linspace(-8, 6, 300)))[:, np.newaxis]
    best = f1(tried, *label).max(axis=0)
    chosen = np.full(k, 0.5), np.full(k, together.common), np.array(own), np.array(together.values)
    return [100 * (best - f1(each, *label)).mean() for each in chosen]


print(f"{asked.labels} labels, {asked.repeats} draws each; F1 lost, in points")
print("rows  spread    0.5  common    own  together   together minus the better of common and own")
for rows in (50, 100, 200, 500):
    for spread in (0.0, 0.5, 1.0):
        random = np.random.default_rng([rows, int(10 * spread)])
        lost = np.array([once(random, rows, spread) for _ in range(asked.repeats)])
        means = lost.mean(axis=0)
        difference = lost[:, 3] - lost[:, 1 + int(means[1:3].argmin())]
        half = 1.96 * difference.std(ddof=1) / np.sqrt(asked.repeats)
        print(
            f"{rows:>4}{spread:>8}{means[0]:>7.1f}{means[1]:>8.1f}{means[2]:>7.1f}{means[3]:>10.1f}"
            f"{difference.mean():>11.2f} [{difference.mean() - half:+.2f}, {difference.mean() + half:+.2f}]",
            flush=True,
        )
