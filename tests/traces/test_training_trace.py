import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.traces.training import (
    EpochRecord,
    TrainingTrace,
    best_epoch,
    chart,
    header,
    observe,
    row,
)

CLASSIC = {"loss": [0.65, 0.48, 0.35, 0.30, 0.28], "accuracy": [0.60, 0.75, 0.82, 0.85, 0.87]}


def logs(**values):
    """Turn metric=[...] into one mapping an epoch."""
    count = len(next(iter(values.values())))
    return [{name: series[i] for name, series in values.items()} for i in range(count)]


def test_classic_trace_is_observed_epoch_by_epoch():
    trace = TrainingTrace.from_history(CLASSIC)
    assert [record.observation for record in trace.epochs] == [
        "first epoch: loss 0.65, accuracy 0.60",
        "loss fell 0.65 → 0.48, accuracy up 15 points",
        "loss fell 0.48 → 0.35, accuracy up 7 points",
        "loss fell 0.35 → 0.30, accuracy up 3 points",
        "loss fell 0.30 → 0.28, accuracy up 2 points",
    ]


def test_overfitting_is_dated_from_the_epoch_after_the_lowest_validation_loss():
    said = observe(logs(loss=[0.6, 0.4, 0.3, 0.2], val_loss=[0.55, 0.50, 0.54, 0.60]))
    assert said == (
        "validation loss rose 0.54 → 0.60 while training loss fell 0.30 → 0.20: overfitting since epoch 3"
    )


def test_overfitting_does_not_hide_a_better_validation_accuracy():
    said = observe(logs(loss=[0.6, 0.4], val_loss=[0.50, 0.60], val_accuracy=[0.70, 0.74]))
    assert said == (
        "validation loss rose 0.50 → 0.60 while training loss fell 0.60 → 0.40: overfitting since epoch 2; "
        "validation accuracy up 4 points"
    )


@pytest.mark.parametrize(
    ("loss", "val_loss"),
    [
        ([0.40, 0.50], [0.50, 0.60]),  # both rose
        ([0.60, 0.40], [0.500, 0.504]),  # rose by 0.8 %, less than the 1 % that counts
        ([0.60, 0.40, 0.30], [0.40, 0.60, 0.50]),  # above its lowest, but falling
        ([0.30, 0.50, 0.40], [0.40, 0.45, 0.50]),  # training loss is above what it was at the lowest
    ],
)
def test_what_is_not_overfitting_is_not_called_so(loss, val_loss):
    assert "overfitting" not in observe(logs(loss=loss, val_loss=val_loss))


def test_lowest_validation_loss_is_named_when_a_fall_ends_above_it():
    said = observe(logs(loss=[0.60, 0.40, 0.30], val_loss=[0.40, 0.60, 0.50]))
    assert said == "loss fell 0.40 → 0.30, validation loss fell 0.60 → 0.50 (lowest: 0.40 in epoch 1)"


def test_changes_within_noise():
    # 160 and 161 of 200 right: p = (160.5 + 2) / 204 = .79657, sqrt(p (1 - p) / 200) = .02847
    said = observe(
        logs(loss=[0.300, 0.299], val_loss=[0.450, 0.452], val_accuracy=[0.800, 0.805]), val_rows=200
    )
    assert said == (
        "changes are within noise: validation accuracy up 0.5 points (standard error on 200 rows: 2.8 points)"
    )


def test_accuracy_within_noise_beside_a_loss_that_fell():
    said = observe(logs(loss=[0.40, 0.30], val_accuracy=[0.80, 0.79]), val_rows=200)
    assert said == (
        "loss fell 0.40 → 0.30, validation accuracy down 1 point, "
        "within noise (standard error on 200 rows: 2.9 points)"
    )


def test_same_change_on_more_rows_is_not_noise():
    # sqrt(.805 * .195 / 20000) = .0028
    said = observe(logs(loss=[0.40, 0.40], val_accuracy=[0.80, 0.81]), val_rows=20_000)
    assert said == "loss held at 0.40, validation accuracy up 1 point"


def test_noise_is_not_claimed_without_the_number_of_rows():
    assert "noise" not in observe(logs(loss=[0.40, 0.40], val_accuracy=[0.80, 0.801]))


def test_perfect_accuracy_still_has_a_standard_error():
    # p = (10 - .5 + 2) / 14: 9 and 10 of 10 right are within sqrt(.8214 * .1786 / 10) = .121
    assert "within noise" in observe(logs(loss=[0.4, 0.2], val_accuracy=[0.9, 1.0]), val_rows=10)


def test_loss_above_the_first_epoch_is_said():
    said = observe(logs(loss=[0.65, 0.50, 0.90], accuracy=[0.60, 0.75, 0.55]))
    assert said == "loss rose 0.50 → 0.90 (above the first epoch's 0.65), accuracy down 20 points"


def test_nan_loss():
    end = ": training has diverged; lower the learning rate, or look for NaN and huge values in the inputs"
    nan = math.nan
    assert observe(logs(loss=[nan])) == "loss is NaN" + end
    assert observe(logs(loss=[0.6, nan, nan], accuracy=[0.6, 0.5, 0.5])) == "loss is NaN since epoch 2" + end
    assert observe(logs(loss=[0.6, math.inf])) == "loss is infinite" + end
    assert observe(logs(loss=[nan, 0.5])) == "the epoch before has no loss or accuracy to compare with"


def test_nan_validation_loss():
    assert observe(logs(loss=[0.6, 0.31], val_loss=[0.6, math.nan])) == (
        "validation loss is NaN while training loss is 0.31: the last steps of this epoch diverged, "
        "or the validation rows hold NaN or huge values"
    )


def test_answers_of_one_class_are_noticed():
    # 60 negative and 40 positive rows. Always negative: accuracy .6, precision = recall = 0.
    said = observe([{"loss": 0.7, "accuracy": 0.6, "precision": 0.0, "recall": 0.0}])
    assert said == (
        "first epoch: loss 0.70, accuracy 0.60; "
        "recall is 0 while accuracy is 0.60, as for a model that never answers the positive class"
    )
    # Always positive: accuracy = precision = 40 / 100, recall 1.
    said = observe([{"val_accuracy": 0.4, "val_precision": 0.4, "val_recall": 1.0}])
    assert said == (
        "first epoch: validation accuracy 0.40; validation recall is 1 and precision equals accuracy, "
        "as for a model that always answers the positive class"
    )
    # Three classes, always the one with half of the rows: macro recall 1/3, macro precision .5 / 3.
    said = observe([{"accuracy": 0.5, "precision": 0.5 / 3, "recall": 1 / 3}])
    assert said.endswith("; precision and recall are those of a model that always answers the same class")


@pytest.mark.parametrize(
    "metrics",
    [
        {"accuracy": 1.0, "precision": 1.0, "recall": 1.0},
        {"accuracy": 0.0, "precision": 0.0, "recall": 0.0},
        {"accuracy": 0.8, "precision": 0.7, "recall": 1.0},
        {"accuracy": 0.8, "precision": 0.8, "recall": 0.75},
        {"accuracy": 0.6, "precision": math.nan, "recall": 0.0},
    ],
)
def test_other_answers_are_not_called_one_class(metrics):
    assert "model that" not in observe([metrics])


def test_observation_of_missing_metrics():
    assert observe([{}]) == "first epoch, with no loss or accuracy recorded"
    assert observe([{}, {}]) == "the epoch before has no loss or accuracy to compare with"
    assert observe(logs(val_accuracy=[0.5, 0.5])) == "validation accuracy unchanged at 0.50"
    with pytest.raises(ValueError, match="^`history` has no rows; at least one is needed.$"):
        observe([])


def test_small_and_large_figures_stay_readable():
    assert observe(logs(loss=[0.3051, 0.2949])) == "loss fell 0.305 → 0.295"
    assert observe(logs(loss=[0.0021, 0.0019])) == "loss fell 0.0021 → 0.0019"
    assert observe(logs(loss=[2e6, 1e6])) == "loss fell 2e+06 → 1e+06"
    assert observe(logs(loss=[5e-13, 3e-13])) == "loss fell 5e-13 → 3e-13"


finite = st.floats(0, 1e6, allow_nan=False)
share = st.floats(0, 1)
any_loss = st.one_of(finite, st.sampled_from([math.nan, math.inf, 0.0]))
epochs = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "loss": any_loss,
            "val_loss": any_loss,
            "accuracy": share,
            "val_accuracy": share,
            "precision": share,
            "val_recall": share,
            "f1": share,
        },
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(epochs, st.one_of(st.none(), st.integers(1, 10**6)))
def test_any_history_gives_one_sentence_that_its_numbers_bear_out(history, n):
    said = observe(history, rows=n, val_rows=n)
    assert said and "\n" not in said and not said.endswith(".")
    if "loss fell" in said and not said.startswith("validation") and "while training" not in said:
        fell = [
            k for k in ("loss", "val_loss") if k in history[-1] and history[-1][k] < history[-2].get(k, 0)
        ]
        assert fell
    if "overfitting" in said:
        assert history[-1]["val_loss"] > history[-2]["val_loss"]
        assert history[-1]["loss"] < history[-2]["loss"]
    if "noise" in said:
        assert n is not None


@settings(max_examples=100, deadline=None)
@given(epochs)
def test_any_trace_prints_in_80_columns_and_comes_back_from_its_file(history):
    records = tuple(
        EpochRecord(i + 1, metrics, 1e-5, 1.5, observe(history[: i + 1])) for i, metrics in enumerate(history)
    )
    trace = TrainingTrace(records)
    text = str(trace)
    assert max(map(len, text.splitlines())) <= 80
    drawn = chart(trace)
    assert drawn.isascii()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        path.write_text(trace.to_jsonl(), encoding="utf-8")
        again = TrainingTrace.load(path)
    assert [record.epoch for record in again.epochs] == [record.epoch for record in records]
    assert again.to_jsonl() == trace.to_jsonl()


def test_table_and_chart_of_the_classic_trace():
    trace = TrainingTrace.from_history(
        {**CLASSIC, "learning_rate": [2e-5, 2e-5, 1.3e-5, 7e-6, 0.0]}, seconds=[12.34] * 5
    )
    assert str(trace) == (
        "epoch  split      loss  accuracy precision    recall        F1     rate seconds\n"
        "1      train    0.6500    0.6000         -         -         -    2e-05    12.3\n"
        "       first epoch: loss 0.65, accuracy 0.60\n"
        "2      train    0.4800    0.7500         -         -         -    2e-05    12.3\n"
        "       loss fell 0.65 → 0.48, accuracy up 15 points\n"
        "3      train    0.3500    0.8200         -         -         -  1.3e-05    12.3\n"
        "       loss fell 0.48 → 0.35, accuracy up 7 points\n"
        "4      train    0.3000    0.8500         -         -         -    7e-06    12.3\n"
        "       loss fell 0.35 → 0.30, accuracy up 3 points\n"
        "5      train    0.2800    0.8700         -         -         -        0    12.3\n"
        "       loss fell 0.30 → 0.28, accuracy up 2 points\n"
        "\n"
        "loss\n"
        "0.650 + o.\n"
        "      |   ...\n"
        "      |      ...\n"
        "0.527 +         ...\n"
        "      |            .o.\n"
        "      |               ....\n"
        "0.403 +                   ...\n"
        "      |                      ...o.\n"
        "      |                           ..........\n"
        "0.280 +                                     o...........o\n"
        "      +--------------------------------------------------\n"
        "epoch   1           2           3           4           5\n"
        "o training"
    )


def test_validation_has_its_own_line_and_mark_and_the_best_epoch_a_star():
    trace = TrainingTrace.from_history(
        {"loss": [0.6, 0.4, 0.3], "val_loss": [0.55, 0.5, 0.52], "val_f1": [0.7, 0.75, 0.8]}
    )
    assert (trace.best_epoch, trace.monitor) == (2, "val_loss")
    lines = str(trace).splitlines()
    assert "2*     train    0.4000         -         -         -         -        -       -" in lines
    assert "       valid    0.5000         -         -         -    0.7500" in lines
    assert "* best epoch: 2: val_loss 0.5000" in lines
    assert lines[-1] == "o training   x validation   # both"
    epoch_line = next(i for i, line in enumerate(lines) if line.startswith("epoch ") and "split" not in line)
    assert lines[epoch_line + 1].index("^") == lines[epoch_line].index("2")


def test_line_by_line_printing_equals_the_whole_table():
    trace = TrainingTrace.from_history(CLASSIC)
    live = "\n".join([header(), *(row(record) for record in trace.epochs)])
    assert str(trace).startswith(live + "\n\nloss\n")


def test_chart_of_one_epoch_and_of_one_value():
    one = chart(TrainingTrace.from_history({"loss": [0.7]}))
    assert sum(line.endswith(" o") for line in one.splitlines()) == 1
    flat = chart(TrainingTrace.from_history({"loss": [0.7, 0.7], "val_loss": [0.7, 0.7]}))
    assert sum(line.count("#") for line in flat.splitlines()[:-1]) == 2


def test_hundred_epochs_are_all_drawn_in_80_columns():
    losses = [1 / (i + 1) for i in range(100)]
    losses[40] = math.nan
    drawn = chart(TrainingTrace.from_history({"loss": losses}))
    assert max(map(len, drawn.splitlines())) <= 80
    axis = next(line for line in drawn.splitlines() if line.startswith("epoch"))
    assert axis.split() == ["epoch", "1", "10", "20", "30", "40", "50", "60", "70", "80", "90", "100"]
    assert drawn.endswith("not finite, not drawn: epoch 41")


def test_nothing_to_draw():
    assert chart(TrainingTrace.from_history({"accuracy": [0.5, 0.6]})) == ""
    assert chart(TrainingTrace.from_history({"loss": [math.nan]})) == ""
    assert str(TrainingTrace()) == "no epoch was trained"


def test_best_epoch_directions():
    trace = TrainingTrace.from_history(
        {"loss": [0.3, 0.2, 0.1], "val_f1": [math.nan, 0.8, 0.8], "mae": [3.0, 1.0, 2.0]}
    )
    assert best_epoch(trace.epochs, "loss") == 3
    assert best_epoch(trace.epochs, "val_f1") == 2  # the first of two equals; NaN is never best
    assert best_epoch(trace.epochs, "mae", mode="min") == 2
    assert best_epoch((), "loss") is None
    with pytest.raises(ValueError, match="^`mode` must be 'min' or 'max' for the metric 'mae', whose dir"):
        best_epoch(trace.epochs, "mae")
    with pytest.raises(
        ValueError, match=r"^`monitor` must be a metric of the trace \(loss, val_f1, mae\); got 'val_loss'"
    ):
        best_epoch(trace.epochs, "val_loss")
    with pytest.raises(ValueError, match="^`mode` must be one of 'min', 'max'; got 'lowest'.$"):
        best_epoch(trace.epochs, "loss", mode="lowest")


def test_history_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="^`history` must have as many .* 2 for 'loss', 1 for 'val_loss'.$"):
        TrainingTrace.from_history({"loss": [1.0, 0.5], "val_loss": [0.7]})
    with pytest.raises(ValueError, match=r"^`seconds` must have one value an epoch \(2\); got 1.$"):
        TrainingTrace.from_history({"loss": [1.0, 0.5]}, seconds=[3.0])


def test_trace_comes_back_from_jsonl(tmp_path):
    trace = TrainingTrace.from_history(
        {"loss": [0.6, 0.5], "val_loss": [0.6, math.nan], "learning_rate": [1e-5, 0.0]},
        seconds=[1.0, 2.5],
        rows=1000,
        val_rows=200,
    )
    path = tmp_path / "trace.jsonl"
    path.write_text(trace.to_jsonl(), encoding="utf-8")
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    read = TrainingTrace.load(path)
    assert read.epochs[0] == trace.epochs[0]
    assert math.isnan(read.epochs[1].metrics["val_loss"])
    assert str(read) == str(trace)
    assert read.best_epoch == 1


def test_numbers_of_numpy_are_written_as_json():
    record = EpochRecord(np.int64(1), {"loss": np.float32(0.5)}, np.float32(0.25), 1.0, "", np.int64(10))
    plain = json.loads(json.dumps(record.record()))
    assert EpochRecord.of_record(plain) == EpochRecord(1, {"loss": 0.5}, 0.25, 1.0, "", 10)


def test_line_cut_by_a_crash_is_left_out_but_a_wrong_line_is_not(tmp_path):
    lines = TrainingTrace.from_history(CLASSIC).to_jsonl()
    path = tmp_path / "trace.jsonl"
    path.write_text(lines[:-20], encoding="utf-8")
    assert len(TrainingTrace.load(path).epochs) == 4
    path.write_text("{}\n" + lines, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"trace.jsonl' is no training trace: record 1 is not an epoch \(KeyError"
    ):
        TrainingTrace.load(path)


def test_to_frame():
    frame = TrainingTrace.from_history({**CLASSIC, "learning_rate": [1e-5] * 5}).to_frame()
    assert list(frame.columns) == ["epoch", "loss", "accuracy", "learning_rate", "seconds", "observation"]
    assert frame["loss"].tolist() == CLASSIC["loss"]


def test_importing_the_trace_imports_no_pandas_and_no_tensorflow():
    code = (
        "import sys, finetune_eval.traces.training as t;"
        "print([m for m in ('pandas', 'tensorflow', 'keras', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_documentation_shows_what_its_code_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)\n```", page, re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out.rstrip() == shown


@pytest.mark.parametrize("columns", [48, 60, 79, 200])
def test_table_and_chart_fit_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    losses = [12345.678, 987.6, 45.6, 1.5, float("nan")] * 10
    trace = TrainingTrace.from_history(
        {"loss": losses, "val_loss": losses[::-1], "accuracy": [0.5] * 50}, val_rows=9
    )
    lines = str(trace).splitlines()
    assert max(map(len, lines)) <= min(columns, 80)
    assert lines[0].split()[2] == "loss" and ("seconds" in lines[0]) == (columns >= 79)
