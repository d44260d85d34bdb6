import dataclasses
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

from finetune_eval.evaluation.calibration import calibrate
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.reports import plots
from finetune_eval.traces.training import TrainingTrace


def lines(figure, label):
    return [line for line in figure.axes[0].get_lines() if line.get_label() == label]


def dots(figure):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in figure.axes[0].get_lines()
        if line.get_marker() == "o" and len(line.get_xdata()) == 1
    ]


def bars(figure, color):
    return [
        tuple(line.get_ydata())
        for line in figure.axes[0].get_lines()
        if line.get_alpha() == 0.4 and line.get_color() == color
    ]


def test_loss_curves_draw_every_finite_value(training):
    figure = plots.loss_curves(training)
    (train,), (valid,) = lines(figure, "training"), lines(figure, "validation")
    assert train.get_ydata().tolist() == [0.65, 0.48, 0.35]
    assert valid.get_ydata().tolist() == [0.60, 0.52, 0.55]
    (best,) = lines(figure, "best epoch: 2")
    assert list(best.get_xdata()) == [2, 2]
    broken = plots.loss_curves(TrainingTrace.from_history({"loss": [0.5, float("nan"), 0.3]}))
    assert lines(broken, "training")[0].get_xdata().tolist() == [1, 3]


def test_accuracy_curves_have_wilson_bars_where_the_rows_are_known(training):
    figure = plots.accuracy_curves(training)
    assert len(lines(figure, "validation, 95 % interval")) == 1
    # 132, 148 and 149 of 200 right. Wilson 95 % of 148 in 200 worked from the formula, z = 1.959964:
    # centre (148 + z²/2) / (200 + z²) = .73548, half z sqrt(200 * .74 * .26 + z²/4) / (200 + z²) = .06037
    assert bars(figure, plots.RED)[1] == pytest.approx((0.67511, 0.79585), abs=5e-5)
    without = TrainingTrace(
        tuple(dataclasses.replace(record, val_rows=None) for record in training.epochs), 2, "val_loss"
    )
    figure = plots.accuracy_curves(without)
    assert len(lines(figure, "validation")) == 1
    assert bars(figure, plots.RED) == []


def test_curves_of_nothing_are_empty_and_not_an_error():
    assert dots(plots.accuracy_curves(TrainingTrace())) == []


def test_confusion_shows_every_count(binary, hostile):
    shown = [text.get_text() for text in plots.confusion(binary).axes[0].texts]
    assert shown == ["40", "10", "10", "40"]
    shown = [int(text.get_text()) for text in plots.confusion(hostile).axes[0].texts]
    assert shown == hostile.confusion_matrix.ravel().tolist()


def test_reliability_of_two_classes():
    # 100 rows said 0.1, of which 10 happened; 100 said 0.9, of which 70 did.
    p = np.repeat([0.1, 0.9], 100)
    y = np.concatenate([np.arange(100) < 10, np.arange(100) < 70]).astype(int)
    figure = plots.reliability(calibrate(y, p), positive="yes")
    assert dots(figure) == [(pytest.approx(0.1), 0.1), (pytest.approx(0.9), 0.7)]
    # Wilson 95 % of 10 in 100 is 5.5 % to 17.4 % (Brown, Cai and DasGupta 2001, by the formula).
    assert bars(figure, plots.BLUE)[0] == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert figure.axes[0].get_xlabel() == "probability of 'yes'"


def test_reliability_of_more_classes_is_of_the_predicted_one():
    figure = plots.reliability(calibrate(np.repeat([0, 1], [20, 30]), np.tile([0.6, 0.3, 0.1], (50, 1))))
    assert dots(figure) == [(pytest.approx(0.6), 0.4)]
    assert figure.axes[0].get_xlabel() == "probability of the predicted class"


def test_intervals_are_those_of_the_classes(hostile):
    figure = plots.intervals(hostile)
    lowest_first = sorted(hostile.per_class, key=lambda score: score.f1.value)
    drawn = [
        tuple(line.get_xdata())
        for line in figure.axes[0].get_lines()
        if line.get_alpha() == 0.4 and line.get_color() == plots.RED
    ]
    assert drawn == [(score.recall.low, score.recall.high) for score in lowest_first]
    assert lines(figure, "F1")[0].get_xdata().tolist() == [score.f1.value for score in lowest_first]


def test_what_cannot_be_drawn_is_refused():
    many = evaluate_predictions(
        np.eye(3, dtype=int), np.eye(3), labels=list("abc"), task="multilabel", n_resamples=200
    )
    with pytest.raises(
        ValueError, match="^`evaluation` must be of one label a row to have one confusion mat"
    ):
        plots.confusion(many)


def test_labels_are_never_read_as_formulas_or_markup(hostile):
    text = plots.svg(plots.intervals(hostile), "classes")
    assert "$x|y$ 電影" in text
    assert "<script" not in text and "&lt;script&gt;" in text


def test_svg_takes_the_colours_of_the_page_and_is_the_same_each_time(binary):
    figure = plots.confusion(binary)
    text = plots.svg(figure, "one")
    assert text == plots.svg(figure, "one") == plots.svg(plots.confusion(binary), "one")
    assert text.startswith('<svg class="plot" viewBox="') and text.endswith("</svg>")
    assert "currentColor" in text and plots.INK not in text
    assert set(re.findall(r'id="(\w+)-', text)) == {"one"}
    with pytest.raises(ValueError, match="^`name` must be a word of lower-case letters"):
        plots.svg(figure, "One two")


def test_nothing_global_is_changed(binary):
    before = dict(mpl.rcParams)
    plots.svg(plots.intervals(binary), "classes")
    assert dict(mpl.rcParams) == before


def test_pyplot_is_not_needed():
    code = "import sys, finetune_eval.reports.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_figures_are_drawn_into_the_callers_axes(training, binary):
    figure = mpl.figure.Figure(figsize=(7, 5))
    axes = figure.subplots(2, 3).ravel()
    drawn = [
        plots.loss_curves(training, ax=axes[0]),
        plots.accuracy_curves(training, ax=axes[1]),
        plots.confusion(binary, ax=axes[2]),
        plots.reliability(calibrate([0, 1] * 30, np.linspace(0.1, 0.9, 60)), ax=axes[3]),
        plots.intervals(binary, ax=axes[4]),
    ]
    assert all(one is figure for one in drawn)
    assert [ax.has_data() for ax in axes] == [True] * 5 + [False]
    assert tuple(figure.get_size_inches()) == (7, 5) and figure.get_layout_engine() is None
    with pytest.raises(TypeError, match="`ax` must be one matplotlib Axes or None; got ndarray"):
        plots.confusion(binary, ax=axes)
