"""How metrics of a sample are estimated: what holds for every row, weight, group and number of classes."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.metrics import METRICS


def scored(y, p, **options):
    return evaluate_predictions(y, p, baselines=False, **({"n_resamples": 200} | options))


def everything(result):
    estimates = [*result.estimates.items()]
    for one in result.per_class:
        estimates += [(f"{one.label} {name}", getattr(one, name)) for name in ("precision", "recall", "f1")]
    return estimates


def test_the_table_of_metrics_is_complete_and_in_the_order_of_reports():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    result = scored(p.argmax(axis=1), p)
    assert list(result.estimates) == [name for name, metric in METRICS.items() if not metric.asked]
    for name, metric in METRICS.items():
        assert metric.meaning and metric.low < metric.high and metric.direction in ("higher", "lower"), name
        assert (metric.function is None) == (metric.source in ("ranking", "order", "labels")), name
    many = scored(np.eye(3, dtype=int)[p.argmax(axis=1)], p, task="multilabel")
    assert list(many.estimates) == [
        name for name, metric in METRICS.items() if metric.multilabel and not metric.asked
    ]


def test_a_class_that_no_row_has_is_said_of_every_mean_over_classes():
    # Nobody is of the third class, and nobody is predicted so.
    y, p = np.array([0, 1] * 30), np.tile([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], (30, 1))
    p[:3] = [0.3, 0.6, 0.1]
    result = scored(y, p)
    for name in ("balanced_accuracy", "precision", "recall", "f1"):
        assert result[name].method.endswith(", over 2 of 3 classes"), name
    assert "classes" not in result["accuracy"].method + result["mcc"].method + result["kappa"].method
    # One row without: the same mean, over the class that there is.
    one = scored(np.zeros(60, int), np.r_[0.7, np.full(59, 0.1)], average="macro")
    assert one["balanced_accuracy"].method == "score limits of the mean over classes, over 1 of 2 classes"
    assert one["f1"].method == (
        "wider of bootstrap and Dirichlet posterior (only 1 row wrong; unreliable: a class has 0 rows)"
    )


def test_a_class_without_a_row_to_tell_could_be_anything():
    # Of three classes the third is never predicted: its precision counts as 0, and may be 1.
    y, p = np.array([0, 1, 2] * 20), np.tile([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]], (20, 1))
    found = scored(y, p)["precision"]
    assert found.value == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.high > (0.5 + 1 + 1) / 3
    assert "(unreliable: a class is predicted for 0 rows)" in found.method


rows = st.tuples(
    st.integers(2, 25),
    st.integers(2, 4),
    st.integers(0, 10_000),
    st.sampled_from(["plain", "weights", "heavy", "groups", "both"]),
    st.sampled_from(["auto", "macro", "micro", "weighted"]),
    st.sampled_from(["sharp", "soft", "zeros", "constant", "all right"]),
    st.booleans(),
)


@given(rows)
@settings(max_examples=150, deadline=None)
def test_every_interval_holds_its_value_inside_the_scale(drawn):
    n, k, seed, kind, average, model, multilabel = drawn
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    p = random.dirichlet(np.full(k, 0.1 if model == "sharp" else 1.0), n)
    if model == "zeros":
        p = np.eye(k)[random.integers(0, k, n)]
    if model == "constant":
        p[:] = 1 / k
    if model == "all right":
        p = 0.1 / k + 0.9 * np.eye(k)[y]
    options = {}
    if kind in ("weights", "both"):
        options["sample_weight"] = random.choice([0.0, 0.1, 0.3, 1.0, 7.0], n) + 1e-3 * (np.arange(n) == 0)
    if kind == "heavy":
        options["sample_weight"] = np.r_[1e6, np.ones(n - 1)]
    if kind in ("groups", "both"):
        options["groups"] = np.r_[0, 1, random.integers(0, 4, n - 2)]
    truth = np.eye(k, dtype=int)[y] if multilabel else y
    task = "multilabel" if multilabel else "classification"
    result = scored(truth, p, average=average, task=task, n_resamples=100, **options)
    for name, found in everything(result):
        top = {"loss": METRICS["loss"].high, "brier": 2.0}.get(name, 1.0)
        lowest = -1.0 if name in ("mcc", "kappa") else 0.0
        assert lowest <= found.low <= found.value <= found.high <= top, (name, found)
        assert found.high > found.low, (name, found)


@given(st.integers(0, 10_000), st.sampled_from([2.0**-30, 8.0, 1e-7, 0.3, 1e12]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_unit_of_weights_changes_nothing(seed, unit, multilabel):
    random = np.random.default_rng(seed)
    y, p, w = random.integers(0, 3, 40), random.dirichlet(np.ones(3), 40), random.lognormal(0, 1, 40)
    truth, task = (np.eye(3, dtype=int)[y], "multilabel") if multilabel else (y, "classification")
    one, other = (scored(truth, p, task=task, sample_weight=weights) for weights in (w, w * unit))
    for (name, found), (_, same) in zip(everything(one), everything(other), strict=True):
        limits = [(found.value, found.low, found.high), (same.value, same.low, same.high)]
        if np.log2(unit).is_integer():
            assert limits[0] == limits[1], name
        assert limits[1] == pytest.approx(limits[0], rel=1e-9, abs=1e-12), name
        assert found.method == same.method


def test_two_thousand_classes_take_no_time_for_what_does_not_occur():
    random = np.random.default_rng(0)
    y = random.integers(0, 2000, 1000)
    p = np.full((1000, 2000), 0.5 / 1999, np.float32)
    p[np.arange(1000), np.where(random.random(1000) < 0.7, y, random.integers(0, 2000, 1000))] = 0.5
    tracemalloc.start()
    start = time.process_time()
    result = scored(y, p, n_resamples=2000)
    took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 23 s, and a gigabyte, when every cell of 2,000 x 2,000 was looked at for every draw.
    assert took < 20 and peak < 2e9
    assert 0.6 < result.accuracy < 0.8 and result["mcc"].low < result["mcc"].value < result["mcc"].high


def test_rows_that_are_left_without_any_weight_have_no_scores():
    texts = [f"a row about the number {i} and nothing else at all" for i in (11, 25, 38, 47)]
    found = scored(
        [0, 1, 0, 1], [0.1, 0.8, 0.3, 0.9], texts=texts, train=(texts[:2], [0, 1]), sample_weight=[1, 2, 0, 0]
    )
    assert found.leaks.rows and found.leaks.without == {}


def test_a_loss_whose_wrong_rows_are_in_few_groups_is_called_unreliable():
    # 40 groups of 5 rows; in five of them all rows are wrong, and no group makes up much of the loss.
    random, groups = np.random.default_rng(6), np.repeat(np.arange(40), 5)
    y, sure = np.tile([0, 1, 0, 1, 1], 40), random.uniform(0.51, 0.9, 40)[groups]
    right = np.where(groups < 5, 1 - sure, sure)
    p = np.where(np.arange(2) == y[:, None], right[:, None], 1 - right[:, None])
    for name in ("loss", "brier"):
        method = scored(y, p, groups=groups)[name].method
        assert method.endswith("(unreliable: wrong rows in only 5 groups)"), method
        assert "unreliable" not in scored(y, p)[name].method
