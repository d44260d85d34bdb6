"""Exact, normalised and near-duplicate overlap between splits.

Two texts are near-duplicates when the Jaccard similarity of their sets of character 5-grams reaches a
threshold (`minhash`); two short ones also when they are the same but for a word (`edits`). Test rows that
resemble many different training rows alike share a template with them, and are no copies of one.

Reference:
    Lee, K. et al. (2022). Deduplicating training data makes language models better. ACL 2022.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from finetune_eval import _checks, _columns, _pairs, _rows
from finetune_eval._text import Shown, counted, quoted, shorten, visible, wrap
from finetune_eval.data import edits, minhash
from finetune_eval.data.minhash import jaccard, lsh_probability
from finetune_eval.data.words import same_text

__all__ = ["Leaks", "find_leaks", "jaccard", "lsh_probability", "near_duplicate_clusters", "row_keys"]

NEAR = 0.8  # Lee et al. 2022
KINDS = ("exact", "normalised", "near", "edited")

_VERIFIED = 64  # of the proposals for one row
# A test row that resembles so many different training texts, directly or through others, is of one template
# with them. Rows made from one by augmentation are mostly fewer.
_TEMPLATE = 10
# A row that is so many times nearer to one of them than to the others is a copy of that one all the same.
_STANDS_OUT = 1.5
_RELATIVES = 1_000  # that it is held against
_HALF = 2**32
_BYTES = 16  # of the key of one number
_CERTAIN = 0.99  # similarity from which a row is reported, however many it resembles


class _Match(NamedTuple):
    other: int
    kind: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Leaks(Shown):
    """Test rows that are possibly also in the training rows.

    Attributes:
        test_rows: (m,) int64, ascending: which test rows.
        train_rows: (m,) int64: the most similar training row found for each.
        kind: (m,) str, for each: "exact" (the same text), "normalised" (the same but for case, white space,
            Unicode form or characters that are not seen), "near" or "edited" (short texts: the same but for
            a word of seven or more, or for two side by side of sixteen).
        similarity: (m,) in [0, 1]: 1 for the first two kinds, the Jaccard similarity of their character
            5-grams for "near", the share of words in common for "edited".
        n_train: Training rows looked at.
        n_test: Test rows looked at.
        threshold: The smallest similarity that counts; None where the rows are numbers and must be equal.
        crowded: Test rows that resemble hundreds of training rows each (boilerplate): of these a copy that is
            only just similar enough may have been missed.
        examples: Up to three of each kind: kind, similarity, test row, its text, training row, its text.
        template_rows: (t,) int64: test rows that resemble ten or more different training rows, directly
            or through others, and none of them much more than the rest; they are not in `test_rows`.
        template_example: One of them, and one of the training rows that it resembles; empty where there is
        none.
    """

    test_rows: np.ndarray
    train_rows: np.ndarray
    kind: np.ndarray
    similarity: np.ndarray
    n_train: int
    n_test: int
    threshold: float | None
    crowded: int
    examples: tuple[tuple[str, float, int, str, int, str], ...]
    template_rows: np.ndarray
    template_example: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many test rows there are of each kind."""
        return {kind: int(np.count_nonzero(self.kind == kind)) for kind in KINDS}

    @property
    def clean_rows(self) -> np.ndarray:
        """(n_test - m,) int64: the test rows that are no possible leak."""
        return np.setdiff1d(np.arange(self.n_test), self.test_rows)

    def __len__(self) -> int:
        return len(self.test_rows)

    @property
    def limits(self) -> str:
        """What would not have been found."""
        if self.threshold is None:
            return "only equal values were looked for"
        return f"texts match from a similarity of {self.threshold:g} on; a paraphrase would not be noticed"

    @property
    def templates(self) -> str:
        """Say how many test rows share a template with training rows; nothing where none does."""
        if not len(self.template_rows):
            return ""
        test, train = map(quoted, self.template_example)
        one = len(self.template_rows) == 1
        return (
            f"{counted(len(self.template_rows), 'test row')} {'shares' if one else 'share'} a template with "
            f"ten or more training rows, such as {test} with {train}; {'it is' if one else 'they are'} not "
            f"counted as {'a leak' if one else 'leaks'}, but easier than texts of another kind."
        )

    @property
    def found(self) -> str:
        """Say in one sentence how many possible leaks there are, and what would not have been found."""
        test, train = counted(self.n_test, "test row"), counted(self.n_train, "training row")
        if not len(self):
            match = "matches" if self.n_test == 1 else "match"
            return f"No possible leak found: {test} {match} none of {train} ({self.limits})."
        match = "matches" if len(self) == 1 else "match"
        share = f"{100 * len(self) / self.n_test:.3g} %"
        return f"Possible leak: {len(self):,} of {test} {match} one of {train} ({share})."

    def __str__(self) -> str:
        lines = wrap(self.found)
        if len(self):
            meaning = {"exact": "the same values"}
            if self.threshold is not None:
                meaning = {
                    "exact": "the same text",
                    "normalised": "the same but for case, spaces and invisible differences",
                    "near": f"at least {self.threshold:g} of their character 5-grams in common",
                    "edited": f"the same but for a word (of {edits.FEWEST} or more)",
                }
            lines += [f"  {kind:<10} {self.counts[kind]:>9,}  {what}" for kind, what in meaning.items()]
        if self.templates:
            lines += wrap(self.templates)
        if self.crowded:
            lines += wrap(
                f"{counted(self.crowded, 'test row')} {'resembles' if self.crowded == 1 else 'resemble'} "
                "hundreds of training rows; looser copies among these may have been missed."
            )
        for kind, similarity, test_row, test_text, train_row, train_text in self.examples:
            lines.append(f"{kind}, similarity {similarity:.2f}")
            for name, row, text in (("test", test_row, test_text), ("train", train_row, train_text)):
                start = f"  {name:<5} row {row}: "
                lines.append(start + shorten(visible(" ".join(text.split())), 80 - len(start)))
        return "\n".join(lines)


def find_leaks(train: Any, test: Any, *, threshold: float = NEAR) -> Leaks:
    """Find test rows that are, exactly or nearly, also training rows.

    Args:
        train: (n,) texts, (n, 2) texts where a row is a pair, (n, d) numbers, or `Rows` of these. The two
            texts of a pair are looked at as one, joined: pairs with the same long first text count as near,
            whatever the second one. Of rows of columns (`rows_of_columns`) the texts are looked at, of
            numbers only exact repeats are found.
        test: The same for test.
        threshold: The Jaccard similarity of character 5-grams from which two texts are near-duplicates, in
            [0.5, 1]. A pair just there is proposed with probability 0.995 or more, a closer one more surely.

    Returns:
        The test rows that may be leaks, each with its training row, the kind and the similarity.

    Raises:
        ValueError: No rows, one side texts and the other numbers, or a threshold out of range.

    Example:
        >>> leaks = find_leaks(["A warm and funny film.", "Dull."], ["Great!", "a warm  and funny FILM."])
        >>> print(leaks.test_rows, leaks.kind)
        [1] ['normalised']
    """
    threshold = _checks.number("threshold", threshold, at_least=0.5, at_most=1)
    _rows.same_columns(train=getattr(train, "x", train), test=getattr(test, "x", test))
    x_train, x_test = _contents("train", train), _contents("test", test)
    are_texts = isinstance(x_train[0], str)
    if are_texts != isinstance(x_test[0], str):
        raise ValueError("`train` and `test` must both hold texts or both hold numbers; got one of each.")
    if not are_texts and len(x_train[0]) != len(x_test[0]):
        widths = [len(x[0]) // _BYTES for x in (x_train, x_test)]
        raise ValueError(
            f"`train` and `test` must have the same columns; got {widths[0]:,} and {widths[1]:,}."
        )
    found: dict[int, _Match] = {}
    in_template: dict[int, _Match] = {}
    crowded = 0
    _same(x_train, x_test, "exact", found)
    if are_texts:
        normal_train = [same_text(text) for text in x_train]
        normal_test = [same_text(text) for text in x_test]
        _same(normal_train, normal_test, "normalised", found)
        left = [row for row in range(len(x_test)) if row not in found]
        crowded = _near(normal_train, normal_test, left, threshold, found, in_template)

    rows, shared = sorted(found), sorted(in_template)
    examples = []
    for kind in KINDS:
        for row in [row for row in rows if found[row].kind == kind][:3]:
            other, _, similarity = found[row]
            examples.append((kind, similarity, row, _shown(test, row), other, _shown(train, other)))
    return Leaks(
        test_rows=np.array(rows, dtype=np.int64),
        train_rows=np.array([found[row].other for row in rows], dtype=np.int64),
        kind=np.array([found[row].kind for row in rows], dtype=object),
        similarity=np.array([found[row].similarity for row in rows], dtype=np.float64),
        n_train=len(x_train),
        n_test=len(x_test),
        threshold=threshold if are_texts else None,
        crowded=crowded,
        examples=tuple(examples),
        template_rows=np.array(shared, dtype=np.int64),
        template_example=(x_test[shared[0]], x_train[in_template[shared[0]].other]) if shared else (),
    )


def near_duplicate_clusters(texts: Sequence[str], threshold: float) -> tuple[np.ndarray, int]:
    """Number the clusters of texts that are near-duplicates, directly or through others.

    Args:
        texts: Normalised texts, no two alike.
        threshold: The Jaccard similarity of character 5-grams from which two texts belong together, [0.5, 1].

    Returns:
        (n,) int64 cluster numbers, and how many texts resemble hundreds of others, so that not all their
        pairs were looked at.
    """
    signatures = minhash.signatures(texts)
    rows, others, crowded = minhash.proposals(signatures, signatures, threshold, same=True)
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    def join(row: int, other: int) -> None:
        a, b = root(row), root(other)
        parent[max(a, b)] = min(a, b)

    for row, other in zip(rows.tolist(), others.tolist(), strict=True):
        if root(row) != root(other) and jaccard(texts[row], texts[other]) >= threshold:
            join(row, other)
    for row, other, _ in edits.one_word_apart(texts, texts, threshold):
        join(row, other)
    clusters = np.fromiter((root(row) for row in range(len(texts))), np.int64, len(texts))
    return clusters, int(np.count_nonzero(crowded))


def row_keys(rows: np.ndarray) -> list[bytes]:
    """Return for each row of numbers what rows with the same numbers share, whatever their dtype.

    A whole number beyond 2^53 is no float64: each number is kept as two that are, its multiple of 2^32 and
    the rest.

    Args:
        rows: (n, ...) booleans, integers or finite floats.
    """
    kind = {"b": np.int64, "i": np.int64, "u": np.uint64}.get(rows.dtype.kind, np.float64)
    flat = rows.reshape(len(rows), -1).astype(kind)
    half: Any = kind(_HALF)
    rest = np.fmod(flat, half)
    high = (flat - rest) // half
    halves = np.stack([high, rest], axis=-1).astype("<f8") + 0.0  # + 0.0 turns -0.0 into 0.0
    return [row.tobytes() for row in halves]


def _contents(name: str, rows: Any) -> list[Any]:
    """Return the rows as a list of hashable contents: texts (pairs joined), or the keys of numbers."""
    rows = getattr(rows, "x", rows)
    rows = _columns.text_of(rows) if _columns.are_columns(rows) else rows
    array = _pairs.joined(_pairs.pairs(name, rows)) if _pairs.are_pairs(rows) else _rows.column(name, rows)
    _checks.not_empty(name, array)
    if array.ndim == 1 and array.dtype.kind in "OUT":
        listed: list[Any] = array.tolist()
        for row, text in enumerate(listed):
            if not isinstance(text, str):
                raise ValueError(f"`{name}` must hold a text in every row; row {row} is {text!r}.")
        return listed
    if array.ndim < 2:
        raise ValueError(
            f"`{name}` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    return row_keys(_rows.numbers(name, array))


def _shown(rows: Any, row: int) -> str:
    value = getattr(rows, "x", rows)
    value = value.iloc[row] if hasattr(value, "iloc") else value[row]
    if _pairs.are_pairs([value]):
        return str(_pairs.joined(_pairs.pairs("rows", [value]))[0])
    if isinstance(value, np.void):
        return str(value[0])
    return value if isinstance(value, str) else np.array2string(np.asarray(value).ravel()[:8], precision=4)


def _same(train: Sequence[Any], test: Sequence[Any], kind: str, found: dict[int, _Match]) -> None:
    first: dict[Any, int] = {}
    for row, content in enumerate(train):
        first.setdefault(content, row)
    for row, content in enumerate(test):
        if row not in found and content in first:
            found[row] = _Match(first[content], kind, 1.0)


def _near(
    train: list[str],
    test: list[str],
    left: list[int],
    threshold: float,
    found: dict[int, _Match],
    in_template: dict[int, _Match],
) -> int:
    """Add near-duplicates among the test rows `left` to `found`, and those of templates to `in_template`.

    Returns:
        How many rows were crowded.
    """
    rows_of: dict[str, list[int]] = {}
    for row in left:
        rows_of.setdefault(test[row], []).append(row)
    first: dict[str, int] = {}
    for row, text in enumerate(train):
        first.setdefault(text, row)
    if not rows_of:
        return 0
    queries, known = list(rows_of), list(first)
    signatures = minhash.signatures(queries), minhash.signatures(known)
    matches, loose, crowded = _matches(queries, known, signatures, threshold)
    family_of = _families(matches)
    for query, others in matches.items():
        best = max(others, key=lambda match: (match.similarity, match.kind == "near"))
        rest = {*family_of[query][:_RELATIVES], *loose.get(query, ())} - {best.other}
        alike = len(rest) + 1 >= _TEMPLATE and best.similarity < _CERTAIN
        if alike:
            apart = 1 - jaccard(queries[query], known[best.other])
            others_apart = [1 - match.similarity for match in others if match.other != best.other]
            estimated = (signatures[1][sorted(rest)] != signatures[0][query]).mean(axis=1)
            alike = apart * _STANDS_OUT > min([float(estimated.min()), *others_apart])
        best = best._replace(other=first[known[best.other]])
        for row in rows_of[queries[query]]:
            (in_template if alike else found)[row] = best
    return sum(len(rows_of[queries[i]]) for i in np.flatnonzero(crowded))


def _families(matches: dict[int, list[_Match]]) -> dict[int, list[int]]:
    """Return for each query the known texts that it resembles directly or through other texts."""
    queries_of: dict[int, list[int]] = {}
    for query, others in matches.items():
        for match in others:
            queries_of.setdefault(match.other, []).append(query)
    family_of: dict[int, list[int]] = {}
    for start in matches:
        if start in family_of:
            continue
        family: dict[int, None] = {}
        waiting, members = [start], {start}
        while waiting:
            for match in matches[waiting.pop()]:
                if match.other not in family:
                    family[match.other] = None
                    fresh = [query for query in queries_of[match.other] if query not in members]
                    members.update(fresh)
                    waiting += fresh
        family_of |= dict.fromkeys(members, list(family))
    return family_of


def _matches(
    queries: list[str], known: list[str], signatures: tuple[np.ndarray, np.ndarray], threshold: float
) -> tuple[dict[int, list[_Match]], dict[int, list[int]], np.ndarray]:
    """Return the known texts that each query resembles, and those that it may, and which were crowded."""
    rows, others, crowded = minhash.proposals(*signatures, threshold, same=False)
    matches: dict[int, list[_Match]] = {}
    loose: dict[int, list[int]] = {}
    shingles_of_known = functools.lru_cache(maxsize=_VERIFIED)(lambda other: minhash.shingles(known[other]))
    edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        query = int(rows[start])
        mine = minhash.shingles(queries[query])
        here: list[_Match] = []
        loose[query] = others[start:end].tolist()
        for i, other in enumerate(loose[query]):
            if i >= minhash.KEPT_A_BAND and here:
                break  # the proposals come most similar first
            if i >= _VERIFIED:
                crowded[query] = True
                break
            similarity = minhash.overlap(mine, shingles_of_known(other))
            if similarity >= threshold:
                here.append(_Match(other, "near", similarity))
            if similarity >= _CERTAIN:
                break
        if here:
            matches[query] = here
    for query, other, share in edits.one_word_apart(queries, known, threshold):
        here = matches.setdefault(query, [])
        if all(match.other != other for match in here):
            here.append(_Match(other, "edited", share))
    return matches, loose, crowded
