"""Shared by all tests: quiet TensorFlow, no network, and the tiny models."""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# As in a process that imports this library first: here a test may import TensorFlow before it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# The tests run in one process a core: a second thread in each would only wait for the other process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

# The gate tries the same examples each time, so that what it says is about the change it looks at. For a
# search with new ones: pytest --hypothesis-profile=default.
# Without a deadline: how long an example takes says more of what else the machine does.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)  # make faults
settings.load_profile("same")

# Modules of `make faults`, which find each other by themselves, and the program of test_distributed.py.
collect_ignore_glob = ["faults/[!t]*.py", "training/distributed.py"]

VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "good", "bad", "film", "the", "was", "very", "not", "##s", "##ly", ".", ",", "!", "cafe", "warm"),
)
TEXTS = (
    "a good film.",
    "Bad, bad film!",
    "the film was very good",
    "not good",
    "Warm films, very warm",
    "the cafe was bad",
    "good!",
    "very, very bad film was the film, a bad film.",
)
SENTIMENTS = (1, 0, 1, 0, 1, 0, 1, 0)
LABELS = ("negative", "positive")


def tiny_bert(*, layers=2, seed=0, max_sequence_length=16, **kwargs):
    """Return (backbone, preprocessor): a BERT whose graph is traced in a second."""
    import keras
    import keras_hub

    from finetune_eval.models.backbones import BertBackbone
    from finetune_eval.models.tokenizers import BertTokenizer

    keras.utils.set_random_seed(seed)
    backbone = BertBackbone(
        vocabulary_size=len(VOCABULARY),
        num_layers=layers,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=max_sequence_length,
        **kwargs,
    )
    random = np.random.default_rng(seed)
    # Keras' small initial weights would leave every text with nearly the same probability.
    backbone.set_weights([w + random.normal(0, 1, w.shape) for w in backbone.get_weights()])
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        BertTokenizer(VOCABULARY), sequence_length=max_sequence_length
    )
    return backbone, preprocessor


def text_classifier(labels=LABELS, *, layers=1, **kwargs):
    """Return a new classifier of texts with random weights, always the same ones."""
    from finetune_eval import build_model

    backbone, preprocessor = tiny_bert(layers=layers, dropout=0.0)
    model = build_model(backbone, labels, preprocessor=preprocessor, **kwargs)
    kernel = model.get_layer("logits").kernel
    kernel.assign(np.random.default_rng(1).normal(0, 1, kernel.shape))
    return model


def checkpoint(folder, *, hidden=8, layers=1):
    """Write a BERT of random weights as Hugging Face does, for what takes a folder; return the folder."""
    from safetensors.numpy import save_file

    random, size = np.random.default_rng(0), len(VOCABULARY)
    shapes = {
        "embeddings.word_embeddings.weight": (size, hidden),
        "embeddings.position_embeddings.weight": (16, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,), "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden), "pooler.dense.bias": (hidden,),
    }  # fmt: skip
    for layer in range(layers):
        at = f"encoder.layer.{layer}."
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            shapes |= {f"{at}{name}.weight": (hidden, hidden), f"{at}{name}.bias": (hidden,)}
        for name, (out, into) in {
            "intermediate": (2 * hidden, hidden),
            "output": (hidden, 2 * hidden),
        }.items():
            shapes |= {f"{at}{name}.dense.weight": (out, into), f"{at}{name}.dense.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (hidden,), f"{at}{name}.bias": (hidden,)}
    folder.mkdir(parents=True)
    save_file(
        {n: random.normal(0, 1, s).astype("float32") for n, s in shapes.items()}, folder / "model.safetensors"
    )
    settings = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_attention_heads": 2, "num_hidden_layers": layers, "max_position_embeddings": 16,
        "vocab_size": size, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "type_vocab_size": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


def numeric_backbone(columns=10, width=8, seed=0):
    """Return columns -> width features: the smallest thing that can be fine-tuned."""
    import keras

    inputs = keras.Input((columns,), name="columns")
    dense = keras.layers.Dense(
        width, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name="dense"
    )
    return keras.Model(inputs, dense(inputs), name="features")


def numeric_classifier(labels=LABELS, **kwargs):
    """Return a new classifier of ten numbers a row."""
    from finetune_eval import build_model

    return build_model(numeric_backbone(), labels, **kwargs)


def numeric_rows(rows=60, classes=2, seed=0):
    """Return x (rows, 10) and y: which of the first `classes` columns is the largest."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 10)).astype("float32")
    return x, x[:, :classes].argmax(axis=1)


def stop_at(steps):
    """Return a callback that interrupts the training after so many steps."""
    import keras

    class StopAt(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.left = steps

        def on_train_batch_end(self, batch, logs=None):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        def get_state(self):
            return {}

        def set_state(self, state):
            pass

    return StopAt()


def gradient(function, x):
    """Return the gradient of a scalar function at x, an array or a list of them, on the backend in use."""
    import keras

    x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    if keras.backend.backend() == "jax":
        import jax

        return keras.tree.map_structure(np.asarray, jax.grad(function)(x))
    if keras.backend.backend() == "torch":
        import torch

        x = keras.tree.map_structure(lambda part: part.detach().clone().requires_grad_(), x)
        leaves = keras.tree.flatten(x)
        found = torch.autograd.grad(function(x), leaves, materialize_grads=True)
        return keras.tree.pack_sequence_as(x, [part.numpy() for part in found])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    found = tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [np.asarray(tf.convert_to_tensor(g)) for g in found] if isinstance(x, list) else np.asarray(found)


@pytest.fixture(scope="session")
def tiny():
    """The tiny rows and the functions that make tiny models."""
    return SimpleNamespace(
        vocabulary=VOCABULARY,
        texts=TEXTS,
        sentiments=SENTIMENTS,
        labels=LABELS,
        bert=tiny_bert,
        text_classifier=text_classifier,
        checkpoint=checkpoint,
        numeric_backbone=numeric_backbone,
        numeric_classifier=numeric_classifier,
        numeric_rows=numeric_rows,
        stop_at=stop_at,
        gradient=gradient,
    )


@pytest.fixture(scope="session")
def scorer():
    """A classifier of texts that a test may only evaluate: its graphs are traced once for all tests."""
    return text_classifier()


@pytest.fixture(scope="session")
def numeric_scorer():
    """A classifier of numbers that a test may only evaluate."""
    return numeric_classifier()
