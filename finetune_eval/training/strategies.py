"""Strategies of fine-tuning: which weights are trained, from which step on, at which share of the rate."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from finetune_eval.models import frozen, lora
from finetune_eval.models.batching import Batches, by_row, forward
from finetune_eval.models.halves import in_strategy
from finetune_eval.models.mirrored import check_training
from finetune_eval.training.recipe import Recipe

# Small models bear, and need, a higher rate. 1e-4 is what MiniLM (23 M parameters) learned best with in 3
# epochs (docs/performance.md); 3e-5 is in the middle of what Devlin et al. 2019 tried for BERT (110 M and
# up).
_SMALL_MODEL = 50_000_000
_RATE_SMALL, _RATE_LARGE = 1e-4, 3e-5
# A head alone starts from nothing and has nothing to forget: of 1e-3, 3e-3, 1e-2 and 3e-2 this gave MiniLM
# the lowest validation loss in 3 epochs of 1,000 Rotten Tomatoes rows (0.61, 0.55, 0.53, 0.57).
_RATE_HEAD = 1e-2
# Inverse strengths of the penalty among which the first head is chosen, on this many rows at most and in this
# many parts of them.
_STRENGTHS, _ROWS, _FOLDS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0), 2_000, 5


def check(model: Any, recipe: Recipe) -> None:
    """Raise where a model, or the devices it is on, has not what a recipe needs."""
    _check_dtypes(model)
    check_training(model)
    apart = {
        "gradient_accumulation": recipe.gradient_accumulation > 1,
        "average_last": recipe.average_last > 0,
        "ema": recipe.ema is not None,
        "stop_within_noise": recipe.stop_within_noise,
    }
    if (name := next((name for name, used in apart.items() if used), None)) and in_strategy():
        raise ValueError(f"`{name}` cannot be used inside a `tf.distribute` strategy; leave it out.")
    if recipe.strategy == "lora":
        lora.check(model, recipe.lora_rank)
    elif recipe.strategy not in ("full", "head") and not frozen.trains(model.backbone):
        raise ValueError(
            f"`strategy` {recipe.strategy!r} trains the backbone, and all of it is frozen; call "
            "`model.unfreeze()` first, or use the strategy 'head'."
        )


def _check_dtypes(model: Any) -> None:
    """Refuse weights that cannot hold what a step adds to them."""
    narrow = {str(variable.dtype) for variable in model.trainable_variables} & {"float16", "bfloat16"}
    if narrow:
        dtype = narrow.pop()
        raise ValueError(
            f"`model` has {dtype} weights, which lose the small steps of fine-tuning to rounding; build it "
            f"under the dtype policy 'float32' or 'mixed_{dtype}' (`keras.config.set_dtype_policy`)."
        )


def default_rate(model: Any, recipe: Recipe) -> float:
    """Return the highest learning rate where the caller gives none."""
    if recipe.strategy == "head" or not (recipe.strategy == "lora" or frozen.trains(model.backbone)):
        return _RATE_HEAD
    return _RATE_SMALL if model.backbone.count_params() < _SMALL_MODEL else _RATE_LARGE


@contextlib.contextmanager
def only_its_weights(model: Any, recipe: Recipe) -> Iterator[None]:
    """Have only the weights of the recipe's strategy trainable; after the context all are as before."""
    with frozen.trainable_as_before(model):
        if recipe.strategy in ("head", "lora"):
            frozen.set_trainable(model.backbone, False)
        if recipe.strategy == "lora":
            lora.train_adapters_alone(model)
        yield


def groups(model: Any) -> list[list[Any]]:
    """Return a model's variables by depth: the head, the backbone's layers from the top down, embeddings.

    Of a backbone without numbered layers, each layer that has weights is one.
    """
    known, numbered = model.backbone.layers, frozen.numbered_layers(model.backbone)
    if numbered:
        starts = [0, *map(known.index, numbered), len(known)]
        parts = [known[start:stop] for start, stop in zip(starts, starts[1:], strict=False)]
    else:
        parts = [[layer] for layer in known if layer.weights]
    inside = [[variable for layer in part for variable in layer.variables] for part in reversed(parts)]
    of_backbone = {id(variable) for variable in model.backbone.variables}
    head = [variable for variable in model.variables if id(variable) not in of_backbone]
    return [
        [variable for variable in dict((id(each), each) for each in group).values() if variable.trainable]
        for group in (head, *inside)
    ]


def rate_scales(model: Any, decay: float) -> dict[str, float]:
    """Return, for `AdamW`, by which each variable's rate is multiplied: the head's by 1, below by `decay`.

    Of n layers, layer i from the bottom learns at `decay ** (n + 1 - i)`, the embeddings at
    `decay ** (n + 1)`.

    Reference:
        Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", discriminative
        fine-tuning; the exponents are those of Bao et al. 2021, "BEiT".
    """
    if decay == 1:
        return {}
    return {variable.path: decay**depth for depth, group in enumerate(groups(model)) for variable in group}


def first_steps(model: Any, recipe: Recipe, steps: int) -> dict[str, int]:
    """Return, for `AdamW`, after how many steps each variable begins to move.

    Gradual unfreezing: the head moves from the first epoch on, everything in the last; between them the
    groups begin at even distances, from the top down.

    Args:
        model: The model.
        recipe: The settings.
        steps: Steps in an epoch.

    Reference:
        Howard & Ruder 2018, as above.
    """
    if recipe.strategy != "gradual":
        return {}
    moving = [group for group in groups(model) if group]
    epochs, below = recipe.epochs - 1, len(moving) - 1
    return {
        variable.path: -(-place * epochs // below) * steps  # rounded up: the last group in the last epoch
        for place, group in enumerate(moving)
        for variable in group
        if place
    }


def start_head(model: Any, train: Batches, seed: int) -> None:
    """Give the head the weights of a logistic regression on what the backbone gives for the training rows.

    The strength of its penalty is chosen by cross-validated log-loss. Rows have their weights. A class of
    which there is no row begins as if half a row had been seen. Columns beside the text are part of the
    regression; the penalty takes each column for as much as all features of the text together.

    Reference:
        Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution".
    """
    in_turn = Batches(dataclasses.replace(train.rows, beside={}), None, None)
    backbone = keras.Model(model.inputs_of_features, model.get_layer("head_dropout").input)
    x = by_row(forward(backbone, in_turn.spec), in_turn).astype(np.float64)
    y, width = np.asarray(train.y), x.shape[1]
    beside = train.rows.beside.get("columns")
    if y.ndim == 2 and not model.multilabel:  # probabilities: the regression learns the most probable class
        y = y.argmax(axis=1)
    weights = np.ones(len(y)) if train.sample_weight is None else train.sample_weight.astype(np.float64)
    if model.multilabel:  # of each label one of two classes, whose logit is the difference of theirs
        each = [_regression(x, column.astype(np.int64), weights, 2, seed, beside) for column in y.T]
        kernel = np.stack([slopes[:, 1] - slopes[:, 0] for slopes, _ in each], axis=1)
        bias = np.array([start[1] - start[0] for _, start in each])
    else:
        kernel, bias = _regression(x, y, weights, len(model.labels), seed, beside)
    head = model.get_layer("logits")
    head.kernel.assign(kernel[:width].astype(np.float32))
    if model.columns is not None:
        model.get_layer("columns_logits").kernel.assign(kernel[width:].astype(np.float32))
    head.bias.assign(bias.astype(np.float32))


def columns_are_new(model: Any) -> bool:
    """Whether a model reads columns, and no training has given their kernel anything but its first zeros."""
    return model.columns is not None and not np.asarray(model.get_layer("columns_logits").kernel).any()


def _regression(
    x: Any, y: Any, weights: Any, classes: int, seed: int, beside: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (width, classes) kernel and the (classes,) bias of a logistic regression.

    Args:
        x: (n, width of x) features, which are brought to mean 0 and spread 1.
        y: (n,) class indices.
        weights: (n,) weights.
        classes: How many classes there are.
        seed: Of the parts by which the penalty is chosen.
        beside: (n, m) inputs of columns, which are on a scale of their own, or None; they have the last rows
            of the kernel.
    """
    from sklearn.linear_model import LogisticRegression

    counted = weights > 0
    beside = np.empty((len(x), 0)) if beside is None else beside
    x, beside, y, weights = x[counted], beside[counted], y[counted], weights[counted]
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < 1e-7 * max(1.0, np.abs(centre).max(initial=0.0))] = 1.0  # a constant column
    # A column is one or a few inputs among hundreds of features: at their scale the penalty that suits the
    # features would shrink it away.
    scale = np.concatenate([spread, np.full(beside.shape[1], x.shape[1] ** -0.5)])
    centre = np.concatenate([centre, np.zeros(beside.shape[1])])
    unit, seen = (np.concatenate([x, beside], axis=1) - centre) / scale, np.unique(y)
    kernel, bias = np.zeros((len(scale), classes)), np.full(classes, -np.inf)
    if len(seen) > 1:
        strength = _strength(unit, y, weights, seed)
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(unit, y, sample_weight=weights)
        slopes, at_centre = fitted.coef_, fitted.intercept_
        if len(seen) == 2:  # one logit, of the second class against the first
            slopes, at_centre = np.vstack([-slopes, slopes]) / 2, np.array([-1, 1]) * at_centre / 2
        kernel[:, seen], bias[seen] = slopes.T, at_centre
    else:
        bias[seen] = 0.0
    unseen = np.setdiff1d(np.arange(classes), seen)
    bias[unseen] = np.logaddexp.reduce(bias[seen]) + np.log(0.5 / len(y))
    kernel /= scale[:, np.newaxis]
    return kernel, bias - centre @ kernel


def _strength(x: Any, y: Any, weights: Any, seed: int) -> float:
    """Return the inverse strength of the penalty with the lowest cross-validated log-loss."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    chosen = np.random.default_rng(seed).permutation(len(y))[:_ROWS]
    x, y, weights = x[chosen], y[chosen], weights[chosen]
    folds = min(_FOLDS, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2 or len(np.unique(y)) < 2:  # too few rows to choose by
        return _STRENGTHS[len(_STRENGTHS) // 2]
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y))
    places = np.searchsorted(np.unique(y), y)

    def loss(strength: float) -> float:
        total = 0.0
        for fit, judge in parts:
            model = LogisticRegression(C=strength, max_iter=1000)
            log_p = model.fit(x[fit], y[fit], sample_weight=weights[fit]).predict_log_proba(x[judge])
            total -= float(weights[judge] @ log_p[np.arange(len(judge)), places[judge]])
        return total

    return min(_STRENGTHS, key=loss)


def moved(model: Any, before: Sequence[np.ndarray]) -> dict[str, float]:
    """Return |after - before| / |before| over the weights of each layer of the backbone, adapters merged."""
    old = lora.as_saved(model, dict(enumerate(before)))
    new = lora.as_saved(model, {place: weight.numpy() for place, weight in enumerate(model.weights)})
    adapters = {id(weight) for layer in lora.adapted(model) for weight in lora.of_adapter(layer)}
    own = [weight for weight in model.weights if id(weight) not in adapters]
    places = {id(weight): place for place, weight in enumerate(own)}
    distances = {}
    for layer in model.backbone.layers:
        squares = np.zeros(2)
        for variable in layer.weights:
            if (place := places.get(id(variable))) is not None:
                was = old[place].ravel()
                step = new[place].ravel() - was
                squares += [np.vdot(step, step), np.vdot(was, was)]
        if squares[1] > 0:
            distances[layer.name] = float(np.sqrt(squares[0] / squares[1]))
    return distances
