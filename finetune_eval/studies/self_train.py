"""self_train: a model labels rows that have no label, and a fresh one learns from all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_eval import _checks, _labels, _rows, _text
from finetune_eval.data.assignment import checked_rows
from finetune_eval.studies.learners import classifiers_of, read_labels

if TYPE_CHECKING:
    from finetune_eval.training.result import FineTuneResult


def self_train(
    learner: Any,
    x: Any,
    y: Any,
    *,
    unlabelled: Any,
    validation_data: Any = None,
    labels: Sequence[str] | None = None,
    recipe: Any = "careful",
    run_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> FineTuneResult:
    """Fine-tune twice: a teacher on the labelled rows, then a student on these and what the teacher labels.

    The student begins with the pre-trained weights, as the teacher did. For the labelled rows it learns their
    labels; for the others the probabilities that the teacher gives. docs/recipes.md says what that brought,
    and on how many rows.

    Args:
        learner: The name or folder of a backbone; or a function of one argument, the seed, that returns a
            fresh model as `build_model` makes it.
        x: (n,) texts, or (n, d) numbers.
        y: (n,) class names; or class indices where `labels` gives the names.
        unlabelled: (m,) texts, or (m, d) numbers, of the kind that the model is for. All of them train, so
            that the time grows with them. Leave out the rows that are to judge the model.
        validation_data: `(x, y)`, as for `fine_tune`, of both trainings.
        labels: The class names in index order, the positive class second; None takes them from `y`, sorted.
        recipe: As for `cross_evaluate`; of both trainings.
        run_dir: A folder for the two runs, "teacher" and "student". The same call with the same folder goes
            on where it was cut short. None writes nothing.
        seed: Of both models and trainings.
        verbose: Print the tables as the epochs end.

    Returns:
        What `fine_tune` gives for the student.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which.
        FileExistsError: `run_dir` holds other runs.

    Reference:
        Lee 2013, "Pseudo-Label"; Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", for the
        probabilities instead of the answers.

    Example:
        >>> run = self_train("all_minilm_l6_v2", texts, names, unlabelled=more)  # doctest: +SKIP
    """
    from finetune_eval.training.fine_tune import fine_tune

    rows, more = checked_rows(x), checked_rows(unlabelled, name="unlabelled")
    _checks.same_length("x", rows, "y", _rows.column("y", y))
    unlike = (rows.dtype == object) != (more.dtype == object) or rows.dtype.names != more.dtype.names
    if rows.shape[1:] != more.shape[1:] or unlike:
        raise ValueError(
            f"`unlabelled` must hold rows like those of `x`; got shape {more.shape} and dtype {more.dtype} "
            f"beside {rows.shape} and {rows.dtype}."
        )
    places, names = read_labels(y, labels, "Self-training is of rows with one class each.")
    seed = _checks.positive_int("seed", seed, minimum=0)
    fresh, settings = classifiers_of(learner, recipe, rows, places, names)
    folder = None if run_dir is None else Path(_checks.path("run_dir", run_dir))

    def trained(part: str, x: Any, y: Any) -> FineTuneResult:
        return fine_tune(
            fresh(seed), x, y, validation_data=validation_data, seed=seed, verbose=verbose,
            run_dir=None if folder is None else folder / part, resume=folder is not None, **settings,
        )  # fmt: skip

    if verbose:
        _text.show(f"The teacher learns from {_text.counted(len(rows), 'labelled row')}.")
    teacher = trained("teacher", rows, _labels.ClassIndices(places, names)).model
    given = teacher.predict(more, verbose=0)
    if verbose:
        _text.show(f"The student learns from these and {_text.counted(len(more), 'row')} that it labelled.")
    return trained(
        "student", np.concatenate([rows, more]), np.concatenate([np.eye(len(names))[places], given])
    )


__all__ = ["self_train"]
