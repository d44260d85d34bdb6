"""Hard answers (words instead of probabilities): which label each is, and which are no label at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _labels, _rows
from finetune_eval._text import counted, quoted

_MOST_EXAMPLES = 10


@dataclass(frozen=True)
class Answers:
    """What a model answered to each row.

    Attributes:
        places: (n,) the label of each answer, 0 to K - 1; K where it is no label.
        words: (n,) the answers as texts, without the white space around them; "" where there is none.
        stripped: How many answers are a label only without the white space around them.
        alike: How many answers that are no label differ from one in upper and lower case only.
        found: Whether the labels are those that occur in the truth, since nobody named them.
    """

    places: NDArray[np.int64]
    words: list[str]
    stripped: int
    alike: int
    found: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def of(self, rows: NDArray[np.int64]) -> Answers:
        """Return the answers to some of the rows."""
        return Answers(self.places[rows], [self.words[row] for row in rows.tolist()], 0, 0)

    def examples(self, classes: int) -> tuple[tuple[str, int], ...]:
        """Return the commonest answers that are no label, each with its number of rows."""
        none = Counter(self.words[row] for row in np.flatnonzero(self.places == classes).tolist())
        return tuple(sorted(none.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_EXAMPLES])

    def notes(self, labels: tuple[str, ...]) -> list[str]:
        """Return what was done to the answers and what became of those that are no label, in sentences."""
        out = []
        none = int((self.places == len(labels)).sum())
        if none:
            distinct = len({self.words[row] for row in np.flatnonzero(self.places == len(labels)).tolist()})
            examples = self.examples(len(labels))[:3]
            shown = [f"{quoted(word, 30) if word else 'no answer'} ({rows:,})" for word, rows in examples]
            if distinct > len(shown):
                shown.append(f"{counted(distinct - len(shown), 'other answer')}")
            said = ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]
            are = "is" if none == 1 else "are"
            count = "counts" if none == 1 else "count"
            out.append(
                f"{none:,} of {counted(len(self.places), 'answer')} {are} no label and {count} as wrong: "
                f"{said}."
            )
            if self.found:
                out.append(
                    "The labels are those that occur in the truth, since `labels` was not given; an answer "
                    "that names another class is no label."
                )
        if self.alike:
            differ = "differs" if self.alike == 1 else "differ"
            out.append(
                f"{self.alike:,} of the answers that are no label {differ} from a label in upper and lower "
                "case only. Answers must match a label exactly; change their case first if you want to count "
                "them."
            )
        if self.stripped:
            them = "it" if self.stripped == 1 else "them"
            out.append(
                f"{counted(self.stripped, 'answer')} had white space around {them}, which was removed."
            )
        return out


def read_answers(
    name: str, answers: Any, labels: Sequence[str], truth: Any = None, *, found: bool = False
) -> Answers:
    """Read one answer a row: a label where it matches one exactly once the white space around it is gone.

    Numbers, and texts that spell numbers, are read as `_labels.read` reads them: as class names or as
    class indices, whichever fits (as indices beside names only where the truth is indices). Everything else
    is no label: another word, another case, a sentence, a number out of range, a missing value, an empty
    text.

    Args:
        name: What the caller's argument is called, for the error.
        answers: (n,) or (n, 1) texts or numbers.
        labels: The K class names.
        truth: (n,) the true labels: where these are numbers, both are read in the same way.
        found: Whether the labels are those that occur in the truth: numbers are then names, not indices.

    Raises:
        TypeError: It is no column of answers; or of fractions from 0 to 1.
        ValueError: It has several columns, or its numbers may be read as names and as indices.
    """
    names = tuple(labels)
    known = _labels.known_names(answers)
    if known is not None:
        unnamed = len(known) == len(names) and _labels.default_names(len(names)) in (known, names)
        meant = (*(names if unnamed else known), None)  # -1, a withheld answer, is the last
        answers = [meant[place] for place in np.asarray(answers, dtype=np.int64).ravel().tolist()]
    array = np.asarray(_rows.column(name, answers))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` must hold one answer a row, shape (rows,); got {array.shape}. Pass `probabilities` "
            "instead if these are probabilities."
        )
    absent = _rows.missing(array)
    if array.dtype.kind == "f" and ((array[~absent] >= 0) & (array[~absent] <= 1)).all():
        fractions = ~absent & (array != np.rint(array))
        if fractions.any():
            row = int(fractions.argmax())
            raise TypeError(
                f"`{name}` must hold answers; row {row} is {array[row]:.4g}, which names no class. Pass "
                "`probabilities` instead if these are probabilities."
            )
    raw = [None if gone else _plain(value) for gone, value in zip(absent, array.tolist(), strict=True)]
    odd = next((row for row, value in enumerate(raw) if not isinstance(value, Hashable)), None)
    if odd is not None:
        raise TypeError(
            f"`{name}` must hold a text or a number in every row; row {odd} is a {type(raw[odd]).__name__}."
        )
    keys = [(type(value) is bool, value) for value in raw]  # True and 1 are one key to Python
    number = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    codes = np.fromiter((number[key] for key in keys), np.int64, len(keys))
    distinct = [value for _, value in number]
    first = np.unique(codes, return_index=True)[1].tolist()
    answered = list(zip(distinct, first, strict=True))
    places, stripped, alike = _places(name, answered, truth, names, indices=not found)
    rows = np.bincount(codes, minlength=len(distinct))
    words = ["" if value is None else _word(value, names) for value in distinct]
    return Answers(
        np.array(places, dtype=np.int64)[codes],
        [words[code] for code in codes.tolist()],
        int(rows[stripped].sum()),
        int(rows[alike].sum()),
        found,
    )


def _plain(value: Any) -> Any:
    """Return an answer as a text, a number or a boolean of Python."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _word(value: Any, names: tuple[str, ...]) -> str:
    if isinstance(value, str):  # half a surrogate pair cannot be written to a file
        return value if value in names else value.strip().encode("utf-8", "replace").decode("utf-8")
    return _labels.written(value)


def _numbers_of(truth: Any) -> list[tuple[Any, int]]:
    """Return the distinct true labels where they are plain numbers, each with its first row."""
    if truth is None or _labels.known_names(truth) is not None:
        return []
    array = np.asarray(truth)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        return []
    values, first = np.unique(array, return_index=True)
    return list(zip(values.tolist(), first.tolist(), strict=True))


def _places(
    name: str, answers: list[tuple[Any, int]], truth: Any, names: tuple[str, ...], *, indices: bool
) -> tuple[list[int], list[int], list[int]]:
    """Return the place of each distinct answer, and which are labels once stripped, or but for their case.

    Args:
        name: What the caller's argument is called, for the error.
        answers: The distinct answers, each with its first row.
        truth: The true labels, or None.
        names: The class names.
        indices: Whether numbers may be class indices too.
    """
    classes, values = len(names), [value for value, _ in answers]
    words = [value.strip() if isinstance(value, str) else value for value in values]
    some = [at for at, word in enumerate(words) if word is not None and word != ""]
    exact = [at for at in some if values[at] in names]
    words = [values[at] if at in set(exact) else word for at, word in enumerate(words)]
    texts = any(isinstance(words[at], str) for at in some)
    found: dict[int, int | None] = dict(
        zip(some, _labels.named([words[at] for at in some], names), strict=True)
    )
    unnamed = all(_labels.number_of(each) is None for each in names)
    as_places = names == _labels.default_names(classes) or unnamed
    alone = all(place is None for place in found.values()) or (
        truth is not None and _labels.are_numbers(truth)
    )
    if indices and (not texts or (as_places and alone)):
        numbers = {at: _labels.number_of(words[at]) for at in some}
        fit = [at for at in some if numbers[at] in range(classes) or None not in (numbers[at], found[at])]
        if fit:
            together = [*((numbers[at], answers[at][1]) for at in fit), *_numbers_of(truth)]
            read = _labels.places_of_numbers(
                name, [value for value, _ in together], [row for _, row in together], names
            )
            found |= dict(zip(fit, read, strict=False))
    lower = {each.lower() for each in names}
    places, stripped, alike = [], [], []
    for at, word in enumerate(words):
        place = found.get(at)
        places.append(classes if place is None else place)
        if isinstance(word, str) and place is not None and word != values[at]:
            stripped.append(at)
        if isinstance(word, str) and place is None and word.lower() in lower:
            alike.append(at)
    return places, stripped, alike
