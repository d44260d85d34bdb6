"""Folds: stratified, and what belongs together is in one of them."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from finetune_eval.data.assignment import checked_rows
from finetune_eval.data.folds import fold_of_rows as of_units
from finetune_eval.data.folds import units_of_rows

TEXTS = checked_rows([f"the {word} number {i} of many films" for i in range(40) for word in ("good", "bad")])
Y = np.tile([0, 1], 40)


def fold_of_rows(x, y, folds, *, classes, seed=0, **together):
    units, _ = units_of_rows(x, **together)
    return of_units(x, y, folds, units=units, classes=classes, seed=seed)


def test_folds_are_as_even_as_scikit_learns():
    y = np.repeat([0, 1, 2], [50, 30, 21])
    x = np.arange(202.0).reshape(101, 2)
    ours = fold_of_rows(x, y, 5, classes=3)
    theirs = [np.bincount(y[test], minlength=3) for _, test in StratifiedKFold(5).split(x, y)]
    found = [np.bincount(y[ours == fold], minlength=3) for fold in range(5)]
    assert sorted(map(sum, found)) == sorted(map(sum, theirs)) == [20, 20, 20, 20, 21]
    for k in range(3):
        assert {counts[k] for counts in found} == {counts[k] for counts in theirs}


def test_every_row_is_in_one_fold_whatever_the_order_of_the_rows():
    fold = fold_of_rows(TEXTS, Y, 4, classes=2, seed=3)
    order = np.random.default_rng(0).permutation(80)
    again = fold_of_rows(TEXTS[order], Y[order], 4, classes=2, seed=3)
    assert np.bincount(fold).tolist() == [20] * 4
    assert np.array_equal(fold[order], again)
    other = fold_of_rows(TEXTS, Y, 4, classes=2, seed=4)
    assert not np.array_equal(fold, other)


def test_the_same_text_and_group_stay_together():
    texts = checked_rows([f"film number {i % 20}" + " " * (i // 20) for i in range(60)])
    groups = np.arange(60) % 20 // 2  # two texts a group
    fold = fold_of_rows(texts, np.tile([0, 1], 30), 5, classes=2, groups=groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(10))


def test_nearly_the_same_text_stays_together_where_asked():
    long = "a very long and winding review of a film that nobody has ever seen in a cinema of this town"
    words = np.random.default_rng(0).choice(
        [f"{a}{b}{c}" for a in "bdgkl" for b in "aeiou" for c in "mnrst"], (40, 8)
    )
    texts = checked_rows([*map(" ".join, words.tolist()), *(f"{long} {end}" for end in "abcdefgh")])
    y = np.tile([0, 1], 24)
    fold = fold_of_rows(texts, y, 4, classes=2, near_duplicates=True)
    assert len(set(fold[-8:])) == 1
    fold = fold_of_rows(texts, y, 4, classes=2)
    assert len(set(fold[-8:])) > 1


def test_an_empty_fold_is_refused():
    with pytest.raises(ValueError, match="`folds` must be at most the 3 rows; got 5."):
        fold_of_rows(TEXTS[:3], Y[:3], 5, classes=2)
    with pytest.raises(ValueError, match="fall into 3 that can be parted"):
        fold_of_rows(TEXTS[:30], Y[:30], 5, classes=2, groups=np.arange(30) % 3)
