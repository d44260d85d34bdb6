"""Two halves of a batch side by side give what the whole batch gives."""

import gc
import os
import runpy
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_eval as fe
from finetune_eval import _cores, models
from finetune_eval.models import halves, network

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow alone has halves")


@pytest.fixture
def calls(monkeypatch):
    """Count how often `_whole` is called, with halves on."""
    monkeypatch.setattr(network, "side_by_side", lambda: True)
    found = []
    whole = network.Network._whole
    monkeypatch.setattr(
        network.Network, "_whole", lambda self, *a, **k: found.append(1) or whole(self, *a, **k)
    )
    return found


def outputs_and_gradients(model, batch):
    @tf.function
    def run():
        with tf.GradientTape() as tape:
            probabilities = model(batch, training=False)
            loss = tf.reduce_sum(probabilities[:, 0] ** 2)
        return probabilities, tape.gradient(loss, [v.value for v in model.trainable_variables])

    probabilities, gradients = run()
    return np.asarray(probabilities), [np.asarray(tf.convert_to_tensor(part)) for part in gradients]


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_probabilities_and_gradients_are_those_of_the_whole(tiny, calls, monkeypatch, rows):
    model = tiny.text_classifier()
    batch = model.encode(list(tiny.texts)[:rows]).take(np.arange(rows))
    found = outputs_and_gradients(model, batch)
    assert len(calls) == 2
    monkeypatch.setattr(network, "side_by_side", lambda: False)
    expected = outputs_and_gradients(model, batch)
    assert len(calls) == 3
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


def test_training_goes_in_halves_and_gives_the_same_weights(tiny, calls, monkeypatch):
    x, y = list(tiny.texts)[:7] * 2, list(tiny.sentiments)[:7] * 2
    weights = []
    for on in (True, False):
        monkeypatch.setattr(network, "side_by_side", lambda on=on: on)
        model = tiny.text_classifier(dropout=0.0)
        # Adam would blow up the rounding of gradients that are nearly 0.
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(x, y, epochs=2, batch_size=5, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_backbone_that_may_look_at_all_rows_of_a_batch_is_given_all(tiny, calls):
    inputs = keras.Input((10,))
    backbone = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    model = fe.build_model(backbone, ["a", "b"])
    x, y = tiny.numeric_rows(20)
    calls.clear()
    model.fit(x, y, batch_size=20, verbose=0)
    assert len(calls) == 1
    centre = backbone.layers[-1].moving_mean
    np.testing.assert_allclose(centre, 0.01 * x.mean(axis=0), atol=1e-6)  # of all 20 rows


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [
        ("1", 2, True),
        ("2", 2, False),
        (None, 2, False),
        ("2", 4, True),
        ("4", 8, True),
        ("1", 1, False),
        ("one", 2, False),
    ],
)
def test_halves_are_for_operations_that_leave_half_of_the_cores(monkeypatch, threads, cores, expected):
    monkeypatch.setattr(halves, "cores", lambda: cores)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", threads)
    found = []
    tf.function(lambda: found.append(halves.side_by_side()))()
    assert found == [expected]
    assert not halves.side_by_side()  # outside of a graph there is nothing to run beside


@pytest.mark.parametrize(
    ("cores", "device", "already", "expected"),
    [
        (2, None, None, "1"),
        (4, None, None, None),
        (1, None, None, None),
        (2, "/dev/nvidiactl", None, None),
        (2, "/dev/kfd", None, None),
        (2, None, "2", "2"),  # what the user has set stays
    ],
)
def test_an_operation_is_given_one_of_two_cores_but_not_beside_a_gpu(
    monkeypatch, cores, device, already, expected
):
    monkeypatch.setattr(_cores, "cores", lambda: cores)
    monkeypatch.setattr(_cores, "seen", lambda: cores)
    monkeypatch.setattr(os.path, "exists", lambda path: path == device)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", already or "")  # to be put back as it was
    if already is None:
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    monkeypatch.delitem(sys.modules, "tensorflow")
    runpy.run_path(models.__file__)
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == expected


def test_a_containers_quota_limits_the_threads_of_tensorflow(monkeypatch):
    """A quota of three cores on a machine of 64."""
    names = ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
    for name in names:
        monkeypatch.setenv(name, "")  # to be put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setattr(_cores, "cores", lambda: 3)
    monkeypatch.setattr(_cores, "seen", lambda: 64)
    monkeypatch.delitem(sys.modules, "tensorflow")
    runpy.run_path(models.__file__)
    assert [os.environ[name] for name in names] == ["3", "3"]


@pytest.mark.parametrize("collects", [True, False])
def test_what_the_import_made_is_not_searched_for_garbage_and_what_comes_after_is(monkeypatch, collects):
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", os.environ.get("TF_NUM_INTRAOP_THREADS", "1"))
    monkeypatch.delitem(sys.modules, "tensorflow")
    gc.enable() if collects else gc.disable()
    try:
        runpy.run_path(models.__file__)
        assert gc.isenabled() is collects
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable() if before else gc.disable()
