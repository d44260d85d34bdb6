"""The same seed gives the same bits, in another process too; `deterministic=True` is put back."""

import hashlib
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import finetune_eval as fe
from finetune_eval.training import seeding

TRAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest, test_determinism
print(test_determinism.digest(test_determinism.trained(conftest)))
"""


def trained(tiny, **settings):
    x, y = list(tiny.TEXTS) * 2, list(tiny.SENTIMENTS) * 2
    backbone, preprocessor = tiny.tiny_bert(layers=1, dropout=0.2)
    model = fe.build_model(backbone, tiny.LABELS, preprocessor=preprocessor)
    settings = {"epochs": 2, "batch_size": 4, "deterministic": True, "verbose": False, **settings}
    return fe.fine_tune(model, x, y, validation_data=(x[:8], y[:8]), **settings).model


def digest(model):
    return hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest()


def enabled():
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


class Look(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.seen = enabled()


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX needs no setting on a CPU")
def test_the_same_bits_in_another_process_and_the_setting_is_put_back(tiny):
    from types import SimpleNamespace

    look = Look()
    here = trained(
        SimpleNamespace(
            TEXTS=tiny.texts, SENTIMENTS=tiny.sentiments, LABELS=tiny.labels, tiny_bert=tiny.bert
        ),
        callbacks=look,
    )
    assert look.seen and not enabled()
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = f"import sys; sys.path.insert(0, {folders[0]!r})\n{TRAIN}"
    there = subprocess.run(
        [sys.executable, "-c", code, folders[1]], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert there == digest(here)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX needs no setting on a CPU")
def test_determinism_is_put_back_after_an_error_and_left_where_it_was_on():
    import tensorflow as tf
    from tensorflow.python.framework import config

    with pytest.raises(KeyError), seeding.deterministic_operations(True):
        assert enabled()
        raise KeyError
    assert not enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        with seeding.deterministic_operations(True):
            pass
        assert enabled()
    finally:
        config.disable_op_determinism()
    with seeding.deterministic_operations(False):
        assert not enabled()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the setting is torch's")
def test_torch_is_set_and_put_back_and_asked_for_what_its_start_reads(monkeypatch):
    import torch

    with pytest.raises(KeyError), seeding.deterministic_operations(True):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    seeding.check_deterministic()  # no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(ValueError, match="set CUBLAS_WORKSPACE_CONFIG=:4096:8 before the program starts"):
        seeding.check_deterministic()
