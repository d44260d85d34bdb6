"""Ids of every kind of tokenizer: against the packages `tokenizers` and `sentencepiece`, and by hand."""

import json
import re
import unicodedata

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken

import finetune_eval as fe
from finetune_eval.models.pretrained import load_pretrained
from finetune_eval.models.tokenizers import BertTokenizer, HuggingFaceTokenizer

HARD = (
    "",
    " ",
    "a good film.",
    "Bad,  bad\tfilm!",
    "a\n\nb",
    "a\nb\r\n",
    "Café CAFÉ cafe\u0301",
    "x" * 120,
    "not good [SEP] film",
    "[MASK] and <mask> and <s> x </s>",
    "中文 film",
    "it's 9, 10, don't 'll",
    "``quote'' … é",
    "null\x00byte \u200bzero",
    "  two  spaces  ",
    "don’t ﬁne Ａ",
    "<unk> <pad> [PAD] [UNK]",
    "good\u00a0film\u3000the",
    "[E1] and <url>",
    "Good1 GOOD gooD",
)


def load(folder, **settings):
    return load_pretrained(folder, **{"sequence_length": None, "dropout": None, **settings})


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def refused(folder, rule, file, **settings):
    with pytest.raises(ValueError, match=exactly(f"{file} of `backbone` {str(folder)!r} {rule}")):
        load(folder, **settings)


def byte_pairs_json(checkpoints, add_prefix_space=False):
    """RoBERTa's tokenizer, of the `tokenizers` package."""
    vocabulary = {token: number for number, token in enumerate(checkpoints.byte_pairs)}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in checkpoints.merges])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    made.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return made


@pytest.mark.parametrize("add_prefix_space", [False, True])
@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json and merges.txt"])
def test_byte_pairs_are_those_of_hugging_face(checkpoints, tmp_path, form, add_prefix_space):
    rust = byte_pairs_json(checkpoints, add_prefix_space)
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        "roberta",
        tokenizer=rust if form == "tokenizer.json" else None,
        tokenizer_config={"tokenizer_class": "RobertaTokenizer", "add_prefix_space": add_prefix_space},
        config={"max_position_embeddings": 200},
    )
    loaded = load(folder)
    for text in HARD:
        assert checkpoints.ids_of(loaded, text) == rust.encode(text).ids, text
    # By hand: the last space before a letter is split off (GPT-2's pattern), and two line breaks are a merge.
    pairs = checkpoints.byte_pairs
    space = ["Ġ"] if add_prefix_space else []
    expected = [pairs.index(token) for token in ("<s>", *space, "a", "ĊĊ", "Ċ", "b", "Ġgood", "</s>")]
    assert checkpoints.ids_of(loaded, "a\n\n\nb good") == expected


@pytest.mark.parametrize("family", ["xlm-roberta", "camembert", "bert"])
def test_fairseq_pieces_are_those_of_sentencepiece(checkpoints, tmp_path, family):
    """Fairseq put four tokens of its own (CamemBERT: five) before the pieces, in place of some."""
    processor = checkpoints.pieces.processor("xlm-roberta")
    own = "camembert" if family == "camembert" else "xlm-roberta"
    files, name = checkpoints.older_files(own)
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        family,
        files={**files, "vocab.txt": None},
        tokenizer_config={"tokenizer_class": name},
        config={"vocab_size": 90, "max_position_embeddings": 80},
    )
    loaded = load(folder)
    first, before, after = (4, [5], [6]) if family == "camembert" else (1, [0], [2])
    for text in ("a good film .", "the  film was bad !", "not honest 9", "warm and 中", " "):
        pieces = [3 if number == 0 else number + first for number in processor.encode(text)]
        assert checkpoints.ids_of(loaded, text) == [*before, *pieces, *after], text


def test_the_file_of_xlm_roberta_is_never_read_as_albert(checkpoints, tmp_path):
    files, _ = checkpoints.older_files("xlm-roberta")
    folder, *_ = checkpoints.write(tmp_path / "x", "albert", files={**files, "spiece.model": None})
    sentence = (
        f"`backbone` {str(folder)!r} has neither tokenizer.json nor spiece.model; a checkpoint's vocabulary "
        f"is in "
        "one of them."
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"keep_accents": True}, {"do_lower_case": False, "keep_accents": True}],
)
def test_albert_normalises_as_declared_before_sentencepiece(checkpoints, tmp_path, settings):
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        "albert",
        tokenizer_config={"tokenizer_class": "AlbertTokenizer", **settings},
        config={"max_position_embeddings": 80},
    )
    loaded = load(folder)
    processor = checkpoints.pieces.processor("albert")

    def normal(text):
        text = text.replace("``", '"').replace("''", '"')
        if not settings.get("keep_accents"):
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return text.lower() if settings.get("do_lower_case", True) else text

    found = {}
    for text in ("A Good film !", "café", "CAFÉ", "``quote'' marks", "the film was bad"):
        found[text] = checkpoints.ids_of(loaded, text)
        assert found[text] == [2, *processor.encode(normal(text)), 3], text
    assert (1 in found["A Good film !"]) == ("do_lower_case" in settings)  # the pieces have no capitals


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": None, "strip_accents": None},
    ],
)
@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])
def test_word_pieces_are_normalised_as_declared(checkpoints, tmp_path, family, settings):
    name = checkpoints.older_files(family)[1]
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        family,
        config={"max_position_embeddings": 80},
        tokenizer_config={"tokenizer_class": name, **settings},
    )
    rust = checkpoints.word_piece_json(
        lowercase=settings.get("do_lower_case", True) is True,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    loaded = load(folder)
    assert isinstance(loaded.preprocessor.tokenizer, BertTokenizer) == (family != "distilbert")
    for text in HARD:
        assert checkpoints.ids_of(loaded, text) == rust.encode(text).ids, text


@pytest.mark.parametrize("form", ["tokenizer.json", "added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_have_their_ids(checkpoints, tmp_path, form):
    count = len(checkpoints.words)
    rust = checkpoints.word_piece_json(added=["[E1]", AddedToken("<url>", single_word=True)])
    added = {
        "tokenizer.json": {"tokenizer": rust},
        "added_tokens.json": {"added_tokens": {"<url>": count + 1, "[E1]": count}},
        "added_tokens_decoder": {
            "tokenizer_config": {
                "added_tokens_decoder": {
                    str(count): {"content": "[E1]"},
                    str(count + 1): {"content": "<url>", "single_word": True},
                }
            }
        },
    }[form]
    config = {"vocab_size": count + 2, "max_position_embeddings": 80}
    folder, *_ = checkpoints.write(tmp_path / "x", config=config, **added)
    loaded = load(folder)
    for text in HARD:
        assert checkpoints.ids_of(loaded, text) == rust.encode(text).ids, text
    good, film = checkpoints.words.index("good"), checkpoints.words.index("film")
    assert checkpoints.ids_of(loaded, "good [E1] film <url>") == [2, good, count, film, count + 1, 3]
    # It is the same model after it was saved.
    model = fe.build_model(folder)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras")
    for one in (model, again):
        assert one.encode(["good [E1] film"]).features["token_ids"].tolist() == [2, good, count, film, 3]


def test_other_special_tokens_are_put_around_a_text(checkpoints, tmp_path):
    words = ["<cls>", "<sep>", "<unk>", "<pad>", *checkpoints.words[4:]]
    names = {"cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>", "pad_token": "<pad>"}
    for source in ("tokenizer_config", "special_tokens_map"):
        folder, *_ = checkpoints.write(
            tmp_path / source,
            files={"vocab.txt": "\n".join(words)},
            config={"vocab_size": len(words)},
            **{source: {**names, "mask_token": {"content": "[MASK]", "lstrip": False}}},
        )
        ids = checkpoints.ids_of(load(folder), "good zzz <sep> film")
        assert [words[i] for i in ids] == ["<cls>", "good", "<unk>", "<sep>", "film", "<sep>"]


def test_a_text_that_spells_a_special_token_is_not_masked(checkpoints, tmp_path):
    """transformers attends to it, for the mask says how long the text is; KerasHub takes it for padding."""
    folder, config, tensors = checkpoints.write(tmp_path / "x")
    loaded = load(folder)
    ids = checkpoints.ids_of(loaded, "good [PAD] film")
    assert ids == [2, 6, 0, 8, 3]
    expected = checkpoints.by_hand(tensors, config, ids)
    np.testing.assert_allclose(checkpoints.features_of(loaded, "good [PAD] film"), expected, atol=3e-5)


def test_special_tokens_of_a_text_are_split_where_that_is_declared(checkpoints, tmp_path):
    rust = checkpoints.word_piece_json()
    folder, *_ = checkpoints.write(
        tmp_path / "x", tokenizer=rust, tokenizer_config={"split_special_tokens": True}
    )
    rust.encode_special_tokens = True
    words = [checkpoints.words[i] for i in checkpoints.ids_of(load(folder), "e [SEP]")]
    assert words == ["[CLS]", "e", "[", "[UNK]", "]", "[SEP]"]
    model = fe.build_model(folder)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras").encode(["e [SEP]"]).features["token_ids"].tolist()
    assert again == rust.encode("e [SEP]").ids


@pytest.mark.parametrize("where", ["tokenizer_config", "tokenizer.json"])
def test_the_declared_end_of_a_long_text_is_dropped(checkpoints, tmp_path, where):
    text = "a good bad film the was very not warm"
    rust = checkpoints.word_piece_json()
    rust.enable_truncation(6, direction="left" if where == "tokenizer.json" else "right")
    side = {"truncation_side": "left"} if where == "tokenizer_config" else {}
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer=rust, tokenizer_config=side)
    loaded = load(folder, sequence_length=6)
    words = [checkpoints.words[i] for i in checkpoints.ids_of(loaded, text)]
    assert words == ["[CLS]", "was", "very", "not", "warm", "[SEP]"]
    rust.enable_truncation(6, direction="left")
    assert checkpoints.ids_of(loaded, text) == rust.encode(text).ids
    assert (
        len(checkpoints.ids_of(load(folder, sequence_length=7), text)) == 7
    )  # the JSON's length is nobody's


def test_of_a_long_text_the_head_and_the_tail_are_read(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x")
    text = "a good bad film the was very not warm"  # nine tokens; with seven there is room for five
    model = fe.build_model(folder, sequence_length=7, long_text="head_tail")
    sentence = "`x`: 1 of 2 texts is longer than 7 tokens; only its first 1 and last 4 tokens are read."
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        answers = model.predict([text, "a film"], verbose=0)
    short = fe.build_model(folder)
    short.set_weights(model.get_weights())
    np.testing.assert_allclose(
        short.predict(["a was very not warm", "a film"], verbose=0), answers, atol=1e-6
    )
    model.save(tmp_path / "m.keras")
    for loaded in (model, fe.load_model(tmp_path / "m.keras")):
        ids = loaded.encode([text]).features["token_ids"]
        assert [checkpoints.words[i] for i in ids] == ["[CLS]", "a", "was", "very", "not", "warm", "[SEP]"]
    np.testing.assert_array_equal(np.asarray(model.tokens([text])["token_ids"])[0], ids)  # in a graph
    assert (
        len(fe.build_model(folder, sequence_length=7, long_text="cut").encode([text]).features["token_ids"])
        == 7
    )


def test_what_is_read_of_a_long_text_needs_our_tokens(tiny):
    backbone, preprocessor = tiny.bert()
    with pytest.raises(ValueError, match="^`long_text` needs a checkpoint whose tokens this library counts"):
        fe.build_model(backbone, preprocessor=preprocessor, long_text="head_tail")
    with pytest.raises(
        ValueError, match="^`long_text` must be one of 'cut', 'head_tail', 'windows'; got 'middle'."
    ):
        fe.build_model(backbone, preprocessor=preprocessor, long_text="middle")


@pytest.mark.parametrize("name", ["model_max_length", "max_len"])
def test_the_longest_input_is_the_tokenizers_where_nobody_else_says_one(checkpoints, tmp_path, name):
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer_config={name: 7})
    assert load(folder).preprocessor.sequence_length == 7
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    assert load(folder).preprocessor.sequence_length == 9
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(
        '{"model_max_length": 1e30}'
    )  # as transformers writes: none
    assert load(folder).preprocessor.sequence_length == 20


def test_of_a_token_that_is_there_twice_the_last_line_holds(checkpoints, tmp_path):
    """As in transformers, which reads the lines into a dictionary."""
    words = [*checkpoints.words, "good"]
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        files={"vocab.txt": "".join(f"{word}\n" for word in words)},
        config={"vocab_size": len(words)},
    )
    assert checkpoints.ids_of(load(folder), "good film") == [2, len(words) - 1, 8, 3]


def test_a_post_processor_with_other_tokens_is_honoured(checkpoints, tmp_path):
    rust = checkpoints.word_piece_json()
    rust.post_processor = tokenizers.processors.TemplateProcessing(
        single="[MASK] [CLS] $A", special_tokens=[("[CLS]", 2), ("[MASK]", 4)]
    )
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer=rust)
    loaded = load(folder)
    assert checkpoints.ids_of(loaded, "good film") == rust.encode("good film").ids == [4, 2, 6, 8]


def test_a_tokenizer_of_another_kind_is_run_from_its_json(checkpoints, tmp_path):
    """Nothing of it is BERT's: a list of whole words, split at white space, capitals kept."""
    words = ["[UNK]", "[CLS]", "[SEP]", "Good", "film"]
    rust = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    rust.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        tokenizer=rust,
        config={"vocab_size": 5},
        tokenizer_config={
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
        },
    )
    loaded = load(folder)
    assert isinstance(loaded.preprocessor.tokenizer, HuggingFaceTokenizer)
    assert checkpoints.ids_of(loaded, "Good good film") == [1, 3, 0, 4, 2]


# --- what is refused ---


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "BertweetTokenizer", "MyTokenizer"])
def test_a_tokenizer_class_whose_words_cannot_be_made_is_refused(checkpoints, tmp_path, name):
    rule = (
        f"declares the tokenizer class {name}, whose words cannot be made here; those of BertTokenizer, "
        "DistilBertTokenizer, ElectraTokenizer, RobertaTokenizer, XLMRobertaTokenizer, CamembertTokenizer, "
        "AlbertTokenizer can."
    )
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer_config={"tokenizer_class": name})
    refused(folder, rule, "tokenizer_config.json")
    folder, *_ = checkpoints.write(
        tmp_path / "y", config={"tokenizer_class": name}, tokenizer_config={"do_lower_case": True}
    )
    refused(folder, rule, "config.json")


def test_a_class_that_reads_tokenizer_json_alone_needs_one(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(
        tmp_path / "x", tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    sentence = (
        f"`backbone` {str(folder)!r} declares the tokenizer class PreTrainedTokenizerFast, which is read "
        f"from "
        "tokenizer.json alone, and has none; save one with `AutoTokenizer` of transformers."
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize(
    "normalizer, settings, rule",
    [
        (
            {"lowercase": False},
            {"do_lower_case": True},
            "declares `do_lower_case`: true, but tokenizer.json does not do so;",
        ),
        ({}, {"do_lower_case": False}, "declares `do_lower_case`: false, but tokenizer.json does so;"),
        (
            {"strip_accents": False},
            {"do_lower_case": True, "strip_accents": None},
            "declares `strip_accents`: null, but tokenizer.json does not do so;",
        ),
        (
            {"strip_accents": False},
            {"strip_accents": True},
            "declares `strip_accents`: true, but tokenizer.json does not do so;",
        ),
        (
            {"handle_chinese_chars": False},
            {"tokenize_chinese_chars": True},
            "declares `tokenize_chinese_chars`: true, but tokenizer.json does not do so;",
        ),
    ],
)
def test_two_files_that_normalise_in_other_ways_are_refused(
    checkpoints, tmp_path, normalizer, settings, rule
):
    rust = checkpoints.word_piece_json(**normalizer)
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer=rust, tokenizer_config=settings)
    refused(folder, f"{rule} they would give other token ids: make them agree.", "tokenizer_config.json")
    folder, *_ = checkpoints.write(tmp_path / "y", tokenizer=rust, tokenizer_config={})  # one says nothing
    loaded = load(folder)
    for text in HARD[:8]:
        assert checkpoints.ids_of(loaded, text)[:20] == rust.encode(text).ids[:20], text


def test_settings_of_bert_mean_nothing_to_another_tokenizer(checkpoints, tmp_path):
    """paraphrase-multilingual-MiniLM-L12-v2 has `do_lower_case: true`, and its tokenizer keeps capitals."""
    files, _ = checkpoints.older_files("xlm-roberta")
    both = [
        checkpoints.write(
            tmp_path / str(number),
            files={**files, "vocab.txt": None},
            config={"vocab_size": 90},
            tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer", **more},
        )[0]
        for number, more in enumerate(({}, {"do_lower_case": True, "strip_accents": True}))
    ]
    one, other = (checkpoints.ids_of(load(folder), "A Good é film") for folder in both)
    assert one == other and 3 in one


def test_add_prefix_space_of_two_files_must_agree(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        "roberta",
        tokenizer=byte_pairs_json(checkpoints),
        tokenizer_config={"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True},
    )
    rule = (
        "declares `add_prefix_space`: true, but tokenizer.json does not do so; they would give other token "
        "ids: "
        "make them agree."
    )
    refused(folder, rule, "tokenizer_config.json")


def test_a_vocabulary_with_more_tokens_than_embeddings_is_refused(checkpoints, tmp_path):
    count = len(checkpoints.words)
    sentence = (
        "The vocabulary of `backbone` {!r} gives {!r} the id {}, but config.json declares {} tokens, so it "
        "has no "
        "embedding; the files are of different models, or the embeddings were not resized when tokens were "
        "added."
    )
    folder, *_ = checkpoints.write(tmp_path / "x", config={"vocab_size": count - 2})
    with pytest.raises(ValueError, match=exactly(sentence.format(str(folder), "é", count - 2, count - 2))):
        load(folder)
    rust = checkpoints.word_piece_json(added=["[E1]"])
    folder, *_ = checkpoints.write(tmp_path / "y", tokenizer=rust)
    with pytest.raises(ValueError, match=exactly(sentence.format(str(folder), "[E1]", count, count))):
        load(folder)


@pytest.mark.parametrize("kept", [1, 5, 6, 12, -1])
def test_a_vocabulary_that_was_cut_is_refused(checkpoints, tmp_path, kept):
    words = checkpoints.words[:kept]
    folder, *_ = checkpoints.write(
        tmp_path / "x", files={"vocab.txt": "".join(f"{word}\n" for word in words)}
    )
    if kept == 1:
        rule = "has no [UNK], the token of unknown words; it is not whole, or of another model."
    else:
        rule = (
            f"has {len(words)} tokens, but config.json declares {len(checkpoints.words)}; it was cut, or is "
            f"of "
            "another model: download it again. If the embeddings were padded on purpose, add a line for "
            "each row "
            "that is left over."
        )
    refused(folder, rule, "vocab.txt")


def test_two_vocabularies_of_other_words_are_refused(checkpoints, tmp_path):
    """Unused lines of a vocab.txt are often edited; transformers then reads the old tokenizer.json."""
    words = [*checkpoints.words[:-1], "cinema"]
    folder, *_ = checkpoints.write(
        tmp_path / "x", tokenizer=checkpoints.word_piece_json(), files={"vocab.txt": "\n".join(words)}
    )
    rule = "has other words than tokenizer.json, or in another order; delete the one that does not hold."
    refused(folder, rule, "vocab.txt")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in checkpoints.words))
    assert checkpoints.ids_of(load(folder), "good film") == [2, 6, 8, 3]


def test_embeddings_may_be_padded_where_the_vocabulary_cannot_be_cut(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(
        tmp_path / "x", tokenizer=checkpoints.word_piece_json(), config={"vocab_size": 32}
    )
    assert checkpoints.ids_of(load(folder), "good film") == [2, 6, 8, 3]


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]"])
def test_a_vocabulary_without_the_tokens_around_a_text_is_refused(checkpoints, tmp_path, token):
    words = [f"{word}?" if word == token else word for word in checkpoints.words]
    folder, *_ = checkpoints.write(tmp_path / "x", files={"vocab.txt": "\n".join(words)})
    sentence = (
        f"The vocabulary of `backbone` {str(folder)!r} has no {token}, which is put around every text; the "
        f"file "
        "is not whole, or of another model."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


def test_a_list_of_merges_that_was_cut_is_refused(checkpoints, tmp_path):
    lines = "\n".join(("#version: 0.2", *checkpoints.merges[:3], ""))
    folder, *_ = checkpoints.write(tmp_path / "x", "roberta", files={"merges.txt": lines})
    rule = (
        "makes none of 2 tokens that vocab.json has, such as 'Ġgood': it was cut, or is of another model. "
        "Download it again."
    )
    refused(folder, rule, "merges.txt")
    (folder / "merges.txt").write_text(lines + "Ġ goo")  # in the middle of a line
    with pytest.raises(ValueError, match="^merges.txt of `backbone` .* makes none of 2 tokens"):
        load(folder)
    (folder / "merges.txt").write_text(lines + "Ġ")
    refused(folder, "has the line 'Ġ', which is no pair; it is damaged or cut.", "merges.txt")
    (folder / "merges.txt").write_text("\n".join((*checkpoints.merges, "q w")))
    with pytest.raises(ValueError, match=r"^merges.txt of `backbone` .* does not fit vocab.json \(.*qw"):
        load(folder)


@pytest.mark.parametrize(
    "family, file", [("xlm-roberta", "sentencepiece.bpe.model"), ("albert", "spiece.model")]
)
def test_a_damaged_sentencepiece_model_is_refused(checkpoints, tmp_path, family, file):
    folder, *_ = checkpoints.write(tmp_path / "x", family)
    whole = (folder / file).read_bytes()
    for size in np.linspace(1, len(whole) - 1, 20).astype(int):
        (folder / file).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"^({file} of |The vocabulary of )`backbone` "):
            load(folder)


def test_a_sentencepiece_model_of_another_kind_is_refused(checkpoints, tmp_path):
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(checkpoints.pieces["albert"])
    proto.trainer_spec.model_type = 2  # BPE
    folder, *_ = checkpoints.write(
        tmp_path / "x", "albert", files={"spiece.model": proto.SerializeToString()}
    )
    rule = "is no Unigram model of SentencePiece; save a tokenizer.json with `AutoTokenizer` of transformers."
    refused(folder, rule, "spiece.model")


def test_a_tokenizer_json_that_is_none_is_refused(checkpoints, tmp_path):
    broken = json.loads(checkpoints.word_piece_json().to_str())
    broken["model"]["type"] = "Nothing"
    folder, *_ = checkpoints.write(tmp_path / "x", files={"tokenizer.json": json.dumps(broken)})
    with pytest.raises(
        ValueError, match=r"^tokenizer.json of `backbone` .* is no tokenizer that tokenizers \d"
    ):
        load(folder)
    dropping = json.loads(byte_pairs_json(checkpoints).to_str())
    dropping["model"]["dropout"] = 0.1
    folder, *_ = checkpoints.write(tmp_path / "y", "roberta", files={"tokenizer.json": json.dumps(dropping)})
    rule = "declares a dropout of its model: every reading of a text would give other ids. Set it to null."
    refused(folder, rule, "tokenizer.json")


def test_a_post_processor_that_does_more_is_refused(checkpoints, tmp_path):
    rust = checkpoints.word_piece_json()
    rust.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS]:0 $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer=rust)
    rule = (
        "has a post_processor that does something else than put special tokens of type 0 around a text, "
        "which is "
        "not computed here."
    )
    refused(folder, rule, "tokenizer.json")


@pytest.mark.parametrize(
    "settings, special, rule, file",
    [
        (
            {"cls_token": "[MASK]"},
            {},
            "declares `cls_token` as '[MASK]', which the post_processor of tokenizer.json "
            "does not put there; make them agree.",
            "tokenizer_config.json",
        ),
        (
            {"unk_token": "[PAD]"},
            {},
            "declares `unk_token` as '[PAD]', but tokenizer.json as '[UNK]'; make them agree.",
            "tokenizer_config.json",
        ),
        (
            {"sep_token": "[SEP]"},
            {"sep_token": "[MASK]"},
            "declares `sep_token` as '[MASK]', but tokenizer_config.json as '[SEP]'; make them agree.",
            "special_tokens_map.json",
        ),
        (
            {},
            {"sep_token": 3},
            "declares `sep_token` as 3; it must be a token's text.",
            "special_tokens_map.json",
        ),
        (
            {"added_tokens_decoder": {"26": {"content": "good"}}},
            {},
            "gives the added token 'good' the id 26, but "
            "the vocabulary gives it 6; a vocabulary file is not whole, or of another model.",
            "tokenizer_config.json",
        ),
        (
            {"added_tokens_decoder": {"x": "good"}},
            {},
            "declares an `added_tokens_decoder` that is no map from ids to tokens.",
            "tokenizer_config.json",
        ),
        (
            {"additional_special_tokens": "<x>"},
            {},
            "declares `additional_special_tokens` as '<x>'; it must be a list of tokens.",
            "tokenizer_config.json",
        ),
        (
            {"truncation_side": "middle"},
            {},
            "declares `truncation_side` as 'middle'; it must be one of 'left', 'right'.",
            "tokenizer_config.json",
        ),
        (
            {"model_max_length": 0},
            {},
            "declares `model_max_length` as 0; it must be a whole number of at least 3.",
            "tokenizer_config.json",
        ),
    ],
)
def test_declarations_that_contradict_the_tokenizer_are_refused(
    checkpoints, tmp_path, settings, special, rule, file
):
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        tokenizer=checkpoints.word_piece_json(),
        tokenizer_config=settings,
        special_tokens_map=special,
    )
    refused(folder, rule, file)


@pytest.mark.parametrize(
    "added, rule",
    [
        (
            {"[E1]": 30},
            "gives the added token '[E1]' the id 30, but the vocabulary gives it 26; a "
            "vocabulary file "
            "is not whole, or of another model.",
        ),
        ({"[E1]": "26"}, "gives '[E1]' the id '26'; it must be a whole number."),
    ],
)
def test_added_tokens_with_wrong_ids_are_refused(checkpoints, tmp_path, added, rule):
    folder, *_ = checkpoints.write(tmp_path / "x", added_tokens=added, config={"vocab_size": 40})
    refused(folder, rule, "added_tokens.json")
