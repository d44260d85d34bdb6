"""What a type checker knows of the public names: read by `make check` alone, never run."""

from typing import assert_type

import finetune_eval as fe
from finetune_eval.data.splits import Dataset, Rows
from finetune_eval.evaluation.comparison import Comparison
from finetune_eval.models.classifier import Classifier
from finetune_eval.training.fine_tune import FineTuneResult


def a_user_program(texts: list[str], labels: list[str]) -> None:
    dataset = fe.load_dataset("reviews.csv", text="review", test=200)
    assert_type(dataset, Dataset)
    assert_type(dataset.test, Rows)
    model = fe.build_model(labels=dataset.labels)
    assert_type(model, Classifier)
    run = fe.fine_tune(model, texts, labels, epochs=2)
    assert_type(run, FineTuneResult)
    assert_type(run.trace, fe.TrainingTrace)
    result = fe.evaluate(model, texts, labels, train=(texts, labels))
    assert_type(result, fe.Evaluation)
    assert_type(result.accuracy, float)
    assert_type(fe.compare(result, result, metric="f1"), Comparison)
    fe.evaluate(model, texts, labels, confidnce=0.9)  # type: ignore[call-arg]  # a keyword that is not there
