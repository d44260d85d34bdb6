"""fine_tune on tiny rows: it learns, keeps the best epoch, repeats itself, and fails in one sentence."""

import errno
import json
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import tensorflow as tf

import finetune_eval as fe
from finetune_eval import _files
from finetune_eval.models import backbones, precision
from finetune_eval.runs import Run
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training import training as module

fine_tune = fe.fine_tune


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


class Weights(keras.callbacks.Callback):
    """Records the weights that each epoch ended with."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((dict(logs), [weight.copy() for weight in self.model.get_weights()]))


@pytest.fixture
def data(tiny):
    return tiny.numeric_rows(80)


@pytest.fixture
def held_out(tiny):
    return tiny.numeric_rows(40, seed=1)


def quick(model, x, y, **kwargs):
    return fine_tune(model, x, y, **{"verbose": False, "epochs": 2, "learning_rate": 0.05, **kwargs})


def same_weights(a, b):
    return all(np.array_equal(left, right) for left, right in zip(a, b, strict=True))


# --- one run looked at from all sides ---


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A fine-tuning run of numbers with everything on, and what it printed."""
    x, y = tiny.numeric_rows(80)
    val_x, val_y = tiny.numeric_rows(40, seed=1)
    val_y = 1 - val_y  # wrong: the more is learned, the higher the validation loss
    weights = Weights()
    model = tiny.numeric_classifier()
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    result = fine_tune(
        model, x, [tiny.labels[i] for i in y], validation_data=(val_x, np.eye(2)[val_y]), epochs=6,
        learning_rate=0.05, label_smoothing=0.1, class_weight="balanced", seed=3, verbose=False,
        callbacks=[weights], run_dir=tmp_path_factory.mktemp("runs") / "first",
    )  # fmt: skip
    assert np.array_equal(np.random.get_state()[1], before)  # NumPy's global generator is the user's
    return result, weights, (val_x, val_y)


def test_loss_falls_and_the_trace_has_every_metric(run):
    result, _, _ = run
    first, last = result.trace.epochs[0].metrics, result.trace.epochs[-1].metrics
    assert last["loss"] < first["loss"] - 0.02
    names = ("loss", "accuracy", "precision", "recall", "f1")
    assert {*names, *(f"val_{name}" for name in names)} == set(first)
    assert [record.rows for record in result.trace.epochs] == [80] * 6


def test_the_best_epoch_is_restored(run):
    result, weights, _ = run
    losses = [logs["val_loss"] for logs, _ in weights.epochs]
    best = int(np.argmin(losses))
    assert result.trace.best_epoch == result.manifest["best_epoch"] == best + 1
    assert same_weights(result.model.get_weights(), weights.epochs[best][1])
    assert best < 5  # else the last epoch would be the best anyhow, and nothing had to be restored


def test_after_training_evaluate_tells_the_plain_loss_that_fe_evaluate_tells(run):
    result, _, (x, y) = run
    loss, accuracy = result.model.evaluate(x, y, verbose=0)
    evaluation = fe.evaluate(result.model, x, y)
    assert (evaluation.loss, evaluation.accuracy) == pytest.approx((loss, accuracy), abs=1e-6)


def test_a_plain_fit_after_fine_tune_still_learns(run, tiny):
    result, _, _ = run  # the schedule of fine_tune had run down to a rate of 0
    before = result.model.get_weights()
    x, y = tiny.numeric_rows(8)
    result.model.fit(x, y, verbose=0)
    moved = max(np.abs(a - b).max() for a, b in zip(result.model.get_weights(), before, strict=True))
    result.model.set_weights(before)
    assert moved > 1e-6


def test_the_run_folder_holds_the_trace_the_model_and_the_manifest(run):
    result, _, (x, y) = run
    folder = result.run_dir
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model", "trace.jsonl"]
    assert [path.name for path in (folder / "model").iterdir()] == ["model.keras"]
    assert TrainingTrace.load(folder / "trace.jsonl").epochs == result.trace.epochs
    again = fe.load_model(folder)
    np.testing.assert_array_equal(again.predict(x), result.model.predict(x))
    assert again.evaluate(x, y, verbose=0) == result.model.evaluate(x, y, verbose=0)


def test_the_manifest_says_what_was_done(run, tiny):
    result, _, (val_x, val_y) = run
    manifest = Run(result.run_dir).read_manifest()
    assert manifest == _files.to_json(result.manifest)
    assert manifest["status"] == "complete" and manifest["seconds"] > 0
    assert manifest["settings"] == {
        "epochs": 6, "batch_size": 16, "learning_rate": 0.05, "weight_decay": 0.01,
        "class_weight": "balanced",
        "label_smoothing": 0.1, "early_stopping": None, "stop_within_noise": False,
        "keep": "best", "monitor": None, "seed": 3,
        "calibrate": False, "threshold_for": None, "abstain_for": None, "loss": "cross_entropy",
        "deterministic": False,
        "schedule": "cosine", "warmup": 0.1, "strategy": "full",
        "lora_rank": None, "layer_decay": 1.0, "gradient_accumulation": 1, "average_last": 0.0, "ema": None,
        "optimizer": "AdamW, warm-up 10 %, then cosine decay to 0",
    }  # fmt: skip
    from finetune_eval.data.ledger import rows_hash

    x, y = tiny.numeric_rows(80)
    assert manifest["rows"] == {
        "train": {"rows": 80, "hash": rows_hash(x, y)},
        "validation": {"rows": 40, "hash": rows_hash(val_x, val_y)},
    }
    assert manifest["model"]["labels"] == list(tiny.labels)
    assert manifest["model"]["backbone_parameters"] == 10 * 8 + 8
    assert manifest["environment"]["packages"]["keras"] == keras.__version__
    assert manifest["precision"]["used"] in ("float32", "bfloat16")


def test_how_far_a_layer_moved(run, tiny):
    result, _, _ = run
    before = tiny.numeric_classifier().backbone.get_weights()
    after = result.model.backbone.get_weights()
    change = sum(np.square(a - b).sum() for a, b in zip(after, before, strict=True))
    expected = np.sqrt(change / sum(np.square(b).sum() for b in before))
    assert result.manifest["moved"] == pytest.approx({"dense": expected}, rel=1e-5)


def test_a_second_run_into_the_folder_is_refused_and_loses_nothing(run, tiny):
    result, _, (x, y) = run
    before = {path: path.read_bytes() for path in result.run_dir.rglob("*") if path.is_file()}
    model = tiny.numeric_classifier()
    weights = model.get_weights()
    sentence = (
        f"`run_dir` {str(result.run_dir)!r} holds a run whose training is complete; pass a new folder, or "
        "remove it first."
    )
    with pytest.raises(FileExistsError, match=exactly(sentence)):
        quick(model, x, y, run_dir=result.run_dir)
    assert {path: path.read_bytes() for path in result.run_dir.rglob("*") if path.is_file()} == before
    assert same_weights(model.get_weights(), weights)


def test_a_file_where_the_folder_should_be_is_refused(tiny, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    sentence = f"`run_dir` {str(tmp_path / 'file')!r} is a file; pass a folder."
    with pytest.raises(FileExistsError, match=exactly(sentence)):
        quick(tiny.numeric_classifier(), *data, run_dir=tmp_path / "file")


# --- texts ---


def test_texts_are_learned_and_evaluated_alike(tiny):
    model = tiny.text_classifier(dropout=0.0)
    x, y = list(tiny.texts) * 4, list(tiny.sentiments) * 4
    before = fe.evaluate(model, x, y).loss
    result = quick(model, pd.Series(x), y, validation_data=(x, y), epochs=6, batch_size=4, learning_rate=0.02)
    evaluation = fe.evaluate(model, x, y)
    assert evaluation.loss < before - 0.1
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert (evaluation.loss, evaluation.accuracy) == pytest.approx((loss, accuracy), abs=1e-6)
    assert min(record.metrics["val_loss"] for record in result.trace.epochs) == pytest.approx(loss, abs=2e-3)
    assert set(model.moved) >= {"token_embedding", "transformer_layer_0"}
    assert model.moved["transformer_layer_0"] > 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="all rows are updated elsewhere")
def test_tokens_no_training_row_holds_are_left_out_and_no_weight_is_another(tiny, monkeypatch, tmp_path):
    x, y = ["not good", "good!"] * 4, [0, 1] * 4
    weights, states = [], []
    for spare in (True, False):
        model = tiny.text_classifier()
        path = tmp_path / f"{spare}.keras"
        if not spare:
            monkeypatch.setattr(module.optimizers, "used_rows", lambda model, train: {})
        callback = keras.callbacks.ModelCheckpoint(path)  # the optimizer with it
        quick(model, x, y, batch_size=4, learning_rate=0.02, callbacks=[callback])
        weights.append(model.get_weights())
        states.append(keras.models.load_model(path).optimizer)
    assert same_weights(*weights)
    # Saved are the moments of all rows: whoever loads the file may go on with other texts.
    for spared, kept in zip(states[0].variables, states[1].variables, strict=True):
        np.testing.assert_array_equal(spared, kept)


# --- repeatability ---


def trace_of(tiny, data, seed):
    result = quick(tiny.numeric_classifier(dropout=0.3), *data, seed=seed)
    return [dict(record.metrics) for record in result.trace.epochs], result.model.get_weights()


def test_the_same_seed_gives_the_same_trace_and_another_another(tiny, data):
    keras.utils.set_random_seed(1)
    first, weights = trace_of(tiny, data, seed=0)
    keras.utils.set_random_seed(2)  # the seed of fine_tune alone counts
    again, same = trace_of(tiny, data, seed=0)
    assert first == again and same_weights(weights, same)
    other, _ = trace_of(tiny, data, seed=1)
    assert other != first


PROGRAM = """
import numpy as np, keras, finetune_eval as fe
random = np.random.default_rng(0)
x = random.normal(size=(40, 10)); y = (x[:, 0] > 0).astype(int)
inputs = keras.Input((10,))
kernel = keras.initializers.GlorotUniform(seed=0)
backbone = keras.Model(inputs, keras.layers.Dense(8, "relu", kernel_initializer=kernel)(inputs))
model = fe.build_model(backbone, 2, dropout=0.3)
run = fe.fine_tune(model, x, y, validation_data=(x, y), epochs=2, verbose=False)
print([sorted(record.metrics.items()) for record in run.trace.epochs])
"""


@pytest.mark.slow  # another command that repeats a run to the bit is in test_cli_training.py
def test_a_fresh_process_gives_the_trace_that_this_one_gives(capsys):
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "val_f1" in run.stdout, run.stderr
    exec(PROGRAM, {})
    assert capsys.readouterr().out == run.stdout


# --- choosing and stopping ---


def test_early_stopping_stops_after_so_many_epochs_without_a_better_one(tiny, data):
    x, y = data
    weights = Weights()
    # Validation labels turned round: what is learned makes the validation loss rise from the first epoch on.
    result = quick(
        tiny.numeric_classifier(),
        x,
        y,
        validation_data=(x, 1 - y),
        epochs=9,
        early_stopping=2,
        callbacks=[weights],
    )
    assert len(result.trace.epochs) == 3 and result.trace.best_epoch == 1
    assert same_weights(result.model.get_weights(), weights.epochs[0][1])


def test_the_monitor_chooses(tiny, data):
    x, y = data
    weights = Weights()
    # Against turned labels f1 falls as the model learns, and the first epoch has the highest.
    result = quick(
        tiny.numeric_classifier(),
        x,
        y,
        validation_data=(x, 1 - y),
        epochs=4,
        monitor="val_f1",
        callbacks=[weights],
    )
    scores = [logs["val_f1"] for logs, _ in weights.epochs]
    best = int(np.argmax(scores))
    assert (result.trace.best_epoch, result.trace.monitor) == (best + 1, "val_f1")
    assert same_weights(result.model.get_weights(), weights.epochs[best][1])
    assert scores[-1] < scores[best]


def test_without_validation_the_last_epoch_stays(tiny, data):
    weights = Weights()
    result = quick(tiny.numeric_classifier(), *data, callbacks=[weights])
    assert result.trace.best_epoch is None
    assert same_weights(result.model.get_weights(), weights.epochs[-1][1])


def test_a_frozen_backbone_does_not_move(tiny, data):
    model = tiny.numeric_classifier(freeze=True)
    before = model.backbone.get_weights()
    result = quick(model, *data)
    assert same_weights(model.backbone.get_weights(), before)
    assert result.manifest["moved"] == {"dense": 0.0}


def test_freezing_after_a_fit_takes_effect(tiny, data):
    model = tiny.numeric_classifier()
    quick(model, *data, epochs=1)
    model.backbone.trainable = False
    before = model.backbone.get_weights()
    quick(model, *data, epochs=1)
    assert same_weights(model.backbone.get_weights(), before)


def test_sample_weight_times_class_weight_is_what_keras_is_given(tiny, data, monkeypatch):
    x, y = data
    seen = {}
    original = module.Classifier.batches

    def batches(self, x, y=None, sample_weight=None, **kwargs):
        seen.setdefault("weights", sample_weight)
        return original(self, x, y, sample_weight, **kwargs)

    monkeypatch.setattr(module.Classifier, "batches", batches)
    w = np.linspace(0.5, 2, 80)
    quick(
        tiny.numeric_classifier(),
        x,
        y,
        epochs=1,
        sample_weight=w,
        class_weight={"negative": 2.0, "positive": 0.5},
    )
    assert seen["weights"] == pytest.approx(w * np.array([2.0, 0.5])[y])


# --- going wrong ---


@pytest.fixture
def exploding(tiny):
    """A classifier whose loss is NaN from the second epoch on: a weight is set to NaN between epochs."""
    model = tiny.numeric_classifier()

    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                kernel = self.model.get_layer("logits").kernel
                kernel.assign(kernel * np.nan)

    return model, Explode()


def test_divergence_is_one_sentence_and_restores_the_best_epoch(exploding, data, held_out, tmp_path):
    model, explode = exploding
    x, y = data
    weights = Weights()
    with pytest.raises(FloatingPointError) as caught:
        quick(
            model, *data, validation_data=held_out, epochs=9, callbacks=[weights, explode],
            run_dir=tmp_path / "run",
        )  # fmt: skip
    # The first step of epoch 2 is the first that follows; the rate is that of the cosine at that step.
    steps = -(-len(x) // 16)
    warm_up, at = max(1, round(0.1 * 9 * steps)), steps
    rate = 0.05 * (1 + np.cos(np.pi * (at - warm_up) / (9 * steps - warm_up))) / 2
    found = re.fullmatch(
        r"The loss became NaN in epoch 2, step 1 of (\d+), at the rate (\S+): training diverged, and the "
        r"weights of epoch 1 are restored\. The batch held the rows (.*) and 8 more\. Lower "
        r"`learning_rate` \(it was 0\.05\), or look for huge values and wrong labels in these rows\.",
        str(caught.value),
    )
    assert found and int(found[1]) == steps and float(found[2]) == pytest.approx(rate, rel=0.05)
    order = model.batches(x, y, batch_size=16, seed=0)
    order.begin_at(1, 0)
    assert found[3] == ", ".join(map(str, np.sort(order.order[0])[:8]))
    assert same_weights(model.get_weights(), weights.epochs[0][1])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "diverged" and not (tmp_path / "run" / "model").exists()
    assert same_weights(fe.load_model(tmp_path / "run").get_weights(), model.get_weights())
    assert not list((tmp_path / "run" / "checkpoint").glob("rows*"))
    result = quick(model, *data)  # the model is usable
    assert np.isfinite(result.trace.epochs[-1].metrics["loss"])
    assert set(model.fit(*data, verbose=0).history) == {"accuracy", "loss"}


@pytest.mark.parametrize("epoch", [1, 2])
def test_without_validation_the_last_whole_epoch_is_restored(tiny, data, epoch):
    weights = Weights()

    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, at, logs=None):
            if at + 1 == epoch:
                self.model.get_layer("logits").kernel.assign(self.model.get_layer("logits").kernel * np.inf)

    model = tiny.numeric_classifier()
    before = model.get_weights()
    which = "from before it" if epoch == 1 else "of epoch 1"
    with pytest.raises(FloatingPointError, match=f"training diverged, and the weights {which} are restored"):
        quick(model, *data, epochs=3, callbacks=[weights, Explode()])
    assert same_weights(model.get_weights(), before if epoch == 1 else weights.epochs[0][1])


def test_weights_that_the_last_step_made_infinite_are_divergence_too(tiny, data):
    # The losses were all finite: they were computed before their step.
    class Last(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            kernel = self.model.get_layer("logits").kernel
            kernel.assign(kernel * np.inf)

    model, weights = tiny.numeric_classifier(), Weights()
    with pytest.raises(
        FloatingPointError, match="^The weights became NaN or infinite in epoch 2, step 5 of 5, at the rate "
    ):
        quick(model, *data, callbacks=[weights, Last()])
    assert same_weights(model.get_weights(), weights.epochs[-1][1])


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("validated", [True, False], ids=["validated", "not validated"])
def test_an_interrupted_run_leaves_what_it_has(tiny, data, held_out, tmp_path, validated):
    model, weights = tiny.numeric_classifier(), Weights()
    validation = {"validation_data": held_out} if validated else {}
    with pytest.raises(KeyboardInterrupt):
        quick(
            model, *data, epochs=5, callbacks=[weights, Interrupt(2)], run_dir=tmp_path / "run", **validation
        )
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    trace = TrainingTrace.load(tmp_path / "run" / "trace.jsonl")
    assert [record.epoch for record in trace.epochs] == [1, 2]
    x, y = held_out
    again = fe.load_model(tmp_path / "run")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    if validated:
        best = int(np.argmin([logs["val_loss"] for logs, _ in weights.epochs]))
        assert manifest["best_epoch"] == best + 1
        assert same_weights(model.get_weights(), weights.epochs[best][1])
    loss, accuracy = model.evaluate(x, y, verbose=0)  # two numbers again, not five
    assert (fe.evaluate(model, x, y).loss, accuracy) == pytest.approx((loss, accuracy), abs=1e-6)


def test_a_run_interrupted_in_its_first_epoch_has_no_model(tiny, data, held_out, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quick(
            tiny.numeric_classifier(),
            *data,
            validation_data=held_out,
            callbacks=[Interrupt(0)],
            run_dir=tmp_path / "r",
        )
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["status"] == "interrupted"
    sentence = (
        f"`path` {str(tmp_path / 'r')!r} holds no model: it holds a run that was interrupted in epoch 1 of "
        "2; no weights were kept."
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        fe.load_model(tmp_path / "r")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow never takes weights out")
def test_an_interruption_while_a_batch_is_made_loses_no_weight(tiny, data, monkeypatch):
    model = tiny.numeric_classifier()
    before, original, made = model.get_weights(), module.Classifier.batches, []

    def batches(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        take = found._batch

        def interrupted(rows, **options):
            made.append(rows)
            if len(made) == 2:  # the first is looked at for its shape, the second is to be trained on
                raise KeyboardInterrupt
            return take(rows, **options)

        found._batch = interrupted
        return found

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.Classifier, "batches", batches)
        quick(model, *data)
    assert same_weights(model.get_weights(), before)
    assert np.isfinite(quick(model, *data).trace.epochs[-1].metrics["loss"])


# --- what fails does not lose the training ---


KILLED = """
import os, signal, sys
import keras, numpy as np
sys.path.insert(0, sys.argv[1])
import conftest as tiny
from finetune_eval import fine_tune

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 3 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_epoch_end(self, epoch, logs=None):
        np.savez(f"{sys.argv[2]}.{epoch + 1}.npz", *self.model.get_weights())

x, y = tiny.numeric_rows(80)
held_out = tiny.numeric_rows(40, seed=1) if sys.argv[3] == "validated" else None
model = tiny.numeric_classifier()
model.threshold = 0.3
fine_tune(model, x, y, epochs=4, learning_rate=0.05, validation_data=held_out, verbose=False,
          callbacks=[Kill()], run_dir=sys.argv[2])
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough: it starts Python")
@pytest.mark.parametrize("validated", ["validated", pytest.param("not validated", marks=pytest.mark.slow)])
def test_a_run_killed_in_its_last_epoch_keeps_the_best_one(tiny, tmp_path, validated):
    folder = tmp_path / "run"
    here = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", KILLED, here, str(folder), validated]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = Run(folder)
    assert run.read_manifest()["status"] == "running" and not run.in_use()
    assert len(TrainingTrace.load(run.trace).epochs) == 3
    model = fe.load_model(folder)
    # A thread writes: what the third epoch ended with may not be there yet, what an earlier one did is.
    best = TrainingTrace.load(run.trace).best_epoch if validated == "validated" else 3
    ended = [list(np.load(f"{folder}.{epoch}.npz").values()) for epoch in range(1, best + 1)]
    assert any(same_weights(model.get_weights(), weights) for weights in ended)
    assert (model.temperature, model.threshold) == (1.0, None)  # those of other weights are not theirs
    sentence = (
        f"`run_dir` {str(folder)!r} holds a run that was cut short: its process was killed in epoch 4 of 4; "
        "its weights are kept, and `load_model` reads them; pass `resume=True` to go on with it, or a new "
        "folder, or remove it first."
    )
    with pytest.raises(FileExistsError, match=exactly(sentence)):
        quick(tiny.numeric_classifier(), *tiny.numeric_rows(8), run_dir=folder)


class Full:
    """Stands for a disk without room for files whose names begin with `name`."""

    def __init__(self, monkeypatch, name):
        self.name, self.write = name, _files.write
        monkeypatch.setattr(_files, "write", self)

    def __call__(self, path, fill):
        def half(temporary):
            fill(temporary)
            if path.name.startswith(self.name):
                raise OSError(errno.ENOSPC, "No space left on device")

        self.write(path, half)


@pytest.mark.parametrize("name", ["manifest.json", "train.parquet", "model.keras"])
def test_what_cannot_be_written_before_training_is_no_run(tiny, tmp_path, monkeypatch, name):
    model = tiny.text_classifier()
    model.temperature, model.threshold = 2.5, 0.3
    before = model.get_weights()
    Full(monkeypatch, name)
    with pytest.raises(OSError, match=f"{name}' could not be written .No space left on device..$"):
        quick(model, TEXTS, Y, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert same_weights(model.get_weights(), before) and model.threshold == 0.3


def test_a_model_that_cannot_be_written_is_returned(tiny, data, held_out, tmp_path, monkeypatch):
    class Fill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            disk.name = "m"  # model.keras and manifest.json

    disk, folder = Full(monkeypatch, "never"), tmp_path / "run"
    options = {"validation_data": held_out, "callbacks": Fill(), "run_dir": folder}
    with pytest.warns(RuntimeWarning) as said:
        result = quick(tiny.numeric_classifier(), *data, **options)
    assert [str(each.message) for each in said if each.category is RuntimeWarning] == [
        f"The run could not be written whole: {str(folder / 'model' / 'model.keras')!r} could not be written "
        "(No space left on device). The model in memory is trained: save it elsewhere with "
        "`model.save(path)`. Its checkpoint has the weights of the best epoch."
    ]
    x, y = held_out
    assert result.model.evaluate(x, y, verbose=0)[0] == pytest.approx(
        min(record.metrics["val_loss"] for record in result.trace.epochs), abs=1e-6
    )
    again = fe.load_model(folder)  # the checkpoint has it
    assert same_weights(again.get_weights(), result.model.get_weights())
    assert not list(folder.rglob(".*"))


def test_a_checkpoint_or_a_trace_that_cannot_be_written_stops_nothing(
    tiny, data, held_out, tmp_path, monkeypatch
):
    disk = Full(monkeypatch, "best.npz")
    append = _files.append_line

    def fails(path, record, **kwargs):
        if record["epoch"] == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        append(path, record, **kwargs)

    monkeypatch.setattr(_files, "append_line", fails)
    with pytest.warns(RuntimeWarning) as said:
        result = quick(
            tiny.numeric_classifier(), *data, validation_data=held_out, epochs=4, run_dir=tmp_path / "run"
        )  # fmt: skip
    sentences = [str(each.message) for each in said]
    assert any(
        re.match("The weights of epoch 1 could not be written: .*best.npz", each) for each in sentences
    )
    assert any(
        re.match("The trace of the epochs could not be written: .*trace.jsonl", each) for each in sentences
    )
    assert disk.name and Run(tmp_path / "run").read_manifest()["status"] == "complete"
    assert TrainingTrace.load(tmp_path / "run" / "trace.jsonl").epochs == result.trace.epochs


def test_a_goal_that_no_threshold_reaches_is_a_warning_and_the_model_is_kept(tiny, data, tmp_path):
    x, y = data
    with pytest.warns(
        RuntimeWarning, match="The model is trained, but not all .*: `goal` 'precision>=0.99' is"
    ):
        result = quick(
            tiny.numeric_classifier(), x, y, validation_data=(x[:4], 1 - y[:4]), calibrate=True, epochs=9,
            threshold_for="precision>=0.99", run_dir=tmp_path / "run",
        )  # fmt: skip
    manifest = Run(tmp_path / "run").read_manifest()
    assert manifest["status"] == "complete" and manifest["threshold"] is None
    again = fe.load_model(tmp_path / "run")
    assert again.temperature == result.model.temperature == pytest.approx(manifest["temperature"])
    assert manifest["temperature"] != 1 and again.threshold is None


def test_temperature_and_threshold_are_chosen_on_validation_rows_and_shipped(tiny, data, tmp_path):
    x, y = data
    x_val, y_val = tiny.numeric_rows(60, seed=2)
    flipped = np.where(np.arange(60) % 5 == 0, 1 - y_val, y_val)  # so that no threshold is right in all
    result = quick(
        tiny.numeric_classifier(), x, y, validation_data=(x_val, flipped), calibrate=True, epochs=9,
        threshold_for="recall>=0.9", run_dir=tmp_path / "run",
    )  # fmt: skip
    model = result.model
    plain = tiny.numeric_classifier()
    plain.set_weights(model.get_weights())
    plain.temperature, plain.threshold = 1.0, None
    logits = np.log(plain.predict(x_val, verbose=0).astype(np.float64))

    def loss(temperature):  # Guo et al. 2017: the temperature of the smallest log-loss
        scaled = logits / temperature
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -scaled[np.arange(60), flipped].mean()

    best = scipy.optimize.minimize_scalar(lambda log: loss(np.exp(log)), bounds=(-4, 4), method="bounded")
    assert model.temperature == pytest.approx(np.exp(best.x), rel=1e-3) and abs(model.temperature - 1) > 0.01
    p = model.predict(x_val, verbose=0)[:, 1]
    # Of all thresholds with a recall of 0.9 the one of the highest precision is chosen.
    predicted = {t: p >= t for t in np.unique(p)}
    precisions = [flipped[at].mean() for at in predicted.values() if at[flipped == 1].mean() >= 0.9]
    answers = model.decide(np.stack([1 - p, p], axis=1)) == 1
    assert answers[flipped == 1].mean() >= 0.9 and flipped[answers].mean() == pytest.approx(max(precisions))
    again = fe.load_model(tmp_path / "run")
    assert again.temperature == model.temperature and again.threshold == model.threshold
    manifest = Run(tmp_path / "run").read_manifest()
    assert manifest["temperature"] == model.temperature
    assert manifest["threshold"]["value"] == float(model.threshold)
    judged = fe.evaluate(again, x, y, baselines=False, n_resamples=200)
    assert "chosen for recall>=0.9 on 60 rows" in " ".join(str(judged).split())


def test_an_abstention_is_chosen_on_the_validation_rows_and_shipped(tiny, data, tmp_path):
    held_out = tiny.numeric_rows(200, seed=1)
    result = quick(
        tiny.numeric_classifier(), *data, validation_data=held_out, calibrate=True, threshold_for="f1",
        abstain_for="error<=0.1@90%", epochs=9, run_dir=tmp_path / "run",
    )  # fmt: skip
    model, manifest = result.model, Run(tmp_path / "run").read_manifest()
    again = fe.load_model(tmp_path / "run")
    assert again.abstention == model.abstention and again.abstention.goal == "error<=0.1@90%"
    assert manifest["abstention"]["value"] == model.abstention.value
    assert model.abstention.threshold == model.threshold.value
    decided = np.asarray(model.decide(model.predict(held_out[0])))
    assert (decided >= 0).sum() == model.abstention.answered
    assert (decided != held_out[1])[decided >= 0].mean() == pytest.approx(model.abstention.error)
    model.threshold, model.abstention = None, 0.7
    quick(model, *data, epochs=1)
    assert model.abstention is None  # it was of other weights


def test_calibrating_with_a_bad_row_leaves_the_answer_as_it_was(tiny, data):
    model = tiny.numeric_classifier()
    model.temperature, model.threshold = 2.5, 0.3
    x, y = data
    bad = x.copy()
    bad[3, 2] = np.nan
    for rows in ((x, np.where(np.arange(80) == 7, 5, y)), (bad, y), (x[:, :4], y), (x, y[:3])):
        with pytest.raises(ValueError):
            model.calibrate(*rows)
        with pytest.raises(ValueError):
            model.choose_threshold(*rows)
        assert (model.temperature, model.threshold) == (2.5, 0.3)


# --- forms of rows, weights and callbacks ---


TEXTS = ["a good film.", "Bad, bad film!", "the film was very good", "not good"]


@pytest.fixture(scope="module")
def kept_model(tiny):
    """A classifier whose head alone is trained, again and again: its training rows are what is looked at."""
    return tiny.text_classifier(freeze=True)


@pytest.mark.parametrize(
    "form",
    [
        tf.constant, np.array, pd.Series, lambda texts: pd.DataFrame({"text": texts}), tuple,
        lambda texts: np.array([text.encode() for text in texts]), lambda texts: np.array(texts)[:, None],
    ],
    ids=["tensor", "array", "Series", "DataFrame", "tuple", "bytes", "(n, 1)"],
)  # fmt: skip
def test_texts_of_every_form_are_kept_with_the_run(kept_model, form, tmp_path):
    model = kept_model
    quick(model, form(TEXTS), Y, epochs=1, run_dir=tmp_path / "run")
    texts, labels = Run(tmp_path / "run").training_rows()
    assert (texts, labels.tolist()) == (TEXTS, ["negative", "positive"] * 2)
    assert fe.evaluate(model, TEXTS[:2], Y[:2], train=tmp_path / "run").leaks.counts["exact"] == 2


def test_class_weights_by_numpy_keys_are_those_of_plain_keys(tiny, data, tmp_path):
    x, y = data
    weights, given = [], ({0: 1, 1: 2}, dict(zip(np.unique(y), np.float32([1, 2]), strict=True)))
    for number, class_weight in enumerate(given):
        model = tiny.numeric_classifier()
        quick(model, x, y, class_weight=class_weight, epochs=1, run_dir=tmp_path / str(number))
        settings = Run(tmp_path / str(number)).read_manifest()["settings"]
        assert settings["class_weight"] == {"negative": 1.0, "positive": 2.0}
        weights.append(model.get_weights())
    assert same_weights(*weights)


@pytest.mark.parametrize("form", [lambda each: each, lambda each: [each], lambda each: (each,)])
def test_one_callback_or_several(tiny, data, form):
    weights = Weights()
    quick(tiny.numeric_classifier(), *data, callbacks=form(weights))
    assert len(weights.epochs) == 2
    quick(tiny.numeric_classifier(), *data, callbacks=None, epochs=1)


def test_a_run_that_is_owned_already_is_written_into(tiny, data, tmp_path):
    with Run.create(tmp_path / "run") as mine:
        result = quick(tiny.numeric_classifier(), *data, run_dir=mine)
        assert mine.in_use() and result.run_dir == tmp_path / "run"
    assert Run(tmp_path / "run").read_manifest()["status"] == "complete"


# --- precision ---


def products():
    return backbones.PRODUCTS.get()


def test_the_precision_is_put_back_even_after_an_error():
    with pytest.raises(KeyError), precision.matmul_precision("bfloat16"):
        with precision.matmul_precision("float32"):
            assert products() == "float32"
        assert products() == "bfloat16"
        raise KeyError
    assert products() == "float32"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bfloat16 products are TensorFlow's")
def test_fine_tune_trains_in_bfloat16_judges_in_float32_and_puts_it_back(tiny, monkeypatch):
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: True)
    used, weights = [], backbones._EncoderLayer._weights
    monkeypatch.setattr(
        backbones._EncoderLayer, "_weights", lambda self, as_: used.append(as_) or weights(self, as_)
    )
    rows = (list(tiny.texts), list(tiny.sentiments))
    model = tiny.text_classifier()
    run = fe.fine_tune(model, *rows, validation_data=rows, epochs=2, precision="auto", verbose=False)
    assert run.manifest["precision"] == {"asked": "auto", "used": "bfloat16"} and products() == "float32"
    layers = len(model.backbone.transformer_layers)
    assert used[:layers] == ["bfloat16"] * layers and used[-layers:] == ["float32"] * layers
    # What the trace says of validation rows is what `evaluate` says.
    best = run.trace.epochs[run.trace.best_epoch - 1].metrics
    found = model.evaluate(*rows, verbose=0, return_dict=True)
    assert best["val_loss"] == pytest.approx(found["loss"], abs=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bfloat16 products are TensorFlow's")
def test_fine_tune_puts_the_precision_back_when_interrupted(tiny, monkeypatch):
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: True)
    seen, rows = [], (list(tiny.texts), list(tiny.sentiments))
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(products()))
    with pytest.raises(KeyboardInterrupt):
        quick(tiny.text_classifier(), *rows, precision="bfloat16", callbacks=[look, Interrupt(0)])
    assert seen == ["bfloat16"] and products() == "float32"


@pytest.mark.parametrize(
    "backend, able, backbone",
    [("tensorflow", False, "bert"), ("jax", True, "bert"), ("tensorflow", True, "numbers")],
)
def test_bfloat16_is_refused_where_it_would_be_emulated_or_ignored(
    tiny, monkeypatch, backend, able, backbone
):
    model = tiny.text_classifier() if backbone == "bert" else tiny.numeric_classifier()
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: able)
    assert precision.resolve("auto", model.backbone) == "float32"
    sentence = (
        "`precision` 'bfloat16' needs a BERT backbone, the TensorFlow backend, no GPU, and a processor with "
        "avx512_bf16 or amx_bf16; use 'auto' or 'float32'."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        precision.resolve("bfloat16", model.backbone)


# --- bad arguments: refused before anything is trained ---

X = np.zeros((4, 10))
Y = [0, 1, 0, 1]
ONE_COLUMN_OFF = np.where(np.arange(40).reshape(4, 10) == 25, np.nan, 0)

# The rows of the table of silent traps that this path can meet, by what Keras does with them.
TRAPS = {
    "different lengths": (dict(y=[0, 1]), ValueError,
        "`x` and `y` must have the same number of rows; got 4 and 2."),
    "no labels": (dict(y=None), ValueError,
        "`y` is None; labels are needed: one class index or class name for each row."),
    "label -1": (dict(y=[0, 1, -1, 1]), ValueError,
        "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 2 is -1."),
    "label K": (dict(y=[0, 1, 2, 1]), ValueError,
        "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 2 is 2."),
    "fractional label": (dict(y=[0, 1, 0.7, 1]), ValueError,
        "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 2 is 0.7."),
    "NaN label": (dict(y=[0, 1, np.nan, 1]), ValueError,
        "`y` has no label in row 2; drop the row or give it a label."),
    "unknown name": (dict(y=["positive", "negative", "neutral", "positive"]), ValueError,
        "`y` has an unknown label 'neutral' in row 2; the labels are 'negative', 'positive'."),
    "NaN in x": (dict(x=ONE_COLUMN_OFF), ValueError,
        "`x` has NaN in row 2, column 5; drop the row or fill it."),
    "empty x": (dict(x=np.zeros((0, 10)), y=[]), ValueError, "`x` has no rows; at least one is needed."),
    "all-zero sample_weight": (dict(sample_weight=[0, 0, 0, 0]), ValueError,
        "`sample_weight` is 0 in every row; at least one row must count."),
    "short sample_weight": (dict(sample_weight=[1], class_weight="balanced"), ValueError,
        "`sample_weight` must have one value for each of the 4 rows; got 1."),
    "class_weight without a class": (dict(class_weight={"negative": 1.0}), ValueError,
        "`class_weight` has no weight for 'positive'; give every class one."),
    "tf.data": (dict(x=tf.data.Dataset.from_tensors(0), y=None), ValueError,
        "`x` is a pipeline (_TensorDataset) without labels; each batch must be (x, y) or (x, y, weights)."),
    "a generator": (dict(x=(row for row in X), y=None), ValueError,
        "`x` is a pipeline (generator) that does not tell how many batches it has."),
    "labels beside a pipeline": (dict(x=tf.data.Dataset.from_tensors((X, Y))), ValueError,
        "`x` is a pipeline (_TensorDataset), which gives the labels and weights; pass neither beside it."),
    "an endless pipeline": (dict(x=tf.data.Dataset.from_tensors((X, Y)).repeat(), y=None), ValueError,
        "`x` is a pipeline (_RepeatDataset) that never ends; take a number of batches: `x.take(100)`."),
    "two kinds of validation": (dict(validation_data=(X, Y), validation_split=0.5), ValueError,
        "`validation_split` and `validation_data` are both given; pass one of them."),
    "a share of 1": (dict(validation_split=1), ValueError,
        "`validation_split` must be a finite number above 0 and below 1; got 1."),
    "a share of all": (dict(validation_split=0.9), ValueError,
        "`validation_split` 0.9 of 4 rows leaves none for training; pass a smaller share."),
    "a share of none": (dict(validation_split=0.1), ValueError,
        "`validation_split` 0.1 of 4 rows leaves none for validation; pass a larger share."),
    "texts for numbers": (dict(x=["a", "b", "c", "d"]), TypeError,
        "`x` must hold real numbers; got 'a' (dtype object)."),
    "too few columns": (dict(x=np.zeros((4, 9))), ValueError, "`x` must have shape (rows, 10); got (4, 9)."),
    "validation labels": (dict(validation_data=(X, [0, 1, 0, 3])), ValueError,
        "`validation y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 3 is "
        "3."),
    "validation without labels": (dict(validation_data=X), TypeError,
        "`validation_data` must be a pair `(x, y)`, such as `dataset.validation`, or `(x, y, weights)`."),
    "unknown monitor": (dict(validation_data=(X, Y), monitor="val_f2"), ValueError,
        "`monitor` must be one of 'val_loss', 'val_accuracy', 'val_precision', 'val_recall', 'val_f1'; "
        "got 'val_f2'. Did you mean 'val_f1'?"),
    "monitor without validation": (dict(monitor="val_f1"), ValueError,
        "`early_stopping` and `monitor` need `validation_data=(x, y)` to measure on."),
    "patience 0": (dict(validation_data=(X, Y), early_stopping=0), ValueError,
        "`early_stopping` must be at least 1; got 0."),
    "epochs": (dict(epochs=0), ValueError, "`epochs` must be at least 1; got 0."),
    "batch_size": (dict(batch_size=0), ValueError, "`batch_size` must be at least 1; got 0."),
    "rate": (dict(learning_rate=0), ValueError,
        "`learning_rate` must be a finite number above 0 and at most 1; got 0."),
    "smoothing": (dict(label_smoothing=1), ValueError,
        "`label_smoothing` must be a finite number at least 0 and below 1; got 1."),
    "goal": (dict(validation_data=(X, Y), threshold_for="recal>=0.9"), ValueError,
        "`threshold_for` can bound 'recall' or 'precision'; got 'recal>=0.9'. Did you mean 'recall'?"),
    "no error": (dict(validation_data=(X, Y), abstain_for="f1"), ValueError,
        "`abstain_for` must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got 'f1'. "
        "`threshold_for` takes other goals."),
    "few rows to choose on": (dict(validation_data=(X, Y), abstain_for="error<=0.05@95%"), ValueError,
        "`abstain_for` 'error<=0.05@95%' needs at least 59 rows to choose on, all of them answered rightly; "
        "there are 4."),
    "cost": (dict(validation_data=(X, Y), threshold_for="cost"), ValueError,
        "`threshold_for` cannot be 'cost': what a mistake costs must be said. Train without it, then "
        "`choose_threshold(y, p, goal='cost', false_positive_cost=..., false_negative_cost=...)`."),
    "one class to choose on": (dict(validation_data=(X, [1, 1, 1, 1]), threshold_for="f1"), ValueError,
        "`threshold_for` needs validation rows of both classes; all 4 are 'positive'."),
    "two arrays in one": (dict(validation_data=np.zeros((2, 10))), TypeError,
        "`validation_data` must be a pair `(x, y)`, such as `dataset.validation`, or `(x, y, weights)`."),
    "weights in a list": (dict(class_weight=[1.0, 2.0]), TypeError,
        "`class_weight` must be a dictionary from class to weight, or 'balanced'; got list. Write "
        "{class: weight, ...}."),
    "no callback": (dict(callbacks=[keras.callbacks.TerminateOnNaN]), TypeError,
        "`callbacks` must hold Keras callbacks; number 0 is <class "
        "'keras.src.callbacks.terminate_on_nan.TerminateOnNaN'> (type). Is it a class? Make one of it: add "
        "()."),
    "callbacks of another kind": (dict(callbacks="EarlyStopping"), TypeError,
        "`callbacks` must be Keras callbacks, one or a list; got str."),
    "calibrate": (dict(validation_data=(X, Y), calibrate="yes"), TypeError,
        "`calibrate` must be True or False; got 'yes'."),
    "seed": (dict(seed=2**32), ValueError, "`seed` must be at most 4,294,967,295; got 4294967296."),
    "another order": (dict(x=pd.DataFrame(X, index=list("abcd")), y=pd.Series(Y, index=list("abdc"))),
        ValueError, "`x` and `y` name their rows differently: row 2 is 'c' in one index and 'd' in the other."
        " Bring one into the order of the other (`y = y.loc[x.index]`), or, where their rows are in the same "
        "order already, call `.reset_index(drop=True)` on both."),
    "precision": (dict(precision="fp16"), ValueError,
        "`precision` must be one of 'auto', 'float32', 'bfloat16'; got 'fp16'."),
}  # fmt: skip


@pytest.fixture(scope="module")
def untouched(tiny):
    return tiny.numeric_classifier()


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_one_clear_sentence_and_nothing_was_trained(untouched, tmp_path, trap):
    changes, error, sentence = TRAPS[trap]
    before = untouched.get_weights()
    settings = {"x": X, "y": Y, "verbose": False, "run_dir": tmp_path / "run", **changes}
    x, y = settings.pop("x"), settings.pop("y")
    with pytest.raises(error, match=exactly(sentence)):
        fine_tune(untouched, x, y, **settings)
    assert same_weights(untouched.get_weights(), before)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "y",
    [
        Y,
        np.array(Y)[:, None],
        np.eye(2)[Y],
        ["negative", "positive"] * 2,
        np.array(Y, "float32"),
        pd.Series(Y),
    ],
    ids=["indices", "(n, 1)", "one-hot", "names", "float", "Series"],
)
def test_labels_of_every_form_mean_the_same(untouched, y):
    # Keras broadcasts (n, 1) in F1Score, refuses names and truncates fractions.
    batches = untouched.batches(X, y, batch_size=4)
    one_hot = np.ndim(y) == 2 and np.shape(y)[1] == 2  # stays so, for losses that want it
    assert batches.y.tolist() == (np.eye(2)[Y] if one_hot else np.array(Y)).tolist()


def test_a_model_of_another_kind_is_refused():
    sentence = (
        "`model` must come from `build_model`; got Functional. "
        "Wrap any keras.Model that gives features: `build_model(model, labels=[…])`."
    )
    inputs = keras.Input((10,))
    with pytest.raises(TypeError, match=exactly(sentence)):
        fine_tune(keras.Model(inputs, keras.layers.Dense(2)(inputs)), X, Y)


def test_the_table_is_printed_as_the_epochs_end(tiny, data, capsys):
    fine_tune(tiny.numeric_classifier(), *data, epochs=1)
    printed = capsys.readouterr().out
    assert "loss" in printed.splitlines()[0] and max(map(len, printed.splitlines())) <= 80


# --- rows that come otherwise ---


def test_a_pipeline_is_trained_on_as_its_rows_are(tiny):
    x, y = tiny.numeric_rows(40)
    weights = np.linspace(0.5, 1.5, 40).astype("float32")
    rows = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(7)

    class Batches(keras.utils.PyDataset):
        num_batches = 2

        def __getitem__(self, index):
            return x[index * 20 :][:20], y[index * 20 :][:20], weights[index * 20 :][:20]

    settings = dict(epochs=2, verbose=False, seed=3)
    plain = fe.fine_tune(
        tiny.numeric_classifier(), x, y, sample_weight=weights, validation_data=(x, y), **settings
    )
    for pipeline in (rows, Batches()):
        held_out = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
        run = fe.fine_tune(tiny.numeric_classifier(), pipeline, validation_data=held_out, **settings)
        assert [epoch.metrics for epoch in run.trace.epochs] == [
            epoch.metrics for epoch in plain.trace.epochs
        ]
        for ours, theirs in zip(run.model.weights, plain.model.weights, strict=True):
            np.testing.assert_array_equal(np.array(ours), np.array(theirs))


def test_a_share_is_held_out_by_class_and_repeats_stay_together(tiny, capsys):
    x, _ = tiny.numeric_rows(100)
    y = np.repeat([0, 1], [80, 20])
    x[50:60] = x[40:50]  # ten rows are there twice
    run = fe.fine_tune(tiny.numeric_classifier(), x, y, validation_split=0.2, epochs=1, seed=5)
    assert "20 of 100 rows are held out, by class: they choose the best epoch\n" in capsys.readouterr().out
    parts = fe.split(x, y, labels=tiny.labels, validation=0.2, test=0, seed=5)
    assert np.bincount(parts.validation.y).tolist() == [16, 4]
    by_hand = fe.fine_tune(
        tiny.numeric_classifier(), *parts.train, validation_data=parts.validation, epochs=1, seed=5,
        verbose=False,
    )  # fmt: skip
    assert run.manifest["rows"] == by_hand.manifest["rows"]
    assert run.trace.epochs[0].metrics == by_hand.trace.epochs[0].metrics
    weighted = fe.fine_tune(
        tiny.numeric_classifier(), x, y, validation_split=0.2, sample_weight=np.arange(1, 101), epochs=1,
        seed=5, verbose=False,
    )  # fmt: skip
    weights = np.arange(1, 101)[parts.validation.ids]
    p = weighted.model.predict(parts.validation.x, verbose=0).astype(float)
    losses = -np.log(p[np.arange(20), parts.validation.y])
    assert weighted.history["val_loss"][0] == pytest.approx(np.average(losses, weights=weights), rel=1e-5)


def test_the_history_is_that_of_keras(tiny):
    x, y = tiny.numeric_rows(20)
    run = fe.fine_tune(tiny.numeric_classifier(), x, y, validation_data=(x, y), epochs=3, verbose=False)
    assert list(run.history) == list(run.trace.epochs[0].metrics)
    assert run.history["val_loss"] == [epoch.metrics["val_loss"] for epoch in run.trace.epochs]


def test_a_class_that_training_never_saw_is_an_error_that_names_it(tiny):
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"))
    x, _ = tiny.numeric_rows(6)
    with pytest.raises(ValueError) as error:
        fe.fine_tune(model, x, [0, 1, 0, 1, 0, 1], validation_data=(x[:3], ["a", "c", "b"]), verbose=False)
    assert str(error.value) == (
        "`validation_data` has the class 'c' in row 1, which no training row has, so the model could never "
        "answer it. Give it training rows, or leave its rows out."
    )


@pytest.mark.parametrize("weights", [None, [1, 1, 1, 1, 1, 0]])
def test_a_class_that_no_row_has_is_named_in_a_warning(tiny, weights):
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"))
    x, _ = tiny.numeric_rows(6)
    last, counted = (
        (1, "") if weights is None else (2, " of a weight above 0")
    )  # a "c" that counts for nothing
    with pytest.warns(UserWarning) as warned:
        fe.fine_tune(model, x, [0, 1, 0, 1, 0, last], sample_weight=weights, epochs=1, verbose=False)
    warned = [each for each in warned if each.category is UserWarning]  # others are TensorFlow's own
    assert [str(each.message) for each in warned] == [
        f"The model has classes that no training row{counted} has, so it will hardly ever answer them: 'c'. "
        "Add such rows, or build the model without these classes."
    ]
    assert warned[0].filename == __file__


def test_classes_of_weight_0_are_unseen_and_validation_rows_of_weight_0_are_no_error(tiny):
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"))
    x, _ = tiny.numeric_rows(6)
    train = {"x": x, "y": list("ababac"), "sample_weight": [1, 1, 1, 1, 1, 0], "epochs": 1, "verbose": False}
    with pytest.raises(ValueError, match="class 'c' in row 2, which no training row of a weight above 0 has"):
        fe.fine_tune(model, validation_data=(x[:4], list("cacb"), [0, 1, 1, 1]), **train)
    with pytest.warns(UserWarning, match="no training row of a weight above 0 has, .*: 'c'"):
        fe.fine_tune(model, validation_data=(x[:4], list("cacb"), [0, 1, 0, 1]), **train)


def test_a_class_that_has_a_share_of_a_row_is_seen(tiny):
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"))
    x, _ = tiny.numeric_rows(4)
    y = [[0.9, 0.0, 0.1]] * 2 + [[0.0, 1.0, 0.0]] * 2  # "c" is the most probable class of no row
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fe.fine_tune(model, x, y, epochs=1, verbose=False)
