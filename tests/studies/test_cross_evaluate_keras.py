"""Cross-evaluation of models that are fine-tuned here: heads share features, folds keep models, one "
"ensemble."""

import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.studies import learners
from finetune_eval.training import heads

SETTINGS = {"recipe": {"epochs": 1, "learning_rate": 0.05}, "verbose": False, "n_resamples": 100}


def test_models_are_kept_and_a_study_goes_on_with_them(tiny, tmp_path):
    x, y = tiny.numeric_rows(40)
    arguments = {"labels": tiny.labels, "folds": 2, "keep_models": True, "run_dir": tmp_path, **SETTINGS}

    def build(seed):
        return tiny.numeric_classifier(seed=seed)

    first = fe.cross_evaluate(build, x, y, **arguments)
    (tmp_path / "repeat-1-fold-2.json").unlink()
    again = fe.cross_evaluate(build, x, y, **arguments)
    assert np.array_equal(first.probabilities, again.probabilities)
    for fold, model in enumerate(again.models):
        test = again.fold_of_row[0] == fold
        assert np.allclose(model.predict(x[test], verbose=0), again.probabilities[0][test], atol=1e-6)
    with pytest.raises(ValueError, match="`learner` is another"):
        fe.cross_evaluate(build, x, y, **{**arguments, "recipe": {"epochs": 2}})


def test_a_fold_is_the_fine_tuning_of_its_rows(tiny):
    x, y = tiny.numeric_rows(40)
    result = fe.cross_evaluate(
        lambda seed: tiny.numeric_classifier(seed=seed), x, y, labels=tiny.labels, folds=2, seed=5, **SETTINGS
    )
    test = result.fold_of_row[0] == 1
    model = tiny.numeric_classifier(seed=6)
    fe.fine_tune(model, x[~test], y[~test], seed=6, verbose=False, **SETTINGS["recipe"])
    assert np.array_equal(model.predict(x[test], verbose=0), result.probabilities[0][test].astype("float32"))


def test_a_weighted_fold_of_several_labels_is_the_fine_tuning_of_its_rows(tiny):
    x, _ = tiny.numeric_rows(24)
    y, weights = (x[:, :2] > 0).astype(int), np.linspace(0.5, 2, 24)
    result = fe.cross_evaluate(
        lambda seed: tiny.numeric_classifier(task="multilabel", seed=seed), x, y, labels=tiny.labels, folds=2,
        task="multilabel", sample_weight=weights, seed=5, **SETTINGS,
    )  # fmt: skip
    test = result.fold_of_row[0] == 0
    model = tiny.numeric_classifier(task="multilabel", seed=5)
    fe.fine_tune(
        model, x[~test], y[~test], sample_weight=weights[~test], seed=5, verbose=False, **SETTINGS["recipe"]
    )
    assert np.array_equal(model.predict(x[test], verbose=0), result.probabilities[0][test].astype("float32"))


def test_a_model_of_another_task_is_refused(tiny):
    x, y = tiny.numeric_rows(20)
    with pytest.raises(ValueError, match="builds a model with `task='multilabel'`, and the rows are of"):
        fe.cross_evaluate(
            lambda seed: tiny.numeric_classifier(task="multilabel"), x, y, labels=tiny.labels, verbose=False
        )


@pytest.mark.parametrize("keep_models", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_named_backbone_is_built_once_and_each_fold_begins_anew(tiny, tmp_path, keep_models):
    folder = tiny.checkpoint(tmp_path / "checkpoint")
    texts = [f"{word} film {'very ' * (i % 4)}" for i, word in enumerate(["good", "bad", "warm", "not"] * 6)]
    y = [i % 2 for i in range(24)]
    result = fe.cross_evaluate(
        str(folder), texts, y, labels=tiny.labels, folds=2, near_duplicates=False, keep_models=keep_models,
        **SETTINGS,
    )  # fmt: skip
    test = np.flatnonzero(result.fold_of_row[0] == 1)
    train = np.flatnonzero(result.fold_of_row[0] == 0)
    model = fe.build_model(str(folder), tiny.labels, seed=1)
    fe.fine_tune(
        model, [texts[i] for i in train], [y[i] for i in train], seed=1, verbose=False, **SETTINGS["recipe"]
    )
    expected = model.predict([texts[i] for i in test], verbose=0)
    assert np.array_equal(expected, result.probabilities[0][test].astype("float32"))
    if keep_models:
        assert result.models[0] is not result.models[1]


def test_a_head_alone_shares_the_features_of_a_frozen_backbone(tiny, monkeypatch):
    computed, built = [], []
    original = heads.features_of
    monkeypatch.setattr(heads, "features_of", lambda model, x: computed.append(len(x)) or original(model, x))

    def build(seed):
        built.append(seed)
        return tiny.text_classifier(freeze=True, seed=seed)

    texts = [f"{word} film {'very ' * (i % 4)}" for i, word in enumerate(["good", "bad", "warm", "not"] * 8)]
    y = [i % 2 for i in range(32)]
    result = fe.cross_evaluate(
        build, texts, y, labels=tiny.labels, folds=2, near_duplicates=False, keep_models=True, **SETTINGS
    )
    assert computed == [32]  # once, not once a fold
    assert built == [0, 0, 0]  # the shared one, and a whole model for each fold that is kept
    for fold, model in enumerate(result.models):
        test = np.flatnonzero(result.fold_of_row[0] == fold)
        p = model.predict([texts[i] for i in test], verbose=0)
        assert np.allclose(p, result.probabilities[0][test], atol=1e-6)
    ensemble = result.ensemble()
    mean = np.mean([model.predict(texts, verbose=0) for model in result.models], axis=0)
    assert np.allclose(ensemble.predict(texts), mean, atol=1e-6)


def test_the_ensemble_is_one_model_that_saves(tiny, tmp_path):
    x, y = tiny.numeric_rows(40, classes=2)
    result = fe.cross_evaluate(
        lambda seed: tiny.numeric_classifier(seed=seed),
        x,
        y,
        labels=tiny.labels,
        folds=3,
        keep_models=True,
        **SETTINGS,
    )
    ensemble = result.ensemble()
    mean = np.mean([model.predict(x, verbose=0) for model in result.models], axis=0)
    assert np.allclose(ensemble.predict(x), mean, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = fe.load_model(tmp_path / "ensemble.keras")
    assert np.array_equal(loaded.predict(x), ensemble.predict(x))
    assert fe.evaluate(loaded, x, y, n_resamples=100).accuracy == (mean.argmax(axis=1) == y).mean()


def test_an_ensemble_needs_the_models(tiny):
    x, y = tiny.numeric_rows(20)
    result = fe.cross_evaluate(
        lambda seed: tiny.numeric_classifier(), x, y, labels=tiny.labels, folds=2, **SETTINGS
    )
    with pytest.raises(ValueError, match=r"call cross_evaluate\(keep_models=True\)"):
        result.ensemble()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"epoch": 1}, "got 'epoch'. Did you mean 'epochs'?"),
        ({"seed": 1}, "Each fold has its own seed; pass `seed`."),
        ({"epochs": 0}, "`epochs` must be at least 1; got 0."),
        ({"calibrate": True}, "need `validation_data=(x, y)` to choose on"),
        ({"recipe": "careful", "ema": 0.9}, "`average_last=0.4` comes from `recipe='careful'`"),
        ("carefull", "`recipe` must be one of 'plain', 'careful'; got 'carefull'."),
        ("ensemble", "`fe.cross_evaluate(build, x, y, folds=5, keep_models=True).ensemble()` is that model."),
    ],
)
def test_recipes_are_checked_before_anything_is_built(tiny, recipe, said):
    x, y = tiny.numeric_rows(20)

    def build(seed):
        raise AssertionError("built")

    with pytest.raises(ValueError) as error:
        fe.cross_evaluate(build, x, y, labels=tiny.labels, recipe=recipe, verbose=False)
    assert said in str(error.value)


def test_a_study_that_goes_on_knows_one_recipe_from_another(tiny):
    x, y = tiny.numeric_rows(20)

    def build(seed):
        raise AssertionError("built")

    def identity(recipe):
        return learners.learner_of(build, recipe, x, y, tiny.labels).identity

    plain, careful = identity(None), identity("careful")
    assert identity("plain") == plain != careful == identity({"recipe": "careful"})
    assert identity({"recipe": "careful", "epochs": 5}) != careful
    assert identity(fe.Recipe(seed=1)) == identity(fe.Recipe(seed=2))  # each fold has its own


def test_a_named_recipe_trains_each_fold(tiny):
    x, y = tiny.numeric_rows(20)
    learner = learners.learner_of(lambda seed: tiny.numeric_classifier(), "careful", x, y, tiny.labels)
    trained, alone = learner.train(np.arange(16), seed=1), tiny.numeric_classifier()
    fe.fine_tune(alone, x[:16], y[:16], recipe="careful", seed=1, verbose=False)
    for one, other in zip(trained.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_trained_the_folds_is_printed_and_saved(tiny, tmp_path):
    x, y = tiny.numeric_rows(20)
    recipe = {"recipe": "careful", "epochs": 1, "strategy": "full"}
    result = fe.cross_evaluate(
        lambda seed: tiny.numeric_classifier(seed=seed), x, y, labels=tiny.labels, folds=2,
        **{**SETTINGS, "recipe": recipe},
    )  # fmt: skip
    words = " ".join(str(result).split())
    assert "The models were trained by the recipe 'careful', with epochs=1, strategy='full'." in words
    assert result.settings["average_last"] == 0.4 and "seed" not in result.settings
    assert fe.CrossEvaluation.load(result.save(tmp_path)).settings == result.settings


def test_a_recipe_with_adapters_trains_each_fold_from_the_backbone(tiny, tmp_path):
    folder = tiny.checkpoint(tmp_path / "checkpoint")
    x, y = np.array(tiny.texts * 3, dtype=object), np.array(tiny.sentiments * 3)
    learner = learners.learner_of(str(folder), {"strategy": "lora", "epochs": 1}, x, y, tiny.labels)
    learner.train(np.arange(8), seed=0)
    begun, alone = learner._fresh(1), fe.build_model(str(folder), tiny.labels, seed=1)
    for one, other in zip(begun.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_of_other_classes_is_refused(tiny):
    x, y = tiny.numeric_rows(20)
    with pytest.raises(ValueError, match="`learner` builds a model of the classes"):
        fe.cross_evaluate(lambda seed: tiny.numeric_classifier(), x, y, verbose=False)
