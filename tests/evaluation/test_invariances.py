"""What must not matter, does not; what is certain on these rows is not certain of others."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.evaluate import evaluate_predictions

KINDS = ("two classes", "three classes", "multilabel")
EXTRAS = ("plain", "weights", "groups")


@st.composite
def scored(draw, least=2, extras=EXTRAS):
    """Labels and probabilities of any skill: (y, p, keywords) for `evaluate_predictions`."""
    kind, n = draw(st.sampled_from(KINDS)), draw(st.integers(least, 30))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = 2 if kind == "two classes" else 3
    y = random.integers(0, classes, n)
    p = random.random((n, classes)).round(draw(st.integers(1, 6))) + 0.05  # few digits: ties
    p[np.arange(n), y] += draw(st.sampled_from([-0.5, 0.0, 0.5])) * random.random(n)
    p = np.clip(p, 0.01, None)
    p /= p.sum(axis=1, keepdims=True)
    keywords = {"n_resamples": 100, "baselines": False}
    extra = draw(st.sampled_from(extras))
    if extra == "weights":
        keywords["sample_weight"] = random.uniform(0.5, 2.0, n)
    if extra == "groups":
        keywords["groups"] = np.r_[0, 1, random.integers(0, 8, n - 2)]
    if kind == "multilabel":
        return random.integers(0, 2, (n, classes)), p, keywords | {"task": "multilabel"}
    return y, p, keywords


def scores(result):
    """Every estimate there is, by name."""
    of_classes = {
        f"{name} of {score.label}": getattr(score, name)
        for score in result.per_class
        for name in ("precision", "recall", "f1")
    }
    return result.estimates | of_classes


def drawn(estimate):
    """Whether the limits come from draws of the rows (or of their table) by position."""
    return "bootstrap" in estimate.method or "Dirichlet" in estimate.method


def of_rows(keywords, order):
    """The keywords for other rows: those that hold one entry a row."""
    return {
        name: value[order] if isinstance(value, np.ndarray) else value for name, value in keywords.items()
    }


def assert_same(found, other, *, limits=lambda name: True):
    """Assert that two evaluations have the same values, and limits where they must."""
    for name, estimate in scores(found).items():
        again = scores(other)[name]
        assert again.value == pytest.approx(estimate.value, abs=1e-9), name
        if limits(name):
            assert (again.low, again.high) == pytest.approx((estimate.low, estimate.high), abs=1e-6), name


@settings(max_examples=40, deadline=None)
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(case, random):
    y, p, keywords = case
    order = random.sample(range(len(y)), len(y))
    found, other = (
        evaluate_predictions(y, p, **keywords),
        evaluate_predictions(y[order], p[order], **of_rows(keywords, order)),
    )
    np.testing.assert_allclose(found.confusion_matrix, other.confusion_matrix)
    # Where the table is drawn, and not the rows, the draws do not know their order.
    of_table = not {"task", "sample_weight", "groups"} & set(keywords)
    assert_same(found, other, limits=lambda name: of_table or not drawn(scores(found)[name]))


@settings(max_examples=40, deadline=None)
@given(scored())
def test_the_names_of_the_classes_do_not_matter(case):
    y, p, keywords = case
    names = ["zebra", "ant", "bee"][: p.shape[1]]
    found, other = (
        evaluate_predictions(y, p, labels=labels, **keywords) for labels in (range(p.shape[1]), names)
    )
    renamed = dict(zip(map(str, range(p.shape[1])), names, strict=True))
    for name, estimate in scores(found).items():
        score, _, label = name.partition(" of ")
        assert scores(other)[f"{score} of {renamed[label]}" if label else name] == estimate


@settings(max_examples=40, deadline=None)
@given(scored(least=8, extras=["groups", "weights"]))
def test_copies_within_a_group_and_weights_in_another_unit_change_nothing(case):
    y, p, keywords = case
    found = evaluate_predictions(y, p, **keywords)
    alike = True
    if "groups" in keywords:
        # No accuracy is worth more rows than there are, and copies are rows: where the rows of a group are
        # less alike than chance makes them, limits that rest on that number know of the copies.
        right = ((p >= 0.5) == y).all(axis=1) if "task" in keywords else p.argmax(axis=1) == y
        _, group = np.unique(keywords["groups"], return_inverse=True)
        of_groups = np.bincount(group, weights=right - right.mean())
        few = len(of_groups) / (len(of_groups) - 1)
        alike = few * (of_groups**2).sum() >= len(y) * right.var()
        twice = np.tile(np.arange(len(y)), 2)
        other = evaluate_predictions(y[twice], p[twice], **of_rows(keywords, twice))
    else:
        keywords = keywords | {"sample_weight": 3 * keywords["sample_weight"]}
        other = evaluate_predictions(y, p, **keywords)
    assert_same(found, other, limits=lambda name: alike or "wider of" not in scores(found)[name].method)


@settings(max_examples=40, deadline=None)
@given(scored(extras=["plain", "groups", "weights"]), st.integers(1, 5), st.booleans())
def test_rows_of_weight_0_are_as_rows_that_are_not_there(case, more, sure):
    y, p, keywords = case
    n = len(y)
    weight = keywords.get("sample_weight", np.full(n, 7.0))
    random = np.random.default_rng(more)
    extra = random.integers(0, n, more)
    wrong = 1 - y[extra] if y.ndim == 2 else (y[extra] + 1) % p.shape[1]
    certain = np.eye(p.shape[1])[y[extra]] if y.ndim == 1 else 1.0 - wrong
    keywords = keywords | {"sample_weight": weight}
    padded = of_rows(keywords, np.r_[np.arange(n), extra]) | {
        "sample_weight": np.r_[weight, np.zeros(more)]
    }  # also probabilities of 0, which have rules of their own
    found = evaluate_predictions(y, p, **keywords)
    other = evaluate_predictions(np.r_[y, wrong], np.r_[p, certain if sure else p[extra]], **padded)
    assert_same(found, other)


@settings(max_examples=40, deadline=None)
@given(scored(), st.permutations(range(3)))
def test_the_order_of_the_classes_does_not_matter(case, order):
    y, p, keywords = case
    classes = p.shape[1]
    order = np.array([k for k in order if k < classes])
    names = np.array(["zebra", "ant", "bee"])[:classes]
    y_moved = y[:, order] if y.ndim == 2 else np.argsort(order)[y]
    # Of equally probable classes the first is predicted, and which is first is what changes here.
    p = p + np.arange(classes) * 1e-7
    p = p if keywords.get("task") else p / p.sum(axis=1, keepdims=True)
    keywords = keywords | {"average": "macro"}
    found = evaluate_predictions(y, p, labels=names, **keywords)
    moved = evaluate_predictions(y_moved, p[:, order], labels=names[order], **keywords)
    # The ROC- and PR-AUC of two classes are of the second one.
    of_second = () if classes > 2 or keywords.get("task") else ("roc_auc", "pr_auc")
    for name in set(scores(found)) - set(of_second):
        estimate, again = scores(found)[name], scores(moved)[name]
        assert again.value == pytest.approx(estimate.value, abs=1e-9), name
        if not drawn(estimate):
            assert (again.low, again.high) == pytest.approx((estimate.low, estimate.high), abs=1e-6), name
    assert found.right == pytest.approx(moved.right)


@settings(max_examples=25, deadline=None)
@given(scored(least=8, extras=["plain"]))
def test_all_rows_four_times_keep_the_values_and_narrow_the_intervals(case):
    y, p, keywords = case
    keywords = keywords | {"n_resamples": 400}
    first = evaluate_predictions(y, p, **keywords)
    once = scores(first)
    often = scores(evaluate_predictions(np.tile(y.T, 4).T, np.tile(p, (4, 1)), **keywords))
    # The precision of a label that is never predicted is 0 / 0, of however many rows.
    unknown = bool(keywords.get("task")) and any(score.predicted == 0 for score in first.per_class)
    for name, estimate in once.items():
        assert often[name].value == pytest.approx(estimate.value, abs=1e-9), name
        narrower = (often[name].high - often[name].low) / (estimate.high - estimate.low)
        if estimate.method.startswith("undefined"):
            assert often[name] == estimate
        elif unknown and name in ("precision", "f1"):
            # Unknown stays unknown, and more rows can change which fallback says so: no width is promised.
            assert 0 <= often[name].low < often[name].high <= 1, name
        else:
            # half as wide where the method is the same; 400 draws move a limit by some percent
            assert narrower < 0.9, name


CORNERS = ("perfect", "all wrong", "one class", "one class, all wrong", "one row", "one row, wrong")


def corner(name, kind, certain):
    """Rows at a corner of what there can be, in one of KINDS."""
    classes = 2 if kind == "two classes" else 3
    y = np.arange(1 if "one row" in name else 24) % (1 if "one class" in name else classes)
    one_hot = np.eye(classes)[(y + ("wrong" in name)) % classes]
    p = one_hot * certain + (1 - certain) / classes
    if kind == "multilabel":
        return np.eye(classes, dtype=int)[y], p, {"task": "multilabel"}
    return y, p, {}


@pytest.mark.parametrize("certain", [1.0, 0.8])
@pytest.mark.parametrize("extra", ["plain", "weights", "groups"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CORNERS)
def test_corners_do_not_crash_and_are_not_certain(name, kind, extra, certain):
    y, p, keywords = corner(name, kind, certain)
    n = len(y)
    if extra == "weights":
        keywords["sample_weight"] = 1.0 + np.arange(n) % 3
    if extra == "groups":
        if n == 1:
            pytest.skip("one row is one group, which is refused")
        keywords["groups"] = np.arange(n) // 2
    texts = [f"{'long ' * (i % 5)}text {i}" for i in range(n)]
    train = (texts[:8] + ["other"], y.tolist()[:8] + y.tolist()[:1])
    if not keywords.get("task"):
        keywords["train"] = train
    result = evaluate_predictions(y, p, texts=texts, n_resamples=200, **keywords)
    for metric, estimate in scores(result).items():
        assert estimate.high - estimate.low > 1e-3, metric
        assert estimate.low <= estimate.value <= estimate.high, metric
    right = "wrong" not in name
    assert result.accuracy == float(right)
    # From n rows alone, of which all are right, an accuracy of 1 - 1 / (3 n) is as likely as not (0.72).
    assert (result["accuracy"].low < 1 - 1 / (3 * n)) if right else (result["accuracy"].high > 1 / (3 * n))
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"\b(nan|inf)\b", text)
    plain = " ".join(text.split())
    # An accuracy is printed beside its interval, or beside the difference and its interval.
    assert f"accuracy {float(right):.3f}, 95 % interval " in plain
    for found in re.finditer(r"accuracy [01]\.000(.{40})", plain):
        assert re.match(r" \[|, 95 % interval [01]\.| against ", found[1]), found[0]
    assert not re.search(r"100(\.0)? % (right|correct|accura)", plain)
    # In tables, no 1.00 and no 0.00 stands with limits of no width.
    assert not re.search(r"\[(\d\.\d+), \1\]", plain)
