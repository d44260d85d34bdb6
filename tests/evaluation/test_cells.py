"""Draws of confusion matrices, against draws of rows and the moments of a Dirichlet distribution."""

import math

import numpy as np
import pytest

from finetune_eval.evaluation.cells import (
    cells_of,
    cells_of_rows,
    dirichlet_counts,
    dirichlet_tables,
    resample_class_counts,
    resample_confusion,
)
from finetune_eval.evaluation.metrics import class_counts, confusion_matrix


def test_resampled_tables_are_the_row_bootstrap():
    random = np.random.default_rng(4)
    y, p = random.integers(0, 3, 300), random.integers(0, 3, 300)
    p = np.where(random.random(300) < 0.6, y, p)
    table = confusion_matrix(y, p, 3)
    drawn = resample_confusion(table, 4000, 0)
    assert (drawn.sum(axis=(1, 2)) == 300).all()
    rows = random.integers(0, 300, (4000, 300))
    direct = np.stack([confusion_matrix(y[row], p[row], 3) for row in rows])
    # A cell's count is binomial: mean c, variance c (1 - c / n); 4,000 draws see the deviation to 1.1 %.
    expected = np.sqrt(table * (1 - table / 300))
    assert drawn.std(axis=0) == pytest.approx(expected, rel=0.06)
    assert direct.std(axis=0) == pytest.approx(expected, rel=0.06)
    assert drawn.mean(axis=0) == pytest.approx(table, abs=1)


def test_class_counts_are_drawn_as_the_tables_are():
    table = np.zeros((30, 30), int)
    table[np.arange(30), np.arange(30)], table[3, 4], table[5, 3] = 4, 7, 2
    for drawn, other in zip(
        resample_class_counts(table, 50, 3), class_counts(resample_confusion(table, 50, 3)), strict=True
    ):
        np.testing.assert_array_equal(drawn, other)


@pytest.mark.parametrize("classes", [3, 40])
def test_class_counts_of_the_posterior_have_the_moments_of_a_dirichlet(classes):
    # A sum of cells with weight a of A in all has mean a / A and variance a (A - a) / (A^2 (A + 1)).
    table = np.zeros((classes, classes))
    table[0, 0], table[0, 1], table[1, 1] = 3, 1, 2
    drawn = dirichlet_counts(cells_of(table), 40_000, 0)
    prior, total = 1 / classes**2, 7.0
    weights = (
        np.diag(table) + prior,
        table.sum(axis=0) + prior * classes,
        table.sum(axis=1) + prior * classes,
    )
    for share, weight in zip(drawn, weights, strict=True):
        variance = weight * (total - weight) / (total**2 * (total + 1))
        # 40,000 draws: a mean is seen to half a percent of the deviation
        assert share.mean(axis=0) / 6 == pytest.approx(weight / total, abs=0.02 * math.sqrt(variance.max()))
        # a class of one empty cell in 1,600 draws a long tail: only the sums over classes are steady
        np.testing.assert_allclose((share / 6).var(axis=0)[:2], variance[:2], rtol=0.05)
        assert (share / 6)[:, 2:].var(axis=0).sum() == pytest.approx(variance[2:].sum(), rel=0.15)
    assert drawn.true.sum(axis=1) == pytest.approx(np.full(40_000, 6.0))


def test_cells_of_rows_are_those_of_their_table():
    random = np.random.default_rng(6)
    y, p, w = random.integers(0, 5, 40), random.integers(0, 5, 40), random.random(40)
    of_rows, of_table = cells_of_rows(y, p, 5, w), cells_of(confusion_matrix(y, p, 5, sample_weight=w))
    for mine, theirs in zip(of_rows[:3], of_table[:3], strict=True):
        np.testing.assert_allclose(mine, theirs)


def test_empty_cells_share_the_prior_evenly():
    # One of 100 x 100 cells has a row, and there is one prior row in all: (1 + 1e-4) / 2 of the posterior.
    drawn = dirichlet_counts(cells_of(np.pad([[1]], (0, 99))), 20_000, 0)
    assert drawn.hits[:, 0].mean() == pytest.approx((1 + 1e-4) / 2, abs=0.01)
    # 99 of the 9,999 empty cells are hits: 99e-4 / 2. A share that is 0 or large: 3 deviations are .3 of it.
    assert drawn.hits[:, 1:].sum(axis=1).mean() == pytest.approx(99e-4 / 2, rel=0.3)


def test_tables_of_labels_have_posteriors_of_their_own():
    tables = np.array([[[5.0, 1.0], [2.0, 4.0]], [[10.0, 0.0], [0.0, 2.0]]])
    drawn = dirichlet_tables(tables, 20_000, 0)
    np.testing.assert_allclose(drawn.sum(axis=(2, 3)), np.full((20_000, 2), 12.0))
    # mean (count + 1/4) / 13, times 12 rows
    np.testing.assert_allclose(drawn.mean(axis=0), (tables + 0.25) / 13 * 12, atol=0.05)
