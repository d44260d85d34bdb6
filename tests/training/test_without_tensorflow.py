"""Where TensorFlow is not installed, JAX and torch build, train, judge and save a model of texts."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import finetune_eval as fe

PROGRAM = """
import json, sys
sys.modules["tensorflow"] = None  # to import it is an ImportError
sys.path.insert(0, sys.argv[1])
import numpy as np
from conftest import LABELS, SENTIMENTS, TEXTS
import finetune_eval as fe

x, y = list(TEXTS), list(SENTIMENTS)
model = fe.build_model(sys.argv[2], LABELS, dropout=0.0)
run = fe.fine_tune(model, x, y, epochs=2, batch_size=8, learning_rate=0.01, verbose=False)
model.save(sys.argv[3])
probabilities = model.predict(x, verbose=0)
found = {
    "steps": len(run.trace.epochs), "loss": fe.evaluate(model, x, y).loss,
    "ids": model.encode(x).features["token_ids"].tolist(), "probabilities": probabilities.tolist(),
    "loaded": fe.load_model(sys.argv[3]).predict(x, verbose=0).tolist(),
    "traced": list(fe.trace_prediction(model, x[0]).tokens),
}
try:
    model.predict(rows for rows in [x])
except ImportError as error:
    found["pipeline"] = str(error)
found["imported"] = [name for name in sys.modules if name.startswith("tensorflow") and sys.modules[name]]
print(json.dumps(found))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_is_trained_and_saved_without_tensorflow(backend, tiny, tmp_path):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is an extra; `make test-{backend}` installs it and runs this")
    folder, file = tiny.checkpoint(tmp_path / "bert"), tmp_path / "model.keras"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), str(folder), str(file)],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["imported"] == [] and found["steps"] == 2
    # With TensorFlow here: the same ids, and from the saved file the same probabilities.
    model, x = fe.load_model(file), list(tiny.texts)
    assert model.encode(x).features["token_ids"].tolist() == found["ids"]
    assert found["loaded"] == found["probabilities"]
    np.testing.assert_allclose(model.predict(x, verbose=0), found["probabilities"], rtol=0, atol=1e-5)
    assert fe.evaluate(model, x, list(tiny.sentiments)).loss == pytest.approx(found["loss"], abs=1e-5)
    assert found["traced"] == ["[CLS]", "a", "good", "film", ".", "[SEP]"]
    assert found["pipeline"] == (
        "`x` is a pipeline and needs TensorFlow, which is not installed: `pip install tensorflow "
        "tensorflow-text`, or pass arrays."
    )
