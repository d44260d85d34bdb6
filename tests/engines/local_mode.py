"""Spark, Ray and Dask in their local mode, with two workers: `make test-engines` runs them.

The gate (.ci/run) does not: Spark needs Java, and the engines are larger than this library. The name of this
file keeps them out of `make test`. Where an engine is missing its test fails, and is not skipped.
"""

import sys

import numpy as np
import pandas as pd
import pytest

from finetune_eval.evaluation import engines
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


def test_spark_counts_where_the_rows_are(folder, expected, monkeypatch):
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.read.parquet(str(folder))
        check(engines.spark_statistics(frame, LABELS, metadata=["country"]), expected)
        check(engines.spark_statistics(frame.repartition(7), LABELS, metadata=["country"]), expected)
    finally:
        session.stop()


def test_ray_counts_where_the_rows_are(folder, expected):
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    try:
        dataset = ray.data.read_parquet(str(folder))
        check(engines.ray_statistics(dataset, LABELS, metadata=["country"]), expected)
        check(engines.ray_statistics(dataset.repartition(5), LABELS, metadata=["country"]), expected)
    finally:
        ray.shutdown()


def test_dask_counts_where_the_rows_are(folder, expected):
    import dask
    import dask.dataframe

    frame = dask.dataframe.read_parquet(str(folder))
    with dask.config.set(scheduler="processes", num_workers=2):
        check(engines.dask_statistics(frame, LABELS, metadata=["country"]), expected)


@pytest.mark.parametrize("name", ["spark", "ray", "dask"])
def test_a_frame_of_another_kind_is_refused(name):
    kinds = {"spark": "pyspark.sql", "ray": "ray.data", "dask": "dask.dataframe"}
    with pytest.raises(TypeError, match=rf"must be a {kinds[name]}\.Data\w+; got DataFrame\.$"):
        getattr(engines, f"{name}_statistics")(pd.DataFrame(), LABELS)
