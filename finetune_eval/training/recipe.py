"""Recipe: every setting of a fine-tuning, checked before anything slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from finetune_eval import _checks
from finetune_eval.evaluation.abstention import check_rows
from finetune_eval.evaluation.goals import parse_error_goal, parse_goal
from finetune_eval.evaluation.label_thresholds import check_goal

MONITORS = ("val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1")
SCHEDULES = ("cosine", "linear", "constant")
LOSSES = ("cross_entropy", "focal")
STRATEGIES = ("full", "head", "head_then_full", "gradual", "lora")
_LORA_RANK = 8  # Hu et al. 2021: ranks from 4 to 8 do as well as larger ones on queries and values
_LARGEST_SEED = 2**32 - 1  # the states of Keras' dropout are two numbers of 32 bits


@dataclass(frozen=True)
class Recipe:
    """The settings of `fine_tune`, under its names; what no recipe may hold is refused when one is made.

    Raises:
        ValueError, TypeError: A setting breaks its rule; the sentence names it.
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


def _check_goal(goal: Any) -> None:
    """Raise where a goal cannot be read, or needs costs, for which `fine_tune` has no argument."""
    if parse_goal(goal, "threshold_for").name == "cost":
        raise ValueError(
            "`threshold_for` cannot be 'cost': what a mistake costs must be said. Train without it, then "
            "`choose_threshold(y, p, goal='cost', false_positive_cost=..., false_negative_cost=...)`."
        )


__all__ = ["Recipe"]
