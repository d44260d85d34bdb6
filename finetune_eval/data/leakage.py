"""Exact, normalised and near-duplicate overlap between splits.

Two texts are near-duplicates when the Jaccard similarity of their sets of character 5-grams reaches a
threshold. MinHash signatures cut into bands propose the pairs; the true similarity decides.

Reference:
    Broder, A. (1997). On the resemblance and containment of documents. SEQUENCES 1997:21-29.
    Leskovec, J., Rajaraman, A., Ullman, J. Mining of Massive Datasets, chapter 3.
    Lee, K. et al. (2022). Deduplicating training data makes language models better. ACL 2022.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval import _checks
from finetune_eval.data.ledger import counted
from finetune_eval.data.words import same_text

NEAR = 0.8  # Lee et al. 2022
KINDS = ("exact", "normalised", "near")

_SHINGLE = 5  # characters; needs no word boundaries, so it serves every language
_HASHES = 128
# The bands must propose a pair that is right at the threshold with at least this probability.
_SURE = 0.995
# A proposal is verified unless its estimated similarity is this many standard deviations under the threshold.
_SLACK = 4.0
_CHUNK_CHARACTERS = 1 << 19
_CHUNK_PAIRS = 50_000
# Boilerplate puts thousands of rows into one bucket, and comparing them all would take time quadratic in
# their number. A bucket of more rows is divided by further MinHash values, which only closer copies share.
_CROWD = 500
# Of the proposals of one band for one row the most similar are kept, and of all its proposals so many are
# verified.
_KEPT_A_BAND = 16
_VERIFIED = 64


@dataclass(frozen=True, eq=False)
class Leaks:
    """Test rows that are possibly also in the training rows.

    Attributes:
        test_rows: (m,) int64, ascending: which test rows.
        train_rows: (m,) int64: the most similar training row found for each.
        kind: (m,) str, for each: "exact" (the same text), "normalised" (the same but for case, white space,
            Unicode form or characters that are not seen) or "near".
        similarity: (m,) Jaccard similarity of their character 5-grams in [0, 1]; 1.0 for the first two kinds.
        n_train: Training rows looked at.
        n_test: Test rows looked at.
        threshold: The smallest similarity that counts; None where the rows are numbers and must be equal.
        crowded: Test rows that resemble hundreds of training rows each (boilerplate): of these a copy that is
            only just similar enough may have been missed.
        examples: Up to three of each kind: kind, similarity, test row, its text, training row, its text.
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

    def __str__(self) -> str:
        crowd = textwrap.wrap(
            f"{counted(self.crowded, 'test row')} {'resembles' if self.crowded == 1 else 'resemble'} "
            "hundreds of "
            "training rows; looser copies among these may have been missed.",
            80,
        )
        looked = f"{counted(self.n_test, 'test row')} against {counted(self.n_train, 'training row')}"
        if not len(self):
            limits = (
                "equal values only."
                if self.threshold is None
                else f"similarity from {self.threshold:g}. A paraphrase would not be noticed."
            )
            lines = textwrap.wrap(f"No possible leak found: {looked}, {limits}", 80)
            return "\n".join([*lines, *(crowd if self.crowded else [])])
        lines = textwrap.wrap(
            f"Possible leak: {len(self):,} of {looked} ({100 * len(self) / self.n_test:.3g} %).", 80
        )
        meaning = {"exact": "the same values"}
        if self.threshold is not None:
            meaning = {
                "exact": "the same text",
                "normalised": "the same but for case, spaces and invisible differences",
                "near": f"at least {self.threshold:g} of their character {_SHINGLE}-grams in common",
            }
        lines += [f"  {kind:<10} {self.counts[kind]:>9,}  {what}" for kind, what in meaning.items()]
        lines += crowd if self.crowded else []
        for kind, similarity, test_row, test_text, train_row, train_text in self.examples:
            lines.append(f"{kind}, similarity {similarity:.2f}")
            for name, row, text in (("test", test_row, test_text), ("train", train_row, train_text)):
                start = f"  {name:<5} row {row}: "
                lines.append(start + _cut(text, 80 - len(start)))
        return "\n".join(lines)


def find_leaks(train: Any, test: Any, *, threshold: float = NEAR) -> Leaks:
    """Find test rows that are, exactly or nearly, also training rows.

    Args:
        train: (n,) texts, (n, d) numbers, or `Rows` of either. Of numbers only exact repeats are found.
        test: The same for test.
        threshold: The Jaccard similarity of character 5-grams from which two texts are near-duplicates, in
            [0.5, 1]. A pair just there is proposed with probability 0.995 or more, a closer one more surely.

    Raises:
        ValueError: No rows, one side texts and the other numbers, or a threshold out of range.

    Example:
        >>> leaks = find_leaks(["A warm and funny film.", "Dull."], ["Great!", "a warm  and funny FILM."])
        >>> print(leaks.test_rows, leaks.kind)
        [1] ['normalised']
    """
    threshold = _checks.number("threshold", threshold, at_least=0.5, at_most=1)
    x_train, x_test = _contents("train", train), _contents("test", test)
    if isinstance(x_train[0], str) != isinstance(x_test[0], str):
        raise ValueError("`train` and `test` must both hold texts or both hold numbers; got one of each.")
    found: dict[int, tuple[int, str, float]] = {}
    crowded = 0
    _same(x_train, x_test, "exact", found)
    if isinstance(x_train[0], str):
        normal_train = [same_text(text) for text in x_train]
        normal_test = [same_text(text) for text in x_test]
        _same(normal_train, normal_test, "normalised", found)
        left = [row for row in range(len(x_test)) if row not in found]
        crowded = _near(normal_train, normal_test, left, threshold, found)

    rows = sorted(found)
    examples = []
    for kind in KINDS:
        for row in [row for row in rows if found[row][1] == kind][:3]:
            other, _, similarity = found[row]
            examples.append((kind, similarity, row, _shown(test, row), other, _shown(train, other)))
    return Leaks(
        test_rows=np.array(rows, dtype=np.int64),
        train_rows=np.array([found[row][0] for row in rows], dtype=np.int64),
        kind=np.array([found[row][1] for row in rows], dtype=object),
        similarity=np.array([found[row][2] for row in rows], dtype=np.float64),
        n_train=len(x_train),
        n_test=len(x_test),
        threshold=threshold if isinstance(x_train[0], str) else None,
        crowded=crowded,
        examples=tuple(examples),
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
    signatures = _signatures(texts)
    rows, others, crowded = _proposals(signatures, signatures, threshold, same=True)
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for row, other in zip(rows.tolist(), others.tolist(), strict=True):
        a, b = root(row), root(other)
        if a != b and jaccard(texts[row], texts[other]) >= threshold:
            parent[max(a, b)] = min(a, b)
    clusters = np.fromiter((root(row) for row in range(len(texts))), np.int64, len(texts))
    return clusters, int(np.count_nonzero(crowded))


def jaccard(a: str, b: str) -> float:
    """Return the Jaccard similarity of the sets of character 5-grams of two texts, in [0, 1].

    Example:
        >>> jaccard("abcdef", "abcdefg")  # {abcde, bcdef} and {abcde, bcdef, cdefg}
        0.6666666666666666
    """
    return _overlap(_shingles(a), _shingles(b))


def lsh_probability(similarity: float, bands: int, rows: int) -> float:
    """Return the probability that two texts of a similarity agree in at least one band of their signatures.

    Args:
        similarity: Jaccard similarity in [0, 1].
        bands: Bands in a signature.
        rows: MinHash values in a band.

    Example:
        >>> round(lsh_probability(0.5, 20, 5), 2)
        0.47

    Reference:
        Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2: 1 - (1 - s^r)^b.
    """
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def _bands(threshold: float) -> tuple[int, int]:
    """Return bands and rows a band: the longest bands, hence the fewest proposals, that are sure enough."""
    for rows in range(_HASHES, 1, -1):
        if lsh_probability(threshold, _HASHES // rows, rows) >= _SURE:
            return _HASHES // rows, rows
    return _HASHES, 1


def _contents(name: str, rows: Any) -> list[Any]:
    """Return the rows as a list of hashable contents: texts, or the bytes of numbers."""
    _checks.not_empty(name, rows)
    array = _checks.row_array(getattr(rows, "x", rows))
    if array.ndim == 1 and array.dtype.kind in "OUT":
        listed: list[Any] = array.tolist()
        for row, text in enumerate(listed):
            if not isinstance(text, str):
                raise ValueError(f"`{name}` must hold a text in every row; row {row} is {text!r}.")
        return listed
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    flat = np.ascontiguousarray(array.reshape(len(array), -1).astype("<f8") + 0.0)
    return [row.tobytes() for row in flat]


def _shown(rows: Any, row: int) -> str:
    value = getattr(rows, "x", rows)
    value = value.iloc[row] if hasattr(value, "iloc") else value[row]
    return value if isinstance(value, str) else np.array2string(np.asarray(value).ravel()[:8], precision=4)


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _same(
    train: Sequence[Any], test: Sequence[Any], kind: str, found: dict[int, tuple[int, str, float]]
) -> None:
    first: dict[Any, int] = {}
    for row, content in enumerate(train):
        first.setdefault(content, row)
    for row, content in enumerate(test):
        if row not in found and content in first:
            found[row] = (first[content], kind, 1.0)


def _near(
    train: list[str],
    test: list[str],
    left: list[int],
    threshold: float,
    found: dict[int, tuple[int, str, float]],
) -> int:
    """Add to `found` the near-duplicates among the test rows `left`; return how many rows were crowded."""
    rows_of: dict[str, list[int]] = {}
    for row in left:
        rows_of.setdefault(test[row], []).append(row)
    first: dict[str, int] = {}
    for row, text in enumerate(train):
        first.setdefault(text, row)
    if not rows_of:
        return 0
    queries, known = list(rows_of), list(first)
    rows, others, crowded = _proposals(_signatures(queries), _signatures(known), threshold, same=False)
    edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        text = queries[rows[start]]
        mine = _shingles(text)
        best, best_other = 0.0, ""
        for i, other in enumerate(others[start:end].tolist()):
            if i >= _KEPT_A_BAND and best >= threshold:
                break  # the proposals come most similar first
            if i >= _VERIFIED:
                crowded[rows[start]] = True
                break
            similarity = _overlap(mine, _shingles(known[other]))
            if similarity > best:
                best, best_other = similarity, known[other]
        if best >= threshold:
            for row in rows_of[text]:
                found[row] = (first[best_other], "near", best)
    return sum(len(rows_of[queries[i]]) for i in np.flatnonzero(crowded))


def _shingles(text: str) -> set[str]:
    return {text[i : i + _SHINGLE] for i in range(max(len(text) - _SHINGLE + 1, 1))}


def _overlap(a: set[str], b: set[str]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def _signatures(texts: Sequence[str]) -> np.ndarray:
    """Return (n, 128) uint32 MinHash signatures of the sets of character 5-grams."""
    out = np.empty((len(texts), _HASHES), dtype=np.uint32)
    start = characters = 0
    for end, text in enumerate(texts, start=1):
        characters += len(text)
        if characters >= _CHUNK_CHARACTERS or end == len(texts):
            _sign(texts[start:end], out[start:end])
            start, characters = end, 0
    return out


def _sign(texts: Sequence[str], out: np.ndarray) -> None:
    padded = [text if len(text) >= _SHINGLE else text.ljust(_SHINGLE, "\0") for text in texts]
    joined = "".join(padded).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    ends = np.cumsum(lengths)

    # A 64-bit hash of every window of five characters: a polynomial, then the finaliser of SplitMix64.
    windows = len(codes) - _SHINGLE + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for i in range(_SHINGLE):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[i : i + windows]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)

    inside = np.ones(len(codes), dtype=bool)  # not the windows that run from one text into the next
    for i in range(1, _SHINGLE):
        inside[ends - i] = False
    hashes = hashes[inside[:windows]]
    starts = np.concatenate([[0], np.cumsum(lengths - _SHINGLE + 1)[:-1]])

    # Hash function k is a + k * b (mod 2^32) with a and b independent: one addition each.
    value = (hashes >> np.uint64(32)).astype(np.uint32)
    step = hashes.astype(np.uint32) | np.uint32(1)
    for k in range(_HASHES):
        out[:, k] = np.minimum.reduceat(value, starts)
        value += step


def _proposals(
    queries: np.ndarray, known: np.ndarray, threshold: float, *, same: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of `queries` with rows of `known` worth verifying, and which query rows are crowded.

    The pairs are sorted by query row, the most similar first. With `same` both sides are the same texts, and
    only pairs with the first row before the second are returned.
    """
    bands, length = _bands(threshold)
    least = threshold - _SLACK * np.sqrt(threshold * (1.0 - threshold) / _HASHES)
    kept_pairs = [np.empty(0, dtype=np.int64)]
    kept_similarity = [np.empty(0)]
    divided = np.zeros(len(queries), dtype=np.int64)
    for band in range(bands):
        keys, query_keys, crowded = _band_keys(known, queries, band * length, length)
        divided += crowded
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        left, right = np.searchsorted(keys, query_keys, "left"), np.searchsorted(keys, query_keys, "right")
        for rows, places in _expand(left, right):
            others = order[places]
            if same:
                rows, others = rows[rows < others], others[rows < others]
            similarity = (queries[rows] == known[others]).mean(axis=1)
            good = similarity >= least
            rows, others, similarity = rows[good], others[good], similarity[good]
            rank = np.lexsort((-similarity, rows))
            rows, others, similarity = rows[rank], others[rank], similarity[rank]
            place = np.arange(len(rows)) - np.searchsorted(rows, rows, "left")
            top = place < _KEPT_A_BAND
            kept_pairs.append(rows[top] * len(known) + others[top])
            kept_similarity.append(similarity[top])
    pairs, first = np.unique(np.concatenate(kept_pairs), return_index=True)
    similarity = np.concatenate(kept_similarity)[first]
    rows, others = np.divmod(pairs, len(known))
    rank = np.lexsort((-similarity, rows))
    # A row crowded in few of its bands has enough others left.
    return rows[rank], others[rank], divided > bands // 4


def _band_keys(
    known: np.ndarray, queries: np.ndarray, start: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bucket of each known row and of each query, and which queries fell into a crowded one."""
    keys, query_keys = np.zeros(len(known), dtype=np.uint64), np.zeros(len(queries), dtype=np.uint64)
    deeper, query_deeper = np.ones(len(known), dtype=bool), np.ones(len(queries), dtype=bool)
    crowded = np.zeros(len(queries), dtype=bool)
    for used in range(0, _HASHES, length):
        for column in range(start + used, start + min(used + length, _HASHES)):
            column %= _HASHES
            keys[deeper] = _mix(keys[deeper], known[deeper, column])
            query_keys[query_deeper] = _mix(query_keys[query_deeper], queries[query_deeper, column])
        distinct, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
        deeper = (counts > _CROWD)[place]
        query_deeper = np.isin(query_keys, distinct[counts > _CROWD])
        crowded |= query_deeper
        if not query_deeper.any():
            break
    return keys, query_keys, crowded


def _mix(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = (keys ^ values) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _expand(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield query rows and sorted places for all pairs in the same bucket, about 50,000 pairs at a time."""
    hit = np.flatnonzero(right > left)
    counts = (right - left)[hit]
    chunk = np.cumsum(counts) // _CHUNK_PAIRS
    for block in np.split(np.arange(len(hit)), np.flatnonzero(np.diff(chunk)) + 1):
        size = counts[block]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield np.repeat(hit[block], size), np.repeat(left[hit[block]], size) + within
