"""What an epoch made of each validation row: the interval of its F1, and early stopping that knows noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binom

import finetune_eval as fe
from finetune_eval.traces.training import TrainingTrace
from finetune_eval.training.validation_rows import EpochRows, WithinNoise

ONES = np.ones(100)


def rows_of(right, *, y=None, loss=None, weights=None):
    """Return an epoch that gets the first `right` of 100 rows right."""
    y = np.arange(100) % 2 if y is None else y
    predicted = np.where(np.arange(100) < right, y, 1 - y)
    loss = np.where(y == predicted, 0.1, 2.0) if loss is None else loss
    return EpochRows(y, predicted, loss, 0.3 * ONES, range(2), weights)


def waits(epochs, monitor, *, better=None):
    """Return what `WithinNoise` counts after each epoch."""
    said = iter(epochs)
    noise = WithinNoise(lambda: next(said), monitor)
    better = [True] * len(epochs) if better is None else better
    return [noise.waited(better=each) for each in better]


def test_only_an_epoch_that_is_better_by_more_than_noise_begins_the_count_anew():
    # McNemar's mid-p of k rows gained and none lost is 2^-k: 0.03 for 5 rows, 0.06 for 4.
    assert waits([rows_of(50), rows_of(54), rows_of(59), rows_of(59)], "val_accuracy") == [0, 1, 0, 1]
    # Each epoch is held against the best before it, and not against the last that was clearly better.
    assert waits([rows_of(50 + 4 * k) for k in range(4)], "val_accuracy") == [0, 1, 2, 3]
    # An epoch that is no better counts without a look at its rows, and is not the one to beat.
    found = waits([rows_of(50), rows_of(40), rows_of(46)], "val_accuracy", better=[True, False, False])
    assert found == [0, 1, 2]


def test_of_a_loss_the_fall_is_paired_by_row():
    noise = np.random.default_rng(0).normal(0, 1, 100)
    first, lower = rows_of(50, loss=2 + noise), rows_of(50, loss=1.95 + noise + 0.01 * noise[::-1])
    # The spread of the rows (1) hides a fall of 0.05, that of the differences (0.01) does not.
    assert waits([first, lower], "val_loss") == [0, 0]
    assert waits([first, rows_of(50, loss=1.95 + noise[::-1])], "val_loss") == [0, 1]


def test_f1_has_an_interval_of_its_own():
    assert waits([rows_of(60), rows_of(62), rows_of(90)], "val_f1") == [0, 1, 0]


def test_weights_of_validation_rows_count():
    weights = np.where(np.arange(100) < 50, 0.02, 1.98)
    y = np.arange(100) % 2

    def wrong(*rows):
        predicted = np.where(np.isin(np.arange(100), rows), 1 - y, y)
        return EpochRows(y, predicted, ONES, ONES, range(2), weights)

    # Nine rows are gained: heavy ones, without a loss; light ones, while one heavy row is lost.
    assert waits([wrong(*range(90, 99)), wrong()], "val_accuracy") == [0, 0]
    assert waits([wrong(*range(9)), wrong(99)], "val_accuracy") == [0, 1]


# --- end to end -------------------------------------------------------------------------------------------

KEYWORDS = {
    "epochs": 12, "learning_rate": 0.003, "early_stopping": 2, "monitor": "val_accuracy", "verbose": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tiny):
    return tiny.numeric_rows(64), tiny.numeric_rows(40, seed=1)


class Rows(keras.callbacks.Callback):
    """Records each validation row's answer and loss, by a look of its own."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.epochs = x, y, []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(keras.ops.convert_to_numpy(self.model(self.x, training=False)))

    def get_state(self):
        return list(self.epochs)

    def set_state(self, state):
        self.epochs = list(state)


@pytest.fixture(scope="module")
def stopped(tiny, rows, tmp_path_factory):
    (x, y), held_out = rows
    seen = Rows(*held_out)
    run = fe.fine_tune(
        tiny.numeric_classifier(), x, y, validation_data=held_out, stop_within_noise=True, callbacks=seen,
        run_dir=tmp_path_factory.mktemp("runs") / "noise", **KEYWORDS,
    )  # fmt: skip
    return run, seen


def test_training_stops_where_the_paired_rows_say_so(stopped, rows):
    run, seen = stopped
    right = [(p.argmax(axis=1) == rows[1][1]) for p in seen.epochs]
    best, waited, expected = right[0], 0, len(right)
    for place, now in enumerate(right[1:], start=1):
        gained, lost = int((now & ~best).sum()), int((best & ~now).sum())
        better = now.sum() > best.sum()
        # The mid-p of a sign test: `lost` or fewer among all that changed.
        p = 2 * (binom.cdf(lost, gained + lost, 0.5) - 0.5 * binom.pmf(lost, gained + lost, 0.5))
        waited = 0 if better and p <= 0.05 else waited + 1
        best = now if better else best
        if waited == 2:
            expected = place + 1
            break
    assert len(run.trace.epochs) == expected < 12
    assert [e.metrics["val_accuracy"] for e in run.trace.epochs] == pytest.approx([r.mean() for r in right])


def test_the_trace_has_the_interval_of_f1_that_evaluate_gives(tiny, stopped, rows):
    run, _ = stopped
    best = run.trace.epochs[run.trace.best_epoch - 1]
    found = fe.evaluate(run.model, *rows[1]).estimates["f1"]
    assert best.metrics["val_f1"] == pytest.approx(found.value)
    assert best.val_f1_interval == pytest.approx((found.low, found.high))
    assert all(e.val_f1_interval[0] <= e.metrics["val_f1"] <= e.val_f1_interval[1] for e in run.trace.epochs)
    assert TrainingTrace.load(run.run_dir / "trace.jsonl").epochs == run.trace.epochs
    frame = run.trace.to_frame()
    assert frame.loc[run.trace.best_epoch - 1, ["val_f1_low", "val_f1_high"]].tolist() == list(
        best.val_f1_interval
    )
    text = str(run.trace)
    assert f"[{found.low:.3f}, {found.high:.3f}]" in text and max(map(len, text.splitlines())) <= 79
    assert "[low, high]: 95 % interval of the F1 on the validation rows" in text


def test_without_it_the_same_training_goes_on_and_its_numbers_are_the_same(tiny, rows, stopped):
    (x, y), held_out = rows
    longer = fe.fine_tune(tiny.numeric_classifier(), x, y, validation_data=held_out, **KEYWORDS)
    same = len(stopped[0].trace.epochs)
    assert len(longer.trace.epochs) > same
    first = [e.metrics for e in longer.trace.epochs[:same]]
    assert first == [e.metrics for e in stopped[0].trace.epochs]


def test_a_run_that_is_cut_short_stops_in_the_same_epoch(tiny, rows, stopped, tmp_path):
    (x, y), held_out = rows

    class Cut(Rows):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2 and not self.cut:
                raise KeyboardInterrupt

    seen = Cut(*held_out)

    def train():
        return fe.fine_tune(
            tiny.numeric_classifier(), x, y, validation_data=held_out, run_dir=tmp_path / "run", resume=True,
            stop_within_noise=True, callbacks=seen, checkpoint_every=1, **KEYWORDS,
        )  # fmt: skip

    seen.cut = False
    with pytest.raises(KeyboardInterrupt):
        train()
    seen.cut = True
    run = train()
    assert [(e.metrics, e.val_f1_interval) for e in run.trace.epochs] == [
        (e.metrics, e.val_f1_interval) for e in stopped[0].trace.epochs
    ]
    for one, other in zip(run.model.get_weights(), stopped[0].model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pipelines_weights_and_several_labels_a_row(tiny, rows):
    (x, y), (val_x, val_y) = rows
    weights = np.where(np.arange(40) < 20, 0.5, 2.0)
    pipelines = [
        tf.data.Dataset.from_tensor_slices(part).batch(16) for part in ((x, y), (val_x, val_y, weights))
    ]
    settings = {**KEYWORDS, "epochs": 3, "monitor": None, "stop_within_noise": True}
    run = fe.fine_tune(tiny.numeric_classifier(), pipelines[0], validation_data=pipelines[1], **settings)
    found = fe.evaluate(run.model, val_x, val_y, sample_weight=weights).estimates["f1"]
    best = run.trace.epochs[run.trace.best_epoch - 1]
    assert best.val_f1_interval == pytest.approx((found.low, found.high))
    model = fe.build_model(tiny.numeric_backbone(), ("a", "b", "c"), task="multilabel")
    several, held_out = (x, (x[:, :3] > 0).astype(int)), (val_x, (val_x[:, :3] > 0).astype(int))
    run = fe.fine_tune(model, *several, validation_data=held_out, **settings)
    found = fe.evaluate(model, *held_out).estimates["f1"]
    best = run.trace.epochs[run.trace.best_epoch - 1]
    assert best.val_f1_interval == pytest.approx((found.low, found.high))
    with pytest.raises(
        ValueError, match="^`stop_within_noise` has no paired interval of 'val_f1' where a row"
    ):
        fe.fine_tune(model, *several, validation_data=held_out, **{**settings, "monitor": "val_f1"})


def test_it_needs_a_number_of_epochs(tiny):
    with pytest.raises(ValueError, match="^`stop_within_noise` needs `early_stopping`, the number of epochs"):
        fe.Recipe(stop_within_noise=True)
