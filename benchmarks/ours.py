"""This library, and KerasHub alone, for speed.py: one line of JSON for a job.

python benchmarks/ours.py CONTESTANT JOB.json
"""

import json
import os
import sys
import time

START = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def ours(job, *, precision="auto"):
    import finetune_eval as fe

    model = fe.build_model(
        "all_minilm_l6_v2", ["negative", "positive"], seed=job["seed"],
        sequence_length=job["length"], freeze=job.get("freeze", False),
    )  # fmt: skip
    out = {"epochs": []}
    if job["epochs"]:
        run = fe.fine_tune(
            model, *job["train"], validation_data=job.get("validation"), epochs=job["epochs"],
            batch_size=job["batch"], learning_rate=job["rate"], seed=job["seed"], precision=precision,
            run_dir=os.path.join(job["scratch"], "run") if job.get("save") else None, verbose=False,
        )  # fmt: skip
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


CONTESTANTS = {
    "finetune_eval": ours,
    "finetune_eval_float32": lambda job: ours(job, precision="float32"),
    "keras_hub_docs": lambda job: keras_hub(job, length=None),
    "keras_hub_fitted": lambda job: keras_hub(job, length=job["fitted"]),
}

if __name__ == "__main__":
    import resource

    with open(sys.argv[2], encoding="utf-8") as file:
        found = CONTESTANTS[sys.argv[1]](json.load(file))
    found["seconds"] = time.perf_counter() - START
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))
