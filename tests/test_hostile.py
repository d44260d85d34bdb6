"""Every public function that needs no TensorFlow, with hostile arguments: done, or a documented refusal."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import finetune_eval as fe
from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.thresholds import choose_threshold

sys.path.insert(0, str(Path(__file__).parent))
from hostile import DOCUMENTED, TIMES, calls, refused_or_done, values  # noqa: E402

Y, P = [0, 1, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
TEXTS = ["a good film", "a bad film", "not good", "not bad"]
FRAME = pd.DataFrame({"text": [f"film {i}" for i in range(20)], "label": ["a", "b"] * 10, "n": range(20)})
SCORES = {"labels": ["bad", "good"], "n_resamples": 100}
RESULT = fe.evaluate_predictions(Y, P, texts=TEXTS, **SCORES)
OTHER = fe.evaluate_predictions(Y, np.array(P)[::-1], texts=TEXTS, **SCORES)
TRACE = fe.TrainingTrace.from_history({"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]})


MANY = [f"{'abcde'[k % 5]} film of {k} parts and {'xyz'[k % 3]}" for k in range(35)]


class Model:
    labels = ("bad", "good")

    def predict(self, x):
        return np.array(P)[: len(x)]


CALLS = {
    "load_dataset": (fe.load_dataset, {
        "source": FRAME, "text": "text", "label": "label", "features": None, "group": None, "labels": None,
        "train": None, "validation": 4, "test": 4, "near_duplicates": False, "seed": 0, "drop_missing": False,
        "encoding": "utf-8", "delimiter": None, "quoted": True}),
    "split": (fe.split, {
        "x": list(FRAME["text"]), "y": list(FRAME["label"]), "labels": None, "train": None, "validation": 4,
        "test": 4, "groups": None, "near_duplicates": False, "seed": 0, "ids": None, "metadata": None}),
    "find_leaks": (fe.find_leaks, {"train": TEXTS, "test": TEXTS[:2]}),
    "from_history": (fe.TrainingTrace.from_history, {
        "history": {"loss": [0.5, 0.4]}, "seconds": None, "rows": None, "val_rows": None, "monitor": None,
        "mode": None}),
    "evaluate": (fe.evaluate, {
        "model": Model(), "x": TEXTS, "y": Y, "batch_size": None, "n_resamples": 100, "texts": None,
        "ids": None}),
    "evaluate_predictions": (fe.evaluate_predictions, {
        "y_true": Y, "probabilities": P, "labels": ["bad", "good"], "ids": None, "texts": TEXTS,
        "groups": None, "metadata": None, "sample_weight": None, "average": "auto", "confidence": 0.95,
        "threshold": None, "abstention": None, "task": "classification", "train": None, "features": None,
        "baselines": True, "n_resamples": 100, "seed": 0}),
    "evaluate_files": (fe.evaluate_files, {
        "files": "predictions.csv", "labels": ["bad", "good"], "workers": 1, "threshold": None,
        "metadata": (), "average": "auto", "metrics": (), "confidence": 0.95, "n_resamples": 100, "seed": 0,
        "delimiter": None, "encoding": "utf-8", "resume_dir": None, "progress": None}),
    "compare": (fe.compare, {"a": RESULT, "b": OTHER, "metric": "accuracy", "names": None}),
    "choose_threshold": (choose_threshold, {
        "y_true": Y, "probabilities": P, "goal": "f1", "false_positive_cost": None,
        "false_negative_cost": None}),
    "choose_abstention": (fe.choose_abstention, {
        "y_true": [1] * 60, "probabilities": [0.9] * 60, "goal": "error<=0.05", "threshold": None,
        "sample_weight": None}),
    "check_drift": (fe.check_drift, {
        "old": MANY, "new_rows": MANY[::-1], "probabilities": None, "permutations": 99,
        "most_rows": 40, "confidence": 0.95, "seed": 0}),
    "prediction_sets": (RESULT.prediction_sets, {"alpha": 0.2, "by_class": False}),
    "apply": (RESULT.prediction_sets(0.3).apply, {"probabilities": P}),
}  # fmt: skip


def call(name, arguments):
    function, _ = CALLS[name]
    if name == "compare":
        first, second = arguments.pop("a"), arguments.pop("b")
        return lambda **options: function(first, second, **options)
    return function


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Hostile paths are relative to a folder with one file, and the network is not asked."""
    monkeypatch.chdir(tmp_path)
    Path("predictions.csv").write_text("label,p_bad,p_good\nbad,0.9,0.1\ngood,0.2,0.8\n", encoding="utf-8")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60 * TIMES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_arguments(name, data):
    _, arguments = data.draw(calls(CALLS[name][1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused_or_done(call(name, arguments), arguments)


WRITERS = {
    "report": lambda value, at: fe.report(value, "page.html") if at else fe.report(RESULT, value),
    "report training": lambda value, at: fe.report(
        RESULT, "page.html", **{"training" if at else "manifest": value}
    ),
    "write_card": lambda value, at: fe.write_card(
        RESULT, "c.md", **({"name": value} if at else {"data": value})
    ),
    "Evaluation.save": lambda value, at: RESULT.save(value),
    "Evaluation.load": lambda value, at: fe.Evaluation.load(value),
    "Evaluation[]": lambda value, at: RESULT[value],
    "load_predictions": lambda value, at: fe.load_predictions(value),
    "TrainingTrace.load": lambda value, at: fe.TrainingTrace.load(value),
    "DataTrace.load": lambda value, at: fe.DataTrace.load(value),
    "DataTrace.save": lambda value, at: fe.DataTrace().save(value),
    "compare_totals": lambda value, at: fe.compare_totals(*((value, 80, 100) if at else (70, 80, value))),
    "predicted": lambda value, at: fe.evaluate_predictions(
        [0, 1, 1, 0], predicted=value, **({"labels": ["a", "b"]} if at else {})
    ),
    "Statistics": lambda value, at: Statistics(value) if at else Statistics(["bad", "good"]).of(value),
    "Statistics.of": lambda value, at: Statistics(["bad", "good"]).of(
        {"label": Y, "score": value} if at else {"label": value, "score": [0.1, 0.8, 0.3, 0.2]}
    ),
    "Statistics metadata": lambda value, at: (
        Statistics(["bad", "good"], metadata=value)
        if at
        else Statistics(["bad", "good"], metadata=["m"]).of({"label": Y, "score": [0.5] * 4, "m": value})
    ),
    "metrics": lambda value, at: fe.evaluate_predictions(
        [0, 1, 1, 0], [0.1, 0.8, 0.3, 0.2], metrics=[value] if at else value
    ),
    "agreement": lambda value, at: (
        fe.agreement(value) if at else fe.agreement([["a", "b"], ["a", "a"]], labels=value)
    ),
    "evaluate_seeds": lambda value, at: fe.evaluate_seeds([RESULT, value] if at else value),
    "compare_seeds": lambda value, at: fe.compare_seeds([RESULT, OTHER], value),
}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40 * TIMES, suppress_health_check=list(HealthCheck))
@given(value=values, at=st.booleans())
def test_one_argument(name, value, at):
    documented = (*DOCUMENTED, KeyError) if name == "Evaluation[]" else DOCUMENTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused_or_done(lambda: WRITERS[name](value, at), {}, documented)
    assert os.getcwd() != str(Path(__file__).parent.parent)
