"""The vocabulary files that tokenizer.json replaced, read as transformers converts them.

Reference: `convert_slow_tokenizer.py` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers as hugging_face
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import models as subwords

from finetune_eval.models.checkpoint_files import CheckpointFiles

CONFIG, FAST, SPECIAL, ADDED = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_ALBERT_TOKENS = {
    **BERT_TOKENS,
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}
_CONTROL, _USER_DEFINED = 3, 4  # types of a SentencePiece piece
_UNIGRAM = 1  # SentencePiece's model type


@dataclass(frozen=True)
class Kind:
    """What a tokenizer class of transformers reads.

    Attributes:
        build: Makes the tokenizer from the older files.
        tokens: Role -> special token, where no file declares another.
        settings: What of tokenizer_config.json the class takes for normalising text.
        mask_takes_space: Whether the mask token takes the space before it.
        ends_between: How many end tokens stand between two texts. After one the second text is of type 1;
            two tell the texts apart by themselves, and all tokens are of type 0.
    """

    build: Callable[[Declared], Any]
    tokens: Mapping[str, str]
    settings: tuple[str, ...]
    mask_takes_space: bool = True
    ends_between: int = 1


@dataclass
class Declared:
    """What the files of a checkpoint say about its tokenizer.

    Attributes:
        files: The checkpoint.
        kind: What its tokenizer class reads; None where only tokenizer.json can say.
        settings: Its tokenizer_config.json.
        fast: Its tokenizer.json.
        special: Its special_tokens_map.json.
        roles: The special tokens that a file names.
        numbered: The added tokens that have a declared id.
    """

    files: CheckpointFiles
    kind: Kind | None
    settings: dict[str, Any]
    fast: dict[str, Any]
    special: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, AddedToken] = field(default_factory=dict)
    numbered: dict[int, AddedToken] = field(default_factory=dict)

    def token(self, role: str) -> str | None:
        """Return the text of a special token; None where there is none."""
        if role in self.roles:
            return str(self.roles[role].content)
        return None if self.kind is None else self.kind.tokens.get(role)


def _text(said: Declared, name: str) -> str:
    text = said.files.text(name)
    if text is None:
        raise FileNotFoundError(_missing(said, name))
    return text


def _missing(said: Declared, name: str) -> str:
    return (
        f"`backbone` {said.files.source!r} has neither tokenizer.json nor {name}; a checkpoint's vocabulary "
        "is in one of them."
    )


# --- WordPiece ---


def words(text: str) -> dict[str, int]:
    """Return the tokens of a vocab.txt with their ids.

    A token's id is its line's, so an empty line counts; of repeated tokens the last line holds.
    """
    return {token: number for number, token in enumerate(text.removesuffix("\n").split("\n"))}


def _read_word_piece(said: Declared) -> Any:
    vocabulary = words(_text(said, "vocab.txt"))
    unknown = said.token("unk_token")
    if unknown not in vocabulary:
        raise said.files.error(
            "vocab.txt",
            f"has no {unknown}, the token of unknown words; it is not whole, or of another model.",
        )
    rust = hugging_face.Tokenizer(subwords.WordPiece(vocabulary, unk_token=unknown))
    rust.normalizer = normalizers.BertNormalizer(
        lowercase=bool(said.settings.get("do_lower_case", True)),
        strip_accents=said.settings.get("strip_accents"),
        handle_chinese_chars=bool(said.settings.get("tokenize_chinese_chars", True)),
    )
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return rust


# --- byte pairs ---


def _read_byte_pairs(said: Declared) -> Any:
    lines = [line for line in _text(said, "merges.txt").split("\n") if not line.startswith("#version")]
    pairs: list[Any] = [tuple(line.split(" ")) for line in lines if line]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise said.files.error(
            "merges.txt", f"has the line {' '.join(wrong)!r}, which is no pair; it is damaged or cut."
        )
    vocabulary = said.files.json("vocab.json")
    if not vocabulary:
        raise FileNotFoundError(_missing(said, "vocab.json"))
    _check_merges(said, vocabulary, pairs)
    try:
        model = subwords.BPE(
            vocab=vocabulary, merges=pairs, continuing_subword_prefix="", end_of_word_suffix=""
        )
    except Exception as error:
        raise said.files.error("merges.txt", f"does not fit vocab.json ({error}).") from None
    rust = hugging_face.Tokenizer(model)
    space = bool(said.settings.get("add_prefix_space", False))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    return rust


def _check_merges(said: Declared, vocabulary: Mapping[str, int], pairs: list[Any]) -> None:
    """Refuse a list of merges that was cut: it would give other ids, and no error."""
    made = {"".join(pair) for pair in pairs}
    made |= {token.content for token in said.numbered.values()}
    made |= {token for role in ROLES if (token := said.token(role)) is not None}

    def reserved(token: str) -> bool:  # by RoBERTa's own vocabulary
        return (token.startswith("<") and token.endswith(">")) or token.startswith("madeupword")

    unmade = [token for token in vocabulary if len(token) > 1 and token not in made and not reserved(token)]
    if unmade:
        raise said.files.error(
            "merges.txt",
            f"makes none of {len(unmade)} tokens that vocab.json has, such as {unmade[0]!r}: it was cut, or "
            "is of another model. Download it again.",
        )


# --- SentencePiece ---


def _pieces(said: Declared, name: str) -> Any:
    """Return a SentencePiece model, as its protocol buffer."""
    found = said.files.beginning(name)
    if found is None:
        raise FileNotFoundError(_missing(said, name))
    place: Path = found[0]
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(place.read_bytes())
    except Exception:  # protobuf's own
        raise said.files.error(name, "is no whole SentencePiece model; download it again.") from None
    if not proto.pieces or proto.trainer_spec.model_type != _UNIGRAM:
        raise said.files.error(
            name,
            "is no Unigram model of SentencePiece; save a tokenizer.json with `AutoTokenizer` of "
            "transformers.",
        )
    return proto


def _unigram(
    said: Declared,
    proto: Any,
    vocabulary: list[tuple[str, float]],
    unknown: int,
    steps: list[Any],
) -> Any:
    rust = hugging_face.Tokenizer(subwords.Unigram(vocabulary, unknown, False))
    rust.add_tokens([
        AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
        for piece in proto.pieces
        if piece.type in (_CONTROL, _USER_DEFINED)
    ])  # fmt: skip
    rust.normalizer = normalizers.Sequence(steps)
    scheme = "always" if said.settings.get("add_prefix_space", True) else "never"
    rust.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    return rust


def _charsmap(proto: Any) -> list[Any]:
    charsmap = proto.normalizer_spec.precompiled_charsmap
    return [normalizers.Precompiled(charsmap)] if charsmap else []


def _read_fairseq(said: Declared, first: list[tuple[str, float]], skipped: int) -> Any:
    """Read pieces that fairseq numbered anew: tokens of its own first, and a mask last."""
    proto = _pieces(said, "sentencepiece.bpe.model")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces[skipped:]]
    spaces = normalizers.Replace(hugging_face.Regex(" {2,}"), "▁")
    steps = [*_charsmap(proto), normalizers.Strip(left=False, right=True), spaces]
    return _unigram(said, proto, [*first, *pieces, ("<mask>", 0.0)], 3, steps)


def _read_xlm_roberta(said: Declared) -> Any:
    return _read_fairseq(said, [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], 3)


def _read_camembert(said: Declared) -> Any:
    unused = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0)]
    return _read_fairseq(said, [*unused, ("<unk>NOTUSED", -100.0)], 1)


def _read_albert(said: Declared) -> Any:
    proto = _pieces(said, "spiece.model")

    def score(piece: Any) -> float:
        end = piece.piece[-2:]
        number_and_comma = len(end) == 2 and end[1] == "," and end[0].isdigit()
        return float(piece.score - 100 if number_and_comma else piece.score)  # "9," becomes two pieces

    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not said.settings.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if said.settings.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    steps += [*_charsmap(proto), normalizers.Replace(hugging_face.Regex(" {2,}"), " ")]
    vocabulary = [(piece.piece, score(piece)) for piece in proto.pieces]
    return _unigram(said, proto, vocabulary, proto.trainer_spec.unk_id, steps)


_WORD_PIECE = Kind(
    _read_word_piece,
    BERT_TOKENS,
    ("do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    mask_takes_space=False,
)
KINDS = {
    "BertTokenizer": _WORD_PIECE,
    "DistilBertTokenizer": _WORD_PIECE,
    "ElectraTokenizer": _WORD_PIECE,
    "RobertaTokenizer": Kind(_read_byte_pairs, _ROBERTA_TOKENS, ("add_prefix_space",), ends_between=2),
    "XLMRobertaTokenizer": Kind(_read_xlm_roberta, _ROBERTA_TOKENS, ("add_prefix_space",), ends_between=2),
    "CamembertTokenizer": Kind(_read_camembert, _ROBERTA_TOKENS, ("add_prefix_space",), ends_between=2),
    "AlbertTokenizer": Kind(
        _read_albert, _ALBERT_TOKENS, ("do_lower_case", "keep_accents", "add_prefix_space")
    ),
}
# Classes of transformers that add nothing to their tokenizer.json.
BY_JSON_ONLY = (
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "MPNetTokenizer",
    "MobileBertTokenizer",
    "ConvBertTokenizer",
    "LongformerTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "GPT2Tokenizer",
    "T5Tokenizer",
)
