"""This library, and KerasHub alone, for speed.py: one line of JSON for a job.

python benchmarks/ours.py CONTESTANT JOB.json
"""

import os
import time

import contestant

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def without(lever):
    """Take one lever away, so that its part can be told."""
    from finetune_eval.models import backbones, batching, frozen, micro_batches  # first: sets how to compute

    import keras  # isort: skip
    import keras_hub  # isort: skip

    from finetune_eval.training import fine_tune, optimizers

    if lever == "bucketing":
        batching._WINDOW = 1  # rows are sorted within a batch: batches are as the rows were drawn
    elif lever == "packing":
        backbones._packing = lambda mask, multiple: backbones._all_tokens(mask)
    elif lever == "fused_adamw":
        optimizers.AdamW.update_step = keras.optimizers.AdamW.update_step
        optimizers.AdamW._backend_update_step = keras.optimizers.AdamW._backend_update_step
        optimizers.AdamW._apply_weight_decay = keras.optimizers.AdamW._apply_weight_decay
    elif lever == "own_layer":
        backbones._EncoderLayer.call = keras_hub.layers.TransformerEncoder.call
    elif lever == "micro_batches":
        micro_batches.how_many = lambda model, batches: 1
    elif lever == "frozen_once":
        frozen._MOST = 0
    if lever in ("used_rows", "fused_adamw"):  # Keras' own update knows of no used rows
        fine_tune.used_rows = lambda model, train: None
    # "onednn" and "halves" are environment variables, set by speed.py


def ours(job, *, lever=None):
    import finetune_eval as fe

    if lever is not None:
        without(lever)
    precision = "float32" if lever == "bfloat16" else "auto"
    model = fe.build_model(
        "all_minilm_l6_v2", ["negative", "positive"], seed=job["seed"],
        sequence_length=job["length"], freeze=job.get("freeze", False),
    )  # fmt: skip
    out = {"epochs": []}
    if job["epochs"]:
        began = time.perf_counter()
        run = fe.fine_tune(
            model, *job["train"], validation_data=job.get("validation"), epochs=job["epochs"],
            batch_size=job["batch"], learning_rate=job["rate"], seed=job["seed"], precision=precision,
            run_dir=os.path.join(job["scratch"], "run") if job.get("save") else None, verbose=False,
        )  # fmt: skip
        out["fit"] = time.perf_counter() - began
        out["epochs"] = [record.seconds for record in run.trace.epochs]
    if "test" in job:
        times = []
        for _ in range(job["passes"]):
            began = time.perf_counter()
            result = fe.evaluate(model, *job["test"], baselines=False, **job.get("evaluate", {}))
            times.append(time.perf_counter() - began)
        out["passes"] = times
        out["accuracy"] = result.accuracy
    return out


def keras_hub(job, *, length):
    """As KerasHub's documentation fine-tunes: `from_preset`, compile, fit; None is its own length."""
    import keras
    import keras_hub as hub
    import numpy as np

    options = {} if length is None else {"sequence_length": length}
    preprocessor = hub.models.BertTextClassifierPreprocessor.from_preset(job["weights"], **options)
    model = hub.models.BertTextClassifier.from_preset(
        job["weights"], num_classes=2, preprocessor=preprocessor
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(job["rate"]),
        metrics=["accuracy"],
    )
    epochs = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            epochs.append(time.perf_counter() - self.began)

    if job["epochs"]:
        model.fit(
            np.array(job["train"][0]), np.array(job["train"][1]), batch_size=job["batch"],
            epochs=job["epochs"], verbose=0, callbacks=[Clock()],
        )  # fmt: skip
    out = {"epochs": epochs}
    if "test" in job:
        times = []
        for _ in range(job["passes"]):
            began = time.perf_counter()
            found = model.predict(np.array(job["test"][0]), batch_size=2 * job["batch"], verbose=0)
            times.append(time.perf_counter() - began)
        out["passes"] = times
        out["accuracy"] = float(np.mean(found.argmax(1) == np.array(job["test"][1])))
    return out


def matrix_peak(job):
    """GFLOP/s of a large matrix product on this machine, in float32 and in bfloat16."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    import tensorflow as tf

    found = {}
    for dtype in (tf.float32, tf.bfloat16):
        a = tf.cast(tf.random.normal((1536, 1536)), dtype)
        tf.matmul(a, a)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            tf.matmul(a, a).numpy()
            times.append(time.perf_counter() - began)
        found[dtype.name] = 2 * 1536**3 / min(times) / 1e9
    return {"gflops": found}


CONTESTANTS = {
    "matrix_peak": matrix_peak,
    "finetune_eval": ours,
    "on_jax": ours,
    "nothing_frozen": lambda job: ours({**job, "freeze": False}),
    "keras_hub_docs": lambda job: keras_hub(job, length=None),
    "keras_hub_fitted": lambda job: keras_hub(job, length=job["fitted"]),
}


def named(name):
    lever = name.removeprefix("without_")
    return CONTESTANTS[name] if name == lever else lambda job: ours(job, lever=lever)


if __name__ == "__main__":
    contestant.main(named)
