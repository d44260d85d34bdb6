"""Statistics of parts of the rows: they add up to the evaluation of all rows, whatever the parts."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval import evaluate_predictions
from finetune_eval.evaluation._exact import UNIT, central_moments, exact_totals, number
from finetune_eval.evaluation._histograms import Histogram, area_of
from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.slices import find_slices

HAM = ("ham", "spam")
MADE_OF_BINS = ("roc_auc", "pr_auc")


def table(labels, n, seed=0, sharp=1.5, dtype=np.float64):
    """Rows whose true class is `sharp` more log-odds probable than it would be by chance."""
    random = np.random.default_rng(seed)
    y = random.integers(0, len(labels), n)
    odds = random.normal(size=(n, len(labels))) * 1.5
    odds[np.arange(n), y] += sharp
    p = np.exp(odds - odds.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype(dtype)
    columns = {f"p_{label}": p[:, k] for k, label in enumerate(labels)}
    return pd.DataFrame({"label": np.array(labels)[y], **columns, "country": random.choice(["DE", "FR"], n)})


def reference(frame, labels, **options):
    p = frame[[f"p_{label}" for label in labels]].to_numpy()
    return evaluate_predictions(frame["label"], p, labels=labels, baselines=False, **options)


def bracket(estimate):
    """The limits between which `.method` says the exact area lies."""
    words = estimate.method.rpartition("of rows between ")[2].split(" and ")
    return (float(words[0]), float(words[1])) if len(words) == 2 else (estimate.value, estimate.value)


# ------------------------------------------------------------------------------------------
# Exact sums
# ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=50), st.randoms())
def test_totals_are_exact_and_do_not_depend_on_the_order(values, random):
    total = exact_totals(np.array([values]))[0]
    kept = [value for value in values if value == 0 or value > 1e-250]
    if kept == values:
        assert Fraction(total, 2**UNIT) == sum(map(Fraction, values))
        assert number(total) == math.fsum(values)
    shuffled = random.sample(values, len(values))
    parts = exact_totals(np.array([shuffled[:7]])) + exact_totals(np.array([[*shuffled[7:], 0.0]]))
    assert sum(parts) == total


def test_central_moments_are_those_of_the_definition():
    values = np.array([0.0, 0.25, 0.5, 3.0])  # mean 0.9375
    totals = exact_totals(np.stack([values, values**2, values**3, values**4]))
    expected = [sum((v - 0.9375) ** k for v in values) for k in (2, 3, 4)]
    assert central_moments(tuple(totals), 4, 0.0, 3.0) == pytest.approx(expected, rel=1e-14)


def test_nearly_equal_numbers_get_the_largest_moments_that_their_range_allows():
    """Squares of 0.7 + 1e-13 k are rounded by more than they differ."""
    values = 0.7 + 1e-13 * np.arange(4)
    totals = exact_totals(np.stack([values, values**2, values**3, values**4]))
    second, _, fourth = central_moments(tuple(totals), 4, values[0], values[3])
    width = values[3] - values[0]
    assert second == pytest.approx(4 * width**2 / 4)
    assert fourth == pytest.approx(width**2 * second)
    assert (central_moments(tuple(totals), 4, 0.7, 0.7) == 0).all()


# ------------------------------------------------------------------------------------------
# Any split, any order
# ------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4), random=st.randoms(), classes=st.sampled_from([2, 3]))
def test_any_split_and_order_gives_the_same_statistics_to_the_bit(cuts, random, classes):
    labels = ("a", "b", "c")[:classes]
    frame = table(labels, 60)
    frame.loc[3:5, "p_a"], frame.loc[3:5, "p_b"] = 0.0, 1.0  # zeros, and rows that differ in their place only
    frame.loc[3:5, [f"p_{label}" for label in labels[2:]]] = 0.0
    empty = Statistics(labels, metadata=["country"])
    whole = empty.of(frame)
    edges = sorted({0, 60, *cuts})
    parts = [
        empty.of(frame[a:b].sample(frac=1, random_state=0)) for a, b in zip(edges, edges[1:], strict=False)
    ]
    random.shuffle(parts)
    total = empty
    for part in parts:
        total = total + part
    assert total.to_bytes() == whole.to_bytes()


def test_bytes_are_read_back_to_the_bit_and_damage_is_seen():
    made = Statistics(HAM, metadata=["country"]).of(table(HAM, 50))
    data = made.to_bytes()
    again = made.empty()
    again.add_bytes(data)
    assert again.to_bytes() == data
    with pytest.raises(ValueError, match="^these statistics are damaged: they do not fit their checksum$"):
        again.add_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_statistics_of_other_settings_are_not_added():
    with pytest.raises(
        ValueError, match="^`other` has other settings, .*'threshold': 0.3.* Statistics can be added"
    ):
        Statistics(HAM) + Statistics(HAM, threshold=0.3)


def test_a_number_that_means_another_class_in_another_part_is_refused():
    """Of the classes "2", "1" and "0" the number 1 is the same either way; 0 alone is a place or a name."""
    empty = Statistics(["1", "3"])
    p = {"p_1": [0.4], "p_3": [0.6]}
    places, names = empty.of({"label": [0], **p}), empty.of({"label": [3], **p})
    with pytest.raises(
        ValueError, match=r"^The labels of the parts do not fit together: `label` holds numbers "
    ):
        places + names


# ------------------------------------------------------------------------------------------
# Equal to `evaluate_predictions`
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "n", "sharp", "dtype"),
    [
        (HAM, 3000, 1.5, np.float64),
        (HAM, 3000, 8.0, np.float32),
        (("a", "b", "c"), 900, 1.5, np.float64),
        (HAM, 12, 1.5, np.float64),
    ],
)
def test_estimates_are_those_of_evaluate_predictions(labels, n, sharp, dtype):
    frame = table(labels, n, sharp=sharp, dtype=dtype)
    asked = ["f2", "linear_kappa", *(["top_2_accuracy"] if len(labels) > 2 else ["npv"])]
    expected = reference(frame, labels, metrics=asked, n_resamples=200)
    found = Statistics(labels).of(frame).finish(metrics=asked, n_resamples=200)
    assert list(found.estimates) == list(expected.estimates)
    for name, estimate in expected.estimates.items():
        made = found[name]
        if name in ("loss", "brier"):
            assert (made.value, made.low, made.high) == pytest.approx(
                (estimate.value, estimate.low, estimate.high), rel=1e-12, abs=1e-15
            )
            assert made.method == estimate.method
        elif name not in MADE_OF_BINS:
            assert made == estimate
    assert found.per_class == expected.per_class
    assert (found.confusion_matrix == expected.confusion_matrix).all()
    assert (found.right, found.majority) == (expected.right, expected.majority)
    assert set(expected.warnings) < set(found.warnings)


@pytest.mark.parametrize("labels", [HAM, ("a", "b", "c")])
def test_areas_lie_in_their_brackets_and_limits_are_never_narrower(labels):
    frame = table(labels, 20_000)
    expected, found = reference(frame, labels, n_resamples=100), Statistics(labels).of(frame).finish()
    for name in MADE_OF_BINS:
        low, high = bracket(found[name])
        assert low - 1e-7 <= expected[name].value <= high + 1e-7
        assert high - low < 1e-4
        assert found[name].low <= expected[name].low + 1e-9 and found[name].high >= expected[name].high - 1e-9
        assert found[name].value == pytest.approx(expected[name].value, abs=2e-5)
        if len(labels) == 2:
            assert found[name].low == pytest.approx(expected[name].low, abs=5e-5)
        else:  # the classes' errors are not independent, and how far is not counted
            assert "as if all classes erred on the same rows (conservative)" in found[name].method


def test_calibration_is_that_of_the_rows():
    frame = table(HAM, 30_000, sharp=0.7)
    expected, found = (
        reference(frame, HAM, n_resamples=100).calibration,
        Statistics(HAM).of(frame).finish().calibration,
    )
    for name in ("ece", "debiased", "null", "null_high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-4)
    assert found.deviation == expected.deviation
    assert found.brier.brier == pytest.approx(expected.brier.brier, rel=1e-12)
    # Rows of one of the 65,536 bins stay together, which moves a few of them at either edge.
    assert [one.n for one in found.bins] == pytest.approx([one.n for one in expected.bins], abs=8)


def test_a_constant_probability_loses_nothing_in_its_bin():
    """All pairs are tied: the area is one half, and that is known exactly."""
    frame = pd.DataFrame({"label": ["ham", "spam"] * 20, "probability": [0.3] * 40})
    found = Statistics(HAM).of(frame).finish()
    assert found["roc_auc"].value == 0.5
    assert found["roc_auc"].method.endswith("counted in 65,536 bins of log-odds, which lose nothing here")


def test_the_bracket_of_one_bin_is_that_of_both_orders():
    """Two rows of either class in one bin, and one negative above: all pairs below it are open."""
    histogram = Histogram(1024)
    histogram.count(np.array([0.5, 0.5 + 1e-6, 0.5 + 2e-6, 0.5 + 3e-6, 0.9]), np.array([1, 0, 1, 0, 0]) > 0)
    low, high = bracket(area_of("roc_auc", [histogram], confidence=0.95))
    assert (low, high) == (0.0, pytest.approx(4 / 6))
    # Precisions behind the negative: at best 1/2 and 2/3, at worst 1/4 and 2/5.
    low, high = bracket(area_of("pr_auc", [histogram], confidence=0.95))
    assert (low, high) == (
        pytest.approx((1 / 4 + 2 / 5) / 2, abs=1e-6),
        pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-6),
    )


def test_a_probability_of_0_counts_as_in_evaluate_predictions():
    frame = pd.DataFrame(
        {"label": ["ham"] * 30 + ["spam"] * 30, "p_ham": [0.9] * 29 + [0.0] + [0.2] * 29 + [0.0]}
    ).assign(p_spam=lambda rows: 1 - rows["p_ham"])
    expected, found = (
        reference(frame, HAM, n_resamples=100),
        Statistics(HAM).of(frame).finish(n_resamples=100),
    )
    assert found["loss"].method == expected["loss"].method
    assert "2 rows give a class 0" in found["loss"].method
    made, right = found["loss"], expected["loss"]
    assert (made.value, made.low, made.high) == pytest.approx((right.value, right.low, right.high), rel=1e-12)
    assert set(expected.warnings) < set(found.warnings)


def test_rounded_probabilities_are_mended_and_said_as_in_evaluate_predictions():
    frame = pd.DataFrame({"label": ["ham", "spam"] * 5, "p_ham": [0.6, 0.3] * 5, "p_spam": [0.41, 0.68] * 5})
    expected, found = (
        reference(frame, HAM, n_resamples=100),
        Statistics(HAM).of(frame).finish(n_resamples=100),
    )
    assert found.loss == pytest.approx(expected.loss, rel=1e-14)
    assert expected.warnings[-1] in found.warnings and "to 1.010" in expected.warnings[-1]


def test_weak_parts_are_those_of_find_slices():
    frame = table(HAM, 2000)
    frame["country"] = np.where(frame["label"] == "spam", "DE", "FR")
    frame.loc[frame.index % 3 > 0, "country"] = None
    expected = reference(frame, HAM, metadata=frame[["country"]], n_resamples=100)
    found = Statistics(HAM, metadata=["country"]).of(frame).finish(n_resamples=100)
    assert found.slices == expected.slices and found.slice_search == expected.slice_search


def test_a_part_of_millions_of_rows_is_tested_in_little_memory():
    """Fisher's test of 3 million rows of 10 million, one standard deviation low: p is about 0.1587."""
    from finetune_eval.evaluation.slices import slices_of_counts

    share, part, rest = 0.9, 3_000_000, 7_000_000
    deviation = math.sqrt(share * (1 - share) * (1 / part + 1 / rest))
    right = round(part * (share - deviation * rest / (part + rest)))
    counts = {"country": {"DE": (part, right), "FR": (rest, round(share * (part + rest)) - right)}}
    slices, _ = slices_of_counts(counts, [], part + rest, round(share * (part + rest)), confidence=0.95)
    assert slices[0].value == "DE" and slices[0].p_value == pytest.approx(0.1587, abs=2e-3)
    assert find_slices([True] * 3, metadata={"a": ["x", "y", "y"]})[0].p_value == 0.5


def test_the_worst_rows_are_those_of_all_parts():
    frame = table(HAM, 300).assign(id=[f"r{i}" for i in range(300)])
    empty = Statistics(HAM)
    total = empty.of(frame[100:], source="b", start=0) + empty.of(frame[:100], source="a", start=7)
    expected, found = reference(frame, HAM, ids=frame["id"], n_resamples=100), total.finish(n_resamples=100)
    assert found.worst_rows["id"].tolist() == expected.worst_rows["id"].tolist()
    first = found.worst_rows.iloc[0]
    place = int(first["id"][1:])
    assert (first["file"], first["row"]) == (("b", place - 100) if place >= 100 else ("a", place + 7))


# ------------------------------------------------------------------------------------------
# What it takes, and what it refuses
# ------------------------------------------------------------------------------------------


def test_tables_of_every_kind_are_read_alike():
    frame = table(HAM, 40)
    arrow = pa.Table.from_pandas(frame)
    coded = arrow.set_column(0, "label", arrow.column("label").dictionary_encode())
    words = frame.assign(p_ham=frame["p_ham"].map(repr), p_spam=frame["p_spam"].map(repr))
    alone = frame[["label", "p_spam"]].rename(columns={"p_spam": "score"})
    numbers = frame.assign(label=(frame["label"] == "spam").astype(int))
    counts = [
        Statistics(HAM).of(one).confusion_matrix.tolist()
        for one in (frame, arrow, arrow.to_batches()[0], coded, words, alone, numbers, frame.to_dict("list"))
    ]
    assert all(one == counts[0] for one in counts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"label": "eggs"},
            "'f': `label` has an unknown label 'eggs' in row 107; the labels are 'ham', 'spam'.",
        ),
        ({"label": None}, "'f': `label` has no label in row 107; drop the row or give it a label."),
        (
            {"p_ham": 0.9, "p_spam": 0.9},
            "'f': `probabilities` must sum to 1 in each row; row 107, [0.9, 0.9], sums to 1.8. Divide each "
            "row by its sum where a class or a digit was left out.",
        ),
        ({"p_ham": np.nan}, "'f': `probabilities` has NaN in row 107, column 0; drop the row or fill it."),
        (
            {"p_ham": 2.0},
            "'f': `probabilities` must lie in [0, 1]; row 107 is [2, 0.",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_file(change, sentence):
    frame = table(HAM, 20)
    for column, value in change.items():
        frame.loc[7, column] = value
    with pytest.raises(ValueError) as error:
        Statistics(HAM).of(frame, source="f", start=100)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda rows: rows.assign(weight=1),
            "The table has a column 'weight'. Rows with weights cannot be counted",
        ),
        (
            lambda rows: rows.assign(group=1),
            "The table has a column 'group'. Rows in groups cannot be counted",
        ),
        (lambda rows: rows.drop(columns="label"), "The table needs a column 'label' (or 'y_true', 'target')"),
        (
            lambda rows: rows.drop(columns="p_ham"),
            "The table has no 'p_ham' for the labels 'ham', 'spam'; its ",
        ),
        (lambda rows: rows[["label"]], "The table needs a column p_<class> for each class, or a column "),
        (
            lambda rows: rows[["label"]].assign(score=0.7, predicted="ham"),
            "The table: 'score' may be the probability of 'spam' or of the class in 'predicted'; ",
        ),
    ],
)
def test_wrong_columns_are_refused(change, sentence):
    with pytest.raises(ValueError) as error:
        Statistics(HAM).of(change(table(HAM, 5)))
    assert str(error.value).startswith(sentence)


def test_a_table_with_a_wrong_row_leaves_the_statistics_as_they_were():
    """Its first 32,768 rows are read before the wrong one."""
    made = Statistics(HAM, metadata=["country"]).of(table(HAM, 10))
    before, wrong = made.to_bytes(), table(HAM, 40_000)
    wrong.loc[39_999, "p_spam"] = 7.0
    with pytest.raises(ValueError, match="row 39999"):
        made.count(wrong)
    assert made.to_bytes() == before


def test_no_rows_and_too_many_rows_are_refused():
    with pytest.raises(ValueError, match=r"^There are no rows; at least one is needed\.$"):
        Statistics(HAM).finish()
    made = Statistics(HAM)
    made._counts.n = 2**32
    with pytest.raises(
        ValueError, match="^At most 4,294,967,296 rows can be counted; evaluate parts of them"
    ):
        made.count(table(HAM, 1))


def test_columns_with_too_many_values_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr("finetune_eval.evaluation._counts.MOST_VALUES", 3)
    frame = table(HAM, 40).assign(shop=[f"s{i}" for i in range(40)])
    found = Statistics(HAM, metadata=["shop", "country"]).of(frame).finish(n_resamples=100)
    assert [column for column, _ in found.slice_search.left_out] == ["shop"]
    assert {one.column for one in found.slices} == {"country"}


def test_what_needs_the_rows_says_that_they_were_not_kept(tmp_path):
    found = Statistics(HAM).of(table(HAM, 40)).finish(n_resamples=100)
    with pytest.raises(
        ValueError, match="^This needs every row, and an evaluation made by `evaluate_files` or"
    ):
        len(found.predictions)
    assert found.has_probabilities and "weight" not in found.predictions
    assert "accuracy" in str(found)
    found.save(tmp_path)
    assert type(found).load(tmp_path) == found
