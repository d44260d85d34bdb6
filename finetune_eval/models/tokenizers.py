"""WordPiece exactly as Hugging Face's BERT tokenizers do it, in TensorFlow string operations.

KerasHub's own tokenizer knows only `lowercase` of a checkpoint's settings: `Café` becomes `[UNK]`, and
zero-width characters, no-break spaces and words longer than 100 bytes come out differently. Here the text
is first normalised in the four steps of `tokenizers.normalizers.BertNormalizer` (clean, isolate CJK, strip
accents, lower-case). The ids are then equal for every text but for 568 code points, newer than the Unicode
tables that the Rust package was built with. It runs inside `tf.data` and can be exported.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_hub
import tensorflow as tf
import tensorflow_text as tf_text

# The ranges of Hugging Face's normaliser, its typing slip included (2B920 where Unicode has 2B820).
_CJK = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
# Characters; a longer word is unknown: `max_input_chars_per_word` of every BERT checkpoint.
_LONGEST_WORD = 100
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8
# Private use: removed from any text by the cleaning step, so never a user's character.
_SPECIAL = "\ue001"
_UNKNOWN = "\ue000"
# A call costs 0.1 s without a graph; to trace one takes 2 s (two slow cores).
_CALLS_WITHOUT_A_GRAPH = 20
_lock = threading.Lock()


class _HuggingFaceWordPiece(keras_hub.tokenizers.WordPieceTokenizer):
    """Replaces how a KerasHub WordPiece tokenizer splits text; mixed in before it."""

    def __init__(
        self,
        vocabulary: Any = None,
        lowercase: bool = True,
        *,
        strip_accents: bool | None = None,
        split_on_cjk: bool = True,
        special_tokens_in_strings: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            vocabulary=vocabulary,
            lowercase=lowercase,
            # `strip_accents: null` in a checkpoint means: as `lowercase`.
            strip_accents=lowercase if strip_accents is None else strip_accents,
            split_on_cjk=split_on_cjk,
            special_tokens_in_strings=special_tokens_in_strings,
            # One path whatever the backend: KerasHub's Python path has other rules and is 20 times slower.
            _allow_python_workflow=False,
            **kwargs,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would look for weights in each of 30,000 tokens: a quarter of a second.
        if name in ("vocabulary", "_token_to_id_map"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the tokenizer."""
        return {**super().get_config(), "split_on_cjk": self.split_on_cjk}

    def _set_vocabulary_tf(self) -> None:
        self._fast_word_piece = tf_text.FastWordpieceTokenizer(
            vocab=self.vocabulary,
            token_out_type=self.compute_dtype,
            suffix_indicator=self.suffix_indicator,
            max_bytes_per_word=_LONGEST_WORD * _BYTES_PER_CHARACTER,
            unknown_token=self.oov_token,
            no_pretokenization=True,
            support_detokenization=True,
        )

    def _normalise(self, text: tf.Tensor) -> tf.Tensor:
        text = tf.strings.regex_replace(text, r"[\t\n\r]", " ")
        text = tf.strings.regex_replace(text, r"[\p{C}\x{FFFD}]", "")
        text = tf.strings.regex_replace(text, r"\p{Z}", " ")
        if self.split_on_cjk:
            text = tf.strings.regex_replace(text, _CJK, r" \0 ")
        if self.strip_accents:
            text = tf_text.normalize_utf8(text, "NFD")
            text = tf.strings.regex_replace(text, r"\p{Mn}", "")
        if self.lowercase:
            text = tf.strings.lower(text, encoding="utf-8")
        return text

    def _tokenize_tf(self, inputs: Any) -> Any:
        text = tf.convert_to_tensor(inputs)
        scalar = text.shape.rank == 0
        if scalar:
            text = text[tf.newaxis]
        split, keep = rf"\s|{_PUNCTUATION}", _PUNCTUATION
        if self.special_tokens_in_strings:
            # `regex_split` ends at a NUL; another control character is removed with the rest.
            text = tf.strings.regex_replace(text, r"\x00", "\x01")
            # A special token is found in the raw text, before its capitals and brackets are normalised away.
            special = "|".join(map(re.escape, dict.fromkeys([*self.special_tokens, self.oov_token])))
            pieces = tf_text.regex_split(text, delim_regex_pattern=special, keep_delim_regex_pattern=special)
            text = pieces.with_flat_values(
                tf.where(
                    tf.strings.regex_full_match(pieces.flat_values, special),
                    tf.strings.join([_SPECIAL, pieces.flat_values]),
                    self._normalise(pieces.flat_values),
                )
            )
            # Marked, for what becomes one only when normalised ("[SE\u200bP]") is none.
            special = f"{_SPECIAL}(?:{special})"
            split, keep = f"{special}|{split}", f"{special}|{keep}"
        else:
            text = self._normalise(text)
        words = tf_text.regex_split(text, delim_regex_pattern=split, keep_delim_regex_pattern=keep)
        if self.special_tokens_in_strings:
            words = words.merge_dims(1, 2)
            words = words.with_flat_values(tf.strings.regex_replace(words.flat_values, _SPECIAL, ""))
        words = words.with_flat_values(
            tf.where(
                tf.strings.length(words.flat_values, unit="UTF8_CHAR") > _LONGEST_WORD,
                _UNKNOWN,
                words.flat_values,
            )
        )
        tokens = self._fast_word_piece.tokenize(words).merge_dims(-2, -1)
        if self.sequence_length:
            tokens = tokens.to_tensor(shape=[None, self.sequence_length])
        return tokens[0] if scalar else tokens


@keras.saving.register_keras_serializable(package="finetune_eval")
class BertTokenizer(_HuggingFaceWordPiece, keras_hub.tokenizers.BertTokenizer):
    """`keras_hub.tokenizers.BertTokenizer` with Hugging Face's ids."""


@keras.saving.register_keras_serializable(package="finetune_eval")
class DistilBertTokenizer(_HuggingFaceWordPiece, keras_hub.tokenizers.DistilBertTokenizer):
    """`keras_hub.tokenizers.DistilBertTokenizer` with Hugging Face's ids."""


def preprocessing(preprocessor: Any) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Return a KerasHub preprocessor as a function of (rows,) strings that gives what it gives in a graph.

    Tracing that graph takes as long as twenty calls without one. So with our tokenizers the first calls go
    without: most processes make no more. KerasHub's own have parts that are slow outside of a graph.
    """
    graph = tf.function(preprocessor, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    calls = itertools.count()

    def run(texts: tf.Tensor) -> dict[str, Any]:
        features: dict[str, Any]
        ours = isinstance(getattr(preprocessor, "tokenizer", None), _HuggingFaceWordPiece)
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
