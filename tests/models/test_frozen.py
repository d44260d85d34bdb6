"""Frozen layers are computed once: what computing them in every batch gives, and nothing else moves."""

import keras
import keras_hub
import numpy as np
import pytest

from finetune_eval import build_model, fine_tune
from finetune_eval.models import frozen, steps
from finetune_eval.models.steps import Plan
from finetune_eval.training.divergence import StopOnDivergence


def three_layers(tiny, freeze, dropout=0.0):
    backbone, preprocessor = tiny.bert(layers=3, dropout=dropout)
    return build_model(backbone, tiny.labels, preprocessor=preprocessor, freeze=freeze, dropout=0.0)


def tuned(model, tiny, **kwargs):
    x, y = list(tiny.texts) * 2, list(tiny.sentiments) * 2
    held_out = (list(tiny.texts[:4]), list(tiny.sentiments[:4]))
    return fine_tune(
        model,
        x,
        y,
        validation_data=held_out,
        epochs=3,
        batch_size=4,
        learning_rate=1e-2,
        precision="float32",  # Adam makes steps of what rounding to bfloat16 leaves
        **kwargs,
    )


@pytest.mark.parametrize(
    "freeze", [1, *(pytest.param(several, marks=pytest.mark.slow) for several in (True, 2, 3))]
)
def test_computing_once_gives_what_computing_every_time_gives(tiny, freeze, monkeypatch):
    once = three_layers(tiny, freeze)
    first = tuned(once, tiny, verbose=False).trace
    monkeypatch.setattr(frozen, "_MOST", 0)
    every_time = three_layers(tiny, freeze)
    second = tuned(every_time, tiny, verbose=False).trace
    for a, b in zip(first.epochs, second.epochs, strict=True):
        assert a.metrics == pytest.approx(b.metrics, abs=2e-6)
    # Not weight by weight: the exact gradient of a key's bias is 0, and Adam makes steps of what rounding
    # leaves.
    texts = list(tiny.texts)
    np.testing.assert_allclose(once.predict(texts), every_time.predict(texts), atol=5e-6)


@pytest.mark.parametrize("freeze", [True, 2])
def test_what_is_kept_equals_the_frozen_layers_to_the_bit(tiny, freeze):
    model = three_layers(tiny, freeze)
    where = frozen.cut(model)
    batches = model.batches(list(tiny.texts), batch_size=32)
    plain = batches[0][0]
    assert frozen.compute(batches, where) == len(tiny.texts)
    kept = batches[0][0]
    there = plain["padding_mask"].astype(bool) if freeze == 2 else slice(None)
    run = frozen.forward(where.below, model.batches(list(tiny.texts), batch_size=32).spec)
    # On JAX batches are padded to other widths, and sums of other widths differ in the last bits.
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 5e-6
    np.testing.assert_allclose(kept["frozen"][there], run(plain)[there], rtol=0, atol=tolerance)
    found, expected = map(keras.ops.convert_to_numpy, (where(kept, False), model(plain)))
    np.testing.assert_allclose(found, expected, atol=max(tolerance, 1e-6))


@pytest.mark.slow
def test_nothing_is_dropped_in_frozen_layers_whether_kept_or_not(tiny, monkeypatch):
    plain, dropping = three_layers(tiny, 2, dropout=0.0), three_layers(tiny, 2, dropout=0.5)
    dropping.set_weights(plain.get_weights())
    first = tuned(plain, tiny, verbose=False)
    dropping.backbone.transformer_layers[2]._self_attention_dropout.rate = 0.0
    dropping.backbone.transformer_layers[2]._feedforward_dropout.rate = 0.0
    dropping.backbone.transformer_layers[2]._self_attention_layer._dropout_layer.rate = 0.0
    monkeypatch.setattr(frozen, "_MOST", 0)
    second = tuned(dropping, tiny, verbose=False)
    assert second.trace.epochs[0].metrics == pytest.approx(first.trace.epochs[0].metrics, abs=2e-6)


@pytest.mark.parametrize(("freeze", "layers"), [(1, 1), (2, 2), (3, None), (True, None)])
def test_the_cut_is_above_the_last_frozen_layer(tiny, freeze, layers):
    model = three_layers(tiny, freeze)
    where = frozen.cut(model)
    assert where.a_vector_a_token is (layers is not None)
    if layers is not None:
        assert where.below.output is model.backbone.transformer_layers[layers - 1].output
    above = {weight.path for weight in where.above.trainable_variables}
    assert above == {weight.path for weight in model.trainable_variables}


def test_without_a_frozen_bottom_there_is_no_cut(tiny):
    model = three_layers(tiny, False)
    assert frozen.cut(model) is None
    model.backbone.transformer_layers[0].trainable = False  # below it, the embeddings still learn
    assert frozen.cut(model) is None
    model = three_layers(tiny, False)
    model.backbone.transformer_layers[1].trainable = False
    assert frozen.cut(model) is None


def test_only_what_is_above_moves_and_raw_rows_work_meanwhile(tiny, capsys):
    model = three_layers(tiny, 2)
    before = {weight.path: weight.numpy() for weight in model.weights}
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.predict(list(tiny.texts), verbose=0))

    result = tuned(model, tiny, callbacks=[Look()])
    assert "frozen layers: computed once for 20 rows" in capsys.readouterr().out
    moved = {weight.path for weight in model.weights if (weight.numpy() != before[weight.path]).any()}
    assert moved <= {weight.path for weight in model.trainable_variables}
    assert any("transformer_layer_2" in path for path in moved)
    assert model.plan == Plan()
    best = seen[result.trace.best_epoch - 1]
    np.testing.assert_allclose(model.predict(list(tiny.texts)), best, atol=1e-6)


one_step_on_torch = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch runs one step at a call"
)


@pytest.fixture()
def many_steps_a_call(monkeypatch):
    """Many steps of a head at a call, however few there are."""
    monkeypatch.setattr(steps, "_WORTH_IT", 1)


@pytest.fixture()
def calls(monkeypatch):
    """The calls for steps, as Keras' callbacks hear of them."""
    heard = []
    monkeypatch.setattr(
        StopOnDivergence, "on_train_batch_end", lambda self, batch, logs=None: heard.append(batch)
    )
    return heard


@one_step_on_torch
def test_many_steps_of_a_head_at_a_call_are_the_same_steps(tiny, many_steps_a_call, calls):
    many = tuned(three_layers(tiny, True), tiny, verbose=False)
    assert len(calls) == 3  # one an epoch
    seen = tuned(three_layers(tiny, True), tiny, verbose=False, callbacks=[keras.callbacks.Callback()])
    assert len(calls) == 3 + 3 * 4  # a callback is called for every step
    for a, b in zip(many.trace.epochs, seen.trace.epochs, strict=True):
        assert a.metrics == b.metrics
    assert many.model.steps_per_execution == 1  # as it was


@one_step_on_torch
def test_divergence_is_seen_after_many_steps_at_a_call(tiny, many_steps_a_call, monkeypatch):
    begun, good = [], []
    original = StopOnDivergence.on_epoch_begin

    def on_epoch_begin(self, epoch, logs=None):
        original(self, epoch, logs)
        begun.append(epoch)
        if epoch == 1:
            good.extend(self.model.get_weights())
            kernel = self.model.get_layer("logits").kernel
            kernel.assign(kernel * np.nan)

    monkeypatch.setattr(StopOnDivergence, "on_epoch_begin", on_epoch_begin)
    model = three_layers(tiny, True)
    sentence = (
        "^The loss became NaN in epoch 2, step 4 of 4, at the rate .*: training diverged, and the weights"
    )
    with pytest.raises(FloatingPointError, match=f"{sentence} of epoch 1 are restored"):
        tuned(model, tiny, verbose=False)
    assert begun == [0, 1]  # there are three
    for weight, value in zip(model.get_weights(), good, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_step_that_computes_the_backbone_is_called_alone(tiny, many_steps_a_call, calls, monkeypatch):
    monkeypatch.setattr(frozen, "_MOST", 0)  # what is frozen is not kept
    tuned(three_layers(tiny, True), tiny, verbose=False)
    assert len(calls) == 3 * 4


def test_layers_in_groups_that_share_weights_are_not_cut(tiny):
    _, preprocessor = tiny.bert(layers=1)
    backbone = keras_hub.models.AlbertBackbone(
        vocabulary_size=preprocessor.tokenizer.vocabulary_size(), num_layers=2, num_heads=2, hidden_dim=8,
        intermediate_dim=16, embedding_dim=4, max_sequence_length=16,
    )  # fmt: skip
    model = build_model(backbone, tiny.labels, preprocessor=preprocessor)
    assert tuned(model, tiny, verbose=False).trace.epochs[2].metrics["loss"] > 0
    with pytest.raises(ValueError, match="has no numbered layers"):
        build_model(backbone, tiny.labels, preprocessor=preprocessor, freeze=1)


def test_rows_of_numbers_too(tiny):
    x, y = tiny.numeric_rows()
    model = tiny.numeric_classifier(freeze=True)
    features = model.backbone.predict(x, verbose=0)
    run = fine_tune(model, x, y, epochs=2, verbose=False)
    assert run.trace.epochs[1].metrics["loss"] < run.trace.epochs[0].metrics["loss"]
    np.testing.assert_array_equal(model.backbone.predict(x, verbose=0), features)
