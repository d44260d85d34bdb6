"""ClassificationMetrics and EpochTrace in a plain `fit` of models this library never made."""

import functools
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import precision_recall_fscore_support

from finetune_eval import ClassificationMetrics, EpochTrace
from finetune_eval.traces.training import TrainingTrace

NAMES = ("val_precision", "val_recall", "val_f1")


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def rows(classes, n=30, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 5)).astype("float32"), random.integers(0, classes, n)


def functional(outputs, activation=None):
    inputs = keras.Input((5,))
    kernel = keras.initializers.RandomNormal(stddev=2, seed=3)  # wide enough that every class is answered
    return keras.Model(inputs, keras.layers.Dense(outputs, activation, kernel_initializer=kernel)(inputs))


class Subclassed(keras.Model):
    def __init__(self, outputs, activation=None):
        super().__init__()
        self.dense = keras.layers.Dense(outputs, activation, kernel_initializer="random_normal")

    def call(self, x):
        return self.dense(x)


class Answers(keras.callbacks.Callback):
    """What scikit-learn says of the answers of the very weights that each epoch ended with."""

    def __init__(self, x, y, average, cut=None):
        super().__init__()
        self.x, self.y, self.average, self.cut = x, y, average, cut
        self.logs, self.expected = [], []

    def on_epoch_end(self, epoch, logs=None):
        output = keras.ops.convert_to_numpy(self.model(self.x))
        answers = output.argmax(axis=1) if self.cut is None else (output[:, 0] >= self.cut).astype(int)
        scores = precision_recall_fscore_support(self.y, answers, average=self.average, zero_division=0)
        self.expected.append(scores[:3])
        self.logs.append(dict(logs))

    def check(self, epochs):
        assert len(self.logs) == epochs
        for logs, expected in zip(self.logs, self.expected, strict=True):
            assert [logs[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)


SPARSE, CATEGORICAL, BINARY = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.BinaryCrossentropy,
)


@pytest.mark.parametrize(
    "model, loss, shape, cut",
    [
        (lambda: functional(3, "softmax"), SPARSE(), "(n,)", None),
        (lambda: functional(3), SPARSE(from_logits=True), "(n, 1)", None),
        (lambda: functional(3), CATEGORICAL(from_logits=True), "one-hot", None),
        (lambda: functional(2, "softmax"), "sparse_categorical_crossentropy", "(n,)", None),
        (lambda: functional(1, "sigmoid"), "binary_crossentropy", "(n,)", 0.5),
        (lambda: functional(1, "sigmoid"), BINARY(), "(n, 1)", 0.5),
        (lambda: functional(1), BINARY(from_logits=True), "(n,)", 0.0),
        (lambda: functional(1), [BINARY(from_logits=True)], "(n, 1)", 0.0),
        (lambda: functional(1, "sigmoid"), "mse", "(n, 1)", 0.5),
        (lambda: Subclassed(3, "softmax"), SPARSE(), "(n,)", None),
        (lambda: Subclassed(1), BINARY(from_logits=True), "(n, 1)", 0.0),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), SPARSE(from_logits=True), "(n,)", None),
    ],
    ids=[
        "softmax", "logits, (n, 1)", "logits, one-hot", "two classes", "sigmoid, string loss", "sigmoid",
        "one logit", "one logit, listed loss", "sigmoid, mse", "subclassed", "subclassed logit",
        "Sequential not built",
    ],
)  # fmt: skip
def test_every_epoch_equals_scikit_learn(model, loss, shape, cut):
    made = model()
    classes = max(2, made.layers[-1].units)
    x, y = rows(classes)
    val_x, val_y = rows(classes, 23, seed=1)
    form = {"(n,)": lambda y: y, "(n, 1)": lambda y: y[:, None], "one-hot": lambda y: np.eye(classes)[y]}[
        shape
    ]
    made.compile(keras.optimizers.SGD(0.5), loss)
    check = Answers(val_x, val_y, "binary" if classes == 2 else "macro", cut)
    train, validation = (x, form(y)), (val_x, form(val_y))
    callbacks = [ClassificationMetrics(), check]
    made.fit(*train, validation_data=validation, epochs=2, verbose=0, callbacks=callbacks)
    check.check(2)
    assert {"precision", "recall", "f1"} <= set(check.logs[0])


@pytest.mark.parametrize(
    "model", [lambda: functional(3), lambda: Subclassed(3)], ids=["functional", "subclassed"]
)
@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: np.eye(3)[y]], ids=["(n, 1)", "one-hot"])
def test_every_epoch_equals_scikit_learn_on_pipelines(model, form):
    made, (x, y), (val_x, val_y) = model(), rows(3), rows(3, 23, seed=1)
    loss = SPARSE if form(y).shape[1] == 1 else CATEGORICAL
    made.compile(keras.optimizers.SGD(0.5), loss(from_logits=True))
    check = Answers(val_x, val_y, "macro")
    train = tf.data.Dataset.from_tensor_slices((x, form(y))).batch(8)
    validation = tf.data.Dataset.from_tensor_slices((val_x, form(val_y))).batch(8)
    made.fit(
        train, validation_data=validation, epochs=2, verbose=0, shuffle=False,
        callbacks=[ClassificationMetrics(), check],
    )  # fmt: skip
    check.check(2)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
def test_every_average_equals_scikit_learn_with_an_absent_class(average):
    # Class 3 is in no label and in no answer: scikit-learn leaves it out of the macro average, where Keras
    # counts it as 0.
    model = functional(4, "softmax")
    kernel, bias = model.get_weights()
    kernel[:, 3], bias[3] = 0, -100
    model.set_weights([kernel, bias])
    model.compile(keras.optimizers.SGD(0.1), SPARSE())
    x, y = rows(3)
    check = Answers(x, y, average)
    metrics = ClassificationMetrics(average=average)
    model.fit(x, y, validation_data=(x, y), epochs=1, verbose=0, callbacks=[check, metrics])
    check.check(1)
    assert keras.ops.convert_to_numpy(model(x)).argmax(axis=1).max() == 2


def test_binary_average_of_a_softmax_counts_class_one_only():
    model = functional(2, "softmax")
    model.compile("sgd", SPARSE())
    x, y = rows(2)
    check = Answers(x, y, "macro")
    model.fit(
        x, y, validation_data=(x, y), verbose=0, callbacks=[ClassificationMetrics(average="macro"), check]
    )
    check.check(1)


def test_no_positive_answer_and_no_positive_label_is_zero():
    model = functional(1, "sigmoid")
    model.set_weights([np.zeros((5, 1)), np.array([-5.0])])
    model.compile(keras.optimizers.SGD(0.0), BINARY())
    x, _ = rows(2)
    check = Answers(x, np.zeros(30, int), "binary", 0.5)
    model.fit(
        x,
        np.zeros(30),
        validation_data=(x, np.zeros(30)),
        verbose=0,
        callbacks=[ClassificationMetrics(), check],
    )
    check.check(1)
    assert [check.logs[0][name] for name in NAMES] == [0, 0, 0]


def test_rows_are_counted_not_weighted():
    model = functional(3, "softmax")
    model.compile("sgd", SPARSE())
    x, y = rows(3)
    weights = np.linspace(0, 5, 30)
    check = Answers(x, y, "macro")
    model.fit(
        x, y, sample_weight=weights, validation_data=(x, y, weights), verbose=0,
        callbacks=[ClassificationMetrics(), check],
    )  # fmt: skip
    check.check(1)


@pytest.mark.parametrize("make", [functional, Subclassed], ids=["functional", "subclassed"])
def test_training_counts_are_those_of_the_rows_of_the_epoch(make):
    # At rate 0 the weights stand still: the epoch's own numbers must equal those of the rows.
    model = make(3, "softmax")
    model.compile(keras.optimizers.SGD(0.0), SPARSE())
    x, y = rows(3)
    history = model.fit(x, y, batch_size=7, epochs=2, verbose=0, callbacks=[ClassificationMetrics()]).history
    answers = keras.ops.convert_to_numpy(model(x)).argmax(axis=1)
    expected = precision_recall_fscore_support(y, answers, average="macro", zero_division=0)[:3]
    for epoch in range(2):
        assert [history[name][epoch] for name in ("precision", "recall", "f1")] == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_early_stopping_and_checkpoints_see_val_f1_on_either_side(first, tmp_path):
    model = functional(2, "softmax")
    model.compile(keras.optimizers.SGD(0.0), SPARSE())  # never better: stops after `patience` epochs
    x, y = rows(2)
    stop = keras.callbacks.EarlyStopping(monitor="val_f1", mode="max", patience=1)
    file = tmp_path / "{val_f1:.3f}.keras"
    save = keras.callbacks.ModelCheckpoint(file, monitor="val_f1", mode="max", save_best_only=True)
    metrics = ClassificationMetrics()
    callbacks = [metrics, stop, save] if first else [stop, save, metrics]
    history = model.fit(x, y, validation_data=(x, y), epochs=9, verbose=0, callbacks=callbacks).history
    assert len(history["val_f1"]) == 2
    saved = list(tmp_path.iterdir())
    assert [path.name for path in saved] == [f"{history['val_f1'][0]:.3f}.keras"]
    again = keras.saving.load_model(saved[0])
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_the_model_is_left_as_it_was(tmp_path):
    model = functional(2, "softmax")
    model.compile(keras.optimizers.SGD(0.0), SPARSE(), metrics=["accuracy"])
    x, y = rows(2)
    before = model.evaluate(x, y, verbose=0)
    own = {name for name in vars(model)}
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[ClassificationMetrics()])
    assert model.evaluate(x, y, verbose=0) == pytest.approx(before)
    assert "compute_metrics" not in {name for name in vars(model)} - own
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
    assert set(model.fit(x, y, verbose=0).history) == {"accuracy", "loss"}
    model.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").evaluate(x, y, verbose=0) == pytest.approx(before)


def test_two_fits_in_a_row_count_from_zero():
    model = functional(3, "softmax")
    model.compile(keras.optimizers.SGD(0.1), SPARSE())
    x, y = rows(3)
    metrics = ClassificationMetrics()
    for n in (30, 11):
        check = Answers(x[:n], y[:n], "macro")
        model.fit(x, y, validation_data=(x[:n], y[:n]), verbose=0, callbacks=[metrics, check])
        check.check(1)


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("same", [True, False], ids=["same callback", "new callback"])
def test_a_fit_after_an_interrupted_one_counts_right(same):
    model = functional(3, "softmax")
    model.compile(keras.optimizers.SGD(0.1), SPARSE())
    x, y = rows(3)
    metrics = ClassificationMetrics()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, verbose=0, callbacks=[metrics, Fails()])
    check = Answers(x, y, "macro")
    again = metrics if same else ClassificationMetrics()
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[again, check])
    check.check(1)
    assert [metric.name for metric in model.metrics] == ["loss"]


def test_a_metric_of_the_same_name_does_not_stand_in_the_way():
    model = functional(1)
    model.compile("sgd", BINARY(from_logits=True), metrics=[keras.metrics.Precision(name="precision")])
    x, y = rows(2)
    check = Answers(x, y, "binary", 0.0)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[ClassificationMetrics(), check])
    check.check(1)  # Keras' own cuts the logit at 0.5


class OwnStep(Subclassed):
    def train_step(self, *args):
        if keras.backend.backend() == "jax":
            return {"loss": keras.ops.zeros(())}, args[0]  # the state as it was
        if keras.backend.backend() == "torch":
            return {"loss": keras.ops.zeros(())}
        x, y = args[0]
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def refused(model, y, loss, sentence, **kwargs):
    model.compile("sgd", loss)
    x, _ = rows(2)
    with pytest.raises(ValueError, match=exactly(sentence)):
        model.fit(x, y, verbose=0, callbacks=[ClassificationMetrics(**kwargs)])


def test_a_label_that_is_no_class_is_refused():
    y = np.arange(30) % 3
    sentence = (
        "`y` must be class indices from 0 to 1 or one-hot rows, for the model has 2 classes; "
        "10 of 30 labels seen are not."
    )
    if keras.backend.backend() != "torch":  # which refuses a label of 2 by itself
        refused(functional(1, "sigmoid"), y, BINARY(), sentence)  # Keras trains on labels 0..2 without a word
    refused(functional(1, "sigmoid"), np.where(y == 2, 0.7, y), BINARY(), sentence)
    refused(
        functional(2),
        np.where(y[:, None] == 2, 1, np.eye(3)[y][:, :2]),
        CATEGORICAL(from_logits=True),
        sentence,
    )


def test_a_model_that_counts_nothing_is_refused():
    sentence = (
        "`ClassificationMetrics` counted no row: the model's own `train_step` must call "
        "`self.compute_metrics(x, y, y_pred, sample_weight)`."
    )
    refused(OwnStep(2, "softmax"), np.arange(30) % 2, SPARSE(), sentence)


def test_one_output_with_a_softmax_loss_is_refused():
    # Keras reports a loss of 0 for y = 0, and an accuracy that looks fine.
    sentence = (
        "The model has one output and the loss 'sparse_categorical_crossentropy', whose softmax over one "
        "output is always 1; use a binary cross-entropy, or one output a class."
    )
    refused(functional(1), np.zeros(30), SPARSE(from_logits=True), sentence)


def test_one_output_that_may_be_anything_is_refused_unless_told():
    sentence = (
        "The model's one output may be a logit or a probability; say which: "
        "`ClassificationMetrics(from_logits=True)` or `from_logits=False`."
    )
    y = np.arange(30) % 2
    refused(functional(1), y, "hinge", sentence)
    model, x = functional(1), rows(2)[0]
    model.compile("sgd", "hinge")
    check = Answers(x, y, "binary", 0.0)
    metrics = ClassificationMetrics(from_logits=True)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[metrics, check])
    check.check(1)


def test_a_partial_loss_tells_whether_there_are_logits():
    model, (x, y) = functional(1), rows(2)
    model.compile("sgd", functools.partial(keras.losses.binary_crossentropy, from_logits=True))
    check = Answers(x, y, "binary", 0.0)
    y = y[:, None]
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[ClassificationMetrics(), check])
    check.check(1)


@pytest.mark.parametrize(
    "model, labels, sentence",
    [
        (lambda i: keras.Model(i, [keras.layers.Dense(2)(i), keras.layers.Dense(2)(i)]),
         lambda x: [x[:, :2], x[:, :2]],
         "`ClassificationMetrics` needs a model with one output; this one has several."),
        (lambda i: keras.Model(i, keras.layers.Reshape((5, 1))(i)), lambda x: x,
         "`ClassificationMetrics` needs a model whose output is (rows, classes); "
         "its output is (None, 5, 1)."),
    ],
    ids=["several outputs", "three axes"],
)  # fmt: skip
def test_outputs_that_are_no_classes_are_refused(model, labels, sentence):
    made, (x, _) = model(keras.Input((5,))), rows(2)
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match=exactly(sentence)):
        made.fit(x, labels(x), verbose=0, callbacks=[ClassificationMetrics()])


def test_a_wrong_average_is_one_sentence():
    sentence = "`average` must be one of 'auto', 'binary', 'macro', 'micro', 'weighted'; got 'marco'."
    with pytest.raises(ValueError, match=exactly(f"{sentence} Did you mean 'macro'?")):
        ClassificationMetrics(average="marco")
    sentence = "`average` 'binary' needs two classes; the model has 3. Use 'macro', 'micro' or 'weighted'."
    refused(functional(3, "softmax"), np.arange(30) % 3, SPARSE(), sentence, average="binary")


# --- EpochTrace ---


def test_epoch_trace_holds_what_history_holds(tmp_path):
    model = functional(2, "softmax")
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001])
    model.compile(keras.optimizers.SGD(rates), SPARSE(), metrics=["accuracy"])
    x, y = rows(2)
    shown = []
    tracer = EpochTrace(rows=30, val_rows=30, path=tmp_path / "trace.jsonl", show=shown.append)
    fitted = model.fit(
        x,
        y,
        batch_size=10,
        validation_data=(x, y),
        epochs=3,
        verbose=0,
        callbacks=[ClassificationMetrics(), tracer],
    )
    history = fitted.history
    records = tracer.trace.epochs
    assert [record.epoch for record in records] == [1, 2, 3]
    for name, values in history.items():
        assert [record.metrics[name] for record in records] == pytest.approx(values)
    # Steps 0-2, 3-5, 6-8; a rate holds up to and with its boundary, 2 and 4.
    assert [record.learning_rate for record in records] == pytest.approx([0.1, 0.001, 0.001])
    assert all(record.seconds > 0 and record.observation for record in records)
    assert tracer.trace.best_epoch == 1 + int(np.argmin(history["val_loss"]))
    assert len(shown) == 4  # a header and three rows
    assert TrainingTrace.load(tmp_path / "trace.jsonl").epochs == records


def test_epoch_trace_without_validation_or_metrics_has_no_best_epoch():
    model = functional(2, "softmax")
    model.compile("sgd", SPARSE())
    tracer = EpochTrace()
    model.fit(*rows(2), verbose=0, callbacks=[tracer])
    assert (tracer.trace.best_epoch, tracer.trace.monitor) == (None, None)
    model.fit(*rows(2), verbose=0, epochs=2, callbacks=[tracer])
    assert len(tracer.trace.epochs) == 2  # a new fit, a new trace


def test_epoch_trace_leaves_out_metrics_with_a_value_a_class():
    model = functional(3, "softmax")
    model.compile("sgd", CATEGORICAL(), metrics=[keras.metrics.F1Score(average=None, name="each")])
    x, y = rows(3)
    tracer = EpochTrace()
    model.fit(x, np.eye(3)[y], verbose=0, callbacks=[tracer])
    assert set(tracer.trace.epochs[0].metrics) == {"loss"}


def test_epochs_are_on_disk_as_soon_as_they_end(tmp_path):
    model = functional(2, "softmax")
    model.compile("sgd", SPARSE())
    seen = []
    tracer = EpochTrace(path=tmp_path / "trace.jsonl")
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((tmp_path / "trace.jsonl").read_text().count("\n"))
    )
    model.fit(*rows(2), epochs=2, verbose=0, callbacks=[tracer, look])
    assert seen == [1, 2]
    assert json.loads((tmp_path / "trace.jsonl").read_text().splitlines()[1])["epoch"] == 2
