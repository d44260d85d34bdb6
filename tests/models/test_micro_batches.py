"""Micro-batches: the step of the whole batch, in parts that are free of each other."""

import keras
import numpy as np
import pytest

from finetune_eval import build_model, fine_tune
from finetune_eval.models import micro_batches
from finetune_eval.models.batching import Batches, Encoded
from finetune_eval.models.steps import Plan

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="micro-batches are TensorFlow's alone")


def tuned(tiny, monkeypatch, count, **kwargs):
    """Return a run with batches of 6, 6 and 1 rows, computed as `count` micro-batches."""
    backbone, preprocessor = tiny.bert(layers=2, dropout=0.0)
    model = build_model(backbone, tiny.labels, preprocessor=preprocessor, dropout=0.0)
    seen = []
    inner = micro_batches.train_step
    monkeypatch.setattr(micro_batches, "train_step", lambda *args: seen.append(args[2]) or inner(*args))
    monkeypatch.setattr(micro_batches, "how_many", lambda model, batches: count)
    x, y = (list(tiny.texts) * 2)[:13], (list(tiny.sentiments) * 2)[:13]
    run = fine_tune(
        model, x, y, validation_data=(list(tiny.texts[-4:]), list(tiny.sentiments[-4:])), epochs=3,
        batch_size=6, learning_rate=1e-3, precision="float32", verbose=False, **kwargs,
    )  # fmt: skip
    assert seen == ([count] if count > 1 else [])  # traced once, and used
    assert model.plan == Plan()  # as it was
    return run


@on_tensorflow
@pytest.mark.parametrize(
    "count, weighted",
    [
        (4, True),
        pytest.param(2, False, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
        pytest.param(4, False, marks=pytest.mark.slow),
    ],
)
def test_the_steps_are_those_of_the_whole_batch(tiny, monkeypatch, count, weighted):
    # The last batch has one row: micro-batches without a row count for nothing.
    options = {"sample_weight": np.arange(1, 14) / 7} if weighted else {"label_smoothing": 0.1}
    with monkeypatch.context() as patch:
        whole = tuned(tiny, patch, 1, **options)
    parts = tuned(tiny, monkeypatch, count, **options)
    for a, b in zip(whole.trace.epochs, parts.trace.epochs, strict=True):
        assert a.metrics == pytest.approx(b.metrics, abs=2e-6)
    texts = list(tiny.texts)
    np.testing.assert_allclose(whole.model.predict(texts), parts.model.predict(texts), atol=5e-6)


def batches_of(lengths, batch_size):
    lengths = np.asarray(lengths)
    tokens = np.ones(lengths.sum(), dtype="int32")
    rows = Encoded({"token_ids": tokens}, np.concatenate([[0], np.cumsum(lengths)]))
    return Batches(rows, np.zeros(len(lengths), dtype="int32"), batch_size, seed=0)


@on_tensorflow
@pytest.mark.parametrize(
    "lengths, batch_size, expected",
    [
        ([28] * 320, 16, 1),  # sentences
        ([60] * 320, 16, 1),
        ([256] * 64, 16, 4),  # reviews
        ([256] * 64, 4, 1),
        ([512] * 64, 16, 8),
        ([512] * 64, 4, 2),  # two rows in each, whatever their length
        ([512] * 64, 2, 1),
        ([512] * 3, 16, 1),  # fewer rows than a batch
        ([28] * 320 + [512] * 16, 16, 4),  # few long rows: their batches must fit as well
    ],
)
def test_how_many_there_are_follows_from_the_tokens_of_a_batch(
    tiny, monkeypatch, lengths, batch_size, expected
):
    monkeypatch.setattr(micro_batches, "cores", lambda: 2)
    backbone, preprocessor = tiny.bert(layers=1, dropout=0.0)
    model = build_model(backbone, tiny.labels, preprocessor=preprocessor)
    assert micro_batches.how_many(model, batches_of(lengths, batch_size)) == expected


def test_a_backbone_that_may_look_at_all_rows_is_given_all(tiny):
    model = tiny.numeric_classifier()
    assert micro_batches.how_many(model, batches_of([512] * 64, 16)) == 1


def test_what_is_added_up_over_a_batch_is_not_added_up_in_parts(tiny):
    backbone, preprocessor = tiny.bert(layers=1, dropout=0.0)
    backbone.transformer_layers[0]._feedforward_layer_norm.activity_regularizer = keras.regularizers.L2(1e-3)
    model = build_model(backbone, tiny.labels, preprocessor=preprocessor)
    assert not model.rows_apart
    assert micro_batches.how_many(model, batches_of([512] * 64, 16)) == 1
