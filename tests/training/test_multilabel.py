"""Rows with any number of labels: read, trained, judged, saved and asked like rows of one class."""

import json
import re

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, precision_recall_fscore_support

import finetune_eval as fe
from finetune_eval.evaluation.label_thresholds import choose_label_thresholds
from finetune_eval.models.layers import MultilabelCrossEntropy, MultilabelFocalLoss

LABELS = ("acting", "plot", "music")


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def rows(n=90, seed=0):
    """Return x (n, 10) and y (n, 3): label k is there where column k is above 0, or 0.5 of the last."""
    x = np.random.default_rng(seed).normal(size=(n, 10)).astype("float32")
    return x, (x[:, :3] > [0, 0, 0.5]).astype(int)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A model of texts that was trained for two epochs, its run and its rows."""
    model = tiny.text_classifier(LABELS, task="multilabel")
    x = list(tiny.texts) * 3
    y = np.array([[("good" in text), ("film" in text), ("very" in text)] for text in x]).astype(int)
    run = fe.fine_tune(
        model, x, y, validation_data=(x[:8], y[:8]), epochs=2, learning_rate=1e-2, precision="float32",
        run_dir=tmp_path_factory.mktemp("multilabel") / "run", verbose=False,
    )  # fmt: skip
    return model, run, x, y


# --- losses ---


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_labels_of_the_binary_cross_entropy(smoothing):
    p, y = np.array([[0.9, 0.2, 0.5], [0.1, 0.6, 0.99]], "float32"), np.array([[1, 0, 1], [0, 1, 0]])
    soft = (1 - smoothing) * y + smoothing / 2
    by_hand = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean(axis=1)
    found = MultilabelCrossEntropy(label_smoothing=smoothing, reduction=None)(y, p)
    np.testing.assert_allclose(np.asarray(found), by_hand, rtol=2e-6)
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=2, label_smoothing=smoothing, reduction=None)(y, p)
    ours = MultilabelFocalLoss(label_smoothing=smoothing, reduction=None)(y, p)
    if not smoothing:  # Keras' factor is that of the smoothed label
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-5)


def test_a_label_that_no_training_row_has_is_named_in_a_warning(tiny):
    x, y = rows(20)
    y[:, 1] = 0
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    with pytest.warns(UserWarning, match="has labels that no training row has, .*: 'plot'. Add such rows"):
        fe.fine_tune(model, x, y, epochs=1, verbose=False)


# --- what keras and sklearn say of the same probabilities ---


def test_the_trace_has_the_numbers_of_scikit_learn(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    (x, y), (val_x, val_y) = rows(), rows(40, seed=1)
    run = fe.fine_tune(
        model, x, y, validation_data=(val_x, val_y), epochs=3, learning_rate=1e-2, verbose=False
    )
    metrics = run.trace.epochs[run.trace.best_epoch - 1].metrics
    p = model.predict(val_x, verbose=0)
    given = p >= 0.5
    expected = precision_recall_fscore_support(val_y, given, average="macro", zero_division=0)
    for name, value in zip(("val_precision", "val_recall", "val_f1"), expected, strict=False):
        assert metrics[name] == pytest.approx(value, abs=1e-6)
    assert metrics["val_accuracy"] == pytest.approx((given == val_y).all(axis=1).mean(), abs=1e-6)
    loss = np.mean([log_loss(val_y[:, k], p[:, k].astype(float)) for k in range(3)])
    assert metrics["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert run.trace.epochs[-1].metrics["loss"] < run.trace.epochs[0].metrics["loss"]
    result = fe.evaluate(model, val_x, val_y, n_resamples=200)
    assert result.task == "multilabel"
    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert model.evaluate(val_x, val_y, verbose=0) == pytest.approx([loss, result.accuracy], rel=1e-5)
    assert result["f1"].value == pytest.approx(expected[2])


def test_labels_are_learned(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(400)
    fe.fine_tune(model, x, y, epochs=30, learning_rate=1e-2, verbose=False)
    test_x, test_y = rows(300, seed=1)
    right = (model.decide(model.predict(test_x, verbose=0)) == test_y).mean(axis=0)
    assert (right > 0.9).all()  # the commonest answer to each label is right for 0.5, 0.5 and 0.69


# --- labels as people have them ---


def test_names_of_columns_say_which_label_is_which(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(20)
    frame = pd.DataFrame(y, columns=LABELS)[["music", "acting", "plot"]]
    assert model.evaluate(x, frame, verbose=0) == model.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(model.label_indices(frame), y)
    numbers = model.predict(x, verbose=0)
    named = pd.DataFrame(numbers, columns=LABELS)[["plot", "music", "acting"]]
    np.testing.assert_array_equal(model.decide(named), numbers >= 0.5)


@pytest.mark.parametrize(
    "y, sentence",
    [
        (
            [0] * 20,
            "`y` must be zeros and ones of shape (rows, 3) where task='multilabel'; got shape (20,), dtype "
            "int64.",
        ),
        (np.full((20, 3), 2), "`y` must be zeros and ones; row 0 is [2, 2, 2]."),
    ],
)
def test_other_labels_are_refused(tiny, y, sentence):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    for use in (model.fit, model.evaluate, lambda x, y: fe.fine_tune(model, x, y)):
        with pytest.raises(ValueError, match=exactly(sentence)):
            use(rows(20)[0], y)


def test_what_needs_one_class_a_row_is_refused(tiny):
    model = tiny.numeric_classifier(LABELS[:2], task="multilabel")
    x, y = rows(20)
    y = y[:, :2]
    sentence = (
        "`abstain_for` and `class_weight` need one class a row; the model may give several labels. Leave "
        "them out."
    )
    asked = {"abstain_for": "error<=0.1"}, {"class_weight": "balanced"}
    for setting in ({"validation_data": (x, y), **each} for each in asked):
        with pytest.raises(ValueError, match=exactly(sentence)):
            fe.fine_tune(model, x, y, **setting)
    with pytest.raises(ValueError, match="^`threshold_for` must be 'f1', 'accuracy', 'balanced_accuracy' or"):
        fe.fine_tune(model, x, y, validation_data=(x, y), threshold_for="precision>=0.9")
    with pytest.raises(ValueError, match="^`threshold_for` needs a label that some validation rows have and"):
        fe.fine_tune(model, x, y, validation_data=(x[:2], [[1, 0], [1, 0]]), threshold_for="f1")
    with pytest.raises(ValueError, match="^`goal` must be 'f1', 'accuracy', 'balanced_accuracy' or a bound"):
        model.choose_threshold(x, y, goal="recall>=0.9@95%")
    with pytest.raises(ValueError, match="^An abstention is of one class a row; this model may give several"):
        model.choose_abstention(x, y)
    with pytest.raises(ValueError, match="^`abstention` is of one class a row; this model may give several"):
        model.abstention = 0.8
    sentence = "`class_weight` needs one class a row; with task='multilabel' pass `sample_weight` instead."
    with pytest.raises(ValueError, match=exactly(sentence)):
        model.fit(x, y, class_weight={0: 1, 1: 2})


def test_a_pipeline_gives_the_numbers_of_the_rows(tiny):
    tf = pytest.importorskip("tensorflow")
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(20)
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    assert model.evaluate(pipeline, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6)
    model.fit(pipeline, verbose=0)
    assert fe.evaluate(model, pipeline, n_resamples=200).n == 20


def test_weights_of_rows_are_weights_of_their_losses(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(20)
    weight = np.arange(1, 21) / 10
    p = model.predict(x, verbose=0).astype(float)
    each = -np.where(y == 1, np.log(p), np.log(1 - p)).mean(axis=1)
    found = model.evaluate(x, y, sample_weight=weight, verbose=0)[0]
    assert found == pytest.approx((weight * each).mean(), rel=1e-5)


# --- what is built on it ---


def test_a_head_begins_as_a_logistic_regression_of_each_label(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(200)
    fe.fine_tune(model, x, y, strategy="head_then_full", epochs=1, learning_rate=1e-9, verbose=False)
    features = keras.Model(model.input, model.get_layer("head_dropout").input).predict(x, verbose=0)
    found = model.predict(x, verbose=0)
    for k in range(3):  # near any regression of about that penalty
        theirs = LogisticRegression().fit(features, y[:, k]).predict_proba(features)[:, 1]
        assert np.corrcoef(found[:, k], theirs)[0, 1] > 0.98
        assert found[:, k].mean() == pytest.approx(y[:, k].mean(), abs=0.01)  # as every regression has it


def test_one_temperature_lowers_the_loss_of_all_labels(tiny):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    x, y = rows(200)
    fe.fine_tune(model, x, y, strategy="head", epochs=3, verbose=False)
    head = model.get_layer("logits")
    head.set_weights([9 * weight for weight in head.get_weights()])  # far too sure
    p = model.predict(x, verbose=0).astype(float)
    logits = np.log(p) - np.log1p(-p)

    def loss(temperature):
        return np.logaddexp(0, np.where(y == 1, -1, 1) * logits / temperature).mean()

    best = minimize_scalar(loss, bounds=(0.05, 100), method="bounded", options={"xatol": 1e-6}).x
    assert model.calibrate(x, y) == pytest.approx(best, rel=1e-3)
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(loss(best), rel=1e-4)


def test_what_is_saved_is_what_is_loaded(trained, tmp_path):
    model, run, x, y = trained
    model.save(tmp_path / "m.keras")
    loaded = fe.load_model(tmp_path / "m.keras")
    assert (loaded.task, loaded.labels) == ("multilabel", LABELS)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    again = fe.load_model(run.run_dir)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_threshold_is_that_of_every_label(trained):
    model, _, x, y = trained
    p = model.predict(x, verbose=0)
    model.threshold = 0.3
    try:
        np.testing.assert_array_equal(model.decide(p), p >= 0.3)
        result = fe.evaluate(model, x, y, n_resamples=200)
        assert result.accuracy == pytest.approx(((p >= 0.3) == y).all(axis=1).mean())
    finally:
        model.threshold = None


def test_each_label_has_its_own_threshold_from_training_to_the_saved_model(tiny, tmp_path):
    model = tiny.numeric_classifier(LABELS, task="multilabel")
    (x, y), (val_x, val_y) = rows(), rows(60, seed=1)
    fe.fine_tune(
        model, x, y, validation_data=(val_x, val_y), epochs=1, learning_rate=1e-2, threshold_for="f1",
        verbose=False, run_dir=tmp_path / "run",
    )  # fmt: skip
    p = model.predict(val_x, verbose=0)
    chosen = choose_label_thresholds(val_y, p, labels=LABELS)
    assert model.threshold == chosen and len(set(chosen.values)) > 1
    cuts = np.array(chosen.values)
    np.testing.assert_array_equal(model.decide(p), p >= cuts)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["threshold"]["values"] == list(chosen.values)
    for loaded in (fe.load_model(tmp_path / "run"), model):
        assert loaded.threshold == chosen
        result = fe.evaluate(loaded, x, y, n_resamples=200, baselines=False)
        given = model.predict(x, verbose=0) >= cuts
        assert result.accuracy == pytest.approx((given == y).all(axis=1).mean())
        assert result.threshold == chosen.values
    repeated = fe.evaluate(model, val_x, val_y, n_resamples=200, baselines=False)
    assert any("chosen on these very rows" in each for each in repeated.warnings)
    model.threshold = [0.2, 0.5, 0.9]
    np.testing.assert_array_equal(model.decide(p), p >= [0.2, 0.5, 0.9])
    model.save(tmp_path / "m.keras")
    assert fe.load_model(tmp_path / "m.keras").threshold == (0.2, 0.5, 0.9)
    with pytest.raises(
        ValueError, match="^`threshold` must be one number, or one for each of the 3 labels; "
    ):
        model.threshold = [0.5, 0.5]
    with pytest.raises(ValueError, match="^`threshold` must be one number: the model gives one class a row"):
        tiny.numeric_classifier(LABELS[:2]).threshold = [0.5, 0.5]


def test_a_trace_says_that_labels_have_thresholds_of_their_own(trained):
    model, *_ = trained
    p = model.predict(["good film"], verbose=0)[0]
    model.threshold = [p[0] / 2, (1 + p[1]) / 2, p[2] / 2]
    try:
        trace = fe.trace_prediction(model, "good film")
        assert trace.answer == "acting, music"
        assert "acting, music, each label from a probability of its own on" in str(trace)
    finally:
        model.threshold = None


def test_the_run_keeps_the_rows_that_evaluate_looks_for(trained):
    model, run, x, y = trained
    result = fe.evaluate(model, x[:8], y[:8], train=run.run_dir, n_resamples=200)
    assert result.leaks.n_train == 24
    assert len(result.leaks.rows) == 8


def test_one_text_is_followed_to_its_labels(trained, capsys):
    from finetune_eval.cli import main
    from finetune_eval.models.tracing import trace_prediction

    model, run, x, _ = trained
    p = model.predict(x[:1], verbose=0)[0]
    found = trace_prediction(model, x[0])
    given = [label for label, value in zip(LABELS, p, strict=True) if value >= 0.5]
    assert found.answer == (", ".join(given) or "no label")
    assert "\nsigmoid " in str(found)
    assert found.probabilities == pytest.approx(p, abs=1e-6)
    with pytest.raises(SystemExit, match="^0$"):
        main(["predict", str(run.run_dir), x[0]])
    said = ", ".join(f"{label} {p[LABELS.index(label)]:.3f}" for label in given) or "no label"
    assert capsys.readouterr().out == f"{said}\t{x[0]}\n"


def test_a_label_that_no_row_has_is_named():
    """Its F1 of 0 is a third of the macro mean."""
    y = np.array([[1, 0, 1], [0, 0, 1]] * 10)
    found = fe.evaluate_predictions(
        y, np.tile([0.6, 0.3, 0.8], (20, 1)), labels=list("abc"), task="multilabel"
    )
    assert "No row is b: nothing is known about how such rows fare." in found.warnings
