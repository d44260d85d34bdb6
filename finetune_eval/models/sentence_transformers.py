"""What sentence-transformers adds to a Hugging Face folder: pooling, the longest input, a prompt.

Reference: `modules/pooling.py` and `modules/transformer.py` of sentence-transformers 5 and 6.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from finetune_eval.models import declared
from finetune_eval.models.checkpoint_files import CheckpointFiles

_SENTENCE, _MODULES, _PROMPTS = (
    "sentence_bert_config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
_POOLING = "1_Pooling/config.json"
# Their names of poolings, old and new, and ours.
_POOLINGS = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Modules after the pooling: a head for embeddings, which a classifier replaces by its own.
_HEADS = ("Normalize", "Dense", "LayerNorm", "Dropout")


def declared_pooling(files: CheckpointFiles, family: str) -> str | None:
    """Read a checkpoint's pooling: "mean", "cls", "max" or "last"; None where it declares none.

    Raises:
        ValueError: It declares a pooling that we do not have.
    """
    file = _pooling_file(files)
    values = files.json(file)
    mode = values.get("pooling_mode")
    modes = [name for flag, name in _FLAGS.items() if values.get(flag)] if mode is None else mode
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or any(name not in _POOLINGS for name in modes) or len(modes) > 1:
        shown = " + ".join(map(str, modes)) if isinstance(modes, list) else repr(modes)
        raise files.error(
            file,
            f"declares the pooling {shown}, which is not supported; pass `pooling` as one of "
            f"{', '.join(map(repr, _POOLINGS.values()))}.",
        )
    declared.check(files, file, values, family, table=_POOLING)
    return _POOLINGS[modes[0]] if modes else None


def _pooling_file(files: CheckpointFiles) -> str:
    """Return where the pooling is declared; refuse modules that change what is pooled."""
    modules = files.json(_MODULES, list)
    file = _POOLING
    pooled = False
    for module in modules:
        kind, path = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise files.error(_MODULES, f"holds {module!r}, which is no module with a type and a path.")
        name = kind.rpartition(".")[2]
        if name == "Pooling":
            if PurePosixPath(path).name != path or "\\" in path or path in ("", ".."):
                raise files.error(_MODULES, f"names the folder {path!r}, which is not one in the checkpoint.")
            file, pooled = f"{path}/config.json", True
        elif not (name == "Transformer" and path == "" and not pooled) and not (name in _HEADS and pooled):
            place = "after" if pooled else "before"
            raise files.error(
                _MODULES,
                f"has the module {kind!r} in {path!r} {place} the pooling, which is not computed here; pass "
                "`pooling` to do without.",
            )
    return file


def declared_length(files: CheckpointFiles) -> int | None:
    """Read the longest input in tokens; None where none is declared."""
    value = files.json(_SENTENCE).get("max_seq_length")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 3):
        raise files.error(
            _SENTENCE, f"declares `max_seq_length` as {value!r}; it must be a whole number of at least 3."
        )
    return value


def lowercases_first(files: CheckpointFiles, family: str) -> bool:
    """Read whether texts are lower-cased before they are tokenised."""
    values = files.json(_SENTENCE)
    declared.check(files, _SENTENCE, values, family)
    return bool(values.get("do_lower_case", False))


def default_prompt(files: CheckpointFiles, family: str) -> str:
    """Read the text that is put before every text; "" for none."""
    values: dict[str, Any] = files.json(_PROMPTS)
    declared.check(files, _PROMPTS, values, family)
    name, prompts = values.get("default_prompt_name"), values.get("prompts") or {}
    if name is None:
        return ""
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise files.error(
            _PROMPTS, f"declares the default prompt {name!r}, which its `prompts` do not have as a text."
        )
    return prompt
