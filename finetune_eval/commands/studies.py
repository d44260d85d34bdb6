"""cross-evaluate and learning-curve: how good is the recipe, and what would more labels give?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune_eval.commands import options, settings
from finetune_eval.commands.loading import quiet_tensorflow
from finetune_eval.reports import console
from finetune_eval.studies.learners import kind_of_rows

if TYPE_CHECKING:
    from finetune_eval.data.splits import Rows

RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", help="A folder that keeps each training's result, for a later call to go on from."
    ),
]
Freeze = Annotated[bool, typer.Option("--freeze", help="Train the head alone: much faster.")]


def cross_evaluate(
    context: typer.Context,
    data: options.Data,
    text: options.Text = None,
    number: options.Number = None,
    category: options.Category = None,
    label: options.Label = "label",
    labels: options.Labels = None,
    model: options.Model = "all_minilm_l6_v2",
    folds: Annotated[
        int, typer.Option("--folds", help="How many parts; each is judged by a model trained on the others.")
    ] = 5,
    repeats: Annotated[int, typer.Option("--repeats", help="How often to repeat this with other parts.")] = 1,
    recipe: settings.Recipe = None,
    epochs: settings.Epochs = None,
    batch_size: settings.BatchSize = None,
    learning_rate: settings.LearningRate = None,
    schedule: settings.Schedule = None,
    warmup: settings.Warmup = None,
    strategy: settings.Strategy = None,
    layer_decay: settings.LayerDecay = None,
    average_last: settings.AverageLast = None,
    class_weight: settings.ClassWeight = None,
    freeze: Freeze = False,
    group: options.Group = None,
    drop_missing: options.DropMissing = False,
    merge_labels: options.MergeLabels = False,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    seed: options.Seed = 0,
    run_dir: RunDir = None,
    as_json: options.Json = False,
) -> None:
    """Judge each row by a model that never saw it.

    The scores of all rows say how good a model trained in this way is.

    Example: finetune-eval cross-evaluate reviews.csv --text review --label sentiment --run-dir runs/cross
    """
    reading = options.reading(
        data, text=text, label=label, labels=labels, drop_missing=drop_missing, merge_labels=merge_labels,
        delimiter=delimiter, encoding=encoding, quoted=quoted, columns=options.columns(number, category),
    )  # fmt: skip
    rows = _rows(data, group=group, seed=seed, **reading)
    with quiet_tensorflow():
        from finetune_eval.models import build
    from finetune_eval.studies.cross_evaluate import cross_evaluate as run

    with contextlib.redirect_stdout(sys.stderr):
        result = run(
            _learner(build, model, rows, freeze), *rows, labels=rows.labels, folds=folds, repeats=repeats,
            groups=_groups(rows, group), recipe=_recipe(context), ids=rows.ids, run_dir=run_dir, seed=seed,
        )  # fmt: skip
    if as_json:
        from finetune_eval import _files

        scores = [dataclasses.asdict(fold) for fold in result.folds]
        found = {"estimates": result.estimates, "folds": scores, "settings": result.settings}
        console.show_json(_files.to_json(found))
    else:
        console.show(str(result))


def learning_curve(
    context: typer.Context,
    data: options.Data,
    text: options.Text = None,
    number: options.Number = None,
    category: options.Category = None,
    label: options.Label = "label",
    labels: options.Labels = None,
    model: options.Model = "all_minilm_l6_v2",
    repeats: Annotated[int, typer.Option("--repeats", help="How often to train each size.")] = 5,
    goal: Annotated[
        float | None,
        typer.Option("--goal", help="An accuracy to reach. [default: the next multiple of 0.05]"),
    ] = None,
    recipe: settings.Recipe = None,
    epochs: settings.Epochs = None,
    batch_size: settings.BatchSize = None,
    learning_rate: settings.LearningRate = None,
    schedule: settings.Schedule = None,
    warmup: settings.Warmup = None,
    strategy: settings.Strategy = None,
    layer_decay: settings.LayerDecay = None,
    average_last: settings.AverageLast = None,
    class_weight: settings.ClassWeight = None,
    freeze: Freeze = False,
    group: options.Group = None,
    drop_missing: options.DropMissing = False,
    merge_labels: options.MergeLabels = False,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    seed: options.Seed = 0,
    run_dir: RunDir = None,
    as_json: options.Json = False,
) -> None:
    """Estimate what more labels would give.

    Models are trained on an eighth, a quarter, half and all of the rows.

    Example: finetune-eval learning-curve reviews.csv --text review --label sentiment --freeze
    """
    reading = options.reading(
        data, text=text, label=label, labels=labels, drop_missing=drop_missing, merge_labels=merge_labels,
        delimiter=delimiter, encoding=encoding, quoted=quoted, columns=options.columns(number, category),
    )  # fmt: skip
    rows = _rows(data, group=group, seed=seed, **reading)
    with quiet_tensorflow():
        from finetune_eval.models import build
    from finetune_eval.studies.learning_curve import learning_curve as run

    with contextlib.redirect_stdout(sys.stderr):
        curve = run(
            _learner(build, model, rows, freeze), *rows, labels=rows.labels, repeats=repeats, goal=goal,
            groups=_groups(rows, group), recipe=_recipe(context), run_dir=run_dir, seed=seed,
        )  # fmt: skip
    if as_json:
        needed = None if goal is None else [None if math.isinf(n) else n for n in curve.rows_for(goal)]
        console.show_json(
            {
                "sentence": curve.sentence,
                "points": [dataclasses.asdict(point) for point in curve.points],
                "twice": dataclasses.asdict(curve.more(2 * curve.n)),
                "rows_for_goal": needed,
                "settings": curve.settings,
            }
        )
    else:
        console.show(str(curve))


def _recipe(context: typer.Context) -> dict[str, Any]:
    """Return the settings of the trainings; each of these has its own seed."""
    return {name: value for name, value in settings.given(context.params).items() if name != "seed"}


def _rows(data: str, **reading: Any) -> Rows:
    """Return all rows of a source."""
    from finetune_eval.data.sources import load_dataset

    dataset = load_dataset(data, **reading, validation=0, test=0)
    for sentence in dataset.warnings:
        warnings.warn(sentence, stacklevel=1)  # `main` names its options in it
    return dataset.train


def _learner(build: Any, model: str, rows: Rows, freeze: bool) -> Any:
    """Return the backbone's name, or a function that builds a classifier whose head alone is trained."""
    if not freeze:
        return model
    labels, kind = rows.labels, kind_of_rows(rows.x)

    def frozen(seed: int) -> Any:
        return build.build_model(model, labels, freeze=True, **kind, seed=seed)

    return frozen


def _groups(rows: Rows, group: str | None) -> Any:
    return None if group is None else rows.metadata[group].to_numpy()
