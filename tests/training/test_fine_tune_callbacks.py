"""Keras callbacks in fine_tune: they work, or are refused before the first step."""

import importlib.util
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import finetune_eval as fe

C = keras.callbacks


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def tuned(tiny, callbacks, model=None, **settings):
    x, y = tiny.numeric_rows(24)
    model = model or tiny.numeric_classifier(dropout=0.0)
    settings = {"validation_data": (x, y), "epochs": 3, "verbose": False, "learning_rate": 1e-2, **settings}
    return fe.fine_tune(model, x, y, callbacks=callbacks, **settings)


@pytest.mark.parametrize(
    "form", [lambda one: None, lambda one: one, lambda one: (one,)], ids=["None", "one", "tuple"]
)
def test_callbacks_come_as_keras_takes_them(tiny, form):
    seen = []
    one = C.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_f1"]))
    run = tuned(tiny, form(one))
    assert len(run.trace.epochs) == 3
    assert seen == ([] if form(one) is None else [record.metrics["val_f1"] for record in run.trace.epochs])


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: C.TerminateOnNaN(),
        lambda folder: C.CSVLogger(folder / "log.csv"),
        lambda folder: C.ModelCheckpoint(
            folder / "m.keras", monitor="val_f1", mode="max", save_best_only=True
        ),
        lambda folder: C.ModelCheckpoint(folder / "m.weights.h5", save_weights_only=True),
        lambda folder: C.EarlyStopping("val_loss", patience=1),
        lambda folder: C.History(),
    ],
    ids=["TerminateOnNaN", "CSVLogger", "ModelCheckpoint", "of weights", "EarlyStopping", "History"],
)
def test_what_watches_or_saves_changes_nothing(tiny, tmp_path, make):
    plain, watched = tuned(tiny, None), tuned(tiny, make(tmp_path))
    assert [r.metrics for r in watched.trace.epochs] == [r.metrics for r in plain.trace.epochs]
    for one, other in zip(plain.model.get_weights(), watched.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_best_epoch_is_that_of_fine_tune_whatever_a_callback_restores(tiny):
    weights = []
    watch = C.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(run_model.get_weights()))
    run_model = tiny.numeric_classifier(dropout=0.0)
    # By the training loss, as a maximum, the first epoch is the best.
    other = C.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    run = tuned(tiny, [watch, other], model=run_model)
    assert run.trace.best_epoch == 3
    for one, last in zip(run.model.get_weights(), weights[2], strict=True):
        np.testing.assert_array_equal(one, last)


OTHERWISE = (
    "; `fine_tune` has its own warm-up, decay and best epoch. Leave it out, or train with `model.compile` "
    "and `model.fit`."
)

OWN_RATE = (
    "; `fine_tune` has its own warm-up and decay. Pass `schedule='constant', warmup=0` with it, or leave it "
    "out."
)


@pytest.mark.parametrize(
    "make, error, sentence",
    [
        (
            lambda: C.ReduceLROnPlateau("val_loss"),
            ValueError,
            f"`callbacks` has a ReduceLROnPlateau, which sets the learning rate{OWN_RATE}",
        ),
        (
            lambda: C.LearningRateScheduler(lambda epoch, rate: rate),
            ValueError,
            f"`callbacks` has a LearningRateScheduler, which sets the learning rate{OWN_RATE}",
        ),
        (
            lambda: C.BackupAndRestore("backup"),
            ValueError,
            "`callbacks` has a BackupAndRestore, which would go on with other batches, and without the best "
            f"epoch so far{OTHERWISE}",
        ),
        (
            lambda: C.SwapEMAWeights(),
            ValueError,
            f"`callbacks` has a SwapEMAWeights, which needs an optimizer with `use_ema=True`{OTHERWISE}",
        ),
        (
            lambda: C.ModelCheckpoint("m.h5"),
            ValueError,
            "`callbacks` has a ModelCheckpoint that writes 'm.h5', which cannot hold the vocabulary; end its "
            "`filepath` in '.keras'.",
        ),
        (
            lambda: C.EarlyStopping,
            TypeError,
            "`callbacks` must hold Keras callbacks; number 0 is <class "
            "'keras.src.callbacks.early_stopping.EarlyStopping'> (type). Is it a class? Make one of it: "
            "add ().",
        ),
        (
            lambda: "checkpoint",
            TypeError,
            "`callbacks` must hold Keras callbacks; number 0 is 'checkpoint' (str).",
        ),
    ],
    ids=["plateau", "schedule", "backup", "EMA", "HDF5", "a class", "a text"],
)
def test_what_cannot_work_is_refused_before_the_first_step(tiny, tmp_path, make, error, sentence):
    model = tiny.numeric_classifier()
    before = model.get_weights()
    with pytest.raises(error, match=exactly(sentence)):
        tuned(tiny, [make()], model=model, run_dir=tmp_path / "run")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_tensorboard_without_its_package_is_refused_before_the_first_step(tiny, tmp_path):
    sentence = (
        "`callbacks` has a TensorBoard, which needs a package that is not installed; "
        "`pip install tensorboard`, or leave it out."
    )
    with pytest.raises(ImportError, match=exactly(sentence)):
        tuned(tiny, [C.TensorBoard(str(tmp_path))])


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [False, 1])
def test_what_model_checkpoint_wrote_is_loaded_in_a_new_process_and_trained_on(tiny, tmp_path, freeze):
    model, path = tiny.text_classifier(layers=2, freeze=freeze), tmp_path / "m.keras"
    few = ["not good", "good!"] * 4
    fe.fine_tune(model, few, [0, 1] * 4, epochs=1, verbose=False, callbacks=C.ModelCheckpoint(path))
    np.save(tmp_path / "expected.npy", model.predict(tiny.texts, verbose=0))
    program = (
        "import sys, numpy as np, finetune_eval as fe\n"
        "folder, *texts = sys.argv[1:]\n"
        "model = fe.load_model(folder + '/m.keras')\n"
        "assert type(model.optimizer).__name__ == 'AdamW' and model.optimizer.built\n"
        "np.save(folder + '/got.npy', model.predict(texts, verbose=0))\n"
        "model.fit(texts, [0, 1] * (len(texts) // 2), verbose=0)\n"  # words that were not there before
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *tiny.texts], check=True, capture_output=True
    )
    np.testing.assert_array_equal(np.load(tmp_path / "got.npy"), np.load(tmp_path / "expected.npy"))
