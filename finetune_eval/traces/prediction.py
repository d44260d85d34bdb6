"""PredictionTrace: one text on its way through the model, from its tokens to the answer."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetune_eval import _checks
from finetune_eval._text import Shown, fill, width

_MARGIN = 11  # where what a stage did begins; the stage's name stands before it
_LINES = 5  # at most this many lines of text or tokens: a review of 400 tokens is no drawing
_BAR = 28
_ROOM_FOR_BARS = 69  # columns beside the margin from which the layers' bars have room
_MOST_CLASSES = 20  # more are no drawing


@dataclass(frozen=True)
class LayerStep:
    """What one layer made of the text.

    Attributes:
        name: The layer's name.
        shape: The shape of its output for this one text, such as (tokens, width).
        norm: Mean Euclidean length of its output vectors, over the tokens that are not padding.
        cosine_to_previous: Mean cosine between a token's vector after this layer and before it, in [-1, 1]:
            1 if the layer kept the direction. None if the shapes differ or it was not measured.
        moved: How far fine-tuning moved the layer's weights, relative to their length before:
            |after - before| / |before|. None if the weights from before are not known.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    cosine_to_previous: float | None = None
    moved: float | None = None


@dataclass(frozen=True)
class PredictionTrace(Shown):
    """One prediction, step by step; printing it gives a drawing as wide as the terminal, at most 80 columns.

    Attributes:
        text: The text as it was given.
        tokens: What the tokenizer made of it, special tokens included, padding not.
        token_ids: The number of each token.
        embedding: The token embeddings.
        layers: The model's layers, in order.
        pooling: How the token vectors became one vector, such as "mean of the tokens".
        pooled_shape: The shape of that vector.
        logits: One value a class, before the softmax.
        probabilities: One value a class, in [0, 1].
        labels: The class names, in the same order.
        answer: The label that the model gives, or several joined by a comma.
        check: Largest absolute difference between `probabilities` and those of `model.predict`.
        tokens_cut: Number of tokens beyond the model's sequence length, which it did not see.
        threshold: The probability of the second label from which it is the answer, or None: the largest wins.
            Where a text may have several labels: that of every label, or a tuple with that of each.
        head: What turns logits into probabilities: "softmax", or "sigmoid" where a text may have several
            labels.
        columns: What stands beside the text and joins the pooled vector, such as "price 5".

    Example:
        >>> step = LayerStep("embeddings", (2, 4), 1.0)
        >>> trace = PredictionTrace("good", ("[CLS]", "good"), (101, 2204), step, (), "first token", (4,),
        ...                         (-1.0, 1.0), (0.12, 0.88), ("bad", "good"), "good", 0.0)
        >>> print(str(trace).splitlines()[-3])
        answer     good (0.880)
    """

    text: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    embedding: LayerStep
    layers: tuple[LayerStep, ...]
    pooling: str
    pooled_shape: tuple[int, ...]
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    labels: tuple[str, ...]
    answer: str
    check: float
    tokens_cut: int = 0
    threshold: float | tuple[float, ...] | None = None
    head: str = "softmax"
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _checks.same_length("tokens", self.tokens, "token_ids", self.token_ids)
        _checks.same_length("logits", self.logits, "labels", self.labels)
        _checks.same_length("probabilities", self.probabilities, "labels", self.labels)

    def __str__(self) -> str:
        stages = [
            ("text", _wrap(printable(self.text).split(" "), f"... ({len(self.text):,} characters)")),
            ("tokens", self._tokens()),
            ("embedding", [_step(self.embedding)]),
        ]
        if self.layers:
            stages.append(("layers", self._layers()))
        stages.append(("pooling", [f"{clip(printable(self.pooling), 45)} -> {_shape(self.pooled_shape)}"]))
        if self.columns:
            beside = printable(", ".join(self.columns)).split(" ")
            stages.append(("columns", [*_wrap(beside, "..."), "beside the pooled vector"]))
        stages += [
            (self.head, self._softmax()),
            ("answer", [self._answer()]),
        ]
        drawn = f"\n{' ' * _MARGIN}|\n".join(
            "\n".join(f"{name if i == 0 else '':<{_MARGIN}}{line}".rstrip() for i, line in enumerate(lines))
            for name, lines in stages
        )
        return f"{drawn}\n\n{self._check()}"

    def _tokens(self) -> list[str]:
        cut = f"; {self.tokens_cut:,} more were cut off" if self.tokens_cut else ""
        shown = _wrap([printable(token) for token in self.tokens], "...")
        return [f"{len(self.tokens):,} tokens{cut}", *shown]

    def _layers(self) -> list[str]:
        moved = any(step.moved is not None for step in self.layers)
        most = max((step.moved or 0.0 for step in self.layers), default=0.0)
        wide = max(8, min(24, _room() - 38 - (7 if moved else 0)))  # what the other columns leave for names
        lines = [f"{'':<{wide}}{'shape':>12}{'norm':>9}{'cosine':>8}" + ("    moved" if moved else "")]
        for step in self.layers:
            name = _fill(clip(printable(step.name), wide - 1), wide)
            line = name + f"{_shape(step.shape):>12}{step.norm:>9.3g}"
            line += f"{'-' if step.cosine_to_previous is None else f'{step.cosine_to_previous:.2f}':>8}"
            if step.moved is not None:
                share = 100 * step.moved
                line += f"{f'{share:.2f}' if share < 1000 else f'{share:.0e}':>7} %"
                if most > 0 and _room() >= _ROOM_FOR_BARS:
                    line += f" {'#' * round(6 * step.moved / most)}"
            lines.append(line.rstrip())
        return lines

    def _softmax(self) -> list[str]:
        classes = list(zip(self.labels, self.logits, self.probabilities, strict=True))
        left = len(classes) - _MOST_CLASSES
        if left > 1:
            ranked = sorted(range(len(classes)), key=lambda place: -classes[place][2])
            classes = [classes[place] for place in sorted(ranked[:_MOST_CLASSES])]
        wide = max(7, min(18, max(cells(printable(label)) for label, _, _ in classes)))
        bars = min(_BAR, _room() - wide - 23)
        lines = [f"{'':<{wide}}{'logit':>9}{'probability':>13}"]
        for label, logit, probability in classes:
            bar = "#" * round(bars * probability) if math.isfinite(probability) else ""
            name = _fill(clip(printable(label), wide), wide)
            lines.append(f"{name}{logit:>9.3f}{probability:>13.3f} {bar}".rstrip())
        if left > 1:
            lines.append(f"... and {left:,} classes that are less probable")
        return lines

    def _answer(self) -> str:
        said = clip(printable(self.answer), 44)
        if self.answer in self.labels:
            said += f" ({self.probabilities[self.labels.index(self.answer)]:.3f})"
        if isinstance(self.threshold, tuple):
            said += ", each label from a probability of its own on"
        elif self.threshold is not None:
            said += f", threshold {self.threshold:.3f}"
        return said

    def _check(self) -> str:
        return fill(
            f"check: the probabilities differ from those of model.predict by at most {self.check:.1g}"
        )


def _room() -> int:
    """Return the columns beside the margin."""
    return width() - _MARGIN


def _step(step: LayerStep) -> str:
    return f"{_shape(step.shape)}, mean norm {step.norm:.3g}"


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(str(size) for size in shape)


def printable(text: str) -> str:
    """Return `text` as one line with nothing in it that a terminal would obey.

    White space becomes a blank; a control character becomes U+FFFD.
    """
    return " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())


def cells(text: str) -> int:
    """Return how many terminal columns `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _fill(text: str, columns: int) -> str:
    return text + " " * (columns - cells(text))


def clip(text: str, columns: int) -> str:
    """Return `text`, or its beginning and three dots if it takes more than `columns` terminal columns."""
    if cells(text) <= columns:
        return text
    kept = ""
    for c in text:
        if cells(kept + c) > columns - 3:
            break
        kept += c
    return kept + "..."


def _wrap(words: Sequence[str], more: str) -> list[str]:
    """Lay out words in at most `_LINES` lines beside the margin; `more` stands for what was left out."""
    room = _room()
    lines = [""]
    for word in words:
        word = clip(word, room)
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cells(joined) <= room:
            lines[-1] = joined
        elif len(lines) < _LINES:
            lines.append(word)
        else:
            lines[-1] = f"{clip(lines[-1], room - len(more) - 1).removesuffix('...')} {more}"
            break
    return lines


__all__ = ["PredictionTrace"]
