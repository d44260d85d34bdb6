"""A student learns from the labelled rows and from the probabilities of a teacher."""

import re
import shutil

import keras
import numpy as np
import pytest

import finetune_eval as fe

SETTINGS = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.fixture(scope="module")
def rows(tiny):
    x, y = tiny.numeric_rows(24)
    more, _ = tiny.numeric_rows(40, seed=1)
    return x, y, more


def student(tiny, rows, **settings):
    x, y, more = rows
    return fe.self_train(
        lambda seed: tiny.numeric_classifier(seed=seed), x, y, labels=tiny.labels, unlabelled=more,
        verbose=False, **{"recipe": SETTINGS, **settings},
    )  # fmt: skip


def test_the_student_is_trained_on_labels_and_on_the_probabilities_of_the_teacher(tiny, rows):
    x, y, more = rows
    held = tiny.numeric_rows(20, seed=2)
    run = student(tiny, rows, validation_data=held, seed=3)
    teacher = tiny.numeric_classifier(seed=3)
    fe.fine_tune(teacher, x, y, validation_data=held, seed=3, verbose=False, **SETTINGS)
    by_hand = tiny.numeric_classifier(seed=3)
    taught = np.concatenate([np.eye(2)[y], teacher.predict(more, verbose=0)])
    fe.fine_tune(
        by_hand, np.concatenate([x, more]), taught, validation_data=held, seed=3, verbose=False, **SETTINGS
    )
    assert same_weights(run.model, by_hand)
    assert not same_weights(run.model, teacher)
    assert run.manifest["rows"]["train"]["rows"] == 64


def test_the_same_call_goes_on_in_the_folder(tiny, rows, tmp_path):
    whole = student(tiny, rows, run_dir=tmp_path / "whole")
    assert {part.name for part in (tmp_path / "whole").iterdir()} == {"teacher", "student"}
    shutil.copytree(tmp_path / "whole" / "teacher", tmp_path / "cut" / "teacher")
    again = student(tiny, rows, run_dir=tmp_path / "cut")
    assert same_weights(whole.model, again.model)
    assert same_weights(fe.load_model(tmp_path / "cut" / "student"), again.model)
    with pytest.raises(ValueError, match="`x`, `y`, `validation_data` or `sample_weight` are not those"):
        student(tiny, (rows[0], rows[1], rows[2][:-1]), run_dir=tmp_path / "cut")


def test_what_cannot_be_taught_is_refused(tiny, rows):
    x, y, more = rows
    with pytest.raises(ValueError, match=re.escape("`unlabelled` must hold rows like those of `x`")):
        fe.self_train("all_minilm_l6_v2", x, y, unlabelled=more[:, :4])
    with pytest.raises(ValueError, match="`unlabelled` must hold rows like those of `x`"):
        fe.self_train("all_minilm_l6_v2", ["good", "bad"], ["+", "-"], unlabelled=more)
    with pytest.raises(TypeError, match="got a function that trains by itself"):
        fe.self_train(lambda x, y: None, x, y, unlabelled=more, recipe=None)
    with pytest.raises(ValueError, match="`unlabelled` has no rows"):
        fe.self_train("all_minilm_l6_v2", x, y, unlabelled=more[:0])


# --- probabilities as labels ------------------------------------------------------------------------------


def test_the_loss_of_probabilities_is_their_cross_entropy(tiny):
    x, _ = tiny.numeric_rows(32)
    model = tiny.numeric_classifier(dropout=0.0)
    p = model.predict(x, verbose=0).astype(np.float64)
    shares = np.random.default_rng(0).dirichlet([1, 1], size=len(x))
    # One step of all rows: its loss is that of the weights before it.
    run = fe.fine_tune(model, x, shares, epochs=1, batch_size=32, verbose=False)
    assert run.trace.epochs[0].metrics["loss"] == pytest.approx(-(shares * np.log(p)).sum(axis=1).mean())


def test_probabilities_of_one_class_are_that_class(tiny):
    x, y = tiny.numeric_rows(32)
    models = [tiny.numeric_classifier(seed=1) for _ in range(2)]
    nearly = np.eye(2)[y] * (1 - 2e-9) + 1e-9  # 0 and 1 in float32
    for model, labels in zip(models, (y, nearly), strict=True):
        fe.fine_tune(model, x, labels, recipe="careful", verbose=False, **SETTINGS)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


def test_a_run_on_probabilities_is_resumed_to_the_bit(tiny, tmp_path):
    x, _ = tiny.numeric_rows(32)
    shares = np.random.default_rng(0).dirichlet([1, 1], size=len(x))

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if stops and self.params["steps"] == 4 and batch == 2:
                raise KeyboardInterrupt

    def train(folder):
        return fe.fine_tune(
            tiny.numeric_classifier(seed=1), x, shares, seed=2, verbose=False, callbacks=[Stop()],
            run_dir=folder, checkpoint_every=1, **SETTINGS,
        )  # fmt: skip

    stops = False
    whole = train(tmp_path / "whole")
    stops = True
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    stops = False
    with pytest.warns(RuntimeWarning, match="Stop"):
        resumed = fe.resume(tmp_path / "cut", callbacks=[Stop()], verbose=False)
    assert same_weights(whole.model, resumed.model)


@pytest.mark.parametrize(
    "row, settings, sentence",
    [
        ([0.5, 0.6], {}, "those of row 3 are [0.5, 0.6]: they must be at least 0 and add up to 1."),
        ([1.5, -0.5], {}, "those of row 3 are [1.5, -0.5]"),
        ([np.nan, 0.5], {}, "those of row 3 are [nan, 0.5]"),
        ([0.5, 0.5], {"class_weight": "balanced"}, "`class_weight` needs one class a row"),
        ([0.5, 0.5], {"validation_split": 0.5}, "exactly one 1 in each row"),
    ],
)
def test_wrong_probabilities_are_refused(tiny, row, settings, sentence):
    x, y = tiny.numeric_rows(8)
    shares = np.eye(2)[y] * 0.8 + 0.1
    shares[3] = row
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fe.fine_tune(tiny.numeric_classifier(), x, shares, verbose=False, **settings)


def test_a_list_whose_parts_differ_is_refused_by_name(tiny):
    x, _ = tiny.numeric_rows(3)
    with pytest.raises((ValueError, TypeError), match="`y`"):
        fe.fine_tune(tiny.numeric_classifier(), x, [[0.5, 0.5], [1], [0, 1]], verbose=False)
    with pytest.raises(ValueError, match="`threshold` must be one number"):
        tiny.numeric_classifier().threshold = [{}, [], ()]
