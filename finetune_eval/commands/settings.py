"""Options that are settings of a recipe; a setting that no option gives is what the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from finetune_eval.training import recipe as recipes

Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="The settings that no option sets: plain or careful. [default: plain]"),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", help="How often to go through the rows. [default: 3]")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="How many rows make one step. [default: 16]")
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="The highest learning rate. [default: by the model's size]"),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", help="How the rate goes: cosine, linear or constant. [default: cosine]"),
]
Warmup = Annotated[
    float | None,
    typer.Option("--warmup", help="The share of the steps in which the rate rises. [default: 0.1]"),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="What is trained: full, head, head_then_full, gradual or lora. [default: full]",
    ),
]
LayerDecay = Annotated[
    float | None,
    typer.Option(
        "--layer-decay", help="The rate of a layer, as a share of that of the one above. [default: 1]"
    ),
]
AverageLast = Annotated[
    float | None,
    typer.Option(
        "--average-last",
        help="The share of the steps, the last, whose mean weights are kept. [default: 0]",
    ),
]
ClassWeight = Annotated[
    str | None,
    typer.Option("--class-weight", help="With balanced, rare classes weigh as much as common ones."),
]
EarlyStopping = Annotated[
    int | None, typer.Option("--early-stopping", help="Stop after so many epochs without a better one.")
]
StopWithinNoise = Annotated[
    bool | None,
    typer.Option(
        "--stop-within-noise",
        help="For --early-stopping, take an epoch as better only where it is so by more than noise.",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option("--keep", help="The epoch whose weights are kept: best or last. [default: best]"),
]
Monitor = Annotated[
    str | None,
    typer.Option("--monitor", help="What chooses the best epoch: val_loss, val_f1, … [default: val_loss]"),
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate",
        help="Correct the probabilities on the validation rows (temperature scaling).",
    ),
]
ThresholdFor = Annotated[
    str | None,
    typer.Option(
        "--threshold-for", help="Choose a threshold on the validation rows, for f1, recall>=0.9, ..."
    ),
]
AbstainFor = Annotated[
    str | None,
    typer.Option("--abstain-for", help="Withhold unsure answers for error<=0.05@95%, ..."),
]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command that have a value and are keywords of `fine_tune`: its settings."""
    names = ("recipe", *recipes.SETTINGS)
    return {name: options[name] for name in names if options.get(name) is not None}
