"""Statistics of two models on parts of the rows: they add up to what `compare` says of all rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval import compare, evaluate_predictions
from finetune_eval.evaluation.comparison import mcnemar
from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.paired import PairedStatistics

LABELS = {2: ("ham", "spam"), 3: ("a", "b", "c")}


def probabilities(y, classes, sharp, random, dtype=np.float64):
    odds = random.normal(size=(len(y), classes))
    odds[np.arange(len(y)), y] += 1.0
    p = np.exp(sharp * odds)
    return (p / p.sum(axis=1, keepdims=True)).astype(dtype)


def rows(classes, n, *, sharp=(1.0, 1.0), seed=0, dtype=np.float64):
    """Return labels, the probabilities of two models, and the table that has all of them."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    p = [probabilities(y, classes, one, random, dtype) for one in sharp]
    columns = {f"p_{k}_{m}": p[i][:, j] for i, m in enumerate("AB") for j, k in enumerate(LABELS[classes])}
    return y, p, pd.DataFrame({"label": np.array(LABELS[classes])[y], **columns})


def compared(y, p, labels, thresholds=(None, None), **options):
    evaluations = [
        evaluate_predictions(
            y, one, labels=labels, threshold=threshold, baselines=False, ids=np.arange(len(y))
        )
        for one, threshold in zip(p, thresholds, strict=True)
    ]
    return compare(*evaluations, **options)


def check(found, expected, rel):
    """Every number of two comparisons is the same, but for rounding of `rel`."""
    (pair,), (other,) = found.pairs, expected.pairs
    assert (found.names, found.metric, found.n) == (expected.names, expected.metric, expected.n)
    assert found.values == pytest.approx(expected.values, rel=rel, abs=0)
    mine, theirs = pair.difference, other.difference
    assert (mine.value, mine.low, mine.high) == pytest.approx(
        (theirs.value, theirs.low, theirs.high), rel=rel
    )
    assert (mine.method, mine.confidence) == (theirs.method, theirs.confidence)
    assert (pair.test.method, pair.test.df, pair.outcome) == (other.test.method, other.test.df, other.outcome)
    assert pair.test.statistic == pytest.approx(other.test.statistic, rel=rel)
    assert (pair.p_value, found.matters) == pytest.approx(
        (other.p_value, expected.matters), rel=max(rel, 1e-6 * (rel > 0))
    )
    assert pair.detectable == pytest.approx(other.detectable, rel=rel)
    assert pair.disagreement == other.disagreement


@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "balanced_accuracy"])
@pytest.mark.parametrize("classes", [2, 3])
def test_counts_are_compared_as_rows_are_to_the_bit(metric, classes):
    y, p, table = rows(classes, 400)
    made = PairedStatistics(LABELS[classes]).of(table)
    check(made.finish(metric), compared(y, p, LABELS[classes], metric=metric), rel=0)


@pytest.mark.parametrize("metric", ["loss", "brier"])
@pytest.mark.parametrize(
    ("classes", "sharp", "dtype"),
    [(2, (1.0, 1.0), np.float64), (3, (1.0, 3.0), np.float64), (2, (4.0, 1.0), np.float32)],
)
def test_losses_are_compared_as_rows_are_but_for_rounding(metric, classes, sharp, dtype):
    """Where one model is surer of its answers, the interval of the losses is widened for skewness."""
    y, p, table = rows(classes, 500, sharp=sharp, dtype=dtype, seed=1)
    found = PairedStatistics(LABELS[classes]).of(table).finish(metric)
    expected = compared(y, p, LABELS[classes], metric=metric)
    check(found, expected, rel=1e-9)
    assert ("surer" in found.difference.method) == (abs(sharp[0] - sharp[1]) > 1)


def test_thresholds_decide_the_answers_of_each_model():
    y, p, table = rows(2, 300)
    found = PairedStatistics(LABELS[2], thresholds=(0.3, 0.7)).of(table).finish("f1", alpha=0.1, matters=0.05)
    check(found, compared(y, p, LABELS[2], (0.3, 0.7), metric="f1", alpha=0.1, matters=0.05), rel=0)


def test_the_counts_are_those_of_arithmetic():
    """Of 8 rows both models have 3 right, only the first 4, only the second 1, and neither 0."""
    first, second = [0.9] * 7 + [0.2], [0.8] * 3 + [0.1] * 4 + [0.6]
    columns = {"p_spam_A": first, "p_ham_A": np.subtract(1, first)}
    columns |= {"p_spam_B": second, "p_ham_B": np.subtract(1, second)}
    found = PairedStatistics(LABELS[2]).of({"label": ["spam"] * 8, **columns}).finish()
    assert found.values == (7 / 8, 4 / 8)
    assert found.difference.value == 3 / 8 and found.pairs[0].disagreement == 5 / 8
    assert found.p_value == mcnemar(4, 1).p_value


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=3), random=st.randoms())
def test_any_split_and_order_gives_the_same_statistics_to_the_bit(cuts, random):
    _, _, table = rows(3, 40)
    empty = PairedStatistics(LABELS[3])
    whole = empty.of(table)
    order = random.sample(range(40), 40)
    edges = sorted([0, *cuts, 40])
    total = empty
    for start, end in zip(edges, edges[1:], strict=False):
        total = total + empty.of(table.iloc[order[start:end]].reset_index(drop=True))
    assert total.to_bytes() == whole.to_bytes()
    again = empty.empty()
    again.add_bytes(whole.to_bytes())
    assert again.to_bytes() == whole.to_bytes()


def test_models_that_answer_alike_are_told_so():
    _, _, table = rows(2, 50)
    table = table.assign(p_ham_B=table["p_ham_A"], p_spam_B=table["p_spam_A"])
    made = PairedStatistics(LABELS[2]).of(table)
    assert made.finish().outcome == made.finish("loss").outcome == "identical answers"
    other = made + made.of(
        table.assign(p_ham_B=table["p_ham_A"] / 2 + 0.25, p_spam_B=table["p_spam_A"] / 2 + 0.25)
    )
    assert other.finish().outcome == "identical answers"  # the same side of a half
    assert other.finish("loss").outcome != "identical answers"


def test_a_better_accuracy_beside_a_worse_loss_is_said():
    y, p, table = rows(2, 2000, sharp=(1.0, 8.0), seed=3)
    table.loc[:40, ["p_ham_B", "p_spam_B"]] = np.eye(2)[y[:41]] * 0.98 + 0.01
    found = PairedStatistics(LABELS[2]).of(table).finish()
    assert found.notes[0].startswith("Accuracy and log-loss disagree: B has more rows right (")
    expected = compared(y, [p[0], table[["p_ham_B", "p_spam_B"]].to_numpy()], LABELS[2])
    assert expected.notes[0].startswith(found.notes[0])
    assert "The rows were counted and not kept" in found.notes[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda table: table.drop(columns="p_spam_B"),
            "'joined.parquet' has no column 'p_spam_B': it needs the probabilities p_<class>_B of each class "
            "beside those of the other model. It has 'label', 'p_ham_A', 'p_spam_A', 'p_ham_B'.",
        ),
        (
            lambda table: table.assign(weight=1.0),
            "'joined.parquet (model A)' has a column 'weight'. Rows with weights cannot be counted: their "
            "intervals need every row. Use `load_predictions` on rows that memory holds, or leave the column "
            "out where it is no weight.",
        ),
        (
            lambda table: table.assign(p_spam_B=[*table["p_spam_B"][:-1], 7.0]),
            "'joined.parquet (model B)': `probabilities` must lie in [0, 1]; row 39 is",
        ),
        (
            lambda table: table.assign(label=[*table["label"][:-1], "eggs"]),
            "'joined.parquet (model A)': ",
        ),
    ],
)
def test_a_wrong_table_is_named_and_nothing_of_it_is_counted(change, sentence):
    table = rows(2, 40)[2]
    made = PairedStatistics(LABELS[2])
    with pytest.raises(ValueError) as raised:
        made.count(pa.Table.from_pandas(change(table)), source="joined.parquet")
    assert str(raised.value).startswith(sentence)
    assert made.to_bytes() == made.empty().to_bytes()


def test_what_cannot_be_counted_is_refused():
    made = PairedStatistics(LABELS[2]).of(rows(2, 10)[2])
    with pytest.raises(
        ValueError, match="^`metric` 'roc_auc' cannot be compared from counts, because it needs"
    ):
        made.finish("roc_auc")
    with pytest.raises(ValueError, match="^There are no rows; at least one is needed.$"):
        made.empty().finish()
    with pytest.raises(ValueError, match="^`other` has other settings, "):
        made + PairedStatistics(LABELS[2], ("A", "C"))
    with pytest.raises(ValueError, match="^`names` 'A', 'x_A' make the same column p_<class>_<name> of two"):
        PairedStatistics(["a", "a_x"], ("A", "x_A"))
    with pytest.raises(ValueError, match="written by another version"):
        made.add_bytes(Statistics(LABELS[2]).to_bytes())
