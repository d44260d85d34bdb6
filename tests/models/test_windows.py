"""Texts longer than the model, read in windows: against windows cut and averaged here by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import finetune_eval as fe
from finetune_eval._checks import TextsCut
from finetune_eval.models import windows
from finetune_eval.models.batching import Batches
from finetune_eval.models.micro_batches import how_many

ROOM, LENGTH = 5, 7  # tokens of a text in a window, and with [CLS] and [SEP]
SHORT = ["a good film", "bad", "", "the film was not good"]
LONG = "a good bad film the was very not warm a bad film good"  # 13 tokens: windows begin at 0, 3, 6 and 9
CAPPED = " ".join(["good", "film"] * 40)  # 80 tokens, of which 5 + 15 * 3 = 50 are read


@pytest.fixture(scope="module")
def folder(checkpoints, tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("windows") / "x")[0]


def build(folder, choice="windows", **settings):
    return fe.build_model(folder, sequence_length=LENGTH, long_text=choice, dropout=0.0, **settings)


@pytest.fixture(scope="module")
def model(folder):
    made = build(folder)
    kernel = made.get_layer("logits").kernel
    kernel.assign(
        np.random.default_rng(0).normal(0, 0.2, kernel.shape)
    )  # answers that differ by the features
    return made


@pytest.fixture(scope="module")
def cut(folder, model):
    made = build(folder, "cut")
    made.set_weights(model.get_weights())
    return made


def by_hand(cut, text):
    """Return the probabilities of a text: its windows as texts of their own, their features averaged."""
    words = text.split()
    starts = [0]
    while starts[-1] + ROOM < len(words):
        starts.append(starts[-1] + ROOM - ROOM // 2)
    parts = [words[start : start + ROOM] for start in starts[:16]]
    backbone = keras.Model(cut.input, cut.get_layer("logits").input)
    features = [
        np.asarray(backbone(cut.encode([" ".join(part)]).take(np.array([0]))))[0].astype(float)
        for part in parts
    ]
    head = cut.get_layer("logits")
    mean = np.average(features, axis=0, weights=[len(part) + 2 for part in parts])
    logits = mean @ np.asarray(head.kernel) + np.asarray(head.bias)
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")
def test_a_long_text_is_the_mean_of_its_windows_by_their_tokens(model, cut):
    found = model.predict([*SHORT, LONG, CAPPED], verbose=0)
    expected = [by_hand(cut, text) for text in (LONG, CAPPED)]
    np.testing.assert_allclose(found[4:], expected, atol=1e-6)
    np.testing.assert_allclose(found[:4], cut.predict(SHORT, verbose=0), atol=1e-6)
    assert abs(found[4, 0] - cut.predict([LONG], verbose=0)[0, 0]) > 2e-5  # the cut model reads less


def test_texts_of_one_window_give_what_a_cut_model_gives_to_the_bit(model, cut):
    np.testing.assert_array_equal(model.predict(SHORT, verbose=0), cut.predict(SHORT, verbose=0))


def test_the_windows_of_a_text_begin_every_half_window(model, checkpoints):
    rows = model.encode([LONG, "bad", CAPPED])
    assert rows.window_counts.tolist() == [4, 1, 16] and (rows.long, rows.cut) == (2, 1)
    ids = rows.take(np.array([0, 1]))["token_ids"]
    words = LONG.split()
    shown = [" ".join(checkpoints.words[i] for i in window if i) for window in ids[0]]
    assert shown == [f"[CLS] {' '.join(words[start : start + 5])} [SEP]" for start in (0, 3, 6, 9)]
    assert ids.shape == (2, 4, LENGTH) and not ids[1, 1:].any()
    few = rows.take(np.array([0, 1, 1]), few_widths=True)["token_ids"]
    assert few.shape == (3, 4, LENGTH)
    assert windows.covered(ROOM) == 50
    # 50 tokens are read of a text, so one of 50 is whole and one of 51 is not.
    assert [model.encode([" ".join(["good"] * n)]).cut for n in (50, 51)] == [0, 1]


def test_how_many_texts_are_read_in_windows_is_said_and_reported(model):
    sentence = (
        "`x`: 2 of 8 texts are longer than 7 tokens; they are read in windows that overlap by half, of 1 "
        "only the first 16."
    )
    with pytest.warns(TextsCut) as said:
        result = fe.evaluate(model, [LONG, CAPPED, *SHORT, "good", "warm"], [0, 1] * 4)
    assert {str(warning.message) for warning in said} == {sentence}
    assert sentence in result.warnings
    with pytest.warns(TextsCut, match="^`x`: 1 of 2 texts is longer than 7 tokens; it is read in windows"):
        model.predict([LONG, "bad"], verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")
def test_pipelines_graphs_tokens_and_saved_models_read_the_same_windows(model, tmp_path):
    texts = [*SHORT, LONG, CAPPED]
    expected = model.predict(texts, verbose=0)
    np.testing.assert_allclose(np.asarray(model(model.tokens(tf.constant(texts)))), expected, atol=1e-6)
    model.save(tmp_path / "m.keras")
    loaded = fe.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(texts, verbose=0), expected)
    tokens = model.encode(texts).take(np.arange(6))
    np.testing.assert_allclose(model.predict(tokens, verbose=0), expected, atol=1e-6)
    one_window = {name: value[:4, 0] for name, value in tokens.items()}
    np.testing.assert_allclose(model.predict(one_window, verbose=0), expected[:4], atol=1e-6)
    if keras.backend.backend() == "tensorflow":
        data = tf.data.Dataset.from_tensor_slices(texts).batch(4)
        with pytest.warns(TextsCut, match="^`x`: 2 of the 6 texts that were read are longer than 7 tokens; "):
            np.testing.assert_allclose(model.predict(data, verbose=0), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")
def test_the_trace_of_a_long_text_agrees_with_predict(model):
    trace = fe.trace_prediction(model, CAPPED)
    assert trace.check < 1e-6 and trace.tokens_cut == 30
    assert trace.pooling == "mean of the tokens, mean of 16 windows" and len(trace.tokens) == 16 * LENGTH
    assert fe.trace_prediction(model, LONG).tokens_cut == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")
def test_rows_stay_rows_in_training_whatever_their_windows(folder, tmp_path):
    texts, y, weights = [LONG, "bad", CAPPED, "good"], [0, 1, 0, 1], [1.0, 2.0, 3.0, 0.5]
    model = build(folder)
    loss, _ = model.evaluate(texts, y, sample_weight=weights, batch_size=4, verbose=0)
    p = model.predict(texts, verbose=0).astype(float)[np.arange(4), y]
    assert loss == pytest.approx((np.array(weights) * -np.log(p)).sum() / 4, abs=1e-5)
    run = fe.fine_tune(
        model, texts, y, sample_weight=weights, validation_data=(texts, y), epochs=1, batch_size=2,
        learning_rate=1e-2, verbose=False, run_dir=tmp_path / "run",
    )  # fmt: skip
    assert np.abs(model.predict(texts, verbose=0)[np.arange(4), y] - p).max() > 1e-4
    assert run.model is model
    build_settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["model"]["build"]
    assert build_settings["long_text"] == "windows"
    np.testing.assert_array_equal(
        fe.load_model(tmp_path / "run").predict(texts, verbose=0), model.predict(texts, verbose=0)
    )


def test_a_batch_of_many_windows_is_computed_in_parts(model, monkeypatch):
    rows = model.encode([" ".join(["good"] * 50)] * 64)
    batches = Batches(rows, np.zeros(64, dtype="int32"), 64)
    assert len(batches.order) == 1 and batches.padding == pytest.approx(0)
    assert rows.lengths.tolist() == [16 * LENGTH] * 64
    if keras.backend.backend() == "tensorflow" and not tf.config.list_physical_devices("GPU"):
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        assert how_many(model, batches) == 8  # 64 * 16 * 7 = 7,168 tokens, of which 2 * 512 are a part


def test_models_that_read_windows_are_not_averaged_into_one(model):
    from finetune_eval.models.ensemble import average_of

    with pytest.raises(ValueError, match="^`ensemble` cannot be one model where long texts are read in win"):
        average_of([model, model])


class Stop(keras.callbacks.Callback):
    """Interrupts a training after a step."""

    def __init__(self, after=None):
        super().__init__()
        self.after = after

    def get_state(self):
        return {}

    def set_state(self, state):
        pass

    def on_train_batch_end(self, batch, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == self.after:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")
def test_a_run_that_was_interrupted_goes_on_to_the_bit(folder, tmp_path):
    texts, y = [LONG, "bad", CAPPED, "good"], [0, 1, 0, 1]
    settings = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-2, "verbose": False, "checkpoint_every": 1}
    whole = fe.fine_tune(build(folder), texts, y, run_dir=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fe.fine_tune(build(folder), texts, y, run_dir=tmp_path / "run", callbacks=[Stop(3)], **settings)
    resumed = fe.resume(tmp_path / "run", callbacks=[Stop()])
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
