"""Tiny Hugging Face folders of every family, and what they compute by hand: written without the library."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import tokenizers
from safetensors.numpy import save_file

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "the", "was", "very", "not"),
    *("##s", ".", ",", "!", "warm", "cafe", "[", "]", "e", "##1", "Good", "é", "中"),
)
# The bytes that GPT-2 shows as themselves; the others become letters from code point 256 on.
_SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = [*map(chr, _SHOWN), *(chr(256 + i) for i in range(256 - len(_SHOWN)))]
MERGES = ("g o", "o d", "go od", "Ġ good", "Ċ Ċ")  # Ġ is a space, Ċ a line break
BYTE_PAIRS = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, *(m.replace(" ", "") for m in MERGES), "<mask>"]
SENTENCES = (
    *("a good film .", "a bad film !", "the film was very good", "not good at all"),
    *("warm and honest film", "the cafe was bad", 'quote " marks'),
)
TEXTS = ("Good film.", "the café was very BAD", "good good")
FAMILIES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert", "albert")


def _train(**settings):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 30), model_writer=model, hard_vocab_limit=False, vocab_size=80,
        model_type="unigram", minloglevel=2, num_threads=1, **settings,
    )  # fmt: skip
    return model.getvalue()


_OWN_PIECES = {
    "albert": {
        "pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>", "unk_piece": "<unk>",
        "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"],
    },
    "xlm-roberta": {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
}  # fmt: skip


class _Pieces:
    """SentencePiece models, trained when they are asked for."""

    def __init__(self):
        self._made = {}

    def __getitem__(self, family):
        if family == "camembert":
            family = "xlm-roberta"  # the same file, numbered in another way
        if family not in self._made:
            self._made[family] = _train(**_OWN_PIECES[family])
        return self._made[family]

    def processor(self, family):
        return sentencepiece.SentencePieceProcessor(model_proto=self[family])


PIECES = _Pieces()


def vocabulary_size(family):
    if family in ("bert", "distilbert", "electra"):
        return len(WORDS)
    if family == "roberta":
        return len(BYTE_PAIRS)
    more = {"xlm-roberta": 2, "camembert": 5, "albert": 0}[family]
    return PIECES.processor(family).get_piece_size() + more


def base_config(family):
    """Return a config.json: 8 wide, 2 layers, 2 heads, 20 positions."""
    if family == "distilbert":
        sizes = {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "activation": "gelu"}
    else:
        sizes = {
            "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
            "hidden_act": "gelu", "type_vocab_size": 2, "layer_norm_eps": 1e-3,
        }  # fmt: skip
    if family in ("electra", "albert"):
        sizes["embedding_size"] = 6
    if family == "albert":
        sizes |= {"num_hidden_groups": 1, "inner_group_num": 1}
    return {
        "model_type": family, "vocab_size": vocabulary_size(family), "max_position_embeddings": 20, **sizes
    }  # fmt: skip


_NAMES = {
    "distilbert": (
        "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
        "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
    ),
    "albert": (
        "encoder.albert_layer_groups.{}.albert_layers.{}.", "attention.query", "attention.key",
        "attention.value", "attention.dense", "attention.LayerNorm", "ffn", "ffn_output",
        "full_layer_layer_norm",
    ),
}  # fmt: skip
_BERT_NAMES = (
    "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
    "output.LayerNorm",
)  # fmt: skip


def _sizes(config):
    width = config.get("dim", config.get("hidden_size"))
    return SimpleNamespace(
        width=width,
        narrow=config.get("embedding_size", width),
        inner=config.get("hidden_dim", config.get("intermediate_size")),
        layers=config.get("n_layers", config.get("num_hidden_layers")),
        heads=config.get("n_heads", config.get("num_attention_heads")),
    )


def _places(config, count):
    """Return the prefix of each stored layer of `count`; ALBERT's lie in groups."""
    name = _NAMES.get(config["model_type"], _BERT_NAMES)[0]
    if config["model_type"] != "albert":
        return [name.format(layer) for layer in range(count)]
    groups, inner = config["num_hidden_groups"], config["inner_group_num"]
    return [name.format(group, layer) for group in range(groups) for layer in range(inner)]


def make_tensors(config, seed=0, layers=None):
    """Return random weights under the names that transformers gives them, without the prefix."""
    family, size, random = config["model_type"], _sizes(config), np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], size.narrow),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], size.narrow),
    }
    if "type_vocab_size" in config:
        shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], size.narrow)
    norms = [("embeddings.LayerNorm", size.narrow)]
    dense = []
    if family == "electra" and size.narrow != size.width:
        dense.append(("embeddings_project", size.narrow, size.width))
    if family == "albert":
        dense.append(("encoder.embedding_hidden_mapping_in", size.narrow, size.width))
    _, *names = _NAMES.get(family, _BERT_NAMES)
    for place in _places(config, size.layers if layers is None else layers):
        inputs = [size.width] * 5 + [size.inner]
        outputs = [size.width] * 4 + [size.inner, size.width]
        denses = [*names[:4], names[5], names[6]]
        dense += [(place + n, i, o) for n, i, o in zip(denses, inputs, outputs, strict=True)]
        norms += [(place + names[4], size.width), (place + names[7], size.width)]
    for name, inputs, outputs in dense:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)
    for name, width in norms:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)
    return {name: random.normal(0, 1, shape).astype("float32") for name, shape in shapes.items()}


ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    # Hendrycks & Gimpel 2016, the approximation by tanh.
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def by_hand(tensors, config, ids):
    """Return the last layer's (tokens, width) of one row without padding.

    Devlin et al. 2019; Liu et al. 2019 (positions from pad_token_id + 1); Lan et al. 2020 (shared layers);
    Clark et al. 2020 (narrow embeddings).
    """
    w = {name: value.astype("float64") for name, value in tensors.items()}
    family, size = config["model_type"], _sizes(config)
    eps = 1e-12 if family == "distilbert" else config["layer_norm_eps"]
    activation = ACTIVATIONS[config.get("activation", config.get("hidden_act"))]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(ids), size.heads, -1).transpose(1, 0, 2)

    first = 1 + config.get("pad_token_id", 1) if family in ("roberta", "xlm-roberta", "camembert") else 0
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][first : first + len(ids)]
    if "type_vocab_size" in config:
        x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for name in ("embeddings_project", "encoder.embedding_hidden_mapping_in"):
        if f"{name}.weight" in w:
            x = dense(x, name)
    places = _places(config, size.layers)
    if (
        family == "albert"
    ):  # layer i is of group i // (layers / groups), and every layer of a group is applied
        inner, each = config["inner_group_num"], size.layers // config["num_hidden_groups"]
        groups = [places[i : i + inner] for i in range(0, len(places), inner)]
        places = [place for group in groups for _ in range(each) for place in group]
    _, query, key, value, mix, norm_1, up, down, norm_2 = _NAMES.get(family, _BERT_NAMES)
    for place in places:
        q, k, v = (heads(dense(x, place + name)) for name in (query, key, value))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (powers / powers.sum(axis=-1, keepdims=True)) @ v
        x = norm(x + dense(mixed.transpose(1, 0, 2).reshape(len(ids), -1), place + mix), place + norm_1)
        x = norm(x + dense(activation(dense(x, place + up)), place + down), place + norm_2)
    return x


PREFIXES = {"xlm-roberta": "roberta.", "camembert": "roberta."}


def older_files(family):
    """Return the vocabulary files of a family as transformers 4 saves them, and its tokenizer class."""
    if family in ("bert", "distilbert", "electra"):
        files = {"vocab.txt": "".join(f"{word}\n" for word in WORDS)}
        name = {"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra"}[family]
    elif family == "roberta":
        vocabulary = {token: number for number, token in enumerate(BYTE_PAIRS)}
        files = {
            "vocab.json": json.dumps(vocabulary),
            "merges.txt": "\n".join(("#version: 0.2", *MERGES, "")),
        }
        name = "Roberta"
    else:
        files = {"spiece.model" if family == "albert" else "sentencepiece.bpe.model": PIECES[family]}
        name = {"xlm-roberta": "XLMRoberta", "camembert": "Camembert", "albert": "Albert"}[family]
    return files, f"{name}Tokenizer"


def word_piece_json(words=WORDS, added=(), around=True, **normalizer):
    """Return a BERT tokenizer of the `tokenizers` package."""
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(**normalizer)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    if around:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.add_tokens(list(added))
    return made


def write(
    folder, family="bert", *, config=None, tensors=None, prefix=True, layers=None, tokenizer=None, files=None,
    **json_files,
):  # fmt: skip
    """Write a checkpoint; return (folder, config, tensors), the tensors without prefix.

    Args:
        folder: Where; it must not exist.
        family: One of FAMILIES.
        config: Changes of the config.json; None removes a field.
        tensors: The weights, without prefix; None for random ones.
        prefix: Whether their names begin with the family's prefix; or the prefix.
        layers: How many layers have weights; None for as many as are declared.
        tokenizer: A `tokenizers.Tokenizer`, saved in place of the older files.
        files: Name -> text or bytes of other files; None removes one.
        **json_files: tokenizer_config and the like: name without ".json" -> what it holds.
    """
    folder.mkdir()
    config = {**base_config(family), **(config or {})}
    config = {name: value for name, value in config.items() if value is not None}
    if tensors is None:
        tensors = make_tensors(config, layers=layers)
    begin = prefix if isinstance(prefix, str) else PREFIXES.get(family, f"{family}.") if prefix else ""
    save_file({begin + name: value for name, value in tensors.items()}, folder / "model.safetensors")
    own, name = older_files(family)
    if tokenizer is not None:
        own = {"tokenizer.json": tokenizer.to_str()}
    json_files.setdefault("tokenizer_config", {"tokenizer_class": name})
    texts = {f"{name}.json": json.dumps(value) for name, value in json_files.items() if value is not None}
    for file, content in {**own, "config.json": json.dumps(config), **texts, **(files or {})}.items():
        place = folder / file
        place.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            place.write_text(content, encoding="utf-8")
        elif content is not None:
            place.write_bytes(content)
        else:
            place.unlink(missing_ok=True)
    return folder, config, tensors


def ids_of(loaded, text):
    """Return the ids of a text without padding, as its row of the mask says."""
    features = loaded.preprocessor([text])
    return np.asarray(features["token_ids"])[0][np.asarray(features["padding_mask"])[0].astype(bool)].tolist()


def features_of(loaded, text):
    """Return (tokens, width): the last layer for the tokens of a text."""
    features = {name: np.asarray(value) for name, value in loaded.preprocessor([text]).items()}
    inputs = {name: features[name].astype("int32") for name in loaded.backbone.input}
    output = loaded.backbone(inputs)
    sequence = output["sequence_output"] if isinstance(output, dict) else output
    return np.asarray(sequence)[0][features["padding_mask"][0].astype(bool)]


@pytest.fixture(scope="session")
def checkpoints():
    """What writes tiny checkpoints, and computes them by hand."""
    return SimpleNamespace(
        families=FAMILIES,
        texts=TEXTS,
        words=WORDS,
        byte_pairs=BYTE_PAIRS,
        merges=MERGES,
        pieces=PIECES,
        write=write,
        base_config=base_config,
        make_tensors=make_tensors,
        by_hand=by_hand,
        older_files=older_files,
        word_piece_json=word_piece_json,
        ids_of=ids_of,
        features_of=features_of,
        prefixes=PREFIXES,
    )
