"""How a model was made: what a run's manifest says, as sentences for the page and the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SETTINGS = {
    "epochs": "epochs {}",
    "batch_size": "batch size {}",
    "learning_rate": "learning rate {:g}",
    "weight_decay": "weight decay {:g}",
    "label_smoothing": "label smoothing {:g}",
    "class_weight": "class weights {}",
    "early_stopping": "early stopping after {} epochs",
    "monitor": "best epoch by {}",
    "optimizer": "{}",
}
_PACKAGES = ("finetune-eval", "keras", "tensorflow", "jax")


def headline(manifest: Mapping[str, Any]) -> str:
    """Return "all_minilm_l6_v2, trained on 1,000 rows on 2026-11-27"."""
    rows = _part(_part(manifest, "rows"), "train").get("rows")
    on_rows = f" on {rows:,} rows" if isinstance(rows, int) else ""
    date = str(manifest.get("began", ""))[:10]
    return f"{_backbone(manifest)}, trained{on_rows}{f' on {date}' if date else ''}"


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader needs to make the model again: names of facts, and the facts."""
    model, settings = _part(manifest, "model"), _part(manifest, "settings")
    environment = _part(manifest, "environment")
    packages = _part(environment, "packages")
    backbone = [_backbone(manifest)]
    if isinstance(model.get("backbone_parameters"), int):
        backbone.append(f"{model['backbone_parameters']:,} parameters")
    if model.get("pooling"):
        backbone.append(f"{model['pooling']} pooling")
    # A setting that is off says nothing; a seed of 0 is one.
    said = [form.format(settings[name]) for name, form in _SETTINGS.items() if settings.get(name)]
    if settings.get("keep") == "last":
        said.append("the weights of the last epoch kept")
    versions = [f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name)]
    found = {
        "Backbone": backbone,
        "Began": [str(manifest.get("began", "")).replace("T", " ")],
        "Settings": [*said, f"seed {settings.get('seed', 'unknown')}"],
        "Precision": [str(_part(manifest, "precision").get("used", ""))],
        "Machine": [str(environment[name]) for name in ("processor", "platform") if environment.get(name)],
        "Versions": [*versions, f"Python {environment.get('python', 'unknown')}"],
    }
    return [(name, ", ".join(parts)) for name, parts in found.items() if any(parts)]


def _backbone(manifest: Mapping[str, Any]) -> str:
    return str(_part(manifest, "model").get("backbone") or "A model")


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}
