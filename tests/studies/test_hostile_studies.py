"""Studies with hostile arguments: done, or a documented refusal."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import finetune_eval as fe

sys.path.insert(0, str(Path(__file__).parent.parent))
from hostile import TIMES, calls, refused_or_done  # noqa: E402

X = np.random.default_rng(0).normal(size=(24, 2))
Y = [0, 1] * 12


def fit(x, y):
    return LogisticRegression().fit(x, y)


CALLS = {
    "cross_evaluate": (fe.cross_evaluate, {
        "learner": fit, "x": X, "y": Y, "labels": None, "folds": 2, "repeats": 1, "groups": None,
        "near_duplicates": True, "recipe": None, "ids": None, "metadata": None, "features": None,
        "average": "auto", "confidence": 0.95, "threshold": None, "baselines": False, "keep_models": False,
        "sample_weight": None, "task": "classification",
        "run_dir": None, "workers": 1, "seed": 0}),
    "learning_curve": (fe.learning_curve, {
        "learner": fit, "x": X, "y": Y, "labels": None, "sizes": (0.5, 1.0), "repeats": 2, "test": None,
        "metric": "accuracy", "goal": None, "groups": None, "near_duplicates": True, "recipe": None,
        "confidence": 0.8, "run_dir": None, "seed": 0}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Hostile paths are relative to an empty folder, and the network is not asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60 * TIMES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_arguments(name, data):
    function, valid = CALLS[name]
    names, arguments = data.draw(calls(valid))
    for count in ("repeats", "folds", "workers"):  # an hour of training is no fault
        if isinstance(arguments.get(count), int) and arguments[count] > 5:
            arguments[count] = 2 if count != "workers" else 1
    more = {"n_resamples": 100} if name == "cross_evaluate" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused_or_done(
            lambda **given: function(**given, **more, verbose=False),
            arguments,
            own_words=not {"learner", "x", "y"} & set(names),  # scikit-learn may refuse the rows itself
        )


def test_every_argument_is_tried():
    import inspect

    for function, valid in CALLS.values():
        assert set(inspect.signature(function).parameters) - set(valid) <= {"verbose", "n_resamples"}
