"""Weights of classes and rows, focal loss, and the check that something was learned."""

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score
from sklearn.utils.class_weight import compute_class_weight

import finetune_eval as fe
from finetune_eval.models.inputs import class_weights
from finetune_eval.models.layers import CrossEntropy, FocalLoss


def whole(p):
    """Return probabilities whose sums miss 1 by less than scikit-learn's tolerance for float64."""
    p = p.astype(np.float64)
    return p / p.sum(axis=1, keepdims=True)


def test_balanced_classes_count_rows_by_their_weights_as_in_scikit_learn():
    random = np.random.default_rng(0)
    y, own = random.choice(3, 60, p=[0.7, 0.2, 0.1]), random.uniform(0, 2, 60)
    ours = own * class_weights("balanced", ("a", "b", "c"), y, own)[y]
    by_class = compute_class_weight("balanced", classes=np.arange(3), y=y, sample_weight=own)
    np.testing.assert_allclose(ours, own * by_class[y], rtol=1e-6)
    # Which is what balanced means: each class has the same total weight.
    np.testing.assert_allclose(np.bincount(y, weights=ours), own.sum() / 3, rtol=1e-6)


def test_weighted_validation_is_that_of_scikit_learn(tiny):
    x, y = tiny.numeric_rows(40)
    val_x, val_y = tiny.numeric_rows(37, seed=1)
    weights = np.random.default_rng(0).uniform(0, 5, 37)
    model, random = tiny.numeric_classifier(dropout=0.0), np.random.default_rng(3)
    for variable in model.trainable_variables:  # Keras' own initial weights differ by backend
        variable.assign(random.normal(0, 0.5, variable.shape))
    run = fe.fine_tune(
        model, x, y, validation_data=(val_x, val_y, weights), class_weight={0: 1.5, 1: 1}, epochs=3,
        batch_size=8, learning_rate=0.05, verbose=False,
    )  # fmt: skip
    p = whole(model.predict(val_x, verbose=0))
    answers = p.argmax(axis=1)
    found = run.trace.epochs[run.trace.best_epoch - 1].metrics
    assert found["val_loss"] == pytest.approx(log_loss(val_y, p, sample_weight=weights), abs=1e-6)
    for name, score in (("accuracy", accuracy_score), ("precision", precision_score), ("f1", f1_score)):
        expected = score(val_y, answers, sample_weight=weights)
        assert found[f"val_{name}"] == pytest.approx(expected, abs=1e-6)
        assert expected != pytest.approx(score(val_y, answers), abs=1e-3)  # the weights matter


def test_validation_weights_are_checked_and_not_ignored(tiny):
    x, y = tiny.numeric_rows(8)
    for settings in ({"calibrate": True}, {"threshold_for": "f1"}, {"abstain_for": "error<=0.1"}):
        with pytest.raises(
            ValueError,
            match="^`calibrate`, `threshold_for` and `abstain_for` do not take weights; pass "
            r"`validation_data=\(x, y\)`, or leave them out.$",
        ):
            fe.fine_tune(
                tiny.numeric_classifier(), x, y, validation_data=(x, y, np.ones(8)), verbose=False, **settings
            )
    with pytest.raises(
        ValueError, match="^`validation sample_weight` must be finite and not negative; row 3"
    ):
        fe.fine_tune(
            tiny.numeric_classifier(), x, y, validation_data=(x, y, [1, 1, 1, -1, 1, 1, 1, 1]), verbose=False
        )


# --- focal loss ---


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_focal_loss_of_either_form_of_labels_is_that_of_keras(smoothing, gamma):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), 20).astype("float32")
    y, weights = random.integers(0, 3, 20), random.uniform(0, 2, 20).astype("float32")
    keras_own = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, label_smoothing=smoothing, reduction="sum_over_batch_size"
    )
    ours = FocalLoss(gamma, label_smoothing=smoothing)
    one_hot = np.eye(3, dtype="float32")[y]
    expected = float(keras_own(one_hot, p, sample_weight=weights))
    assert float(ours(y, p, sample_weight=weights)) == pytest.approx(expected, rel=1e-5)
    assert float(ours(one_hot, p, sample_weight=weights)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_by_hand():
    # Of a row whose class has 0.9: (1 - 0.9)^2 * -log 0.9 = 0.01 * 0.105361; of one that has 0.1:
    # 0.81 * 2.302585. A gamma of 0 is the cross-entropy. A probability of 0 or 1 has a finite loss.
    p = np.array([[0.1, 0.9], [0.9, 0.1]], "float32")
    y = np.array([1, 1])
    assert np.array(FocalLoss().call(y, p)) == pytest.approx([0.01 * 0.105361, 0.81 * 2.302585], rel=1e-4)
    np.testing.assert_allclose(FocalLoss(0.0).call(y, p), CrossEntropy().call(y, p), rtol=1e-6)
    assert np.isfinite(np.array(FocalLoss().call(y, np.array([[0, 1], [1, 0]], "float32")))).all()


def test_a_run_minimises_the_focal_loss_and_then_evaluates_the_cross_entropy(tiny):
    x, y = tiny.numeric_rows(40)
    model = tiny.numeric_classifier(dropout=0.0)
    run = fe.fine_tune(
        model, x, y, validation_data=(x, y), loss="focal", label_smoothing=0.1, epochs=1, learning_rate=0.05,
        verbose=False,
    )  # fmt: skip
    p = whole(model.predict(x, verbose=0))
    focal = float(FocalLoss(label_smoothing=0.1)(y, p))
    assert run.trace.epochs[0].metrics["val_loss"] == pytest.approx(focal, abs=1e-6)
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(log_loss(y, p), abs=1e-6)
    assert focal < 0.6 * log_loss(y, p)
    assert run.manifest["settings"]["loss"] == "focal"


# --- did it learn? ---


def first_epoch(tiny, x, y, **settings):
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "verbose": False, **settings}
    model = tiny.numeric_classifier(dropout=0.0)
    model.get_layer("logits").bias.assign(settings.pop("bias", [0, 0]))
    return fe.fine_tune(model, x, y, **settings)


ADVICE = (
    ": it has learned nothing of the rows yet. If more epochs do not help, change `learning_rate` (it is "
    "{}), and check that each row has its own label."
)


def test_one_answer_for_all_validation_rows_is_one_sentence(tiny, capsys):
    x, y = tiny.numeric_rows(40)
    rare = np.where(np.arange(40) == 3, 1, 0)
    run = first_epoch(tiny, x, rare, validation_data=(x, y), verbose=True)
    sentence = "After the first epoch the model answers 'negative' for every validation row"
    assert run.manifest["did_not_learn"] == sentence + ADVICE.format("0.05")
    shown = capsys.readouterr().out
    assert " ".join(shown.split()).count("it has learned nothing of the rows yet") == 1
    assert max(map(len, shown.splitlines())) <= 80
    alone = first_epoch(tiny, x, rare, learning_rate=1e-3, bias=[5, -5])
    assert "for every training row" in alone.manifest["did_not_learn"]


def test_a_loss_above_that_of_the_class_shares_is_one_sentence(tiny):
    # 30 of 40 validation rows are of class 0: entropy -(0.75 ln 0.75 + 0.25 ln 0.25) = 0.562.
    x, y = tiny.numeric_rows(200)
    val_x = np.concatenate([x[y == 0][:30], x[y == 1][:10]])
    val_y = np.repeat([0, 1], [30, 10])
    run = first_epoch(tiny, x, 1 - y, validation_data=(val_x, val_y))  # all labels are wrong
    loss = run.trace.epochs[0].metrics["val_loss"]
    assert loss > 0.562
    assert run.manifest["did_not_learn"] == (
        f"After the first epoch the validation loss of the model is {loss:.3f}, above the 0.562 of always "
        "answering with the shares of the classes" + ADVICE.format("0.05")
    )


@pytest.mark.parametrize("settings", [{}, {"loss": "focal"}, {"label_smoothing": 0.3}], ids=str)
def test_a_model_that_learns_is_left_alone(tiny, settings):
    x, y = tiny.numeric_rows(200)
    run = first_epoch(tiny, x, y, validation_data=tiny.numeric_rows(60, seed=1), **settings)
    assert run.trace.epochs[0].metrics["val_accuracy"] > 0.8
    assert "did_not_learn" not in run.manifest
