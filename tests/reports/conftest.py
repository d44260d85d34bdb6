import numpy as np
import pytest

from finetune_eval.data.ledger import DataTrace, Step
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.records import Estimate
from finetune_eval.evaluation.seeds import SeedSummary
from finetune_eval.traces.prediction import LayerStep, PredictionTrace
from finetune_eval.traces.training import TrainingTrace

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = '"><img src=x onerror=alert(2)>'


@pytest.fixture(scope="session")
def binary():
    """100 rows, 80 right: 40 + 40 of 50 each; probabilities .1 and .9."""
    y = np.repeat([0, 1], 50)
    p = np.where(np.arange(100) % 5 == 0, np.where(y == 1, 0.1, 0.9), np.where(y == 1, 0.9, 0.1))
    texts = [f"row {i} {HOSTILE} & {BREAKOUT}" for i in range(100)]
    return evaluate_predictions(y, p, labels=["negative", "positive"], texts=texts, n_resamples=200)


@pytest.fixture(scope="session")
def hostile():
    """Three classes with names that would break a page, a formula or a table."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    p = rng.dirichlet(np.ones(3), 90)
    return evaluate_predictions(y, p, labels=[HOSTILE, BREAKOUT, "$x|y$ 電影"], n_resamples=200)


@pytest.fixture(scope="session")
def doubtful(tmp_path_factory):
    """120 rows, 96 right, with everything that can be said against them, in texts that would break a page.

    Rows 96 to 119 are wrong. Rows 0 and 1 are training rows too (the second in capitals), and right. Of the
    40 rows from 80 on, whose source is BREAKOUT, 16 are right; of the other 80, all. Ten rows are HOSTILE.
    It is the better of two models that the lockbox saw.
    """
    rng = np.random.default_rng(0)

    def sentence():
        return " ".join("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 7)) for _ in range(9))

    rows = np.arange(120)
    y = rows % 2
    texts = [f"{HOSTILE} {sentence()}" if i in (0, 96) else sentence() for i in rows]
    train = [texts[0], texts[1].upper(), *(sentence() for _ in range(98))]
    options = {
        "labels": ["no", "yes"],
        "texts": texts,
        "train": (train, np.repeat([0, 1], [60, 40])),  # "no" is the commoner
        "metadata": {
            f"source{BREAKOUT}": np.where(rows < 80, "critic", BREAKOUT),
            "size": np.where(rows < 10, HOSTILE, "usual"),
        },
        "lockbox": tmp_path_factory.mktemp("lockbox"),
        "n_resamples": 200,
    }
    evaluate_predictions(y, np.where((rows < 60) == (y == 1), 0.8, 0.2), **options)
    return evaluate_predictions(y, np.where((rows < 96) == (y == 1), 0.9, 0.1), **options)


@pytest.fixture(scope="session")
def plain():
    """Nothing but eight right rows: no texts, no baselines."""
    return evaluate_predictions(
        [0, 1] * 4, [0.1, 0.9] * 4, labels=["no", "yes"], baselines=False, n_resamples=200
    )


@pytest.fixture(scope="session")
def seeds():
    return SeedSummary(
        "accuracy",
        (0.80, 0.82, 0.84),
        Estimate(0.82, 0.77, 0.87, "Student's t over seeds"),
        0.02,
        (0.82, 0.83, 0.834),
        0.85,
        120,
    )


@pytest.fixture(scope="session")
def training():
    return TrainingTrace.from_history(
        {
            "loss": [0.65, 0.48, 0.35],
            "accuracy": [0.60, 0.75, 0.82],
            "val_loss": [0.60, 0.52, 0.55],
            "val_accuracy": [0.66, 0.74, 0.745],
        },
        val_rows=200,
    )


@pytest.fixture(scope="session")
def data():
    return DataTrace(
        (
            Step("read", f"reviews{HOSTILE}.csv", 1000, 5, 1000, 2, hash="ba7816bf8f01cfea"),
            Step("split", "train", 1000, 2, 750, 2, note=BREAKOUT),
            Step("split", "test", 1000, 2, 250, 2),
        )
    )


@pytest.fixture(scope="session")
def prediction():
    return PredictionTrace(
        text=f"good {HOSTILE}",
        tokens=("[CLS]", "good", HOSTILE, "[SEP]"),
        token_ids=(101, 2204, 1, 102),
        embedding=LayerStep("embeddings", (4, 8), 1.0),
        layers=(LayerStep(f"layer{BREAKOUT}", (4, 8), 2.0, 0.5, 0.01), LayerStep("last", (4, 8), 2.0)),
        pooling="mean of the tokens",
        pooled_shape=(8,),
        logits=(-1.0, 1.0),
        probabilities=(0.119, 0.881),
        labels=("negative", HOSTILE),
        answer=HOSTILE,
        check=0.0,
        threshold=0.5,
    )
