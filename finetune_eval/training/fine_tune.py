"""fine_tune: check everything that was asked, and train."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_eval import _checks, _text
from finetune_eval.models import precision as precisions
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.mirrored import in_scope
from finetune_eval.runs import Run, claimed
from finetune_eval.training import strategies
from finetune_eval.training.given_callbacks import usable
from finetune_eval.training.optimizers import check_given, has_constant_rate
from finetune_eval.training.processes import check_distribution, is_first, of_first
from finetune_eval.training.recipe import AS_RECIPE, Recipe, explained, made
from finetune_eval.training.result import FineTuneResult, finished
from finetune_eval.training.rows import given_rows, read_rows
from finetune_eval.training.seeding import check_deterministic
from finetune_eval.training.step_checkpoints import parse_every
from finetune_eval.training.training import Training
from finetune_eval.training.watch import together


@in_scope
def fine_tune(
    model: Classifier,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float | None = None,
    recipe: str | Recipe = "plain",
    epochs: int = AS_RECIPE,
    batch_size: int = AS_RECIPE,
    learning_rate: float | None = AS_RECIPE,
    schedule: str = AS_RECIPE,
    warmup: float = AS_RECIPE,
    weight_decay: float = AS_RECIPE,
    layer_decay: float = AS_RECIPE,
    strategy: str = AS_RECIPE,
    lora_rank: int | None = AS_RECIPE,
    gradient_accumulation: int = AS_RECIPE,
    average_last: float = AS_RECIPE,
    ema: float | None = AS_RECIPE,
    class_weight: dict[Any, float] | str | None = AS_RECIPE,
    sample_weight: Any = None,
    label_smoothing: float = AS_RECIPE,
    loss: str = AS_RECIPE,
    early_stopping: int | None = AS_RECIPE,
    stop_within_noise: bool = AS_RECIPE,
    keep: str = AS_RECIPE,
    monitor: str | None = AS_RECIPE,
    calibrate: bool = AS_RECIPE,
    threshold_for: str | None = AS_RECIPE,
    abstain_for: str | None = AS_RECIPE,
    precision: str = AS_RECIPE,
    deterministic: bool = AS_RECIPE,
    distribution: str | None = None,
    seed: int = AS_RECIPE,
    optimizer: Any = None,
    callbacks: Any = None,
    run_dir: str | os.PathLike[str] | Run | None = None,
    checkpoint_every: int | str | None = "30s",
    resume: bool = False,
    verbose: bool = True,
) -> FineTuneResult:
    """Fine-tune a classifier that `build_model` made; its weights change in place.

    Rows are tokenised once, batched by length and shuffled anew in every epoch. With validation data, the
    weights of the best epoch are restored at the end. Frozen layers at the bottom of the model
    (`build_model(freeze=...)`, or the strategy "head") are run without dropout, and once: later epochs cost
    what is above them.

    Args:
        model: From `build_model` or `load_model`.
        x: (n,) strings, or (n, columns) numbers for a backbone that takes numbers; a dictionary, DataFrame or
            list of dictionaries for a model with `columns`, of which the first training learns means, spreads
            and values, which later ones keep (rows of weight 0 do not count); or a `tf.data` or
            `PyDataset` pipeline of batches `(x, y)` or `(x, y, weights)`, which is read once and whole.
        y: (n,) class indices or class names, or (n, K) one-hot rows, or (n, K) probabilities of the classes
            (soft labels: of several people, or of another model); of a multilabel model (n, K) zeros and
            ones. None for a pipeline.
        validation_data: `(x, y)` that chooses the best epoch, or `(x, y, weights)` where its rows count by
            their weights; or a pipeline. Not the test set: what has chosen cannot judge.
        validation_split: Instead of `validation_data` the share of the rows to hold out for it, drawn by
            `seed`: every class has its share, and rows of the same text stay together.
        recipe: Where the settings that are not passed come from: "plain", whose values are given below as
            the defaults; "careful", which did better where rows are few (docs/recipes.md); or a
            `fe.Recipe`. What is passed beside it wins.
        epochs: How often to go through the rows; 3 by default.
        batch_size: Rows a step; 16 by default. Long texts are computed in parts, so that memory grows little
            with it.
        learning_rate: The highest rate; None, the default, for 1e-4 (under 50 M parameters) or 3e-5, and
            1e-2 where the head alone is trained.
        schedule: How the rate goes after the warm-up: it falls to 0, "cosine" (the default) or "linear", or
            is "constant".
        warmup: The share of the steps in which the rate rises from 0; 0.1 by default, 0 for none.
        weight_decay: Decoupled decay, 0.01 by default, of matrices only: not of biases, normalisations and
            embeddings.
        layer_decay: What the rate of a layer is multiplied by for each layer above it, the head included;
            1, the default, for the same rate everywhere. The embeddings are the lowest layer.
        strategy: What is trained, in this call: "full", the default, all that is trainable; "head", the head
            alone; "head_then_full", the same as "full" from a head that a logistic regression on the
            backbone's features begins; "gradual", the head alone in the first epoch, and from the top down
            everything by the last; "lora", adapters of the queries and values, and the head
            (`model.merge_lora`).
        lora_rank: The rank of the adapters of the strategy "lora"; None, the default, for 8, or
            that which the model has.
        gradient_accumulation: Number of batches whose gradients make one step; 1 by default. The step is
            that of one batch of all their rows, in less memory; rates and averages count such steps.
        average_last: The share of the steps, the last ones, whose mean weights are what is validated and
            kept; 0, the default, for the weights of the last step.
        ema: The factor of the exponential mean of the weights to keep instead, such as 0.99; None, the
            default, for none.
        class_weight: Weights by class name or index, or "balanced": n / (K * rows of the class). None, the
            default, for none.
        sample_weight: (n,) weights; multiplied with the class weights where both are given.
        label_smoothing: Share of each label spread over all classes, in [0, 1); 0 by default.
        loss: "cross_entropy", the default, or "focal", in which rows that are well known count less. The
            losses of the trace are of this kind; `evaluate` tells the cross-entropy.
        early_stopping: Stop after so many epochs without a better one; needs validation data. None, the
            default, never stops.
        stop_within_noise: Whether an epoch counts as better for `early_stopping` only where it is so by more
            than noise: the paired 95 % interval of its improvement over the best epoch before it, on the
            same validation rows, is above 0. The best epoch is kept as without it. False by default.
        keep: The epoch whose weights are kept: "best", the default, which the validation rows choose, or
            "last". Without validation rows it is the last.
        monitor: The metric that chooses the best epoch, a validation metric; None, the default, for
            "val_loss".
        calibrate: Fit the temperature on the validation rows at the end, and ship it with the model; False
            by default.
        threshold_for: Choose a threshold on the validation rows at the end for this goal ("f1",
            "recall>=0.9", ...), and ship it with the model; two classes, or several labels a row. None, the
            default, for none.
        abstain_for: Likewise, choose below which confidence answers are withheld ("error<=0.05@95%", ...).
        precision: "float32", "bfloat16" (of the matrix products of a BERT's layers, while they are trained),
            or "auto", the default: bfloat16 where the processor has it. Validation rows are judged in
            float32.
        deterministic: Use operations alone that give the same bits each time, on a GPU too, where they are
            slower; on a CPU the others do so as well. False by default.
        distribution: None for one device; on JAX "data_parallel", with which each device, of this process or
            of several that `initialize_distributed` connected, computes its share of the rows of a batch; or
            "model_parallel", with which the devices of this process share the weights of a KerasHub backbone
            that has a layout. Every process must be given the same model, rows and settings; the first
            writes the run folder and prints, and each has the trained model.
        seed: Of the shuffling and the dropout; 0 by default. The same seed on the same machine gives the same
            trace.
        optimizer: A Keras optimizer, not used before, to train with instead of the AdamW that the settings
            describe. It is used as it is: `learning_rate`, `schedule`, `warmup`, `weight_decay`,
            `layer_decay`, `average_last` and `ema` are refused beside it.
        callbacks: More Keras callbacks, one or a list; they see `val_f1` and the rest in their logs. A
            callback that sets the learning rate needs `schedule="constant", warmup=0`; BackupAndRestore is
            refused.
        run_dir: A new folder to write the run to (`finetune_eval.runs` says what is in it), or a `Run` that
            is owned already; None writes nothing. While training, the weights of the best epoch so far are
            there too, so that a process that is killed loses none of them.
        checkpoint_every: How often a run folder gets a checkpoint from which `resume` goes on: a number of
            steps, or a time such as "30s" or "10min", which is stretched where a checkpoint takes more than
            a fiftieth of it; None for none.
        resume: Go on with the run in `run_dir` where one was killed or interrupted there. Everything else has
            to be as it was then. Where there is no run, one begins.
        verbose: Print the table as the epochs end.

    Returns:
        The model, the trace of its epochs, and the manifest.

    Raises:
        ValueError, TypeError: An argument or a row is wrong; the sentence says which. Nothing was trained.
        FileExistsError: `run_dir` holds a run already; the sentence says what became of it.
        OSError: `run_dir` cannot be written, or its disk has no room. Nothing was trained.
        FloatingPointError: The loss became NaN or infinite, or exploded. The sentence says at which step and
            rate, and on which rows; the weights are those of the best epoch so far, without validation rows
            of the last whole one, and from before this call where no epoch had ended.

    Warns:
        RuntimeWarning: The training is done, and something that belongs to it could not be: a file could not
            be written, or what decides not be chosen. The model is returned all the same.

    Example:
        >>> run = fine_tune(model, texts, labels, epochs=3)  # doctest: +SKIP
        >>> print(run.trace)  # doctest: +SKIP
    """
    if not isinstance(model, Classifier):
        raise TypeError(
            f"`model` must come from `build_model`; got {type(model).__name__}. "
            "Wrap any keras.Model that gives features: `build_model(model, labels=[…])`."
        )
    given = dict(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule,
        warmup=warmup, weight_decay=weight_decay, layer_decay=layer_decay, strategy=strategy,
        lora_rank=lora_rank, gradient_accumulation=gradient_accumulation, average_last=average_last, ema=ema,
        class_weight=class_weight, label_smoothing=label_smoothing, loss=loss,
        early_stopping=early_stopping, stop_within_noise=stop_within_noise,
        keep=keep, monitor=monitor, calibrate=calibrate, threshold_for=threshold_for,
        abstain_for=abstain_for, precision=precision,
        deterministic=deterministic, seed=seed,
    )  # fmt: skip
    validated = validation_data is not None or validation_split is not None
    settings, more = _checked(model, recipe, given, callbacks, optimizer, validated=validated)
    used_precision = precisions.resolve(settings.precision, model.backbone)
    parse_every(checkpoint_every)
    if _checks.flag("resume", resume) and run_dir is None:
        raise ValueError("`resume` needs `run_dir`, the folder of the run that goes on.")
    check_distribution(model, distribution)
    if distribution is not None and settings.stop_within_noise:
        raise ValueError("`stop_within_noise` cannot be used with `distribution`; leave one out.")
    show = _text.show if verbose and is_first() else None
    with together(), _forgetting(model), of_first(claimed(run_dir, again=resume)) as run:
        rows = given_rows(model, x, y, sample_weight, validation_data, validation_split, settings.seed)
        data = read_rows(model, *rows, settings)
        if validation_split is not None and data.val_x is not None and show is not None:
            held_out, n = len(data.val_x), len(data.x) + len(data.val_x)
            show(f"{held_out:,} of {n:,} rows are held out, by class: they choose the best epoch")
        training = Training(
            model, settings, used_precision, data, run, show, more, checkpoint_every,
            calls_apart=bool(more), distribution=distribution, optimizer=optimizer,
            named=recipe if isinstance(recipe, str) else None,
        )  # fmt: skip
        manifest = run.read_manifest() if resume and run is not None and run.manifest.is_file() else {}
        if (
            run is not None
            and manifest.get("status") == "running"
            and not ("resume" in manifest or run.weights)
        ):
            run.abandon()  # it was killed before it had begun
            manifest = {}
        if run is not None and manifest:
            training.check(manifest)
            if manifest["status"] == "complete":
                return finished(run, manifest, model, training.show)
            training.go_on(manifest)
        else:
            training.begin()
        training.go()
        return training.result()


@contextlib.contextmanager
def _forgetting(model: Classifier) -> Iterator[None]:
    """Where an error leaves a model that was not trained, have it forget what it learnt of its columns."""
    before = model.columns
    try:
        yield
    except BaseException:
        if strategies.columns_are_new(model):
            model.columns = before
        raise


def _checked(
    model: Classifier,
    recipe: Any,
    given: Mapping[str, Any],
    callbacks: Any,
    optimizer: Any,
    *,
    validated: bool,
) -> tuple[Recipe, list[Any]]:
    """Return the settings, the highest rate among them, and the callbacks; raise where they cannot be.

    An optimizer of the caller's has its own rate: then there is none among the settings.
    """
    settings = made(recipe, given)
    with explained(recipe, given):
        settings.check_fit(len(model.labels), validated=validated, multilabel=model.multilabel)
        if settings.deterministic:
            check_deterministic()
        strategies.check(model, settings)
        if optimizer is not None:
            check_given(optimizer, settings, given)
    free = not settings.sets_own_rate if optimizer is None else has_constant_rate(optimizer)
    more = usable(callbacks, may_set_rate=free)
    if settings.learning_rate is None and optimizer is None:
        settings = dataclasses.replace(settings, learning_rate=strategies.default_rate(model, settings))
    return settings, more


__all__ = ["FineTuneResult", "fine_tune"]
