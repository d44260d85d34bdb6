"""The learning rate over the steps, by arithmetic; and callbacks that set it."""

import math

import keras
import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.training import schedules


def rates(steps=10, **settings):
    rate = schedules.rate_over_steps(1.0, steps, **settings)
    if isinstance(rate, float):
        return [rate] * (steps + 1)
    return [float(rate(step)) for step in range(steps + 1)]


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"schedule": "linear", "warmup": 0}, [1 - step / 10 for step in range(11)]),
        ({"schedule": "linear", "warmup": 0.2}, [0, 0.5, *(1 - step / 8 for step in range(9))]),
        ({"schedule": "constant", "warmup": 0}, [1.0] * 11),
        ({"schedule": "constant", "warmup": 0.4}, [0, 0.25, 0.5, 0.75] + [1.0] * 7),
        ({"schedule": "cosine", "warmup": 0}, [cosine(step / 10) for step in range(11)]),
        ({"schedule": "cosine", "warmup": 0.2}, [0, 0.5, *(cosine(step / 8) for step in range(9))]),
        ({"schedule": "linear", "warmup": 0.01}, [0, *(1 - step / 9 for step in range(10))]),
    ],
    ids=str,
)
def test_rates_by_arithmetic(settings, expected):
    assert rates(**settings) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_have_a_rate_above_zero_somewhere_and_never_below(schedule, warmup, steps):
    found = rates(steps, schedule=schedule, warmup=warmup)
    assert max(found[:steps]) > 0.3 and min(found) >= 0


def test_a_schedule_is_the_same_from_its_config():
    schedule = schedules.WarmUp(0.1, 10, 2, falls=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(again(step)) for step in range(10)] == [float(schedule(step)) for step in range(10)]


def tuned(tiny, **settings):
    x, y = tiny.numeric_rows(32)
    return fe.fine_tune(
        tiny.numeric_classifier(), x, y, batch_size=16, epochs=3, learning_rate=0.1, verbose=False, **settings
    )


def test_the_run_follows_and_names_its_schedule(tiny):
    # Two steps an epoch; the trace has the rate of an epoch's last step: steps 1, 3 and 5 of 6, from 0.
    run = tuned(tiny, schedule="linear", warmup=0)
    found = [record.learning_rate for record in run.trace.epochs]
    assert found == pytest.approx([0.1 * (1 - step / 6) for step in (1, 3, 5)], abs=1e-7)
    assert run.manifest["settings"]["optimizer"] == "AdamW, linear decay to 0"
    assert schedules.in_words("constant", 0.05) == "warm-up 5 %, then constant rate"


@pytest.mark.parametrize("strategy", ["full", "head", "head_then_full", "gradual"])
def test_a_callback_sets_a_constant_rate(tiny, strategy):
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0 if epoch else 0.02)
    weights = []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: weights.append(run_model[0].get_weights()))
    x, y = tiny.numeric_rows(32)
    run_model = [tiny.numeric_classifier()]
    run = fe.fine_tune(
        run_model[0], x, y, batch_size=16, epochs=3, learning_rate=0.1, verbose=False, schedule="constant",
        warmup=0, strategy=strategy, callbacks=[callback, keep],
    )  # fmt: skip
    assert [record.learning_rate for record in run.trace.epochs] == pytest.approx([0.02, 0, 0])
    for first, last in zip(weights[0], weights[2], strict=True):  # at a rate of 0 nothing moves
        np.testing.assert_array_equal(first, last)


def test_a_plateau_lowers_a_constant_rate(tiny):
    lower = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100)
    run = tuned(tiny, schedule="constant", warmup=0, callbacks=[lower])
    # Nothing is 100 better than the first epoch: from the second on each epoch's end halves the rate.
    assert [record.learning_rate for record in run.trace.epochs] == pytest.approx([0.1, 0.1, 0.05])


@pytest.mark.parametrize("settings", [{}, {"schedule": "constant"}, {"schedule": "linear", "warmup": 0}])
def test_a_callback_that_sets_a_rate_that_changes_by_itself_is_refused(tiny, settings):
    with pytest.raises(
        ValueError,
        match="^`callbacks` has a LearningRateScheduler, which sets the learning rate; `fine_tune` has its "
        "own warm-up and decay. Pass `schedule='constant', warmup=0` with it, or leave it out.$",
    ):
        tuned(tiny, callbacks=keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), **settings)
