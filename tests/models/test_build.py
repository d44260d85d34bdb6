"""build_model and load_model: what they take, and what they refuse in one sentence."""

import re

import keras
import numpy as np
import pytest

import finetune_eval as fe


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def model_of(*layers, shape=(10,)):
    return keras.Sequential([keras.Input(shape), *layers])


def test_a_sequential_backbone_is_taken_and_its_own_weights_are_trained(tiny):
    backbone = model_of(keras.layers.Dense(8, "relu"))
    model = fe.build_model(backbone, 2)
    x, y = tiny.numeric_rows(20)
    before = np.array(backbone.layers[0].kernel)
    model.fit(x, y, verbose=0)
    assert np.abs(np.array(backbone.layers[0].kernel) - before).max() > 0


def test_rows_of_more_than_one_axis_keep_their_shape(tmp_path):
    model = fe.build_model(model_of(keras.layers.Flatten(), keras.layers.Dense(4), shape=(3, 5)), 2)
    x, y = np.random.default_rng(0).normal(size=(9, 3, 5)), [0, 1, 0] * 3
    model.fit(x, y, batch_size=4, verbose=0)  # Flatten needs to know its sizes in the graph
    assert model.predict(x).shape == (9, 2)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(fe.load_model(tmp_path / "m.keras").predict(x), model.predict(x))


@pytest.mark.parametrize(
    "labels, names", [(3, ("0", "1", "2")), (("x", "y"), ("x", "y")), ([1, 2], ("1", "2"))]
)
def test_labels_are_names_or_a_number(tiny, labels, names):
    model = tiny.numeric_classifier(labels)
    assert model.labels == names and model.output_shape == (None, len(names))


def test_the_seed_decides_the_head(tiny):
    kernels = [np.array(tiny.numeric_classifier(seed=seed).get_layer("logits").kernel) for seed in (0, 0, 1)]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])
    assert 0.005 < kernels[0].std() < 0.03  # as BERT's: a truncated normal of 0.02, of width 0.0176


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_pooling_as_asked(tiny, pooling):
    model = tiny.text_classifier(pooling=pooling)
    batch = model.encode(["a good film"]).take(np.array([0]))
    tokens = keras.ops.convert_to_numpy(model.backbone(batch)["sequence_output"])[0]
    expected = {"cls": tokens[0], "max": tokens.max(axis=0)}[pooling]
    inner = keras.Model(model.input, model.get_layer("pooling").output)
    assert keras.ops.convert_to_numpy(inner(batch))[0] == pytest.approx(expected, abs=1e-6)


def test_padding_changes_no_probability(tiny):
    model = tiny.text_classifier()
    alone = model.predict(["not good"])[0]
    beside = model.predict(["not good", "very, very bad film was the film, a bad film."])[0]
    assert beside == pytest.approx(alone, abs=1e-6)


def test_freezing(tiny):
    def trained(freeze):
        return {
            variable.path for variable in tiny.text_classifier(layers=2, freeze=freeze).trainable_variables
        }

    everything, first, both, backbone = trained(False), trained(1), trained(2), trained(True)
    assert backbone == both == {"logits/kernel", "logits/bias"}
    assert first == {
        path for path in everything if "transformer_layer_1" in path or path.startswith("logits")
    }
    assert not any("pooled_dense" in path for path in everything)  # BERT's own pooler feeds nothing here


def test_a_frozen_model_is_compiled_so(tiny):
    model = tiny.numeric_classifier(freeze=True)
    x, y = tiny.numeric_rows(20)
    before = model.backbone.get_weights()
    model.fit(x, y, verbose=0)
    for was, now in zip(before, model.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_graph_model_is_a_keras_model_on_raw_rows(tiny):
    model = tiny.numeric_classifier()
    assert isinstance(model, keras.Model) and model.optimizer is not None
    assert model.metrics_names == ["loss", "weighted_compile_metrics"] or "loss" in model.metrics_names


class Subclassed(keras.Model):
    def call(self, x):
        return x


def two_outputs():
    inputs = keras.Input((10,))
    return keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])


UNKNOWN = (
    "has no known inputs and outputs; build it with `keras.Input` (a functional model, or a Sequential that "
    "begins with one)."
)


@pytest.mark.parametrize(
    "build, error, sentence",
    [
        (lambda t: fe.build_model(3), TypeError,
         "`backbone` must be a preset name, a folder, a keras_hub backbone or a keras.Model; got int."),
        (lambda t: fe.build_model(Subclassed(), 2), ValueError, f"`backbone` Subclassed {UNKNOWN}"),
        (lambda t: fe.build_model(keras.Sequential([keras.layers.Dense(2)]), 2), ValueError,
         f"`backbone` Sequential {UNKNOWN}"),
        (lambda t: fe.build_model(two_outputs(), 2), ValueError,
         "`backbone` Functional must have one input and one output, or be a KerasHub text backbone."),
        (lambda t: fe.build_model(model_of(keras.layers.Reshape((5, 2))), 2), ValueError,
         "`backbone` Functional must map to features of shape (rows, width); its output is (None, 5, 2)."),
        (lambda t: t.numeric_classifier(pooling="mean"), ValueError,
         "`pooling` 'mean' needs a backbone with a token axis; Functional gives one vector a row."),
        (lambda t: t.numeric_classifier(pooling="average"), ValueError,
         "`pooling` must be one of 'auto', 'mean', 'cls', 'max', 'last'; got 'average'."),
        (lambda t: fe.build_model(t.bert()[0], 2), ValueError,
         "`backbone` BertBackbone takes tokens; pass `preprocessor`, the KerasHub preprocessor that makes "
         "them from text."),
        (lambda t: t.numeric_classifier(1), ValueError, "`labels` must be at least 2; got 1."),
        (lambda t: t.numeric_classifier(["only"]), ValueError,
         "`labels` must name at least two classes; got ['only']."),
        (lambda t: t.numeric_classifier(["a", "b", "a"]), ValueError,
         "`labels` must differ from each other; 'a' is there twice."),
        (lambda t: t.numeric_classifier("ab"), TypeError,
         "`labels` must be a list of class names; got the single text 'ab'."),
        (lambda t: t.numeric_classifier({"a", "b"}), TypeError,
         "`labels` must be in the order of the classes; a set has no order: pass a list."),
        (lambda t: t.numeric_classifier(dropout=1.0), ValueError,
         "`dropout` must be a finite number at least 0 and below 1; got 1.0."),
        (lambda t: t.numeric_classifier(freeze=1), ValueError,
         "`freeze` must be True or False for Functional, which has no numbered layers."),
        (lambda t: t.text_classifier(freeze=2), ValueError,
         "`freeze` must be at most 1, the number of layers of the backbone; got 2."),
        (lambda t: t.text_classifier(freeze=0), ValueError, "`freeze` must be at least 1; got 0."),
        (lambda t: t.numeric_classifier(seed=-1), ValueError, "`seed` must be at least 0; got -1."),
        (lambda t: t.numeric_classifier(sequence_length=8), ValueError,
         "`sequence_length` needs a backbone that takes tokens; Functional takes (10,) numbers a row."),
        (lambda t: t.text_classifier(sequence_length=17), ValueError,
         "`sequence_length` must be at most 16, the longest this backbone was trained for; got 17."),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_sentence(tiny, build, error, sentence):
    with pytest.raises(error, match=exactly(sentence)):
        build(tiny)


def test_a_shorter_sequence_length_is_used(tiny):
    model = tiny.text_classifier(sequence_length=5)
    assert model.encode(["a good film was very bad"]).lengths.tolist() == [5]


def test_loading_what_is_no_model_is_one_sentence(tmp_path):
    missing = tmp_path / "missing.keras"
    with pytest.raises(FileNotFoundError, match=exactly(
        f"`path` {str(missing)!r} does not exist; pass a run folder or a .keras file."
    )):  # fmt: skip
        fe.load_model(missing)
    with pytest.raises(FileNotFoundError, match=exactly(
        f"`path` {str(tmp_path)!r} holds no model: there is no model.keras and no task.json in it."
    )):  # fmt: skip
        fe.load_model(tmp_path)
    other = tmp_path / "other.keras"
    two_outputs().save(other)
    with pytest.raises(TypeError, match=exactly(
        f"{str(other)!r} holds a Functional; `load_model` loads what `build_model` made."
    )):  # fmt: skip
        fe.load_model(other)


def test_pretrained_features_that_nobody_kept_are_refused(tiny, tmp_path):
    model = tiny.numeric_classifier()
    with pytest.raises(ValueError, match=r"^`model` was built from a Functional instance, whose weights"):
        fe.pretrained_features(model)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"^`model` does not remember where its backbone came from; pass"):
        fe.pretrained_features(fe.load_model(tmp_path / "m.keras"))


# --- what was fine-tuned as a backbone again ---


def test_a_preset_of_a_fine_tuned_model_is_a_backbone_again(tiny, tmp_path):
    model = tiny.text_classifier(layers=2, pooling="cls", freeze=1)
    model.save_to_preset(str(tmp_path))
    again = fe.build_model(tmp_path, ["a", "b", "c"], dropout=0.3)
    assert (again.pooling, again.labels, again.backbone.dropout) == ("cls", ("a", "b", "c"), 0.3)
    assert again.preprocessor.sequence_length == 16
    assert fe.build_model(tmp_path, sequence_length=5).preprocessor.sequence_length == 5
    batch = model.encode(list(tiny.texts)).take(np.arange(8))
    found, expected = (
        keras.ops.convert_to_numpy(m.backbone(batch)["sequence_output"]) for m in (again, model)
    )
    np.testing.assert_array_equal(found, expected)
    assert len(again.backbone.trainable_variables) == len(model.backbone.weights) - 2  # all but the pooler


# --- a classifier is no backbone ---


def ends_in(*layers):
    return model_of(keras.layers.Dense(3), *layers)


@pytest.mark.parametrize(
    "backbone, name",
    [
        (lambda t: model_of(keras.layers.Dense(3, "softmax")), "softmax"),
        (lambda t: model_of(keras.layers.Dense(3, "log_softmax")), "log_softmax"),
        (lambda t: ends_in(keras.layers.Softmax()), "softmax"),
        (lambda t: ends_in(keras.layers.Activation("softmax")), "softmax"),
        (lambda t: model_of(model_of(keras.layers.Dense(3, "softmax"))), "softmax"),
        (lambda t: t.numeric_classifier(), "temperedsoftmax"),
    ],
    ids=["activation", "logarithm", "layer", "Activation", "nested", "one of ours"],
)
def test_a_backbone_that_gives_probabilities_is_refused(tiny, backbone, name):
    with pytest.raises(
        ValueError, match=f"ends in a {name}: it is a classifier already. Pass the part below"
    ):
        fe.build_model(backbone(tiny), 3)


def test_a_backbone_that_ends_in_a_sigmoid_is_warned_of(tiny):
    with pytest.warns(
        UserWarning, match="ends in a sigmoid. If that is the head of a classifier, pass the part"
    ):
        fe.build_model(model_of(keras.layers.Dense(8, "sigmoid")), 2)
    fe.build_model(model_of(keras.layers.Dense(8, "relu")), 2)  # a warning would be an error


def test_images_are_classified_by_the_average_of_their_map(tmp_path):
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="maps")(inputs)
    backbone = keras.Model(inputs, maps)
    model = fe.build_model(backbone, ["dark", "bright"])
    y = np.arange(40) % 2
    x = np.random.default_rng(0).random((40, 8, 8, 3)).astype("float32") / 2 + 0.5 * y[:, None, None, None]
    features = keras.ops.convert_to_numpy(backbone(x)).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits").get_weights()
    logits = features @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    fe.fine_tune(model, x, y, epochs=20, learning_rate=0.1, verbose=False)
    assert fe.evaluate(model, x, y, n_resamples=200).accuracy > 0.9
    model.save(tmp_path / "m.keras")
    loaded = fe.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    with pytest.raises(ValueError, match=r"^`x` must have shape \(rows, 8, 8, 3\); got \(40, 8, 8\)"):
        model.predict(x[..., 0])


def test_maps_with_their_channels_first_are_averaged_over_height_and_width():
    """A channel of four ones between 12 zeros has the mean 1 / 4; its neighbours two and three times that."""
    inputs = keras.Input((3, 2, 2))
    padded = keras.layers.ZeroPadding2D(data_format="channels_first")(inputs)
    model = fe.build_model(keras.Model(inputs, padded), ("no", "yes"))
    kernel = np.array([[0.0, 4.0], [0.0, 2.0], [0.0, -4.0]])
    model.get_layer("logits").kernel.assign(kernel)
    x = np.ones((1, 3, 2, 2)) * np.array([1.0, 2.0, 3.0])[None, :, None, None]
    logit = 4 * 0.25 + 2 * 0.5 - 4 * 0.75  # -1
    assert model.predict(x, verbose=0)[0, 1] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
