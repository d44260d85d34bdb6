"""Which texts of many may be near-duplicates: MinHash signatures, cut into bands.

Two texts are near-duplicates when the Jaccard similarity of their sets of character 5-grams reaches a
threshold. The bands propose pairs; the true similarity decides.

Reference:
    Broder, A. (1997). On the resemblance and containment of documents. SEQUENCES 1997:21-29.
    Leskovec, J., Rajaraman, A., Ullman, J. Mining of Massive Datasets, chapter 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE = 5  # characters; needs no word boundaries, so it serves every language
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
_SAMPLED_BANDS = 4
KEPT_A_BAND = 16  # proposals of one band for one row: the most similar, and samples of crowded buckets


def shingles(text: str) -> set[str]:
    """Return the set of character 5-grams of a text; a shorter text is its own."""
    return {text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1))}


def overlap(a: set[str], b: set[str]) -> float:
    """Return the Jaccard similarity of two sets."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def jaccard(a: str, b: str) -> float:
    """Return the Jaccard similarity of the sets of character 5-grams of two texts, in [0, 1].

    Example:
        >>> jaccard("abcdef", "abcdefg")  # {abcde, bcdef} and {abcde, bcdef, cdefg}
        0.6666666666666666
    """
    return overlap(shingles(a), shingles(b))


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


def signatures(texts: Sequence[str]) -> np.ndarray:
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
    padded = [text if len(text) >= SHINGLE else text.ljust(SHINGLE, "\0") for text in texts]
    joined = "".join(padded).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    ends = np.cumsum(lengths)

    # A 64-bit hash of every window of five characters: a polynomial, then the finaliser of SplitMix64.
    windows = len(codes) - SHINGLE + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for i in range(SHINGLE):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[i : i + windows]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)

    inside = np.ones(len(codes), dtype=bool)  # not the windows that run from one text into the next
    for i in range(1, SHINGLE):
        inside[ends - i] = False
    hashes = hashes[inside[:windows]]
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)[:-1]])

    # Hash function k is a + k * b (mod 2^32) with a and b independent: one addition each.
    value = (hashes >> np.uint64(32)).astype(np.uint32)
    step = hashes.astype(np.uint32) | np.uint32(1)
    for k in range(_HASHES):
        out[:, k] = np.minimum.reduceat(value, starts)
        value += step


def proposals(
    queries: np.ndarray, known: np.ndarray, threshold: float, *, same: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of `queries` with rows of `known` worth verifying, and which query rows are crowded.

    The pairs are sorted by query row, the most similar first. With `same` both sides are the same texts, and
    most pairs are returned once, the first row before the second.
    """
    bands, length = _bands(threshold)
    least = threshold - _SLACK * np.sqrt(threshold * (1.0 - threshold) / _HASHES)
    kept_pairs = [np.empty(0, dtype=np.int64)]
    kept_similarity = [np.empty(0)]
    divided = np.zeros(len(queries), dtype=np.int64)
    for band in range(bands):
        keys, query_keys, samples = _band_keys(known, queries, band * length, length)
        crowded = samples[:, 0] >= 0
        divided += crowded
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        left, right = np.searchsorted(keys, query_keys, "left"), np.searchsorted(keys, query_keys, "right")
        # What is still crowded when all values are used up agrees in all of them: any of it will do.
        right = np.minimum(right, left + _CROWD)
        found = ((rows, order[places]) for rows, places in _expand(left, right))
        if same:
            found = ((rows[rows < others], others[rows < others]) for rows, others in found)
        # A row may be alone in its part of a crowded bucket that was divided: a sample of the bucket stands
        # in. It is there for rows that are like all of it, so that few bands do, and no slack.
        sampled = _sampled(np.flatnonzero(crowded), samples[crowded]) if band < _SAMPLED_BANDS else iter(())
        floors = itertools.chain(
            zip(found, itertools.repeat(least)), zip(sampled, itertools.repeat(threshold))
        )
        for (rows, others), floor in floors:
            similarity = (queries[rows] == known[others]).mean(axis=1)
            good = similarity >= floor
            rows, others, similarity = rows[good], others[good], similarity[good]
            rank = np.lexsort((-similarity, rows))
            rows, others, similarity = rows[rank], others[rank], similarity[rank]
            place = np.arange(len(rows)) - np.searchsorted(rows, rows, "left")
            top = place < KEPT_A_BAND
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
    """Return the bucket of each known row and of each query, and samples of the crowded ones.

    Returns:
        (n,) and (m,) buckets, and (m, 16) known rows of the last crowded bucket that the query was in; -1
        where it was in none.
    """
    keys, query_keys = np.zeros(len(known), dtype=np.uint64), np.zeros(len(queries), dtype=np.uint64)
    deeper, query_deeper = np.ones(len(known), dtype=bool), np.ones(len(queries), dtype=bool)
    samples = np.full((len(queries), KEPT_A_BAND), -1)
    for used in range(0, _HASHES, length):
        for column in range(start + used, start + min(used + length, _HASHES)):
            column %= _HASHES
            keys[deeper] = _mix(keys[deeper], known[deeper, column])
            query_keys[query_deeper] = _mix(query_keys[query_deeper], queries[query_deeper, column])
        ordered = np.sort(keys)
        if not (ordered[_CROWD:] == ordered[:-_CROWD]).any():
            break
        distinct, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
        crowds = np.flatnonzero(counts > _CROWD)
        deeper = (counts > _CROWD)[place]
        query_deeper = np.isin(query_keys, distinct[crowds])
        if not query_deeper.any():
            break
        inside = np.flatnonzero(deeper)
        inside = inside[np.argsort(place[inside], kind="stable")]
        begin = np.cumsum(counts[crowds]) - counts[crowds]
        spread = np.linspace(0, counts[crowds] - 1, KEPT_A_BAND).astype(np.int64).T
        of_query = np.searchsorted(distinct[crowds], query_keys[query_deeper])
        samples[query_deeper] = inside[begin[:, None] + spread][of_query]
    return keys, query_keys, samples


def _sampled(rows: np.ndarray, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield query rows and the known rows sampled for them, about 50,000 pairs at a time."""
    step = _CHUNK_PAIRS // KEPT_A_BAND
    for start in range(0, len(rows), step):
        part = samples[start : start + step]
        yield np.repeat(rows[start : start + step], part.shape[1]), part.ravel()


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
