"""Strategies of fine-tuning: which weights moved, which did not, and by how much less."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import finetune_eval as fe
from finetune_eval.training import strategies
from finetune_eval.training.recipe import STRATEGIES, Recipe

HEAD = {"logits/kernel", "logits/bias"}


class Weights(keras.callbacks.Callback):
    """Records the weights that each epoch ended with."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(values(self.model))


def values(model):
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


def changed(before, after):
    return {path for path in before if not np.array_equal(before[path], after[path])}


def tuned(model, tiny, **settings):
    """Fine-tune on the tiny texts; return the weights before, those of each epoch, and the run."""
    before, seen = values(model), Weights()
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "precision": "float32", **settings}
    run = fe.fine_tune(
        model, list(tiny.texts), list(tiny.sentiments), verbose=False, callbacks=[seen], **settings
    )
    return before, seen.epochs, run


def of_backbone(model):
    """Return the paths of what training can move: all but the pooler of BERT, which is not used."""
    return {weight.path for weight in model.trainable_variables} - HEAD


def test_full_moves_every_weight_that_can_be_trained(tiny):
    model = tiny.text_classifier(layers=1)
    before, epochs, _ = tuned(model, tiny, epochs=1)
    assert changed(before, epochs[-1]) == of_backbone(model) | HEAD


def test_head_moves_the_head_alone_and_leaves_the_model_as_trainable_as_it_was(tiny, tmp_path):
    model = tiny.text_classifier(layers=2)
    trainable = [weight.trainable for weight in model.weights]
    before, epochs, run = tuned(model, tiny, strategy="head", run_dir=tmp_path / "run")
    assert changed(before, epochs[-1]) == HEAD
    assert [weight.trainable for weight in model.weights] == trainable
    assert run.manifest["settings"]["strategy"] == "head"
    # Whoever loads the model can train all of it, too.
    loaded = fe.load_model(tmp_path / "run")
    assert len(loaded.trainable_variables) == len(model.trainable_variables) > 2


def test_head_has_the_default_rate_of_a_head(tiny):
    model = tiny.numeric_classifier()
    x, y = tiny.numeric_rows(20)
    run = fe.fine_tune(model, x, y, strategy="head", epochs=1, verbose=False)
    assert run.manifest["settings"]["learning_rate"] == 1e-2
    assert fe.fine_tune(model, x, y, epochs=1, verbose=False).manifest["settings"]["learning_rate"] == 1e-4


def test_gradual_starts_with_the_head_and_ends_with_everything(tiny):
    # Four groups: head, two layers, embeddings. Of three epochs the second adds half of the three: rounded
    # up, a group begins in epoch ceil(place * 2 / 3): places 1, 2, 3 in epochs 1, 2, 2 (from 0).
    model = tiny.text_classifier(layers=2)
    inside = of_backbone(model)
    top = {path for path in inside if "transformer_layer_1" in path}
    before, epochs, _ = tuned(model, tiny, strategy="gradual", epochs=3)
    assert changed(before, epochs[0]) == HEAD
    assert changed(before, epochs[1]) == HEAD | top
    assert changed(epochs[1], epochs[2]) == inside | HEAD


def test_head_then_full_begins_with_a_logistic_regression_and_then_moves_everything(tiny, monkeypatch):
    model = tiny.text_classifier(layers=2)
    features = keras.Model(model.input, model.get_layer("head_dropout").input)
    x = features.predict(model.encode(tiny.texts).take(np.arange(8)), verbose=0)
    begun = []
    inner = strategies.start_head
    monkeypatch.setattr(strategies, "start_head", lambda *a: (inner(*a), begun.append(values(model))))
    before, epochs, _ = tuned(model, tiny, strategy="head_then_full")
    assert changed(before, begun[0]) == HEAD
    assert changed(begun[0], epochs[-1]) == of_backbone(model) | HEAD
    # scikit-learn's own probabilities, of one of the strengths that are tried.
    kernel, bias = begun[0]["logits/kernel"], begun[0]["logits/bias"]
    logits = x @ kernel + bias
    ours = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    unit = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = [
        LogisticRegression(C=c, max_iter=1000).fit(unit, tiny.sentiments).predict_proba(unit)[:, 1]
        for c in strategies._STRENGTHS
    ]
    assert min(np.abs(ours - p).max() for p in theirs) < 1e-4


@pytest.mark.parametrize("classes", [2, 3])
def test_the_first_head_gives_the_probabilities_of_scikit_learn_with_weights(classes):
    random = np.random.default_rng(0)
    x = random.normal(3, 2, (60, 4))
    y = x[:, :classes].argmax(axis=1)
    weights = random.uniform(0, 2, 60)
    kernel, bias = strategies._regression(x, y, weights, classes, seed=0)
    logits = x @ kernel + bias
    ours = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    unit = (x - x.mean(axis=0)) / x.std(axis=0)
    strength = strategies._strength(unit, y, weights, seed=0)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(unit, y, sample_weight=weights)
    np.testing.assert_allclose(ours, fitted.predict_proba(unit), atol=1e-6)


def test_a_class_without_a_row_begins_as_if_half_a_row_had_been_seen():
    x = np.arange(20.0).reshape(10, 2)
    y = np.array([0, 2] * 5)
    kernel, bias = strategies._regression(x, y, np.ones(10), 3, seed=0)
    logits = x.mean(axis=0) @ kernel + bias  # of the mean row
    share = np.exp(logits[1]) / (np.exp(logits[0]) + np.exp(logits[2]))
    assert share == pytest.approx(0.5 / 10)
    kernel, bias = strategies._regression(x, np.zeros(10, int), np.ones(10), 2, seed=0)  # one class alone
    assert not kernel.any() and np.exp(bias[1] - bias[0]) == pytest.approx(0.5 / 10)


def test_layer_decay_multiplies_the_update_of_each_layer(tiny):
    # With a constant rate and one step, Adam's update is the rate times a number that the rate has no part
    # in: each layer's update is that at decay 1, times decay ** depth. A power of 2 is exact in float32.
    moved = []
    for decay in (1.0, 0.5):
        model = tiny.text_classifier(layers=2)
        before, epochs, _ = tuned(
            model, tiny, epochs=1, batch_size=8, schedule="constant", warmup=0, weight_decay=0.1,
            layer_decay=decay, learning_rate=2**-7,
        )  # fmt: skip
        moved.append({path: epochs[0][path] - value for path, value in before.items()})
    depths = set()
    for path in of_backbone(model) | HEAD:
        depth = 0 if path in HEAD else 1 if "layer_1" in path else 2 if "layer_0" in path else 3
        if np.abs(moved[0][path]).max() > 1e-3:  # some gradients are hardly above Adam's epsilon
            depths.add(depth)
        # To the rounding of the weights themselves, of up to 4 in size: 2 * 2**-24 * 4 = 5e-7.
        np.testing.assert_allclose(moved[1][path], moved[0][path] * 0.5**depth, rtol=0, atol=1e-6)
    assert depths == {0, 1, 2, 3}


def test_layer_decay_of_a_backbone_without_numbered_layers_goes_by_its_layers(tiny):
    model = tiny.numeric_classifier()
    scales = strategies.rate_scales(model, 0.5)
    assert scales == {"logits/kernel": 1, "logits/bias": 1, "dense/kernel": 0.5, "dense/bias": 0.5}


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (
            {"strategy": "heads"},
            f"^`strategy` must be one of {', '.join(map(repr, STRATEGIES))}; got 'heads'",
        ),
        (
            {"lora_rank": 4},
            "^`lora_rank` needs `strategy='lora'`; the strategy is 'full'. Leave one out.$",
        ),
        (
            {"strategy": "gradual", "epochs": 1},
            r"^`epochs` must be at least 2 with `strategy='gradual'`: the first epoch trains the head alone, "
            r"the last everything; got 1\.$",
        ),
        (
            {"strategy": "head", "layer_decay": 0.9},
            "^`layer_decay` needs layers to train; the strategy 'head' trains none of them.$",
        ),
        ({"layer_decay": 0}, "^`layer_decay` must be a finite number above 0 and at most 1; got 0.$"),
        (
            {"ema": 0.9, "average_last": 0.4},
            "^`ema` and `average_last` are two ways to average the weights; pass one of them.$",
        ),
        ({"warmup": 1}, "^`warmup` must be"),
        ({"gradient_accumulation": 0}, "^`gradient_accumulation` must be"),
    ],
)
def test_what_no_recipe_may_hold_is_refused_before_anything_is_trained(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**settings)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("full", "head", "lora")])
def test_a_strategy_that_trains_the_backbone_refuses_a_frozen_one(tiny, strategy):
    model = tiny.numeric_classifier(freeze=True)
    with pytest.raises(
        ValueError,
        match=f"^`strategy` '{strategy}' trains the backbone, and all of it is frozen; call "
        r"`model.unfreeze\(\)` first, or use the strategy 'head'.$",
    ):
        fe.fine_tune(model, *tiny.numeric_rows(8), strategy=strategy, verbose=False)


def test_the_penalty_of_the_first_head_takes_a_column_for_as_much_as_all_features_together():
    """A column's weight is penalised as if it were 1 / sqrt(width) of itself: there are `width` features."""
    random = np.random.default_rng(0)
    x, column = random.normal(size=(80, 16)), random.normal(size=(80, 1))
    y = (x[:, 0] + column[:, 0] + random.logistic(size=80) > 0).astype(int)
    kernel, _ = strategies._regression(x, y, np.ones(80), 2, seed=0, beside=column)
    unit = np.concatenate([(x - x.mean(axis=0)) / x.std(axis=0), 4 * column], axis=1)
    strength = strategies._strength(unit, y, np.ones(80), seed=0)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(unit, y)
    assert kernel[16, 1] - kernel[16, 0] == pytest.approx(4 * fitted.coef_[0, 16], rel=1e-9)
