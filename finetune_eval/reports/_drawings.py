"""Drawings for the page, as inline SVG: rows through the stages, one text through the model, seeds.

Every text goes through `Markup.format`, which escapes it. Colours are the page's classes; 360 units wide, so
that the letters are legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from markupsafe import Markup

from finetune_eval.data.ledger import DataTrace
from finetune_eval.traces.prediction import LayerStep, PredictionTrace, cells, clip, printable

if TYPE_CHECKING:
    from finetune_eval.evaluation.seeds import SeedSummary

_WIDE = 360
_LEFT = 84  # where what a stage did begins
_ROOM = _WIDE - _LEFT - 2
_MOST_CLASSES = 12


def data_flow(trace: DataTrace) -> Markup:
    """Draw each step as a bar of its rows, on one scale, along a line from the source down."""
    step_height = 44
    most = max((max(step.rows_in, step.rows_out) for step in trace), default=1) or 1
    height = step_height * len(trace) + 4
    parts = [Markup('<line x1="10" y1="12" x2="10" y2="{}" class="rail"/>').format(height - step_height + 14)]
    for i, step in enumerate(trace):
        y = i * step_height + 14
        stage = clip(printable(step.stage), 12)
        shape = f"{step.rows_out:,} × {step.columns_out}"
        name = clip(printable(step.name), max(4, 44 - cells(stage) - len(shape)))
        before, after = ((_WIDE - 30) * rows / most for rows in (step.rows_in, step.rows_out))
        parts += [
            Markup('<circle cx="10" cy="{}" r="4" class="dot"/>').format(y),
            Markup('<text x="26" y="{}"><tspan class="strong">{}</tspan> {}</text>').format(
                y + 4, stage, name
            ),
            _text(_WIDE - 4, y + 4, shape, "end"),
            _rect(26, y + 11, max(before, 1), 9, "track"),
            _rect(26, y + 11, max(after, 1), 9, "fill"),
        ]
    return _drawing("Rows through the stages", height, parts)


def prediction_flow(trace: PredictionTrace) -> Markup:
    """Draw one text on its way: text, tokens, embedding, layers, pooling, softmax, answer."""
    parts: list[Markup] = []
    y = 4.0
    stages = [
        ("text", _text_lines(trace)),
        ("tokens", _tokens(trace)),
        ("embedding", _embedding(trace)),
        *([("layers", _layers(trace.layers))] if trace.layers else []),
        ("pooling", _pooling(trace)),
        (trace.head, _softmax(trace)),
        ("answer", _answer(trace)),
    ]
    for i, (name, (height, drawn)) in enumerate(stages):
        if i:
            parts.append(
                Markup('<path d="M{0} {1}v12m-4 -5l4 5l4 -5" class="arrow"/>').format(_LEFT + 10, y + 3)
            )
            y += 21
        parts.append(_text(0, y + 12, name, "strong"))
        parts.append(
            Markup('<g transform="translate({} {})">{}</g>').format(_LEFT, y, Markup("").join(drawn))
        )
        y += height
    return _drawing("One text through the model", math.ceil(y) + 4, parts)


def seeds(summary: SeedSummary) -> Markup:
    """Draw every run as a dot on one scale, above the interval of their mean."""
    values = [*summary.values, summary.mean.low, summary.mean.high]
    least, width = min(values), (max(values) - min(values)) or 1.0

    def at(value: float) -> float:
        return 8 + (_WIDE - 16) * (value - least) / width

    parts = [
        Markup('<line x1="8" y1="14" x2="{}" y2="14" class="rail"/>').format(_WIDE - 8),
        Markup('<line x1="{:.2f}" y1="14" x2="{:.2f}" y2="14" class="span"/>').format(
            at(summary.mean.low), at(summary.mean.high)
        ),
        *(
            Markup('<circle cx="{:.2f}" cy="14" r="4" class="run"/>').format(at(value))
            for value in summary.values
        ),
        _text(8, 34, f"{least:.3f}", "small"),
        _text(_WIDE - 8, 34, f"{max(values):.3f}", "small end"),
    ]
    return _drawing("The score of every seed", 40, parts)


def _text_lines(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    lines, rest = [""], printable(trace.text).split(" ")
    while rest:
        word = clip(rest[0], 42)
        joined = f"{lines[-1]} {word}".strip()
        if cells(joined) <= 42:
            lines[-1] = joined
        elif len(lines) == 5:
            lines[-1] = clip(lines[-1], 39) + " ..."
            break
        else:
            lines.append(word)
        rest.pop(0)
    return 15.0 * len(lines) + 3, [_text(0, 12 + 15 * i, line) for i, line in enumerate(lines)]


def _tokens(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    drawn: list[Markup] = []
    x, y = 0.0, 0.0
    for i, token in enumerate(trace.tokens):
        shown = clip(printable(token), 30)
        wide = 6.1 * cells(shown) + 8
        if x + wide > _ROOM:
            x, y = 0.0, y + 20
        if y > 90:
            drawn.append(_text(0, y + 12, f"and {len(trace.tokens) - i:,} more tokens"))
            break
        drawn += [_rect(x, y, wide, 16, "chip"), _text(x + 4, y + 11.5, shown, "mono")]
        x += wide + 4
    if trace.tokens_cut:
        y += 20
        drawn.append(_text(0, y + 12, f"{trace.tokens_cut:,} more were cut off before the model"))
    return y + 18, drawn


def _embedding(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    columns = min(len(trace.tokens), 34)
    drawn = [_rect(8 * i, 6 * k, 6.5, 4.5, "cell") for i in range(columns) for k in range(3)]
    drawn.append(_text(0, 32, _step(trace.embedding)))
    return 36, drawn


def _layers(layers: Iterable[LayerStep]) -> tuple[float, list[Markup]]:
    layers = tuple(layers)
    most = max((step.moved or 0.0 for step in layers), default=0.0)
    drawn: list[Markup] = []
    for i, step in enumerate(layers):
        strength = 0.12 + 0.5 * (step.moved or 0.0) / most if most > 0 else 0.2
        figures = []
        if step.cosine_to_previous is not None:
            figures.append(f"cos {step.cosine_to_previous:.2f}")
        if step.moved is not None:
            figures.append(f"moved {100 * step.moved:.2g} %")
        drawn += [
            Markup(
                '<rect x="0" y="{}" width="{}" height="17" rx="3" class="layer" fill-opacity="{:.3f}"/>'
            ).format(20 * i, _ROOM, strength),
            _text(5, 20 * i + 12, clip(printable(step.name), 22), "small"),
            _text(_ROOM - 5, 20 * i + 12, " · ".join(figures), "small end"),
        ]
    return 20.0 * len(layers), drawn


def _pooling(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    said = f"{clip(printable(trace.pooling), 34)} → {_shape(trace.pooled_shape)}"
    return 18, [*(_rect(0, 6 * k, 6.5, 4.5, "cell") for k in range(3)), _text(16, 12, said)]


def _softmax(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    classes = sorted(
        zip(trace.labels, trace.logits, trace.probabilities, strict=True), key=lambda item: -item[2]
    )
    drawn = [_text(100, 12, "probability", "small"), _text(_ROOM, 12, "logit", "small end")]
    for i, (label, logit, probability) in enumerate(classes[:_MOST_CLASSES]):
        y = 20 * i + 16
        drawn += [
            _text(0, y + 12, clip(printable(label), 13)),
            _rect(100, y + 2, 80, 12, "track"),
            _rect(100, y + 2, 80 * probability if math.isfinite(probability) else 0, 12, "fill"),
            _text(188, y + 12, f"{probability:.3f}"),
            _text(_ROOM, y + 12, f"{logit:.2f}", "small end"),
        ]
    left = len(classes) - _MOST_CLASSES
    if left > 0:
        drawn.append(_text(0, 20 * _MOST_CLASSES + 28, f"and {left:,} less probable classes", "small"))
    return 16 + 20.0 * (min(len(classes), _MOST_CLASSES) + (left > 0)), drawn


def _answer(trace: PredictionTrace) -> tuple[float, list[Markup]]:
    shown = clip(printable(trace.answer), 36)
    wide = 7.2 * cells(shown) + 20
    drawn = [_rect(0, 0, wide, 22, "answer"), _text(10, 15, shown, "onfill strong")]
    if trace.threshold is not None:
        each = "each label from a probability of its own on"
        said = each if isinstance(trace.threshold, tuple) else f"from {trace.threshold:.3f} on"
        drawn.append(_text(wide + 8, 15, said, "small"))
    return 24, drawn


def _step(step: LayerStep) -> str:
    return f"{_shape(step.shape)}, mean norm {step.norm:.3g}"


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(size) for size in shape)


def _text(x: float, y: float, text: str, style: str = "") -> Markup:
    return Markup('<text x="{:g}" y="{:g}" class="{}">{}</text>').format(x, y, style, text)


def _rect(x: float, y: float, width: float, height: float, style: str) -> Markup:
    return Markup('<rect x="{:g}" y="{:g}" width="{:.4g}" height="{:g}" rx="2" class="{}"/>').format(
        x, y, width, height, style
    )


def _drawing(title: str, height: float, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="drawing" viewBox="0 0 {} {:g}" role="img" aria-label="{}">{}</svg>').format(
        _WIDE, height, title, Markup("\n").join(parts)
    )
