"""What a study trains: a backbone by its name, what a function builds, or any function that fits."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import types
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _pairs
from finetune_eval._text import counted, listed
from finetune_eval.evaluation import _outputs
from finetune_eval.evaluation._inputs import read_probabilities
from finetune_eval.training.recipe import NAMED, Recipe, explained, made, settings_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Learner(Protocol):
    """What is trained on some of the rows, again and again.

    Attributes:
        identity: What it is, for a study that goes on: two learners that differ should differ in it.
        saves: Whether its models are Keras models, which can be saved.
        settings: The settings of `fine_tune` but the seed, and as "recipe" the name of the recipe they began
            with, or None; empty where models are not fine-tuned here.
    """

    identity: str
    saves: bool
    settings: dict[str, Any]

    def train(self, rows: Ints, seed: int) -> Any:
        """Return what was trained on some of the rows."""

    def answer(self, trained: Any, rows: Ints) -> Floats:
        """Return (m, K) probabilities of some of the rows."""

    def model(self, trained: Any) -> Any:
        """Return the whole model, on raw rows."""


def read_labels(y: Any, labels: Any) -> tuple[Ints, tuple[str, ...]]:
    """Return the place of each row's class, and the class names: those given, or those found."""
    if labels is None:
        return _labels.find("y", y)
    names = _labels.class_names(labels)
    return _labels.read("y", y, names), names


def learner_of(learner: Any, recipe: Any, x: NDArray[Any], y: Ints, labels: tuple[str, ...]) -> Learner:
    """Return the learner that an argument means.

    Args:
        learner: A name or folder of a backbone; a function of a seed that returns a fresh classifier; or a
            function of rows, labels and a seed that returns a trained model.
        recipe: The name of a recipe, a `Recipe`, or keywords of `fine_tune`; None for "plain".
        x: All rows.
        y: Their class indices.
        labels: The class names.
    """
    if isinstance(learner, (str, os.PathLike)):
        return _OfBackbone(
            _of_backbone(learner, labels, _pairs.are_pairs(x)), str(learner), recipe, x, y, labels
        )
    if not callable(learner) or isinstance(learner, type):
        raise TypeError(
            "`learner` must be the name of a backbone, a function of a seed that returns what `build_model` "
            "makes, or a function fit(x, y, seed=seed) that returns a trained model; got "
            f"{type(learner).__name__}."
        )
    required, takes_seed = _parameters(learner)
    if required == 1:
        return _FineTuned(learner, function_hash(learner), recipe, x, y, labels)
    if required != 2:
        raise TypeError(
            "`learner` must be a function of a seed, or a function fit(x, y, seed=seed); this one has "
            f"{counted(required, 'argument')} that must be given."
        )
    if recipe is not None:
        raise ValueError(
            "`recipe` is for models that are fine-tuned here; `learner` is a function that fits by itself."
        )
    return _Fitted(learner, takes_seed, x, y, labels)


def classifiers_of(
    learner: Any, recipe: Any, x: NDArray[Any], y: Ints, labels: tuple[str, ...]
) -> tuple[Callable[[int], Any], dict[str, Any]]:
    """Return what gives a fresh classifier for a seed, and the keywords of `fine_tune`; see `learner_of`."""
    made = learner_of(learner, recipe, x, y, labels)
    if not isinstance(made, _FineTuned):
        raise TypeError(
            "`learner` must be the name of a backbone, or a function of a seed that returns what "
            "`build_model` makes; got a function that trains by itself."
        )
    return made._fresh, made._settings


def _of_backbone(name: Any, labels: tuple[str, ...], pairs: bool) -> Callable[[int], Any]:
    def build(seed: int) -> Any:
        from finetune_eval.models.build import build_model

        return build_model(name, labels, pairs=pairs, seed=seed)

    return build


def _parameters(function: Any) -> tuple[int, bool]:
    """Return how many arguments must be given, `seed` aside where there are others, and if it has a seed."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise TypeError(f"`learner` {function!r} does not say which arguments it takes.") from None
    kinds = inspect.Parameter
    needed = [
        name
        for name, each in parameters.items()
        if each.default is kinds.empty and each.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]
    others = [name for name in needed if name != "seed"]
    takes_seed = "seed" in parameters or any(each.kind is kinds.VAR_KEYWORD for each in parameters.values())
    return (len(others) or len(needed)), takes_seed


class _Fitted:
    """A function that fits a model to rows: scikit-learn, or a training of the user's own."""

    def __init__(self, fit: Any, takes_seed: bool, x: NDArray[Any], y: Ints, labels: tuple[str, ...]) -> None:
        self._fit, self._takes_seed, self._x, self._y, self._labels = fit, takes_seed, x, y, labels
        self.identity, self.saves = function_hash(fit), False
        self.settings: dict[str, Any] = {}

    def train(self, rows: Ints, seed: int) -> Any:
        keywords = {"seed": seed} if self._takes_seed else {}
        return self._fit(self._x[rows], self._y[rows], **keywords)

    def answer(self, trained: Any, rows: Ints) -> Floats:
        return probabilities(trained, self._x[rows], self._labels)

    def model(self, trained: Any) -> Any:
        return trained


class _FineTuned:
    """Classifiers of `build_model`, fine-tuned. Where their backbones are frozen, all share the features."""

    def __init__(
        self,
        build: Callable[[int], Any],
        identity: str,
        recipe: Any,
        x: NDArray[Any],
        y: Ints,
        labels: tuple[str, ...],
    ) -> None:
        settings = _settings(recipe)
        begun, given = settings.get("recipe", "plain"), {n: v for n, v in settings.items() if n != "recipe"}
        checked = made(begun, given)
        with explained(begun, given):
            checked.check_fit(len(labels), validated=False)
        self._build, self._settings, self._x, self._labels = build, settings, x, labels
        self._y = _labels.ClassIndices(y, labels)
        self._whole: Any = None  # the model whose frozen backbone all heads share
        self._features: Any = None
        chosen = {name: value for name, value in {**settings_of(begun), **given}.items() if name != "seed"}
        self.identity, self.saves = f"{identity} {sorted(chosen.items())}", True
        known = {name: value for name, value in vars(checked).items() if name != "seed"}
        self.settings = {"recipe": begun if isinstance(begun, str) else None, **known}

    def train(self, rows: Ints, seed: int) -> Any:
        from finetune_eval.training.fine_tune import fine_tune
        from finetune_eval.training.heads import features_of, head_of, is_head_alone

        model, x = self._whole, self._x
        if model is None:
            model = self._fresh(seed)
            if is_head_alone(model):
                self._whole, self._features = model, features_of(model, self._x)
        if self._features is not None:
            model, x = head_of(self._whole, seed), self._features
        fine_tune(model, x[rows], self._y[rows], seed=seed, verbose=False, **self._settings)
        return model

    def answer(self, trained: Any, rows: Ints) -> Floats:
        x = self._x if self._features is None else self._features
        return probabilities(trained, x[rows], self._labels)

    def model(self, trained: Any) -> Any:
        from finetune_eval.training.heads import with_head

        return trained if self._features is None else with_head(self._built(0), trained)

    def _fresh(self, seed: int) -> Any:
        """Return a classifier to be trained."""
        return self._built(seed)

    def _built(self, seed: int) -> Any:
        from finetune_eval.models.classifier import Classifier

        model = self._build(seed)
        if not isinstance(model, Classifier):
            raise TypeError(
                "`learner`, a function of a seed, must return what `build_model` makes; got "
                f"{type(model).__name__}. For any other model pass a function fit(x, y, seed=seed) that "
                "trains it."
            )
        if tuple(model.labels) != self._labels:
            raise ValueError(
                f"`learner` builds a model of the classes {listed(model.labels)}; the rows have "
                f"{listed(self._labels)}. Build it with these, in this order, or pass `labels`."
            )
        return model


class _OfBackbone(_FineTuned):
    """Classifiers of a named backbone, which differ in the initial head only: built once, used again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._used: Any = None  # the model of the training before
        self._before: Any = None  # its weights before any training

    def model(self, trained: Any) -> Any:
        self._used = None  # it is kept: the next training gets another
        return super().model(trained)

    def _fresh(self, seed: int) -> Any:
        from finetune_eval.training.heads import head_of, with_head

        # A training with LoRA leaves a model with adapters: another one is built for the next.
        if self._used is None or len(self._used.weights) != len(self._before):
            self._used = self._built(seed)
            self._before = self._used.get_weights()
            return self._used
        self._used.set_weights(self._before)
        return with_head(self._used, head_of(self._used, seed))


def _settings(recipe: Any) -> dict[str, Any]:
    """Return keywords of `fine_tune` but the seed, which is each fold's own."""
    if recipe is None:
        return {}
    if isinstance(recipe, (str, Recipe)):
        recipe = {"recipe": recipe}
    if not isinstance(recipe, Mapping):
        raise TypeError(
            f"`recipe` must be {', '.join(map(repr, NAMED))}, a `fe.Recipe`, or a dictionary of keywords of "
            f"`fine_tune`; got {type(recipe).__name__}."
        )
    known = ["recipe", *(field.name for field in dataclasses.fields(Recipe) if field.name != "seed")]
    for name in recipe:
        if name not in known:
            why = " Each fold has its own seed; pass `seed`." if name == "seed" else ""
            raise ValueError(
                f"`recipe` must hold {', '.join(known)}; got {name!r}.{why or _checks.nearest(name, known)}"
            )
    return dict(recipe)


def probabilities(model: Any, x: NDArray[Any], labels: tuple[str, ...]) -> Floats:
    """Return (n, K) probabilities of any trained model, in the order of the class names."""
    if hasattr(model, "predict_proba"):
        found: NDArray[Any] = np.asarray(model.predict_proba(x), dtype=np.float64)
        classes = getattr(model, "classes_", None)
        if classes is not None and found.ndim == 2 and len(classes) == found.shape[1]:
            places = _labels.read("classes_", np.asarray(classes), labels)
            values = np.zeros((len(found), len(labels)))
            values[:, places] = found
            found = values
    elif callable(getattr(model, "predict", None)):
        known = getattr(model, "labels", None)
        if known is not None and tuple(known) != labels:
            raise ValueError(
                f"`learner` gave a model of the classes {listed(known)}; the rows have {listed(labels)}. "
                "Train it with these, in this order."
            )
        quiet = {"verbose": 0} if "verbose" in inspect.signature(model.predict).parameters else {}
        found = _outputs.probabilities_of(model, model.predict(x, **quiet), task="classification")
    else:
        raise TypeError(
            "`learner` must return a model with a `predict` or a `predict_proba` that gives probabilities; "
            f"got {type(model).__name__}."
        )
    if found.shape != (len(x), len(labels)):
        raise ValueError(
            f"`learner` gave a model whose probabilities have shape {found.shape}; {len(x):,} rows of "
            f"{len(labels)} classes need {(len(x), len(labels))}."
        )
    return np.asarray(read_probabilities(found, "classification")[0], dtype=np.float64)


def function_hash(function: Any) -> str:
    """Return a hash of what a function does, as far as its code, defaults and closure tell.

    What it reads from elsewhere (globals, files) is not in it.
    """
    return hashlib.sha256(_described(function).encode()).hexdigest()[:16]


def _described(value: Any) -> str:
    if isinstance(value, types.CodeType):
        parts = [value.co_code.hex(), repr(value.co_names), *map(_described, value.co_consts)]
        return f"code({','.join(parts)})"
    if hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
        return f"partial({_described(value.func)},{_described(value.args)},{_described(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"method({_described(value.__func__)},{type(value.__self__).__qualname__})"
    if isinstance(value, types.FunctionType):
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        given = value.__defaults__, value.__kwdefaults__, cells
        return f"function({_described(value.__code__)},{_described(given)})"
    if isinstance(value, (tuple, list)):
        return f"({','.join(map(_described, value))})"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key!r}:{_described(each)}' for key, each in sorted(value.items()))}}}"
    plain = value is None or isinstance(value, (str, bytes, int, float, bool, os.PathLike))
    return repr(value) if plain else type(value).__qualname__
