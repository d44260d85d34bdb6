"""Batches: every row once an epoch, like lengths together, another order every time."""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval._cores import cores
from finetune_eval.models import batching
from finetune_eval.models.batching import Batches, Encoded, _FewWidths, encoder, widths
from finetune_eval.models.pipelines import Feed
from finetune_eval.models.tokenising import preprocessing

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
pipeline = pytest.mark.skipif(not ON_TENSORFLOW, reason="only TensorFlow is fed by a tf.data pipeline")


def encoded(lengths):
    """Return rows whose tokens all are the row's number, so that a batch tells which rows are in it."""
    lengths = np.asarray(lengths)
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths).astype("int32")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Encoded({"token_ids": ids, "padding_mask": np.ones_like(ids)}, offsets)


def epoch(batches):
    return [batches[i] for i in range(len(batches))]


rows_of = st.lists(st.integers(1, 40), min_size=1, max_size=200)


@given(lengths=rows_of, batch_size=st.integers(1, 33), seed=st.none() | st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_every_row_comes_exactly_once_an_epoch_with_its_own_label(lengths, batch_size, seed):
    n = len(lengths)
    y, w = np.arange(n, dtype="int32"), np.arange(n) * 0.5
    batches = Batches(encoded(lengths), y, batch_size, sample_weight=w, seed=seed)
    for _ in range(3):
        seen = []
        for x, labels, weights in epoch(batches):
            ids, mask = x["token_ids"], x["padding_mask"]
            assert len(labels) <= batch_size and ids.shape == mask.shape
            assert ids.shape[1] == max(lengths[label] for label in labels)  # trimmed to the longest
            for row, label in enumerate(labels):
                length = lengths[label]
                assert (ids[row, :length] == label + 1).all() and mask[row, :length].all()
                assert not ids[row, length:].any() and not mask[row, length:].any()
            assert weights.tolist() == [label * 0.5 for label in labels]
            seen += labels.tolist()
        assert sorted(seen) == list(range(n))
        batches.on_epoch_end()


@given(lengths=st.lists(st.integers(1, 700), min_size=1, max_size=200))
@settings(max_examples=30, deadline=None)
def test_rows_to_be_predicted_come_once_in_batches_of_like_tokens(lengths):
    batches = Batches(encoded(lengths), np.arange(len(lengths)), None)
    sizes = {}
    seen = []
    for x, rows in epoch(batches):
        count, width = x["token_ids"].shape
        assert width == max(lengths[row] for row in rows)
        assert count * width <= 640 * max(1, cores() // 2) or count == 1
        sizes.setdefault(batches.rows.widened(width), []).append(count)
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    assert [lengths[row] for row in seen] == sorted(lengths, reverse=True)
    # JAX compiles for every number of rows: one a width, but for what is left at the very end.
    counts = [set(found) for found in sizes.values()]
    counts[-1] -= {len(rows)}
    assert all(len(found) <= 1 for found in counts)


def test_rows_of_numbers_are_predicted_few_at_a_time():
    pictures = Encoded({"x": np.zeros((100, 4, 4, 3), dtype="float32")}, None)
    assert [len(x) for (x,) in epoch(Batches(pictures, None, None))] == [32, 32, 32, 4]


def orders(seed, epochs=4, n=120):
    batches = Batches(encoded(np.random.default_rng(0).integers(3, 30, n)), np.arange(n), 8, seed=seed)
    found = []
    for _ in range(epochs):
        found.append(tuple(np.concatenate([labels for _, labels in epoch(batches)]).tolist()))
        batches.on_epoch_end()
    return found


def test_epochs_differ_and_the_seed_alone_decides_them():
    assert len(set(orders(1))) == 4
    assert orders(1) == orders(1)
    assert not set(orders(1)) & set(orders(2))


def test_batch_mates_change_from_epoch_to_epoch():
    batches = Batches(encoded([5] * 64), np.arange(64), 8, seed=0)
    first = {frozenset(labels.tolist()) for _, labels in epoch(batches)}
    batches.on_epoch_end()
    assert not first & {frozenset(labels.tolist()) for _, labels in epoch(batches)}


def test_long_rows_do_not_come_last():
    # Sorted windows must be shuffled among each other, or every epoch would end with the longest texts.
    n = 1600
    batches = Batches(encoded(np.random.default_rng(0).integers(3, 100, n)), np.arange(n), 16, seed=0)
    means = [x["token_ids"].shape[1] for x, _ in epoch(batches)]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.4


@given(lengths=rows_of, batch_size=st.integers(2, 33))
@settings(max_examples=30, deadline=None)
def test_halves_of_a_training_batch_hold_as_many_tokens(lengths, batch_size):
    batches = Batches(encoded(lengths), np.arange(len(lengths)), batch_size, seed=0)
    for x, _ in epoch(batches):
        tokens = x["padding_mask"].sum(axis=1)
        middle = (len(tokens) + 1) // 2
        more = tokens[:middle].sum() - tokens[middle:].sum()
        # Sorted, pair by pair: no more apart than the longest and the shortest row, or one row that is odd.
        assert abs(more) <= (tokens.max() if len(tokens) % 2 else tokens.max() - tokens.min())


@pytest.mark.parametrize("rows, limit", [(1000, 0.05), (8530, 0.05)])
def test_padding_is_under_five_per_cent_on_lengths_like_those_of_reviews(rows, limit):
    # Rotten Tomatoes sentences: about 27 tokens on average (docs/performance.md), long tail, at most 80.
    lengths = np.clip(np.random.default_rng(0).gamma(5, 27 / 5, rows), 4, 80).astype(int)
    batches = Batches(encoded(lengths), np.arange(rows), 16, seed=0)
    cells = sum(x["token_ids"].size for x, _ in epoch(batches))
    assert batches.padding == pytest.approx(1 - lengths.sum() / cells)  # counted on the batches themselves
    assert batches.padding < limit
    # As drawn, unsorted, more than a third would be padding: the bucketing is what is tested.
    assert 1 - lengths.sum() / sum(16 * lengths[i : i + 16].max() for i in range(0, rows, 16)) > 0.3


@pipeline
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_every_pass_over_the_pipeline_is_a_new_epoch_of_all_rows(rows):
    lengths = np.random.default_rng(0).integers(1, 9, rows)
    y = np.arange(rows, dtype="int32")
    data = Batches(encoded(lengths), y, 4, seed=3).dataset()
    steps = -(-rows // 4)
    assert int(data.cardinality()) == steps
    passes = []
    for _ in range(3):
        iterator = iter(data)  # as Keras does: as many batches as there are, the end never asked for
        passes.append(np.concatenate([next(iterator)[1].numpy() for _ in range(steps)]).tolist())
        del iterator
    assert all(sorted(seen) == list(range(rows)) for seen in passes)
    expected, batches = [], Batches(encoded(lengths), y, 4, seed=3)
    for _ in range(3):
        expected.append(np.concatenate([labels for _, labels in epoch(batches)]).tolist())
        batches.on_epoch_end()
    assert passes == expected


@pipeline
def test_a_pass_left_in_the_middle_does_not_spoil_the_next():
    data = Batches(encoded([2] * 40), np.arange(40, dtype="int32"), 4, seed=3).dataset()
    next(iter(data))
    assert sorted(np.concatenate([labels.numpy() for _, labels in data]).tolist()) == list(range(40))


@pipeline
def test_one_graph_serves_every_batch():
    traces = []

    @tf.function
    def count(x, y):
        traces.append(1)
        return tf.shape(x["token_ids"])[1]

    data = Batches(encoded(np.arange(1, 30)), np.arange(29, dtype="int32"), 4, seed=0).dataset()

    @tf.function
    def run(iterator):
        return count(*next(iterator))

    iterator = iter(data)
    for _ in range(8):
        run(iterator)
    assert len(traces) == 1


# --- few widths: what JAX, which compiles a program for every shape, is fed ---


@pytest.mark.parametrize(
    "limit, expected",
    [(512, [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]), (100, [16, 24, 32, 48, 64, 96, 100]),
     (16, [16]), (10, [10])],
)  # fmt: skip
def test_widths_never_exceed_the_sequence_length(limit, expected):
    assert widths(limit) == expected


@given(lengths=rows_of, batch_size=st.integers(1, 9), limit=st.sampled_from([0, 40, 64]))
@settings(max_examples=30, deadline=None)
def test_rounding_up_adds_padding_and_nothing_else(lengths, batch_size, limit):
    made = encoded(lengths)
    rows = Encoded(made.features, made.offsets, limit=limit)
    exact, rounded = (Batches(rows, np.arange(len(lengths)), batch_size, seed=1) for _ in range(2))
    fed = _FewWidths(rounded)
    for _ in range(3):
        for index in range(len(fed)):
            with mock.patch.object(batching, "_rounds_up", lambda: True):  # as on JAX
                (x, y), (wide, labels) = exact[index], fed[index]
            width = x["token_ids"].shape[1]
            assert labels.tolist() == y.tolist()
            assert wide["token_ids"].shape[1] in widths(max(limit, width))
            for name in x:
                assert wide[name][:, :width].tolist() == x[name].tolist() and not wide[name][:, width:].any()
        exact.on_epoch_end()


class Recorded(Batches):
    """Batches that remember which rows they were asked for."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = []

    def _batch(self, rows, **kwargs):
        self.asked.append(rows.tolist())
        return super()._batch(rows, **kwargs)


@pytest.mark.skipif(ON_TENSORFLOW, reason="TensorFlow is fed by a tf.data pipeline")
@pytest.mark.parametrize("fit", [{"epochs": 3}, {"epochs": 6, "steps_per_epoch": 2}], ids=["all", "in parts"])
def test_fit_draws_one_order_a_pass_and_that_of_tensorflow(fit):
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in ("token_ids", "padding_mask")}
    summed = keras.layers.Lambda(
        lambda x: keras.ops.sum(keras.ops.cast(x["padding_mask"], "float32"), 1, True)
    )
    model = keras.Model(inputs, keras.layers.Dense(1)(summed(inputs)))
    model.compile("sgd", "mse")
    rows, y = encoded(np.arange(1, 17)), np.arange(16)
    recorded = Recorded(rows, y, 4, seed=3)
    data = recorded.dataset()
    model.fit(data, shuffle=False, verbose=0, **fit)  # the batches are shuffled already
    expected, batches = [], Batches(rows, y, 4, seed=3)
    for _ in range(3):
        expected += [order.tolist() for order in batches.order]
        batches.on_epoch_end()
    assert recorded.asked[-12:] == expected  # Keras asks for a first batch to learn its shape


def test_rows_of_one_shape_keep_it():
    x = np.arange(2 * 3 * 4, dtype="float32").reshape(2, 3, 4)
    batches = Batches(Encoded({"x": x}, None), np.array([0, 1]), 2)
    if ON_TENSORFLOW:
        assert batches.spec.shape.as_list() == [None, 3, 4]
    np.testing.assert_array_equal(batches[0][0], x)


# --- encoding ---


def padded(side, length=6):
    """Return a stand-in for a preprocessor: a text is its letters' code points, padded on `side` with 9."""

    def preprocess(texts):
        ids = tf.strings.unicode_decode(texts, "UTF-8")[:, :length]
        mask = tf.ones_like(ids).to_tensor(shape=[None, length])
        ids = ids.to_tensor(9, shape=[None, length])
        if side == "left":
            move = length - tf.reduce_sum(mask, axis=1, keepdims=True)
            order = (tf.range(length) - move) % length
            ids, mask = tf.gather(ids, order, batch_dims=1), tf.gather(mask, order, batch_dims=1)
        return {"token_ids": ids, "padding_mask": tf.cast(mask, tf.bool)}

    return preprocess


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_of_either_side_is_dropped(side):
    rows = encoder(padded(side))(np.array(["ab", "a", "abcdef", "abcdefgh", ""], dtype=object))
    assert rows.lengths.tolist() == [2, 1, 6, 6, 1]  # an empty row keeps one token of padding
    batch = rows.take(np.array([1, 0, 4]))
    assert batch["token_ids"].tolist() == [[97, 0], [97, 98], [9, 0]]
    assert batch["padding_mask"].tolist() == [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_pipelines_and_rows_give_the_same_tokens(tiny, side):
    model = tiny.text_classifier()
    model.preprocessor = padded(side)
    data = Feed(model, tf.data.Dataset.from_tensor_slices(["ab", "a"]).batch(2), labelled=False).dataset
    ((features,),) = list(data)
    on_jax = keras.backend.backend() == "jax"
    assert features["token_ids"].shape == (2, 6 if on_jax else 2)  # JAX: rounded up to one of `widths`
    assert features["token_ids"].numpy()[:, :2].tolist() == [[97, 98], [97, 9]]
    assert features["padding_mask"].numpy()[:, :2].tolist() == [[1, 1], [1, 0]]
    assert not features["padding_mask"].numpy()[:, 2:].any()
    assert model.encode(["ab", "a"]).take(np.array([0, 1]))["padding_mask"].tolist() == [[1, 1], [1, 0]]


def test_rows_are_encoded_alike_however_many_there_are(tiny, monkeypatch):
    _, preprocessor = tiny.bert()
    texts = np.array([*tiny.texts, *tiny.texts], dtype=object)
    encode = encoder(preprocessing(preprocessor))
    whole = encode(texts)
    monkeypatch.setattr("finetune_eval.models.batching._CHUNK", 3)
    parts = encode(texts)
    for name in whole.features:
        np.testing.assert_array_equal(whole.features[name], parts.features[name])
    np.testing.assert_array_equal(whole.offsets, parts.offsets)


def test_keras_fits_on_the_batches_themselves(tiny):
    # What backends without tf.data are fed.
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in ("token_ids", "padding_mask")}
    summed = keras.layers.Lambda(
        lambda x: keras.ops.sum(keras.ops.cast(x["padding_mask"], "float32"), 1, True)
    )
    model = keras.Model(inputs, keras.layers.Dense(1)(summed(inputs)))
    model.compile("sgd", "mse")
    batches = Batches(encoded([1, 2, 3, 4, 5]), np.arange(5), 2, seed=0)
    model.fit(batches, epochs=2, verbose=0)
    assert batches.epoch >= 2  # Keras draws one more before the first


def test_without_shuffling_and_sorting_rows_keep_their_order():
    rows = Encoded({"token_ids": np.arange(9, dtype=np.int32)}, np.array([0, 4, 5, 7, 9]))
    batches = Batches(rows, np.arange(4, dtype=np.int32), 2, sort=False)
    assert [batches[i][1].tolist() for i in range(2)] == [[0, 1], [2, 3]]
