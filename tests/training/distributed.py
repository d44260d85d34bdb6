"""The program that test_distributed.py starts: it trains, alone or as one of two processes.

Usage: python distributed.py FOLDER MODE PLACE ADDRESS, with the folder `tests` on PYTHONPATH. Without an
address it is alone. What came of it is left in the folder.
"""

import json
import os
import signal
import sys
import time

import keras
import keras_hub
import numpy as np
from conftest import LABELS, SENTIMENTS, TEXTS, VOCABULARY, numeric_classifier, numeric_rows, tiny_bert

import finetune_eval as fe


class Steps(keras.callbacks.Callback):
    """Keeps the losses, and does what a mode says at the eighth step."""

    def __init__(self, mode="one", place="0"):
        super().__init__()
        self.losses, self.parts, self.mode = [], {}, mode
        self.here = mode[-1:] == place  # whether this is the process that the mode is about

    def get_state(self):
        return self.losses

    def set_state(self, state):
        self.losses = state

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        if "told" in self.mode and len(self.losses) >= 8:
            time.sleep(0.5)  # as the steps of a larger model take
        if not self.here or len(self.losses) != 8:
            return
        if "killed" in self.mode:
            os.kill(os.getpid(), signal.SIGKILL)
        if "raises" in self.mode:
            raise RuntimeError("the disk is on fire")
        os.kill(os.getpid(), signal.SIGINT)

    def on_epoch_end(self, epoch, logs=None):
        for each in (*self.model.variables, *self.model.optimizer.variables):
            shapes = (each.shape, each.value.addressable_shards[0].data.shape)
            self.parts[each.path] = [list(shape) for shape in shapes]


def few_texts():
    """9 rows of one width in batches of 3, which do not divide by two devices."""
    x, y = [*TEXTS, TEXTS[0]], [*SENTIMENTS, SENTIMENTS[0]]
    backbone, preprocessor = tiny_bert(layers=1, dropout=0.1)
    model = fe.build_model(backbone, LABELS, preprocessor=preprocessor)
    return model, x, y, {"batch_size": 3, "epochs": 2}


def texts():
    """22 short and long rows in batches of 5, the last of 2; widths of 16 and 24 tokens."""
    x = [*TEXTS, *TEXTS, *(text + " the film" * 7 for text in TEXTS[:6])]
    y = [*SENTIMENTS, *SENTIMENTS, *SENTIMENTS[:6]]
    backbone, preprocessor = tiny_bert(layers=1, dropout=0.1, max_sequence_length=24)
    model = fe.build_model(backbone, LABELS, preprocessor=preprocessor)
    return model, x, y, {"validation_data": (x[-7:], y[-7:]), "batch_size": 5, "epochs": 1}


def numbers():
    """31 rows in batches of 7, the last of 3: neither divides by two devices."""
    (x, y), weights = numeric_rows(31, classes=3), np.linspace(0.2, 3, 31)
    model = numeric_classifier(["low", "middle", "high"])
    return model, x, y, {
        "validation_data": numeric_rows(9, classes=3, seed=1), "batch_size": 7, "epochs": 3,
        "sample_weight": weights, "class_weight": "balanced", "checkpoint_every": 2,
    }  # fmt: skip


class WithoutSegments(keras_hub.models.BertTextClassifierPreprocessor):
    """The tokens of a model that knows one kind of text."""

    def call(self, x, y=None, sample_weight=None):
        features = super().call(x)
        return {name: features[name] for name in ("token_ids", "padding_mask")}


def llama():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=len(VOCABULARY), num_layers=1, num_query_heads=2, num_key_value_heads=2,
        hidden_dim=8, intermediate_dim=16,
    )  # fmt: skip
    tokens = WithoutSegments(tiny_bert(layers=1)[1].tokenizer, sequence_length=16)
    model = fe.build_model(backbone, LABELS, preprocessor=tokens, pooling="last")
    return model, TEXTS, SENTIMENTS, {"batch_size": 3, "epochs": 1}


def trained(make, kind, steps, *, run_dir=None, resumed=False):
    """Return what came of a training, as JSON data, and its arrays by name."""
    model, x, y, settings = make()
    if resumed:
        run = fe.resume(run_dir, callbacks=[steps])
    else:
        run = fe.fine_tune(
            model, x, y, learning_rate=0.01, callbacks=[steps], distribution=kind, run_dir=run_dir, **settings
        )
    model, result = run.model, fe.evaluate(run.model, x, y)
    names = ("accuracy", "precision", "recall", "f1")
    said = {
        "steps": steps.losses, "epochs": [dict(record.metrics) for record in run.trace.epochs],
        "keras evaluate": model.evaluate(x, y, verbose=0), "wrote": run.run_dir is not None,
        "loss": result.loss, "confusion": result.confusion_matrix.tolist(), "parts": steps.parts,
        "scores": {name: [getattr(result[name], key) for key in ("value", "low", "high")] for name in names},
        "distribution": run.manifest["environment"]["distribution"],
    }  # fmt: skip
    arrays = {weight.path: np.array(weight.value) for weight in model.weights}
    return said, {"predictions": model.predict(x, verbose=0), **arrays}


WAYS = {
    "alone": {
        "one": (None, (numbers, texts, llama)),
        "several": ("data_parallel", (numbers, texts)),
        "shared": ("model_parallel", (llama,)),
    },
    "together": {"several": ("data_parallel", (numbers, texts))},
    "few": {"several": ("data_parallel", (few_texts,))},
}


def main(folder, mode, place, address):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background has none
    if address:
        fe.initialize_distributed(address, 2, int(place))
    found = {}
    for way, (kind, makes) in WAYS.get(mode, {"several": ("data_parallel", (numbers,))}).items():
        for make in makes:
            name = "one" if mode == "alone" and way == "one" else "run"
            try:
                said, arrays = trained(
                    make, kind, Steps(mode, place), resumed=mode == "resumed",
                    run_dir=f"{folder}/{name}" if make is numbers else None,
                )  # fmt: skip
            except KeyboardInterrupt as stop:
                sys.exit(f"stopped: {getattr(stop, '__notes__', None)}")
            found[f"{way} {make.__name__}"] = said
            np.savez(f"{folder}/{way} {make.__name__}-{place}.npz", **arrays)
    with open(f"{folder}/{place}.json", "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
