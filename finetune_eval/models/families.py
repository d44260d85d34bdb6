"""The families of Hugging Face encoders that are read: names of fields and of tensors, as data.

References: the configuration and modelling files of transformers 4.57 and 5.24, which agree on all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune_eval.models import backbones
from finetune_eval.models.checkpoint_files import CheckpointFiles, Tensors

_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
# More layers than any encoder has; a number beyond it is damage, and would be built for hours.
_MOST_LAYERS = 1000
# Where each part of an encoder layer lies in KerasHub's `TransformerEncoder`.
_LAYER_PARTS = {
    "query": ("_self_attention_layer", "query_dense"),
    "key": ("_self_attention_layer", "key_dense"),
    "value": ("_self_attention_layer", "value_dense"),
    "attention_output": ("_self_attention_layer", "output_dense"),
    "attention_norm": ("_self_attention_layer_norm",),
    "inner": ("_feedforward_intermediate_dense",),
    "output": ("_feedforward_output_dense",),
    "output_norm": ("_feedforward_layer_norm",),
}
# What a layer is called in a checkpoint, its parts in the order of `_LAYER_PARTS`.
_BERT_LAYER = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT_LAYER = (
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip
_ALBERT_LAYER = (
    "attention.query", "attention.key", "attention.value", "attention.dense",
    "attention.LayerNorm", "ffn", "ffn_output", "full_layer_layer_norm",
)  # fmt: skip
# Arguments of a backbone, the field of config.json that gives each, and transformers' default.
_BERT_SIZES = {
    "vocabulary_size": ("vocab_size", 30522),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "hidden_dim": ("hidden_size", 768),
    "intermediate_dim": ("intermediate_size", 3072),
    "max_sequence_length": ("max_position_embeddings", 512),
    "num_segments": ("type_vocab_size", 2),
}
_DISTILBERT_SIZES = {
    "vocabulary_size": ("vocab_size", 30522),
    "num_layers": ("n_layers", 6),
    "num_heads": ("n_heads", 12),
    "hidden_dim": ("dim", 768),
    "intermediate_dim": ("hidden_dim", 3072),
    "max_sequence_length": ("max_position_embeddings", 512),
}
_ELECTRA_SIZES = {
    **_BERT_SIZES,
    "num_heads": ("num_attention_heads", 4),
    "hidden_dim": ("hidden_size", 256),
    "intermediate_dim": ("intermediate_size", 1024),
    "embedding_dim": ("embedding_size", 128),
}
_ALBERT_SIZES = {
    **_BERT_SIZES,
    "vocabulary_size": ("vocab_size", 30000),
    "num_heads": ("num_attention_heads", 64),
    "hidden_dim": ("hidden_size", 4096),
    "intermediate_dim": ("intermediate_size", 16384),
    "embedding_dim": ("embedding_size", 128),
    "num_groups": ("num_hidden_groups", 1),
    "num_inner_repetitions": ("inner_group_num", 1),
}


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one `model_type` are written.

    Attributes:
        name: What people call it.
        backbone: The class that computes it.
        prefix: What tensor names begin with, unless the model was saved from its base class.
        tokenizer: The class of `tokenizer_config.json` where none is declared.
        sizes: Backbone argument -> (field of config.json, transformers' default).
        layer: Names of an encoder layer's parts, in the order of `_LAYER_PARTS`.
        layers: Where the layers lie; "{}" is a layer's number, or a group's and a layer's (ALBERT).
        projection: The dense layer between embeddings and encoder, if there is one.
        pooler: The pooler's dense layer, which nothing here uses, if the family has one.
        activation: The field of the activation, and transformers' default.
        epsilon: The default of layer_norm_eps.
        rates: Fields of the dropout rates of layers and of attention, and their default.
        aliases: Other names of fields that transformers takes.
        positions_after_padding: Whether positions are counted from pad_token_id + 1 and token types, of which
            there is no input, are always row 0.
    """

    name: str
    backbone: Any
    prefix: str
    tokenizer: str
    sizes: Mapping[str, tuple[str, int]] = field(default_factory=lambda: _BERT_SIZES)
    layer: tuple[str, ...] = _BERT_LAYER
    layers: str = "encoder.layer.{}."
    projection: str | None = None
    pooler: str | None = None
    activation: tuple[str, str] = ("hidden_act", "gelu")
    epsilon: float = 1e-12
    rates: tuple[str, str, float] = ("hidden_dropout_prob", "attention_probs_dropout_prob", 0.1)
    aliases: Mapping[str, str] = field(default_factory=dict)
    positions_after_padding: bool = False


# What to do with folders of families that people ask for and that are not read.
INSTEAD = {
    "deberta-v2": "Of DeBERTa-v3 pass a KerasHub preset, such as 'deberta_v3_small_en', or its `keras_hub` "
    "backbone with `preprocessor`.",
    "modernbert": "ModernBERT is not in KerasHub (0.32), so nothing here computes it: choose one of these.",
}

FAMILIES = {
    "bert": Family("BERT", backbones.BertBackbone, "bert.", "BertTokenizer", pooler="pooler.dense"),
    "distilbert": Family(
        "DistilBERT",
        backbones.DistilBertBackbone,
        "distilbert.",
        "DistilBertTokenizer",
        sizes=_DISTILBERT_SIZES,
        layer=_DISTILBERT_LAYER,
        layers="transformer.layer.{}.",
        activation=("activation", "gelu"),
        rates=("dropout", "attention_dropout", 0.1),
        aliases={"dim": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"},
    ),
    "electra": Family(
        "ELECTRA",
        backbones.ElectraBackbone,
        "electra.",
        "ElectraTokenizer",
        sizes=_ELECTRA_SIZES,
        projection="embeddings_project",
    ),
    "roberta": Family(
        "RoBERTa",
        backbones.RobertaBackbone,
        "roberta.",
        "RobertaTokenizer",
        sizes={**_BERT_SIZES, "vocabulary_size": ("vocab_size", 50265)},
        pooler="pooler.dense",
        positions_after_padding=True,
    ),
    "xlm-roberta": Family(
        "XLM-RoBERTa",
        backbones.XLMRobertaBackbone,
        "roberta.",
        "XLMRobertaTokenizer",
        pooler="pooler.dense",
        positions_after_padding=True,
    ),
    "camembert": Family(
        "CamemBERT",
        backbones.RobertaBackbone,
        "roberta.",
        "CamembertTokenizer",
        pooler="pooler.dense",
        positions_after_padding=True,
    ),
    "albert": Family(
        "ALBERT",
        backbones.AlbertBackbone,
        "albert.",
        "AlbertTokenizer",
        sizes=_ALBERT_SIZES,
        layer=_ALBERT_LAYER,
        layers="encoder.albert_layer_groups.{}.albert_layers.{}.",
        projection="encoder.embedding_hidden_mapping_in",
        pooler="pooler",
        activation=("hidden_act", "gelu_new"),
        rates=("hidden_dropout_prob", "attention_probs_dropout_prob", 0.0),
    ),
}
# Tensors of pre-training heads, which no classifier needs.
_PRETRAINING_HEADS = (
    "cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "predictions.",
    "sop_classifier.", "discriminator_predictions.", "generator_predictions.", "generator_lm_head.",
)  # fmt: skip
# Numbers that transformers once saved with the weights, and makes anew.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def load_backbone(
    files: CheckpointFiles, config: Mapping[str, Any], family: Family, dropout: float | None
) -> tuple[Any, list[str]]:
    """Make a family's backbone as config.json declares it, with the checkpoint's weights.

    Args:
        files: The checkpoint.
        config: Its config.json.
        family: Of `FAMILIES`.
        dropout: Replaces every declared dropout rate; None keeps them.

    Returns:
        The backbone, and the names of tensors outside of the encoder that no pre-training head explains.

    Raises:
        ValueError: A declared value is impossible, or the weights are not those of the declared encoder.
        FileNotFoundError: There are no weights in safetensors.
    """
    config = {**{name: config[alias] for name, alias in family.aliases.items() if alias in config}, **config}
    sizes = {argument: _size(files, config, *of) for argument, of in family.sizes.items()}
    _check_sizes(files, family, sizes)
    offset = 0
    if family.positions_after_padding:
        offset = _size(files, config, "pad_token_id", 1, minimum=0) + 1
    positions = sizes["max_sequence_length"]
    if positions - offset < 3:  # a start token, one token of text, an end token
        raise files.error("config.json", f"declares {positions} positions, of which {offset} are not used.")
    tensors = files.tensors()
    prefix = _prefix(files, family, tensors)
    reader = _Reader(tensors, prefix)
    _check_shapes(reader, family, sizes)
    arguments = {**sizes, "max_sequence_length": positions - offset}
    if family.positions_after_padding:
        del arguments["num_segments"]
    if family.backbone is backbones.ElectraBackbone:
        arguments["vocab_size"] = arguments.pop("vocabulary_size")
    backbone = family.backbone(**arguments, **_settings(files, config, family, dropout))
    _read_embeddings(reader, backbone, family, sizes, offset)
    for place, layer in _numbered(backbone, family):
        for part, name in zip(_LAYER_PARTS, family.layer, strict=True):
            target = layer
            for attribute in _LAYER_PARTS[part]:
                target = getattr(target, attribute)
            (reader.norm if part.endswith("norm") else reader.dense)(target, place + name)
    return backbone, _others(files, family, tensors, reader)


def _size(
    files: CheckpointFiles, config: Mapping[str, Any], name: str, default: int, minimum: int = 1
) -> int:
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise files.error(
            "config.json", f"declares `{name}` as {value!r}; it must be a whole number of at least {minimum}."
        )
    return value


def _check_sizes(files: CheckpointFiles, family: Family, sizes: Mapping[str, int]) -> None:
    """Refuse sizes that no encoder of the family can have."""
    if sizes["num_layers"] > _MOST_LAYERS:
        name = family.sizes["num_layers"][0]
        raise files.error(
            "config.json", f"declares `{name}` as {sizes['num_layers']}; no encoder is so deep."
        )
    for whole, parts in (("hidden_dim", "num_heads"), ("num_layers", "num_groups")):
        if sizes[whole] % sizes.get(parts, 1):
            of_whole, of_parts = family.sizes[whole][0], family.sizes[parts][0]
            raise files.error(
                "config.json",
                f"declares `{of_whole}` as {sizes[whole]}, which `{of_parts}`, {sizes[parts]}, does not "
                "divide.",
            )


def _check_shapes(reader: _Reader, family: Family, sizes: Mapping[str, int]) -> None:
    """Refuse sizes that are not those of the weights, before memory is taken for them."""
    width = sizes.get("embedding_dim", sizes["hidden_dim"])
    reader.check(_WORDS, (sizes["vocabulary_size"], width))
    reader.check(_POSITIONS, (sizes["max_sequence_length"], width))
    if "num_segments" in sizes:
        reader.check(_TYPES, (sizes["num_segments"], width))
    groups = sizes.get("num_groups")
    last = [sizes["num_layers"]] if groups is None else [groups, sizes["num_inner_repetitions"]]
    place = family.layers.format(*(count - 1 for count in last))
    inner = family.layer[list(_LAYER_PARTS).index("inner")]
    reader.check(f"{place}{inner}.weight", (sizes["intermediate_dim"], sizes["hidden_dim"]))


def _settings(
    files: CheckpointFiles, config: Mapping[str, Any], family: Family, dropout: float | None
) -> dict[str, Any]:
    """Return the activation, epsilon and dropout rates for the backbone."""

    def number(name: str, default: float, below: float, above: float | None = None) -> float:
        value = config.get(name)
        value = default if value is None else value
        usable = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (usable and 0 <= value < below and value != above):
            least = "at least" if above is None else "above"
            raise files.error(
                "config.json",
                f"declares `{name}` as {value!r}; it must be a number {least} 0 and below {below:g}.",
            )
        return float(value)

    of_layers, of_attention, default = family.rates
    name, default_activation = family.activation
    activation = config.get(name)
    return {
        "hidden_act": default_activation if activation is None else activation,
        # transformers computes every DistilBERT with 1e-12, whatever is declared.
        "layer_norm_eps": family.epsilon
        if family.name == "DistilBERT"
        else number("layer_norm_eps", family.epsilon, 1, above=0),
        "dropout": number(of_layers, default, 1) if dropout is None else dropout,
        "attention_dropout": number(of_attention, default, 1) if dropout is None else dropout,
    }


def _prefix(files: CheckpointFiles, family: Family, tensors: Tensors) -> str:
    """Return what the encoder's tensor names begin with: the family's prefix, nothing, or the only one."""
    found = [name.removesuffix(_WORDS) for name in tensors if name.endswith(_WORDS)]
    for prefix in (family.prefix, ""):
        if prefix in found:
            return prefix
    if len(found) == 1:
        return found[0]
    rule = f"has several encoders ({', '.join(map(repr, sorted(found)))})" if found else f"holds no {_WORDS}"
    raise files.error(
        "model.safetensors", f"{rule}; the encoder of {family.name} is one, named {family.prefix}{_WORDS}."
    )


class _Reader:
    """Reads tensors into a backbone's variables, and keeps which tensors it has read."""

    def __init__(self, tensors: Tensors, prefix: str):
        self.tensors, self.prefix = tensors, prefix
        self.read_names: set[str] = set()

    def has(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        if not self.has(name):
            raise self.tensors.files.error(
                "model.safetensors",
                f"has no tensor {self.prefix}{name}, which config.json declares; the two are of different "
                "models, or the file is not whole.",
            )
        self.tensors.check(self.prefix + name, shape)

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        self.check(name, shape)
        self.read_names.add(self.prefix + name)
        return self.tensors.read(self.prefix + name, shape)

    def dense(self, layer: Any, name: str) -> None:
        inputs, outputs = _in_and_out(layer)
        kernel = self.array(f"{name}.weight", (outputs, inputs))
        layer.kernel.assign(np.reshape(kernel.T, layer.kernel.shape))
        layer.bias.assign(np.reshape(self.array(f"{name}.bias", (outputs,)), layer.bias.shape))

    def norm(self, layer: Any, name: str) -> None:
        # Checkpoints that came from TensorFlow call weight and bias gamma and beta; transformers reads both.
        scale, shift = ("gamma", "beta") if self.has(f"{name}.gamma") else ("weight", "bias")
        layer.gamma.assign(self.array(f"{name}.{scale}", tuple(layer.gamma.shape)))
        layer.beta.assign(self.array(f"{name}.{shift}", tuple(layer.beta.shape)))


def _in_and_out(layer: Any) -> tuple[int, int]:
    """Return the widths of what a dense layer takes and gives; an attention's come in heads."""
    outputs = int(np.prod(layer.bias.shape))
    return int(np.prod(layer.kernel.shape)) // outputs, outputs


def _read_embeddings(
    reader: _Reader, backbone: Any, family: Family, sizes: Mapping[str, int], offset: int
) -> None:
    width = sizes.get("embedding_dim", sizes["hidden_dim"])
    tokens = (sizes["vocabulary_size"], width)
    backbone.token_embedding.embeddings.assign(reader.array(_WORDS, tokens))
    places = (sizes["max_sequence_length"], width)
    positions = reader.array(_POSITIONS, places)[offset:]
    if "num_segments" in sizes:
        types = reader.array(_TYPES, (sizes["num_segments"], width))
        if family.positions_after_padding:
            positions = positions + types[0]  # every token has a position, and is of type 0
        else:
            backbone.segment_embedding.embeddings.assign(types)
    both = getattr(backbone, "embeddings", backbone)  # one layer of tokens and positions, or two
    both.position_embedding.position_embeddings.assign(positions)
    reader.norm(backbone.embeddings_layer_norm, "embeddings.LayerNorm")
    if family.projection is not None and hasattr(backbone, "embeddings_projection"):
        reader.dense(backbone.embeddings_projection, family.projection)
    if hasattr(backbone, "pooled_dense"):
        if family.pooler is not None and reader.has(f"{family.pooler}.weight"):
            reader.dense(backbone.pooled_dense, family.pooler)
        else:  # nothing here reads a pooler: let a missing one be seen, and be the same every time
            for variable in (backbone.pooled_dense.kernel, backbone.pooled_dense.bias):
                variable.assign(np.zeros(variable.shape))


def _numbered(backbone: Any, family: Family) -> Iterator[tuple[str, Any]]:
    """Yield where each encoder layer lies in the checkpoint, and the layer."""
    for number, layer in enumerate(backbone.transformer_layers):
        if isinstance(layer, list):
            for inner, shared in enumerate(layer):
                yield family.layers.format(number, inner), shared
        else:
            yield family.layers.format(number), layer


def _others(files: CheckpointFiles, family: Family, tensors: Tensors, reader: _Reader) -> list[str]:
    """Return tensors of heads; refuse one inside the encoder that was not read: it would change the numbers.

    Layers beyond those that config.json declares are left out, as in transformers.
    """
    heads = []
    for name in sorted(set(tensors) - reader.read_names):
        inner = name.removeprefix(reader.prefix)
        inside = inner.startswith(("embeddings", "encoder.", "transformer.")) and name.startswith(
            reader.prefix
        )
        if inside and inner not in _BUFFERS and not _beyond(inner, family, reader):
            raise files.error(
                "model.safetensors",
                f"holds {name}, which the encoder of {family.name} does not have: its numbers would "
                "be silently off.",
            )
        pooler = family.pooler is not None and inner.startswith(family.pooler + ".")
        if not inside and not pooler and not inner.startswith(_PRETRAINING_HEADS):
            heads.append(name)
    return heads


def _beyond(inner: str, family: Family, reader: _Reader) -> bool:
    """Whether a tensor is of a layer that config.json leaves out."""
    first = family.layers.split("{}")[0]
    number, _, rest = inner.removeprefix(first).partition(".")
    if not inner.startswith(first) or not number.isdecimal():
        return False
    return not any(name.startswith(f"{reader.prefix}{first}{number}.") for name in reader.read_names)
