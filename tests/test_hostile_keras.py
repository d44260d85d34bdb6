"""The public functions that need a model, with hostile arguments: done, or a documented refusal."""

import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import finetune_eval as fe

sys.path.insert(0, str(Path(__file__).parent))
from hostile import TIMES, calls, refused_or_done, values  # noqa: E402

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")

TEXTS = ["a good film", "a bad film", "not good", "not bad"]
FINE_TUNE = {
    "x": np.zeros((4, 10)), "y": [0, 1, 0, 1], "validation_data": None, "epochs": 1, "batch_size": 4,
    "learning_rate": 0.01, "weight_decay": 0.01, "class_weight": None, "sample_weight": None,
    "label_smoothing": 0.0, "early_stopping": None, "monitor": None, "calibrate": False,
    "threshold_for": None, "precision": "auto", "seed": 0, "callbacks": None, "run_dir": None,
    "checkpoint_every": "30s", "resume": False, "deterministic": False,
}  # fmt: skip
RATES = {
    "x": np.zeros((4, 10)), "y": [0, 1, 0, 1], "lowest": 1e-7, "highest": 1.0, "steps": 2, "batch_size": 4,
    "strategy": "full", "class_weight": None, "sample_weight": None, "seed": 0,
}  # fmt: skip
BUILD = {
    "backbone": "nowhere", "labels": ("a", "b"), "pooling": "auto", "sequence_length": None, "dropout": None,
    "freeze": False, "lora_rank": None, "preprocessor": None, "seed": 0,
}  # fmt: skip
QUIET = settings(max_examples=40 * TIMES, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.numeric_classifier()


@QUIET
@given(data=st.data())
def test_fine_tune(model, data):
    names, arguments = data.draw(calls(FINE_TUNE))
    if not isinstance(arguments["epochs"], int) or arguments["epochs"] > 3:
        arguments["epochs"] = 1  # an hour of training is no fault
    before = model.get_weights()
    done = refused_or_done(lambda **options: fe.fine_tune(model, verbose=False, **options), arguments)
    if isinstance(done, Exception) and not isinstance(done, FloatingPointError):
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)), names
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@QUIET
@given(data=st.data())
def test_find_learning_rate(model, data):
    _, arguments = data.draw(calls(RATES))
    if not isinstance(arguments["steps"], int) or arguments["steps"] > 3:
        arguments["steps"] = 2
    before = model.get_weights()
    refused_or_done(lambda **options: fe.find_learning_rate(model, **options), arguments)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@QUIET
@given(data=st.data())
def test_build_model(tiny, data):
    _, arguments = data.draw(calls(BUILD))
    if isinstance(arguments["backbone"], str) and arguments["backbone"] == "nowhere":
        arguments["backbone"] = tiny.numeric_backbone()
    refused_or_done(fe.build_model, arguments)


@pytest.mark.parametrize(
    "name", ["predict", "fit", "evaluate", "load_model", "trace_prediction", "EpochTrace", "resume"]
)
@QUIET
@given(value=values, at=st.booleans())
def test_one_argument(model, scorer, name, value, at):
    weights = {"sample_weight": value} if at else {"class_weight": value}
    call = {
        "predict": lambda: (scorer if at else model).predict(value, verbose=0),
        "fit": lambda: model.fit(np.zeros((4, 10)), [0, 1, 0, 1], verbose=0, **weights),
        "evaluate": lambda: fe.evaluate(model, *((value, [0, 1]) if at else (np.zeros((4, 10)), value))),
        "load_model": lambda: fe.load_model(value),
        "resume": lambda: fe.resume(value),
        "trace_prediction": lambda: fe.trace_prediction(*((value, "good") if at else (scorer, value))),
        "EpochTrace": lambda: fe.EpochTrace(path=value) if at else fe.ClassificationMetrics(average=value),
    }[name]
    refused_or_done(call, {}, own_words=name != "predict")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
