"""A graph answers for the structure it was traced for; a plan is put back; what is trained, and how."""

import json
import re
import zipfile

import keras
import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.models import steps
from finetune_eval.models.steps import Plan, structure

X = ["a good film.", "bad film", "not good", "the cafe was very warm"] * 2
Y = [1, 0, 0, 1] * 2


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def without_a_graph(model, texts=X):
    """Return probabilities layer by layer: nothing that was traced before has a say in them."""
    batch = model.encode(texts).take(np.arange(len(texts)))
    return np.asarray(model(batch, training=False))


def two_layers(tiny, **settings):
    return tiny.text_classifier(layers=2, **settings)


# --- a changed structure ---


def enable_lora(model):
    model.backbone.enable_lora(2)
    for weight in model.weights:
        if "lora" in weight.path:
            weight.assign(np.full(weight.shape, 0.5))


def change_a_layer(model):
    dense = model.backbone.transformer_layers[0]._feedforward_intermediate_dense
    dense.activation = keras.activations.relu


def shorten(model):
    model.preprocessor.sequence_length = 4


CHANGES = {
    "LoRA": enable_lora,
    "int8": lambda model: model.quantize("int8"),
    "an activation": change_a_layer,
    "an epsilon": lambda model: setattr(model.backbone.embeddings_layer_norm, "epsilon", 10.0),
    "the pooling": lambda model: setattr(model.get_layer("pooling"), "mode", "max"),
    "the sequence length": shorten,
    "weights": lambda model: model.set_weights([2 * weight for weight in model.get_weights()]),
}


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method", "ignore::UserWarning")
@pytest.mark.parametrize(
    "change",
    [pytest.param(CHANGES[name], marks=[pytest.mark.slow] * (name == "int8"), id=name) for name in CHANGES],
)
def test_predict_and_evaluate_see_what_was_changed_since_they_were_traced(tiny, change):
    model = two_layers(tiny)
    before = model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    change(model)
    expected = without_a_graph(model)
    assert np.abs(expected - before).max() > 1e-6  # else nothing was changed
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=2e-6)
    loss = -np.log(expected[np.arange(len(Y)), Y].astype(float)).mean()
    assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(loss, abs=2e-5)


def test_predict_after_lora_and_training_answers_with_lora(tiny):
    model = two_layers(tiny)
    before = model.predict(X, verbose=0)
    model.backbone.enable_lora(4)
    fe.fine_tune(model, X, Y, epochs=2, learning_rate=1e-2, verbose=False)
    trained = [weight.path for weight in model.trainable_variables]
    assert any("lora" in path for path in trained)
    after = model.predict(X, verbose=0)
    assert np.abs(after - before).max() > 1e-5
    np.testing.assert_allclose(after, without_a_graph(model), atol=2e-6)


def test_nothing_is_traced_again_where_nothing_changed(tiny):
    model = two_layers(tiny)
    before = structure(model)
    model.fit(X, Y, verbose=0)
    model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    functions = model.train_function, model.test_function
    graph = model._graphs.get("forward")
    model.predict(X[:3], verbose=0)
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    assert structure(model) == before
    assert (model.train_function, model.test_function) == functions
    assert model._graphs.get("forward") is graph


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_quantized_model_is_loaded_as_it_was_saved(tiny, tmp_path):
    model = two_layers(tiny)
    exact = model.predict(X, verbose=0)
    model.quantize("int8")
    found = model.predict(X, verbose=0)
    assert 0 < np.abs(found - exact).max() < 0.02  # int8 has 127 steps a column
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(fe.load_model(tmp_path / "m.keras").predict(X, verbose=0), found)
    run = fe.fine_tune(model, X, Y, epochs=1, verbose=False)  # what has no int8 is trained
    assert np.isfinite(run.trace.epochs[0].metrics["loss"])


@pytest.mark.parametrize("change", [enable_lora, CHANGES["int8"]], ids=["LoRA", "int8"])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_training_on_with_another_structure_needs_compile(tiny, change):
    model = two_layers(tiny)
    model.fit(X, Y, verbose=0)
    change(model)
    with pytest.raises(ValueError, match="call `model.compile\\(\\)` again, then `fit`.$"):
        model.fit(X, Y, verbose=0)
    model.compile()
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()


def test_a_clone_has_the_same_function_of_tokens(tiny):
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(12)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    clone.fit(x, y, verbose=0)  # compiled as the original is


# --- how steps are computed ---


def test_a_plan_is_put_back_also_after_an_error(tiny):
    model = two_layers(tiny, freeze=1)
    plan = Plan(cut=steps.frozen.cut(model), steps_per_execution=4)
    assert model.plan == Plan()
    with pytest.raises(KeyError), model.computing(plan):
        assert (model.plan, model.steps_per_execution) == (plan, 4)
        with model.computing(Plan()):
            assert (model.plan, model.steps_per_execution) == (Plan(), 1)
        assert (model.plan, model.steps_per_execution) == (plan, 4)
        raise KeyError
    assert (model.plan, model.steps_per_execution) == (Plan(), 1)


def test_what_was_predicted_by_a_plan_is_not_left_behind(tiny):
    model = two_layers(tiny, freeze=1)
    expected = model.predict(X, verbose=0)
    with model.computing(Plan(cut=steps.frozen.cut(model))):
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-6)
        assert model.input_spec is None
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)


# --- what is trained ---


def moved_layers(model, **settings):
    """Train an epoch; return the names of the backbone's layers whose weights moved."""
    before = {id(weight): np.array(weight) for weight in model.backbone.weights}
    fe.fine_tune(model, X, Y, epochs=1, learning_rate=1e-2, verbose=False, **settings)
    return {
        layer.name
        for layer in model.backbone.layers
        if any(not np.array_equal(before[id(weight)], np.array(weight)) for weight in layer.weights)
    }


EMBEDDINGS = {"token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm"}


@pytest.mark.parametrize(
    "unfreeze, moved",
    [
        (lambda model: model.unfreeze(), {*EMBEDDINGS, "transformer_layer_0", "transformer_layer_1"}),
        pytest.param(
            lambda model: setattr(model.backbone, "trainable", True),
            {*EMBEDDINGS, "transformer_layer_0", "transformer_layer_1"},
            marks=pytest.mark.slow,
        ),
        (
            lambda model: setattr(model, "trainable", True),
            {*EMBEDDINGS, "transformer_layer_0", "transformer_layer_1"},
        ),
        (lambda model: model.unfreeze(1), {"transformer_layer_1"}),
        pytest.param(
            lambda model: model.unfreeze(2),
            {"transformer_layer_0", "transformer_layer_1"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["unfreeze()", "backbone.trainable", "model.trainable", "unfreeze(1)", "unfreeze(2)"],
)
@pytest.mark.parametrize("freeze", [pytest.param(1, marks=pytest.mark.slow), True])
def test_what_was_frozen_is_trained_again(tiny, freeze, unfreeze, moved):
    model = two_layers(tiny, freeze=freeze)
    assert moved_layers(model) == (set() if freeze is True else {"transformer_layer_1"})
    unfreeze(model)
    assert moved_layers(model) == moved


@pytest.mark.slow
def test_a_layer_that_is_trained_in_a_frozen_backbone_moves_is_restored_and_saved(tiny, tmp_path):
    model = two_layers(tiny)
    model.backbone.trainable = False
    model.backbone.transformer_layers[1].trainable = True
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["val_loss"], self.model.predict(X, verbose=0)))

    held_out = (X, [1 - y for y in Y])  # the longer it is trained, the worse
    assert moved_layers(model, validation_data=held_out, callbacks=Look()) == {"transformer_layer_1"}
    run = fe.fine_tune(
        model, X, Y, epochs=3, learning_rate=1e-2, verbose=False, validation_data=held_out, callbacks=Look()
    )
    best = seen[1:][run.trace.best_epoch - 1][1]
    np.testing.assert_allclose(model.predict(X, verbose=0), best, atol=1e-6)
    model.save(tmp_path / "m.keras")
    names = [weight.path for weight in model.trainable_variables]
    assert [weight.path for weight in fe.load_model(tmp_path / "m.keras").trainable_variables] == names


@pytest.mark.parametrize(
    "layers, sentence",
    [
        (0, "`layers` must be at least 1; got 0."),
        (3, "`layers` must be at most 2, the number of layers of the backbone; got 3."),
    ],
)
def test_layers_that_are_not_there_are_not_unfrozen(tiny, layers, sentence):
    with pytest.raises(ValueError, match=exactly(sentence)):
        two_layers(tiny, freeze=True).unfreeze(layers)
    sentence = "`layers` must be None for Functional, which has no numbered layers."
    with pytest.raises(ValueError, match=exactly(sentence)):
        tiny.numeric_classifier(freeze=True).unfreeze(1)


# --- types ---


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float64", "mixed_float16", "mixed_bfloat16"])
def test_it_trains_under_a_dtype_policy_that_keeps_small_steps(tiny, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        models = two_layers(tiny), two_layers(tiny, freeze=1), tiny.numeric_classifier()
        for model, rows in zip(models, (X, X, tiny.numeric_rows(8)[0]), strict=True):
            for _ in range(2):
                run = fe.fine_tune(model, rows, Y, validation_data=(rows, Y), epochs=1, verbose=False)
                assert np.isfinite(run.trace.epochs[0].metrics["val_loss"])
            for _ in range(2):
                model.fit(rows, Y, verbose=0)
            assert model.predict(rows, verbose=0).dtype == np.float32
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_weights_that_would_round_the_steps_away_are_not_trained(tiny, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = two_layers(tiny)
        weights = [np.array(weight) for weight in model.weights]
        sentence = (
            f"`model` has {policy} weights, which lose the small steps of fine-tuning to rounding; build it "
            f"under the dtype policy 'float32' or 'mixed_{policy}' (`keras.config.set_dtype_policy`)."
        )
        with pytest.raises(ValueError, match=exactly(sentence)):
            fe.fine_tune(model, X, Y, epochs=1, verbose=False)
        for was, now in zip(weights, model.weights, strict=True):
            np.testing.assert_array_equal(was, np.array(now))
    finally:
        keras.config.set_dtype_policy(before)


# --- what turns probabilities into answers ---


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, np.nan, np.inf])
def test_a_threshold_is_a_probability(tiny, threshold):
    model = tiny.numeric_classifier()
    model.threshold = 0.4
    sentence = f"`threshold` must be a finite number above 0 and below 1; got {threshold!r}."
    with pytest.raises(ValueError, match=exactly(sentence)):
        model.threshold = threshold
    assert model.threshold == 0.4


def test_a_threshold_is_for_two_classes(tiny):
    with pytest.raises(ValueError, match=exactly("`threshold` needs two classes; the model has 3.")):
        tiny.numeric_classifier(["a", "b", "c"]).threshold = 0.5


def test_an_abstention_is_a_confidence_for_the_threshold_it_was_chosen_with(tiny):
    model = tiny.numeric_classifier(["a", "b"])
    model.abstention = 0.0
    for wrong in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="^`abstention` must be a finite number at least 0 and below 1"):
            model.abstention = wrong
    assert model.abstention == 0.0
    chosen = Abstention(0.8, "error<=0.1@95%", 100, 80, 0.8, 0.02, "0", threshold=0.3)
    with pytest.raises(ValueError, match="^`abstention` was chosen for answers with the threshold 0.3; the"):
        model.abstention = chosen
    model.threshold = 0.3
    assert model.abstention is None  # chosen for other answers
    model.abstention = chosen
    model.threshold = None
    assert model.abstention is None


def test_a_threshold_of_a_file_is_checked_as_well(tiny, tmp_path):
    model = tiny.numeric_classifier()
    model.threshold = 0.4
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "n.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                assert config["config"]["threshold"] == 0.4
                config["config"]["threshold"] = float("nan")
                content = json.dumps(config).encode()
            new.writestr(name, content)
    with pytest.raises(
        (ValueError, TypeError), match="`threshold` must be a finite number above 0 and below"
    ):
        fe.load_model(tmp_path / "n.keras")


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras, after any error
def test_a_temperature_of_a_file_is_checked_as_well(tiny, tmp_path):
    model = tiny.numeric_classifier()
    model.get_layer("probabilities").temperature.assign(-1.0)  # every answer would be another
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0; got -1"):
        fe.load_model(tmp_path / "m.keras")


def test_a_failed_calibration_leaves_the_model_as_it_was(tiny):
    model = tiny.numeric_classifier()
    model.temperature, model.threshold = 1.7, 0.4
    x, y = tiny.numeric_rows(8)
    for bad in ([*y[:-1], 5], y[:-1]):
        with pytest.raises(ValueError):
            model.calibrate(x, bad)
        assert (model.temperature, model.threshold) == (pytest.approx(1.7), 0.4)


def test_weights_that_are_nan_are_told_not_turned_into_answers(tiny):
    model = tiny.numeric_classifier()
    x, _ = tiny.numeric_rows(8)
    weights = model.get_weights()
    weights[-3][:] = np.nan
    model.set_weights(weights)
    sentence = (
        "The model gives probabilities that are not finite, first for row 0: the weight 'logits/kernel' is "
        "not finite. Load weights from before it diverged, or train it anew at a lower rate."
    )
    for predict in (model.predict, model.predict_on_batch, lambda rows: fe.evaluate(model, rows, [0, 1] * 4)):
        with pytest.raises(ValueError, match=exactly(sentence)):
            predict(x)


# --- files ---


def test_hdf5_cannot_hold_the_vocabulary(tiny, tmp_path):
    path = tmp_path / "m.h5"
    sentence = (
        f"`filepath` {str(path)!r} is an HDF5 file, which cannot hold the vocabulary; end it in '.keras'."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        two_layers(tiny).save(path)
    path.write_bytes(b"")
    sentence = f"`path` {str(path)!r} is an HDF5 file, which holds no vocabulary; pass a .keras file."
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.load_model(path)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere Keras exports tokens in")
def test_an_exported_classifier_of_texts_takes_texts(tiny, tmp_path):
    import tensorflow as tf

    model = two_layers(tiny)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    for texts in (X, X[:1], ["", "not good"]):
        found = served.serve(tf.constant(texts)).numpy()
        np.testing.assert_allclose(found, model.predict(texts, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        {"loss": [keras.losses.CategoricalCrossentropy(from_logits=True)]},
        {"metrics": [keras.metrics.SparseCategoricalCrossentropy(from_logits=True)]},
        {"weighted_metrics": [keras.metrics.AUC(from_logits=True)]},
    ],
)
def test_a_loss_of_logits_is_refused_for_the_model_gives_probabilities(tiny, tmp_path, settings):
    # Keras takes the softmax of the softmax: of (0.9, 0.1) that is (0.69, 0.31), a loss of 0.37, not 0.11.
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(8)
    model.compile("sgd", **settings)
    for call in (model.fit, model.evaluate):
        with pytest.raises(
            ValueError, match=r"\(from_logits=True\), which would take the softmax of what are"
        ):
            call(x, y, verbose=0)
    model.save(tmp_path / "m.keras")  # what was saved can be loaded and predicts
    np.testing.assert_array_equal(fe.load_model(tmp_path / "m.keras").predict(x), model.predict(x))
    fe.fine_tune(model, x, y, epochs=1, verbose=False)
