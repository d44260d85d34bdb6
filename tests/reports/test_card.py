import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.reports.card import write_card
from finetune_eval.traces.training import TrainingTrace


def test_card_of_everything(tmp_path, binary, training, data):
    text = write_card(
        binary, tmp_path / "MODEL_CARD.md", name="reviews <v1>", training=training, data=data
    ).read_text(encoding="utf-8")
    assert text.startswith(
        "# reviews &lt;v1&gt;\n\n"
        # Wilson 95 % of 80 in 100: 0.7111 to 0.8666
        "80 of 100 rows right: accuracy 0.800, 95 % interval 0.711 to 0.867. "
        "Always answering 'negative' would give 0.500: the whole interval is above that.\n\n"
        "## Metrics\n\n"
        "| Metric | Value | 95 % interval | Interval by |\n"
        "| --- | --- | --- | --- |\n"
        "| accuracy | 0.800 | 0.711 to 0.867 | Wilson |\n"
    )
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Metrics",
        "## Each class",
        "## Evaluation data",
        "## Where the rows came from",
        "## Training",
        "## Caveats",
    ]
    assert f"100 rows; hash of rows and labels `{binary.rows_hash}`." in text
    assert "3 epochs; best epoch 2, by val\\_loss.\n\n1. first epoch: loss 0.65" in text
    assert "| split: test | 1,000 x 2 | 250 x 2 |  |  |" in text
    assert "The intervals (95 %) cover the choice of these 100 rows only" in text


def test_labels_cannot_break_the_card(tmp_path, hostile):
    text = write_card(hostile, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "<" not in text and ">" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\\$x\\|y\\$ 電影" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "\\|y" in line]
    # An escaped bar does not end a cell: what is left are the six bars of five cells.
    assert [row.replace("\\|", "").count("|") for row in rows] == [6]


def test_warnings_are_caveats(tmp_path):
    few = evaluate_predictions([0, 1, 1], [0.2, 0.9, 0.4], labels=["ham", "spam"], n_resamples=200)
    text = write_card(few, tmp_path / "card.md").read_text(encoding="utf-8")
    caveats = text.split("## Caveats\n\n")[1].splitlines()
    assert few.warnings
    assert caveats[: len(few.warnings)] == [f"- {warning}" for warning in few.warnings]


def test_comparison_follows_the_verdict(tmp_path, binary):
    same = compare(binary, binary)
    text = write_card(binary, tmp_path / "card.md", comparison=same).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].replace("\\", "") == same.verdict


@pytest.mark.parametrize("trace", [None, TrainingTrace()])
def test_no_training_no_section(tmp_path, binary, trace):
    text = write_card(binary, tmp_path / "card.md", training=trace).read_text(encoding="utf-8")
    assert "## Training" not in text


def test_many_classes_are_cut_and_counted(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    result = evaluate_predictions(
        np.arange(400) % 40,
        rng.dirichlet(np.ones(40), 400),
        labels=[f"c{k}" for k in range(40)],
        n_resamples=200,
    )
    text = write_card(result, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "10 more classes have a higher F1." in text
