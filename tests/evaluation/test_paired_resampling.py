"""Resampling of two models on the same rows, against drawing the rows themselves."""

import numpy as np
import pytest

from finetune_eval.evaluation._paired_resampling import PairedCounts, metric_of_counts, paired_bootstrap
from finetune_eval.evaluation.metrics import confusion_matrix, from_confusion


def test_paired_bootstrap_equals_drawing_rows():
    random = np.random.default_rng(1)
    y = random.integers(0, 3, 300)
    a, b = (np.where(random.random(300) < share, y, random.integers(0, 3, 300)) for share in (0.8, 0.7))
    for metric in ("f1", "mcc", "accuracy"):
        found = paired_bootstrap(y, a, b, metric=metric, n_resamples=5000)
        draws = []
        for _ in range(1500):
            row = random.integers(0, 300, 300)
            of_a, of_b = (confusion_matrix(y[row], p[row], 3) for p in (a, b))
            draws.append(float(from_confusion(metric, of_a, "macro") - from_confusion(metric, of_b, "macro")))
        low, high = np.quantile(draws, [0.025, 0.975])
        # Both quantiles carry Monte-Carlo noise of some 3 % of the width.
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
        whole = [confusion_matrix(y, p, 3) for p in (a, b)]
        assert found.value == pytest.approx(
            float(from_confusion(metric, whole[0], "macro") - from_confusion(metric, whole[1], "macro"))
        )


@pytest.mark.parametrize("metric", ["f1", "mcc", "kappa", "balanced_accuracy", "accuracy"])
def test_a_paired_bootstrap_of_equal_predictions_has_width(metric):
    y = np.arange(60) % 3
    found = paired_bootstrap(y, y, y, metric=metric)
    assert found.value == 0 and found.low < -1e-4 and found.high > 1e-4
    assert found.method == "wider of paired bootstrap and Dirichlet posterior (resamples do not vary)"


def test_few_hits_of_a_class_are_marked_and_made_up_for():
    # 9 rows of class 1, of which the second model has `hits` right: resamples hold no others that it finds.
    y = np.repeat([0, 1], [291, 9])
    score, bound = metric_of_counts("f1", "binary", 2)
    for hits, marked in ((2, True), (5, False)):
        b = np.where(np.arange(300) >= 291 + hits, 0, y)
        drawn = PairedCounts.of_rows(y, y, b, 2).bootstrap(score, bound, 2000, 0)
        found = drawn.interval(0.95)
        normal = drawn.value - 1.959964 * drawn.error, drawn.value + 1.959964 * drawn.error
        limits = drawn.posterior(0.95) if marked else normal
        assert found.low == pytest.approx(min(normal[0], limits[0]))
        assert found.high == pytest.approx(min(1.0, max(normal[1], limits[1])))
        assert found.method.endswith("(unreliable: a model has 2 rows of a class right)") == marked


@pytest.mark.parametrize("metric", ["f1", "mcc", "accuracy"])
def test_randomisation_is_swapping_rows(metric):
    random = np.random.default_rng(3)
    y = random.integers(0, 2, 12)
    a, b = (np.where(random.random(12) < share, y, 1 - y) for share in (0.9, 0.5))
    score, _ = metric_of_counts(metric, "binary", 2)
    found = PairedCounts.of_rows(y, a, b, 2).randomise(score, 20_000, 0)

    def of(first, second):
        tables = (confusion_matrix(y, p, 2) for p in (first, second))
        return float(np.diff([float(from_confusion(metric, table, "binary")) for table in tables])[0])

    seen, all_swaps = abs(of(a, b)), []
    for swap in range(2**12):
        bits = (swap >> np.arange(12)) % 2 == 1
        all_swaps.append(abs(of(np.where(bits, a, b), np.where(bits, b, a))))
    swaps = np.array(all_swaps)
    expected = np.mean(swaps > seen + 1e-9) + np.mean(np.abs(swaps - seen) <= 1e-9) / 2
    assert found.p_value == pytest.approx(expected, abs=0.012)  # 20,000 swaps: .0035 at most
