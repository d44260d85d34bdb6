"""How a classifier decides: temperature, threshold and abstention, which are saved with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from finetune_eval import _checks, _files, _rows
from finetune_eval.evaluation.abstention import Abstention
from finetune_eval.evaluation.label_thresholds import LabelThresholds, read_thresholds
from finetune_eval.evaluation.thresholds import Threshold

# A list, tuple or array of numbers has one for each label.
AnyThreshold = Threshold | LabelThresholds | Sequence[float] | float | None
_CHOSEN = (Threshold, LabelThresholds, Abstention)


class Decisions:
    """The part of `Network` that turns logits into probabilities and answers."""

    labels: tuple[str, ...]
    multilabel: Any
    get_layer: Any

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 until calibrated."""
        return float(ops.convert_to_numpy(self.get_layer("probabilities").temperature))

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.get_layer("probabilities").temperature.assign(_checks.number("temperature", value, above=0))

    @property
    def threshold(self) -> AnyThreshold:
        """The probability of the second of two classes, or of any label, from which it is given.

        Of several labels a row each may have its own: a sequence of numbers. Another threshold forgets the
        abstention, which was chosen for other answers.
        """
        chosen: AnyThreshold = self._threshold
        return chosen

    @threshold.setter
    def threshold(self, value: Any) -> None:
        if isinstance(value, LabelThresholds) or (_rows.dimensions(value) > 0 and not isinstance(value, str)):
            if not self.multilabel:
                raise ValueError("`threshold` must be one number: the model gives one class a row.")
            of_each = value.values if isinstance(value, LabelThresholds) else value
            of_each = read_thresholds("threshold", of_each, len(self.labels))
            if not isinstance(value, LabelThresholds):
                value = of_each
        elif value is not None:
            if len(self.labels) != 2 and not self.multilabel:
                raise ValueError(f"`threshold` needs two classes; the model has {len(self.labels)}.")
            number = value if isinstance(value, (bool, str)) else float(value)
            _checks.number("threshold", number, above=0, below=1)
        self._threshold = value
        self._abstention: Abstention | float | None = None

    @property
    def cuts(self) -> float | tuple[float, ...] | None:
        """The threshold as a plain number, or one for each label."""
        if isinstance(self.threshold, LabelThresholds):
            return self.threshold.values
        own: Any = self.threshold
        return own if own is None or isinstance(own, tuple) else float(own)

    @property
    def abstention(self) -> Abstention | float | None:
        """From which confidence on an answer is given: the probability of its class; None where all are."""
        return self._abstention

    @abstention.setter
    def abstention(self, value: Abstention | float | None) -> None:
        if value is not None:
            if self.multilabel:
                raise ValueError("`abstention` is of one class a row; this model may give several labels.")
            number = value if isinstance(value, (bool, str)) else float(value)
            _checks.number("abstention", number, at_least=0, below=1)
        if isinstance(value, Abstention) and value.threshold != self.cuts:
            raise ValueError(
                f"`abstention` was chosen for answers with the threshold {value.threshold}; the model has "
                f"{self.cuts}. Choose it again: `model.choose_abstention(x, y)`."
            )
        self._abstention = value


def as_data(chosen: Any) -> Any:
    """Return a threshold or an abstention as plain data, for the config."""
    return dataclasses.asdict(chosen) if isinstance(chosen, _CHOSEN) else chosen


def threshold_of(data: dict[str, Any]) -> Threshold | LabelThresholds:
    """Return the threshold that `as_data` made data of."""
    made: Threshold | LabelThresholds = _files.from_json(
        LabelThresholds if "values" in data else Threshold, data
    )
    return made
