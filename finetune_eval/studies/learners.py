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

from finetune_eval import _checks, _columns, _labels, _pairs
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


def read_labels(
    y: Any, labels: Any, several: str, *, task: str = "classification"
) -> tuple[Ints, tuple[str, ...]]:
    """Return the place of each row's class, or its zeros and ones, and the names: those given, or found.

    Args:
        y: The labels.
        labels: The names, or None.
        several: What to do where rows of one class each are needed, and have several.
        task: "classification" or "multilabel".
    """
    if task == "classification":
        _labels.refuse_several("y", y, several)
    if labels is None:
        return _labels.find_many("y", y) if task == "multilabel" else _labels.find("y", y)
    names = _labels.class_names(labels)
    return (_labels.read_many if task == "multilabel" else _labels.read)("y", y, names), names


def learner_of(
    learner: Any,
    recipe: Any,
    x: NDArray[Any],
    y: Ints,
    labels: tuple[str, ...],
    weights: Floats | None = None,
) -> Learner:
    """Return the learner that an argument means.

    Args:
        learner: A name or folder of a backbone; a function of a seed that returns a fresh classifier; or a
            function of rows, labels and a seed that returns a trained model.
        recipe: The name of a recipe, a `Recipe`, or keywords of `fine_tune`; None for "plain".
        x: All rows.
        y: Their class indices; or (n, K) zeros and ones, where a row may have several labels.
        labels: The class names.
        weights: (n,) weights of the rows in training, or None.
    """
    rows = _Rows(x, y, labels, weights)
    if isinstance(learner, (str, os.PathLike)):
        return _OfBackbone(_of_backbone(learner, rows), str(learner), recipe, rows)
    if not callable(learner) or isinstance(learner, type):
        raise TypeError(
            "`learner` must be the name of a backbone, a function of a seed that returns what `build_model` "
            "makes, or a function fit(x, y, seed=seed) that returns a trained model; got "
            f"{type(learner).__name__}."
        )
    required, takes_seed = _parameters(learner)
    if required == 1:
        return _FineTuned(learner, function_hash(learner), recipe, rows)
    if required != 2:
        raise TypeError(
            "`learner` must be a function of a seed, or a function fit(x, y, seed=seed); this one has "
            f"{counted(required, 'argument')} that must be given."
        )
    if recipe is not None:
        raise ValueError(
            "`recipe` is for models that are fine-tuned here; `learner` is a function that fits by itself."
        )
    if weights is not None and not _takes(learner, "sample_weight"):
        raise ValueError(
            "`sample_weight` needs a `learner` that weighs its rows: fit(x, y, seed=seed, "
            "sample_weight=weights)."
        )
    return _Fitted(learner, takes_seed, rows)


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


@dataclasses.dataclass(frozen=True)
class _Rows:
    """All rows of a study: what their labels are, and what they weigh in training."""

    x: NDArray[Any]
    y: Ints
    labels: tuple[str, ...]
    weights: Floats | None

    @property
    def task(self) -> str:
        return "classification" if self.y.ndim == 1 else "multilabel"

    def weighing(self, rows: Ints) -> dict[str, Any]:
        """Return the keyword with the weights of some rows; none where they have no weights."""
        return {} if self.weights is None else {"sample_weight": self.weights[rows]}


def kind_of_rows(x: NDArray[Any]) -> dict[str, Any]:
    """Return the arguments of `build_model` that say what a row is: a pair of texts, or one and columns."""
    columns = dict(_columns.Columns.of_rows(x).kinds) if _columns.are_columns(x) else None
    return {"pairs": _pairs.are_pairs(x), "columns": columns}


def _of_backbone(name: Any, rows: _Rows) -> Callable[[int], Any]:
    kind = kind_of_rows(rows.x)

    def build(seed: int) -> Any:
        from finetune_eval.models.build import build_model

        return build_model(name, rows.labels, **kind, task=rows.task, seed=seed)

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
    others = [name for name in needed if name not in ("seed", "sample_weight")]
    return (len(others) or len(needed)), _takes(function, "seed")


def _takes(function: Any, name: str) -> bool:
    """Return whether a function takes a keyword."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


class _Fitted:
    """A function that fits a model to rows: scikit-learn, or a training of the user's own."""

    def __init__(self, fit: Any, takes_seed: bool, rows: _Rows) -> None:
        self._fit, self._takes_seed, self._rows = fit, takes_seed, rows
        self.identity, self.saves = function_hash(fit), False
        self.settings: dict[str, Any] = {}

    def train(self, rows: Ints, seed: int) -> Any:
        keywords = {"seed": seed} if self._takes_seed else {}
        return self._fit(self._rows.x[rows], self._rows.y[rows], **keywords, **self._rows.weighing(rows))

    def answer(self, trained: Any, rows: Ints) -> Floats:
        return probabilities(trained, self._rows.x[rows], self._rows.labels, self._rows.task)

    def model(self, trained: Any) -> Any:
        return trained


class _FineTuned:
    """Classifiers of `build_model`, fine-tuned. Where their backbones are frozen, all share the features."""

    def __init__(
        self,
        build: Callable[[int], Any],
        identity: str,
        recipe: Any,
        rows: _Rows,
    ) -> None:
        settings, labels = _settings(recipe), rows.labels
        begun, given = settings.get("recipe", "plain"), {n: v for n, v in settings.items() if n != "recipe"}
        checked = made(begun, given)
        with explained(begun, given):
            checked.check_fit(len(labels), validated=False, multilabel=rows.task == "multilabel")
        self._build, self._settings, self._rows = build, settings, rows
        self._y = rows.y if rows.task == "multilabel" else _labels.ClassIndices(rows.y, labels)
        self._whole: Any = None  # the model whose frozen backbone all heads share
        self._features: Any = None
        chosen = {name: value for name, value in {**settings_of(begun), **given}.items() if name != "seed"}
        self.identity, self.saves = f"{identity} {sorted(chosen.items())}", True
        known = {name: value for name, value in vars(checked).items() if name != "seed"}
        self.settings = {"recipe": begun if isinstance(begun, str) else None, **known}

    def train(self, rows: Ints, seed: int) -> Any:
        from finetune_eval.training.fine_tune import fine_tune
        from finetune_eval.training.heads import features_of, head_of, is_head_alone

        model, x = self._whole, self._rows.x
        if model is None:
            model = self._fresh(seed)
            if is_head_alone(model):
                self._whole, self._features = model, features_of(model, x)
        if self._features is not None:
            model, x = head_of(self._whole, seed), self._features
        more = {**self._settings, **self._rows.weighing(rows)}
        fine_tune(model, x[rows], self._y[rows], seed=seed, verbose=False, **more)
        return model

    def answer(self, trained: Any, rows: Ints) -> Floats:
        x = self._rows.x if self._features is None else self._features
        return probabilities(trained, x[rows], self._rows.labels, self._rows.task)

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
        if tuple(model.labels) != self._rows.labels:
            raise ValueError(
                f"`learner` builds a model of the classes {listed(model.labels)}; the rows have "
                f"{listed(self._rows.labels)}. Build it with these, in this order, or pass `labels`."
            )
        if model.task != self._rows.task:
            raise ValueError(
                f"`learner` builds a model with `task={model.task!r}`, and the rows are of "
                f"`task={self._rows.task!r}`; pass the same `task` to both."
            )
        return model


class _OfBackbone(_FineTuned):
    """Classifiers of a named backbone, which differ in the initial head only: built once, used again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._used: Any = None  # the model of the training before
        self._before: Any = None  # its weights before any training
        self._columns: Any = None  # what it knew of columns before: nothing

    def model(self, trained: Any) -> Any:
        self._used = None  # it is kept: the next training gets another
        return super().model(trained)

    def _fresh(self, seed: int) -> Any:
        from finetune_eval.training.heads import head_of, with_head

        # A training with LoRA leaves a model with adapters: another one is built for the next.
        if self._used is None or len(self._used.weights) != len(self._before):
            self._used = self._built(seed)
            self._before, self._columns = self._used.get_weights(), self._used.columns
            return self._used
        self._used.set_weights(self._before)
        self._used.columns = self._columns
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


def probabilities(model: Any, x: NDArray[Any], labels: tuple[str, ...], task: str) -> Floats:
    """Return (n, K) probabilities of any trained model, in the order of the class names."""
    if hasattr(model, "predict_proba"):
        found: NDArray[Any] = np.asarray(model.predict_proba(x), dtype=np.float64)
        classes = getattr(model, "classes_", None)
        one_each = task == "classification" and found.ndim == 2
        if classes is not None and one_each and len(classes) == found.shape[1]:
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
        found = _outputs.probabilities_of(model, model.predict(x, **quiet), task=task)
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
    return np.asarray(read_probabilities(found, task)[0], dtype=np.float64)


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
