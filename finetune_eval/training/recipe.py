"""Recipe: every setting of a fine-tuning, checked before anything slow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from finetune_eval import _checks, _text
from finetune_eval.evaluation.abstention import check_rows
from finetune_eval.evaluation.goals import parse_error_goal, parse_goal
from finetune_eval.evaluation.label_thresholds import check_goal

MONITORS = ("val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1")
SCHEDULES = ("cosine", "linear", "constant")
LOSSES = ("cross_entropy", "focal")
STRATEGIES = ("full", "head", "head_then_full", "gradual", "lora")
KEPT = ("best", "last")
_LORA_RANK = 8  # Hu et al. 2021: ranks from 4 to 8 do as well as larger ones on queries and values
_LARGEST_SEED = 2**32 - 1  # the states of Keras' dropout are two numbers of 32 bits


@dataclass(frozen=True)
class Recipe:
    """Every setting of `fine_tune`, under its name there; what no training can have is refused at once.

    Attributes:
        epochs: How often to go through the rows.
        batch_size: Rows a step.
        learning_rate: The highest rate; None for the default rate of the model.
        schedule: How the rate goes after the warm-up: "cosine", "linear" or "constant".
        warmup: The share of the steps in which the rate rises from 0.
        weight_decay: Decoupled decay, of matrices only.
        layer_decay: What the rate of a layer is multiplied by for each layer above it.
        strategy: What is trained: "full", "head", "head_then_full", "gradual" or "lora".
        lora_rank: The rank of LoRA's adapters; None for 8.
        gradient_accumulation: Number of batches whose gradients make one step.
        average_last: The share of the steps, the last ones, whose mean weights are kept.
        ema: The factor of the exponential mean of the weights to keep instead; None for none.
        class_weight: Weights by class name or index, or "balanced".
        label_smoothing: Share of each label spread over all classes.
        loss: "cross_entropy" or "focal".
        early_stopping: Stop after so many epochs without a better one; None never stops.
        stop_within_noise: Whether only epochs that are better by more than noise count for `early_stopping`.
        keep: The epoch whose weights are kept: "best", which validation rows choose, or "last".
        monitor: The metric that chooses the best epoch; None for "val_loss".
        calibrate: Fit the temperature on the validation rows at the end.
        threshold_for: The goal of a threshold that the validation rows choose; None for none.
        abstain_for: The goal by which answers are withheld; None for none.
        precision: "float32", "bfloat16" or "auto".
        deterministic: Use operations alone that give the same bits each time.
        seed: Of the shuffling and the dropout.

    Raises:
        ValueError, TypeError: A setting breaks its rule; the sentence names it.

    Example:
        >>> Recipe(epochs=5, layer_decay=0.9).strategy
        'full'
    """

    epochs: int = 3
    batch_size: int = 16
    learning_rate: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    strategy: str = "full"
    lora_rank: int | None = None
    gradient_accumulation: int = 1
    average_last: float = 0.0
    ema: float | None = None
    class_weight: Mapping[Any, float] | str | None = None
    label_smoothing: float = 0.0
    loss: str = "cross_entropy"
    early_stopping: int | None = None
    stop_within_noise: bool = False
    keep: str = "best"
    monitor: str | None = None
    calibrate: bool = False
    threshold_for: str | None = None
    abstain_for: str | None = None
    precision: str = "auto"
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {
            "epochs": _checks.positive_int("epochs", self.epochs),
            "batch_size": _checks.positive_int("batch_size", self.batch_size),
            "weight_decay": _checks.number("weight_decay", self.weight_decay, at_least=0, below=1),
            "label_smoothing": _checks.number("label_smoothing", self.label_smoothing, at_least=0, below=1),
            "seed": _checks.positive_int("seed", self.seed, minimum=0, maximum=_LARGEST_SEED),
            "calibrate": _checks.flag("calibrate", self.calibrate),
            "stop_within_noise": _checks.flag("stop_within_noise", self.stop_within_noise),
            "deterministic": _checks.flag("deterministic", self.deterministic),
            "warmup": _checks.number("warmup", self.warmup, at_least=0, below=1),
            "layer_decay": _checks.number("layer_decay", self.layer_decay, above=0, at_most=1),
            "gradient_accumulation": _checks.positive_int(
                "gradient_accumulation", self.gradient_accumulation
            ),
            "average_last": _checks.number("average_last", self.average_last, at_least=0, at_most=1),
        }
        _checks.one_of("schedule", self.schedule, SCHEDULES)
        _checks.one_of("loss", self.loss, LOSSES)
        _checks.one_of("strategy", self.strategy, STRATEGIES)
        _checks.one_of("keep", self.keep, KEPT)
        if self.lora_rank is not None:
            plain["lora_rank"] = _checks.positive_int("lora_rank", self.lora_rank)
        if self.ema is not None:
            plain["ema"] = _checks.number("ema", self.ema, above=0, below=1)
        if self.learning_rate is not None:
            plain["learning_rate"] = _checks.number("learning_rate", self.learning_rate, above=0, at_most=1)
        if self.early_stopping is not None:
            plain["early_stopping"] = _checks.positive_int("early_stopping", self.early_stopping)
        if self.monitor is not None:
            _checks.one_of("monitor", self.monitor, MONITORS)
        if self.class_weight is not None:
            _checks.class_weight(self.class_weight)
        if self.threshold_for is not None:
            _check_goal(self.threshold_for)
        if self.abstain_for is not None:
            parse_error_goal(self.abstain_for, "abstain_for")
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raise where a setting has nothing to work on beside the others: it would be ignored in silence."""
        if self.lora_rank is not None and self.strategy != "lora":
            raise ValueError(
                f"`lora_rank` needs `strategy='lora'`; the strategy is {self.strategy!r}. Leave one out."
            )
        if self.layer_decay != 1 and self.strategy == "head":
            raise ValueError("`layer_decay` needs layers to train; the strategy 'head' trains none of them.")
        if self.strategy == "gradual" and self.epochs < 2:
            raise ValueError(
                "`epochs` must be at least 2 with `strategy='gradual'`: the first epoch trains the head "
                f"alone, the last everything; got {self.epochs}."
            )
        if self.stop_within_noise and self.early_stopping is None:
            raise ValueError(
                "`stop_within_noise` needs `early_stopping`, the number of epochs that bring nothing beyond "
                "noise before training stops."
            )
        if self.keep == "last" and not (self.early_stopping is None and self.monitor is None):
            raise ValueError(
                "`early_stopping` and `monitor` choose the best epoch, and `keep='last'` keeps another; "
                "leave one out."
            )
        if self.ema is not None and self.average_last:
            raise ValueError(
                "`ema` and `average_last` are two ways to average the weights; pass one of them."
            )

    def check_fit(self, classes: int, *, validated: bool, multilabel: bool = False) -> None:
        """Raise where the settings need rows or classes that are not there.

        Args:
            classes: How many the model tells apart.
            validated: Whether there are validation rows.
            multilabel: Whether a row may have several of the classes.
        """
        if not validated and (self.early_stopping is not None or self.monitor is not None):
            raise ValueError("`early_stopping` and `monitor` need `validation_data=(x, y)` to measure on.")
        if not validated and self.chooses:
            raise ValueError(
                "`calibrate`, `threshold_for` and `abstain_for` need `validation_data=(x, y)` to choose on."
            )
        if multilabel and any((self.abstain_for, self.class_weight)):
            raise ValueError(
                "`abstain_for` and `class_weight` need one class a row; the model may give several labels. "
                "Leave them out."
            )
        if multilabel and self.stop_within_noise and self.monitor not in (None, "val_loss", "val_accuracy"):
            raise ValueError(
                f"`stop_within_noise` has no paired interval of {self.monitor!r} where a row may have "
                "several labels; pass `monitor='val_loss'` or `monitor='val_accuracy'`."
            )
        if self.threshold_for is not None and multilabel:
            check_goal(self.threshold_for, "threshold_for")
        elif self.threshold_for is not None and classes != 2:
            raise ValueError(f"`threshold_for` needs two classes; the model has {classes}.")

    @property
    def chooses(self) -> bool:
        """Whether validation rows choose what turns logits into an answer."""
        return self.calibrate or self.threshold_for is not None or self.abstain_for is not None

    def check_rows(self, y: Any, labels: Sequence[str]) -> None:
        """Raise where the validation rows cannot show what they are to choose.

        Args:
            y: (n,) the places of their classes, or (n, K) zeros and ones; at least one row.
            labels: The class names.
        """
        if self.threshold_for is not None and y.ndim == 2:
            if (y == y[0]).all():
                raise ValueError(
                    "`threshold_for` needs a label that some validation rows have and others have not; all "
                    f"{len(y):,} have the same labels."
                )
        elif self.threshold_for is not None and len(set(y.tolist())) < 2:
            raise ValueError(
                f"`threshold_for` needs validation rows of both classes; all {len(y):,} are {labels[y[0]]!r}."
            )
        if self.abstain_for is not None:
            check_rows(self.abstain_for, len(y), "abstain_for")

    @property
    def adapter_rank(self) -> int:
        """The rank of LoRA's adapters."""
        return _LORA_RANK if self.lora_rank is None else self.lora_rank

    @property
    def sets_own_rate(self) -> bool:
        """Whether the rate changes by itself, so that no callback may set it."""
        return self.schedule != "constant" or self.warmup > 0

    def averaged_from(self, steps: int) -> int | None:
        """Return the number of steps after which weights are averaged; None where they never are.

        Args:
            steps: All the steps there will be.
        """
        if self.ema is not None:
            return 0
        return steps - max(1, round(steps * self.average_last)) if self.average_last else None

    @property
    def mode(self) -> str:
        """Whether the smallest or the largest value of the monitor is the best: "min" or "max"."""
        return "min" if (self.monitor or "val_loss").endswith("loss") else "max"

    def record(self) -> dict[str, Any]:
        """Return the settings for the manifest; the precision has a place of its own there."""
        return {name: value for name, value in vars(self).items() if name != "precision"}

    @classmethod
    def of_record(cls, settings: Mapping[str, Any], *, precision: str) -> Recipe:
        """Return the recipe whose `record` is among the settings of a manifest."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names}, precision=precision)


SETTINGS = tuple(field.name for field in fields(Recipe))


# --- recipes by name --------------------------------------------------------------------------------------


# What each sets otherwise than "plain"; docs/recipes.md has the measurements.
NAMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "careful": {"strategy": "head_then_full", "average_last": 0.4, "keep": "last"},
}


class _AsRecipe:
    """The default of each setting of `fine_tune`: None would be a value of some of them."""

    def __repr__(self) -> str:
        return "AS_RECIPE"


AS_RECIPE: Any = _AsRecipe()


def settings_of(recipe: Any) -> dict[str, Any]:
    """Return what a recipe sets otherwise than "plain": one with a name, or all of a `Recipe`.

    Raises:
        ValueError, TypeError: It is neither a `Recipe` nor the name of one.
    """
    if isinstance(recipe, Recipe):
        return {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    if not isinstance(recipe, str):
        raise TypeError(
            f"`recipe` must be {', '.join(map(repr, NAMED))} or a `fe.Recipe`; got {type(recipe).__name__}."
        )
    if recipe == "ensemble":
        raise ValueError(
            "`recipe` 'ensemble' is a model of several trainings: "
            "`fe.cross_evaluate(build, x, y, folds=5, keep_models=True).ensemble()` is that model."
        )
    _checks.one_of("recipe", recipe, tuple(NAMED))
    return dict(NAMED[recipe])


def made(recipe: Any, given: Mapping[str, Any]) -> Recipe:
    """Return a recipe with what is given beside it.

    Args:
        recipe: The name of a recipe, or a `Recipe`.
        given: Settings that win; those that are `AS_RECIPE` are not given.
    """
    settings, given = settings_of(recipe), {n: each for n, each in given.items() if each is not AS_RECIPE}
    with explained(recipe, given):
        return Recipe(**{**settings, **given})


@contextlib.contextmanager
def explained(recipe: Any, given: Mapping[str, Any]) -> Iterator[None]:
    """Say in an error which of the settings that it names nobody passed: those of a recipe with a name."""
    try:
        yield
    except ValueError as error:
        unasked = {} if isinstance(recipe, Recipe) else settings_of(recipe)
        named = [
            f"`{name}={value!r}`"
            for name, value in unasked.items()
            if f"`{name}" in str(error) and given.get(name, AS_RECIPE) is AS_RECIPE
        ]
        if not named:
            raise
        raise ValueError(
            f"{error} {_text.listed(named, quote=False)} {'comes' if len(named) == 1 else 'come'} from "
            f"`recipe={recipe!r}`, and what is passed beside it wins."
        ) from None


def described(settings: Mapping[str, Any]) -> str:
    """Return how models were trained, in a sentence.

    Args:
        settings: All settings but the seed, and as "recipe" the name of the recipe, or None.
    """
    begun = made(settings["recipe"] or "plain", {})
    others = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if name != "recipe" and value != getattr(begun, name)
    ]
    beside = f", with {', '.join(others)}" if others else ""
    return f"The models were trained by the recipe {settings['recipe'] or 'plain'!r}{beside}."


def _check_goal(goal: Any) -> None:
    """Raise where a goal cannot be read, or needs costs, for which `fine_tune` has no argument."""
    if parse_goal(goal, "threshold_for").name == "cost":
        raise ValueError(
            "`threshold_for` cannot be 'cost': what a mistake costs must be said. Train without it, then "
            "`choose_threshold(y, p, goal='cost', false_positive_cost=..., false_negative_cost=...)`."
        )


__all__ = ["Recipe"]
