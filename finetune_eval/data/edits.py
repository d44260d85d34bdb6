"""Short texts that differ in one word: pairs are found by what is left of a text without each of its words.

The sets of character 5-grams of two short texts differ in half of their members once one word is changed, and
no threshold on them tells such a pair from a chance one. Word by word it is one of eight.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval.data.words import units

LONGEST = 200  # characters: in a longer text 5-grams find a changed word, but for the longest words
FEWEST = 7  # words; of fewer, many innocent pairs differ in one ("this is a very bad movie")
_FEWEST_ALIKE = 3  # words of two texts that differ in punctuation only
_SIDE_BY_SIDE = 2  # words changed, where there are twice eight
_ONE_IN = 8
_SAMPLE = 16  # pairs of one text by one place: of templates there are thousands
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers have inverses modulo 2^64


@dataclass(frozen=True)
class _Words:
    """Hashes of the words of short texts; those of `texts[i]` are from `starts[i]` to `starts[i + 1]`."""

    texts: np.ndarray  # which of the texts given
    hashes: np.ndarray
    starts: np.ndarray

    def ends(self) -> np.ndarray:
        """Return (2, n) hashes of the first three and of the last three words of each text."""
        mixed = _mixed(self.hashes)
        places = np.stack([self.starts[:-1], self.starts[1:] - _FEWEST_ALIKE])
        return np.asarray(sum(mixed[places + i] * _PRIME ** np.uint64(i) for i in range(_FEWEST_ALIKE)))

    def only(self, kept: np.ndarray) -> _Words:
        """Return some of the texts."""
        sizes = np.diff(self.starts)
        starts = np.concatenate([[0], np.cumsum(sizes[kept])])
        return _Words(self.texts[kept], self.hashes[np.repeat(kept, sizes)], starts)

    def of(self, place: int) -> list[int]:
        words: list[int] = self.hashes[self.starts[place] : self.starts[place + 1]].tolist()
        return words


def _hashed(texts: Sequence[str]) -> _Words:
    rows, sizes, hashes = [], [0], array("q")
    for row, text in enumerate(texts):
        if len(text) <= LONGEST:
            found = units(text)
            if len(found) >= _FEWEST_ALIKE:
                rows.append(row)
                sizes.append(len(found))
                hashes.extend(map(hash, found))
    return _Words(np.array(rows, np.int64), np.array(hashes, np.int64), np.cumsum(sizes))


def _allowed(words: Any) -> Any:
    """Return how many words side by side may be changed in texts of so many."""
    return np.where(np.asarray(words) < FEWEST, 0, np.clip(np.asarray(words) // _ONE_IN, 1, _SIDE_BY_SIDE))


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Return the finaliser of SplitMix64 of (n,) hashes."""
    out: np.ndarray = (hashes.view(np.uint64) + np.uint64(1)) * _PRIME
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        out ^= out >> np.uint64(shift)
        out *= np.uint64(factor)
    out ^= out >> np.uint64(31)
    return out


def _remainders(words: _Words) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of each text without no, one or two words side by side, and whose it is."""
    sizes = np.diff(words.starts)
    of_word = np.repeat(np.arange(len(sizes)), sizes)
    at = np.arange(len(of_word)) - words.starts[of_word]
    power = np.ones(int(sizes.max(initial=0)) + 1, dtype=np.uint64)
    power[1:] = np.cumprod(np.full(len(power) - 1, _PRIME))
    # The sum of hash times power up to each word, of its own text: a polynomial modulo 2^64.
    total = np.concatenate([[np.uint64(0)], np.cumsum(_mixed(words.hashes) * power[at])])
    whole = total[words.starts[1:]] - total[words.starts[:-1]]
    allowed = _allowed(sizes)
    keys, owners = [whole], [np.arange(len(sizes))]
    for block in range(1, _SIDE_BY_SIDE + 1):
        begin = np.flatnonzero((at + block <= sizes[of_word]) & (allowed[of_word] >= block))
        own = of_word[begin]
        before = total[begin] - total[words.starts[own]]
        after = total[words.starts[own + 1]] - total[begin + block]
        keys.append(before + after * np.uint64(pow(int(_PRIME), -block, 1 << 64)))
        owners.append(own)
    return np.concatenate(keys), np.concatenate(owners)


def shared(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the share of words that two texts have in common: 1 less the changed ones of the longer text.

    Returns:
        The share, in [0, 1]; 0 where they differ in more than a few words side by side.

    Example:
        >>> shared([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 5, 6, 7, 8])
        0.875
    """
    short, long = sorted((len(a), len(b)))
    front = next((i for i in range(short) if a[i] != b[i]), short)
    back = next((i for i in range(short - front) if a[-1 - i] != b[-1 - i]), short - front)
    changed = long - front - back
    return 1 - changed / long if changed <= _allowed(long) else 0.0


def one_word_apart(
    queries: Sequence[str], known: Sequence[str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Yield a query, a known text and the share of words they have in common, where that is high enough.

    The two differ in one word, in two side by side where they have 16 or more, or in punctuation only.

    Args:
        queries: Texts in the form of `same_text`.
        known: The same.
        threshold: The least share, in [0, 1].
    """
    ours, theirs = _hashed(queries), _hashed(known)
    # Of six words or more that two texts share, three are at the beginning of both or at the end.
    ends, other_ends = ours.ends(), theirs.ends()
    ours = ours.only(np.isin(ends[0], other_ends[0]) | np.isin(ends[1], other_ends[1]))
    theirs = theirs.only(np.isin(other_ends[0], ends[0]) | np.isin(other_ends[1], ends[1]))
    if not len(ours.texts) or not len(theirs.texts):
        return
    keys, owners = _remainders(theirs)
    order = np.argsort(keys)
    keys, owners = keys[order], owners[order]
    wanted, asking = _remainders(ours)
    left = np.searchsorted(keys, wanted)
    hit = np.flatnonzero(keys[np.minimum(left, len(keys) - 1)] == wanted)
    left, wanted, asking = left[hit], wanted[hit], asking[hit]
    sizes = np.minimum(np.searchsorted(keys, wanted, "right") - left, _SAMPLE)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    pairs = np.repeat(asking, sizes) * len(theirs.texts) + owners[np.repeat(left, sizes) + within]
    for pair in np.unique(pairs).tolist():
        query, other = divmod(pair, len(theirs.texts))
        share = shared(ours.of(query), theirs.of(other))
        if share >= threshold:
            yield int(ours.texts[query]), int(theirs.texts[other]), share
