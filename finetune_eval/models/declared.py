"""What a checkpoint's files may declare, and what becomes of it: honoured, refused, or without effect.

`FIELDS` is the table of docs/checkpoints.md: `python -m finetune_eval.models.declared` prints it. "Without
effect" means: no number that a fine-tuned classifier computes depends on it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.families import FAMILIES

HONOURED, REFUSED, WITHOUT_EFFECT = "honoured", "refused", "without effect"
ALL = tuple(FAMILIES)
_BERT_LIKE = ("bert", "electra", "roberta", "xlm-roberta", "camembert", "albert")
_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})
# Values that are shown in an error are cut there.
_SHOWN = 60


@dataclass(frozen=True)
class Field:
    """A field of one of a checkpoint's files.

    Attributes:
        file: The file's name.
        names: The field's name, or the names of fields that are treated alike.
        treatment: HONOURED, REFUSED or WITHOUT_EFFECT.
        note: What it does, or why it is refused and what to do.
        families: The families that it is a field of.
        accepted: Of a refused field: the values that change nothing, and are taken.
    """

    file: str
    names: tuple[str, ...]
    treatment: str
    note: str
    families: tuple[str, ...] = ALL
    accepted: tuple[Any, ...] = _NOTHING


def _honoured(file: str, names: str, note: str, families: tuple[str, ...] = ALL) -> Field:
    return Field(file, tuple(names.split()), HONOURED, note, families)


def _refused(
    file: str, names: str, note: str, accepted: tuple[Any, ...] = _NOTHING, families: tuple[str, ...] = ALL
) -> Field:
    return Field(file, tuple(names.split()), REFUSED, note, families, accepted)


def _without_effect(file: str, names: str, note: str, families: tuple[str, ...] = ALL) -> Field:
    return Field(file, tuple(names.split()), WITHOUT_EFFECT, note, families)


_CONFIG, _TOKENIZER = "config.json", "tokenizer_config.json"
_FAST, _SPECIAL, _ADDED = "tokenizer.json", "special_tokens_map.json", "added_tokens.json"
_SENTENCE, _MODULES, _POOLING = "sentence_bert_config.json", "modules.json", "1_Pooling/config.json"
_PROMPTS = "config_sentence_transformers.json"
_NAMED_TOKENS = "bos_token eos_token unk_token sep_token pad_token cls_token mask_token"

FIELDS = (
    # --- config.json ---
    _honoured(_CONFIG, "model_type", "Chooses the family."),
    _honoured(_CONFIG, "vocab_size", "Rows of the token embedding; no token may have an id beyond them."),
    _honoured(
        _CONFIG,
        "hidden_size num_hidden_layers num_attention_heads",
        "Sizes of the encoder; layers beyond the declared number are left out. DistilBERT takes these names "
        "for dim, n_layers and n_heads.",
    ),
    _honoured(_CONFIG, "intermediate_size", "Width inside a layer.", _BERT_LIKE),
    _honoured(_CONFIG, "dim n_layers n_heads hidden_dim", "Sizes of the encoder.", ("distilbert",)),
    _honoured(
        _CONFIG,
        "embedding_size",
        "Width of the embeddings, projected to the encoder's.",
        ("electra", "albert"),
    ),
    _honoured(
        _CONFIG,
        "num_hidden_groups inner_group_num",
        "Layers that share weights. The number of layers must be a multiple of the groups.",
        ("albert",),
    ),
    _honoured(
        _CONFIG,
        "max_position_embeddings",
        "Rows of the position embedding: the longest input. RoBERTa's kind does not use the first "
        "pad_token_id + 1 of them.",
    ),
    _honoured(
        _CONFIG,
        "pad_token_id",
        "Positions are counted from pad_token_id + 1.",
        _AFTER_PADDING,
    ),
    _honoured(
        _CONFIG,
        "type_vocab_size",
        "Rows of the token-type embedding. Every token of a text is of type 0, and that row is added; of a "
        "pair of texts the second has the type that the tokenizer declares.",
        _BERT_LIKE,
    ),
    _honoured(_CONFIG, "hidden_act", "The activation; one that is not known is refused.", _BERT_LIKE),
    _honoured(_CONFIG, "activation", "The activation; one that is not known is refused.", ("distilbert",)),
    _honoured(_CONFIG, "layer_norm_eps", "The epsilon of every layer normalisation.", _BERT_LIKE),
    _honoured(
        _CONFIG,
        "hidden_dropout_prob attention_probs_dropout_prob",
        "Dropout rates in training; `dropout=` replaces both.",
        _BERT_LIKE,
    ),
    _honoured(
        _CONFIG,
        "dropout attention_dropout",
        "Dropout rates in training; `dropout=` replaces both.",
        ("distilbert",),
    ),
    _honoured(_CONFIG, "tokenizer_class", f"As in {_TOKENIZER}."),
    _refused(
        _CONFIG,
        "position_embedding_type",
        "only absolute positions are computed here",
        (None, "absolute"),
    ),
    _refused(
        _CONFIG,
        "is_decoder add_cross_attention is_encoder_decoder",
        "only encoders, in which every token sees every other, are computed here",
    ),
    _refused(_CONFIG, "pruned_heads", "encoders whose heads were pruned are not computed here"),
    _refused(
        _CONFIG,
        "quantization_config",
        "quantised weights are not read here; pass the checkpoint as it was before",
    ),
    _refused(
        _CONFIG,
        "auto_map",
        "it names Python code of the checkpoint's own, which is never run here, and which may compute "
        "something else; delete the entry if the code is that of transformers",
    ),
    _without_effect(
        _CONFIG,
        "pad_token_id",
        "Padding is masked.",
        ("bert", "distilbert", "electra", "albert"),
    ),
    _without_effect(
        _CONFIG,
        "layer_norm_eps sinusoidal_pos_embds",
        "transformers computes every DistilBERT with an epsilon of 1e-12, and reads position embeddings from "
        "the weights.",
        ("distilbert",),
    ),
    _without_effect(
        _CONFIG,
        "classifier_dropout classifier_dropout_prob seq_classif_dropout qa_dropout summary_activation "
        "summary_last_dropout summary_type summary_use_proj pooler_fc_size pooler_num_attention_heads "
        "pooler_num_fc_layers pooler_size_per_head pooler_type id2label label2id num_labels _num_labels "
        "problem_type finetuning_task task_specific_params sentence_transformers",
        "Heads are not loaded: the classifier has its own. A classification head in the checkpoint is named "
        "in a warning.",
    ),
    _without_effect(
        _CONFIG,
        "architectures _name_or_path name_or_path transformers_version adapters_version dtype torch_dtype "
        "torchscript use_bfloat16 use_cache tie_word_embeddings tie_encoder_decoder tie_weights_ "
        "tf_legacy_loss return_dict return_dict_in_generate output_attentions output_hidden_states "
        "output_past output_scores chunk_size_feed_forward gradient_checkpointing initializer_range "
        "initializer_factor attn_implementation _attn_implementation _attn_implementation_autoset "
        "_commit_hash bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id "
        "decoder_start_token_id cross_attention_hidden_size directionality prefix language "
        "down_scale_factor gap_size net_structure_type num_memory_blocks",
        "It says where the checkpoint comes from or how transformers runs it, or no encoder reads it. "
        "Numbers are computed in float32 whatever type the weights are stored in.",
    ),
    _without_effect(
        _CONFIG,
        "max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty "
        "temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
        "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id "
        "forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens "
        "begin_suppress_tokens",
        "It is about generated text.",
    ),
    # --- tokenizer_config.json ---
    _honoured(
        _TOKENIZER,
        "tokenizer_class",
        "Chooses how vocabulary files are read; one whose words are made by other programs (MeCab) or by "
        "Python code is refused.",
    ),
    _honoured(
        _TOKENIZER,
        "do_lower_case strip_accents tokenize_chinese_chars keep_accents add_prefix_space",
        "How text is normalised. Where tokenizer.json says something else, the checkpoint is refused.",
    ),
    _honoured(
        _TOKENIZER,
        f"{_NAMED_TOKENS} additional_special_tokens extra_special_tokens added_tokens_decoder",
        "Special and added tokens are found in the text before it is split, and have the declared ids.",
    ),
    _honoured(
        _TOKENIZER,
        "split_special_tokens",
        "Whether special tokens are found in a text, or split as any word.",
    ),
    _honoured(
        _TOKENIZER,
        "model_max_length max_len",
        f"Longest input, unless {_SENTENCE} declares one; `sequence_length=` replaces both.",
    ),
    _honoured(_TOKENIZER, "truncation_side", "Which end of a text that is too long is dropped."),
    _honoured(
        _TOKENIZER,
        "model_input_names",
        "Without token_type_ids among them both texts of a pair are of type 0; nothing else.",
    ),
    _refused(
        _TOKENIZER,
        "auto_map",
        "it names Python code of the checkpoint's own, which is never run here; save a tokenizer.json, and "
        "delete the entry",
    ),
    _refused(
        _TOKENIZER,
        "do_basic_tokenize do_subword_tokenize do_word_tokenize remove_space add_bos_token add_eos_token",
        "tokenizers without this step are not built here; save a tokenizer.json, and delete the entry",
        (None, True),
    ),
    _refused(
        _TOKENIZER,
        "never_split word_tokenizer_type subword_tokenizer_type mecab_kwargs sudachi_kwargs jumanpp_kwargs "
        "normalization sp_model_kwargs",
        "tokenizers with this step are not built here; save a tokenizer.json, and delete the entry",
    ),
    _refused(_TOKENIZER, "wordpieces_prefix", "only '##' marks the pieces of a word here", (None, "##")),
    _without_effect(
        _TOKENIZER,
        "padding_side pad_to_multiple_of pad_token_type_id max_length stride truncation_strategy "
        "trim_offsets",
        "Padding is masked and of type 0, and of a pair of texts that is too long the longer text is cut "
        "first.",
    ),
    _without_effect(
        _TOKENIZER,
        "clean_up_tokenization_spaces errors name_or_path _name_or_path special_tokens_map_file "
        "tokenizer_file full_tokenizer_file vocab_file merges_file backend is_local local_files_only "
        "processor_class unk_id legacy from_slow use_fast chat_template model_specific_special_tokens",
        "It is about decoding, or says where the files come from.",
    ),
    # --- tokenizer.json, special_tokens_map.json, added_tokens.json ---
    _honoured(
        _FAST,
        "model normalizer pre_tokenizer post_processor added_tokens",
        "It is the tokenizer, whatever other vocabulary files there are. Without a post_processor the named "
        "tokens are put around a text, and `pairs=True` is refused.",
    ),
    _honoured(
        _FAST, "truncation", f"Its direction, where {_TOKENIZER} has no truncation_side; nothing else."
    ),
    _without_effect(_FAST, "padding decoder version", "Padding is masked, and nothing is decoded."),
    _honoured(
        _SPECIAL,
        f"{_NAMED_TOKENS} additional_special_tokens extra_special_tokens",
        f"As in {_TOKENIZER}, which it must match.",
    ),
    _honoured(_ADDED, "*", f"Every entry is a token and its id, as in {_TOKENIZER}'s added_tokens_decoder."),
    # --- sentence-transformers ---
    _honoured(_SENTENCE, "max_seq_length", "Longest input; `sequence_length=` replaces it."),
    _honoured(_SENTENCE, "do_lower_case", "Text is lower-cased before anything else."),
    _refused(
        _SENTENCE,
        "transformer_task",
        "only the encoder's own output is computed here",
        (None, "feature-extraction"),
    ),
    _refused(
        _SENTENCE, "module_output_name", "only token embeddings are pooled here", (None, "token_embeddings")
    ),
    _refused(
        _SENTENCE,
        "modality_config",
        "only texts, and the encoder's last layer, are computed here",
        (None, {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}),
    ),
    _refused(_SENTENCE, "processing_kwargs", "other ways to call a tokenizer are not known here"),
    _without_effect(
        _SENTENCE,
        "query_length document_length query_expansion unpad_inputs",
        "It is about search, or how fast it is computed.",
    ),
    _honoured(
        _MODULES, "Transformer Pooling", "The encoder and, from the folder that is named, the pooling."
    ),
    _without_effect(
        _MODULES,
        "Normalize Dense LayerNorm Dropout",
        "After the pooling: part of the embedding's head, which is not loaded. The classifier's head takes "
        "its place.",
    ),
    _honoured(
        _POOLING,
        "pooling_mode pooling_mode_cls_token pooling_mode_mean_tokens pooling_mode_max_tokens "
        "pooling_mode_lasttoken",
        'The pooling, unless `pooling=` is given: "cls", "mean", "max" or "last". Several are refused.',
    ),
    _refused(
        _POOLING,
        "pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens",
        "this pooling is not supported; pass `pooling` as one of 'mean', 'cls', 'max', 'last'",
    ),
    _refused(
        _POOLING,
        "include_prompt",
        "tokens of a prompt are always pooled here; pass `pooling` if you accept that",
        (None, True),
    ),
    _without_effect(
        _POOLING, "word_embedding_dimension embedding_dimension", "It repeats the encoder's width."
    ),
    _honoured(_PROMPTS, "prompts default_prompt_name", "The default prompt is put before every text."),
    _without_effect(
        _PROMPTS,
        "__version__ similarity_fn_name model_type truncate_dim",
        "It is about comparing embeddings.",
    ),
)
_BY_FILE_AND_NAME = {
    (field.file, name, family): field for field in FIELDS for name in field.names for family in field.families
}


def check(
    files: CheckpointFiles, file: str, values: Mapping[str, Any], family: str, *, table: str = ""
) -> None:
    """Refuse what a file declares and this library cannot honour; warn of fields that it does not know.

    Args:
        files: The checkpoint.
        file: The file's name.
        values: Its fields.
        family: A key of `FAMILIES`.
        table: The file's name in `FIELDS`, where it is another one.

    Raises:
        ValueError: A declaration is refused; the sentence names it.
    """
    unknown = []
    for name, value in values.items():
        field = _BY_FILE_AND_NAME.get((table or file, name, family))
        if field is None:
            if value not in _NOTHING:
                unknown.append(name)
        elif field.treatment == REFUSED and value not in field.accepted:
            shown = json.dumps(value)
            shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
            raise files.error(file, f"declares `{name}`: {shown}, but {field.note}.")
    if unknown:
        warnings.warn(
            f"{file} of `backbone` {files.source!r} declares what this library does not know, and leaves "
            f"out: {', '.join(map(repr, sorted(unknown)))}. If one of them changes what the model computes, "
            "its numbers are off.",
            stacklevel=2,
        )


def markdown() -> str:
    """Return the table of docs/checkpoints.md."""
    lines = []
    for file in dict.fromkeys(field.file for field in FIELDS):
        names = [family.name for family in FAMILIES.values()]
        lines += [f"### {file}", "", f"| Field | {' | '.join(names)} | What becomes of it |"]
        lines.append("|---" * (len(names) + 2) + "|")
        for field in FIELDS:
            if field.file == file:
                marks = [field.treatment if family in field.families else "" for family in FAMILIES]
                shown = " ".join(f"`{name}`" for name in field.names)
                lines.append(f"| {shown} | {' | '.join(marks)} | {_sentence(field)} |")
        lines.append("")
    return "\n".join(lines)


def _sentence(field: Field) -> str:
    if field.treatment != REFUSED:
        return field.note
    accepted = [json.dumps(value) for value in field.accepted if value not in _NOTHING]
    kept = f", but for {', '.join(f'`{value}`' for value in accepted)}" if accepted else ""
    return f"Refused{kept}: {field.note}."


if __name__ == "__main__":
    print(markdown(), end="")
