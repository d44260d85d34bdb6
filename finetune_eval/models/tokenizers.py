"""WordPiece exactly as Hugging Face's BERT tokenizers do it, in TensorFlow string operations.

KerasHub's own tokenizer knows only `lowercase` of a checkpoint's settings: `Café` becomes `[UNK]`, and
zero-width characters, no-break spaces and words longer than 100 bytes come out differently. Here the text
is first normalised in the four steps of `tokenizers.normalizers.BertNormalizer` (clean, isolate CJK, strip
accents, lower-case). The ids are then equal for every text but for 568 code points, newer than the Unicode
tables that the Rust package was built with. It runs inside `tf.data` and can be exported. Where TensorFlow is
not installed, the Rust package itself makes the ids.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import tokenizers as hugging_face

from finetune_eval.models import windows
from finetune_eval.models.optional import NEEDS, tf, tf_text

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
_DEFINITION = "tokenizer.json"


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
            # KerasHub's Python path has other rules and is 20 times slower: it is replaced by Rust's, below.
            _allow_python_workflow=tf is None,
            **kwargs,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would look for weights in each of 30,000 tokens: a quarter of a second.
        if name in ("vocabulary", "_token_to_id_map", "_rust"):
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

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without special tokens around them, made by Rust's package."""
        if getattr(self, "_rust", (None,))[0] is not self.vocabulary:
            self._rust = self.vocabulary, self._made_by_rust()
        found = self._rust[1].encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def _made_by_rust(self) -> Any:
        numbered = {token: number for number, token in enumerate(self.vocabulary)}
        rust = hugging_face.Tokenizer(
            hugging_face.models.WordPiece(
                numbered,
                unk_token=self.oov_token,
                max_input_chars_per_word=_LONGEST_WORD,
                continuing_subword_prefix=self.suffix_indicator,
            )
        )
        rust.normalizer = hugging_face.normalizers.BertNormalizer(
            handle_chinese_chars=self.split_on_cjk,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )
        rust.pre_tokenizer = hugging_face.pre_tokenizers.BertPreTokenizer()
        if self.special_tokens_in_strings:
            rust.add_special_tokens([*dict.fromkeys([*self.special_tokens, self.oov_token])])
        return rust

    def _tokenize_python(self, inputs: Any) -> Any:
        if self.sequence_length:
            raise ImportError(NEEDS.format("`sequence_length` of a tokenizer", "leave it out"))
        return _ids_of_each(self.ids, inputs)

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


@keras.saving.register_keras_serializable(package="finetune_eval")
class HuggingFaceTokenizer(keras_hub.tokenizers.Tokenizer):
    """Any tokenizer that a `tokenizer.json` can define, run by the package that defines the format.

    It gives Hugging Face's ids by construction, in Python: it cannot be exported in a SavedModel.

    Args:
        definition: The JSON of the `tokenizers` package; None where it is loaded later, as an asset.
        lowercase_first: Whether text is lower-cased by Python before anything else, as sentence-transformers
            does where `sentence_bert_config.json` says so.
        split_special_tokens: Whether "[SEP]" in a text is split into pieces, as any other word.
        dtype: An integer type.
        **kwargs: Of `keras_hub.tokenizers.Tokenizer`.
    """

    def __init__(
        self,
        definition: str | None = None,
        *,
        lowercase_first: bool = False,
        split_special_tokens: bool = False,
        dtype: Any = "int32",
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.lowercase_first = lowercase_first
        self.split_special_tokens = split_special_tokens
        self.file_assets = [_DEFINITION]
        self._rust: Any = None
        if definition is not None:
            self._define(definition)

    def _define(self, definition: str) -> None:
        self._rust = hugging_face.Tokenizer.from_str(definition)
        self._rust.no_truncation()
        self._rust.no_padding()
        # Not part of the definition.
        self._rust.encode_special_tokens = self.split_special_tokens

    def save_assets(self, dir_path: str) -> None:
        """Write the definition into a folder."""
        Path(dir_path, _DEFINITION).write_text(self._rust.to_str(), encoding="utf-8")

    def load_assets(self, dir_path: str) -> None:
        """Read the definition from a folder."""
        self._define(Path(dir_path, _DEFINITION).read_text(encoding="utf-8"))

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the tokenizer, its definition apart."""
        names = ("lowercase_first", "split_special_tokens")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without special tokens around them."""
        rows = [text.lower() for text in texts] if self.lowercase_first else list(texts)
        return [found.ids for found in self._rust.encode_batch_fast(rows, add_special_tokens=False)]

    def _encode(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids([text.decode("utf-8", "replace") for text in texts.tolist()])
        flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=self.compute_dtype)
        return flat, np.array([len(row) for row in ids], dtype=np.int64)

    def tokenize(self, inputs: Any) -> Any:
        """Return ids without special tokens: ragged (rows, tokens), or (tokens,) for one string."""
        if tf is None:
            return _ids_of_each(self.ids, inputs)
        texts = tf.convert_to_tensor(inputs)
        scalar = texts.shape.rank == 0
        rows = texts[tf.newaxis] if scalar else texts
        flat, lengths = tf.numpy_function(
            self._encode, [rows], [self.compute_dtype, tf.int64], stateful=False
        )
        flat.set_shape([None])
        lengths.set_shape(rows.shape)
        return flat if scalar else tf.RaggedTensor.from_row_lengths(flat, lengths)

    def get_vocabulary(self) -> list[str]:
        """Return the tokens, in the order of their ids."""
        known = self._rust.get_vocab(with_added_tokens=True)
        return sorted(known, key=known.__getitem__)

    def vocabulary_size(self) -> int:
        """Return one more than the highest id."""
        return int(max(self._rust.get_vocab(with_added_tokens=True).values())) + 1

    def id_to_token(self, id: int) -> str:
        """Return an id's token."""
        token = self._rust.id_to_token(int(id))
        if token is None:
            raise ValueError(f"`id` must be the id of a token; got {id}.")
        return str(token)

    def token_to_id(self, token: str) -> int:
        """Return a token's id."""
        number = self._rust.token_to_id(token)
        if number is None:
            raise ValueError(f"`token` must be in the vocabulary; got {token!r}.")
        return int(number)


OURS = (_HuggingFaceWordPiece, HuggingFaceTokenizer)  # quick outside of a graph


@keras.saving.register_keras_serializable(package="finetune_eval")
class TextPreprocessor(keras_hub.models.TextClassifierPreprocessor):
    """Tokenises texts, or pairs of texts, and puts the special tokens around them, as a checkpoint declares.

    KerasHub's preprocessors take every token with the padding's id for padding; here a text that spells
    "[PAD]" keeps it, as in transformers.

    Args:
        tokenizer: A KerasHub tokenizer.
        sequence_length: Longest input in tokens, special ones included.
        before: Ids put before the text's.
        after: Ids put after the text's.
        pad: The id of padding.
        segments: Whether the backbone takes "segment_ids": 0, or `second_type` for the second of two texts.
        truncation_side: "right" drops the last tokens of a text that is too long; "left" the first; "middle"
            keeps the first quarter and the last three of what there is room for; "windows" drops none (up to
            `windows.MOST` windows): what it gives then is (rows, windows, sequence_length).
        prompt: Put before every text.
        between: Ids put between the two texts of a pair; None where the checkpoint declares none.
        second_type: The segment of the second of two texts, and of what stands after it.
        pairs: Whether a row is a pair of texts: rows then have shape (rows, 2).
        **kwargs: Of `keras_hub.models.TextClassifierPreprocessor`.
    """

    def __init__(
        self,
        tokenizer: Any,
        sequence_length: int = 512,
        *,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        pad: int = 0,
        segments: bool = False,
        truncation_side: str = "right",
        prompt: str = "",
        between: Sequence[int] | None = None,
        second_type: int = 0,
        pairs: bool = False,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, sequence_length=sequence_length, **kwargs)
        self.before, self.after, self.pad = list(before), list(after), pad
        self.segments, self.truncation_side, self.prompt = segments, truncation_side, prompt
        self.between = None if between is None else list(between)
        self.second_type, self.pairs = second_type, pairs

    def build(self, input_shape: Any) -> None:
        """Make nothing: KerasHub's packer is not used."""
        self.built = True

    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return token_ids, padding_mask and, if asked for, segment_ids: (rows, sequence_length) int32."""
        if tf is None:
            features = self.arrays([x] if isinstance(x, str) else x)
            if isinstance(x, str):
                features = {name: value[0] for name, value in features.items()}
            return keras.utils.pack_x_y_sample_weight(features, y, sample_weight)
        texts = tf.convert_to_tensor(x)
        scalar = texts.shape.rank == (1 if self.pairs else 0)
        texts = texts[tf.newaxis] if scalar else texts
        own: Any = None  # whether a window is one of its text's: (rows, windows)
        segments: Any = None
        if self.pairs:
            ids, segments = self._of_pairs(texts)
        else:
            ids, own = self._of_texts(texts)
        features = {
            "token_ids": ids.to_tensor(self.pad, shape=[None, self.sequence_length]),
            "padding_mask": tf.sequence_mask(ids.row_lengths(), self.sequence_length),
        }
        if self.segments and segments is None:
            features["segment_ids"] = tf.zeros_like(features["token_ids"])
        elif self.segments:
            features["segment_ids"] = segments.to_tensor(0, shape=[None, self.sequence_length])
        if own is not None:
            shape = [*tf.unstack(tf.shape(own)), self.sequence_length]
            features = {name: tf.reshape(value, shape) for name, value in features.items()}
            features["padding_mask"] &= own[:, :, tf.newaxis]
        if scalar:
            features = {name: value[0] for name, value in features.items()}
        return keras.utils.pack_x_y_sample_weight(features, y, sample_weight)

    def _of_texts(self, texts: Any) -> tuple[Any, Any]:
        """Return ids of texts, cut and with what stands around them; and which windows are of their texts.

        They are (rows, tokens) and None; or (rows * windows, tokens) and (rows, windows).
        """
        ids = self.tokenizer.tokenize(tf.strings.join([self.prompt, texts]) if self.prompt else texts)
        own: Any = None
        if self.truncation_side == "windows":
            ids, own = windows.split(ids, self.room)
        else:
            first, last = self.kept(self.room)
            ids = tf.concat([ids[:, :first], ids[:, first:][:, -last:]], axis=1) if last else ids[:, :first]
        rows = ids.nrows()
        return tf.concat([_repeated(self.before, ids, rows), ids, _repeated(self.after, ids, rows)], 1), own

    def _of_pairs(self, texts: Any) -> tuple[Any, Any]:
        """Return (rows, tokens) ids and segments of pairs; of a pair that is too long the longer text is cut.

        Reference:
            "longest_first" of the `tokenizers` package (`utils/truncation.rs`): the longer text is cut to the
            length of the shorter one; then both are cut to halves of the room, and an odd token goes to the
            longer text, or the second.
        """
        assert self.between is not None
        first, second = self.tokenizer.tokenize(texts[:, 0]), self.tokenizer.tokenize(texts[:, 1])
        special = len(self.before) + len(self.between) + len(self.after)
        room = tf.constant(max(self.sequence_length - special, 0), tf.int64)
        lengths = tf.cast(first.row_lengths(), tf.int64), tf.cast(second.row_lengths(), tf.int64)
        shorter, longer = tf.minimum(*lengths), tf.maximum(*lengths)
        half = room // 2
        of_shorter = tf.where(shorter > half, half, shorter)
        of_longer = tf.minimum(longer, room - of_shorter)
        first_is_longer = lengths[0] > lengths[1]
        first = self._cut(first, tf.where(first_is_longer, of_longer, of_shorter))
        second = self._cut(second, tf.where(first_is_longer, of_shorter, of_longer))
        rows = first.nrows()
        parts = [
            _repeated(self.before, first, rows), first, _repeated(self.between, first, rows),
            second, _repeated(self.after, first, rows),
        ]  # fmt: skip
        kinds = (0, 0, 0, self.second_type, self.second_type)
        segments = [tf.zeros_like(part) + kind for part, kind in zip(parts, kinds, strict=True)]
        return tf.concat(parts, axis=1), tf.concat(segments, axis=1)

    def _cut(self, ids: Any, most: Any) -> Any:
        """Return the first (or the last) ids of each row, at most `most` (rows,) of them."""
        lengths = tf.cast(ids.row_lengths(), tf.int64)
        places = tf.ragged.range(lengths)
        left_out = lengths - tf.minimum(lengths, most) if self.truncation_side == "left" else 0 * lengths
        kept = tf.logical_and(
            places >= left_out[:, tf.newaxis], places < (left_out + tf.minimum(lengths, most))[:, tf.newaxis]
        )
        return tf.ragged.boolean_mask(ids, kept)

    @property
    def room(self) -> int:
        """How many tokens of a text fit beside the special ones."""
        return max(int(self.sequence_length) - len(self.before) - len(self.after), 0)

    def arrays(self, texts: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
        """Return what `call` does for (rows,) texts, as arrays and without TensorFlow."""
        if self.truncation_side == "windows":
            raise ImportError(NEEDS.format("`long_text` 'windows'", "choose another"))
        if self.pairs:
            raise ImportError(NEEDS.format("A model of pairs of texts", "make one text of each pair"))
        first, last = self.kept(self.room)
        token_ids = np.full((len(texts), self.sequence_length), self.pad, dtype=np.int32)
        mask = np.zeros(token_ids.shape, dtype=bool)
        for row, ids in enumerate(self.tokenizer.ids([self.prompt + text for text in texts])):
            ids = [*self.before, *ids[:first], *(ids[first:][-last:] if last else ()), *self.after]
            ids = ids[: self.sequence_length]
            token_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        features = {"token_ids": token_ids, "padding_mask": mask}
        return {**features, "segment_ids": np.zeros_like(token_ids)} if self.segments else features

    def kept(self, tokens: int) -> tuple[int, int]:
        """Return how many of the first and of the last tokens are kept where there is room for `tokens`.

        Reference:
            Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?": of 510 tokens the first 128 and
            the last 382 did better than the first 510 or the last.
        """
        first = {"left": 0, "middle": tokens // 4}.get(self.truncation_side, tokens)
        return first, tokens - first

    def get_config(self) -> dict[str, Any]:
        """Return what recreates the preprocessor."""
        names = (
            "before", "after", "pad", "segments", "truncation_side", "prompt", "between", "second_type",
            "pairs",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _repeated(special: list[int], ids: Any, rows: Any) -> Any:
    """Return the same ids for every row, in the dtype of `ids`."""
    return tf.tile(tf.constant([special], ids.dtype, shape=(1, len(special))), [rows, 1])


def _ids_of_each(ids: Callable[[Sequence[str]], list[list[int]]], inputs: Any) -> Any:
    """Return the ids of one text, or of each of several."""
    return ids([inputs])[0] if isinstance(inputs, str) else ids(list(inputs))
