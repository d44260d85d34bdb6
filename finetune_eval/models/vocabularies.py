"""Tokenizers of Hugging Face folders: from tokenizer.json, or from the older files that it replaced.

Whatever the files, a `tokenizers.Tokenizer` comes of them, as in transformers. WordPiece as BERT has it is
then computed in TensorFlow (faster, and can be exported), all else by the `tokenizers` package itself.

Reference: `tokenization_utils_fast.py` of transformers 4.57, `tokenization_utils_tokenizers.py` of 5.24.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers as hugging_face
from tokenizers import AddedToken
from tokenizers import models as subwords

from finetune_eval.models import declared
from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.families import FAMILIES
from finetune_eval.models.tokenizers import BertTokenizer, DistilBertTokenizer, HuggingFaceTokenizer
from finetune_eval.models.vocabulary_files import (
    ADDED,
    BERT_TOKENS,
    BY_JSON_ONLY,
    CONFIG,
    FAST,
    KINDS,
    ROLES,
    SPECIAL,
    Declared,
    Kind,
    words,
)


@dataclass(frozen=True)
class Vocabulary:
    """A checkpoint's tokenizer, and what is put around a text.

    Attributes:
        tokenizer: A KerasHub tokenizer, which gives ids without special tokens.
        before: Ids put before a text's.
        after: Ids put after a text's.
        between: Ids put between two texts; None where no form of two texts is declared that is computed here.
        second_type: The token type of the second of two texts and of what stands after it.
        pad: The id of padding; None where no token is.
        truncation_side: Which end of a text that is too long is dropped: "left" or "right".
        longest: Longest declared input in tokens; None where none is declared.
    """

    tokenizer: Any
    before: list[int]
    after: list[int]
    between: list[int] | None
    second_type: int
    pad: int | None
    truncation_side: str
    longest: int | None


def load_vocabulary(
    files: CheckpointFiles, config: Mapping[str, Any], rows: int, *, lowercase_first: bool
) -> Vocabulary:
    """Read a checkpoint's tokenizer.

    Args:
        files: The checkpoint.
        config: Its config.json.
        rows: How many tokens have an embedding.
        lowercase_first: Whether Python lower-cases the text before anything else.

    Raises:
        ValueError: A file is damaged, two files disagree, or a token has no embedding.
        FileNotFoundError: There is no vocabulary.
    """
    said = _declared(files, config)
    if said.fast:
        rust = _from_json(said)
        _check_agreement(said, rust)
    else:
        assert said.kind is not None  # without tokenizer.json a class that needs it is refused
        rust = said.kind.build(said)
    rust.no_truncation()
    rust.no_padding()
    _add_tokens(said, rust)
    before, after = _around(said, rust)
    between, second_type = _between(said, rust, before, after)
    if "token_type_ids" not in (said.settings.get("model_input_names") or ("token_type_ids",)):
        second_type = 0
    _check_embeddings(said, rust, rows)
    split = bool(said.settings.get("split_special_tokens"))
    tokenizer = None if split or lowercase_first else _word_piece(rust, config["model_type"])
    if tokenizer is None:
        tokenizer = HuggingFaceTokenizer(
            rust.to_str(), lowercase_first=lowercase_first, split_special_tokens=split
        )
    pad = rust.token_to_id(said.token("pad_token") or "")
    side, longest = _truncation_side(said), _longest(said)
    return Vocabulary(tokenizer, before, after, between, second_type, pad, side, longest)


# --- what the files say ---


def _declared(files: CheckpointFiles, config: Mapping[str, Any]) -> Declared:
    settings = files.json(CONFIG)
    declared.check(files, CONFIG, settings, config["model_type"])
    fast = files.json(FAST)
    declared.check(files, FAST, fast, config["model_type"])
    said = Declared(files, _kind(files, settings, config, bool(fast)), settings, fast, files.json(SPECIAL))
    declared.check(files, SPECIAL, said.special, config["model_type"])
    said.roles.update(_roles(said))
    said.numbered.update(_numbered(said))
    return said


def _kind(
    files: CheckpointFiles, settings: Mapping[str, Any], config: Mapping[str, Any], fast: bool
) -> Kind | None:
    default = FAMILIES[config["model_type"]].tokenizer
    name = str(settings.get("tokenizer_class") or config.get("tokenizer_class") or default)
    plain = name.removesuffix("Fast")
    if plain in KINDS:
        return KINDS[plain]
    if plain not in BY_JSON_ONLY:
        raise files.error(
            CONFIG if settings.get("tokenizer_class") else "config.json",
            f"declares the tokenizer class {name}, whose words cannot be made here; those of "
            f"{', '.join(KINDS)} can.",
        )
    if not fast:
        raise FileNotFoundError(
            f"`backbone` {files.source!r} declares the tokenizer class {name}, which is read from "
            "tokenizer.json alone, and has none; save one with `AutoTokenizer` of transformers."
        )
    return None


def _token(value: Any, *, special: bool, lstrip: bool = False) -> AddedToken:
    """Return a token as a file declares it: its text, or an object with its text and flags."""
    if isinstance(value, str):
        return AddedToken(value, special=special, lstrip=lstrip)
    flags = {"special": special, **value}
    known = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(value["content"], **{name: bool(flags[name]) for name in known if name in flags})


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _roles(said: Declared) -> dict[str, AddedToken]:
    """Return the special tokens that tokenizer_config.json and special_tokens_map.json name, by role."""
    roles = {}
    for role in ROLES:
        sources = {CONFIG: said.settings.get(role), SPECIAL: said.special.get(role)}
        tokens = {}
        for name, value in sources.items():
            if value is not None and not _is_token(value):
                raise said.files.error(name, f"declares `{role}` as {value!r}; it must be a token's text.")
            if value is not None:
                lstrip = role == "mask_token" and said.kind is not None and said.kind.mask_takes_space
                tokens[name] = _token(value, special=True, lstrip=lstrip)
        if len({token.content for token in tokens.values()}) > 1:
            raise said.files.error(
                SPECIAL,
                f"declares `{role}` as {tokens[SPECIAL].content!r}, but {CONFIG} as "
                f"{tokens[CONFIG].content!r}; make them agree.",
            )
        if tokens:
            roles[role] = next(iter(tokens.values()))
    return roles


def _numbered(said: Declared) -> dict[int, AddedToken]:
    """Return the added tokens that have a declared id."""
    entries = said.settings.get("added_tokens_decoder") or {}
    if not isinstance(entries, dict) or not all(
        key.isdecimal() and isinstance(value, dict) and _is_token(value) for key, value in entries.items()
    ):
        raise said.files.error(
            CONFIG, "declares an `added_tokens_decoder` that is no map from ids to tokens."
        )
    found = {int(key): _token(value, special=False) for key, value in entries.items()}
    special = {token.content for token in said.roles.values()}
    for text, number in said.files.json(ADDED).items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise said.files.error(ADDED, f"gives {text!r} the id {number!r}; it must be a whole number.")
        if number not in found:
            found[number] = AddedToken(text, special=text in special, normalized=text not in special)
        elif found[number].content != text:
            raise said.files.error(
                ADDED,
                f"gives the id {number} to {text!r}, but {CONFIG} to {found[number].content!r}; make them "
                "agree.",
            )
    return found


def _listed(said: Declared) -> list[AddedToken]:
    """Return the additional special tokens."""
    found = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        for file, source in ((CONFIG, said.settings), (SPECIAL, said.special)):
            values = source.get(name) or []
            values = list(values.values()) if isinstance(values, dict) else values
            if not isinstance(values, list) or not all(map(_is_token, values)):
                raise said.files.error(file, f"declares `{name}` as {values!r}; it must be a list of tokens.")
            found += [_token(value, special=True) for value in values]
    return found


# --- the tokenizer ---


def _from_json(said: Declared) -> Any:
    try:
        rust = hugging_face.Tokenizer.from_str(said.files.text(FAST) or "")
    except Exception as error:  # the package has no class of its own
        raise said.files.error(
            FAST, f"is no tokenizer that tokenizers {hugging_face.__version__} can read ({error})."
        ) from None
    if said.fast["model"].get("dropout"):
        raise said.files.error(
            FAST,
            "declares a dropout of its model: every reading of a text would give other ids. Set it to null.",
        )
    return rust


# Setting -> a text, and whether the setting is on, by what the normaliser makes of it.
_NORMALISED: dict[str, tuple[str, Callable[[str], bool]]] = {
    "do_lower_case": ("A", lambda text: "a" in text),
    "strip_accents": ("é", lambda text: text.strip().lower() == "e"),
    "keep_accents": ("é", lambda text: text.strip().lower() != "e"),
    "tokenize_chinese_chars": ("中中", lambda text: text.strip() != "中中"),
}


def _check_agreement(said: Declared, rust: Any) -> None:
    """Refuse a tokenizer_config.json that declares another normalisation than tokenizer.json has.

    transformers 4 follows the one for some classes and the other for others, and 5 does otherwise.
    """

    def normal(text: str) -> str:
        return text if rust.normalizer is None else str(rust.normalizer.normalize_str(text))

    for name in () if said.kind is None else said.kind.settings:
        asked = said.settings.get(name)
        if name == "strip_accents" and name in said.settings and asked is None:
            asked = said.settings.get("do_lower_case")  # null: accents are stripped with capitals
        if asked is None:
            continue
        if name == "add_prefix_space":
            pieces = [] if rust.pre_tokenizer is None else rust.pre_tokenizer.pre_tokenize_str(normal("a"))
            done = bool(pieces) and pieces[0][0].startswith(("Ġ", "▁"))
        else:
            text, is_on = _NORMALISED[name]
            done = is_on(normal(text))
        if bool(asked) != done:
            raise said.files.error(
                CONFIG,
                f"declares `{name}`: {json.dumps(said.settings[name])}, but {FAST} does "
                f"{'so' if done else 'not do so'}; they would give other token ids: make them agree.",
            )
    _check_words(said)
    unknown, used = said.roles.get("unk_token"), said.fast["model"].get("unk_token")
    if unknown is not None and used is not None and unknown.content != used:
        raise said.files.error(
            CONFIG, f"declares `unk_token` as {unknown.content!r}, but {FAST} as {used!r}; make them agree."
        )


def _check_words(said: Declared) -> None:
    """Refuse a vocab.txt of other words than tokenizer.json: one was edited, or is of another model."""
    vocabulary = said.fast["model"].get("vocab")
    if said.kind is not KINDS["BertTokenizer"] or not isinstance(vocabulary, dict):
        return
    text = said.files.text("vocab.txt")
    if text is not None and words(text) != vocabulary:
        raise said.files.error(
            "vocab.txt",
            f"has other words than {FAST}, or in another order; delete the one that does not hold.",
        )


def _add_tokens(said: Declared, rust: Any) -> None:
    """Add the declared tokens that the tokenizer does not have, in the order of transformers."""
    present = rust.get_added_tokens_decoder().values()
    same = {repr(token) for token in present}
    missing = [token for _, token in sorted(said.numbered.items()) if repr(token) not in same]
    texts = {token.content for token in [*present, *missing]}
    roles = dict(said.roles)
    for role, text in ({} if said.kind is None else said.kind.tokens).items():
        # A token that no file names and the vocabulary does not have is not there.
        if role not in roles and rust.token_to_id(text) is not None:
            assert said.kind is not None
            roles[role] = AddedToken(
                text, special=True, lstrip=role == "mask_token" and said.kind.mask_takes_space
            )
    for token in [*(roles[role] for role in ROLES if role in roles), *_listed(said)]:
        # SentencePiece's own symbols are added tokens already, but without their role's flags.
        if token.content not in texts or not (said.fast or repr(token) in same):
            missing.append(token)
            texts.add(token.content)
    for token in missing:
        token.special = token.special or token.content in {named.content for named in roles.values()}
    rust.add_tokens(missing)
    for number, token in said.numbered.items():
        if rust.token_to_id(token.content) != number:
            raise said.files.error(
                CONFIG if said.settings.get("added_tokens_decoder") else ADDED,
                f"gives the added token {token.content!r} the id {number}, but the vocabulary gives it "
                f"{rust.token_to_id(token.content)}; a vocabulary file is not whole, or of another model.",
            )


def _around(said: Declared, rust: Any) -> tuple[list[int], list[int]]:
    """Return the ids put before and after a text."""
    wanted = {role: said.token(role) for role in ("cls_token", "sep_token")}
    if rust.post_processor is None:
        for role, token in wanted.items():
            if token is None or rust.token_to_id(token) is None:
                raise ValueError(
                    f"The vocabulary of `backbone` {said.files.source!r} has no {token or role}, which is "
                    "put around every text; the file is not whole, or of another model."
                )
        ids = [rust.token_to_id(token) for token in wanted.values()]
        return ids[:1], ids[1:]
    inner = rust.encode("a", add_special_tokens=False).ids
    whole = rust.encode("a", add_special_tokens=True)
    around = rust.encode("", add_special_tokens=True).ids
    split = next((n for n in range(len(around) + 1) if [*around[:n], *inner, *around[n:]] == whole.ids), None)
    if split is None or any(whole.type_ids):
        raise said.files.error(
            FAST,
            "has a post_processor that does something else than put special tokens of type 0 around a text, "
            "which is not computed here.",
        )
    before, after = around[:split], around[split:]
    for (role, token), found in zip(wanted.items(), (before[:1], after[-1:]), strict=True):
        if role in said.roles and found != [rust.token_to_id(token)]:
            raise said.files.error(
                CONFIG,
                f"declares `{role}` as {token!r}, which the post_processor of {FAST} does not put there; "
                "make them agree.",
            )
    return before, after


def _between(said: Declared, rust: Any, before: list[int], after: list[int]) -> tuple[list[int] | None, int]:
    """Return the ids put between two texts, None where they are not known, and the type of the second."""
    if rust.post_processor is None:
        if said.fast or said.kind is None:
            return None, 0
        return after * said.kind.ends_between, 1 if said.kind.ends_between == 1 else 0
    inner = rust.encode("a", add_special_tokens=False).ids
    whole, around = rust.encode("a", "a"), rust.encode("", "").ids
    between, second_type = around[len(before) : len(around) - len(after)], max(whole.type_ids, default=0)
    first, second = [*before, *inner, *between], [*inner, *after]
    types = [0] * len(first) + [second_type] * len(second)
    as_declared = (whole.ids, whole.type_ids) == ([*first, *second], types)
    return (between, second_type) if as_declared and between else (None, 0)


def _check_embeddings(said: Declared, rust: Any, rows: int) -> None:
    """Refuse a token that has no embedding, and a list of tokens that was cut."""
    ids = rust.get_vocab(with_added_tokens=True)
    number, token = min(
        ((number, token) for token, number in ids.items() if number >= rows), default=(rows, None)
    )
    if token is not None:
        raise ValueError(
            f"The vocabulary of `backbone` {said.files.source!r} gives {token!r} the id {number}, but "
            f"config.json declares {rows} tokens, so it has no embedding; the files are of different models, "
            "or the embeddings were not resized when tokens were added."
        )
    # Nothing else tells that the last lines of a vocab.txt are missing. Embeddings are often padded to a
    # round number, but then the tokens are in tokenizer.json, which cannot be cut unseen.
    lines = max(ids.values()) + 1
    if not said.fast and said.kind is KINDS["BertTokenizer"] and lines < rows:
        raise said.files.error(
            "vocab.txt",
            f"has {lines} tokens, but config.json declares {rows}; it was cut, or is of another model: "
            "download it again. If the embeddings were padded on purpose, add a line for each row that is "
            "left over.",
        )


def _word_piece(rust: Any, model_type: str) -> Any:
    """Return the TensorFlow tokenizer that gives the same ids; None where there is none."""
    if not isinstance(rust.model, subwords.WordPiece):
        return None
    whole = json.loads(rust.to_str())
    model, normalizer, splitter = whole["model"], whole["normalizer"] or {}, whole["pre_tokenizer"] or {}
    steps = (normalizer.get("type"), splitter.get("type"))
    if steps != ("BertNormalizer", "BertPreTokenizer") or not normalizer["clean_text"]:
        return None
    if (model["unk_token"], model["continuing_subword_prefix"], model["max_input_chars_per_word"]) != (
        "[UNK]", "##", 100
    ):  # fmt: skip
        return None
    flags = ("special", "single_word", "lstrip", "rstrip")
    added = {(token["content"], *(token[flag] for flag in flags)) for token in whole["added_tokens"]}
    if added != {(token, True, False, False, False) for token in BERT_TOKENS.values()}:
        return None
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if sorted(model["vocab"].values()) != list(range(len(tokens))):
        return None
    tokenizer = DistilBertTokenizer if model_type == "distilbert" else BertTokenizer
    return tokenizer(
        vocabulary=tokens,
        lowercase=normalizer["lowercase"],
        strip_accents=normalizer["strip_accents"],
        split_on_cjk=normalizer["handle_chinese_chars"],
    )


# --- how much of a text ---


def _truncation_side(said: Declared) -> str:
    side = said.settings.get("truncation_side")
    if side is None:
        side = (said.fast.get("truncation") or {}).get("direction", "right")
    if not isinstance(side, str) or side.lower() not in ("left", "right"):
        raise said.files.error(
            CONFIG, f"declares `truncation_side` as {side!r}; it must be one of 'left', 'right'."
        )
    return side.lower()


def _longest(said: Declared) -> int | None:
    """Return the longest declared input; transformers writes 1e30 where there is none."""
    value = said.settings.get("model_max_length", said.settings.get("max_len"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 3:
        raise said.files.error(
            CONFIG, f"declares `model_max_length` as {value!r}; it must be a whole number of at least 3."
        )
    return int(value)
