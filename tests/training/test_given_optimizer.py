"""An optimizer of the caller's: it is used as it is, and what it would ignore is refused."""

import keras
import numpy as np
import pytest

import finetune_eval as fe

SGD, Cosine = keras.optimizers.SGD, keras.optimizers.schedules.CosineDecay


def tuned(tiny, *, model=None, **keywords):
    model = tiny.numeric_classifier() if model is None else model
    return fe.fine_tune(
        model, *tiny.numeric_rows(32), **{"epochs": 2, "batch_size": 32, "verbose": False, **keywords}
    )


def test_its_steps_are_the_steps(tiny):
    x, y = tiny.numeric_rows(32)
    model = tiny.numeric_classifier(dropout=0.0)
    weights = [variable.numpy().astype(np.float64) for variable in model.trainable_variables]
    for _ in range(2):  # by hand: all rows in one batch, one dense layer with ReLU and the head
        dense, bias, kernel, out = weights
        hidden = np.maximum(x @ dense + bias, 0)
        logits = hidden @ kernel + out
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        away = (p / p.sum(axis=1, keepdims=True) - np.eye(2)[y]) / len(y)
        back = away @ kernel.T * (hidden > 0)
        moves = x.T @ back, back.sum(axis=0), hidden.T @ away, away.sum(axis=0)
        weights = [weight - 0.5 * move for weight, move in zip(weights, moves, strict=True)]
    run = tuned(tiny, model=model, optimizer=SGD(0.5))
    for variable, expected in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-6)
    settings = run.manifest["settings"]
    assert settings["optimizer"].startswith("SGD(learning_rate=0.5, ") and settings["learning_rate"] is None
    assert [epoch.learning_rate for epoch in run.trace.epochs] == pytest.approx([0.5, 0.5])


def test_a_schedule_of_its_own_is_named_and_keeps_callbacks_from_setting_the_rate(tiny):
    run = tuned(tiny, optimizer=SGD(Cosine(0.1, 10)))
    assert (
        "SGD(learning_rate=CosineDecay(initial_learning_rate=0.1, " in run.manifest["settings"]["optimizer"]
    )
    plateau = keras.callbacks.ReduceLROnPlateau()
    tuned(tiny, optimizer=SGD(0.1), callbacks=plateau, validation_data=tiny.numeric_rows(8, seed=1))
    with pytest.raises(
        ValueError, match="^`callbacks` has a ReduceLROnPlateau, which sets the learning rate"
    ):
        tuned(tiny, optimizer=SGD(Cosine(0.1, 10)), callbacks=plateau)


def test_a_run_that_is_cut_short_goes_on_with_it_to_the_bit(tiny, tmp_path):
    class Cut(keras.callbacks.Callback):
        ends = True

        def on_epoch_begin(self, epoch, logs=None):
            if self.ends and epoch == 1:
                raise KeyboardInterrupt

        def get_state(self):
            return None

        def set_state(self, state):
            self.ends = False

    def train(**keywords):
        optimizer = keras.optimizers.Adam(Cosine(0.05, 12))
        return tuned(tiny, optimizer=optimizer, epochs=3, batch_size=8, **keywords)

    whole = train()
    again = {"run_dir": tmp_path / "run", "callbacks": Cut(), "checkpoint_every": 1, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        train(**again)
    with pytest.raises(
        ValueError, match="began with an `optimizer` of the caller's, which is not in its folder"
    ):
        fe.resume(tmp_path / "run", callbacks=Cut(), verbose=False)
    with pytest.raises(
        ValueError, match="^The run began with an `optimizer` of the caller's; pass what it was"
    ):
        tuned(tiny, epochs=3, batch_size=8, **again)
    with pytest.raises(ValueError, match=r"^`optimizer` was 'Adam\(.*' when the run began, and is 'SGD\("):
        tuned(tiny, optimizer=SGD(0.05), epochs=3, batch_size=8, **again)
    run = train(**again)
    for one, other in zip(run.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [each.metrics for each in run.trace.epochs] == [each.metrics for each in whole.trace.epochs]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        *(
            ({name: value}, f"`{name}` would be ignored, for `optimizer` is used as it is; leave one out.")
            for name, value in {
                "learning_rate": 0.1, "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.01,
                "layer_decay": 0.9, "average_last": 0.5, "ema": 0.9,
            }.items()
        ),
        (
            {"recipe": "careful"},
            "`average_last` would be ignored, for `optimizer` is used as it is; leave one out. "
            "`average_last=0.4` comes from `recipe='careful'`, and what is passed beside it wins.",
        ),
        (
            {"strategy": "gradual"},
            "`strategy` 'gradual' has the optimizer of `fine_tune` hold layers back; leave `optimizer` out, "
            "or use another strategy.",
        ),
        (
            {"optimizer": SGD},
            "`optimizer` must be a Keras optimizer, such as `keras.optimizers.SGD(0.01)`; got "
            f"'{SGD!r}' (type). Is it a class? Make one of it: add ().",
        ),
        (
            {"optimizer": SGD(use_ema=True)},
            "`optimizer` has `use_ema=True`, whose means no validation row would judge; make it without, or "
            "leave it out and pass `ema`.",
        ),
    ],
)  # fmt: skip
def test_what_it_would_ignore_is_refused(tiny, keywords, said):
    with pytest.raises((ValueError, TypeError)) as error:
        tuned(tiny, **{"optimizer": SGD(0.1), **keywords})
    assert str(error.value).replace('"', "'") == said


def test_one_that_was_used_is_refused_and_settings_of_nothing_are_not(tiny):
    optimizer = SGD(0.1)
    tuned(tiny, optimizer=optimizer, layer_decay=1, average_last=0, ema=None, learning_rate=None)
    with pytest.raises(ValueError, match="^`optimizer` has been used before, and holds what it gathered"):
        tuned(tiny, optimizer=optimizer)


def test_what_to_change_where_nothing_is_learned_or_the_loss_explodes_is_the_rate_of_the_optimizer(tiny):
    x, y = tiny.numeric_rows(32)
    run = tuned(tiny, optimizer=SGD(1.0), validation_data=(x, 1 - y))
    assert "change the rate of `optimizer`, and check" in run.manifest["did_not_learn"]
    with pytest.raises(FloatingPointError, match=r"Lower the rate of `optimizer`, or look for huge values"):
        tuned(tiny, optimizer=SGD(1e30), epochs=20)
