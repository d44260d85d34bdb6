"""Averaged weights and accumulated gradients against arithmetic on the weights of single steps."""

import keras
import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.models.adamw import AdamW
from finetune_eval.training import training as module


class Steps(keras.callbacks.Callback):
    """Records the weights that each step left."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])


def tuned(tiny, *, rows=40, callbacks=(), validated=False, **settings):
    """Fine-tune on 40 rows of numbers: five steps in each of two epochs."""
    x, y = tiny.numeric_rows(rows)
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, **settings}
    return fe.fine_tune(
        tiny.numeric_classifier(dropout=0.0), x, y, verbose=False, callbacks=list(callbacks),
        validation_data=tiny.numeric_rows(30, seed=1) if validated else None, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def raw(tiny):
    """The weights of each of ten steps without averaging, and the run."""
    steps = Steps()
    run = tuned(tiny, callbacks=[steps], validated=True)
    assert len(steps.weights) == 10
    return steps.weights, run


def close(model, expected):
    for weight, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=0, atol=2e-6)


def mean(steps, shares):
    return [np.tensordot(shares, np.stack(values), axes=1) for values in zip(*steps, strict=True)]


@pytest.mark.parametrize("share, last", [(0.4, 4), (1.0, 10), (0.01, 1)])
def test_average_last_keeps_the_mean_of_the_weights_of_the_last_steps(tiny, raw, share, last):
    run = tuned(tiny, average_last=share)
    close(run.model, mean(raw[0][-last:], np.full(last, 1 / last)))
    # Training itself went on from the weights of the last step: its losses are those without averaging.
    losses = [[record.metrics["loss"] for record in each.trace.epochs] for each in (run, raw[1])]
    assert losses[0] == losses[1]


def test_ema_keeps_the_exponential_mean_whose_weights_add_up_to_one(tiny, raw):
    shares = 0.8 ** np.arange(9, -1, -1.0)
    run = tuned(tiny, ema=0.8)
    close(run.model, mean(raw[0], shares / shares.sum()))


@pytest.mark.parametrize("settings", [{"ema": 0.5}, {"average_last": 0.8}], ids=str)
def test_what_validation_measured_is_kept_and_is_what_evaluate_sees(tiny, raw, settings):
    seen = {}

    class EpochEnds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch + 1] = logs["val_loss"], self.model.get_weights()

    run = tuned(tiny, callbacks=[EpochEnds()], validated=True, **settings)
    best = run.trace.best_epoch
    assert best == min(seen, key=lambda epoch: seen[epoch][0])
    loss = run.model.evaluate(*tiny.numeric_rows(30, seed=1), verbose=0)[0]
    assert loss == pytest.approx(seen[best][0], abs=1e-6)
    close(run.model, seen[best][1])
    # And it is another model than the one of the last step, so that something was measured.
    assert abs(seen[2][0] - raw[1].trace.epochs[1].metrics["val_loss"]) > 1e-4


def test_before_any_step_is_averaged_the_weights_of_the_last_step_are_judged(tiny, raw):
    run = tuned(tiny, validated=True, average_last=0.5)  # the last five of ten steps: the second epoch
    first, plain = (each.trace.epochs[0].metrics for each in (run, raw[1]))
    assert first == plain
    assert run.trace.epochs[1].metrics["val_loss"] != raw[1].trace.epochs[1].metrics["val_loss"]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="all rows are updated elsewhere")
def test_tokens_no_training_row_holds_are_left_out_of_the_average_and_no_weight_is_another(tiny, monkeypatch):
    models = []
    for spare in (True, False):
        model = tiny.text_classifier()
        if not spare:
            monkeypatch.setattr(module.optimizers, "used_rows", lambda model, train: {})
        fe.fine_tune(
            model, ["not good", "good!"] * 4, [0, 1] * 4, batch_size=4, learning_rate=0.02, verbose=False,
            average_last=0.5,
        )  # fmt: skip
        models.append(model)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_optimizer_with_averages_and_scales_is_the_same_from_its_config():
    optimizer = AdamW(0.1, rate_scales={"a": 0.5}, first_steps={"a": 3}, average_from=2, ema=0.9)
    again = AdamW.from_config(optimizer.get_config())
    for name in ("rate_scales", "first_steps", "average_from", "ema"):
        assert getattr(again, name) == getattr(optimizer, name)


# --- accumulated gradients ---


@pytest.mark.parametrize("weighted", [False, True])
def test_accumulated_batches_make_the_steps_of_the_larger_batch(tiny, weighted):
    # 26 rows: two steps of 12 rows in 3 batches of 4, and one of 2 rows, fewer than there are batches.
    random = np.random.default_rng(0)
    settings = {"sample_weight": random.uniform(0, 3, 26)} if weighted else {}
    runs, steps = [], []
    for size, batches in ((12, 1), (4, 3)):
        steps.append(Steps())
        runs.append(
            tuned(
                tiny,
                rows=26,
                batch_size=size,
                gradient_accumulation=batches,
                callbacks=[steps[-1]],
                validated=True,
                ema=0.9,
                epochs=3,
                **settings,
            )  # fmt: skip
        )
    assert [len(each.weights) for each in steps] == [9, 9]  # real steps: so count the rate and the average
    for one, other in zip(steps[0].weights, steps[1].weights, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    for one, other in zip(*(run.trace.epochs for run in runs), strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-5)
        assert one.learning_rate == other.learning_rate
    close(runs[0].model, runs[1].model.get_weights())


@pytest.mark.slow
def test_accumulated_batches_of_texts_make_the_steps_of_the_larger_batch(tiny):
    models = []
    for size, batches in ((8, 1), (2, 4)):
        model = tiny.text_classifier(dropout=0.0)
        x, y = list(tiny.texts) + ["not very good"], [*tiny.sentiments, 0]  # the last step has one row
        run = fe.fine_tune(
            model, x, y, batch_size=size, gradient_accumulation=batches, epochs=2, learning_rate=1e-3,
            precision="float32", verbose=False,
        )  # fmt: skip
        models.append((run.trace.epochs[-1].metrics["loss"], model.predict(x, verbose=0)))
    assert models[0][0] == pytest.approx(models[1][0], abs=1e-5)
    np.testing.assert_allclose(models[0][1], models[1][1], rtol=0, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
def test_inside_a_strategy_they_are_refused(tiny):
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("cpu:0").scope():
        model = tiny.numeric_classifier()
        for settings in ({"gradient_accumulation": 2}, {"ema": 0.9}, {"average_last": 0.5}):
            (name,) = settings
            with pytest.raises(
                ValueError,
                match=f"^`{name}` cannot be used inside a `tf.distribute` strategy; leave it out.$",
            ):
                fe.fine_tune(model, *tiny.numeric_rows(8), verbose=False, **settings)
