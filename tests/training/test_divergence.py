"""Which losses explode: held against sequences of losses, without a model."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from finetune_eval.models.batching import Batches, Encoded
from finetune_eval.training.divergence import StopOnDivergence


def stopped_at(losses, *, classes=2, weights=None):
    """Return the number of the batch of 4 rows, counted from 1, at which these losses are stopped."""
    rows = Encoded({"x": np.zeros((4 * len(losses), 1))}, None)
    train = Batches(rows, np.zeros(len(rows)), 4, sample_weight=weights, seed=0)
    guard = StopOnDivergence(train, classes)
    guard._model = SimpleNamespace(stop_training=False, optimizer=None)
    guard.on_epoch_begin(0)
    for batch, mean in enumerate(np.cumsum(losses) / np.arange(1, len(losses) + 1)):
        guard.on_train_batch_end(batch, {"loss": mean})
        if guard.diverged:
            assert guard._model.stop_training and set(guard._rows) == set(train.order[batch])
            return batch + 1
    return None


def test_a_loss_that_is_not_finite_stops_at_once():
    assert stopped_at([0.7, 0.6, math.nan, 0.5]) == 3
    assert stopped_at([0.7, math.inf]) == 2


def test_a_loss_that_explodes_stops_when_its_mean_does():
    # Of two classes the limit is 5 ln 2 = 3.47, and ten times the lowest, 0.5: 5. The mean over ten batches
    # is (10 - n) 0.05 + 2 n after n batches of 20, so that the third is above it: 0.35 + 6.
    assert stopped_at([0.5] * 20 + [20.0] * 10) == 23
    # Over the first five batches: (0.7 + 4 * 80) / 5.
    assert stopped_at([0.7] + [80.0] * 9) == 5


@pytest.mark.parametrize(
    "losses",
    [
        [0.7] * 30,
        [60.0, 50.0, 40.0, 30.0, 20.0, 10.0, 5.0, 1.0],  # columns that were not scaled: it learns
        [0.3] * 20 + [30.0] + [0.3] * 20,  # one batch of wrong labels
        [0.01] * 20 + [2.0] * 20,  # 200 times the lowest, and no worse than knowing little
    ],
)
def test_what_does_not_explode(losses):
    assert stopped_at(losses) is None


def test_more_classes_and_heavy_rows_have_higher_losses():
    losses = [0.5] * 20 + [8.0] * 20  # above 5 ln 2 and ten times 0.5, below 5 ln 1000 = 34.5
    assert stopped_at(losses) and stopped_at(losses, classes=1000) is None
    weights = np.ones(4 * len(losses))
    weights[0] = 9
    assert stopped_at(losses, weights=weights) is None
