"""build_model: a pre-trained backbone becomes a classifier. load_model: a saved one comes back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _checks, _labels, _text
from finetune_eval._columns import Columns
from finetune_eval._text import listed
from finetune_eval.evaluation._options import TASKS
from finetune_eval.models import adamw as _adamw  # noqa: F401  # saved models may hold its class
from finetune_eval.models import frozen, lora, pretrained
from finetune_eval.models.archives import check_seal, not_finite, read_archive, read_weights
from finetune_eval.models.batching import by_row, forward
from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.classifier import Classifier
from finetune_eval.models.layers import POOLINGS
from finetune_eval.models.mirrored import check_strategy
from finetune_eval.models.tokenizers import TextPreprocessor
from finetune_eval.runs import Run

# What is read of a text that is too long, and what is then dropped.
_LONG_TEXTS = {"cut": "right", "head_tail": "middle", "windows": "windows"}


def build_model(
    backbone: Any = pretrained.EMBEDDED,
    labels: Sequence[str] | int = ("negative", "positive"),
    *,
    task: str = "classification",
    pooling: str = "auto",
    sequence_length: int | None = None,
    long_text: str | None = None,
    pairs: bool = False,
    columns: Mapping[str, str] | None = None,
    dropout: float | None = None,
    freeze: bool | int = False,
    lora_rank: int | None = None,
    preprocessor: Any = None,
    seed: int = 0,
) -> Classifier:
    """Put a classification head on a pre-trained backbone.

    Args:
        backbone: The embedded default "all_minilm_l6_v2"; a local folder (Hugging Face or KerasHub format, or
            one that a fine-tuned model's `save_to_preset` wrote); a KerasHub preset name; `hf://owner/name`;
            `kaggle://…`; a `keras_hub` backbone, of texts or of images; or any `keras.Model` that maps one
            input to (rows, width) features, or to (rows, height, width, channels) maps, which are averaged;
            channels come first where its layers say so.
        labels: The class names in order (a list, or a dictionary such as `id2label`), or how many classes
            there are. With two, the second is the positive one.
        task: "classification": a row has one of the classes. "multilabel": it may have any number of them;
            its labels are then K zeros and ones, and each class has a probability of its own.
        pooling: How tokens become one vector: "mean", "cls", "max", "last", or "auto" for what the checkpoint
            declares, else mean.
        sequence_length: Longest text in tokens, the rest is cut; None for what the checkpoint declares, at
            most 512.
        long_text: What is read of a longer text: "cut", its first tokens; "head_tail", its first quarter and
            last three; "windows", all of it, as windows that overlap by half (at most 16), whose features
            are averaged; None for what the checkpoint declares, else "cut".
        pairs: Whether a row is a pair of texts, such as a question and an answer: `x` is then a list of
            pairs, an array of shape (rows, 2), or a DataFrame of two columns, read by place. The model reads
            both texts at once, put together as its checkpoint declares; of a pair that is too long the longer
            text is cut first. A backbone that was saved from a model of pairs reads pairs anyway.
        columns: What else a row has beside its text, by the name of the column: {"price": "number",
            "country": "category"}. `x` is then a dictionary of columns, a DataFrame, or a list of
            dictionaries (one a row); the text is its column "text", or another that `columns` names:
            {"review": "text", "price": "number"}. Columns are told by their names; a missing or a further
            one is refused. The first `fine_tune` learns from its training rows the mean and spread of each
            number, to which it is brought to mean 0 and spread 1 (a missing one counts as the mean, and has
            an input that says so), and the 32 most frequent values of each category (the others are one
            value, "other"; missing is one more). They are saved with the model, and a later `fine_tune`
            keeps them. The head is linear in the columns, and begins as a logistic regression on the text's
            features and them.
        dropout: Dropout rate in [0, 1), in the backbone and before the head; None for what the checkpoint
            declares, 0.1 before the head.
        freeze: True trains the head only; a number freezes the embeddings and that many of the bottom layers.
        lora_rank: Give the queries and values of the attention adapters of this rank; of the model they and
            the head alone are trained, by `fit` and by `fine_tune`. A saved model has them merged.
        preprocessor: With a backbone instance that takes tokens: the KerasHub preprocessor that makes them.
        seed: Of the head's initial weights.

    Returns:
        A compiled Keras model on raw rows; `predict` gives (rows, classes) probabilities.

    Raises:
        ValueError, TypeError: An argument is wrong; the sentence says which, and what to pass.
        ConnectionError: The weights must be downloaded and there is no network.

    Example:
        >>> model = build_model("all_minilm_l6_v2", ["negative", "positive"])  # doctest: +SKIP
        >>> model.predict(["A warm, funny, honest film."])  # doctest: +SKIP
    """
    check_strategy()
    if isinstance(labels, (int, np.integer)) and not isinstance(labels, bool):
        count = _checks.positive_int("labels", labels, minimum=2, maximum=1_000_000)
        labels = _labels.default_names(count)
    names = _labels.class_names(labels)
    _checks.one_of("task", task, TASKS)
    _checks.one_of("pooling", pooling, ("auto", *POOLINGS))
    if dropout is not None:
        _checks.number("dropout", dropout, at_least=0, below=1)
    if lora_rank is not None:
        _checks.positive_int("lora_rank", lora_rank)
        if freeze is not False:
            raise ValueError("`lora_rank` freezes the backbone but for its adapters; leave `freeze` out.")
    source = _source(
        backbone, preprocessor, sequence_length=sequence_length, dropout=dropout, pooling=pooling
    )
    chosen = _pooling(pooling, source)
    _set_lengths(source, chosen, long_text, sequence_length)
    _set_pairs(source, pairs, long_text)
    read = None if columns is None else _columns_of(source, columns)
    model = Classifier(
        source.backbone,
        source.preprocessor,
        labels=names,
        task=task,
        pooling=chosen,
        dropout=0.1 if dropout is None else dropout,
        seed=_checks.positive_int("seed", seed, minimum=0, maximum=2**32 - 1),
        columns=read,
    )
    model.source = {
        "backbone": source.source,
        "weights_sha256": source.sha256,
        "build": {
            "task": task, "pooling": pooling, "sequence_length": sequence_length, "long_text": long_text,
            "pairs": pairs, "columns": None if columns is None else dict(columns), "dropout": dropout,
            "freeze": freeze, "lora_rank": lora_rank, "seed": seed,
        },
    }  # fmt: skip
    if lora_rank is not None:
        lora.build(model, lora_rank, seed)
    elif freeze is not False:
        freeze_layers(model, freeze)
    if lora_rank is not None or freeze is not False:
        model.compile()
    return model


def _source(
    backbone: Any, preprocessor: Any, *, sequence_length: int | None, dropout: float | None, pooling: str
) -> Any:
    """Return the backbone with its preprocessor, its pooling and where they came from."""
    if isinstance(backbone, (str, Path)):
        _checks.path("backbone", backbone)
        return _own_preset(backbone, dropout) or pretrained.load_pretrained(
            backbone, sequence_length=sequence_length, dropout=dropout, pooling=pooling
        )
    if not isinstance(backbone, keras.Model):
        raise TypeError(
            "`backbone` must be a preset name, a folder, a keras_hub backbone or a keras.Model; got "
            f"{type(backbone).__name__}."
        )
    if preprocessor is not None and not isinstance(preprocessor, keras.layers.Layer):
        raise TypeError(f"`preprocessor` must be a KerasHub preprocessor; got {type(preprocessor).__name__}.")
    backbone = _one_vector(_functional(backbone))
    _check_ending(backbone)
    return pretrained.Pretrained(backbone, preprocessor, None, type(backbone).__name__)


def _set_lengths(
    source: Any, pooling: str | None, long_text: str | None, sequence_length: int | None
) -> None:
    """Set how many tokens are read of a text, and which ones of a longer text."""
    if long_text is not None:
        _checks.one_of("long_text", long_text, tuple(_LONG_TEXTS))
        if not isinstance(source.preprocessor, TextPreprocessor):
            raise ValueError(
                "`long_text` needs a checkpoint whose tokens this library counts: the embedded model, or one "
                "in Hugging Face's format. Leave it out."
            )
        source.preprocessor.truncation_side = _LONG_TEXTS[long_text]
    if sequence_length is not None:
        if pooling is None:
            raise ValueError(
                f"`sequence_length` needs a backbone that takes tokens; {type(source.backbone).__name__} "
                f"takes {source.backbone.input.shape[1:]} numbers a row."
            )
        source.preprocessor.sequence_length = pretrained.usable_length(sequence_length, source.backbone, None)


def _set_pairs(source: Any, pairs: bool, long_text: str | None) -> None:
    """Have the preprocessor read pairs of texts where that was asked for, or raise where it cannot."""
    reader = source.preprocessor
    if _checks.flag("pairs", pairs):
        if not isinstance(reader, TextPreprocessor):
            raise ValueError(
                "`pairs` needs a checkpoint whose tokens this library counts: the embedded model, or one in "
                "Hugging Face's format. Leave it out, or join the two texts."
            )
        if reader.between is None:
            raise ValueError(
                f"`pairs` needs a checkpoint that declares how two texts are put together; the tokenizer of "
                f"{source.source!r} declares no form that is computed here. Join the two texts instead."
            )
        types = getattr(source.backbone, "num_segments", 1) if reader.segments else 2
        if reader.second_type >= types:
            raise ValueError(
                f"`pairs` needs a model that knows two kinds of tokens; {source.source!r} declares "
                f"`type_vocab_size` {types}. Join the two texts instead."
            )
        reader.pairs = True
    if not getattr(reader, "pairs", False):
        return
    if reader.prompt:
        raise ValueError(
            f"`pairs`: {source.source!r} declares a prompt for single texts, {reader.prompt!r}, and none for "
            "pairs; join the two texts instead."
        )
    if long_text not in (None, "cut"):
        raise ValueError(f"`long_text` {long_text!r} is of single texts; of pairs the longer text is cut.")
    if reader.truncation_side in ("middle", "windows"):  # of a preprocessor that was saved so
        reader.truncation_side = "right"
    least = len(reader.before) + len(reader.between) + len(reader.after) + 2
    if reader.sequence_length < least:
        raise ValueError(
            f"`sequence_length` must be at least {least} for pairs: special tokens and one token of each "
            f"text; got {reader.sequence_length}."
        )


def _columns_of(source: Any, columns: Any) -> Columns:
    """Return the columns that a caller declares, or raise where the backbone reads no single texts."""
    declared = Columns.declared(columns)
    if source.preprocessor is None:
        raise ValueError(
            f"`columns` are what a row has beside a text; {type(source.backbone).__name__} reads numbers or "
            "images. Give it all numbers as one array."
        )
    if getattr(source.preprocessor, "pairs", False):
        raise ValueError("`columns` need one text a row, and the model reads pairs; join the two texts.")
    if declared.text in (own := (*source.backbone.input, "columns", "frozen")):
        raise ValueError(f"`columns` must have a text of another name than {listed(own)}; rename the column.")
    return declared


def freeze_layers(model: Classifier, freeze: bool | int) -> None:
    """Freeze the whole backbone (True), or its embeddings and that many of its bottom layers."""
    if freeze is True or freeze is False:
        frozen.set_trainable(model.backbone, not freeze)
        return
    top = frozen.layers_asked("freeze", freeze, model.backbone, instead="True or False")[freeze - 1]
    layers = model.backbone.layers
    frozen.freeze(model.backbone, layers[: layers.index(top) + 1])


def pretrained_features(model: Classifier, *, source: str | None = None) -> Callable[[Any], np.ndarray]:
    """Return the function from raw rows to what a model's backbone gave before it was fine-tuned.

    The pre-trained weights are loaded again from where they came from; the model itself is not touched. Pass
    the function as `features` of `evaluate`, for the baseline "logistic regression on frozen features".

    Args:
        model: What `build_model` made; fine-tuned or not.
        source: Where its backbone came from, as it was given to `build_model`; None: what the model remembers
            (a loaded one does not: its run's manifest.json has it, model.backbone).

    Returns:
        A function from (rows,) texts to (rows, width) float32.

    Raises:
        ValueError: The source is not known, or its weights are no longer those the model began with.

    Example:
        >>> features = pretrained_features(model)  # doctest: +SKIP
        >>> evaluate(model, x, y, train=(x_train, y_train), features=features)  # doctest: +SKIP
    """
    known = getattr(model, "source", {})
    name = known.get("backbone") if source is None else source
    if name is None:
        raise ValueError(
            "`model` does not remember where its backbone came from; pass `source`, such as "
            f"{pretrained.EMBEDDED!r} or the folder of the checkpoint."
        )
    if source is None and name == type(model.backbone).__name__:
        raise ValueError(
            f"`model` was built from a {name} instance, whose weights before the fine-tuning nobody kept; "
            "compute its features before you fine-tune, and pass those."
        )
    length = model.preprocessor.sequence_length if model.takes_text else None
    read = {side: choice for choice, side in _LONG_TEXTS.items()}
    original = build_model(
        name, model.labels, pooling=model.pooling or "auto", sequence_length=length, pairs=model.takes_pairs,
        long_text=read.get(getattr(model.preprocessor, "truncation_side", "")),
    )  # fmt: skip
    if known.get("weights_sha256") not in (None, original.source["weights_sha256"]):
        raise ValueError(f"The weights of {name!r} are no longer those that `model` began with.")
    backbone = keras.Model(original.input, original.get_layer("logits").input)

    run: Any = None

    def features(x: Any) -> np.ndarray:
        nonlocal run
        batches = original.batches(x, batch_size=None)
        run = run or forward(backbone, batches.spec)  # one graph for all calls
        return by_row(run, batches)

    return features


def load_model(path: str | Path) -> Classifier:
    """Load a classifier that was saved; its probabilities are the same to the bit.

    Args:
        path: `runs/NAME` (of a run that was killed: its best epoch), its `model` folder, a file written by
            `model.save`, or a folder by `model.save_to_preset`.

    Returns:
        The classifier, with its labels, threshold and temperature.

    Raises:
        FileNotFoundError: There is no model there.
        TypeError: The model is not one that `build_model` made.
    """
    check_strategy()
    place = _checks.path("path", path)
    if place.is_dir():
        inside = [place / "model" / "model.keras", place / "model.keras"]
        found = next((file for file in inside if file.is_file()), None)
        if found is None and (place / "task.json").is_file():
            return _load_preset(place)
        if found is None and (run := Run(place)).weights is not None:
            return _load_checkpoint(run)
        if found is None and run.manifest.is_file():
            raise FileNotFoundError(f"`path` {str(path)!r} holds no model: it {run.account()}.")
        if found is None:
            raise FileNotFoundError(
                f"`path` {str(path)!r} holds no model: there is no model.keras and no task.json in it."
            )
        place = found
    elif not place.is_file():
        raise FileNotFoundError(f"`path` {str(path)!r} does not exist; pass a run folder or a .keras file.")
    if place.suffix in (".h5", ".hdf5"):
        raise ValueError(
            f"`path` {str(path)!r} is an HDF5 file, which holds no vocabulary; pass a .keras file."
        )
    model = read_archive(place)
    if not isinstance(model, Classifier):
        raise TypeError(
            f"{str(path)!r} holds a {type(model).__name__}; `load_model` loads what `build_model` made."
        )
    return model


def _load_checkpoint(run: Run) -> Classifier:
    """Load the best epoch that a run had written when it was killed."""
    model = load_model(run.checkpoint / "model.keras")
    for place, value in run.read_best().items():
        model.weights[int(place)].assign(value)
    return model


def _load_preset(folder: Path) -> Classifier:
    files = CheckpointFiles(str(folder), "path")
    check_seal(files)
    config = files.json("task.json")
    try:
        model = keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever a damaged config leads Keras to
        raise files.error(
            "task.json", f"makes no model ({_reason(error)}); it is damaged: copy it again."
        ) from error
    if not isinstance(model, Classifier):
        raise TypeError(
            f"{str(folder)!r} holds a {type(model).__name__}; `load_model` loads what `build_model` made."
        )
    if model.takes_text:
        tokenizer = model.preprocessor.tokenizer
        try:
            tokenizer.load_preset_assets(str(folder))
        except Exception as error:  # as above
            raise files.error(
                ", ".join(tokenizer.file_assets),
                f"cannot be read ({_reason(error)}); it is damaged: copy it again.",
            ) from error
    loaders = {"model.weights.h5": model.backbone.load_weights, "task.weights.h5": model.load_task_weights}
    for name, load in loaders.items():
        read_weights(files, name, load)
    if model.takes_text:
        pretrained.check_vocabulary(files, model.preprocessor, model.backbone)
    broken = not_finite(model)
    if broken is not None:
        raise ValueError(f"`path` {str(folder)!r} holds NaN or infinity in {broken}; it is damaged.")
    model.compile()
    return model


def _own_preset(source: str | Path, dropout: float | None) -> pretrained.Pretrained | None:
    """Return the fine-tuned backbone of a folder that `Classifier.save_to_preset` wrote; None for others."""
    folder = Path(source)
    if not (folder / "task.json").is_file():
        return None
    if CheckpointFiles(str(folder)).json("task.json").get("registered_name") != "finetune_eval>Classifier":
        return None
    model = _load_preset(folder)
    backbone = model.backbone
    if dropout is not None:
        backbone = type(backbone).from_config({**backbone.get_config(), "dropout": dropout})
        backbone.set_weights(model.backbone.get_weights())
    frozen.set_trainable(backbone, True)
    return pretrained.Pretrained(backbone, model.preprocessor, model.pooling, str(source))


def _check_ending(backbone: keras.Model) -> None:
    """Refuse a backbone that gives probabilities: on top of them a softmax head could hardly learn."""
    last: Any = backbone
    while isinstance(last, keras.Model) and len(last.outputs) == 1:
        last = last.outputs[0]._keras_history.operation
    function = getattr(last, "activation", None) or last
    name = getattr(function, "__name__", type(function).__name__).lower()
    if "softmax" in name:
        raise ValueError(
            f"`backbone` {type(backbone).__name__} ends in a {name}: it is a classifier already. Pass the "
            "part below its head: `keras.Model(model.input, model.layers[-2].output)`."
        )
    if name == "sigmoid":
        warnings.warn(
            f"`backbone` {type(backbone).__name__} ends in a sigmoid. If that is the head of a classifier, "
            "pass the part below it: `keras.Model(model.input, model.layers[-2].output)`.",
            stacklevel=3,
        )


def _reason(error: Exception) -> str:
    return _text.shorten(" ".join(str(error).split()), 200)


def _functional(backbone: keras.Model) -> keras.Model:
    """Return a backbone whose inputs and outputs are known, of the same layers with the same weights."""
    if not getattr(backbone, "inputs", None) or not getattr(backbone, "outputs", None):
        raise ValueError(
            f"`backbone` {type(backbone).__name__} has no known inputs and outputs; build it with "
            "`keras.Input` (a functional model, or a Sequential that begins with one)."
        )
    if isinstance(backbone, keras.Sequential):
        return keras.Model(backbone.inputs[0], backbone.outputs[0], name=backbone.name)
    return backbone


def _one_vector(backbone: keras.Model) -> keras.Model:
    """Return a backbone of images with its maps of features averaged, one vector an image; others as is."""
    shape = getattr(backbone.output, "shape", ())
    if isinstance(backbone.input, dict) or len(shape) != 4:
        return backbone
    formats = [layer.data_format for layer in (backbone, *backbone.layers) if hasattr(layer, "data_format")]
    average = keras.layers.GlobalAveragePooling2D(
        data_format=formats[-1] if formats else None, name="average_of_the_map"
    )
    pooled = average(backbone.output)
    return keras.Model(backbone.input, pooled, name=backbone.name)


def _pooling(asked: str, source: pretrained.Pretrained) -> str | None:
    """Decide the pooling, and refuse a backbone whose outputs cannot be pooled or classified."""
    outputs, inputs = source.backbone.output, source.backbone.input
    name = type(source.backbone).__name__
    if isinstance(inputs, dict) and "padding_mask" in inputs:
        sequence = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
        if isinstance(outputs, (list, tuple)) or len(sequence.shape) != 3:
            raise ValueError(f"`backbone` {name} has no (rows, tokens, width) output to pool.")
        if source.preprocessor is None:
            raise ValueError(
                f"`backbone` {name} takes tokens; pass `preprocessor`, the KerasHub preprocessor that "
                "makes them from text."
            )
        return (source.pooling or "mean") if asked == "auto" else asked
    if isinstance(inputs, (dict, list, tuple)) or isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"`backbone` {name} must have one input and one output, or be a KerasHub text backbone."
        )
    if len(outputs.shape) != 2:
        raise ValueError(
            f"`backbone` {name} must map to features of shape (rows, width); its output is {outputs.shape}."
        )
    if asked != "auto":
        raise ValueError(
            f"`pooling` {asked!r} needs a backbone with a token axis; {name} gives one vector a row."
        )
    return None


__all__ = ["build_model", "load_model", "pretrained_features"]
