"""Pooling, length, case and prompt, as sentence-transformers 5 and 6 write them."""

import re

import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.models.pretrained import load_pretrained

ROOT = "sentence_transformers.models"
OLD = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "last": "lasttoken"}
NEW = {"cls": "cls", "mean": "mean", "max": "max", "last": "lasttoken"}


def load(folder, **settings):
    return load_pretrained(folder, **{"sequence_length": None, "dropout": None, **settings})


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def modules(*kinds):
    """Return a modules.json: (type, path) each."""
    return [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in enumerate(kinds)]


def pooling_files(values):
    import json

    return {"1_Pooling/config.json": json.dumps({"word_embedding_dimension": 8, **values})}


@pytest.mark.parametrize("pooling", OLD)
@pytest.mark.parametrize("form", ["booleans", "a name", "a list"])
def test_the_declared_pooling_is_used_in_its_old_and_new_form(checkpoints, tmp_path, form, pooling):
    booleans = {f"pooling_mode_{name}": key == pooling for key, name in OLD.items()}
    values = {"booleans": booleans, "a name": {"pooling_mode": NEW[pooling]}, "a list": {
        "pooling_mode": [NEW[pooling]], "pooling_mode_mean_tokens": True,  # the new form replaces the old
    }}[form]  # fmt: skip
    folder, *_ = checkpoints.write(tmp_path / "x", files=pooling_files(values))
    loaded = load(folder)
    assert loaded.pooling == pooling
    model = fe.build_model(folder)
    assert model.pooling == pooling
    tokens = checkpoints.features_of(loaded, "good film was")
    expected = {"cls": tokens[0], "mean": tokens.mean(axis=0), "max": tokens.max(axis=0), "last": tokens[-1]}
    import keras

    inner = keras.Model(model.input, model.get_layer("pooling").output)
    found = np.asarray(inner(model.encode(["good film was"]).take(np.array([0]))))[0]
    np.testing.assert_allclose(found, expected[pooling], atol=1e-5)


@pytest.mark.parametrize(
    "values, shown",
    [
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len_tokens"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["cls", "max"]}, "cls + max"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls + mean"),
        ({"pooling_mode": 3}, "3"),
    ],
)
def test_a_pooling_we_do_not_have_is_refused_unless_another_is_asked_for(
    checkpoints, tmp_path, values, shown
):
    folder, *_ = checkpoints.write(tmp_path / "x", files=pooling_files(values))
    sentence = (
        f"1_Pooling/config.json of `backbone` {str(folder)!r} declares the pooling {shown}, which is not "
        "supported; pass `pooling` as one of 'mean', 'cls', 'max', 'last'."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.build_model(folder)
    for pooling in ("mean", "cls", "max", "last"):
        assert fe.build_model(folder, pooling=pooling).pooling == pooling


def test_no_pooling_at_all_is_the_mean_as_in_sentence_transformers(checkpoints, tmp_path):
    values = {f"pooling_mode_{name}": False for name in OLD.values()}
    folder, *_ = checkpoints.write(tmp_path / "x", files=pooling_files(values))
    assert fe.build_model(folder).pooling == "mean"


def test_the_pooling_is_read_from_the_folder_that_modules_json_names(checkpoints, tmp_path):
    for root in (f"{ROOT}.Transformer", "sentence_transformers.base.modules.transformer.Transformer"):
        kinds = modules((root, ""), (f"{ROOT}.Pooling", "7_Pool"), (f"{ROOT}.Normalize", "2_Normalize"))
        folder, *_ = checkpoints.write(
            tmp_path / root,
            modules=kinds,
            files={"7_Pool/config.json": '{"pooling_mode_max_tokens": true}', **pooling_files({})},
        )
        assert load(folder).pooling == "max"


@pytest.mark.parametrize(
    "kinds, rule",
    [
        (
            [
                (f"{ROOT}.Transformer", ""),
                (f"{ROOT}.WeightedLayerPooling", "1_W"),
                (f"{ROOT}.Pooling", "2_P"),
            ],
            f"has the module '{ROOT}.WeightedLayerPooling' in '1_W' before the pooling, which is not "
            f"computed "
            "here; pass `pooling` to do without.",
        ),
        (
            [(f"{ROOT}.Transformer", ""), (f"{ROOT}.Dense", "1_Dense"), (f"{ROOT}.Pooling", "2_P")],
            f"has the module '{ROOT}.Dense' in '1_Dense' before the pooling, which is not computed here; "
            f"pass "
            "`pooling` to do without.",
        ),
        (
            [("custom_st.Thing", "")],
            "has the module 'custom_st.Thing' in '' before the pooling, which is not computed here; pass "
            "`pooling` to do without.",
        ),
        (
            [(f"{ROOT}.Transformer", ""), (f"{ROOT}.Pooling", "../1_Pooling")],
            "names the folder '../1_Pooling', which is not one in the checkpoint.",
        ),
        (
            [(f"{ROOT}.Transformer", ""), (f"{ROOT}.Pooling", "..")],
            "names the folder '..', which is not one in the checkpoint.",
        ),
    ],
)
def test_modules_that_change_what_is_pooled_are_refused(checkpoints, tmp_path, kinds, rule):
    folder, *_ = checkpoints.write(tmp_path / "x", modules=modules(*kinds))
    with pytest.raises(ValueError, match=exactly(f"modules.json of `backbone` {str(folder)!r} {rule}")):
        load(folder)
    assert fe.build_model(folder, pooling="cls").pooling == "cls"


@pytest.mark.parametrize("broken", [[3], [{"type": 3, "path": ""}], [{"type": "a.Transformer"}]])
def test_a_modules_json_of_something_else_is_refused(checkpoints, tmp_path, broken):
    folder, *_ = checkpoints.write(tmp_path / "x", modules=broken)
    rule = f"holds {broken[0]!r}, which is no module with a type and a path."
    with pytest.raises(ValueError, match=exactly(f"modules.json of `backbone` {str(folder)!r} {rule}")):
        load(folder)


def test_the_declared_length_is_used(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(
        tmp_path / "x", sentence_bert_config={"max_seq_length": 9}, tokenizer_config={"model_max_length": 15}
    )
    assert load(folder).preprocessor.sequence_length == 9
    assert load(folder, sequence_length=12).preprocessor.sequence_length == 12
    folder, *_ = checkpoints.write(tmp_path / "y", sentence_bert_config={"max_seq_length": "9"})
    rule = "declares `max_seq_length` as '9'; it must be a whole number of at least 3."
    sentence = f"sentence_bert_config.json of `backbone` {str(folder)!r} {rule}"
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


def test_text_is_lower_cased_first_where_that_is_declared(checkpoints, tmp_path):
    """By Python, before special tokens are found: "[SEP]" becomes a word like any other."""
    tokenizer = checkpoints.word_piece_json(lowercase=False)
    folder, *_ = checkpoints.write(
        tmp_path / "x", tokenizer=tokenizer, tokenizer_config={},
        sentence_bert_config={"max_seq_length": 16, "do_lower_case": True},
    )  # fmt: skip
    loaded = load(folder)
    for text in ("Good FILM", "good [SEP] É"):
        assert checkpoints.ids_of(loaded, text) == tokenizer.encode(text.lower()).ids
    assert checkpoints.words[checkpoints.ids_of(loaded, "Good")[1]] == "good"
    model = fe.build_model(folder)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras").encode(["Good FILM"]).features["token_ids"].tolist()
    assert again == tokenizer.encode("good film").ids


def test_the_default_prompt_is_put_before_every_text(checkpoints, tmp_path):
    prompts = {"prompts": {"query": "a very ", "other": "bad "}, "default_prompt_name": "query"}
    folder, *_ = checkpoints.write(tmp_path / "x", config_sentence_transformers=prompts)
    plain, *_ = checkpoints.write(
        tmp_path / "y", config_sentence_transformers={**prompts, "default_prompt_name": None}
    )
    assert checkpoints.ids_of(load(folder), "good") == checkpoints.ids_of(load(plain), "a very good")
    assert checkpoints.ids_of(load(plain), "good") == [2, 6, 3]
    model = fe.build_model(folder)
    model.save(tmp_path / "m.keras")
    again = fe.load_model(tmp_path / "m.keras")
    assert again.encode(["good"]).features["token_ids"].tolist() == checkpoints.ids_of(load(folder), "good")
    folder, *_ = checkpoints.write(tmp_path / "z", config_sentence_transformers={"default_prompt_name": "no"})
    sentence = (
        f"config_sentence_transformers.json of `backbone` {str(folder)!r} declares the default prompt 'no', "
        f"which "
        "its `prompts` do not have as a text."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)
