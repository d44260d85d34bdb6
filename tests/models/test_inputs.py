"""Labels, rows and weights at every door of a model: one reading, and one sentence where there is none."""

import re

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import finetune_eval as fe
from finetune_eval._labels import ClassIndices

X = np.random.default_rng(0).normal(size=(6, 10)).astype("float32")
STARS = ("1", "2", "3", "4", "5")
TWO_READINGS = "numbers that may be names or places of the classes '1', '2', '3', '4', '5'"


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


@pytest.fixture(scope="module")
def stars(tiny):
    """A classifier of stars that nothing teaches: its rate is 0."""
    model = fe.build_model(tiny.numeric_backbone(), [1, 2, 3, 4, 5], dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    return model


@pytest.fixture(scope="module")
def two(tiny):
    model = tiny.numeric_classifier(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def batches(x, y, form=lambda part: part):
    for start in (0, 3):
        yield form(x[start : start + 3]), y[start : start + 3]


class InThrees(keras.utils.PyDataset):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(part[3 * index : 3 * index + 3] for part in self.parts)


def sliced(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(3)


DOORS = {
    "fit": lambda m, x, y: m.fit(x, y, verbose=0).history["loss"][0],
    "validation data": lambda m, x, y: m.fit(x, y, validation_data=(x, y), verbose=0).history["val_loss"][0],
    "validation split": lambda m, x, y: m.fit(
        [*x[:1], *x], [*y[:1], *y], validation_split=6 / 7, verbose=0
    ).history["val_loss"][0],
    "evaluate": lambda m, x, y: m.evaluate(x, y, verbose=0)[0],
    "train_on_batch": lambda m, x, y: m.train_on_batch(x, y)[0],
    "test_on_batch": lambda m, x, y: m.test_on_batch(x, y)[0],
    "fe.evaluate": lambda m, x, y: fe.evaluate(m, x, y).loss,
    "PyDataset": lambda m, x, y: m.evaluate(InThrees(x, y), verbose=0)[0],
    "generator": lambda m, x, y: m.evaluate(batches(x, y), verbose=0)[0],
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stars_are_names_at_every_door(stars, door):
    # The loss of each row by hand: -log of the column of its own class, 1 star in the first column.
    names = [5, 1, 2, 3, 4, 5]
    p = stars.predict(X, verbose=0).astype(float)
    expected = -np.log(p[np.arange(6), np.array(names) - 1]).mean()
    forms = [
        names, np.array(names, "float32"), np.array(names, object), [str(name) for name in names],
        pd.Series(names, dtype="Int64"), np.array(names).astype("S"),
    ]  # fmt: skip
    if door in ("PyDataset", "generator"):
        forms = [forms[3], forms[5], ClassIndices(np.array(names) - 1, STARS)]
    for y in forms:
        assert DOORS[door](stars, X, y) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("door", DOORS)
def test_numbers_with_two_readings_are_refused_at_every_door(stars, door):
    for y in (np.array([1, 2, 3, 4, 1, 2]), np.array([1, 2, 3, 4, 1, 2], object), pd.Series([1.0] * 6)):
        with pytest.raises(ValueError, match="may be names or places of the classes '1', '2'"):
            DOORS[door](stars, X, y)
    before = stars.get_weights()
    with pytest.raises(ValueError, match=TWO_READINGS):
        fe.fine_tune(stars, X, [1, 2, 3, 4, 1, 2], verbose=False)
    assert all(np.array_equal(a, b) for a, b in zip(before, stars.get_weights(), strict=True))


def test_a_pipeline_of_numbers_that_may_be_names_is_refused_before_the_first_step(stars):
    sentence = (
        "`x` is a pipeline with numbers as labels, which may be names or places of the classes '1', '2', "
        "'3', '4', '5'; batch by batch it cannot be told. Give the names as text: "
        "`tf.strings.as_string(y)`, or `y.astype(str)` of an array. (Rows are counted within the batch.)"
    )
    names = [5, 1, 2, 3, 4, 5]
    for data in (sliced(X, names), InThrees(X, np.array(names)), batches(X, names)):
        with pytest.raises(ValueError, match=exactly(sentence)):
            stars.evaluate(data, verbose=0)
    as_text = sliced(X, names).map(lambda x, y: (x, tf.strings.as_string(y)))
    expected = stars.evaluate(X, names, verbose=0)
    assert stars.evaluate(as_text, verbose=0) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([True, False], ("True", "False")),
        ({1: "good", 0: "bad"}, ("bad", "good")),
        ({"1": "good", "0": "bad"}, ("bad", "good")),  # as JSON has them
        ({"good": 1, "bad": 0}, ("bad", "good")),
        (np.array([1.0, 2.0]), ("1", "2")),
        (pd.Series(["bad", "good"]), ("bad", "good")),
        (3, ("0", "1", "2")),
    ],
)
def test_class_names_of_every_form(tiny, labels, names):
    model = fe.build_model(tiny.numeric_backbone(), labels)
    assert model.labels == names
    assert type(model).from_config(model.get_config()).labels == names


@pytest.mark.parametrize(
    "labels", [{"bad", "good"}, True, 3.5, "ab", ["a", None], ["a", " "], [1, "1"], None]
)
def test_class_names_that_are_none_are_refused(tiny, labels):
    with pytest.raises((ValueError, TypeError), match="^`labels` "):
        fe.build_model(tiny.numeric_backbone(), labels)


# --- rows by name ---

Y = [0, 1, 1, 0, 1, 0]
TURNED = pd.Series(Y, index=range(6)[::-1])
OTHERWISE = "name their rows differently: row 0 is 0 in one index and 5 in the other"


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.fit(x, TURNED, verbose=0),
        lambda m, x: m.fit(x, TURNED, validation_split=0.5, verbose=0),
        lambda m, x: m.fit(X, Y, validation_data=(x, TURNED), verbose=0),
        lambda m, x: m.fit(x, Y, sample_weight=TURNED + 1.0, verbose=0),
        lambda m, x: m.evaluate(x, TURNED, verbose=0),
        lambda m, x: m.train_on_batch(x, TURNED),
        lambda m, x: m.test_on_batch(x, TURNED),
        lambda m, x: m.calibrate(x, TURNED),
        lambda m, x: m.choose_threshold(x, TURNED),
        lambda m, x: fe.fine_tune(m, x, TURNED, verbose=False),
        lambda m, x: fe.fine_tune(m, X, Y, validation_data=(x, TURNED), verbose=False),
        lambda m, x: m.evaluate(InThrees(x, pd.Series(Y, index=[2, 1, 0, 5, 4, 3])), verbose=0),
    ],
)
def test_rows_that_are_named_in_another_order_are_refused(two, call):
    with pytest.raises(ValueError, match=f"{OTHERWISE}|{OTHERWISE.replace('5', '2')}"):
        call(two, pd.DataFrame(X))


def test_a_data_set_is_validation_data(two):
    rows = fe.split(X, ["negative", "positive"] * 3, validation=2, test=2).validation
    history = two.fit(X, Y, validation_data=rows, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(two.evaluate(*rows, verbose=0)[0], abs=1e-6)


# --- weights ---


@pytest.mark.parametrize(
    "keys",
    [
        (0, 1),
        np.unique(Y),
        ("negative", "positive"),
        np.array(["negative", "positive"]),
        (False, True),
        (0.0, 1.0),
    ],
)
def test_class_weights_by_keys_of_every_form(two, keys):
    weights = two.batches(X, Y, None, dict(zip(keys, [3.0, 0.5], strict=True)), batch_size=6).sample_weight
    assert weights.tolist() == [3.0, 0.5, 0.5, 3.0, 0.5, 3.0]


@pytest.mark.parametrize(
    ("class_weight", "sentence"),
    [
        ({"negative": 1, 1: 2}, "holds texts and numbers, which are then all read as class names"),
        ({"positive": 1, " positive": 2}, "unknown label ' positive' in row 1"),
        ({0: 1, 1: float("nan")}, "`class_weight[1]` must be a finite number at least 0; got nan."),
        ({0: 1, 1: None}, "`class_weight[1]` must be a number; got None"),
        ({0: 0, 1: 0}, "leave no row with a weight above 0"),
        ({}, "`class_weight` has no weight for 'negative'; give every class one."),
        ([1, 2], "`class_weight` must be a dictionary from class to weight, or 'balanced'; got list."),
        (pd.Series([1, 2]), "`class_weight` must be a dictionary from class to weight, or 'balanced'"),
        ("balance", "Did you mean 'balanced'?"),
    ],
)
def test_class_weights_that_cannot_be_read_are_one_sentence(two, class_weight, sentence):
    for call in (
        lambda: two.fit(X, Y, class_weight=class_weight, verbose=0),
        lambda: two.train_on_batch(X, Y, class_weight=class_weight),
        lambda: fe.fine_tune(two, X, Y, class_weight=class_weight, verbose=False),
    ):
        with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
            call()


def test_two_names_of_one_class_weigh_it_twice(tiny):
    ten = fe.build_model(tiny.numeric_backbone(), ["0", "1"])
    with pytest.raises(
        ValueError, match=exactly("`class_weight` has two weights for '1'; the second is '1.0'.")
    ):
        ten.batches(X, Y, None, {"0": 1, "1": 2, "1.0": 3}, batch_size=6)


@pytest.mark.parametrize(
    "weights",
    [
        [1, None, 1, 1, 1, 1], [1, np.nan, 1, 1, 1, 1], np.ma.array(np.ones(6), mask=[0, 1, 0, 0, 0, 0]),
        pd.Series([1, None, 1, 1, 1, 1], dtype="Float64"), ["1"] * 6, [-1] * 6, [np.inf] * 6, [1e300] * 6,
        [1e-60] * 6, [0] * 6, np.ones((6, 2)), 2.0, {0: 1.0},
    ],
)  # fmt: skip
def test_weights_that_are_none_are_refused_at_every_door(two, weights):
    for call in (
        lambda: two.fit(X, Y, sample_weight=weights, verbose=0),
        lambda: two.evaluate(X, Y, sample_weight=weights, verbose=0),
        lambda: two.test_on_batch(X, Y, sample_weight=weights),
        lambda: fe.fine_tune(two, X, Y, sample_weight=weights, verbose=False),
    ):
        with pytest.raises((ValueError, TypeError), match="`sample_weight` "):
            call()


# --- pipelines: a missing value stays one ---

NO_TEXT = "drop the row, or write '' where a text is empty."
NO_LABEL = "`y` has no label in row 1; drop the row or give it a label."


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (["a", None, "b"] * 2, Y, f"`x` has no text in row 1 (None); {NO_TEXT}"),
        (["a", np.nan, "b"] * 2, Y, f"`x` has no text in row 1 (nan); {NO_TEXT}"),
        ([b"\xff"] * 6, Y, "`x` has bytes in row 0 that are not UTF-8; decode them first."),
        (list("abcdef"), [0, 1, 1, 0, np.nan, 1], NO_LABEL),
        (
            list("abcdef"), [0, 1, 1, 0, 0.7, 1],
            "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is 0.7.",
        ),
        (
            list("abcdef"), np.ma.array(Y, mask=[0, 1, 0, 0, 0, 0]),
            "`y` has a masked (missing) entry in row 1; drop the row or fill it with `.filled(...)`.",
        ),
        (list("abcdef"), ["positive", None] * 3, NO_LABEL),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["fit", "evaluate"])
@pytest.mark.parametrize("form", [InThrees, batches])
def test_what_is_missing_in_a_batch_is_refused(scorer, x, y, sentence, verb, form):
    with pytest.raises(ValueError, match=exactly(f"{sentence} (Rows are counted within the batch.)")):
        getattr(scorer, verb)(form(x, y), verbose=0)


def weighted(weights):
    return ((X[rows], Y[rows], weights[rows]) for rows in (slice(0, 3), slice(3, 6)))


PIPED = {
    "tf.data": lambda *parts: sliced(*parts),
    "PyDataset": lambda *parts: InThrees(*parts),
    "generator": lambda *parts: (tuple(part[at : at + 3] for part in parts) for at in (0, 3)),
}


@pytest.mark.parametrize("form", PIPED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_of_a_pipeline_count_and_are_checked(two, form):
    weights = np.array([0, 0, 0, 2.0, 1, 0.5])  # of one batch all may be 0
    p = two.predict(X, verbose=0).astype(float)
    nats = -np.log(p[np.arange(6), Y])
    expected = (weights * nats).sum() / 6  # Keras: over the rows, not over the weights
    loss, _ = two.evaluate(PIPED[form](X, Y, weights), verbose=0)
    assert loss == pytest.approx(expected, abs=1e-5)
    for bad, sentence in (
        ([1, 1, 1, -1.0, 1, 1], "`sample_weight` must be finite and not negative; row 0 is -1.0."),
        ([1, 1, 1, 1, np.nan, 1], "`sample_weight` has no weight in row 1; give every row one."),
    ):
        with pytest.raises(ValueError, match=exactly(f"{sentence} (Rows are counted within the batch.)")):
            two.evaluate(PIPED[form](X, Y, bad), verbose=0)


def test_a_batch_without_labels_does_not_take_its_weights_for_them(two):
    with pytest.raises(ValueError, match="`x` is a pipeline without labels"):
        two.evaluate(iter_of((X[:3], None, np.ones(3))), verbose=0)


def iter_of(*given):
    yield from given


@pytest.mark.parametrize(
    ("second", "form"),
    [
        ((X[3:], np.eye(2)[Y[3:]]), "(rows, one-hot labels)"),
        ((X[3:], Y[3:], np.ones(3)), "(rows, labels, weights)"),
    ],
)
def test_batches_of_two_forms_are_refused(two, second, form):
    sentence = f"`x` must give all batches in one form; the first is (rows, labels), another {form}."
    with pytest.raises(ValueError, match=exactly(sentence)):
        two.evaluate(iter_of((X[:3], Y[:3]), second), verbose=0)


def test_rows_and_labels_of_a_batch_are_as_many(two):
    for data in (
        iter_of((X[:3], Y[:2])),
        tf.data.Dataset.zip((tf.data.Dataset.from_tensors(X[:3]), tf.data.Dataset.from_tensors(Y[:2]))),
    ):
        with pytest.raises(ValueError, match="`x` and `y` must have the same number of rows; got 3 and 2. "):
            two.evaluate(data, verbose=0)


def test_the_validation_batch_size_is_checked(two):
    with pytest.raises(ValueError, match=exactly("`batch_size` must be at least 1; got 0.")):
        two.fit(X, Y, validation_data=(X, Y), validation_batch_size=0, verbose=0)


# --- deciding ---


def test_decide_reads_columns_by_name_and_its_answer_knows_the_names(two):
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    turned = pd.DataFrame(p[:, ::-1], columns=["positive", "negative"])
    for probabilities in (p, p.tolist(), tf.constant(p), pd.DataFrame(p), turned, turned.add_prefix("p_")):
        answer = two.decide(probabilities)
        assert answer.tolist() == [0, 1] and answer.labels == ("negative", "positive")


@pytest.mark.parametrize(
    "p",
    [
        [[0.9, np.nan]], [[3.0, -1.0]], [[0.2, 0.3, 0.5]], [0.9, 0.1], [[0.9]], None, [[0.2, 0.2]],
        pd.DataFrame([[0.9, 0.1]], columns=["good", "bad"]), np.ma.array([[0.9, 0.1]], mask=[[0, 1]]),
    ],
)  # fmt: skip
def test_what_is_no_probability_of_the_classes_decides_nothing(two, p):
    with pytest.raises(ValueError, match="^`probabilities` "):
        two.decide(p)
