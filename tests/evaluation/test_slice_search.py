"""How far the search for weak parts goes: what is looked at, what is left out, what could have been found."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from finetune_eval.evaluation.evaluate import Evaluation, evaluate_predictions
from finetune_eval.evaluation.intervals import wilson
from finetune_eval.evaluation.slices import about_slices, find_slices, search_slices
from finetune_eval.reports.html import report

RIGHT = np.tile([True, True, True, True, False], 40)  # 160 of 200


def values_of(metadata, correct=RIGHT):
    return [one.value for one in find_slices(correct, metadata=metadata)]


@pytest.mark.parametrize(
    "missing",
    [None, float("nan"), pd.NA, pd.NaT, "", "  \t"],
    ids=["None", "NaN", "NA", "NaT", "empty", "blank"],
)
def test_rows_without_a_value_are_a_slice(missing):
    # 20 rows have no value, and all of them are wrong: no other part may hide that.
    column = np.array((["a", "b"] * 100), dtype=object)
    column[180:] = missing
    right = np.r_[np.ones(180, bool), np.zeros(20, bool)]
    weakest = find_slices(right, metadata={"source": column})[0]
    assert (weakest.value, weakest.n, weakest.accuracy.value, weakest.weak) == ("(missing)", 20, 0.0, True)


@pytest.mark.parametrize(
    "column",
    [
        np.ma.array(np.arange(200) % 3, mask=np.arange(200) >= 180),
        np.ma.array(np.random.default_rng(0).random(200), mask=np.arange(200) >= 180),
        pd.array([*range(60), *range(60), *range(60), *[None] * 20], dtype="Int64"),
        pd.Categorical(["x", "y"] * 90 + [None] * 20),
        pd.to_datetime([*pd.date_range("2020-01-01", periods=180), *[None] * 20]),
        pd.array([True, False] * 90 + [None] * 20, dtype="boolean"),
    ],
    ids=["masked", "masked numbers", "Int64", "category", "dates", "boolean"],
)
def test_missing_values_of_every_type_are_a_slice(column):
    right = np.r_[np.ones(180, bool), np.zeros(20, bool)]
    weakest = find_slices(right, metadata={"source": column})[0]
    assert (weakest.value, weakest.n, weakest.weak) == ("(missing)", 20, True)


def test_a_column_without_any_value_says_nothing():
    assert find_slices(RIGHT, metadata={"none": [None] * 200}) == ()


def test_columns_that_tell_rows_apart_are_left_out_and_named():
    random = np.random.default_rng(1)
    metadata = {
        "row": np.arange(1000, 1200),  # a running number
        "customer_id": random.permutation(10**6)[:200],  # an id by its name
        "customer": [f"C{i:04d}" for i in random.integers(0, 150, 200)],
        "note": [f"note {i}" for i in range(200)],
        "weight": random.normal(size=200),  # a measurement, though every one is another
        "price": random.permutation(10**6)[:200],
        "kind": ["a", "b"] * 100,
    }
    customers = len(set(metadata["customer"]))
    slices, search = search_slices(RIGHT, metadata=metadata)
    assert {one.column for one in slices} == {"weight", "price", "kind"}
    assert [column for column, _ in search.left_out] == ["row", "customer_id", "customer", "note"]
    assert search.not_looked_at == (
        "Not looked at for weak parts: 'row' (another number in every row), 'customer_id' (another number in "
        f"every row), 'customer' ({customers} values in 200 rows), 'note' (200 values in 200 rows)."
    )
    assert search.parts == 4 + 4 + 2 and search.words == 0


def test_rare_values_of_a_column_of_many_are_one_part():
    # 60 values: 2 of 40 rows, 58 of 2 or 3 rows.
    values = ["big"] * 40 + ["bigger"] * 40 + [f"v{i % 58}" for i in range(120)]
    slices = {one.value: one.n for one in find_slices(RIGHT, metadata={"city": values})}
    assert slices == {"big": 40, "bigger": 40, "(other values)": 120}
    few = ["a"] * 190 + list("bcdefghijk")  # eleven values are few: each is looked at
    assert len(values_of({"kind": few})) == 11


def test_dates_are_quarters_of_time():
    days = pd.date_range("2021-01-01", periods=200)
    assert set(values_of({"day": days})) == {
        "2021-01-01 to 2021-02-19",
        "2021-02-20 to 2021-04-10",
        "2021-04-11 to 2021-05-30",
        "2021-05-31 to 2021-07-19",
    }
    assert "2021-01-01 00:00:00 to 2021-01-03 01:00:00" in values_of(
        {"hour": pd.date_range("2021-01-01", periods=200, freq="h", tz="UTC")}
    )


def test_columns_are_read_by_position():
    where = pd.Series(["x"] * 100 + ["y"] * 100, index=np.arange(200)[::-1])
    right = np.r_[np.ones(100, bool), np.zeros(100, bool)]
    for metadata in (
        {"where": where},
        {"where": where, "other": ["a"] * 200},
        pd.DataFrame({"where": where}),
    ):
        weakest = find_slices(right, metadata=metadata)[0]
        assert (weakest.value, weakest.accuracy.value) == ("y", 0.0)


def planted_column(seed):
    """1,000 rows of 30 words out of 300, and a column: a tenth of the rows is right with .77, not .9."""
    random = np.random.default_rng(seed)
    texts = [" ".join(f"w{i:03d}" for i in random.integers(0, 300, 30)) for _ in range(1000)]
    old = random.random(1000) < 0.1
    return random.random(1000) < np.where(old, 0.77, 0.9), texts, {"device": np.where(old, "old", "new")}


def test_words_do_not_drown_columns():
    found = drowned = 0
    for seed in range(20):
        right, texts, metadata = planted_column(seed)
        slices, search = search_slices(right, texts=texts, metadata=metadata)
        old = next(one for one in slices if one.value == "old")
        found += old.weak
        # Benjamini-Hochberg over all of them would need the smallest p-value under .05 / m.
        drowned += old.p_value > 0.05 / (search.words + search.parts)
        assert search.words == 300
    assert found >= 13 and drowned >= 8


def test_q_values_are_those_of_weighted_benjamini_hochberg():
    random = np.random.default_rng(2)
    metadata = {"a": random.choice(list("pqrstu"), 400), "b": random.choice(["x", "y"], 400)}
    right = random.random(400) < np.where(metadata["b"] == "x", 0.9, 0.7)
    slices = find_slices(right, metadata=metadata)
    # Genovese, Roeder and Wasserman: p / w with weights of mean 1; each column has half of the weight of 8.
    weights = {"a": 8 / (2 * 6), "b": 8 / (2 * 2)}
    scaled = [min(1.0, one.p_value / weights[one.column]) for one in slices]
    assert [one.q_value for one in slices] == pytest.approx(false_discovery_control(scaled).tolist())


def test_intervals_of_weak_slices_allow_for_the_picking():
    # Four slices of two columns, of which two are weak: level 1 - .05 * 2 / (2 slices * 2 columns).
    right = np.r_[np.tile([True, True, True, False, False], 20), np.ones(100, bool)]
    metadata = {"where": ["x"] * 100 + ["y"] * 100, "when": (["am", "pm", "am", "pm", "pm"] * 40)}
    slices = {(one.column, one.value): one for one in find_slices(right, metadata=metadata)}
    weak = [one for one in slices.values() if one.weak]
    assert [one.value for one in weak] == ["x", "pm"]
    for one in weak:
        wide = wilson(round(one.accuracy.value * one.n), one.n, confidence=1 - 0.05 * 2 / (2 * 2))
        assert (one.accuracy.low, one.accuracy.high) == (wide.low, wide.high)
        assert one.accuracy.method == "Wilson at 97.5 %, since it was picked as weak"
        assert one.accuracy.confidence == 0.95
    assert slices[("where", "y")].accuracy == wilson(100, 100)


def test_selected_intervals_cover():
    # A tenth of 400 rows is right with .7, the rest with .88; among 58 slices.
    covered = plain = picked = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        old = random.random(400) < 0.1
        right = random.random(400) < np.where(old, 0.7, 0.88)
        metadata = {"device": np.where(old, "old", "new")}
        metadata |= {f"d{j}": random.choice(list("abcdefgh"), 400) for j in range(7)}
        for one in find_slices(right, metadata=metadata):
            if one.value == "old" and one.weak:
                picked += 1
                covered += one.accuracy.low <= 0.7 <= one.accuracy.high
                usual = wilson(round(one.accuracy.value * one.n), one.n)
                plain += usual.low <= 0.7 <= usual.high
    assert picked > 50 and covered / picked >= 0.95 > plain / picked


def test_nothing_found_says_what_could_have_been_found():
    random = np.random.default_rng(3)
    right, metadata = (
        random.random(200) < 0.85,
        {f"c{j}": random.choice(list("abcde"), 200) for j in range(3)},
    )
    slices, search = search_slices(right, metadata=metadata)
    assert not any(one.weak for one in slices) and search.parts == 15
    assert search.nothing_found == (
        "No part of the rows was found that does worse than the rest, among 15 parts. A part of 30 rows "
        "must be "
        f"about {100 * search.points:.0f} points worse to be found with 80 % probability."
    )
    # Checked by simulation: a part of 30 rows that much worse is called weak about four times in five.
    found = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        bad = np.arange(200) < 30
        drawn = random.random(200) < np.where(bad, right.mean() - search.points, right.mean())
        values = np.where(bad, "bad", random.choice(list("wxyz"), 200))
        metadata["c0"] = values
        found += any(one.weak and one.value == "bad" for one in find_slices(drawn, metadata=metadata))
    assert 0.72 <= found / 200 <= 0.95  # at least .8 is meant; the noise of the share is .028


def test_rows_too_few_to_find_anything():
    search = search_slices([True] * 5 + [False], metadata={"a": list("xxyyyy")})[1]
    assert search.nothing_found == (
        "No part of the rows was found that does worse than the rest, among 2 parts. Not even a part of 3 "
        "rows that "
        "are all wrong would be found with 80 % probability."
    )


def test_evaluation_and_reports_say_it(tmp_path):
    random = np.random.default_rng(4)
    y, metadata = random.integers(0, 2, 200), {"id": np.arange(200), "kind": ["a", "b"] * 100}
    result = evaluate_predictions(
        y, np.where(random.random(200) < 0.8, 0.9, 0.1) * y + 0.05, metadata=metadata
    )
    said = " ".join(str(result).split())
    assert result.slice_search.nothing_found in said
    assert "Not looked at for weak parts: 'id' (another number in every row)." in said
    assert about_slices(result) == [
        result.slice_search.nothing_found,
        result.slice_search.not_looked_at,
    ]
    assert Evaluation.load(result.save(tmp_path)) == result
    half = np.arange(200) < 100
    weak = evaluate_predictions(y, np.where(half, y, 1 - y) * 0.8 + 0.1, metadata={"kind": half.astype(str)})
    picked = (
        "The parts called weak were picked for their low accuracy, and so they look worse than they are; "
        "their intervals allow for that."
    )
    assert picked in " ".join(str(weak).split()) and about_slices(weak) == [picked]
    ids_only = evaluate_predictions(y, np.full(200, 0.4), metadata={"id": np.arange(200)})
    for said in (str(ids_only), report(ids_only, tmp_path / "page.html").read_text(encoding="utf-8")):
        assert "Not looked at for weak parts:" in said and "No part of the rows" not in said
    plain = evaluate_predictions(y, np.full(200, 0.4))
    assert plain.slice_search is None and "No part" not in str(plain) and about_slices(plain) == []
