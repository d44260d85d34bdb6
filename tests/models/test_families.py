"""Every family computes what its checkpoint declares: against a forward pass written by hand."""

import io
import json
import re
from pathlib import Path

import keras
import keras_hub
import ml_dtypes
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file, save_file

import finetune_eval as fe
from finetune_eval.models import families
from finetune_eval.models.pretrained import load_pretrained

FAMILIES = tuple(families.FAMILIES)


def load(folder, **settings):
    return load_pretrained(folder, **{"sequence_length": None, "dropout": None, **settings})


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def computes(checkpoints, folder, config, tensors):
    """Assert that a checkpoint gives the numbers by hand for every text."""
    loaded = load(folder)
    for text in checkpoints.texts:
        ids = checkpoints.ids_of(loaded, text)
        assert len(ids) > 3
        found = checkpoints.features_of(loaded, text)
        np.testing.assert_allclose(found, checkpoints.by_hand(tensors, config, ids), atol=3e-5)
    return loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_computes_what_its_checkpoint_declares(checkpoints, tmp_path, family):
    computes(checkpoints, *checkpoints.write(tmp_path / "x", family))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prefix_of_the_tensors_makes_no_difference(checkpoints, tmp_path, family):
    folders = [
        checkpoints.write(tmp_path / str(i), family, prefix=prefix)[0]
        for i, prefix in enumerate((True, False, "module."))
    ]
    one, *others = (checkpoints.features_of(load(folder), "good film") for folder in folders)
    for other in others:
        np.testing.assert_array_equal(one, other)
    assert np.abs(one).max() > 0.1


def test_two_encoders_in_one_file_are_told_apart_or_refused(checkpoints, tmp_path):
    folder, config, tensors = checkpoints.write(tmp_path / "x", "electra")
    two = {f"electra.{k}": v for k, v in tensors.items()} | {f"generator.{k}": -v for k, v in tensors.items()}
    save_file(two, folder / "model.safetensors")
    with pytest.warns(UserWarning, match=r"hold more than the encoder \(generator\.embeddings"):
        computes(checkpoints, folder, config, tensors)  # the family's own prefix
    two = {f"teacher.{k}": v for k, v in tensors.items()} | {f"student.{k}": -v for k, v in tensors.items()}
    save_file(two, folder / "model.safetensors")
    sentence = (
        f"model.safetensors of `backbone` {str(folder)!r} has several encoders ('student.', 'teacher.'); the "
        "encoder of ELECTRA is one, named electra.embeddings.word_embeddings.weight."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "albert"])
def test_a_pooler_is_read_where_there_is_one_and_not_needed(checkpoints, tmp_path, family):
    folder, config, tensors = checkpoints.write(tmp_path / "x", family)
    without = computes(checkpoints, folder, config, tensors).backbone
    name = "pooler" if family == "albert" else "pooler.dense"
    pooler = {f"{name}.weight": np.full((8, 8), 0.5, "float32"), f"{name}.bias": np.full(8, 0.25, "float32")}
    folder, *rest = checkpoints.write(tmp_path / "y", family, tensors=tensors | pooler)
    loaded = load(folder)
    np.testing.assert_array_equal(
        checkpoints.features_of(loaded, "good"), checkpoints.features_of(load(tmp_path / "x"), "good")
    )
    if hasattr(without, "pooled_dense"):  # KerasHub's RoBERTa has none
        assert not np.asarray(without.pooled_dense.kernel).any()
        assert np.asarray(loaded.backbone.pooled_dense.kernel).min() == 0.5


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_the_token_type_row_is_added_where_there_is_no_input_for_it(checkpoints, tmp_path, family):
    folder, config, tensors = checkpoints.write(tmp_path / "x", family, config={"type_vocab_size": 1})
    loaded = computes(checkpoints, folder, config, tensors)
    ids = checkpoints.ids_of(loaded, "good film")
    tensors["embeddings.token_type_embeddings.weight"] *= 0  # the numbers that KerasHub gives
    without = checkpoints.by_hand(tensors, config, ids)
    assert np.abs(checkpoints.features_of(loaded, "good film") - without).max() > 0.05


def test_the_norms_of_a_checkpoint_from_tensorflow_are_called_gamma_and_beta(checkpoints, tmp_path):
    folder, config, tensors = checkpoints.write(tmp_path / "x")
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, value in tensors.items():
        end = ".".join(name.rsplit(".", 2)[-2:])
        renamed["bert." + name.removesuffix(end) + names.get(end, end)] = value
    save_file(renamed, folder / "model.safetensors")
    computes(checkpoints, folder, config, tensors)


@pytest.mark.parametrize(
    "dtype, family", [("float16", "bert"), ("bfloat16", "roberta"), ("float64", "albert")]
)
def test_other_floating_point_weights_are_cast_and_nothing_is_lost(checkpoints, tmp_path, dtype, family):
    folder, config, tensors = checkpoints.write(tmp_path / "x", family)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    narrow = {name: value.astype(kind) for name, value in tensors.items()}
    save_file(narrow, folder / "model.safetensors")
    exact = {name: value.astype("float32") for name, value in narrow.items()}
    loaded = computes(checkpoints, folder, config, exact)
    table = np.asarray(loaded.backbone.token_embedding.embeddings)
    np.testing.assert_array_equal(table, exact["embeddings.word_embeddings.weight"])  # to the bit


def test_quantised_weights_are_refused(checkpoints, tmp_path):
    folder, _, tensors = checkpoints.write(tmp_path / "x")
    tensors["encoder.layer.0.output.dense.weight"] = np.ones((8, 12), "int8")
    save_file(tensors, folder / "model.safetensors")
    sentence = (
        f"model.safetensors of `backbone` {str(folder)!r} holds encoder.layer.0.output.dense.weight as I8; "
        f"only "
        "unquantised floating-point weights (F64, F32, F16, BF16) are read."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(checkpoints, tmp_path, value):
    folder, _, tensors = checkpoints.write(tmp_path / "x")
    tensors["encoder.layer.1.attention.self.key.bias"][3] = value
    save_file(tensors, folder / "model.safetensors")
    sentence = (
        f"model.safetensors of `backbone` {str(folder)!r} holds NaN or infinity in "
        "encoder.layer.1.attention.self.key.bias; the file is damaged, or the model diverged when it was "
        "trained."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_another_size_than_declared_are_refused(checkpoints, tmp_path, family):
    folder, config, tensors = checkpoints.write(tmp_path / "x", family)
    declared = json.dumps({**config, "max_position_embeddings": 24})
    (folder / "config.json").write_text(declared)
    narrow = config.get("embedding_size", 8)
    sentence = (
        f"model.safetensors of `backbone` {str(folder)!r} holds "
        f"{checkpoints.prefixes.get(family, family + '.')}embeddings.position_embeddings.weight of shape "
        f"(20, {narrow}), but config.json declares (24, {narrow}); they are of different models, or one of "
        f"them "
        "is damaged."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_tensor_is_refused(checkpoints, tmp_path, family):
    tensors = checkpoints.make_tensors(checkpoints.base_config(family))
    name = next(name for name in reversed(tensors) if "LayerNorm.bias" in name or "layer_norm.bias" in name)
    del tensors[name]
    folder, *_ = checkpoints.write(tmp_path / "x", family, tensors=tensors)
    with pytest.raises(
        ValueError, match=rf"has no tensor \w+\.{re.escape(name)}, which config.json declares; "
    ):
        load(folder)


@pytest.mark.parametrize(
    "family, name",
    [
        ("bert", "encoder.layer.0.attention.self.distance_embedding.weight"),  # relative positions
        ("bert", "encoder.layer.1.crossattention.self.query.weight"),
        ("bert", "embeddings.task_type_embeddings.weight"),  # ERNIE
        ("roberta", "encoder.layer.0.attention.self.query.lora_A.default.weight"),
        ("distilbert", "transformer.layer.1.adapter.weight"),
    ],
)
def test_a_tensor_that_the_encoder_does_not_have_is_refused(checkpoints, tmp_path, family, name):
    tensors = checkpoints.make_tensors(checkpoints.base_config(family)) | {name: np.zeros((8, 8), "float32")}
    folder, *_ = checkpoints.write(tmp_path / "x", family, tensors=tensors)
    title = families.FAMILIES[family].name
    sentence = (
        f"model.safetensors of `backbone` {str(folder)!r} holds {family}.{name}, which the encoder of "
        f"{title} "
        "does not have: its numbers would be silently off."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


def test_heads_of_pre_training_and_buffers_are_left_out_in_silence(checkpoints, tmp_path):
    folder, config, tensors = checkpoints.write(tmp_path / "x")
    more = {f"bert.{name}": value for name, value in tensors.items()}
    more["bert.embeddings.position_ids"] = np.arange(20)[np.newaxis]
    more["cls.predictions.bias"] = np.zeros(len(checkpoints.words), "float32")
    more["cls.seq_relationship.weight"] = np.zeros((2, 8), "float32")
    save_file(more, folder / "model.safetensors")
    computes(checkpoints, folder, config, tensors)  # a warning would be an error


def test_a_classification_head_is_named_in_a_warning(checkpoints, tmp_path):
    folder, config, tensors = checkpoints.write(tmp_path / "x")
    more = {f"bert.{name}": value for name, value in tensors.items()}
    more |= {"classifier.weight": np.zeros((2, 8), "float32"), "classifier.bias": np.zeros(2, "float32")}
    save_file(more, folder / "model.safetensors")
    sentence = (
        f"The weights of `backbone` {str(folder)!r} hold more than the encoder (classifier.bias, "
        "classifier.weight), which is not loaded; the classifier's head is new, and knows nothing until it "
        "is "
        "trained."
    )
    with pytest.warns(UserWarning, match=exactly(sentence)):
        loaded = load(folder)
    ids = checkpoints.ids_of(loaded, "good film")
    expected = checkpoints.by_hand(tensors, config, ids)
    np.testing.assert_allclose(checkpoints.features_of(loaded, "good film"), expected, atol=3e-5)


@pytest.mark.parametrize(
    "family, changes, rule",
    [
        (
            "bert",
            {"num_attention_heads": 3},
            "declares `hidden_size` as 8, which `num_attention_heads`, 3, does not divide.",
        ),
        (
            "albert",
            {"num_hidden_layers": 3, "num_hidden_groups": 2},
            "declares `num_hidden_layers` as 3, which `num_hidden_groups`, 2, does not divide.",
        ),
        (
            "bert",
            {"hidden_size": "8"},
            "declares `hidden_size` as '8'; it must be a whole number of at least 1.",
        ),
        (
            "bert",
            {"num_hidden_layers": True},
            "declares `num_hidden_layers` as True; it must be a whole number of at least 1.",
        ),
        ("distilbert", {"n_layers": 0}, "declares `n_layers` as 0; it must be a whole number of at least 1."),
        (
            "bert",
            {"layer_norm_eps": 0},
            "declares `layer_norm_eps` as 0; it must be a number above 0 and below 1.",
        ),
        (
            "bert",
            {"layer_norm_eps": "1e-12"},
            "declares `layer_norm_eps` as '1e-12'; it must be a number above 0 and below 1.",
        ),
        (
            "bert",
            {"hidden_dropout_prob": 1},
            "declares `hidden_dropout_prob` as 1; it must be a number at least 0 and below 1.",
        ),
        (
            "distilbert",
            {"attention_dropout": -0.1},
            "declares `attention_dropout` as -0.1; it must be a number at least 0 and below 1.",
        ),
        ("roberta", {"max_position_embeddings": 4}, "declares 4 positions, of which 2 are not used."),
        (
            "roberta",
            {"pad_token_id": 0},
            "declares `pad_token_id` as 0, but the tokenizer pads with 1; positions "
            "are counted from it, so make them agree.",
        ),
    ],
)
def test_a_declared_number_that_cannot_be_is_refused(checkpoints, tmp_path, family, changes, rule):
    folder, config, _ = checkpoints.write(tmp_path / "x", family)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=exactly(f"config.json of `backbone` {str(folder)!r} {rule}")):
        load(folder)


@pytest.mark.parametrize(
    "family, name",
    [
        *(("bert", name) for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")),
        *(("roberta", name) for name in ("max_position_embeddings", "type_vocab_size")),
        *(("albert", name) for name in ("num_hidden_layers", "inner_group_num", "embedding_size")),
        ("distilbert", "hidden_dim"),
    ],
)
def test_a_size_beyond_all_memory_is_refused_before_it_is_taken(checkpoints, tmp_path, family, name):
    folder, config, _ = checkpoints.write(tmp_path / "x", family)
    (folder / "config.json").write_text(json.dumps({**config, name: 4_000_000_000_000}))
    with pytest.raises(ValueError, match="^(config.json|model.safetensors) of `backbone` "):
        load(folder)


def test_a_family_that_is_not_read_is_refused(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x", config={"model_type": "mpnet"}, tensors={})
    sentence = (
        f"config.json of `backbone` {str(folder)!r} declares `model_type` as 'mpnet'; the Hugging Face "
        f"encoders "
        "that are read are 'bert', 'distilbert', 'electra', 'roberta', 'xlm-roberta', 'camembert', "
        "'albert'. For "
        "another, make its `keras_hub` backbone and preprocessor, and pass those."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        load(folder)


def test_the_page_has_every_family():
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = page.split("## Families")[1].split("## Weights")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if "| `" in line][
        1:
    ]
    known = {f"`{name}`": family.name for name, family in families.FAMILIES.items()}
    read = {kind: name for name, kind, how in rows if not how.startswith("not read")}
    assert read == known
    assert {kind.strip("`") for _, kind, how in rows if how.startswith("not read")} == set(families.INSTEAD)


@pytest.mark.parametrize(
    "name, instead",
    [
        (
            "deberta-v2",
            "Of DeBERTa-v3 pass a KerasHub preset, such as 'deberta_v3_small_en', or its `keras_hub` "
            "backbone with `preprocessor`.",
        ),
        (
            "modernbert",
            "ModernBERT is not in KerasHub (0.32), so nothing here computes it: choose one of these.",
        ),
    ],
)
def test_a_family_that_people_ask_for_is_refused_with_what_to_do(checkpoints, tmp_path, name, instead):
    folder, *_ = checkpoints.write(tmp_path / "x", config={"model_type": name}, tensors={})
    with pytest.raises(
        ValueError, match=rf"declares `model_type` as '{name}'; .*'albert'. {exactly(instead)[1:]}"
    ):
        load(folder)
    assert "deberta_v3_small_en" in keras_hub.models.Backbone.presets
    assert not hasattr(keras_hub.models, "ModernBertBackbone")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # KerasHub's, where it loads the pieces
def test_a_backbone_of_debertas_from_kerashub_is_trained_and_saved(tmp_path):
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a good film .", "a bad film !", "the film was very good"] * 30),
        model_writer=pieces, hard_vocab_limit=False, vocab_size=40, model_type="unigram", minloglevel=2,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]", user_defined_symbols=["[MASK]"],
    )  # fmt: skip
    tokenizer = keras_hub.models.DebertaV3Tokenizer(proto=pieces.getvalue())
    backbone = keras_hub.models.DebertaV3Backbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8,
        intermediate_dim=12, max_sequence_length=16, bucket_size=8,
    )  # fmt: skip
    preprocessor = keras_hub.models.DebertaV3TextClassifierPreprocessor(tokenizer, sequence_length=16)
    model = fe.build_model(backbone, preprocessor=preprocessor)
    texts, before = ["a good film", "a bad film"] * 4, backbone.get_weights()
    fe.fine_tune(model, texts, [1, 0] * 4, epochs=1, learning_rate=1e-2, verbose=False)
    assert any((one != other).any() for one, other in zip(before, backbone.get_weights(), strict=True))
    model.save(tmp_path / "m.keras")
    expected = model.predict(texts, verbose=0)
    np.testing.assert_array_equal(fe.load_model(tmp_path / "m.keras").predict(texts, verbose=0), expected)


@pytest.mark.parametrize(
    "family",  # each is computed by hand above; most have the layers of these two
    [pytest.param(each, marks=[pytest.mark.slow] * (each not in ("bert", "albert"))) for each in FAMILIES],
)
def test_a_classifier_of_every_family_trains_and_comes_back(checkpoints, tmp_path, family):
    folder, *_ = checkpoints.write(tmp_path / "x", family)
    texts = ["good film", "a bad film", "very good", "the film was bad"] * 4
    model = fe.build_model(folder)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    model.fit(texts, [1, 0, 1, 0] * 4, epochs=2, verbose=0)
    before = model.predict(texts[:4], verbose=0)
    assert np.isfinite(before).all() and np.ptp(before[:, 0]) > 0
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(fe.load_model(tmp_path / "m.keras").predict(texts[:4], verbose=0), before)


def test_the_family_of_a_saved_preset_is_a_backbone_again(checkpoints, tmp_path):
    folder, *_ = checkpoints.write(tmp_path / "x", "roberta")
    fe.build_model(folder).save_to_preset(str(tmp_path / "preset"))
    again = load(tmp_path / "preset")
    np.testing.assert_array_equal(
        checkpoints.features_of(again, "good film"), checkpoints.features_of(load(folder), "good film")
    )


def test_a_checkpoint_in_shards_is_read(checkpoints, tmp_path):
    folder, config, tensors = checkpoints.write(tmp_path / "x")
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(stored)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: stored[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    computes(checkpoints, folder, config, tensors)
