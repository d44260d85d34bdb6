"""The Keras model: raw rows in, probabilities out, saved and loaded to the bit."""

import dataclasses
import re
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import tensorflow as tf

import finetune_eval as fe
from finetune_eval._checks import TextsCut
from finetune_eval.models.classifier import Classifier

ONE_HOT = np.eye(2)


def pipeline(x, y=None, batch=2):
    data = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))
    return data.batch(batch) if batch else data


def exactly(sentence):
    """Return a pattern for `pytest.raises(match=...)` that matches the whole of a sentence."""
    return f"^{re.escape(sentence)}$"


def log_loss(y, p):
    """Return scikit-learn's log-loss; a float32 softmax sums to one only nearly, of which it warns."""
    p = p.astype(float)
    return sklearn.metrics.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=range(p.shape[1]))


# --- raw rows in ---


def as_dataset(x, batch=3):
    return tf.data.Dataset.from_tensor_slices(x).batch(batch)


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        np.array,
        lambda x: np.array(x, dtype=object),
        lambda x: np.array(x)[:, None],
        lambda x: pd.Series(x, index=range(100, 100 + len(x))),
        lambda x: pd.Series(x, dtype="string"),
        lambda x: [text.encode() for text in x],
        lambda x: np.array([text.encode() for text in x]),
        lambda x: tf.constant(list(x)),
        lambda x: as_dataset(list(x)),
        lambda x: tf.data.Dataset.zip((as_dataset(list(x)), as_dataset([0] * len(x)))),
    ],
    ids="list,tuple,str array,object array,column,Series,string Series,bytes,bytes array,tensor,tf.data,"
    "tf.data with labels".split(","),
)
def test_predict_takes_texts_in_every_form(scorer, tiny, form):
    expected = [scorer.predict([text])[0] for text in tiny.texts]
    assert scorer.predict(form(tiny.texts), verbose=0) == pytest.approx(np.array(expected), abs=1e-6)


def test_probabilities_sum_to_one_and_differ_between_texts(scorer, tiny):
    p = scorer.predict(tiny.texts)
    assert p.shape == (8, 2) and p.dtype == np.float32
    assert p.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-6)
    assert p[:, 1].std() > 0.01  # else the tests of the rows' order could not fail


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_predict_keeps_the_order_of_the_rows_whatever_the_batches(scorer, tiny, batch_size):
    backwards = scorer.predict(tiny.texts[::-1], batch_size=batch_size)
    assert backwards[::-1] == pytest.approx(scorer.predict(tiny.texts), abs=1e-6)


@pytest.fixture(scope="module")
def expected(scorer, tiny):
    """Loss and accuracy of the scorer on the tiny rows, computed without it from one-row predictions."""
    p = np.concatenate([scorer.predict([text]) for text in tiny.texts])
    y = np.array(tiny.sentiments)
    return [log_loss(y, p), (p.argmax(axis=1) == y).mean()]


@pytest.mark.parametrize(
    "labels",
    [
        list,
        np.array,
        pd.Series,
        lambda y: np.array(y)[:, None],
        lambda y: np.array(y, dtype="float32"),
        lambda y: ONE_HOT[list(y)],
        lambda y: [("negative", "positive")[i] for i in y],
        lambda y: np.array([b"negative", b"positive"])[list(y)],
        lambda y: pd.Series(pd.Categorical.from_codes(y, ["negative", "positive"])),
    ],
    ids=["list", "array", "Series", "(n, 1)", "float", "one-hot", "names", "bytes", "categories"],
)
def test_evaluate_takes_labels_in_every_form(scorer, tiny, expected, labels):
    got = scorer.evaluate(list(tiny.texts), labels(tiny.sentiments), verbose=0)
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: np.array(y)[:, None],
        lambda y: ONE_HOT[list(y)],
        np.array,
        lambda y: np.array([b"negative", b"positive"])[list(y)],
    ],
    ids=["(n, 1)", "one-hot", "(n,)", "names"],
)
def test_evaluate_takes_pipelines_with_labels_in_every_form(scorer, tiny, expected, labels):
    # All through one model, one after the other: its graph must not care what came before.
    data = pipeline(list(tiny.texts), labels(tiny.sentiments), batch=3)
    assert scorer.evaluate(data, verbose=0) == pytest.approx(expected, abs=1e-6)


def test_evaluate_weighs_rows_by_sample_weight(scorer, tiny):
    y, w = np.array(tiny.sentiments), np.array([1, 0, 2, 3, 0.5, 1, 4, 0])
    p = scorer.predict(tiny.texts).astype(float)
    nats = -np.log(p[np.arange(8), y])
    loss, accuracy = scorer.evaluate(tiny.texts, y, sample_weight=w, verbose=0, batch_size=8)
    assert accuracy == pytest.approx(np.average(p.argmax(axis=1) == y, weights=w), abs=1e-6)
    # Keras divides the weighted sum of a batch by its number of rows, not by the sum of the weights.
    assert loss == pytest.approx((w * nats).sum() / 8, abs=1e-5)


def test_a_pipeline_carries_sample_weights(scorer, tiny):
    w = np.array([1, 0, 2, 3, 0.5, 1, 4, 0], "float32")
    data = tf.data.Dataset.from_tensor_slices((list(tiny.texts), list(tiny.sentiments), w)).batch(8)
    expected = scorer.evaluate(tiny.texts, tiny.sentiments, sample_weight=w, verbose=0, batch_size=8)
    assert scorer.evaluate(data, verbose=0) == pytest.approx(expected, abs=1e-5)


def test_fe_evaluate_equals_model_evaluate(scorer, tiny):
    loss, accuracy = scorer.evaluate(tiny.texts, tiny.sentiments, verbose=0)
    result = fe.evaluate(scorer, tiny.texts, tiny.sentiments)
    assert (result.loss, result.accuracy) == pytest.approx((loss, accuracy), abs=1e-6)


def test_empty_and_long_texts_have_an_answer(scorer):
    sentence = "`x`: 1 of 4 texts is longer than 16 tokens; only its first 16 tokens are read."
    with pytest.warns(TextsCut, match=exactly(sentence)):
        p = scorer.predict(["", " ", "film " * 1000, "\u200b"])
    assert np.isfinite(p).all()
    assert p[0].tolist() == p[1].tolist() == p[3].tolist()


def test_a_text_that_spells_the_padding_token_keeps_what_follows(scorer, tiny):
    # As Hugging Face does, "[PAD]" in a text becomes the padding token: masked, but not the end of the text.
    rows = scorer.encode(["bad [PAD] good"])
    ids = rows.take(np.array([0]))["token_ids"][0]
    assert [tiny.vocabulary[i] for i in ids] == ["[CLS]", "bad", "[PAD]", "good", "[SEP]"]


# --- evaluating changes nothing ---


def test_evaluating_changes_no_weight_no_optimizer_and_no_random_state(tiny):
    model = tiny.numeric_classifier(dropout=0.5)
    x, y = tiny.numeric_rows(20)
    model.fit(x, y, verbose=0)  # so that there is an optimizer's state to change

    def state():
        variables = [*model.variables, *model.optimizer.variables]
        variables += [
            layer.seed_generator.state for layer in model.layers if hasattr(layer, "seed_generator")
        ]
        return [np.array(variable) for variable in variables]

    before, numpy_before = state(), np.random.get_state()[1].tolist()
    trainable = [id(variable) for variable in model.trainable_variables]
    model.evaluate(x, y, verbose=0)
    model.predict(x)
    fe.evaluate(model, x, y)
    for was, now in zip(before, state(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert np.random.get_state()[1].tolist() == numpy_before
    assert [id(variable) for variable in model.trainable_variables] == trainable


# --- fit ---


@pytest.mark.parametrize("data", ["arrays", "tf.data"])
def test_fit_learns(tiny, data):
    model = tiny.numeric_classifier(dropout=0.0)
    model.compile(keras.optimizers.Adam(0.05))
    x, y = tiny.numeric_rows(32)
    before = model.evaluate(x, y, verbose=0)[0]
    if data == "arrays":
        names = [tiny.labels[i] for i in y]
        history = model.fit(x, names, batch_size=8, epochs=6, validation_data=(x, names), verbose=0).history
    else:
        rows = pipeline(x, ONE_HOT[y], batch=8)
        history = model.fit(rows, epochs=6, validation_data=rows, verbose=0).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert loss < before - 0.2
    assert (loss, accuracy) == pytest.approx((history["val_loss"][-1], history["val_accuracy"][-1]), abs=1e-5)


def one_step(model, x, y, **kwargs):
    """Take one step of gradient descent at rate 1 on all rows; return how far the head's bias moved."""
    model.compile(keras.optimizers.SGD(1.0))
    before = model.get_weights()
    model.fit(x, y, batch_size=len(x), verbose=0, **kwargs)
    moved = np.array(model.get_layer("logits").bias) - before[-2]
    model.set_weights(before)
    return moved


def test_class_weight_and_sample_weight_multiply(tiny):
    # dL/db = sum over rows of w (p - y) / rows, so one step at rate 1 moves the bias by its negative.
    model = tiny.numeric_classifier(dropout=0.0)
    x, y = tiny.numeric_rows(12)
    w = np.linspace(0.5, 2, 12).astype("float32")
    p = model.predict(x).astype(float)

    def expected(weights):
        return -(weights[:, None] * (p - ONE_HOT[y])).mean(axis=0)

    class_weight = np.array([3.0, 0.25])
    assert one_step(model, x, y) == pytest.approx(expected(np.ones(12)), abs=1e-5)
    assert one_step(model, x, y, sample_weight=w) == pytest.approx(expected(w), abs=1e-5)
    by_index = one_step(model, x, y, class_weight={0: 3.0, 1: 0.25})
    assert by_index == pytest.approx(expected(class_weight[y]), abs=1e-5)
    by_name = one_step(model, x, ONE_HOT[y], class_weight={"positive": 0.25, "negative": 3.0})
    assert by_name == pytest.approx(by_index, abs=1e-6)
    both = one_step(model, x, y, class_weight={0: 3.0, 1: 0.25}, sample_weight=w)
    assert both == pytest.approx(expected(class_weight[y] * w), abs=1e-5)
    balanced = len(y) / (2 * np.bincount(y))
    assert one_step(model, x, y, class_weight="balanced") == pytest.approx(expected(balanced[y]), abs=1e-5)


def test_validation_split_takes_the_last_rows_with_their_weights(tiny):
    model = tiny.numeric_classifier(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    x, y = tiny.numeric_rows(20)
    w = np.linspace(0, 2, 20)
    history = model.fit(x, y, validation_split=0.25, verbose=0, shuffle=False).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x[15:], y[15:], verbose=0)[0], abs=1e-6)
    assert history["loss"][0] == pytest.approx(model.evaluate(x[:15], y[:15], verbose=0)[0], abs=1e-6)
    history = model.fit(x, y, validation_split=0.25, sample_weight=w, verbose=0).history
    weighted = model.evaluate(x[15:], y[15:], sample_weight=w[15:], verbose=0)[0]
    assert history["val_loss"][0] == pytest.approx(weighted, abs=1e-6)


def test_validation_weights_count(tiny):
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(12)
    w = np.linspace(0, 2, 12)
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(x, y, validation_data=(x, y, w), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(
        model.evaluate(x, y, sample_weight=w, verbose=0)[0], abs=1e-6
    )


def test_label_sorted_rows_arrive_shuffled_and_differently_each_epoch(tiny):
    # KerasHub's own Task never shuffles; Keras' arrays repeat one permutation after `set_random_seed`.
    model = tiny.numeric_classifier(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    x, y = tiny.numeric_rows(32)
    order = np.argsort(y)
    seen = []
    original = model.train_step

    def train_step(*args):  # the data come last, on JAX after the state
        seen.append(np.asarray(args[-1][1]).tolist())
        return original(*args)

    object.__setattr__(model, "train_step", train_step)
    keras.utils.set_random_seed(7)
    model.fit(x[order], y[order], batch_size=32, epochs=3, verbose=0)
    assert all(sorted(labels) == sorted(y.tolist()) for labels in seen) and len(seen) == 3
    assert all(labels != sorted(labels) for labels in seen)
    assert len({tuple(labels) for labels in seen}) == 3


def test_freezing_takes_effect_after_compiling_and_is_refused_before(tiny):
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(20)
    model.fit(x, y, verbose=0)
    model.backbone.trainable = False
    with pytest.raises(
        ValueError,
        match=exactly(
            "Which weights are trained was changed since the model was compiled (by `trainable`, "
            "`enable_lora` or `quantize`); call `model.compile()` again, then `fit`."
        ),
    ):
        model.fit(x, y, verbose=0)
    model.compile(keras.optimizers.SGD(0.1))
    kernel, head = np.array(model.backbone.weights[0]), np.array(model.get_layer("logits").kernel)
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(kernel, np.array(model.backbone.weights[0]))
    assert np.abs(head - np.array(model.get_layer("logits").kernel)).max() > 0


# --- saving and loading ---


@pytest.fixture(scope="module")
def trained(tiny):
    """A classifier of texts that was trained a step, calibrated and given a threshold."""
    model = tiny.text_classifier()
    model.compile(keras.optimizers.SGD(0.1))
    before = model.predict(tiny.texts)
    model.fit(pipeline(list(tiny.texts), ONE_HOT[list(tiny.sentiments)], batch=4), verbose=0)
    assert np.abs(model.predict(tiny.texts) - before).max() > 1e-3
    model.temperature = 1.7
    model.threshold = 0.4
    return model


@pytest.mark.parametrize("way", ["load_model", "keras", "preset"])
def test_a_saved_model_gives_the_same_probabilities_to_the_bit(trained, tiny, tmp_path, way):
    if way == "preset":
        trained.save_to_preset(str(tmp_path / "preset"))
        again = fe.load_model(tmp_path / "preset")
    else:
        trained.save(tmp_path / "m.keras")
        again = (fe.load_model if way == "load_model" else keras.saving.load_model)(tmp_path / "m.keras")
    assert isinstance(again, Classifier)
    np.testing.assert_array_equal(again.predict(tiny.texts), trained.predict(tiny.texts))
    assert (again.labels, again.pooling, again.threshold) == (tiny.labels, "mean", 0.4)
    assert again.temperature == pytest.approx(1.7)
    if way == "keras":  # it is compiled as the original is
        expected = trained.evaluate(tiny.texts, tiny.sentiments, verbose=0)
        assert again.evaluate(tiny.texts, tiny.sentiments, verbose=0) == expected


def test_a_saved_model_goes_on_training_as_the_original_would(tiny, tmp_path):
    x, y = tiny.numeric_rows(20)
    model = tiny.numeric_classifier(dropout=0.0)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, y, verbose=0, shuffle=False)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras")
    for each in (model, again):
        each.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_new_process_gives_the_same_bits(trained, tiny, tmp_path):
    trained.save(tmp_path / "m.keras")
    np.save(tmp_path / "expected.npy", trained.predict(tiny.texts))
    program = (
        "import sys, numpy as np, finetune_eval as fe\n"
        "model = fe.load_model(sys.argv[1] + '/m.keras')\n"
        "np.save(sys.argv[1] + '/got.npy', model.predict(sys.argv[2:]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *tiny.texts], check=True, capture_output=True
    )
    np.testing.assert_array_equal(np.load(tmp_path / "got.npy"), np.load(tmp_path / "expected.npy"))


def test_frozen_layers_stay_frozen_when_loaded(tiny, tmp_path):
    model = tiny.text_classifier(layers=2, freeze=1)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras")
    names = [variable.path for variable in model.trainable_variables]
    assert [variable.path for variable in again.trainable_variables] == names
    assert not any("transformer_layer_0" in name or "embedding" in name for name in names)
    assert any("transformer_layer_1" in name for name in names)


# --- deciding ---


def test_decide_uses_the_threshold_of_the_model(tiny):
    model = tiny.numeric_classifier()
    p = np.array([[0.5, 0.5], [0.7, 0.3], [0.4, 0.6], [0.71, 0.29]])
    assert model.decide(p).tolist() == [0, 0, 1, 0]  # of equal ones the first, as argmax
    model.threshold = 0.3
    assert model.decide(p).tolist() == [1, 1, 1, 0]


def test_decide_gives_none_of_the_classes_where_an_answer_is_unsure(tiny):
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0], [0.2, 0.7, 0.1]], dtype=np.float32)
    model = tiny.numeric_classifier(["a", "b", "c"])
    model.abstention = float(np.float32(0.7))
    assert model.decide(p).tolist() == [-1, 1, 2, 1]
    two = tiny.numeric_classifier()
    two.threshold = 0.3
    two.abstention = 0.6  # of the second class, from 0.3 on the answer, as of the first
    pairs = np.array([[0.65, 0.35], [0.75, 0.25], [0.3, 0.7]])
    assert two.decide(pairs).tolist() == [-1, 0, 1]


def test_an_abstention_is_chosen_kept_and_forgotten_with_what_it_rests_on(tiny, tmp_path):
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(200)
    y = model.predict(x).argmax(axis=1)  # all answers are right
    chosen = model.choose_abstention(x, y)
    assert model.abstention is chosen and chosen.coverage == 1.0
    model.abstention = dataclasses.replace(chosen, value=0.9)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras")
    assert again.abstention == model.abstention
    assert fe.evaluate(again, x, y).answered.n == (model.predict(x).max(axis=1) >= 0.9).sum()
    with pytest.raises(ValueError, match="^`goal` must bound the error"):
        model.choose_abstention(x, y, goal="f1")
    assert model.abstention.value == 0.9
    model.calibrate(x, y)
    assert model.abstention is None


def test_a_temperature_changes_confidence_and_no_answer(scorer, tiny):
    p = scorer.predict(tiny.texts)
    try:
        scorer.temperature = 2.0
        softer = scorer.predict(tiny.texts)
    finally:
        scorer.temperature = 1.0
    # softmax(z / 2) is proportional to the square root of softmax(z).
    root = np.sqrt(p.astype(float))
    assert softer == pytest.approx(root / root.sum(axis=1, keepdims=True), abs=1e-6)


# --- bad input ---

TWO = ["a good film", "bad"]


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda m: m.evaluate(TWO), ValueError,
         "`y` is None; `evaluate` needs a label for each row: class indices or class names."),
        (lambda m: m.fit(TWO), ValueError,
         "`y` is None; `fit` needs a label for each row: class indices or class names."),
        (lambda m: m.evaluate(TWO, [1]), ValueError,
         "`x` and `y` must have the same number of rows; got 2 and 1."),
        (lambda m: m.evaluate([], []), ValueError, "`x` has no rows; at least one is needed."),
        (lambda m: m.fit([], []), ValueError, "`x` has no rows; at least one is needed."),
        (lambda m: m.predict([]), ValueError, "`x` has no rows; at least one is needed."),
        (lambda m: m.predict(None), ValueError, "`x` is None; one value for each row is needed."),
        (lambda m: m.predict("a film"), TypeError,
         "`x` is a single text; pass a list with one value for each row, even for one row: [x]."),
        (lambda m: m.predict(3), TypeError,
         "`x` must be a list, array or Series with one value for each row; got int."),
        (lambda m: m.predict(["a", None]), ValueError,
         "`x` has no text in row 1 (None); drop the row, or write '' where a text is empty."),
        (lambda m: m.predict(["a", float("nan")]), ValueError,
         "`x` has no text in row 1 (nan); drop the row, or write '' where a text is empty."),
        (lambda m: m.predict(["a", 1]), TypeError, "`x` must hold texts; row 1 is 1 (int)."),
        (lambda m: m.predict([b"\xff"]), ValueError,
         "`x` has bytes in row 0 that are not UTF-8; decode them first."),
        (lambda m: m.predict([["a", "b"]]), TypeError,
         "`x` holds two texts a row, and this model reads one; build it with "
         "`build_model(..., pairs=True)`, or join the two."),
        (lambda m: m.predict([["a", "b", "c"]]), ValueError,
         "`x` must have one value a row, shape (rows,); got (1, 3)."),
        (lambda m: m.predict(["fine", "half \ud83d pair"]), ValueError,
         "`x` must hold valid Unicode; row 1 is 'half \\ud83d pair', with half a surrogate pair. "
         "Write it as `text.encode('utf-8', 'replace').decode()`."),
        (lambda m: m.evaluate(TWO, [0, 2]), ValueError,
         "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is 2."),
        (lambda m: m.evaluate(TWO, [0, -1]), ValueError,
         "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is -1."),
        (lambda m: m.evaluate(TWO, [0, 0.7]), ValueError,
         "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is 0.7."),
        (lambda m: m.evaluate(TWO, [0, np.nan]), ValueError,
         "`y` has no label in row 1; drop the row or give it a label."),
        (lambda m: m.evaluate(TWO, ["positive", "negativ"]), ValueError,
         "`y` has an unknown label 'negativ' in row 1; the labels are 'negative', 'positive'. "
         "Did you mean 'negative'?"),
        (lambda m: m.evaluate(TWO, [[0.5, 0.5], [0, 1]]), ValueError,
         "`y` with 2 columns must be one-hot, with exactly one 1 in each row and the rest 0; row 0 is "
         "[0.5, 0.5]. Rows that may have several labels need `task='multilabel'`."),
        (lambda m: m.evaluate(TWO, [0, 1], sample_weight=[0, 0]), ValueError,
         "`sample_weight` is 0 in every row; at least one row must count."),
        (lambda m: m.evaluate(TWO, [0, 1], sample_weight=[1, -1]), ValueError,
         "`sample_weight` must be finite and not negative; row 1 is -1.0."),
        (lambda m: m.evaluate(TWO, [0, 1], sample_weight=[1]), ValueError,
         "`sample_weight` must have one value for each of the 2 rows; got 1."),
        (lambda m: m.fit(TWO, [0, 1], class_weight={0: 1.0}), ValueError,
         "`class_weight` has no weight for 'positive'; give every class one."),
        (lambda m: m.fit(TWO, [0, 1], class_weight={"positiv": 1.0}), ValueError,
         "`class_weight.keys()` has an unknown label 'positiv' in row 0; the labels are 'negative', "
         "'positive'. Did you mean 'positive'?"),
        (lambda m: m.fit(TWO, [0, 0], class_weight="balanced"), ValueError,
         "`class_weight` 'balanced' needs a row of every class; there is none of 'positive'."),
        (lambda m: m.fit(TWO, [0, 1], validation_split=0.5, validation_data=(TWO, [0, 1])), ValueError,
         "`validation_split` and `validation_data` are both given; pass one of them."),
        (lambda m: m.fit(TWO, [0, 1], validation_data=(TWO, [0, 5])), ValueError,
         "`validation y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is "
         "5."),
        (lambda m: m.predict(TWO, batch_size=0), ValueError, "`batch_size` must be at least 1; got 0."),
    ],
)  # fmt: skip
def test_bad_rows_get_one_sentence(scorer, call, error, sentence):
    with pytest.raises(error, match=exactly(sentence)):
        call(scorer)


WITHIN = " (Rows are counted within the batch.)"


@pytest.mark.parametrize(
    "data, error, sentence",
    [
        (lambda: pipeline(TWO), ValueError,
         "`x` is a pipeline without labels; each element must be `(x, y)`."),
        (lambda: pipeline(TWO, [0, 1], batch=None), ValueError,
         "`x` is a pipeline of single rows; batch it first: `x.batch(32)`."),
        (lambda: pipeline(np.zeros((2, 3)), [0, 1]), TypeError,
         "`x` is a pipeline of float64; this model takes strings."),
        (lambda: pipeline(TWO, ["positive", "god"]), ValueError,
         f"`y` has an unknown label 'god' in row 1; the labels are 'negative', 'positive'.{WITHIN}"),
    ],
)  # fmt: skip
def test_bad_pipelines_of_texts_get_one_sentence(scorer, data, error, sentence):
    with pytest.raises(error, match=exactly(sentence)):
        scorer.evaluate(data(), verbose=0)


@pytest.mark.parametrize("verb", ["evaluate", "fit"])
@pytest.mark.parametrize("label", [-1, 2, 0.5])
def test_a_label_out_of_range_in_a_pipeline_gets_one_sentence(numeric_scorer, verb, label):
    # TensorFlow on its own counts -1 as the last class and cuts 0.5 to 0.
    weights = numeric_scorer.get_weights()
    data = pipeline(np.zeros((2, 10)), [0, label])
    sentence = "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 1 is "
    sentence += f"{label}.{WITHIN}"
    with pytest.raises(ValueError, match=exactly(sentence)):
        getattr(numeric_scorer, verb)(data, verbose=0)
    for was, now in zip(weights, numeric_scorer.get_weights(), strict=True):
        np.testing.assert_allclose(was, now, rtol=1e-6)  # one step of weight decay may have been taken


def test_class_weights_of_a_pipeline(tiny):
    model = tiny.numeric_classifier(dropout=0.0)
    x, y = tiny.numeric_rows(12)
    by_index = one_step(model, x, y, class_weight={0: 3.0, 1: 0.25})
    data = pipeline(x, y, batch=12)
    model.compile(keras.optimizers.SGD(1.0))
    before = np.array(model.get_layer("logits").bias)
    model.fit(data, class_weight={"negative": 3.0, "positive": 0.25}, verbose=0)
    assert np.array(model.get_layer("logits").bias) - before == pytest.approx(by_index, abs=1e-6)
    sentence = "`class_weight` 'balanced' needs labels that can be counted: pass arrays, or a dict."
    with pytest.raises(ValueError, match=exactly(sentence)):
        model.fit(data, class_weight="balanced", verbose=0)


@pytest.mark.parametrize(
    "x, error, sentence",
    [
        ([["a"] * 10], TypeError, "`x` must hold real numbers; got 'a' (dtype object)."),
        ([["1"] * 10], TypeError, "`x` must hold real numbers; got '1' (dtype object)."),
        (np.ones((1, 10)) * 1j, TypeError,
         "`x` must hold real numbers; got np.complex128(1j) (dtype complex128)."),
        (np.zeros((1, 10), dtype="datetime64[D]"), TypeError,
         "`x` must hold real numbers; got np.datetime64('1970-01-01') (dtype datetime64[D])."),
        (np.zeros((3, 9)), ValueError, "`x` must have shape (rows, 10); got (3, 9)."),
        (np.zeros(10), ValueError, "`x` must have shape (rows, 10); got (10,)."),
        (np.where(np.arange(30) == 14, np.nan, 0).reshape(3, 10), ValueError,
         "`x` has NaN in row 1, column 4; drop the row or fill it."),
        (np.where(np.arange(30) == 29, -np.inf, 0).reshape(3, 10), ValueError,
         "`x` has infinity in row 2, column 9; drop the row or fill it."),
    ],
)  # fmt: skip
def test_bad_numbers_get_one_sentence(numeric_scorer, x, error, sentence):
    with pytest.raises(error, match=exactly(sentence)):
        numeric_scorer.predict(x)
    if error is ValueError and np.ndim(x) == 2 and np.shape(x)[1] == 10:
        with pytest.raises(error, match=exactly(sentence + WITHIN)):
            numeric_scorer.predict(pipeline(x, batch=3), verbose=0)
    assert not np.isnan(np.concatenate([w.ravel() for w in numeric_scorer.get_weights()])).any()


def test_a_temperature_must_be_positive(scorer):
    with pytest.raises(ValueError, match=exactly("`temperature` must be a finite number above 0; got 0.")):
        scorer.temperature = 0
