"""Is every number of an evaluation and of a comparison the same, to the last bit, as before a change?

python benchmarks/equal_bits.py before.json   # write the numbers of 33 evaluations and 10 comparisons
python benchmarks/equal_bits.py after.json --against before.json   # and compare them with earlier ones
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from finetune_eval import compare, evaluate_predictions

Arguments = tuple[Any, Any, dict[str, Any]]


def classes(n: int, k: int, seed: int, gap: float = 1.0, shares: Any = None) -> tuple[Any, Any]:
    """Rows of a model whose score of the true class is `gap` higher than chance has it."""
    random = np.random.default_rng(seed)
    y = random.choice(k, n, p=shares)
    scores = random.normal(size=(n, k))
    scores[np.arange(n), y] += gap
    p = np.exp(gap * scores)
    return y, p / p.sum(axis=1, keepdims=True)


def labels_of_rows(n: int, k: int, seed: int) -> tuple[Any, Any]:
    """Rows with any number of labels each."""
    random = np.random.default_rng(seed)
    y = (random.random((n, k)) < 0.3).astype(np.int64)
    return y, 1 / (1 + np.exp(2 - 3 * y - random.normal(size=(n, k))))


def plain() -> Iterator[tuple[str, Arguments]]:
    for n, k, gap in ((1, 2, 1), (2, 2, 3), (12, 2, 1), (60, 3, 2), (200, 2, 1), (200, 2, 4), (350, 7, 2)):
        yield f"{n} rows, {k} classes, gap {gap}", (*classes(n, k, n, gap), {})
    yield "rare class", (*classes(350, 2, 1, 1, (0.97, 0.03)), {})
    yield "uneven classes", (*classes(500, 4, 2, 2, (0.6, 0.3, 0.08, 0.02)), {})
    yield "200 classes", (*classes(400, 200, 3, 4), {})
    yield "all right", (np.array([0, 1] * 30), np.array([0.1, 0.9] * 30), {})
    yield "all wrong", (np.array([0, 1] * 30), np.array([0.9, 0.1] * 30), {})
    yield "constant", (np.array([0, 1] * 30), np.full(60, 0.5), {})
    yield "one class", (np.zeros(40, int), np.linspace(0.05, 0.7, 40), {})
    y, p = classes(300, 2, 4, 2)
    yield "two decimals", (y, p.round(2), {})
    yield "float32", (y, p.astype(np.float32), {})
    yield "confidence", (y, p, {"confidence": 0.8, "seed": 7, "n_resamples": 300})
    yield "threshold", (y, p, {"threshold": 0.3})


def averages() -> Iterator[tuple[str, Arguments]]:
    y, p = classes(300, 3, 5, 1.5)
    for average in ("macro", "micro", "weighted"):
        yield f"{average} of three classes", (y, p, {"average": average})
    yield "macro of two classes", (*classes(150, 2, 6), {"average": "macro"})


def weighted_and_grouped() -> Iterator[tuple[str, Arguments]]:
    y, p = classes(240, 3, 8, 1.5)
    random = np.random.default_rng(9)
    weights, groups = random.lognormal(0, 1, 240), random.integers(0, 40, 240)
    few = np.arange(240) // 60
    yield "weights", (y, p, {"sample_weight": weights})
    yield "weights, some 0", (y, p, {"sample_weight": weights * (weights > 1)})
    yield "groups", (y, p, {"groups": groups})
    yield "four groups", (y, p, {"groups": few})
    yield "weights and groups", (y, p, {"groups": groups, "sample_weight": weights})
    y, p = classes(240, 2, 10, 3)
    yield "weights, few wrong", (y, p, {"sample_weight": weights})
    yield "groups, few wrong", (y, p, {"groups": groups})


def multilabel() -> Iterator[tuple[str, Arguments]]:
    y, p = labels_of_rows(150, 4, 11)
    yield "multilabel", (y, p, {"task": "multilabel"})
    for average in ("micro", "weighted"):
        yield f"multilabel, {average}", (y, p, {"task": "multilabel", "average": average})
    yield (
        "multilabel, weights and groups",
        (
            y,
            p,
            {
                "task": "multilabel",
                "groups": np.arange(150) // 4,
                "sample_weight": np.random.default_rng(12).lognormal(size=150),
            },
        ),
    )


def estimates(arguments: Arguments) -> dict[str, list[Any]]:
    y, p, options = arguments
    table = evaluate_predictions(y, p, baselines=False, **options).to_frame()
    return {
        f"{row['class']} {row['metric']}": [row["value"], row["low"], row["high"], row["method"]]
        for row in table.to_dict("records")
    }


def comparisons() -> Iterator[tuple[str, list[Arguments], dict[str, Any]]]:
    """Yield models on the same rows, and how to compare them."""

    def models(n: int, k: int, gaps: tuple[float, ...], **options: Any) -> list[Arguments]:
        y, _ = classes(n, k, n)
        found = []
        for seed, gap in enumerate(gaps):
            random = np.random.default_rng(seed)
            scores = random.normal(size=(n, k))
            scores[np.arange(n), y] += gap
            p = np.exp(scores)
            found.append((y, p / p.sum(axis=1, keepdims=True), options))
        return found

    groups, weights = np.arange(240) // 6, np.random.default_rng(1).lognormal(size=240)
    for metric in ("accuracy", "f1", "loss", "mcc"):
        yield f"{metric} of two models", models(240, 3, (1.0, 1.5)), {"metric": metric}
    yield "accuracy of four models", models(240, 3, (1.0, 1.5, 1.6, 2.0)), {}
    yield "two classes, nearly alike", models(60, 2, (1.0, 1.1)), {}
    yield "one row", models(1, 2, (1.0, -5.0)), {}
    yield "f1, groups", models(240, 2, (1.0, 1.5), groups=groups), {"metric": "f1"}
    yield "accuracy, weights", models(240, 2, (1.0, 1.5), sample_weight=weights), {}
    yield (
        "loss, weights and groups",
        models(240, 3, (1, 2), sample_weight=weights, groups=groups),
        {"metric": "loss"},
    )


def compared(models: list[Arguments], options: dict[str, Any]) -> dict[str, list[Any]]:
    result = compare(
        *(evaluate_predictions(y, p, baselines=False, **more) for y, p, more in models), **options
    )
    return {
        " less ".join(pair.names): [
            *(pair.difference.value, pair.difference.low, pair.difference.high, pair.difference.method),
            *(pair.p_value, pair.test.statistic, pair.outcome),
        ]
        for pair in result.pairs
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for design in sorted({*old, *new}):
        before, after = old.get(design, {}), new.get(design, {})
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield f"{design}: {name} was {before.get(name)}, is {after.get(name)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("to", type=Path, help="where to write the estimates, as JSON")
    parser.add_argument("--against", type=Path, help="what was written before; exits 1 where a bit differs")
    arguments = parser.parse_args()
    designs = [*plain(), *averages(), *weighted_and_grouped(), *multilabel()]
    found = {name: estimates(design) for name, design in designs}
    pairs = {name: compared(models, options) for name, models, options in comparisons()}
    found |= pairs
    arguments.to.write_text(json.dumps(found, indent=1))
    numbers = sum(map(len, found.values()))
    print(f"{len(designs)} evaluations and {len(pairs)} comparisons, {numbers:,} estimates")
    if arguments.against is not None:
        lines = list(differences(json.loads(arguments.against.read_text()), found))
        print("\n".join(lines) or "equal to the last bit")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
