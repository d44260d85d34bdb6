"""Sets of classes that hold the true one with a stated probability (split conformal prediction)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _labels, _rows
from finetune_eval._text import Shown, counted, fill, listed, quoted, share
from finetune_eval.evaluation._inputs import read_probabilities
from finetune_eval.evaluation.proportions import wilson
from finetune_eval.evaluation.records import Estimate, Interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_BETA = "beta distribution of the coverage, given so many calibration rows"


@dataclass(frozen=True)
class Calibrated:
    """From which probability on a class is in the set, and the coverage that this gives.

    Attributes:
        label: The class; None where it is that of all classes.
        n: Calibration rows.
        probability: From which probability on a class is in the set; 0 where it always is.
        coverage: The mean coverage of sets calibrated on so many rows, and the limits between which the
            coverage of 95 % of them lies: those of these sets are one draw from it. It is exact where no two
            probabilities are equal, and at least that elsewhere.
    """

    label: str | None
    n: int
    probability: float
    coverage: Estimate

    @property
    def always(self) -> bool:
        """Whether there were too few rows, so that the class is in every set."""
        return self.probability == 0


@dataclass(frozen=True, repr=False)
class PredictionSets(Shown):
    """Sets of classes for new rows: each holds the true class with a probability of about 1 - alpha.

    Attributes:
        labels: The K class names.
        alpha: The share of new rows whose set may lack the true class.
        by_class: Whether that holds for the rows of each class, and not only for all rows together.
        parts: One record for all classes, or one for each class where `by_class`.
        sizes: (K + 1) shares of the calibration rows whose set has 0, 1, ..., K classes.
    """

    labels: tuple[str, ...]
    alpha: float
    by_class: bool
    parts: tuple[Calibrated, ...]
    sizes: tuple[float, ...]

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set, on the calibration rows."""
        return float(np.arange(len(self.sizes)) @ np.array(self.sizes))

    def apply(self, probabilities: Any) -> NDArray[np.bool_]:
        """Return which classes are in the set of each row.

        Args:
            probabilities: (n, K), or (n,) or (n, 1) probabilities of the second of two classes, of the model
                whose probabilities calibrated the sets.

        Returns:
            (n, K) booleans. A row may have no class: none is probable enough.

        Raises:
            ValueError: They are no probabilities of these classes.
        """
        p, named, _ = read_probabilities(probabilities, "classification", self.labels)
        if p.shape[1] != len(self.labels) or not {named or self.labels} <= {
            self.labels,
            _labels.default_names(len(self.labels)),
        }:
            raise ValueError(
                f"`probabilities` must have a column for each of the classes {listed(self.labels)}; "
                f"got shape {np.shape(probabilities)}."
            )
        return _members(p, self.parts)

    def coverage_on(self, y_true: Any, probabilities: Any) -> Estimate:
        """Estimate the share of rows whose set holds the true class, on rows that did not calibrate the sets.

        Args:
            y_true: (n,) class indices, or class names.
            probabilities: As for `apply`.
        """
        _rows.same_order(y_true=y_true, probabilities=probabilities)
        inside = self.apply(probabilities)
        y = _labels.read("y_true", y_true, self.labels)
        _checks.same_length("y_true", y, "probabilities", inside)
        return wilson(int(inside[np.arange(len(y)), y].sum()), len(y))

    def __repr__(self) -> str:
        each = ", by class" if self.by_class else ""
        return f"<PredictionSets of {len(self.labels):,} classes, alpha {self.alpha:g}{each}>"

    def __str__(self) -> str:
        level = f"{100 * (1 - self.alpha):g} %"
        of_whom = "of the rows of each class" if self.by_class else "of new rows"
        lines = [fill(f"Sets of classes that are to hold the true class in {level} {of_whom}.")]
        for part in self.parts:
            whose = "" if part.label is None else f"{quoted(part.label)}: "
            if part.always:
                fewest = math.ceil(1 / self.alpha - 1 - 1e-9)
                lines.append(
                    fill(
                        f"{whose}{counted(part.n, 'calibration row')}; at least {fewest:,} are needed, so "
                        f"that {'it' if self.by_class else 'every class'} is in every set."
                    )
                )
                continue
            lines.append(
                fill(
                    f"{whose}{'it' if self.by_class else 'A class'} is in the set from a probability of "
                    f"{part.probability:.4g} on. With "
                    f"{counted(part.n, 'calibration row')} expect a coverage of {part.coverage.value:.3f}; "
                    f"that of 95 % of such calibrations lies in {_limits(part.coverage)}."
                )
            )
        sizes = [f"{share(value)} have {size}" for size, value in enumerate(self.sizes) if value > 0]
        mean = f"{self.mean_size:.2f} on average"
        lines.append(fill(f"Of the calibration rows {listed(sizes, quote=False)} classes; {mean}."))
        return "\n".join(lines)


def _limits(interval: Estimate | Interval) -> str:
    return f"[{share(interval.low)}, {share(interval.high)}]"


def fit_sets(
    y: Integers, p: NDArray[Any], labels: tuple[str, ...], *, alpha: float, by_class: bool
) -> PredictionSets:
    """Calibrate prediction sets: a class is in a set where it is as probable as most true classes are.

    Of n calibration rows the k-th largest probability of the true class is taken, k = ceil((n + 1)(1 -
    alpha)). The coverage of the sets, over new rows and given these n, then has a Beta(k, n + 1 - k)
    distribution.

    Args:
        y: (n,) class indices.
        p: (n, K) probabilities of a model that was trained on other rows.
        labels: The K class names.
        alpha: The share of new rows whose set may lack the true class, in (0, 1).
        by_class: Calibrate each class on its own rows.

    Reference:
        Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World; Sadinle, Lei and Wasserman
        2019, JASA 114:223-234 (sets of least size, by class too); Vovk 2012, arXiv:1209.2673 (the beta
        distribution).
    """
    true = p[np.arange(len(y)), y]
    parts: tuple[Calibrated, ...]
    if by_class:
        parts = tuple(_calibrated(true[y == k], alpha, label) for k, label in enumerate(labels))
    else:
        parts = (_calibrated(true, alpha, None),)
    sizes = np.bincount(_members(p, parts).sum(axis=1), minlength=len(labels) + 1) / len(y)
    return PredictionSets(labels, alpha, by_class, parts, tuple(sizes.tolist()))


def _calibrated(true: NDArray[Any], alpha: float, label: str | None) -> Calibrated:
    """Return the smallest probability of a member, from the probabilities of the true classes."""
    from scipy.special import betaincinv

    n = len(true)
    k = max(1, math.ceil((n + 1) * (1 - alpha) - 1e-9))
    if k > n:
        return Calibrated(label, n, 0.0, Estimate(1.0, 1.0, 1.0, "every set has it"))
    low, high = (float(betaincinv(k, n + 1 - k, tail)) for tail in (0.025, 0.975))
    at = float(np.sort(true)[n - k])
    return Calibrated(label, n, at, Estimate(k / (n + 1), low, high, _BETA))


def _members(p: NDArray[Any], parts: tuple[Calibrated, ...]) -> NDArray[np.bool_]:
    return np.asarray(p >= np.array([part.probability for part in parts]).astype(p.dtype))
