"""Figures: what is drawn of a training trace and of an evaluation.

Each function returns a `matplotlib.figure.Figure` made without pyplot: nothing global is changed, nothing
needs a display, and the caller saves it (`figure.savefig("f1.png")`) or puts it into a page (`svg`). With
`ax=` a function draws into the caller's axes instead, whose size and layout stay as they are.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune_eval.evaluation._result import with_no_label
from finetune_eval.evaluation.proportions import wilson
from finetune_eval.traces.prediction import clip, printable

if TYPE_CHECKING:
    from finetune_eval.evaluation.calibration import Calibration
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.traces.training import TrainingTrace

# Okabe and Ito's blue and vermilion: told apart by colour-blind readers too (jfly.uni-koeln.de/color).
INK, FAINT, BLUE, RED = "#1f2933", "#c9d1d9", "#0072b2", "#d55e00"
_SIZE = (4.4, 3.1)  # inches; small, so that the letters stay legible on a phone
_STYLE: Any = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "figure.facecolor": "white",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a label such as "$5" is text
    "xtick.color": INK,
    "ytick.color": INK,
}


def loss_curves(trace: TrainingTrace, *, ax: Axes | None = None) -> Figure:
    """Draw the training and validation loss of every epoch, the best epoch marked.

    Args:
        trace: The trace of a training run.
        ax: Axes to draw into; None makes a new figure.

    Returns:
        The figure.
    """
    with _figure("loss", "epoch", ax) as (figure, axes):
        _curves(axes, trace, "loss", BLUE, "training")
        _curves(axes, trace, "val_loss", RED, "validation")
        _finish_epochs(axes, trace)
    return figure


def accuracy_curves(trace: TrainingTrace, *, ax: Axes | None = None) -> Figure:
    """Draw the accuracy of every epoch; validation with its Wilson interval where its rows are known.

    Args:
        trace: The trace of a training run.
        ax: Axes to draw into; None makes a new figure.

    Returns:
        The figure.
    """
    with _figure("accuracy", "epoch", ax) as (figure, axes):
        _curves(axes, trace, "accuracy", BLUE, "training")
        bars = False
        for record in trace.epochs:
            value, rows = record.metrics.get("val_accuracy", math.nan), record.val_rows
            if rows and math.isfinite(value):
                bounds = wilson(round(value * rows), rows)
                axes.plot([record.epoch] * 2, [bounds.low, bounds.high], color=RED, alpha=0.4, linewidth=2.5)
                bars = True
        _curves(axes, trace, "val_accuracy", RED, "validation, 95 % interval" if bars else "validation")
        _finish_epochs(axes, trace)
    return figure


def confusion(evaluation: Evaluation, *, ax: Axes | None = None) -> Figure:
    """Draw the confusion matrix, each row shaded by its share of the true class.

    Args:
        evaluation: An evaluation of one label a row.
        ax: Axes to draw into; None makes a new figure.

    Returns:
        The figure: counts in the cells, up to 12 classes; only shades beyond.

    Raises:
        ValueError: The evaluation is of several labels a row.
    """
    if evaluation.task != "classification":
        raise ValueError(
            "`evaluation` must be of one label a row to have one confusion matrix; got task 'multilabel'. "
            "Draw `intervals(evaluation)` instead."
        )
    matrix = np.asarray(with_no_label(evaluation), dtype=np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-300)
    classes = len(matrix)
    names = [clip(printable(label), 20) for label in evaluation.labels]
    side = min(9.0, max(3.4, 1.6 + 0.45 * classes))
    with _figure("confusion matrix", "", ax, size=(side, side)) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if classes <= 12:
            for i in range(classes):
                for j in range(matrix.shape[1]):
                    color = "white" if shares[i, j] > 0.55 else INK
                    axes.text(j, i, f"{matrix[i, j]:,.5g}", ha="center", va="center", color=color)
        if classes <= 40:
            answers = [*names, *(["(no label)"] if evaluation.no_label else [])]
            axes.set_xticks(range(len(answers)), answers, rotation=0 if len(answers) <= 3 else 90)
            axes.set_yticks(range(classes), names)
        axes.set_ylabel("true")
        axes.set_xlabel("predicted")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def reliability(
    calibration: Calibration, *, positive: str = "the second class", ax: Axes | None = None
) -> Figure:
    """Draw how often what was given a probability came true.

    Args:
        calibration: What `finetune_eval.evaluation.calibration.calibrate` returns.
        positive: The name of the second class, where the probabilities are of that.
        ax: Axes to draw into; None makes a new figure.

    Returns:
        The figure: a dot a bin with its interval; on the diagonal, probabilities are what they say.

    Reference:
        J. Bröcker and L. Smith, "Increasing the reliability of reliability diagrams", Weather and
        Forecasting 22, 2007.
    """
    shown = repr(clip(printable(positive), 24)) if calibration.event == "positive" else "the predicted class"
    with _figure("are the probabilities right?", f"probability of {shown}", ax) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, zorder=1)
        for one in calibration.bins:
            bounds = [one.observed.low, one.observed.high]
            axes.plot([one.predicted] * 2, bounds, color=BLUE, alpha=0.4, linewidth=2.5)
            axes.plot([one.predicted], [one.observed.value], "o", color=BLUE, markersize=4.5)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="how often it came true")
    return figure


def intervals(evaluation: Evaluation, *, ax: Axes | None = None) -> Figure:
    """Draw the precision, recall and F1 of each class with their intervals.

    Args:
        evaluation: Any evaluation.
        ax: Axes to draw into; None makes a new figure.

    Returns:
        The figure: up to 30 classes, those with the lowest F1 first.
    """
    scores = sorted(evaluation.per_class, key=lambda score: score.f1.value)[:30]
    drawn = [(score.label, [score.precision, score.recall, score.f1]) for score in scores]
    names = [clip(printable(label), 20) for label, _ in drawn]
    title = (
        "each class"
        if len(scores) == len(evaluation.per_class)
        else f"the {len(scores)} classes of lowest F1"
    )
    size = (_SIZE[0], max(2.0, 1.2 + 0.42 * len(drawn)))
    with _figure(title, f"{evaluation.confidence:.0%} intervals", ax, size=size) as (figure, axes):
        for k, (name, color) in enumerate((("precision", BLUE), ("recall", RED), ("F1", INK))):
            at = np.arange(len(drawn)) + (k - 1) * 0.22
            for y, (_, estimates) in zip(at, drawn, strict=True):
                axes.plot(
                    [estimates[k].low, estimates[k].high], [y, y], color=color, alpha=0.4, linewidth=2.5
                )
            axes.plot([e[k].value for _, e in drawn], at, "o", color=color, markersize=4, label=name)
        axes.set_yticks(range(len(drawn)), names)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.1)
        axes.set_title(title, pad=20)
    return figure


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element for a page.

    Args:
        figure: One of the figures of this module.
        name: A word that no other figure of the page has: it keeps their ids apart.

    Returns:
        The element: it takes its colours from the page (`currentColor`, `--faint`, `--blue`, `--red`,
        `--paper`) and its font too, and fills the width it is given. The same figure gives the same text.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"`name` must be a word of lower-case letters, digits and hyphens; got {name!r}.")
    written = io.StringIO()
    # A label in a script that the font of the measurements lacks is still drawn, by the reader's font.
    with warnings.catch_warnings(), mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<svg .*?viewBox="([^"]*)".*?>', r'<svg class="plot" viewBox="\1">', text, count=1, flags=re.DOTALL
    )
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = (
        text.replace('id="', f'id="{name}-')
        .replace("url(#", f"url(#{name}-")
        .replace('href="#', f'href="#{name}-')
    )
    for colour, variable in (
        (INK, "currentColor"),
        (FAINT, "var(--faint)"),
        (BLUE, "var(--blue)"),
        (RED, "var(--red)"),
    ):
        text = text.replace(colour, variable)
    return text.strip()


@contextlib.contextmanager
def _figure(
    title: str, below: str, ax: Axes | None, *, size: Sequence[float] = _SIZE
) -> Iterator[tuple[Figure, Axes]]:
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(
            f"`ax` must be one matplotlib Axes or None; got {type(ax).__name__}. Pass one of those that "
            "`plt.subplots()` returns."
        )
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        own = Figure(figsize=(size[0], size[1]), layout="constrained") if ax is None else None
        axes = own.add_subplot() if own is not None else cast(Axes, ax)
        axes.set_title(title)
        axes.set_xlabel(below)
        yield cast(Figure, axes.get_figure(root=True)), axes
        if own is not None:
            # Lay out while the style holds, and once for all: square axes would move at each drawing.
            own.draw_without_rendering()
            own.set_layout_engine("none")


def _curves(axes: Axes, trace: TrainingTrace, name: str, color: str, label: str) -> None:
    points = [
        (r.epoch, r.metrics[name]) for r in trace.epochs if math.isfinite(r.metrics.get(name, math.nan))
    ]
    if points:
        x, y = zip(*points, strict=True)
        marker = "o" if len(points) <= 40 else None
        axes.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1.4, label=label)


def _finish_epochs(axes: Axes, trace: TrainingTrace) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if trace.best_epoch is not None:
        axes.axvline(
            trace.best_epoch, color=FAINT, linewidth=1, zorder=0, label=f"best epoch: {trace.best_epoch}"
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


__all__ = ["accuracy_curves", "confusion", "intervals", "loss_curves", "reliability"]
