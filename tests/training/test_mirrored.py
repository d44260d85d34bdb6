"""Two devices of one host in `tf.distribute.MirroredStrategy` give what one gives; the rest is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="`tf.distribute` is of TensorFlow alone"
)

# In a process of its own: logical devices have to be made before TensorFlow starts.
PROGRAM = """
import contextlib, json, sys
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
sys.path.insert(0, sys.argv[1])
import keras
import numpy as np
from conftest import SENTIMENTS, TEXTS, numeric_backbone, text_classifier
import finetune_eval as fe

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = (list(TEXTS) * 3)[:21], (list(SENTIMENTS) * 3)[:21]
random = np.random.default_rng(0)
numbers, classes = random.normal(size=(21, 10)).astype("float32"), random.integers(0, 2, 21)
pipeline = tf.data.Dataset.from_tensor_slices((numbers, classes.astype(str))).batch(5)

class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []
    def on_train_batch_end(self, batch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})

def made_in(strategy, make):
    with strategy.scope() if strategy else contextlib.nullcontext():
        return make()

def text_model():
    return text_classifier(layers=1, dropout=0.0)

def tuned(model):
    steps = Steps()
    found = {"before": model.predict(x).tolist()}
    run = fe.fine_tune(
        model, x, y, validation_data=(x[:7], y[:7]), epochs=2, batch_size=5, learning_rate=0.01,
        sample_weight=np.linspace(0.5, 2, len(x)), precision="float32", verbose=False, callbacks=[steps],
    )
    found["steps"] = steps.logs
    found["epochs"] = [dict(record.metrics) for record in run.trace.epochs]
    found["keras evaluate"] = model.evaluate(x, y, batch_size=5, verbose=0)
    result = fe.evaluate(model, x, y)
    found["evaluate"] = [result.loss, result.accuracy, result.f1]
    found["after"] = model.predict(x).tolist()
    return found

def of_numbers(strategy):
    model = made_in(strategy, lambda: fe.build_model(numeric_backbone(), ["0", "1"], dropout=0.0))
    found = fe.find_learning_rate(model, numbers, classes, steps=12, batch_size=5, highest=0.1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(pipeline, epochs=2, validation_data=pipeline, verbose=0).history
    on_batch = model.train_on_batch(numbers[:3], classes[:3]), model.test_on_batch(numbers[:3], classes[:3])
    return {
        "rates": found.losses, "history": [history[name] for name in sorted(history)], "on batch": on_batch,
        "predict": model.predict(pipeline.map(lambda x, y: x), verbose=0).tolist(),
        "predict on batch": model.predict_on_batch(numbers[:3]).tolist(),
    }

def refused(run):
    try:
        run()
    except ValueError as error:
        return str(error)

def in_scope(run, strategy=mirrored):
    return lambda: made_in(strategy, run)

def normalised():
    inputs = keras.Input((10,))
    outputs = keras.layers.BatchNormalization(name="norm")(inputs)
    return fe.build_model(keras.Model(inputs, outputs), ["0", "1"])

if sys.argv[2] == "equal":
    found = [tuned(made_in(strategy, text_model)) for strategy in (None, mirrored)]
elif sys.argv[2] == "more":
    found = [of_numbers(strategy) for strategy in (None, mirrored)]
else:
    model, alone = (
        made_in(strategy, lambda: fe.build_model(numeric_backbone(), ["0", "1"]))
        for strategy in (mirrored, None)
    )
    summed = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    found = {
        "several hosts": refused(in_scope(normalised, tf.distribute.MultiWorkerMirroredStrategy())),
        "built elsewhere": refused(in_scope(lambda: fe.fine_tune(alone, numbers, classes))),
        "optimizer": refused(lambda: model.compile(keras.optimizers.SGD(0.1))),
        "loss": refused(lambda: model.compile(loss=summed)),
        "rows together": refused(lambda: fe.fine_tune(in_scope(normalised)(), numbers, classes)),
        "ema": refused(lambda: fe.fine_tune(model, numbers, classes, ema=0.9)),
    }
print(json.dumps(found))
"""


def run(what):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), what],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def same(pair):
    # Two sums of a half each are rounded otherwise than one sum: 5e-7 was measured.
    one, two = pair
    for name in one:
        for a, b in zip(one[name], two[name], strict=True):
            if isinstance(a, dict):
                assert b == pytest.approx(a, abs=1e-5), name
            else:
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-5, err_msg=name)


def test_two_devices_train_evaluate_and_predict_as_one_does():
    # 21 rows in batches of 5: one device has 3 rows of a batch, the other 2; of the last batch 1 and none.
    # The mean of the devices' means would be off by 1e-3, and a pass that begins anew has another order.
    pair = run("equal")
    assert len(pair[0]["steps"]) == 2 * 5
    moved = np.abs(np.array(pair[0]["after"]) - pair[0]["before"]).max()
    assert moved > 0.01  # 1,000 times the tolerance
    same(pair)


@pytest.mark.slow
def test_pipelines_single_batches_and_the_range_test_are_those_of_one_device():
    pair = run("more")
    assert len(pair[1]["predict on batch"]) == 3
    same(pair)


def test_what_cannot_work_on_several_devices_is_refused():
    assert run("refused") == {
        "several hosts": "A MultiWorkerMirroredStrategy cannot be used: models do not train in it. Use "
        "`tf.distribute.MirroredStrategy` for the devices of one host, and the JAX backend "
        '(KERAS_BACKEND=jax) with `fine_tune(..., distribution="data_parallel")` for several hosts.',
        "built elsewhere": "`model` was not built in the `tf.distribute` strategy that it is used in; build "
        "or load it inside the same `strategy.scope()`.",
        "optimizer": "`optimizer` was made outside of the model's `tf.distribute` strategy and would train "
        "nothing; make it inside `strategy.scope()`.",
        "loss": "`loss` must have the reduction 'sum_over_batch_size' inside a `tf.distribute` strategy; "
        "SparseCategoricalCrossentropy has 'sum'.",
        "rows together": "The layer 'norm' cannot be trained inside a `tf.distribute` "
        "strategy: batch normalisation looks at all rows of a batch, of which each device has a part. Freeze "
        "the backbone (`build_model(..., freeze=True)`), or train on one device.",
        "ema": "`ema` cannot be used inside a `tf.distribute` strategy; leave it out.",
    }
