"""A run that was interrupted and resumed is, to the bit, the run without a break."""

import json
import math
import os
import re
import shutil
import signal

import keras
import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.runs import Run
from finetune_eval.training import rows as stored_rows
from finetune_eval.training.states import States, pack, unpack
from finetune_eval.training.step_checkpoints import parse_every

NEVER = 10**9


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


class Counter(keras.callbacks.Callback):
    """Counts steps over interruptions, and interrupts at one of them."""

    def __init__(self, at=NEVER):
        super().__init__()
        self.at, self.steps = at, []

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((self.epoch, batch))
        if len(self.steps) == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def numbers(tiny):
    x, y = tiny.numeric_rows(56)
    return x, y, tiny.numeric_rows(24, seed=1)


def tuned(tiny, numbers, folder, callbacks=None, **settings):
    x, y, held_out = numbers
    settings = {
        "validation_data": held_out, "epochs": 3, "learning_rate": 0.01, "checkpoint_every": 3,
        "verbose": False, **settings,
    }  # fmt: skip
    return fe.fine_tune(tiny.numeric_classifier(), x, y, callbacks=callbacks, run_dir=folder, **settings)


def interrupted(tiny, numbers, folder, at, **settings):
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny, numbers, folder, Counter(at), **settings)
    return folder


def same(one, other):
    """Assert that two runs are the same but for the time they took."""
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    of = [
        [(each.metrics, each.learning_rate, each.observation) for each in run.trace.epochs]
        for run in (one, other)
    ]
    assert of[0] == of[1] and one.trace.best_epoch == other.trace.best_epoch
    saved = [fe.load_model(run.run_dir).get_weights() for run in (one, other)]
    for a, b in zip(*saved, strict=True):
        np.testing.assert_array_equal(a, b)
    of_lines = [(run.run_dir / "trace.jsonl").read_text().count("\n") for run in (one, other)]
    assert of_lines == [len(one.trace.epochs)] * 2


@pytest.fixture(scope="module")
def whole(tiny, numbers, tmp_path_factory):
    """The run without a break."""
    return tuned(tiny, numbers, tmp_path_factory.mktemp("whole"), Counter())


@pytest.fixture(scope="module")
def broken_once(tiny, numbers, tmp_path_factory):
    return interrupted(tiny, numbers, tmp_path_factory.mktemp("broken"), 11)


@pytest.fixture
def broken(broken_once, tmp_path):
    """The folder of the same run, interrupted in its last epoch, with checkpoints after 6 and 9 steps."""
    return shutil.copytree(broken_once, tmp_path / "broken")


CASES = {
    "full": {"early_stopping": 1, "epochs": 5},
    "head, averaged and accumulated": {
        "strategy": "head", "average_last": 0.5, "gradient_accumulation": 2, "batch_size": 4,
    },
    "gradual, exponential mean": {"strategy": "gradual", "ema": 0.9, "validation_data": None},
    "head then full, calibrated": {
        "strategy": "head_then_full", "calibrate": True, "class_weight": "balanced",
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_resumed_run_is_the_run_without_a_break(tiny, numbers, tmp_path, settings):
    whole = tuned(tiny, numbers, tmp_path / "whole", Counter(), **settings)
    folder = interrupted(tiny, numbers, tmp_path / "r", 6, **settings)
    counter = Counter()
    again = fe.resume(folder, callbacks=counter, verbose=False)
    same(whole, again)
    steps = len(again.trace.epochs) * (7 if "gradient_accumulation" in settings else 4)
    assert (
        len(counter.steps) == steps == len(set(counter.steps))
    )  # no step is told of twice, none is left out
    assert sorted(os.listdir(folder)) == ["manifest.json", "model", "trace.jsonl"]
    assert len(again.manifest["resumed"]) == 1 and again.manifest["status"] == "complete"


@pytest.mark.parametrize("at", [1, 5])  # before the first checkpoint, and after one at the end of an epoch
def test_wherever_it_is_interrupted(tiny, numbers, whole, tmp_path, at):
    interrupted(tiny, numbers, tmp_path, at, checkpoint_every=4)
    assert sum(1 for _ in (tmp_path / "checkpoint").glob("step-*.json")) == (at == 5)
    same(whole, fe.resume(tmp_path, callbacks=Counter(), verbose=False))


@pytest.mark.slow
def test_dropout_tokens_and_adapters_go_on_where_they_were(tiny, tmp_path):
    x, y = list(tiny.texts) * 2, list(tiny.sentiments) * 2

    def run(folder, at=NEVER):
        backbone, preprocessor = tiny.bert(layers=1, dropout=0.2)
        model = fe.build_model(backbone, tiny.labels, preprocessor=preprocessor)
        return fe.fine_tune(
            model, x, y, validation_data=(x[:8], y[:8]), strategy="lora", epochs=2, batch_size=4,
            learning_rate=0.01, checkpoint_every=1, verbose=False, run_dir=folder, callbacks=Counter(at),
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 6)
    same(whole, fe.resume(tmp_path / "broken", callbacks=Counter(), verbose=False))


def test_a_run_that_is_interrupted_again(whole, broken):
    with pytest.raises(KeyboardInterrupt):
        fe.resume(broken, callbacks=Counter(12), verbose=False)
    same(whole, fe.resume(broken, callbacks=Counter(), verbose=False))


# --- checkpoints ---


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_named(whole, broken):
    folder = broken / "checkpoint"
    kept = {path.name for path in folder.iterdir() if not path.name.startswith("best-epoch")}
    assert kept == {
        *("best.npz", "model.keras", "rows.npz"),
        *("step-2.json", "step-2.npz", "step-3.json", "step-3.npz"),
    }
    newest = folder / "step-3.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    sentence = (
        f"{str(newest)!r} is damaged: it does not fit the checksum in step-3.json. The checkpoint before it "
        "is used; where there is none, the run begins anew."
    )
    with pytest.warns(RuntimeWarning, match=exactly(sentence)):
        same(whole, fe.resume(broken, callbacks=Counter(), verbose=False))


def test_damaged_weights_of_the_best_epoch_are_not_taken(whole, broken):
    for path in (broken / "checkpoint").glob("best-epoch-*.npz"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(
        RuntimeWarning, match=r"best-epoch-\d\.npz' is damaged: it does not fit the checksum in"
    ):
        same(whole, fe.resume(broken, callbacks=Counter(), verbose=False))


def test_where_all_checkpoints_are_damaged_the_run_begins_anew(whole, broken):
    for path in (broken / "checkpoint").glob("step-*.json"):
        path.write_text(path.read_text()[:-20])
    with pytest.warns(RuntimeWarning, match=r"step-\d+\.json' is damaged or was cut"):
        same(whole, fe.resume(broken, callbacks=Counter(), verbose=False))


@pytest.mark.parametrize("name", ["rows.npz", "model.keras"])
def test_a_run_whose_rows_or_model_are_damaged_says_so(broken, name):
    path = broken / "checkpoint" / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=re.escape(name)):
        fe.resume(broken, callbacks=Counter(), verbose=False)


def test_a_disk_without_room_for_a_checkpoint_is_a_warning(tiny, numbers, tmp_path, monkeypatch):
    def full(self, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(States, "write", full)
    with pytest.warns(RuntimeWarning, match=r"^A checkpoint could not be written: .* Training goes on\.$"):
        run = tuned(tiny, numbers, tmp_path)
    assert run.manifest["status"] == "complete"


def test_how_often():
    assert parse_every(500) == (500, None) and parse_every(None) == (None, None)
    assert [parse_every(each)[1] for each in ("30s", "1.5 min", "2h")] == [30, 90, 7200]
    sentence = (
        "`checkpoint_every` must be a number of steps such as 500, a time such as '30s' or '10min', or None; "
        "got 'often'."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        parse_every("often")
    for wrong in (0, 1.5, True, "0s"):
        with pytest.raises((ValueError, TypeError), match="`checkpoint_every` must be"):
            parse_every(wrong)


# --- callbacks ---


@pytest.mark.slow
def test_keras_callbacks_go_on_where_they_were(tiny, numbers, tmp_path):
    def callbacks(at):
        # The first epoch is never bettered by 1: the wait goes on over the interruption.
        return [keras.callbacks.EarlyStopping("val_loss", min_delta=1.0, patience=2), Counter(at)]

    whole = tuned(tiny, numbers, tmp_path / "whole", callbacks(NEVER), epochs=6)
    assert len(whole.trace.epochs) == 3
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny, numbers, tmp_path / "r", callbacks(10), epochs=6)
    same(whole, fe.resume(tmp_path / "r", callbacks=callbacks(NEVER), verbose=False))


def test_callbacks_have_to_be_those_of_before(broken):
    sentence = (
        "`callbacks` had Counter when the run began, and has none now; pass callbacks of the same classes, "
        "in the same order."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.resume(broken, verbose=False)


def test_a_callback_without_state_is_named(broken):
    run, Named = Run(broken), type("Counter", (keras.callbacks.Callback,), {})
    run.write_manifest({**run.read_manifest(), "status": "running"})
    sentence = "Counter in `callbacks` has no `get_state` and `set_state`, and begins anew."
    with pytest.warns(RuntimeWarning, match=exactly(sentence)):
        fe.resume(broken, callbacks=Named(), verbose=False)


def test_a_state_that_cannot_be_written_is_refused_before_the_first_step(tiny, numbers, tmp_path):
    counter = Counter()
    counter.get_state = lambda: {"model": object()}
    sentence = (
        "What `get_state` of the callback Counter returns must hold numbers, texts, arrays, and lists, "
        "tuples and dicts of these; it holds an object of the type object."
    )
    with pytest.raises(TypeError, match=exactly(sentence)):
        tuned(tiny, numbers, tmp_path, counter)
    assert counter.steps == []


def test_a_state_comes_back_as_it_was():
    state = {
        "a": [1, 2.5, None, True, "x"], 3: (1, (2,)), "nan": math.nan, "inf": -math.inf,
        "half": np.float16(0.1), "array": np.arange(6, dtype=np.uint8).reshape(2, 3), "large": 2**100,
        "dict": {"array": 1}, "empty": {},
    }  # fmt: skip
    arrays = {}
    read = unpack(json.loads(json.dumps(pack(state, arrays, "It"), allow_nan=False)), arrays)
    assert math.isnan(read.pop("nan")) and math.isnan(state.pop("nan"))
    np.testing.assert_array_equal(read.pop("array"), state.pop("array"))
    assert read == state and type(read["half"]) is np.float16 and type(read[3]) is tuple


# --- fine_tune(resume=True) ---


def test_one_call_begins_goes_on_and_reads_what_is_complete(tiny, numbers, whole, tmp_path, capsys):
    interrupted(tiny, numbers, tmp_path / "r", 7, resume=True)
    capsys.readouterr()
    same(whole, tuned(tiny, numbers, tmp_path / "r", Counter(), resume=True, verbose=True))
    assert f"{str(tmp_path / 'r')!r} goes on in epoch 2 of 3, after step 2 of 4." in capsys.readouterr().out
    again = tuned(tiny, numbers, tmp_path / "r", Counter(), resume=True, verbose=True)
    sentence = f"{str(tmp_path / 'r')!r} is complete, trained for 3 epochs: there is nothing to resume.\n"
    assert capsys.readouterr().out == sentence
    same(whole, again)
    same(whole, fe.resume(tmp_path / "r"))
    assert capsys.readouterr().out == sentence


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            {"learning_rate": 0.02},
            "`learning_rate` was 0.01 when the run began, and is 0.02 now; pass what it was, "
            "or another `run_dir`.",
        ),
        (
            {"sample_weight": np.linspace(1, 2, 56)},
            "`x`, `y`, `validation_data` or `sample_weight` are not those that the run began with; pass the "
            "same, in the same order, or another `run_dir`.",
        ),
    ],
    ids=["setting", "rows"],
)
def test_another_training_is_not_the_one_that_began(tiny, numbers, broken, change, sentence):
    with pytest.raises(ValueError, match=exactly(sentence)):
        tuned(tiny, numbers, broken, Counter(), resume=True, **change)
    assert Run(broken).read_manifest()["status"] == "interrupted"


def test_another_model_is_not_the_one_that_began(tiny, numbers, broken):
    x, y, held_out = numbers
    with pytest.raises(ValueError, match="^`model` has other weights than the one that the run began with"):
        fe.fine_tune(
            tiny.numeric_classifier(seed=1), x, y, validation_data=held_out, epochs=3, learning_rate=0.01,
            run_dir=broken, resume=True, callbacks=Counter(),
        )  # fmt: skip


@pytest.mark.parametrize(
    "change, what",
    [
        (lambda model: setattr(model, "labels", model.labels[::-1]), "labels"),
        (lambda model: setattr(model, "dropout", 0.6), "dropout"),
        (lambda model: model.backbone.__setattr__("trainable", False), "frozen layers"),
    ],
    ids=["labels", "dropout", "frozen layers"],
)
def test_a_model_of_the_same_weights_that_is_built_otherwise_is_refused(tiny, numbers, broken, change, what):
    x, y, held_out = numbers
    model = tiny.numeric_classifier()
    change(model)
    with pytest.raises(
        ValueError, match=f"^`model` had the {what} .* when the run began, and has .* now. Build"
    ):
        fe.fine_tune(
            model, x, y, validation_data=held_out, epochs=3, learning_rate=0.01, run_dir=broken,
            resume=True, callbacks=Counter(),
        )  # fmt: skip
    assert Run(broken).read_manifest()["status"] == "interrupted"


@pytest.mark.parametrize("built", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_that_had_adapters_already_goes_on(tiny, tmp_path, built):
    x, y = list(tiny.texts), list(tiny.sentiments)
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "checkpoint_every": 1, "verbose": False}

    def model():
        backbone, preprocessor = tiny.bert(layers=1, dropout=0.2)
        made = fe.build_model(
            backbone, tiny.labels, preprocessor=preprocessor, lora_rank=2 if built else None, seed=1
        )
        if not built:  # the second training finds adapters that are not 0
            fe.fine_tune(made, x, y, strategy="lora", **settings)
        return made

    def run(folder, at=NEVER, **more):
        return fe.fine_tune(model(), x, y, run_dir=folder, callbacks=Counter(at), **settings, **more)

    whole = run(tmp_path / "whole")
    for at in (1,) if built else (1, 4):  # before any checkpoint, and after one
        folder = tmp_path / f"broken at {at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, at)
        if at == 1:
            for file in (folder / "checkpoint").glob("step-*"):
                file.unlink()
        resumed = fe.resume(folder, callbacks=Counter(), verbose=False)
        same(whole, resumed)
    trained = [weight.path for weight in whole.model.trainable_weights]
    assert [weight.path for weight in resumed.model.trainable_weights] == trained
    if built:
        return
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "again", 4)
    same(whole, run(tmp_path / "again", resume=True))


def test_a_run_that_was_killed_before_it_had_begun_begins(tiny, numbers, whole, tmp_path):
    with Run.create(tmp_path / "r") as run:
        run.write_manifest({"status": "running", "settings": {}})
    same(whole, tuned(tiny, numbers, tmp_path / "r", Counter(), resume=True))


def test_resume_needs_a_run(tiny, numbers, tmp_path):
    with pytest.raises(
        ValueError, match=exactly("`resume` needs `run_dir`, the folder of the run that goes on.")
    ):
        tuned(tiny, numbers, None, resume=True)
    sentence = f"`run` {str(tmp_path)!r} is no run folder: it has no manifest.json."
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        fe.resume(tmp_path)


# --- what was different then ---


def test_other_versions_are_told_and_another_backend_is_refused(whole, broken):
    run = Run(broken)
    manifest = run.read_manifest()
    other = "torch" if keras.backend.backend() != "torch" else "jax"
    run.write_manifest({**manifest, "environment": {**manifest["environment"], "backend": other}})
    sentence = f"The run began on the backend {other!r}; set KERAS_BACKEND={other} to go on with it."
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.resume(broken, callbacks=Counter(), verbose=False)
    run.write_manifest({**manifest, "environment": {**manifest["environment"], "python": "3.9.0"}})
    with pytest.warns(RuntimeWarning, match=r"^The run began elsewhere: 'python 3\.9\.0, now 3"):
        same(whole, fe.resume(broken, callbacks=Counter(), verbose=False))


def test_a_run_that_diverged_or_had_not_begun_is_not_resumed(broken):
    run = Run(broken)
    manifest = run.read_manifest()
    run.write_manifest({**manifest, "status": "diverged"})
    with pytest.raises(ValueError, match="holds a run that diverged: it would diverge again"):
        fe.resume(broken, callbacks=Counter())
    run.write_manifest({name: value for name, value in manifest.items() if name != "resume"})
    with pytest.raises(
        ValueError, match="holds a run that cannot be resumed: it ended before its first step"
    ):
        fe.resume(broken, callbacks=Counter())


def test_rows_that_are_too_many_to_be_stored_are_asked_for(tiny, numbers, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_rows, "_MOST_BYTES", 100)
    interrupted(tiny, numbers, tmp_path / "r", 7)
    with pytest.raises(
        ValueError, match=r"has no copy of its rows, which take more than 1 GiB; call `fine_tune"
    ):
        fe.resume(tmp_path / "r", callbacks=Counter())
    same(whole, tuned(tiny, numbers, tmp_path / "r", Counter(), resume=True))


# --- signals ---


class Signal(Counter):
    """Sends Ctrl-C in the middle of a step."""

    def on_train_batch_begin(self, batch, logs=None):
        if len(self.steps) + 1 == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((self.epoch, batch))


@pytest.fixture
def ctrl_c():
    """Python's own answer to Ctrl-C: a process that was started in the background has none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_step_and_saves_it(tiny, numbers, whole, tmp_path, capsys, ctrl_c):
    counter = Signal(6)
    with pytest.raises(KeyboardInterrupt) as stopped:
        tuned(tiny, numbers, tmp_path / "r", counter, checkpoint_every=None, verbose=True)
    assert stopped.value.__notes__ == [f"`finetune_eval.resume({str(tmp_path / 'r')!r})` goes on."]
    assert "The training stops after this step, which is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is ctrl_c and len(counter.steps) == 6
    state = States(tmp_path / "r" / "checkpoint").newest()
    assert (state.epoch, state.step) == (1, 2)
    same(whole, fe.resume(tmp_path / "r", callbacks=Signal(), verbose=False))
