"""The table of fields and families, walked: each is honoured, refused, or changes no bit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from finetune_eval.models import declared
from finetune_eval.models.declared import FIELDS, HONOURED, REFUSED, WITHOUT_EFFECT
from finetune_eval.models.families import FAMILIES
from finetune_eval.models.pretrained import load_pretrained

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
CONFIG, TOKENIZER, FAST = "config.json", "tokenizer_config.json", "tokenizer.json"
SPECIAL, ADDED, POOLING = "special_tokens_map.json", "added_tokens.json", "1_Pooling/config.json"
SENTENCE, MODULES, PROMPTS = "sentence_bert_config.json", "modules.json", "config_sentence_transformers.json"
WORD_PIECE = ("bert", "distilbert", "electra")


def load(folder, **settings):
    return load_pretrained(folder, **{"sequence_length": None, "dropout": None, **settings})


def rows(treatment):
    return [
        pytest.param(
            field,
            name,
            family,
            id=f"{field.file}-{name}-{family}",
            # Their tokenizers are BERT's, in every line of code.
            marks=[pytest.mark.slow] * (family in ("distilbert", "electra") and field.file != CONFIG),
        )  # fmt: skip
        for field in FIELDS
        if field.treatment == treatment
        for name in field.names
        for family in field.families
    ]


# --- honoured ---

PLAIN = {}  # family -> what `Case.plain` returns


class Case:
    """One field of one family: what is written, and what comes of it."""

    def __init__(self, checkpoints, tmp_path, family):
        self.checkpoints, self.tmp_path, self.family = checkpoints, tmp_path, family

    def write(self, name="x", **settings):
        return self.checkpoints.write(self.tmp_path / name, self.family, **settings)

    def plain(self):
        """Return the unchanged checkpoint of the family, which is loaded once; no test changes it."""
        if self.family not in PLAIN:
            PLAIN[self.family] = load(self.write("plain")[0])
        return PLAIN[self.family]

    def numbers(self, changes):
        """Assert that a changed config.json gives the numbers by hand, and not those of the unchanged one."""
        folder, config, tensors = self.write(config=changes)
        loaded = load(folder)
        ids = self.checkpoints.ids_of(loaded, "good film")
        found = self.checkpoints.features_of(loaded, "good film")
        np.testing.assert_allclose(found, self.checkpoints.by_hand(tensors, config, ids), atol=3e-5)
        return loaded, config, tensors, ids, found

    def matters(self, changes):
        """As `numbers`, where the weights fit both configs, and the numbers differ."""
        _, config, tensors, ids, found = self.numbers(changes)
        base = {**config, **{name: self.checkpoints.base_config(self.family)[name] for name in changes}}
        assert np.abs(found - self.checkpoints.by_hand(tensors, base, ids)).max() > 1e-3

    def rate(self, name, part):
        """Assert that a dropout rate arrives where it is declared for, and nowhere else."""
        loaded = load(self.write(config={name: 0.25})[0])
        for layer in loaded.backbone.transformer_layers:
            layer = layer[0] if isinstance(layer, list) else layer
            attention = layer._self_attention_layer
            others = (layer._self_attention_dropout, layer._feedforward_dropout)
            assert attention._dropout_layer.rate == attention._dropout
            assert (attention._dropout == 0.25) == (part == "attention")
            assert [other.rate == 0.25 for other in others] == [part == "layers"] * 2
        assert (loaded.backbone.embeddings_dropout.rate == 0.25) == (part == "layers")
        again = type(loaded.backbone).from_config(loaded.backbone.get_config())
        assert again.get_config() == loaded.backbone.get_config()

    def settings(self, **more):
        return {"tokenizer_class": self.checkpoints.older_files(self.family)[1], **more}


def size(name, value):
    return lambda case: case.numbers({name: value})


def matters(name, value):
    return lambda case: case.matters({name: value})


def layers_left_out(name):
    def check(case):
        folder, config, tensors = case.write(config={name: 1}, layers=2)
        loaded = load(folder)
        ids = case.checkpoints.ids_of(loaded, "good film")
        found = case.checkpoints.features_of(loaded, "good film")
        np.testing.assert_allclose(found, case.checkpoints.by_hand(tensors, config, ids), atol=3e-5)
        assert np.abs(found - case.checkpoints.by_hand(tensors, {**config, name: 2}, ids)).max() > 1e-3

    return check


def groups(case):
    case.numbers({"num_hidden_groups": 2, "num_hidden_layers": 4})


def positions(case):
    folder, *_ = case.write(config={"max_position_embeddings": 12})
    assert load(folder).backbone.max_sequence_length == (
        10 if FAMILIES[case.family].positions_after_padding else 12
    )


def padding_position(case):
    """With another padding token the positions begin elsewhere, and the tokenizer must pad with it."""
    name = "</s>" if case.family != "camembert" else "<s>NOTUSED"
    number = case.plain().preprocessor.tokenizer.token_to_id(name)
    folder, config, tensors = case.write(
        config={"pad_token_id": number}, tokenizer_config=case.settings(pad_token=name)
    )
    loaded = load(folder)
    ids = case.checkpoints.ids_of(loaded, "good film")
    found = case.checkpoints.features_of(loaded, "good film")
    np.testing.assert_allclose(found, case.checkpoints.by_hand(tensors, config, ids), atol=3e-5)
    assert loaded.backbone.max_sequence_length == 20 - number - 1


def aliases(case):
    """DistilBERT's fields under the names of BERT's."""
    if case.family != "distilbert":
        return case.numbers({"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3})
    own = {"dim": 12, "n_layers": 1, "n_heads": 3}
    folder, config, tensors = case.write(config=own)
    names = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
    renamed = {names.get(name, name): value for name, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(renamed))
    loaded = load(folder)
    ids = case.checkpoints.ids_of(loaded, "good film")
    found = case.checkpoints.features_of(loaded, "good film")
    np.testing.assert_allclose(found, case.checkpoints.by_hand(tensors, config, ids), atol=3e-5)


def tokenizer_class_of_config(case):
    """config.json says how the files are read where tokenizer_config.json does not."""
    files, name = case.checkpoints.older_files("xlm-roberta")
    own = {file: None for file in case.checkpoints.older_files(case.family)[0]}
    folder, *_ = case.write(
        config={"tokenizer_class": name, "vocab_size": 95}, files={**own, **files}, tokenizer_config=None
    )
    processor = case.checkpoints.pieces.processor("xlm-roberta")
    assert case.checkpoints.ids_of(load(folder), "a good film .") == [
        0, *(piece + 1 for piece in processor.encode("a good film .")), 2
    ]  # fmt: skip


def tokenizer_class(case):
    files, name = case.checkpoints.older_files("xlm-roberta")
    own = {file: None for file in case.checkpoints.older_files(case.family)[0]}
    folder, *_ = case.write(
        config={"vocab_size": 95}, files={**own, **files}, tokenizer_config={"tokenizer_class": name}
    )
    ids = case.checkpoints.ids_of(load(folder), "a good film .")
    assert (ids[0], ids[-1]) == (0, 2)


def normalised(name, value, text, same_as):
    """Assert that a setting makes a text what another is without it, where the class has the setting."""

    def check(case):
        has = {
            "do_lower_case": (*WORD_PIECE, "albert"),
            "strip_accents": WORD_PIECE,
            "tokenize_chinese_chars": WORD_PIECE,
            "keep_accents": ("albert",),
            "add_prefix_space": ("roberta", "xlm-roberta", "camembert", "albert"),
        }[name]
        found = case.checkpoints.ids_of(
            load(case.write(tokenizer_config=case.settings(**{name: value}))[0]), text
        )
        plain = case.plain()
        unchanged = case.checkpoints.ids_of(plain, text)
        assert (found != unchanged) == (case.family in has)
        if same_as is not None and case.family in has:
            assert found == case.checkpoints.ids_of(plain, same_as)

    return check


def special_token(role, file):
    """Assert that another special token takes its part: around a text, or inside it."""

    def check(case):
        name = {"tokenizer_config": "tokenizer_config", SPECIAL: "special_tokens_map"}[file]
        tokenizer = case.plain().preprocessor.tokenizer
        other = {"cls_token": "mask_token", "sep_token": "mask_token"}.get(role)
        token = {"bert": "[MASK]", "distilbert": "[MASK]", "electra": "[MASK]", "albert": "[MASK]"}.get(
            case.family, "<mask>"
        )
        number = tokenizer.token_to_id(token)
        values = case.settings(**{role: token}) if name == "tokenizer_config" else {role: token}
        if role == "unk_token" and case.family not in WORD_PIECE:
            return  # the unknown token is the model's own: pieces and bytes name it in their file
        if role == "pad_token" and FAMILIES[case.family].positions_after_padding:
            with pytest.raises(
                ValueError, match="^config.json of `backbone` .* declares `pad_token_id` as None"
            ):
                load(case.write(**{name: values})[0])
            return
        ids = case.checkpoints.ids_of(load(case.write(**{name: values})[0]), f"good {token} zzz")
        if other is not None:
            assert (ids[0] if role == "cls_token" else ids[-1]) == number
        elif role == "unk_token":
            assert ids[-2] == number
        else:
            assert number in ids[1:-1]

    return check


def added_token(name, value):
    """Assert that an added token, the next id after the vocabulary, is found inside a text."""

    def check(case):
        count = case.plain().preprocessor.tokenizer.vocabulary_size()
        base = case.checkpoints.base_config(case.family)["vocab_size"]
        own = {name: value(count)} if name in ("added_tokens", "tokenizer") else {
            name.split("/")[0]: {**(case.settings() if name.startswith("tokenizer_config") else {}),
                                 name.split("/")[1]: value(count)}
        }  # fmt: skip
        loaded = load(case.write(config={"vocab_size": base + 1}, **own)[0])
        ids = case.checkpoints.ids_of(loaded, "good <e1> film")
        assert ids.count(count) == 1

    return check


def split_special(case):
    token = "[SEP]" if case.family in (*WORD_PIECE, "albert") else "</s>"
    plain = case.plain()
    split = load(case.write(tokenizer_config=case.settings(split_special_tokens=True))[0])
    number = plain.preprocessor.tokenizer.token_to_id(token)
    text = f"good {token} film"
    assert case.checkpoints.ids_of(plain, text).count(number) == 2
    found = case.checkpoints.ids_of(split, text).count(number)
    # These vocabularies have the symbol as a piece, too.
    assert found == (2 if case.family in ("xlm-roberta", "camembert") else 1)


def longest(file, name):
    def check(case):
        own = {"tokenizer_config": case.settings(**{name: 9})} if file == TOKENIZER else {
            "sentence_bert_config": {name: 9}
        }  # fmt: skip
        assert load(case.write(**own)[0]).preprocessor.sequence_length == 9
        assert case.plain().preprocessor.sequence_length > 9

    return check


def truncated_left(case):
    text = "a good bad film the was very not warm cafe"
    room = {"max_position_embeddings": 80}
    settings = case.settings(truncation_side="left")
    left = load(case.write(tokenizer_config=settings, config=room)[0], sequence_length=6)
    whole = load(case.write("plain", config=room)[0])
    ids = case.checkpoints.ids_of(whole, text)
    assert len(ids) > 8
    assert case.checkpoints.ids_of(left, text) == [ids[0], *ids[-5:]]


def input_names(case):
    """Of BERT's kind the second text of a pair is of type 1, unless the model is not given the types."""
    types = {}
    for folder, settings in (("plain", {}), ("x", {"model_input_names": ["input_ids", "attention_mask"]})):
        place, *_ = case.write(folder, tokenizer_config=case.settings(**settings))
        types[folder] = load(place).preprocessor.second_type
    of_one_type = ("roberta", "xlm-roberta", "camembert")
    assert types == {"plain": int(case.family not in of_one_type), "x": 0}


def json_is_the_tokenizer(case):
    """A tokenizer.json of another kind, whatever files lie beside it."""
    words = ["[UNK]", "[CLS]", "[SEP]", "Good", "film"]
    rust = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    rust.normalizer = tokenizers.normalizers.Replace("ood", "ooD")
    rust.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    rust.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP] [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    rust.add_tokens(["GooD"])
    folder, *_ = case.write(
        files={FAST: rust.to_str()}, config={"pad_token_id": None},
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[CLS]"},
    )  # fmt: skip
    found = case.checkpoints.ids_of(load(folder), "Good film GooD")
    assert found == rust.encode("Good film GooD").ids == [1, 5, 4, 5, 2, 2]


def json_truncation(case):
    whole = json.loads(case.checkpoints.word_piece_json().to_str())
    text = "a good bad film the was very not warm cafe"
    for direction in ("Left", "Right"):
        whole["truncation"] = {
            "direction": direction,
            "max_length": 5,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        folder, *_ = case.write(
            direction, files={FAST: json.dumps(whole)},
            tokenizer_config={"tokenizer_class": "BertTokenizer", "pad_token": "[UNK]"},
        )  # fmt: skip
        words = [
            case.checkpoints.words[i] for i in case.checkpoints.ids_of(load(folder, sequence_length=6), text)
        ]
        middle = ["very", "not", "warm", "cafe"] if direction == "Left" else ["a", "good", "bad", "film"]
        assert words == ["[CLS]", *middle, "[SEP]"]


def lowercased(case):
    text = "GOOD Film"
    folder, *_ = case.write(
        tokenizer_config=case.settings(do_lower_case=False), sentence_bert_config={"do_lower_case": True}
    )
    plain = load(case.write("plain", tokenizer_config=case.settings(do_lower_case=False))[0])
    found = case.checkpoints.ids_of(load(folder), text)
    assert found == case.checkpoints.ids_of(plain, text.lower()) != case.checkpoints.ids_of(plain, text)


def pooled(values):
    def check(case):
        files = {POOLING: json.dumps(values)}
        assert load(case.write(files=files)[0]).pooling != case.plain().pooling

    return check


def pooling_folder(case):
    kinds = [("a.Transformer", ""), ("a.Pooling", "9_Pooling")]
    modules = [{"type": kind, "path": path} for kind, path in kinds]
    files = {"9_Pooling/config.json": '{"pooling_mode": "max"}'}
    assert load(case.write(modules=modules, files=files)[0]).pooling == "max"


def prompted(case):
    prompts = {"prompts": {"q": "a very "}, "default_prompt_name": "q"}
    with_prompt = load(case.write(config_sentence_transformers=prompts)[0])
    plain = case.plain()
    expected = case.checkpoints.ids_of(plain, "a very good")
    assert case.checkpoints.ids_of(with_prompt, "good") == expected != case.checkpoints.ids_of(plain, "good")


def family_is_chosen(case):
    loaded = load(case.write()[0])
    assert type(loaded.backbone) is FAMILIES[case.family].backbone


def more_tokens(case):
    base = case.checkpoints.base_config(case.family)["vocab_size"]
    numbers = {str(base): {"content": "<more>"}}
    loaded = load(
        case.write(
            config={"vocab_size": base + 1}, tokenizer_config=case.settings(added_tokens_decoder=numbers)
        )[0]
    )
    assert loaded.backbone.token_embedding.input_dim == base + 1


def token(_count):
    return ["<e1>"]


HONOURED_CASES = {
    (CONFIG, "model_type"): family_is_chosen,
    (CONFIG, "vocab_size"): more_tokens,
    (CONFIG, "hidden_size"): aliases,
    (CONFIG, "num_attention_heads"): lambda case: case.matters(
        {"n_heads" if case.family == "distilbert" else "num_attention_heads": 4}
    ),
    (CONFIG, "num_hidden_layers"): lambda case: (
        case.numbers({"num_hidden_layers": 3})
        if case.family == "albert"
        else layers_left_out("n_layers" if case.family == "distilbert" else "num_hidden_layers")(case)
    ),
    (CONFIG, "intermediate_size"): size("intermediate_size", 20),
    (CONFIG, "dim"): size("dim", 12),
    (CONFIG, "n_layers"): layers_left_out("n_layers"),
    (CONFIG, "n_heads"): matters("n_heads", 4),
    (CONFIG, "hidden_dim"): size("hidden_dim", 20),
    (CONFIG, "embedding_size"): size("embedding_size", 4),
    (CONFIG, "num_hidden_groups"): groups,
    (CONFIG, "inner_group_num"): size("inner_group_num", 2),
    (CONFIG, "max_position_embeddings"): positions,
    (CONFIG, "pad_token_id"): padding_position,
    (CONFIG, "type_vocab_size"): size("type_vocab_size", 3),
    (CONFIG, "hidden_act"): matters("hidden_act", "relu"),
    (CONFIG, "activation"): matters("activation", "relu"),
    (CONFIG, "layer_norm_eps"): matters("layer_norm_eps", 0.3),
    (CONFIG, "hidden_dropout_prob"): lambda case: case.rate("hidden_dropout_prob", "layers"),
    (CONFIG, "attention_probs_dropout_prob"): lambda case: case.rate(
        "attention_probs_dropout_prob", "attention"
    ),
    (CONFIG, "dropout"): lambda case: case.rate("dropout", "layers"),
    (CONFIG, "attention_dropout"): lambda case: case.rate("attention_dropout", "attention"),
    (CONFIG, "tokenizer_class"): tokenizer_class_of_config,
    (TOKENIZER, "tokenizer_class"): tokenizer_class,
    (TOKENIZER, "do_lower_case"): normalised("do_lower_case", False, "Film", None),
    (TOKENIZER, "strip_accents"): normalised("strip_accents", False, "é", None),
    (TOKENIZER, "tokenize_chinese_chars"): normalised("tokenize_chinese_chars", False, "中中", "zzz"),
    (TOKENIZER, "keep_accents"): normalised("keep_accents", True, "café", None),
    (TOKENIZER, "add_prefix_space"): lambda case: normalised(
        "add_prefix_space", case.family == "roberta", "good", " good" if case.family == "roberta" else None
    )(case),
    **{(TOKENIZER, role): special_token(role, "tokenizer_config") for role in declared._NAMED_TOKENS.split()},
    **{(SPECIAL, role): special_token(role, SPECIAL) for role in declared._NAMED_TOKENS.split()},
    (TOKENIZER, "additional_special_tokens"): added_token(
        "tokenizer_config/additional_special_tokens", token
    ),
    (TOKENIZER, "extra_special_tokens"): added_token("tokenizer_config/extra_special_tokens", token),
    (SPECIAL, "extra_special_tokens"): added_token("special_tokens_map/extra_special_tokens", token),
    (SPECIAL, "additional_special_tokens"): added_token(
        "special_tokens_map/additional_special_tokens", token
    ),
    (TOKENIZER, "added_tokens_decoder"): added_token(
        "tokenizer_config/added_tokens_decoder", lambda count: {str(count): {"content": "<e1>"}}
    ),
    (ADDED, "*"): added_token("added_tokens", lambda count: {"<e1>": count}),
    (TOKENIZER, "split_special_tokens"): split_special,
    (TOKENIZER, "model_max_length"): longest(TOKENIZER, "model_max_length"),
    (TOKENIZER, "max_len"): longest(TOKENIZER, "max_len"),
    (TOKENIZER, "truncation_side"): truncated_left,
    (TOKENIZER, "model_input_names"): input_names,
    **{
        (FAST, name): json_is_the_tokenizer
        for name in ("model", "normalizer", "pre_tokenizer", "post_processor", "added_tokens")
    },
    (FAST, "truncation"): json_truncation,
    (SENTENCE, "max_seq_length"): longest(SENTENCE, "max_seq_length"),
    (SENTENCE, "do_lower_case"): lowercased,
    (MODULES, "Transformer"): pooling_folder,
    (MODULES, "Pooling"): pooling_folder,
    (POOLING, "pooling_mode"): pooled({"pooling_mode": "max"}),
    **{
        (POOLING, f"pooling_mode_{name}"): pooled({f"pooling_mode_{name}": True})
        for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    },
    (PROMPTS, "prompts"): prompted,
    (PROMPTS, "default_prompt_name"): prompted,
}


@pytest.mark.parametrize("field, name, family", rows(HONOURED))
def test_an_honoured_field_has_its_effect(checkpoints, tmp_path, field, name, family):
    HONOURED_CASES[field.file, name](Case(checkpoints, tmp_path, family))


# --- refused ---

OTHER_VALUES = {"wordpieces_prefix": "@@", "position_embedding_type": "relative_key_query",
                "pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_weightedmean_tokens": True,
                "include_prompt": False, "transformer_task": "fill-mask", "module_output_name": "logits",
                "modality_config": {"image": {}}, "processing_kwargs": {"text": {"stride": 2}},
                "pruned_heads": {"0": [1]}, "quantization_config": {"bits": 8}, "auto_map": {"a": "b"},
                "never_split": ["a"], "sp_model_kwargs": {"enable_sampling": True}}  # fmt: skip


@pytest.mark.parametrize("field, name, family", rows(REFUSED))
def test_a_refused_field_is_named_and_its_usual_values_are_taken(checkpoints, tmp_path, field, name, family):
    usual_is_true = True in [value for value in field.accepted if isinstance(value, bool)]
    value = OTHER_VALUES.get(name, not usual_is_true)
    folder, config, _ = checkpoints.write(tmp_path / "x", family)

    def write(value):
        place = folder / field.file
        place.parent.mkdir(exist_ok=True)
        before = {CONFIG: config, TOKENIZER: {"tokenizer_class": checkpoints.older_files(family)[1]}}
        place.write_text(json.dumps({**before.get(field.file, {}), name: value}))

    write(value)
    with pytest.raises(ValueError) as raised:
        load(folder)
    if name.startswith("pooling_mode"):
        mode = name.removeprefix("pooling_mode_").removesuffix("_tokens" if "weighted" in name else "")
        expected = (
            f"declares the pooling {mode}, which is not supported; pass `pooling` as one of 'mean', 'cls', "
            "'max', 'last'."
        )
    else:
        expected = f"declares `{name}`: {json.dumps(value)}, but {field.note}."
    assert str(raised.value) == f"{field.file} of `backbone` {str(folder)!r} {expected}"
    if family == "bert":  # the check is the same for all
        for accepted in field.accepted:
            write(accepted)
            load(folder)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"is_decoder": True},
            "declares `is_decoder`: true, but only encoders, in which every token sees every other, are "
            "computed "
            "here.",
        ),
        (
            {
                "auto_map": {
                    "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
                    "x": "",
                }
            },
            "declares `auto_map`: "
            '{"AutoModel": "jinaai/jina-bert-implementation--modeling_ber…, but it names '
            "Python code of the checkpoint's own, which is never run here, and which may compute something "
            "else; "
            "delete the entry if the code is that of transformers.",
        ),
    ],
)
def test_a_refusal_is_one_sentence(checkpoints, tmp_path, changes, sentence):
    folder, *_ = checkpoints.write(tmp_path / "x", config=changes)
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'{CONFIG} of `backbone` {str(folder)!r} {sentence}')}$"
    ):
        load(folder)


def test_code_of_a_checkpoint_is_not_run(checkpoints, tmp_path):
    code = "import pathlib\npathlib.Path('/tmp/checkpoint-code-ran').touch()\n"
    folder, *_ = checkpoints.write(
        tmp_path / "x", files={"modeling_x.py": code}, config={"auto_map": {"AutoModel": "modeling_x.X"}}
    )
    with pytest.raises(ValueError, match="declares `auto_map`"):
        load(folder)
    assert not Path("/tmp/checkpoint-code-ran").exists()


# --- without effect ---


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_without_effect_change_no_bit(checkpoints, tmp_path, family):
    """All of them at once, each with a value that would matter if it were read."""
    odd = {}
    for field in FIELDS:
        if field.treatment == WITHOUT_EFFECT and family in field.families:
            odd.setdefault(field.file, {}).update(dict.fromkeys(field.names, 7))
    plain, *_ = checkpoints.write(tmp_path / "plain", family)
    folder, *_ = checkpoints.write(
        tmp_path / "x",
        family,
        config=odd[CONFIG],
        tokenizer_config={"tokenizer_class": checkpoints.older_files(family)[1], **odd[TOKENIZER]},
        sentence_bert_config=odd[SENTENCE],
        config_sentence_transformers=odd[PROMPTS],
        modules=[
            {"type": f"x.{kind}", "path": path}
            for kind, path in [("Transformer", ""), ("Pooling", "1_Pooling"), *((n, n) for n in odd[MODULES])]
        ],
        files={POOLING: json.dumps(odd[POOLING])},
    )
    one, other = load(plain), load(folder)
    for text in checkpoints.texts:
        assert checkpoints.ids_of(one, text) == checkpoints.ids_of(other, text)
        np.testing.assert_array_equal(
            checkpoints.features_of(one, text), checkpoints.features_of(other, text)
        )
    assert other.preprocessor.sequence_length == one.preprocessor.sequence_length


def test_parts_of_a_tokenizer_json_without_effect_change_no_id(checkpoints, tmp_path):
    rust = checkpoints.word_piece_json()
    plain, *_ = checkpoints.write(tmp_path / "plain", tokenizer=rust)
    rust.enable_padding(length=12, pad_id=1, pad_token="[UNK]")
    rust.decoder = tokenizers.decoders.ByteLevel()
    folder, *_ = checkpoints.write(tmp_path / "x", tokenizer=rust)
    for text in checkpoints.texts:
        assert checkpoints.ids_of(load(plain), text) == checkpoints.ids_of(load(folder), text)


# --- the rest ---


def test_unknown_fields_are_named_in_a_warning(checkpoints, tmp_path):
    odd = {"rotary_scale": 2.0, "norm_type": "rms", "off": False, "none": None, "nothing": []}
    folder, *_ = checkpoints.write(tmp_path / "x", config=odd)
    sentence = (
        f"config.json of `backbone` {str(folder)!r} declares what this library does not know, and leaves "
        f"out: "
        "'norm_type', 'rotary_scale'. If one of them changes what the model computes, its numbers are off."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        load(folder)


def test_no_field_has_two_treatments():
    seen = [
        (field.file, name, family) for field in FIELDS for name in field.names for family in field.families
    ]
    assert len(seen) == len(set(seen))


def test_the_page_has_the_table():
    page = PAGE.read_text(encoding="utf-8")
    assert declared.markdown() in page
