"""Our fused AdamW against Keras' own, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from finetune_eval.training.optimizers import AdamW, fine_tuning_optimizer

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def one_graph(step):
    return tf.function(step) if ON_TENSORFLOW else step


def variables():
    random = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,), "embeddings": (6, 2), "gamma": (3,), "scale": ()}
    return [keras.Variable(random.normal(size=s).astype("float32"), name=n) for n, s in shapes.items()]


def gradients(step, indices=(1, 4, 0)):
    """Return a gradient a variable; that of the embeddings as slices on TensorFlow, dense elsewhere."""
    random = np.random.default_rng(100 + step)
    kernel, bias, values, gamma, scale = (
        ops.convert_to_tensor(random.normal(size=shape).astype("float32"))
        for shape in ((4, 3), (3,), (3, 2), (3,), ())
    )
    if ON_TENSORFLOW:
        rows = tf.IndexedSlices(values, tf.constant(indices), tf.constant([6, 2]))
    else:
        rows = ops.matmul(ops.transpose(ops.one_hot(np.array(indices), 6)), values)
    return [kernel, bias, rows, gamma, scale]


SETTINGS = {
    "plain": {},
    "weight decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.3},
    "global_clipnorm": {"global_clipnorm": 0.5, "weight_decay": 0.02},
    "betas": {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3},
    "amsgrad": {"amsgrad": True},
    "ema": {"use_ema": True, "ema_momentum": 0.9},
    "schedule": {"schedule": True, "weight_decay": 0.1},
}
if not ON_TENSORFLOW:  # there ours is Keras' own step
    SETTINGS = {"global_clipnorm": SETTINGS["global_clipnorm"]}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_hundred_steps_equal_those_of_keras(settings):
    settings = dict(settings)
    schedule = settings.pop("schedule", False)

    def rate():
        if not schedule:
            return 0.002
        return keras.optimizers.schedules.CosineDecay(0.0, 80, warmup_target=0.004, warmup_steps=20)

    ours, theirs = AdamW(rate(), **settings), keras.optimizers.AdamW(rate(), **settings)
    mine, yours = variables(), variables()
    start = [np.array(variable) for variable in mine]

    @one_graph
    def step(grads):
        ours.apply(grads, mine)
        theirs.apply(grads, yours)

    ours.build(mine)
    theirs.build(yours)
    for number in range(100):
        step(gradients(number))
    for a, b, was in zip(mine, yours, start, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=0, atol=1e-6)
        assert np.abs(np.array(a) - was).max() > 0.0005  # else nothing was compared


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}], ids=["plain", "weight decay"])
def test_the_gradients_of_a_token_that_comes_twice_are_summed_before_they_are_squared(settings):
    # Keras squares each of them by itself; it is given their sum here, as a dense gradient.
    ours, theirs = AdamW(0.002, **settings), keras.optimizers.AdamW(0.002, **settings)
    mine, yours = variables()[2:3], variables()[2:3]
    ours.build(mine)
    theirs.build(yours)

    @one_graph
    def step(gradient):
        ours.apply([gradient], mine)
        theirs.apply([tf.convert_to_tensor(gradient) if ON_TENSORFLOW else gradient], yours)

    for number in range(100):
        step(gradients(number, indices=(1, 4, 1))[2])
    np.testing.assert_allclose(np.array(mine[0]), np.array(yours[0]), rtol=0, atol=1e-6)


def test_one_step_by_hand():
    # Kingma & Ba 2015, step 1: m / (1 - b1) = g and v / (1 - b2) = g^2, so the step is the rate, 0.1,
    # after decay: 2 - 2 * 0.1 * 0.01 = 1.998.
    variable = keras.Variable(np.array([2.0], "float32"), name="kernel")
    AdamW(0.1, weight_decay=0.01, epsilon=1e-12).apply([ops.ones(1) * 5.0], [variable])
    assert np.array(variable) == pytest.approx([1.898], abs=1e-6)


def test_decay_spares_biases_normalisations_embeddings_and_the_temperature(tiny):
    # With gradients of 0 Adam itself moves nothing; what changes was decayed.
    backbone, preprocessor = tiny.bert(layers=1)
    decayed, spared = set(), set()
    optimizer = fine_tuning_optimizer(0.5, 0.1, steps=2)
    weights = [keras.Variable(np.ones(v.shape, "float32"), name=v.name) for v in backbone.trainable_variables]
    for _ in range(2):  # the rate of the first step, at the foot of the warm-up, is 0
        optimizer.apply([ops.zeros(w.shape) for w in weights], weights)
    for weight, variable in zip(weights, backbone.trainable_variables, strict=True):
        (decayed if np.array(weight).max() < 1 else spared).add(variable.path)
    assert decayed and all(path.endswith("kernel") for path in decayed)
    assert {path.rsplit("/", 1)[1] for path in spared} == {"bias", "gamma", "beta", "embeddings"}
    assert {"token_embedding/embeddings", "position_embedding/embeddings"} <= spared


def test_the_rate_rises_over_a_tenth_of_the_steps_then_falls_to_nothing():
    optimizer = fine_tuning_optimizer(2e-4, 0.0, steps=100)
    rates = [float(optimizer._learning_rate(step)) for step in range(101)]
    assert rates[0] == 0 and rates[10] == pytest.approx(2e-4) == max(rates)
    assert rates[5] == pytest.approx(1e-4)
    # A cosine from step 10 to 100: half of the highest at 55, 0 at the end.
    assert rates[55] == pytest.approx(1e-4) and rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_of_few_steps_has_a_rate_above_zero_somewhere(steps):
    optimizer = fine_tuning_optimizer(1e-3, 0.0, steps=steps)
    variable = keras.Variable(np.ones(1, "float32"), name="kernel")
    for _ in range(steps):
        optimizer.apply([ops.ones(1)], [variable])
    assert np.array(variable)[0] < 1


def test_a_saved_optimizer_goes_on_with_its_state_and_its_exceptions(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    y = x @ np.array([[1.0], [2.0], [3.0]], "float32")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, bias_initializer="ones")(inputs))
    model.compile(AdamW(0.05, weight_decay=0.5, no_decay=["bias"]), "mse")
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.optimizer) is AdamW and again.optimizer.no_decay == ("bias",)
    for each in (model, again):
        each.fit(x, y, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="gradients of embeddings are dense elsewhere")
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"clipnorm": 0.3}], ids=str)
def test_leaving_out_the_rows_no_batch_holds_changes_no_bit(settings):
    plain = AdamW(0.002, **settings)
    spare = AdamW(0.002, no_decay=["embeddings"], used_rows={"embeddings": [4, 1, 0]}, **settings)
    plain.exclude_from_weight_decay(var_names=["embeddings"])
    all_of_it, used = variables(), variables()
    plain.build(all_of_it)
    spare.build(used)

    @tf.function
    def step(grads):
        plain.apply(grads, all_of_it)
        spare.apply(grads, used)

    for number in range(50):
        step(gradients(number, indices=(1, 4, 1) if number % 2 else (0, 4, 0)))
    for a, b in zip(all_of_it, used, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))
    assert spare._momentums[2].shape == (3, 2)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="gradients of embeddings are dense elsewhere")
def test_a_row_that_was_said_not_to_come_is_refused_and_so_is_a_dense_gradient():
    optimizer = AdamW(0.002, used_rows={"embeddings": [0, 1]})
    table = variables()[2:3]
    optimizer.build(table)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`used_rows` does not name"):
        tf.function(lambda: optimizer.apply([gradients(0, indices=(0, 1, 4))[2]], table))()
    with pytest.raises(TypeError, match="more than to look up rows"):
        optimizer.apply([tf.ones((6, 2))], table)


@pytest.mark.parametrize(
    "setting", [{"amsgrad": True}, {"use_ema": True}, {"gradient_accumulation_steps": 2}]
)
def test_used_rows_fall_away_where_they_cannot_be_kept_apart(setting):
    optimizer = AdamW(0.002, used_rows={"embeddings": [0, 1]}, **setting)
    mine = variables()
    optimizer.build(mine)
    assert optimizer.used_rows == {}
    assert optimizer._momentums[2].shape == (6, 2)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="gradients of embeddings are dense elsewhere")
def test_a_saved_optimizer_goes_on_with_rows_that_were_not_used_before():
    # Rows 2, 3 and 5 come for the first time once it is loaded: to the bit as with an optimizer of all rows.
    spare = AdamW(0.002, used_rows={"embeddings": [4, 1, 0]})
    plain = AdamW(0.002)
    used, all_of_it = variables(), variables()
    for optimizer, weights in ((spare, used), (plain, all_of_it)):
        optimizer.build(weights)
        for number in range(3):
            optimizer.apply(gradients(number), weights)
    store = {}
    spare.save_own_variables(store)
    again = AdamW.from_config(spare.get_config())
    again.build(used)
    again.load_own_variables(store)
    for number in range(3, 6):
        again.apply(gradients(number, indices=(2, 3, 5)), used)
        plain.apply(gradients(number, indices=(2, 3, 5)), all_of_it)
    for a, b in zip(used, all_of_it, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))
    # Where the same rows are used again they are taken from those of all rows; others would be lost.
    same = AdamW(0.002, used_rows={"embeddings": [4, 1, 0]})
    same.build(variables())
    same.load_own_variables(store)
    np.testing.assert_array_equal(same._momentums[2], np.asarray(store["6"])[[0, 1, 4]])
    fewer = AdamW(0.002, used_rows={"embeddings": [1]})
    fewer.build(variables())
    with pytest.raises(
        ValueError, match="moments of rows of 'embeddings' that `used_rows` leaves out; leave"
    ):
        fewer.load_own_variables(store)
