"""What `fine_tune` and `resume` give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_eval import _text
from finetune_eval.models import lora
from finetune_eval.models.build import load_model
from finetune_eval.models.classifier import Classifier
from finetune_eval.runs import Run
from finetune_eval.traces.training import TrainingTrace, trace_of_run


@dataclass(frozen=True)
class FineTuneResult:
    """What `fine_tune` gives back.

    Attributes:
        model: The model that was passed in, its best epoch's weights restored.
        trace: Every epoch: print it.
        manifest: Settings, seeds, versions, hardware, precision, and hashes of the rows and the weights.
        run_dir: The run folder, or None.
    """

    model: Classifier
    trace: TrainingTrace
    manifest: dict[str, Any] = field(repr=False)
    run_dir: Path | None = None

    @property
    def history(self) -> dict[str, list[float]]:
        """Each metric of the trace with its value in every epoch, as `History.history` of Keras has them."""
        epochs = [epoch.metrics for epoch in self.trace.epochs]
        return {name: [metrics[name] for metrics in epochs] for name in (epochs[0] if epochs else ())}


def finished(
    run: Run, manifest: dict[str, Any], model: Classifier | None, show: Callable[[str], Any] | None
) -> FineTuneResult:
    """Return the result of a run that is complete, read from its folder.

    Args:
        run: The run.
        manifest: Its manifest.
        model: The model to put the weights into; None for the one that is read.
        show: Called with the sentence that nothing is left to do; None for silence.
    """
    read = load_model(run.path)
    if model is None:
        model = read
    else:
        if lora.adapted(model):  # a model that was written has them merged
            lora.merge(model)
        model.set_weights(read.get_weights())
        model.threshold, model.abstention = read.threshold, read.abstention
    trace = trace_of_run(run.trace, manifest["settings"])
    epochs = _text.counted(len(trace.epochs), "epoch")
    if show is not None:
        show(f"{str(run.path)!r} is complete, trained for {epochs}: there is nothing to resume.")
    return FineTuneResult(model, trace, manifest, run.path)
