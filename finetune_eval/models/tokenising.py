"""How texts become tokens: a preprocessor as a function of many texts, and what is read of long ones."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from finetune_eval.models import windows
from finetune_eval.models.batching import Encoded, encoder
from finetune_eval.models.optional import NEEDS, tf
from finetune_eval.models.tokenizers import OURS, TextPreprocessor

# A call costs 0.1 s without a graph; to trace one takes 2 s (two slow cores).
_CALLS_WITHOUT_A_GRAPH = 20
_lock = threading.Lock()


def text_spec(preprocessor: Any) -> tf.TensorSpec:
    """Return what TensorFlow needs to know of a batch of rows: texts, or pairs of texts."""
    return tf.TensorSpec([None, 2] if getattr(preprocessor, "pairs", False) else [None], tf.string)


def token_counts(tokenizer: Any, texts: np.ndarray) -> np.ndarray:
    """Return (rows,) how many tokens a tokenizer makes of each text, or of both texts of a pair."""

    def counts(column: np.ndarray) -> np.ndarray:
        if tf is None:
            return np.array([len(ids) for ids in tokenizer.ids(column.tolist())], dtype=np.int64)
        tokens = tokenizer(tf.constant(column))
        return np.asarray(tokens.row_lengths() if hasattr(tokens, "row_lengths") else [*map(len, tokens)])

    return np.asarray(np.sum([counts(column) for column in texts.T.reshape(-1, len(texts))], axis=0))


def text_encoder(preprocessor: Any) -> Callable[[np.ndarray], Encoded]:
    """Return a function of texts, (rows,) or (rows, 2), that tokenises them as a preprocessor does."""
    tokenizer = getattr(preprocessor, "tokenizer", None)
    lengths = None if tokenizer is None else functools.partial(token_counts, tokenizer)
    in_windows = getattr(preprocessor, "truncation_side", None) == "windows"
    return encoder(preprocessing(preprocessor), lengths, room=preprocessor.room if in_windows else None)


def preprocessing(preprocessor: Any) -> Callable[[np.ndarray], dict[str, Any]]:
    """Return a KerasHub preprocessor as a function of strings that gives what it gives in a graph.

    The strings are (rows,) texts, or (rows, 2) texts of pairs.

    Tracing that graph takes as long as twenty calls without one. So with our tokenizers the first calls go
    without: most processes make no more. KerasHub's own have parts that are slow outside of a graph.
    """
    if tf is None:
        if not isinstance(preprocessor, TextPreprocessor):
            raise ImportError(
                NEEDS.format(
                    f"The preprocessor {type(preprocessor).__name__}",
                    "build the model from a folder in Hugging Face's format",
                )
            )
        return preprocessor.arrays
    graph = tf.function(preprocessor, input_signature=[text_spec(preprocessor)], autograph=False)
    calls = itertools.count()

    def run(texts: np.ndarray) -> dict[str, Any]:
        features: dict[str, Any]
        texts = tf.constant(texts)
        ours = isinstance(getattr(preprocessor, "tokenizer", None), OURS)
        if not ours or next(calls) >= _CALLS_WITHOUT_A_GRAPH:
            features = graph(texts)
        else:
            with _no_python_path(preprocessor):
                features = preprocessor(texts)
        return features

    return run


@contextlib.contextmanager
def _no_python_path(preprocessor: Any) -> Iterator[None]:
    """Have a preprocessor's layers go KerasHub's TensorFlow path outside of graphs too.

    There they would go another, of Python, with other rules. One thread at a time: the first to leave would
    give it back to the others.
    """
    layers = [layer for layer in preprocessor._flatten_layers() if hasattr(layer, "_allow_python_workflow")]
    with _lock:
        before = [layer._allow_python_workflow for layer in layers]
        try:
            for layer in layers:
                layer._allow_python_workflow = False
            yield
        finally:
            for layer, allowed in zip(layers, before, strict=True):
                layer._allow_python_workflow = allowed


def read_of_long(model: Any, rows: Encoded, name: str, n: int) -> str:
    """Return the sentence on how many texts are too long, and on what is read of them."""
    what = "pairs of texts" if model.takes_pairs else "texts"
    are, their = ("is", "its") if rows.long == 1 else ("are", "their")
    long = f"`{name}`: {rows.long:,} of {n:,} {what} {are} longer than {rows.limit} tokens; "
    if model.takes_pairs:
        return f"{long}the longer text of a pair is cut first."
    if model.windows:
        of_each = f"{'it is' if rows.long == 1 else 'they are'} read in windows that overlap by half"
        most = f", of {rows.cut:,} only the first {windows.MOST}" if rows.cut else ""
        return f"{long}{of_each}{most}."
    side = getattr(model.preprocessor, "truncation_side", "right")
    ends = f"{'last' if side == 'left' else 'first'} {rows.limit}"
    if side == "middle":
        ends = "first {} and last {}".format(*model.preprocessor.kept(model.preprocessor.room))
    return f"{long}only {their} {ends} tokens are read."
