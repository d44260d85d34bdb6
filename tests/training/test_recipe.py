"""Recipes: where the settings come from that nobody passed, and what a run keeps of them."""

import dataclasses

import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.runs import Run
from finetune_eval.training.recipe import NAMED


def tuned(model, rows, **keywords):
    return fe.fine_tune(model, *rows, **{"verbose": False, **keywords})


@pytest.fixture(scope="module")
def rows(tiny):
    return tiny.numeric_rows(32)


@pytest.fixture(scope="module")
def careful(tiny, rows, tmp_path_factory):
    return tuned(
        tiny.numeric_classifier(), rows, recipe="careful", validation_data=tiny.numeric_rows(20, seed=1),
        run_dir=tmp_path_factory.mktemp("runs") / "careful",
    )  # fmt: skip


def same_weights(a, b):
    return all(
        np.array_equal(one, other) for one, other in zip(a.get_weights(), b.get_weights(), strict=True)
    )


def test_plain_is_what_fine_tune_does_when_nothing_is_passed(tiny, rows):
    models = [tiny.numeric_classifier() for _ in range(3)]
    for model, keywords in zip(models, ({}, {"recipe": "plain"}, {"recipe": fe.Recipe()}), strict=True):
        run = tuned(model, rows, **keywords)
        expected = {
            **fe.Recipe(learning_rate=1e-4).record(),
            "optimizer": run.manifest["settings"]["optimizer"],
        }
        assert run.manifest["settings"] == expected
    assert same_weights(models[0], models[1]) and same_weights(models[0], models[2])


def test_what_is_passed_beside_a_recipe_wins_even_none(tiny, rows):
    recipe = fe.Recipe(epochs=1, batch_size=8, ema=0.9, learning_rate=0.02)
    run = tuned(tiny.numeric_classifier(), rows, recipe=recipe, ema=None, learning_rate=None, batch_size=16)
    expected = dataclasses.replace(recipe, ema=None, batch_size=16, learning_rate=1e-4).record()
    assert run.manifest["settings"].items() >= expected.items()
    assert run.manifest["recipe"] is None


def test_careful_is_its_settings_spelled_out(tiny, rows, careful):
    model = tiny.numeric_classifier()
    run = tuned(model, rows, validation_data=tiny.numeric_rows(20, seed=1), **NAMED["careful"])
    assert same_weights(model, careful.model)
    assert run.manifest["settings"] == careful.manifest["settings"]
    assert (run.manifest["recipe"], careful.manifest["recipe"]) == ("plain", "careful")


def test_keep_last_is_the_mean_that_training_ends_with_and_its_trace_names_no_best_epoch(tiny, rows):
    held_out = tiny.numeric_rows(20, seed=1)
    kept, without = tiny.numeric_classifier(), tiny.numeric_classifier()
    run = tuned(kept, rows, validation_data=held_out, keep="last", average_last=0.4, learning_rate=0.1)
    tuned(without, rows, average_last=0.4, learning_rate=0.1)
    assert same_weights(kept, without)  # validation rows chose nothing
    best = tuned(
        tiny.numeric_classifier(), rows, validation_data=held_out, average_last=0.4, learning_rate=0.1,
        epochs=8, monitor="val_accuracy",
    )  # fmt: skip
    assert run.trace.best_epoch is None and run.manifest["best_epoch"] is None
    assert "val_loss" in run.trace.epochs[-1].metrics and best.trace.best_epoch is not None


def test_a_run_of_careful_that_was_cut_short_goes_on_by_either_call(tiny, rows, careful, tmp_path):
    held_out = tiny.numeric_rows(20, seed=1)

    def cut(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    from keras.callbacks import LambdaCallback

    for name, go_on in {
        "resume": lambda run: fe.resume(run, callbacks=LambdaCallback(), verbose=False),
        "again": lambda run: tuned(
            tiny.numeric_classifier(), rows, recipe="careful", validation_data=held_out, run_dir=run,
            resume=True, callbacks=LambdaCallback(),
        ),
    }.items():  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            tuned(
                tiny.numeric_classifier(), rows, recipe="careful", validation_data=held_out,
                run_dir=tmp_path / name, callbacks=LambdaCallback(on_epoch_end=cut), checkpoint_every=1,
            )  # fmt: skip
        with pytest.warns(RuntimeWarning, match="LambdaCallback in `callbacks` has no `get_state`"):
            run = go_on(tmp_path / name)
        assert same_weights(run.model, careful.model)
        assert Run(tmp_path / name).read_manifest()["recipe"] == "careful"
    with pytest.raises(
        ValueError, match="^`strategy` was 'head_then_full' when the run began, and is 'full' now"
    ):
        tuned(tiny.numeric_classifier(), rows, validation_data=held_out, run_dir=careful.run_dir, resume=True)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (
            {"recipe": "ensemble"},
            "`recipe` 'ensemble' is a model of several trainings: `fe.cross_evaluate(build, x, y, folds=5, "
            "keep_models=True).ensemble()` is that model.",
        ),
        (
            {"recipe": "carefull"},
            "`recipe` must be one of 'plain', 'careful'; got 'carefull'. Did you mean 'careful'?",
        ),
        ({"recipe": None}, "`recipe` must be 'plain', 'careful' or a `fe.Recipe`; got NoneType."),
        ({"recipe": {"epochs": 2}}, "`recipe` must be 'plain', 'careful' or a `fe.Recipe`; got dict."),
        ({"recipe": "careful", "epochs": 0}, "`epochs` must be at least 1; got 0."),
        (
            {"recipe": "careful", "ema": 0.9},
            "`ema` and `average_last` are two ways to average the weights; pass one of them. "
            "`average_last=0.4` comes from `recipe='careful'`, and what is passed beside it wins.",
        ),
        ({"keep": "lats"}, "`keep` must be one of 'best', 'last'; got 'lats'. Did you mean 'last'?"),
        (
            {"recipe": "careful", "monitor": "val_f1"},
            "`early_stopping` and `monitor` choose the best epoch, and `keep='last'` keeps another; leave "
            "one out. `keep='last'` comes from `recipe='careful'`, and what is passed beside it wins.",
        ),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_in_words(tiny, rows, keywords, said):
    with pytest.raises((ValueError, TypeError)) as error:
        tuned(tiny.numeric_classifier(), rows, **keywords)
    assert str(error.value) == said


def test_careful_says_that_a_frozen_backbone_leaves_it_nothing_to_do(tiny, rows):
    with pytest.raises(ValueError) as error:
        tuned(tiny.numeric_classifier(freeze=True), rows, recipe="careful")
    assert str(error.value) == (
        "`strategy` 'head_then_full' trains the backbone, and all of it is frozen; call `model.unfreeze()` "
        "first, or use the strategy 'head'. `strategy='head_then_full'` comes from `recipe='careful'`, and "
        "what is passed beside it wins."
    )


def test_careful_trains_texts_and_several_labels_a_row(tiny):
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"), task="multilabel")
    x, _ = tiny.numeric_rows(24)
    assert tuned(model, (x, (x[:, :3] > 0).astype(int)), recipe="careful").manifest["status"] == "complete"
    texts = tuned(tiny.text_classifier(), (list(tiny.texts), list(tiny.sentiments)), recipe="careful")
    assert len(texts.trace.epochs) == 3 and texts.manifest["best_epoch"] is None
