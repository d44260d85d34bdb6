"""find_learning_rate: the curve of a range test, and a model that is as it was."""

import keras
import numpy as np
import pytest

import finetune_eval as fe


@pytest.fixture(scope="module")
def tested(tiny):
    """A model that was being trained when the test came, another that was not tested, and what was found."""
    x, y = tiny.numeric_rows(60)
    models = [tiny.numeric_classifier() for _ in range(2)]
    for model in models:
        model.compile(keras.optimizers.Adam(0.01))
        keras.utils.set_random_seed(3)
        model.fit(x, y, epochs=1, verbose=0)
    found = fe.find_learning_rate(models[0], x, y, steps=60, highest=100.0)
    return *models, found


def test_the_model_goes_on_as_if_nothing_had_been(tiny, tested):
    model, other, _ = tested
    optimizers = [each.optimizer for each in (model, other)]
    for a, b in zip(*([v.numpy() for v in o.variables] for o in optimizers), strict=True):
        np.testing.assert_array_equal(a, b)
    x, y = tiny.numeric_rows(60)
    histories = []
    for each in (model, other):
        keras.utils.set_random_seed(4)
        histories.append(each.fit(x, y, epochs=2, verbose=0).history)
    assert model.optimizer is optimizers[0] and histories[0] == histories[1]
    for a, b in zip(model.variables, other.variables, strict=True):  # the random states of the dropout, too
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_curve(tested):
    found = tested[2]
    assert found.rates[0] == pytest.approx(1e-7)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e9) / 59)  # 60 steps from 1e-7 to 100
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    mean = weight = 0.0  # the weighted mean of all losses so far, each 0.9 times the one after it
    for loss, smoothed in zip(found.losses, found.smoothed, strict=True):
        mean, weight = 0.9 * mean + loss, 0.9 * weight + 1
        assert smoothed == pytest.approx(mean / weight)
    assert found.suggestion == pytest.approx(found.rates[int(np.argmin(found.smoothed))] / 10)
    assert 1e-4 < found.suggestion < 1  # three numbers of ten columns: 1e-7 teaches nothing, 100 explodes
    assert f"suggested: {found.suggestion:.1e}." in " ".join(str(found).split())


def test_the_first_step_is_that_of_plain_adamw(tiny):
    x, y = tiny.numeric_rows(16)
    model = tiny.numeric_classifier(dropout=0.0)
    loss = model.evaluate(x, y, verbose=0)[0]
    found = fe.find_learning_rate(model, x, y, steps=2, lowest=1e-3, highest=1e-2)
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.0))
    model.fit(x, y, verbose=0)
    # The one batch is all rows: its loss before the first step, and before the second.
    assert found.losses == pytest.approx((loss, model.evaluate(x, y, verbose=0)[0]), abs=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a tf.data pipeline")
def test_a_pipeline_is_read_as_its_rows(tiny, tested):
    import tensorflow as tf

    x, y = tiny.numeric_rows(60)
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    again = fe.find_learning_rate(tested[0], pipeline, steps=4, highest=100.0)
    assert again.losses == fe.find_learning_rate(tested[0], x, y, steps=4, highest=100.0).losses
    with pytest.raises(ValueError, match="which gives the labels and weights; pass neither beside it"):
        fe.find_learning_rate(tested[0], pipeline, y)


def test_a_loss_that_never_falls_has_no_suggestion(tiny):
    x, y = tiny.numeric_rows(16)
    found = fe.find_learning_rate(tiny.numeric_classifier(), x, y, steps=3, lowest=1e-12, highest=1e-11)
    sentence = "In 3 steps, from a rate of 1.0e-12 to 1.0e-11, the loss never fell: no rate is suggested."
    assert found.suggestion is None and " ".join(str(found).split()) == sentence


def test_the_plot(tested):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert tested[2].plot(ax=ax) is ax and ax.get_xscale() == "log" and len(ax.lines) == 3
    assert tested[2].plot().get_xlabel() == "learning rate"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"steps": 1}, "`steps` must be"),
        ({"lowest": 2.0}, "`lowest` must be"),
        ({"strategy": "lora"}, "`strategy` must be one of"),
    ],
)
def test_wrong_arguments(tiny, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fe.find_learning_rate(tiny.numeric_classifier(), *tiny.numeric_rows(8), **change)
