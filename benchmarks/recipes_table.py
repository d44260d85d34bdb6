"""The tables of recipes.py: every recipe against "plain", on the same judged rows and seeds.

A difference is the mean over seeds and judged rows. Its variance is taken as the sum of two parts: of the
rows (the seeds' mean difference of each row, over rows) and of the seeds (training and validation rows,
head, dropout and order; the seeds' differences, over seeds). Each part holds a share of what seed and row
have together, so the sum is a little too large. The interval is Student's, with Satterthwaite's degrees of
freedom. Rows [:1300] of the judged ones are there to choose by, the others to confirm.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import numpy as np
import recipes
from recipes import FOLDS, data, folds, log_softmax, path
from scipy import optimize, stats
from sklearn import metrics

CHOOSE = 1300
METRICS = ("accuracy", "log-loss", "F1", "balanced accuracy", "PR-AUC")


# --- probabilities of one contestant and seed -------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What a contestant said: log-probabilities of the judged rows, and of rows that it did not train on."""

    judged: np.ndarray
    held: np.ndarray | None
    held_rows: np.ndarray | None
    passes: float  # rows through the model and back, of all its trainings


@functools.cache
def answers(name: str, contestant: str, seed: int) -> Answers | None:
    """Return a contestant's answers; None where a run is missing.

    "RECIPE:VIEW" is one run, "RECIPE@:VIEW" the mean of the folds' logits, "stack(...)" either with TF-IDF
    and frozen features, "tfidf", "frozen" and "majority" the baselines, "A+B" the mean of two's logits.
    """
    if contestant in ("tfidf", "frozen", "majority"):
        return _baseline(name, contestant, seed)
    if contestant.startswith("stack("):
        return _stack(name, contestant.removeprefix("stack(").removesuffix(")"), seed)
    if "+" in contestant:
        found = [answers(name, part, seed) for part in contestant.split("+")]
        if any(one is None for one in found):
            return None
        judged = np.mean([one.judged for one in found], axis=0)
        held = np.mean([one.held for one in found], axis=0)
        return Answers(
            log_softmax(judged), log_softmax(held), found[0].held_rows, sum(o.passes for o in found)
        )
    key, view = contestant.split(":")
    files = (
        [path(name, f"{key}{f}", seed) for f in range(FOLDS)]
        if key.endswith("@")
        else [path(name, key, seed)]
    )
    if not all(file.is_file() for file in files):
        return None
    runs = [np.load(file) for file in files]
    if any(f"judged:{view}" not in run for run in runs):
        return None
    passes = sum(json.loads(str(run["meta"]))["passes"] for run in runs)
    judged = np.mean([run[f"judged:{view}"] for run in runs], axis=0)
    held = np.concatenate([run[f"held:{view}"] for run in runs])
    rows = np.concatenate([run["held"] for run in runs])
    return Answers(log_softmax(judged), log_softmax(held), rows, passes)


@functools.cache
def _drawn(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data(name).drawn(seed)


def _simple(name: str, kind: str, fit_on: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of a baseline."""
    from finetune_eval.evaluation.baselines import majority_probabilities, tfidf_probabilities

    rows = data(name)
    x, y, classes = rows.x, rows.y, len(rows.labels)
    if kind == "majority":
        p = majority_probabilities(y[fit_on], len(at), classes)
    elif kind == "tfidf":
        p = tfidf_probabilities(list(x[fit_on]), y[fit_on], list(x[at]), classes=classes)
    else:
        features = recipes.frozen_features(name, (6,) if kind == "frozen" else (3, 4, 5, 6))
        kernel, bias = recipes.linear_head(features[fit_on].astype(np.float64), y[fit_on], classes)
        return log_softmax(features[at] @ kernel + bias)
    return np.log(np.maximum(p, 1e-6))


def _baseline(name: str, kind: str, seed: int) -> Answers:
    train, held, _ = _drawn(name, seed)
    both = _simple(name, kind, train, np.r_[held, data(name).judged])
    return Answers(both[len(held) :], both[: len(held)], held, 0)


def _stack(name: str, inner: str, seed: int) -> Answers | None:
    """Weigh log-probabilities by non-negative weights, fitted on rows that none of the parts trained on."""
    found = answers(name, inner, seed)
    if found is None or found.held_rows is None:
        return None
    rows = data(name)
    train, held, _ = _drawn(name, seed)
    parts_held, parts_judged = [found.held], [found.judged]
    for kind in ("tfidf", "frozen"):
        if "@" not in inner:
            both = _simple(name, kind, train, np.r_[found.held_rows, rows.judged])
            parts_held.append(both[: len(found.held_rows)])
            parts_judged.append(both[len(found.held_rows) :])
            continue
        all_rows = np.r_[train, held]
        of = folds(rows.y[all_rows], seed)
        out, judged = [], []
        for fold in range(FOLDS):
            places = all_rows[of == fold]
            both = _simple(name, kind, all_rows[of != fold], np.r_[places, rows.judged])
            out.append(both[: len(places)])
            judged.append(both[len(places) :])
        parts_held.append(np.concatenate(out))
        parts_judged.append(np.mean(judged, axis=0))
    y = rows.y[found.held_rows]

    def loss(weights: np.ndarray) -> float:
        log_p = log_softmax(np.tensordot(weights, parts_held, axes=1))
        return float(-log_p[np.arange(len(y)), y].mean())

    start = np.array([1.0, 0.1, 0.1])
    weights = optimize.minimize(loss, start, bounds=[(0, None)] * 3, method="L-BFGS-B").x
    return Answers(
        log_softmax(np.tensordot(weights, parts_judged, axes=1)),
        log_softmax(np.tensordot(weights, parts_held, axes=1)), found.held_rows, found.passes,
    )  # fmt: skip


def tempered(name: str, found: Answers) -> np.ndarray:
    """Return the judged rows' log-probabilities after a temperature fitted on the held rows."""
    if found.held is None or found.held_rows is None:
        return found.judged
    y = data(name).y[found.held_rows]

    def loss(log_t: float) -> float:
        return float(-log_softmax(found.held * np.exp(-log_t))[np.arange(len(y)), y].mean())

    best = optimize.minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x
    return log_softmax(found.judged * np.exp(-best))


# --- differences ------------------------------------------------------------------------------------------


def _metric(metric: str, log_p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    answer, classes = log_p.argmax(axis=1), log_p.shape[1]
    if metric == "accuracy":
        return float(np.average(answer == y, weights=weight))
    if metric == "log-loss":
        return float(np.average(-log_p[np.arange(len(y)), y], weights=weight))
    if metric == "F1":
        average = "binary" if classes == 2 else "macro"
        return float(metrics.f1_score(y, answer, sample_weight=weight, average=average))
    if metric == "balanced accuracy":
        return float(metrics.recall_score(y, answer, sample_weight=weight, average="macro"))
    if classes > 2:
        return float("nan")
    return float(metrics.average_precision_score(y, log_p[:, 1], sample_weight=weight))


def difference(
    metric: str, ours: np.ndarray, plain: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[float, float, float]:
    """Return the difference of two (seeds, rows, classes), and its 95 % interval over rows and seeds."""
    by_seed = np.array([
        _metric(metric, a, y, weight) - _metric(metric, b, y, weight)
        for a, b in zip(ours, plain, strict=True)
    ])  # fmt: skip
    seeds, rows = len(by_seed), len(y)
    if metric in ("accuracy", "log-loss"):
        at = np.arange(rows)
        if metric == "accuracy":
            values = (ours.argmax(axis=2) == y).astype(float) - (plain.argmax(axis=2) == y)
        else:
            values = plain[:, at, y] - ours[:, at, y]
        of_row = values.mean(axis=0)
        share = weight / weight.sum()
        of_rows = float((share**2 * (of_row - share @ of_row) ** 2).sum()) * rows / (rows - 1)
    else:
        random = np.random.default_rng(0)
        drawn = []
        for _ in range(200):
            r = random.integers(0, rows, rows)
            drawn.append(np.mean([
                _metric(metric, a[r], y[r], weight[r]) - _metric(metric, b[r], y[r], weight[r])
                for a, b in zip(ours, plain, strict=True)
            ]))  # fmt: skip
        of_rows = float(np.var(drawn, ddof=1))
    of_seeds = float(by_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    total = of_rows + of_seeds
    if total == 0:
        return float(by_seed.mean()), 0.0, 0.0
    freedom = total**2 / (of_seeds**2 / max(seeds - 1, 1) + of_rows**2 / (rows - 1) + 1e-300)
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(total))
    mean = float(by_seed.mean())
    return mean, mean - half, mean + half


def contestants(name: str) -> list[str]:
    """Return what was run, and what can be made of it."""
    keys = sorted({file.stem.rsplit("-s", 1)[0] for file in (recipes.OUT / name).glob("*.npz")})
    keys = [key for key in keys if not key.endswith(".tmp")]
    found = []
    for key in sorted({key.split("@")[0] + "@" if "@" in key else key for key in keys}):
        first = key + "0" if key.endswith("@") else key
        file = next(iter(sorted((recipes.OUT / name).glob(f"{first}-s*.npz"))), None)
        if file is not None:
            found += [f"{key}:{view}" for view in recipes.arrays_of(dict.fromkeys(np.load(file).files))]
    stacked = [f"stack({one})" for one in found]
    return ["majority", "tfidf", "frozen", *found, *stacked]


def table(
    name: str, asked: list[str] | None = None, *, against: str = "plain:best", full: bool = False
) -> str:
    """Return a Markdown table of a data set's contestants, the best first."""
    rows = data(name)
    y = rows.y[rows.judged]
    weight = np.ones(len(y)) if rows.weight is None else rows.weight
    parts = {"choose": np.arange(len(y)) < CHOOSE, "confirm": np.arange(len(y)) >= CHOOSE}
    seeds_of = {
        c: [s for s in range(20) if answers(name, against, s) is not None and answers(name, c, s) is not None]
        for c in (asked or contestants(name))
    }
    lines = []
    for contestant, seeds in seeds_of.items():
        if not seeds:
            continue
        found = [answers(name, contestant, seed) for seed in seeds]
        base = [answers(name, against, seed) for seed in seeds]
        ours, plain = np.array([f.judged for f in found]), np.array([b.judged for b in base])
        ours_t = np.array([tempered(name, f) for f in found])
        plain_t = np.array([tempered(name, b) for b in base])
        passes = np.mean([b.passes for b in base])  # a baseline has none
        cost = np.mean([f.passes for f in found]) / passes if passes else float("nan")
        cells = [contestant, f"{len(seeds)}", f"{cost:.2g}"]
        mean = np.mean([_metric("accuracy", a, y, weight) for a in ours])
        cells.append(f"{mean:.4f}")
        whole = difference("accuracy", ours, plain, y, weight)
        cells.append(_points(*whole))
        for keep in parts.values():
            cells.append(
                _points(*difference("accuracy", ours[:, keep], plain[:, keep], y[keep], weight[keep]))
            )
        cells.append(f"{np.mean([_metric('log-loss', a, y, weight) for a in ours]):.3f}")
        cells.append(f"{np.mean([_metric('log-loss', a, y, weight) for a in ours_t]):.3f}")
        d = difference("log-loss", ours_t, plain_t, y, weight)
        cells.append(f"{d[0]:+.3f} [{d[1]:+.3f}, {d[2]:+.3f}]")
        for metric in METRICS[2:] if full else ("F1",):
            value = np.mean([_metric(metric, a, y, weight) for a in ours])
            cells.append(f"{value:.3f}")
            if full:
                cells[-1] += " (" + _points(*difference(metric, ours, plain, y, weight)) + ")"
        lines.append((whole[0], "| " + " | ".join(cells) + " |"))
    lines.sort(key=lambda line: -line[0])
    heads = ["recipe:weights", "seeds", "passes x", "accuracy", f"points over {against}, 95 %", "choose half"]
    heads += ["confirm half", "log-loss", "log-loss T", "difference T", *(METRICS[2:] if full else ("F1",))]
    out = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(line for _, line in lines)]
    return "\n".join(out)


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def print_tables(arguments: list[str], against: str) -> None:
    """Print the table of each data set, or of the contestants named after it with commas."""
    for argument in arguments:
        name, _, asked = argument.partition("=")
        rows = data(name)
        print(f"\n## {name}: {rows.train:,} rows to train on, {rows.validation} validation rows, "
              f"{len(rows.judged):,} judged\n")  # fmt: skip
        print(
            table(
                name, asked.split(",") if asked else None, against=against, full=name.endswith("imbalanced")
            )
        )
