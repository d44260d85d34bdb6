"""Spark, Ray and Dask in their local mode, with two workers: `make test-engines` runs them.

The gate (.ci/run) does not: Spark needs Java, and the engines are larger than this library. The name of this
file keeps them out of `make test`. Where an engine is missing its test fails, and is not skipped.
"""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import finetune_eval as fe
from finetune_eval import engines
from finetune_eval.evaluation.files import evaluate_files

LABELS = ("ham", "spam")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """5,000 rows in four files of different sizes; a column says which country they are of."""
    path = tmp_path_factory.mktemp("predictions")
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 5000)
    p = 1 / (1 + np.exp(-(random.normal(size=5000) * 1.5 + 2 * y - 1)))
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(5000)], "label": np.where(y, "spam", "ham")})
    frame = frame.assign(p_ham=1 - p, p_spam=p, country=random.choice(["DE", "FR"], 5000))
    for number, (start, end) in enumerate([(0, 1), (1, 1000), (1000, 1500), (1500, 5000)]):
        frame[start:end].to_parquet(path / f"{number}.parquet", index=False)
    return path


@pytest.fixture(scope="module")
def expected(folder):
    return evaluate_files(folder, metadata=["country"], workers=1)


def check(statistics, expected):
    """All but where the worst rows are found, which an engine does not tell, is equal to the bit."""
    result = statistics.finish()
    assert result.record() == expected.record()
    assert result.worst_rows.equals(expected.worst_rows.drop(columns=["file", "row"]))


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    yield session
    session.stop()
    del os.environ["PYSPARK_PYTHON"]


@pytest.fixture(scope="module")
def ray():
    import ray

    # Two actors predict, and reading the rows needs a CPU beside them.
    ray.init(num_cpus=3, include_dashboard=False, logging_level="error")
    yield ray
    ray.shutdown()


def test_spark_counts_where_the_rows_are(spark, folder, expected):
    frame = spark.read.parquet(str(folder))
    check(engines.spark_statistics(frame, LABELS, metadata=["country"]), expected)
    check(engines.spark_statistics(frame.repartition(7), LABELS, metadata=["country"]), expected)


def test_ray_counts_where_the_rows_are(ray, folder, expected):
    dataset = ray.data.read_parquet(str(folder))
    check(engines.ray_statistics(dataset, LABELS, metadata=["country"]), expected)
    check(engines.ray_statistics(dataset.repartition(5), LABELS, metadata=["country"]), expected)


def test_dask_counts_where_the_rows_are(folder, expected):
    import dask
    import dask.dataframe

    frame = dask.dataframe.read_parquet(str(folder))
    with dask.config.set(scheduler="processes", num_workers=2):
        check(engines.dask_statistics(frame, LABELS, metadata=["country"]), expected)


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny):
    """A saved model with a threshold and an abstention, and what it says of 150 texts in three files."""
    path = tmp_path_factory.mktemp("job")
    model = tiny.text_classifier()
    model.threshold, model.abstention = 0.6, 0.55
    model.save(path / "model.keras")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(tiny.texts[:7], 2)) for _ in range(150)]
    frame = pd.DataFrame({"id": [f"r{i:03}" for i in range(150)], "text": texts})
    frame["label"] = random.choice(tiny.labels, 150)
    p = model.predict(texts, verbose=0)
    (path / "texts").mkdir()
    for number, (start, end) in enumerate([(0, 1), (1, 90), (90, 150)]):
        frame[start:end].to_parquet(path / "texts" / f"{number}.parquet", index=False)
    return SimpleNamespace(
        path=path, model=path / "model.keras", texts=path / "texts", frame=frame, p=p,
        answers=[None if k < 0 else tiny.labels[k] for k in model.decide(p).tolist()],
        labels=tiny.labels, threshold=0.6,
    )  # fmt: skip


def check_predictions(found, job, statistics, name):
    """What workers predicted is what one process predicts, and its evaluation is that of one machine.

    Sums of float32 depend on which rows share a batch: probabilities are equal to 1e-6.
    """
    columns = ["p_negative", "p_positive"]
    found = found.sort_values("id", ignore_index=True).astype({"predicted": object})
    assert list(found.columns) == ["id", "text", "label", *columns, "predicted"]
    assert found["text"].tolist() == job.frame["text"].tolist()
    np.testing.assert_allclose(found[columns].to_numpy(np.float32), job.p, rtol=0, atol=1e-6)
    assert found["predicted"].where(found["predicted"].notna(), None).tolist() == job.answers
    assert None in job.answers and len(set(job.answers)) == 3
    path = job.path / f"{name}.parquet"
    found.to_parquet(path, index=False)
    of_files = evaluate_files(path, labels=job.labels, threshold=job.threshold, workers=1)
    assert statistics.finish().record() == of_files.record()
    of_one_machine = fe.evaluate_predictions(
        job.frame["label"], job.p, labels=job.labels, threshold=job.threshold
    )
    assert np.array_equal(of_files.confusion_matrix, of_one_machine.confusion_matrix)
    assert of_files.accuracy == of_one_machine.accuracy
    assert of_files["loss"].value == pytest.approx(of_one_machine["loss"].value, abs=1e-6)


def test_spark_predicts_where_the_rows_are(spark, job):
    rows = spark.read.parquet(str(job.texts)).repartition(5)  # of which some may be empty
    predicted = engines.spark_predictions(rows, job.model).cache()
    statistics = engines.spark_statistics(predicted, job.labels, threshold=job.threshold)
    check_predictions(predicted.toPandas(), job, statistics, "spark")


def test_columns_that_are_one_to_spark_are_refused(spark, job):
    rows = spark.read.parquet(str(job.texts)).withColumnRenamed("id", "Predicted")
    with pytest.raises(
        ValueError, match="^The columns 'Predicted' and 'predicted' of the predictions differ"
    ):
        engines.spark_predictions(rows, job.model)


def test_ray_predicts_where_the_rows_are(ray, job):
    rows = ray.data.read_parquet(str(job.texts)).repartition(4)
    predicted = engines.ray_predictions(rows, job.model, workers=2).materialize()
    statistics = engines.ray_statistics(predicted, job.labels, threshold=job.threshold)
    check_predictions(predicted.to_pandas(), job, statistics, "ray")


@pytest.mark.parametrize("scheduler", ["processes", "threads"])
def test_dask_predicts_where_the_rows_are(job, scheduler):
    import dask
    import dask.dataframe

    frame = dask.dataframe.read_parquet(str(job.texts), split_row_groups=True)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        predicted = engines.dask_predictions(frame, job.model)
        found = predicted.compute()
        statistics = engines.dask_statistics(predicted, job.labels, threshold=job.threshold)
    assert found.dtypes.to_dict() == predicted.dtypes.to_dict()
    check_predictions(found, job, statistics, f"dask-{scheduler}")


@pytest.mark.parametrize("name", ["spark", "ray", "dask"])
def test_a_frame_of_another_kind_is_refused(name):
    kinds = {"spark": "pyspark.sql", "ray": "ray.data", "dask": "dask.dataframe"}
    with pytest.raises(TypeError, match=rf"must be a {kinds[name]}\.Data\w+; got DataFrame\.$"):
        getattr(engines, f"{name}_statistics")(pd.DataFrame(), LABELS)
    with pytest.raises(TypeError, match=rf"must be a {kinds[name]}\.Data\w+; got DataFrame\.$"):
        getattr(engines, f"{name}_predictions")(pd.DataFrame(), "model.keras")
