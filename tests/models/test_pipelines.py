"""Rows and batches in every form that Keras takes: the numbers of a list of texts, or one sentence."""

import math
import re

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import finetune_eval as fe
from finetune_eval._checks import TextsCut
from finetune_eval._labels import ClassIndices, read
from finetune_eval.data.pipelines import collected

NAMES = np.array(["negative", "positive"])


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


@pytest.fixture(scope="module")
def x(tiny):
    return np.array(tiny.texts)


@pytest.fixture(scope="module")
def y(tiny):
    return np.array(tiny.sentiments)


@pytest.fixture(scope="module")
def tokens(scorer, x):
    """Return the rows as a preprocessor gives them."""
    return {name: np.asarray(values) for name, values in scorer.preprocessor(tf.constant(x)).items()}


class Batches(keras.utils.PyDataset):
    """Batches of three rows."""

    def __init__(self, x, y, form=lambda rows: rows):
        super().__init__()
        self.x, self.y, self.form, self.seen, self.ends = x, y, form, [], 0

    def __len__(self):
        return math.ceil(len(self.y) / 3)

    def __getitem__(self, index):
        rows = slice(3 * index, 3 * index + 3)
        self.seen.append(index)
        return self.form(self.x[rows]), self.y[rows]

    def on_epoch_end(self):
        self.ends += 1


def generator(x, y):
    for start in range(0, len(y), 3):
        yield x[start : start + 3], y[start : start + 3]


def sliced(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


def tokenised(scorer):
    return lambda rows: {k: np.asarray(v) for k, v in scorer.preprocessor(tf.constant(rows)).items()}


PIPELINES = {
    "PyDataset": lambda s, x, y, t: Batches(x, y),
    "PyDataset of columns": lambda s, x, y, t: Batches(x, y, lambda rows: rows[:, None]),
    "PyDataset of lists": lambda s, x, y, t: Batches(x, y, list),
    "PyDataset of a named column": lambda s, x, y, t: Batches(x, y, lambda rows: {"text": rows}),
    "PyDataset of tokens": lambda s, x, y, t: Batches(x, y, tokenised(s)),
    "generator": lambda s, x, y, t: generator(x, y),
    "tf.data": lambda s, x, y, t: sliced(x, y).batch(3),
    "tf.data of (batch, 1)": lambda s, x, y, t: sliced(x[:, None], y).batch(3),
    "tf.data of a named column": lambda s, x, y, t: sliced({"text": x}, y).batch(3),
    "tf.data of tokens": lambda s, x, y, t: sliced(t, y).batch(3),
    "tf.data with weights": lambda s, x, y, t: sliced(x, y, np.ones(len(y), "float32")).batch(3),
    "tf.data with names": lambda s, x, y, t: sliced(x, NAMES[y]).batch(3),
    "tf.data, one-hot": lambda s, x, y, t: sliced(x, np.eye(2)[y]).batch(3),
    "endless, in steps": lambda s, x, y, t: sliced(x, y).batch(3).repeat(),
}
ran_out = pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, at a generator's end


@pytest.fixture(scope="module")
def numbers(scorer, x, y):
    """What the scorer says of the rows."""
    return scorer.evaluate(list(x), y, batch_size=3, verbose=0), scorer.predict(list(x), verbose=0)


@ran_out
@pytest.mark.parametrize("form", PIPELINES)
def test_every_pipeline_gives_the_numbers_of_the_rows(scorer, numbers, x, y, tokens, form):
    steps = 3 if form.startswith("endless") else None  # batches of 3, 3 and 2 rows: all of them once
    found = scorer.evaluate(PIPELINES[form](scorer, x, y, tokens), verbose=0, steps=steps)
    assert found == pytest.approx(numbers[0], abs=1e-5)
    predicted = scorer.predict(PIPELINES[form](scorer, x, y, tokens), verbose=0, steps=steps)
    np.testing.assert_allclose(predicted, numbers[1], atol=1e-6)


@pytest.fixture(scope="module")
def learner(tiny, x, y):
    """Return a model without dropout, its weights, and those after three steps on the rows as they come."""
    model = tiny.text_classifier(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.1))  # without a state: it may begin again without being compiled
    start = model.get_weights()
    model.fit(list(x), y, batch_size=3, shuffle=False, verbose=0)
    return model, start, model.get_weights()


# The rows of these come in the ways of others, as the test of their numbers sees in each of them.
ALIKE = ("PyDataset of columns", "PyDataset of lists", "tf.data of (batch, 1)", "tf.data of a named column")


@ran_out
@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] * (form in ALIKE)) for form in PIPELINES]
)
def test_every_pipeline_takes_the_steps_of_the_rows(learner, x, y, tokens, form):
    model, start, expected = learner
    model.set_weights(start)
    data = PIPELINES[form](model, x, y, tokens)
    model.fit(data, steps_per_epoch=3 if form.startswith("endless") else None, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_a_pydataset_is_shuffled_and_told_of_every_epoch(learner, x, y):
    data = Batches(x, y)
    learner[0].fit(data, epochs=4, verbose=0)
    epochs = [tuple(data.seen[1:][3 * e : 3 * e + 3]) for e in range(4)]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs) and len(set(epochs)) > 1
    assert data.ends == 4
    data = Batches(x, y)
    learner[0].fit(data, epochs=2, shuffle=False, verbose=0)
    assert data.seen[1:] == [0, 1, 2, 0, 1, 2]


@ran_out
@pytest.mark.parametrize("form", ["PyDataset", "generator", "tf.data"])
def test_validation_data_may_be_a_pipeline(learner, x, y, tokens, form):
    model = learner[0]
    held_out = PIPELINES[form](model, x, y, tokens)
    history = model.fit(list(x), y, validation_data=held_out, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(list(x), y, verbose=0)[0], abs=1e-5)


def empty():
    return (row for row in ())


REFUSED = {
    "of two columns": (
        lambda x, y: sliced({"text": x, "title": x}, y).batch(3),
        "`x` has the columns 'text', 'title'; this model reads one: pass that one.",
    ),
    "of no batch": (lambda x, y: sliced(x, y).take(0).batch(3), "`x` is an empty pipeline: it has no batch."),
    "of no batch, as it turns out": (
        lambda x, y: sliced(x, y).filter(lambda text, label: False).batch(3),
        "`x` is an empty pipeline: it has no batch.",
    ),
    "a PyDataset of no batch": (
        lambda x, y: Batches(x[:0], y[:0]),
        "`x` is an empty pipeline: it has no batch.",
    ),
    "a generator of no batch": (lambda x, y: empty(), "`x` is an empty pipeline: it has no batch."),
    "of two texts a row": (
        lambda x, y: sliced(np.stack([x, x], axis=1), y).batch(3),
        "`x` must give batches of one text a row; got shape (None, 2).",
    ),
    "ragged": (
        lambda x, y: sliced(tf.ragged.constant([[1, 2], [3]] * 4), y).batch(3),
        "`x` must give one tensor of rows a batch, or a dict of columns; got RaggedTensorSpec.",
    ),
    "of four parts": (
        lambda x, y: ((x, y, y, y) for _ in range(2)),
        "`x` must give `x`, `(x, y)` or `(x, y, sample_weight)`; got a tuple of 4.",
    ),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:.*no batches.*:UserWarning")
@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_one_sentence(scorer, x, y, what, verb):
    data, sentence = REFUSED[what]
    with pytest.raises((ValueError, TypeError), match=exactly(sentence)):
        getattr(scorer, verb)(data(x, y), verbose=0)


@pytest.mark.parametrize(
    "verb, keyword", [("fit", "steps_per_epoch"), ("evaluate", "steps"), ("predict", "steps")]
)
def test_an_endless_pipeline_needs_a_number_of_steps(scorer, x, y, verb, keyword):
    endless = sliced(x, y).batch(3).repeat()
    with pytest.raises(ValueError, match=exactly(f"`x` is a pipeline that never ends; pass `{keyword}`.")):
        getattr(scorer, verb)(endless, verbose=0)
    sentence = "`validation x` is a pipeline that never ends; pass `validation_steps`."
    with pytest.raises(ValueError, match=exactly(sentence)):
        scorer.fit(list(x), y, validation_data=endless, verbose=0)


@ran_out
def test_a_generator_that_has_ended_gives_no_second_epoch(learner, x, y):
    # Keras goes on with a loss of 0.
    sentence = "`x` is a generator that has ended; pass a PyDataset to read it again."
    with pytest.raises(ValueError, match=exactly(sentence)):
        learner[0].fit(generator(x, y), epochs=2, verbose=0)


def test_labels_and_weights_of_a_pipeline_are_in_it(scorer, x, y):
    data = sliced(x, y).batch(3)
    for beside in ({"y": y}, {"sample_weight": np.ones(8)}):
        (name,) = beside
        sentence = f"`{name}` must be in the pipeline `x`: each element `(x, y)` or `(x, y, sample_weight)`."
        for verb in (scorer.fit, scorer.evaluate):
            with pytest.raises(ValueError, match=exactly(sentence)):
                verb(data, **beside, verbose=0)


# --- dicts and frames ---


@pytest.mark.parametrize(
    "form",
    [lambda x, t: {"text": x}, lambda x, t: t, lambda x, t: pd.DataFrame({"text": x})],
    ids=["a column", "tokens", "DataFrame"],
)
def test_dicts_and_frames_are_rows(scorer, x, y, tokens, form):
    rows = form(x, tokens)
    np.testing.assert_allclose(scorer.predict(rows, verbose=0), scorer.predict(list(x), verbose=0), atol=1e-6)
    expected = scorer.evaluate(list(x), y, verbose=0)
    for labels in (y, NAMES[y], np.eye(2)[y]):
        assert scorer.evaluate(rows, labels, verbose=0) == pytest.approx(expected, abs=1e-6)


def test_tokens_of_unlike_shapes_are_refused(scorer, tokens):
    sentence = (
        "`x` must hold (rows, tokens) whole numbers, all of the shape of 'padding_mask', (8, 16); "
        "'token_ids' has shape (3, 16) and dtype int32."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        scorer.predict({**tokens, "token_ids": tokens["token_ids"][:3]})


# --- single batches and calls ---


def test_batches_of_raw_rows(learner, scorer, x, y):
    expected = scorer.predict(list(x), verbose=0)
    np.testing.assert_allclose(scorer.predict_on_batch(x), expected, atol=1e-6)
    for rows in (x, list(x), tf.constant(x)):
        np.testing.assert_allclose(np.asarray(scorer(rows)), expected, atol=1e-6)
    assert scorer.test_on_batch(list(x), NAMES[y]) == pytest.approx(
        scorer.evaluate(list(x), y, verbose=0, batch_size=8), abs=1e-5
    )
    model, start, _ = learner
    weights = []
    for train in (
        lambda: model.train_on_batch(list(x), y, class_weight="balanced"),
        lambda: model.fit(list(x), y, class_weight="balanced", batch_size=8, verbose=0),
    ):
        model.set_weights(start)
        train()
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_batch_without_labels_or_rows_is_one_sentence(scorer, x):
    sentence = "`y` is None; a label is needed for each row: class indices or class names."
    for verb in (scorer.train_on_batch, scorer.test_on_batch):
        with pytest.raises(ValueError, match=exactly(sentence)):
            verb(list(x))
    with pytest.raises(ValueError, match="`x` has no rows; at least one is needed."):
        scorer.predict_on_batch([])


# --- validation_split ---


@pytest.fixture(scope="module")
def still(tiny):
    """Return a model that stays as it is whatever it is trained on."""
    model = tiny.text_classifier(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    return model


@pytest.mark.parametrize("rows, share", [(8, 0.25), (8, 0.3), (5, 0.1), (7, 0.5), (4, 0.1), (2, 0.5)])
@pytest.mark.parametrize("form", ["texts", "Series", "tokens"])
def test_validation_split_takes_the_rows_that_keras_takes(still, x, y, tokens, rows, share, form):
    model = still
    first = math.floor(rows * (1 - share))  # Keras: the first floor(n * (1 - share)) rows train
    given = {
        "texts": list(x[:rows]),
        "Series": pd.Series(x[:rows], index=range(50, 50 + rows)),
        "tokens": {name: values[:rows] for name, values in tokens.items()},
    }[form]
    history = model.fit(given, y[:rows], validation_split=share, verbose=0).history
    for name, part in (("loss", slice(0, first)), ("val_loss", slice(first, rows))):
        expected = model.evaluate(list(x[:rows][part]), y[:rows][part], verbose=0)[0]
        assert history[name][0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "given, share, sentence",
    [
        (lambda x, y: (list(x[:4]), y[:4]), 0.9, "`validation_split` 0.9 leaves none of 4 rows to train on."),
        (
            lambda x, y: (list(x), y),
            1.0,
            "`validation_split` must be a finite number above 0 and below 1; got 1.0.",
        ),
        (lambda x, y: (list(x), y[:5]), 0.5, "`x` and `y` must have the same number of rows; got 8 and 5."),
        (
            lambda x, y: (sliced(x, y).batch(3),),
            0.5,
            "`validation_split` needs rows that can be counted: pass arrays, or `validation_data` beside a "
            "pipeline.",
        ),
    ],
)
def test_what_cannot_be_split_is_one_sentence(scorer, x, y, given, share, sentence):
    with pytest.raises(ValueError, match=exactly(sentence)):
        scorer.fit(*given(x, y), validation_split=share, verbose=0)


def test_validation_data_of_another_kind_is_one_sentence(scorer, x, y):
    sentence = "`validation_data` must be `(x, y)`, `(x, y, sample_weight)` or a pipeline; got list."
    with pytest.raises(TypeError, match=exactly(sentence)):
        scorer.fit(list(x), y, validation_data=list(x), verbose=0)


# --- texts that are cut ---

FITS, LONG = " ".join(["good"] * 14), " ".join(["good"] * 15)  # with [CLS] and [SEP] 16 and 17 tokens


def test_texts_that_are_cut_are_counted_and_told_once(scorer):
    assert scorer.encode([FITS, LONG, LONG, "good"]).cut == 2
    sentence = "`x`: 2 of 3 texts are longer than 16 tokens; only their first 16 tokens are read."
    for run in (
        lambda: scorer.predict([LONG, FITS, LONG], verbose=0),
        lambda: scorer.evaluate([LONG, FITS, LONG], [0, 1, 0], verbose=0),
    ):
        with pytest.warns(TextsCut) as said:
            run()
        assert [str(warning.message) for warning in said] == [sentence]
    scorer.predict([FITS], verbose=0)  # a warning would be an error


def test_an_evaluation_tells_of_texts_that_were_cut(scorer):
    sentence = "`x`: 1 of 8 texts is longer than 16 tokens; only its first 16 tokens are read."
    texts, labels = [LONG, *["good", "bad"] * 3, "good"], [0, 1] * 4
    with pytest.warns(TextsCut, match=exactly(sentence)):
        result = fe.evaluate(scorer, texts, labels)
    assert sentence in result.warnings


def test_fine_tuning_tells_of_texts_that_were_cut(tiny):
    with pytest.warns(TextsCut) as said:
        fe.fine_tune(
            tiny.text_classifier(), [LONG, "bad"] * 2, [0, 1] * 2, validation_data=([LONG, "bad"], [0, 1]),
            epochs=1, verbose=False,
        )  # fmt: skip
    assert [str(warning.message) for warning in said if warning.category is TextsCut] == [
        "`x`: 2 of 4 texts are longer than 16 tokens; only their first 16 tokens are read.",
        "`validation x`: 1 of 2 texts is longer than 16 tokens; only its first 16 tokens are read.",
    ]


def test_a_pipeline_tells_of_texts_that_reach_the_limit(scorer):
    sentence = (
        "`x`: 2 of the 3 texts that were read have at least 16 tokens, the most that is read of a text."
    )
    with pytest.warns(TextsCut, match=exactly(sentence)):
        scorer.predict(sliced([LONG, FITS, "good"]).batch(2), verbose=0)


class Fixed(keras.utils.PyDataset):
    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, place):
        return self.batches[place]


def test_batches_that_are_read_whole_keep_the_names_of_their_labels():
    x = np.zeros((2, 3))
    named = Fixed((x, ClassIndices([0, 1], ["b", "a"])), (x, ClassIndices([0, 0], ["a", "b"])))
    _, y, _ = collected("x", named)
    assert read("y", y, ("a", "b")).tolist() == [1, 0, 0, 0]
    one_hot = pd.DataFrame({"b": [1, 0], "a": [0, 1]})
    _, y, _ = collected("x", Fixed((x, one_hot), (x, one_hot[["a", "b"]])))
    assert read("y", y, ("a", "b")).tolist() == [1, 0, 1, 0]


def test_a_text_or_label_that_is_missing_in_a_batch_is_no_word_nan():
    with pytest.raises(ValueError, match="^`x` has no text in row 1 "):
        collected("x", Fixed((["good", float("nan")], ["a", "b"])))
    _, y, _ = collected("x", Fixed((["good", "bad"], ["a", float("nan")])))
    with pytest.raises(ValueError, match="^`y` has no label in row 1"):
        read("y", y, ("a", "nan"))
