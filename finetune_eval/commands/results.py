"""evaluate, compare, leaks and report: what is known of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from finetune_eval import _pairs
from finetune_eval.commands import options
from finetune_eval.commands.loading import load_evaluation, load_model
from finetune_eval.reports import console
from finetune_eval.runs import Run

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation


def evaluate(
    path: Annotated[
        Path,
        typer.Argument(help="A run folder, or predictions or answers (.csv, .jsonl, .parquet) of any model."),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Score the run's model on these rows instead.")
    ] = None,
    text: options.Text = None,
    label: options.Label = "label",
    labels: options.Labels = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Predict the second class from this probability on.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Further metrics, such as f2,specificity,npv.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The task: classification or multilabel.")
    ] = None,
    drop_missing: options.DropMissing = False,
    merge_labels: options.MergeLabels = False,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="With --data: compare with the backbone before fine-tuning.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="With --frozen: where the backbone came from. [default: what the run says]"
        ),
    ] = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    lockbox: options.Lockbox = False,
    as_json: options.Json = False,
) -> None:
    """Score saved predictions, or a run's model on new rows.

    Example: finetune-eval evaluate runs/demo
    """
    names = options.names(labels)
    further = None if metrics is None else [name.strip() for name in metrics.split(",")]
    if data is None:
        if frozen or model is not None:
            raise typer.BadParameter(
                "needs --data: saved predictions have no backbone.", param_hint="--frozen"
            )
        if drop_missing:
            raise typer.BadParameter("needs --data: no saved row is missing.", param_hint="--drop-missing")
        if merge_labels:
            raise typer.BadParameter(
                "needs --data: the labels are read already.", param_hint="--merge-labels"
            )
        result = load_evaluation(
            path, labels=names, threshold=threshold, task=task, delimiter=delimiter, encoding=encoding,
            quoted=quoted, lockbox=lockbox or None, metrics=further,
        )  # fmt: skip
    else:
        if names is not None or task is not None:
            raise typer.BadParameter(
                "the model of --data knows its labels and its task; leave it out.",
                param_hint="--task" if names is None else "--labels",
            )
        reading = options.reading(
            data, text=text, label=label, drop_missing=drop_missing, merge_labels=merge_labels,
            delimiter=delimiter, encoding=encoding, quoted=quoted,
        )  # fmt: skip
        if text is None:
            reading.pop("text", None)  # a model of columns knows the name of its text
        result = _of_new_rows(
            path,
            data,
            reading,
            threshold=threshold,
            metrics=further,
            frozen=frozen,
            source=model,
            lockbox=lockbox,
        )
    if as_json:
        console.show_json(result.record())
    else:
        console.show(str(result))


def _of_new_rows(
    path: Path,
    data: str,
    reading: dict[str, Any],
    *,
    threshold: float | None,
    metrics: list[str] | None,
    frozen: bool,
    source: str | None,
    lockbox: bool,
) -> Evaluation:
    """Score the model of a run, or of a file, on a file of rows."""
    from finetune_eval.data.sources import load_dataset
    from finetune_eval.evaluation.evaluate import evaluate as score

    model = load_model(path)
    reading = {**reading, "labels": model.labels}
    if model.columns is not None:
        reading["columns"] = dict(model.columns.kinds)
    rows = load_dataset(data, **reading, train=0, validation=0, test=1.0).test
    more: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
    if metrics is not None:
        more["metrics"] = metrics
    if Run(path).train.is_file():
        more["train"] = path
    if frozen:
        more["features"] = _frozen_features(model, Run(path), source)
    return score(model, *rows, ids=rows.ids, metadata=rows.metadata, lockbox=lockbox, **more)


def evaluate_files(
    files: Annotated[
        list[Path], typer.Argument(help="Files (.parquet, .csv, .tsv), folders of them, or patterns.")
    ],
    labels: options.Labels = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="How many processes count. [default: one a core]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Predict the second class from this probability on.")
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", help="Columns in whose values weak parts are looked for, with commas."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Further metrics, such as f2,specificity,npv.")
    ] = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    resume_dir: Annotated[
        Path | None,
        typer.Option("--resume-dir", help="Keep what each part adds up to here, and go on from there."),
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="On stderr. [default: where it is a terminal]"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Score files of predictions that may be larger than memory.

    Example: finetune-eval evaluate-files predictions/*.parquet
    """
    from finetune_eval.evaluation.files import evaluate_files as score

    result = score(
        files,
        labels=options.names(labels),
        workers=workers,
        threshold=threshold,
        metadata=options.names(metadata) or (),
        metrics=options.names(metrics) or (),
        delimiter=delimiter,
        encoding=encoding,
        resume_dir=resume_dir,
        progress=progress,
    )
    if as_json:
        console.show_json(result.record())
    else:
        console.show(str(result))


def compare(
    paths: Annotated[
        list[Path], typer.Argument(help="Two or more run folders, or predictions of any model.")
    ],
    metric: Annotated[
        str, typer.Option("--metric", help="The metric that decides, chosen before the results are seen.")
    ] = "accuracy",
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    as_json: options.Json = False,
) -> None:
    """Decide which of several models is better on the same rows.

    The verdict says whether the difference is more than chance.

    Example: finetune-eval compare runs/small runs/large --metric f1
    """
    from finetune_eval.evaluation.comparison import compare as decide

    if len(paths) < 2:
        raise typer.BadParameter(
            f"give at least two run folders or files of predictions; got {len(paths)}.", param_hint="PATHS"
        )
    names = [path.stem if path.is_file() else path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise typer.BadParameter("the same run or file is there twice.", param_hint="PATHS")
    reading: dict[str, Any] = {"delimiter": delimiter, "encoding": encoding, "quoted": quoted}
    first = load_evaluation(paths[0], **reading)
    others = [load_evaluation(path, first.labels, **reading) for path in paths[1:]]
    result = decide(first, *others, metric=metric, names=names)
    if as_json:
        import dataclasses

        console.show_json({"verdict": result.verdict, **dataclasses.asdict(result)})
    else:
        console.show(str(result))


def leaks(
    train: Annotated[Path, typer.Argument(help="The training rows: .csv, .jsonl or .parquet.")],
    test: Annotated[Path, typer.Argument(help="The test rows.")],
    text: options.Text = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    as_json: options.Json = False,
) -> None:
    """Find test rows that are, or nearly are, training rows.

    The exit code is 0 whether or not there are any.

    Example: finetune-eval leaks train.csv test.csv --text review
    """
    from finetune_eval.data.leakage import find_leaks

    found = find_leaks(
        *(
            options.column(file, text, delimiter=delimiter, encoding=encoding, quoted=quoted)
            for file in (train, test)
        )
    )
    if as_json:
        rows = zip(found.test_rows, found.train_rows, found.kind, found.similarity, strict=True)
        pairs = [
            {"test": int(a), "train": int(b), "kind": str(k), "similarity": float(s)} for a, b, k, s in rows
        ]
        console.show_json({"n_train": found.n_train, "n_test": found.n_test, "possible_leaks": pairs})
    else:
        console.show(str(found))


def drift(
    old: Annotated[Path, typer.Argument(help="A run folder, or a .csv, .jsonl or .parquet file of texts.")],
    new: Annotated[Path, typer.Argument(help="The new texts: .csv, .jsonl or .parquet.")],
    text: options.Text = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    seed: Annotated[int, typer.Option("--seed", help="Of the permutations, and of rows that are drawn.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Compare new texts with those that were judged.

    No labels are needed. Of a run the accuracy to expect on the new texts is said, too. The exit code is 0
    whether or not they differ.

    Example: finetune-eval drift runs/reviews new.csv --text review
    """
    from finetune_eval.evaluation.drift import check_drift

    reading: dict[str, Any] = {"delimiter": delimiter, "encoding": encoding, "quoted": quoted}
    if old.is_dir():
        before: Any = load_evaluation(old)
        model = load_model(old)
        rows = options.rows_of_model(model, new, text, **reading)
        probabilities, texts = model.predict(rows, verbose=0), _pairs.one_text(np.asarray(rows)).tolist()
    else:
        before, probabilities = options.column(old, text, **reading), None
        texts = options.column(new, text, **reading)
    found = check_drift(before, texts, probabilities=probabilities, seed=seed)
    if as_json:
        from finetune_eval import _files

        said = {"drifted": found.drifted, "verdict": found.verdict, "outlook": found.outlook}
        console.show_json({**said, **_files.to_json(found)})
    else:
        console.show(str(found))


def report(
    path: Annotated[Path, typer.Argument(help="A run folder, or predictions (.csv, .parquet) of any model.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The page. [default: report.html in the run]")
    ] = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
) -> None:
    """Write a page with everything that an evaluation knows.

    The page is one file that needs no other.

    Example: finetune-eval report runs/demo
    """
    from finetune_eval.reports.html import report as write_report

    result = load_evaluation(path, delimiter=delimiter, encoding=encoding, quoted=quoted)
    known = _known_of_run(Run(path))
    if output is None and path.is_dir():
        run = Run(path)
        with run.own():
            page = write_report(result, run.report, **known)
    else:
        page = write_report(result, output or path.with_suffix(".html"), **known)
    console.show(str(page))


def _known_of_run(run: Run) -> dict[str, Any]:
    """Return what a run knows beside its evaluation, for its report."""
    from finetune_eval import _files
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.traces.training import trace_of_run

    manifest = run.read_manifest() if run.manifest.is_file() else {}
    prediction = manifest.pop("prediction", None)
    training = trace_of_run(run.trace, manifest.get("settings", {})) if run.trace.is_file() else None
    if training is not None and len(training.epochs) < manifest.get("epochs", 0):
        raise ValueError(
            f"{str(run.trace)!r} was cut: it has {len(training.epochs)} of the {manifest['epochs']} epochs "
            "of its run. Restore it from a copy, or remove it."
        )
    return {
        "training": training,
        "data": DataTrace.load(run.data) if run.data.is_file() else None,
        "manifest": manifest or None,
        "prediction": None if prediction is None else _files.from_json(PredictionTrace, prediction),
    }


def _frozen_features(model: Any, run: Run, source: str | None) -> Any:
    """Return the function to what the backbone of a run gave before it was fine-tuned."""
    from finetune_eval.models.build import pretrained_features

    if run.manifest.is_file():
        known = run.read_manifest().get("model", {})
        model.source = {name: known.get(name) for name in ("backbone", "weights_sha256")}
    return pretrained_features(model, source=source)
