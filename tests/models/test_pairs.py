"""Pairs of texts in a model: ids as the `tokenizers` package puts two texts together, and every door."""

import re
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tokenizers

import finetune_eval as fe
from finetune_eval import _checks
from finetune_eval.models.build import load_model, pretrained_features
from finetune_eval.models.ensemble import average_of
from finetune_eval.models.pretrained import load_pretrained
from finetune_eval.models.tracing import trace_prediction

LONG = "the film was very good not bad a film the cafe was warm"
PAIRS = [
    ("a good film", "bad"),
    ("good", LONG),
    (LONG, "not bad"),
    (LONG, f"{LONG} {LONG}"),
    (f"{LONG} {LONG}", LONG),
    (LONG, LONG),
    ("", "good"),
    ("good", ""),
]


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def processors(family, checkpoints):
    """What `transformers` puts around two texts, in the words of the `tokenizers` package."""
    if family in ("roberta", "xlm-roberta", "camembert"):
        size = len(checkpoints.byte_pairs)
        return tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0)), size
    return (
        tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        ),
        len(checkpoints.words),
    )


def of_family(family, checkpoints, folder):
    """Write a checkpoint with a tokenizer.json; return its folder and its `tokenizers.Tokenizer`."""
    if family == "roberta":
        vocabulary = {token: number for number, token in enumerate(checkpoints.byte_pairs)}
        merges = [tuple(merge.split(" ")) for merge in checkpoints.merges]
        rust = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
        rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    else:
        rust = checkpoints.word_piece_json()
    rust.post_processor, _ = processors(family, checkpoints)
    return checkpoints.write(folder, family, tokenizer=rust)[0], rust


def ids_and_types(preprocessor, pairs):
    features = {name: np.asarray(value) for name, value in preprocessor(tf.constant(pairs)).items()}
    rows = features["padding_mask"].astype(bool)
    types = features.get("segment_ids", np.zeros(rows.shape, int))
    return [(features["token_ids"][i][row].tolist(), types[i][row].tolist()) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("family", "side"),
    [("bert", "right"), ("bert", "left"), ("distilbert", "right"), ("electra", "right"), ("roberta", "left")],
)
def test_ids_and_types_are_those_of_the_tokenizers_package(family, side, checkpoints, tmp_path):
    folder, rust = of_family(family, checkpoints, tmp_path / "model")
    loaded = load_pretrained(folder, sequence_length=None, dropout=None)
    reader = loaded.preprocessor
    reader.pairs, reader.truncation_side = True, side
    for length in (20, 8, 7):
        reader.sequence_length = length
        rust.no_padding()
        rust.enable_truncation(length, strategy="longest_first", direction=side)
        whole = [rust.encode(*pair) for pair in PAIRS]
        # What a backbone without token types is not given, transformers does not give it either.
        typed = "segment_ids" in loaded.backbone.input
        expected = [(one.ids, one.type_ids if typed else [0] * len(one.ids)) for one in whole]
        assert ids_and_types(reader, PAIRS) == expected


@pytest.mark.parametrize(
    ("family", "between", "types"),
    [
        ("bert", [3], 1), ("distilbert", [3], 1), ("electra", [3], 1), ("roberta", [2, 2], 0),
        ("xlm-roberta", [2, 2], 0), ("camembert", [6, 6], 0), ("albert", [3], 1),
    ],
)  # fmt: skip
def test_older_files_put_two_texts_together_as_their_class_does(
    family, between, types, checkpoints, tmp_path
):
    # transformers: BERT [CLS] a [SEP] b [SEP] with types 0 and 1; RoBERTa <s> a </s></s> b </s>, types 0.
    folder, _, _ = checkpoints.write(tmp_path / "model", family)
    reader = load_pretrained(folder, sequence_length=None, dropout=None).preprocessor
    assert reader.between == reader.after * len(between) and reader.second_type == types
    if family != "camembert":
        assert reader.between == between


def test_what_no_model_of_pairs_can_be_made_of_is_one_sentence(checkpoints, tiny, tmp_path):
    single = checkpoints.word_piece_json()  # its post_processor knows single texts only
    alone, _, _ = checkpoints.write(tmp_path / "alone", tokenizer=single)
    with pytest.raises(
        ValueError,
        match=exactly(
            "`pairs` needs a checkpoint that declares how two texts are put together; the tokenizer of "
            f"'{alone}' declares no form that is computed here. Join the two texts instead."
        ),
    ):
        fe.build_model(alone, pairs=True)
    one_type, _, _ = checkpoints.write(tmp_path / "one", config={"type_vocab_size": 1})
    with pytest.raises(
        ValueError,
        match=exactly(
            f"`pairs` needs a model that knows two kinds of tokens; '{one_type}' declares `type_vocab_size` "
            "1. Join the two texts instead."
        ),
    ):
        fe.build_model(one_type, pairs=True)
    needs = (
        "`pairs` needs a checkpoint whose tokens this library counts: the embedded model, or one in Hugging "
        "Face's format. Leave it out, or join the two texts."
    )
    with pytest.raises(ValueError, match=exactly(needs)):
        tiny.text_classifier(pairs=True)
    with pytest.raises(ValueError, match=exactly(needs)):
        tiny.numeric_classifier(pairs=True)
    both, _, _ = checkpoints.write(tmp_path / "both")
    with pytest.raises(
        ValueError,
        match=exactly("`long_text` 'head_tail' is of single texts; of pairs the longer text is cut."),
    ):
        fe.build_model(both, pairs=True, long_text="head_tail")
    with pytest.raises(
        ValueError,
        match=exactly(
            "`sequence_length` must be at least 5 for pairs: special tokens and one token of each text; "
            "got 4."
        ),
    ):
        fe.build_model(both, pairs=True, sequence_length=4)


@pytest.fixture(scope="module")
def model(checkpoints, tmp_path_factory):
    """A BERT of pairs with random weights."""
    folder, _, _ = checkpoints.write(tmp_path_factory.mktemp("pairs") / "bert")
    made = fe.build_model(folder, ["no", "yes"], pairs=True, dropout=0.0)
    kernel = made.get_layer("logits").kernel
    kernel.assign(np.random.default_rng(1).normal(0, 1, kernel.shape))
    return made


SHORT = [("a good film", "bad"), ("good", "the film was warm"), ("not bad", "a film"), ("a film", "not bad")]


def test_a_prediction_is_the_head_on_the_encoder_with_both_types(model, checkpoints, tmp_path):
    _, config, tensors = checkpoints.write(tmp_path / "same")
    table = tensors["embeddings.token_type_embeddings.weight"]
    ids, types = [2, 5, 6, 8, 3, 7, 3], [0, 0, 0, 0, 0, 1, 1]
    # `by_hand` adds type 0 to every token: what type 1 has more is put into the position embeddings.
    positions = tensors["embeddings.position_embeddings.weight"].copy()
    positions[: len(types)] += (table[1] - table[0]) * np.array(types)[:, np.newaxis]
    tokens = checkpoints.by_hand({**tensors, "embeddings.position_embeddings.weight": positions}, config, ids)
    logits = tokens.mean(axis=0) @ np.asarray(model.get_layer("logits").kernel)
    powers = np.exp(logits - logits.max())
    np.testing.assert_allclose(model.predict(SHORT[:1], verbose=0)[0], powers / powers.sum(), atol=1e-5)


def test_every_form_at_every_door_gives_the_same(model):
    expected = model.predict(SHORT, verbose=0)
    assert np.abs(expected[2] - expected[3]).max() > 1e-3  # the order of the two texts counts
    forms = [
        np.array(SHORT),
        pd.DataFrame(SHORT, columns=["first", "second"]),
        [f"{first} ||| {second}" for first, second in SHORT],
        tf.data.Dataset.from_tensor_slices(np.array(SHORT)).batch(3),
    ]
    for form in forms:
        np.testing.assert_allclose(model.predict(form, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(model(SHORT)), expected, atol=1e-6)


def test_a_model_of_single_texts_refuses_pairs_and_a_model_of_pairs_single_texts(model, tiny):
    single = tiny.text_classifier()
    sentence = (
        "`x` holds two texts a row, and this model reads one; build it with `build_model(..., pairs=True)`, "
        "or join the two."
    )
    for x in (SHORT, np.array(SHORT), pd.DataFrame(SHORT), [SHORT[0]]):
        with pytest.raises(TypeError, match=exactly(sentence)):
            single.predict(x)
    assert single.predict(["a good film", "bad"], verbose=0).shape == (2, 2)  # two rows, never a pair
    for x in (["a good film", "bad"], SHORT[0], (["a", "b"], ["c", "d"]), {"x": ["a"]}):
        with pytest.raises(TypeError, match="^`x` "):
            model.predict(x)
    for data in (
        tf.data.Dataset.from_tensor_slices(["a", "b"]).batch(2),
        tf.data.Dataset.from_tensors({"a": ["b"]}),
    ):
        with pytest.raises((TypeError, ValueError), match="^`x` "):
            model.predict(data)


def test_the_count_of_cut_pairs_is_said(model):
    with pytest.warns(_checks.TextsCut) as caught:
        model.predict([*PAIRS[:3], (LONG, LONG)], verbose=0)
    assert str(caught[0].message) == (
        "`x`: 1 of 4 pairs of texts is longer than 20 tokens; the longer text of a pair is cut first."
    )


def test_a_trace_follows_both_texts(model):
    trace = trace_prediction(model, SHORT[0])
    assert trace.tokens == ("[CLS]", "a", "good", "film", "[SEP]", "bad", "[SEP]")
    assert trace.text == "a good film ||| bad" and trace.check < 1e-6 and trace.tokens_cut == 0
    assert trace_prediction(model, "a good film ||| bad") == trace
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trace_prediction(model, (LONG, LONG)).tokens_cut == 2 * len(LONG.split()) + 3 - 20
    with pytest.raises(TypeError, match="`text` must hold two texts a row"):
        trace_prediction(model, "one text")


def test_a_saved_model_reads_pairs_to_the_bit(model, tmp_path):
    expected = model.predict(SHORT, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(str(tmp_path / "preset"))
    for place in ("model.keras", "preset"):
        again = load_model(tmp_path / place)
        assert again.takes_pairs and np.array_equal(again.predict(SHORT, verbose=0), expected)
    of_own = fe.build_model(tmp_path / "preset", 3)
    assert of_own.takes_pairs and of_own.predict(SHORT, verbose=0).shape == (4, 3)


def test_an_average_and_features_of_models_of_pairs_read_pairs(model):
    both = average_of([model, model])
    np.testing.assert_allclose(both.predict(SHORT, verbose=0), model.predict(SHORT, verbose=0), atol=1e-6)
    assert model.takes_pairs
    features = pretrained_features(model)
    assert np.array_equal(features(SHORT), features(["{} ||| {}".format(*pair) for pair in SHORT]))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere Keras exports tokens in")
def test_an_exported_model_takes_pairs(model, tmp_path):
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served")).serve(tf.constant(SHORT))
    np.testing.assert_allclose(np.asarray(served), model.predict(SHORT, verbose=0), atol=1e-6)
