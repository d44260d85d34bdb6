"""What a worker does when an engine hands it rows; the engines themselves run in engines/local_mode.py."""

import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import finetune_eval as fe
from finetune_eval import engines


class Frame:
    """As much of a Spark DataFrame as is looked at before any worker starts."""

    def __init__(self, columns, case_sensitive="false"):
        self.columns = columns
        self.sparkSession = SimpleNamespace(conf={"spark.sql.caseSensitive": case_sensitive})

    def mapInArrow(self, *_):
        raise AssertionError("no worker may start")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    path = tmp_path_factory.mktemp("engines") / "model.keras"
    tiny.text_classifier().save(path)
    return engines._Saved.of(path, "review", ["id", "review"], "frame")


def test_a_worker_loads_the_model_once_and_keeps_the_other_columns(saved, tiny, monkeypatch):
    calls, load = [], fe.load_model
    monkeypatch.setattr(fe, "load_model", lambda path: calls.append(path) or load(path))
    engines._loaded.cache_clear()
    rows = pa.table({"id": [7, 8, 9], "review": tiny.texts[:3]})
    for part in (rows, rows.slice(0, 0), rows.slice(1)):
        found = saved.predict(part)
        assert found.column_names == ["id", "review", "p_negative", "p_positive", "predicted"]
        assert (
            found.column("id").equals(part.column("id"))
            and found.schema.field("p_negative").type == pa.float32()
        )
        frame = saved.predict_frame(part.to_pandas())
        assert frame["predicted"].tolist() == found.column("predicted").to_pylist()
        assert list(frame) == found.column_names and frame["p_positive"].dtype == np.float32
    assert calls == [saved.path]
    found = saved.predict(rows)
    p = load(saved.path).predict(list(tiny.texts[:3]))
    np.testing.assert_allclose(found.select([2, 3]).to_pandas(), p, rtol=0, atol=1e-6)
    assert found.column("predicted").to_pylist() == [tiny.labels[k] for k in p.argmax(axis=1)]


def test_columns_that_are_one_to_spark_are_refused(saved):
    sentence = (
        "The columns 'Predicted' and 'predicted' of the predictions differ only in case, so that Spark can "
        "name neither; rename the column or the class, or set spark.sql.caseSensitive to true."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        engines.spark_predictions(Frame(["review", "Predicted"]), saved.path, text="review")
    with pytest.raises((AssertionError, ModuleNotFoundError)):  # it goes on to Spark
        engines.spark_predictions(Frame(["review", "Predicted"], "true"), saved.path, text="review")


def test_a_worker_with_other_files_at_the_path_refuses(saved, tiny, tmp_path):
    engines._loaded.cache_clear()
    other = engines._Saved(saved.path, "0" * 64, "review", saved.labels)
    with pytest.raises(ValueError, match="model.keras' holds another model for this worker than where the"):
        other.predict(pa.table({"review": ["good"]}))


def test_a_run_folder_is_known_by_its_model(saved, tmp_path):
    model = tmp_path / "run" / "model" / "model.keras"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    before = engines._sha256(str(tmp_path / "run"))
    (tmp_path / "run" / "report.html").write_text("written later")
    assert engines._sha256(str(tmp_path / "run")) == before
    model.write_bytes(b"Weights")
    assert engines._sha256(str(tmp_path / "run")) != before


def test_a_preset_folder_is_known_by_all_of_its_files(tmp_path):
    (tmp_path / "task.json").write_text("{}")
    before = engines._sha256(str(tmp_path))
    (tmp_path / "vocabulary.txt").write_text("good")
    assert engines._sha256(str(tmp_path)) != before


@pytest.mark.parametrize(
    "columns, sentence",
    [
        (["id"], "`frame` has no column 'review' of texts; it has 'id'."),
        (
            ["review", "p_positive"],
            "`frame` has a column 'p_positive' already, which the predictions would overwrite; rename it or "
            "leave it out.",
        ),
        (
            ["review", "predicted"],
            "`frame` has a column 'predicted' already, which the predictions would overwrite; rename it or "
            "leave it out.",
        ),
    ],
)
def test_columns_are_checked_before_a_worker_starts(saved, columns, sentence):
    with pytest.raises(ValueError) as raised:
        engines.spark_predictions(Frame(columns), saved.path, text="review")
    assert str(raised.value) == sentence


def test_a_model_of_numbers_is_refused(tiny, tmp_path):
    tiny.numeric_classifier().save(tmp_path / "numbers.keras")
    with pytest.raises(
        ValueError, match="numbers.keras' takes numbers, not texts; engines predict one class"
    ):
        engines.spark_predictions(Frame(["text"]), tmp_path / "numbers.keras")


def test_a_model_in_memory_is_refused(scorer):
    with pytest.raises(TypeError, match="^`model` must be a path; got .*Classifier"):
        engines.spark_predictions(Frame(["text"]), scorer)
