"""Where a model is weak: the parts, the classes and the rows that a report has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_eval.evaluation.slices import ConfusedPair, Slice, confused_pairs, possible_label_errors
from finetune_eval.traces.prediction import clip, printable

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation

_MOST_WEAK = 10
_MOST_PARTS = 20


@dataclass(frozen=True)
class WrongRow:
    """A row that is predicted as something else than its label says.

    Attributes:
        text: The row, or its id where its text is not known; one line.
        label: What its label says.
        prediction: What was predicted.
        loss: How wrong, in nats; None of an answer without probabilities.
        suspect: Whether confident learning lists its label as a possible error.
    """

    text: str
    label: str
    prediction: str
    loss: float | None
    suspect: bool


def parts(evaluation: Evaluation) -> list[Slice]:
    """Return the weak parts of the rows, then the other lengths and values of columns, weakest first.

    Words that are not weak are left out: there are thousands, and most say nothing.
    """
    weak = [part for part in evaluation.slices if part.weak][:_MOST_WEAK]
    others = [part for part in evaluation.slices if not part.weak and part.column != "word"]
    return [*weak, *others][:_MOST_PARTS]


def confused(evaluation: Evaluation) -> tuple[ConfusedPair, ...]:
    """Return the pairs of classes most often mistaken; none of two classes, whose matrix says it all."""
    if evaluation.task != "classification" or len(evaluation.labels) < 3:
        return ()
    return confused_pairs(evaluation, n=8)


def wrong_rows(evaluation: Evaluation, *, n: int, width: int) -> tuple[list[WrongRow], int]:
    """Return the wrong rows of the largest loss, worst first, and how many labels may be errors in all.

    Answers without probabilities have no loss: the first wrong rows are returned.

    Args:
        evaluation: Any evaluation.
        n: How many rows at most.
        width: How much of a text is kept, in terminal columns.
    """
    table = evaluation.predictions
    suspects: set[tuple[str, str, float]] = set()
    if evaluation.task == "classification" and evaluation.has_probabilities:
        found = possible_label_errors(evaluation, n=evaluation.n)
        # Ids may repeat: a row is known by its id, its label and the probability of that.
        suspects = set(zip(found["id"].astype(str), found["label"], found["p_label"], strict=True))
    wrong = table[table["label"] != table["prediction"]]
    wrong = wrong.nlargest(n, "loss") if evaluation.has_probabilities else wrong.head(n)
    rows = []
    for row in wrong.to_dict("records"):
        label = row["label"]
        rows.append(
            WrongRow(
                clip(printable(row["text"] if "text" in row else f"row {row['id']}"), width),
                printable(label),
                clip(printable(row["prediction"]), width) or "(no answer)",
                row.get("loss"),
                (str(row["id"]), label, row.get(f"p_{label}")) in suspects,
            )
        )
    return rows, len(suspects)
