import re

import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.thresholds import choose_threshold
from finetune_eval.reports.card import write_card
from finetune_eval.traces.training import TrainingTrace

HOSTILE, BREAKOUT = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'  # as in conftest.py


def test_card_of_everything(tmp_path, binary, training, data):
    text = write_card(
        binary, tmp_path / "MODEL_CARD.md", name="reviews <v1>", training=training, data=data
    ).read_text(encoding="utf-8")
    assert text.startswith(
        "# reviews &lt;v1&gt;\n\n"
        # Wilson 95 % of 80 in 100: 0.7111 to 0.8666
        "80 of 100 rows right: accuracy 0.800, 95 % interval 0.711 to 0.867. "
        "Always answering 'negative' would be right on 50 of 100 (0.500): the whole interval is above "
        "that.\n\n"
        "## Can it be trusted?\n\n- No check found a problem with how the model was evaluated; "
        "whether these rows were in its training was not checked.\n\n"
        "## The rows\n\n100 rows, 2 classes: 50 'negative' (50.0 %), 50 'positive' (50.0 %).\n\n"
        # 1.96^2 * 0.8 * 0.2 / 0.05^2 = 246 rows
        "With 100 rows the accuracy is known to about +-7.8 percentage points; +-5 would take about "
        "250 rows in all.\n\n"
        f"Hash of the rows and their labels: {binary.rows_hash}; evaluations of the same rows share "
        "it.\n\n"
        "## How good\n\n"
        "| Metric | Value | 95 % interval | Method of the interval |\n"
        "| --- | --- | --- | --- |\n"
        "| accuracy | 0.800 | 0.711 to 0.867 | Wilson |\n"
    )
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Can it be trusted?",
        "## The rows",
        "## How good",
        "## Each class",
        "## Against simple models on the same rows",
        "## What these rows could show",
        "## Do the probabilities mean what they say?",
        "## Where it is weak",
        "## How to read these numbers",
        "## Where the rows came from",
        "## The training",
    ]
    assert "3 epochs; best epoch 2, by val\\_loss.\n\nTraining values are averages" in text
    assert "\n\n1. first epoch: loss 0.65" in text
    assert "| split: test | 1,000 x 2 | 250 x 2 |  |  |" in text
    assert "A 95 % interval holds the score on all rows of this kind in about 95 of 100 such" in text


def test_labels_cannot_break_the_card(tmp_path, hostile):
    text = write_card(hostile, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "<" not in text and ">" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\\$x\\|y\\$ 電影" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "\\|y" in line]
    # An escaped bar does not end a cell: every row of a table has as many bars as its rule.
    assert rows
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_warnings_come_first(tmp_path):
    few = evaluate_predictions([0, 1, 1], [0.2, 0.9, 0.4], labels=["ham", "spam"], n_resamples=200)
    text = write_card(few, tmp_path / "card.md").read_text(encoding="utf-8")
    trusted = text.split("## Can it be trusted?\n\n")[1].split("\n\n")[0].splitlines()
    assert few.warnings
    assert trusted == [f"- {warning}" for warning in few.warnings]


def test_doubts_are_in_the_card(tmp_path, doubtful, seeds, prediction):
    text = write_card(doubtful, tmp_path / "card.md", seeds=seeds, prediction=prediction).read_text("utf-8")
    assert "<" not in text and "\n> good " in text  # of ">", only the quotation's own
    plain = text.replace("\\", "").replace("&lt;", "<").replace("&gt;", ">")
    # 96 of 120 rows right, 94 of 118 without the two possible leaks, 16 of 40 of the one source.
    assert "**Read with care: 2 of the rows may be in the training rows too; it is the best of 2" in plain
    assert (
        "- Possible leak: 2 of 120 test rows match one of 100 training rows (1 exact, 1 normalised; texts "
        "match from a similarity of 0.8 on" in plain
    )
    assert "| Metric | All 120 rows | The other 118 |" in plain
    assert re.search(r"^\| accuracy \| 0\.800 \[.*\] \| 0\.797 \[", plain, re.MULTILINE)
    assert f"| exact 1.00 | 0: {HOSTILE} " in plain
    assert "its accuracy is optimistic" in plain
    assert "| the majority class | 0.500 [" in plain
    assert "disagree on 20 % of the rows" in plain
    assert doubtful.calibration.verdict in plain
    assert re.search(
        re.escape(f"| source{BREAKOUT}: {BREAKOUT} | 40 | 0.400 [") + r".*\] \| 1\.000 \| weak \|$",
        plain,
        re.MULTILINE,
    )
    assert re.search(re.escape(f"| size: {HOSTILE} | 10 | ") + ".* few rows \\|$", plain, re.MULTILINE)
    assert "24 of all rows are possible label errors, unless the model is wrong:" in plain
    assert "## Other seeds\n\nAccuracy of 3 seeds: mean 0.8200" in plain
    assert f"4 tokens; {HOSTILE} 0.881, negative 0.119: **{HOSTILE}**." in plain


def test_card_says_where_the_threshold_was_chosen(tmp_path):
    chosen = choose_threshold([0, 0, 1, 1], [0.2, 0.3, 0.6, 0.9])  # half-way between .3 and .6
    result = evaluate_predictions(
        [0, 1] * 5, [0.1, 0.5] * 5, labels=["no", "yes"], threshold=chosen, n_resamples=200
    )
    text = write_card(result, tmp_path / "card.md").read_text(encoding="utf-8")
    assert (
        "## The threshold\n\n'yes' is predicted from a probability of 0.45 on, chosen for f1 on 4 rows."
        in text
    )


def test_what_is_not_known_has_no_heading(tmp_path, plain):
    text = write_card(plain, tmp_path / "card.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Can it be trusted?",
        "## The rows",
        "## How good",
        "## Each class",
        "## What these rows could show",
        "## Do the probabilities mean what they say?",
        "## How to read these numbers",
    ]


def test_comparison_follows_the_verdict(tmp_path, binary):
    same = compare(binary, binary)
    text = write_card(binary, tmp_path / "card.md", comparison=same).read_text(encoding="utf-8")
    assert text.split("\n\n")[2].replace("\\", "") == same.verdict
    section = text.split("## Against another model\n\n")[1].split("\n\n## ")[0]
    assert "| Model | accuracy |" in section and all(note in section.replace("\\", "") for note in same.notes)


@pytest.mark.parametrize("trace", [None, TrainingTrace()])
def test_no_training_no_section(tmp_path, binary, trace):
    text = write_card(binary, tmp_path / "card.md", training=trace).read_text(encoding="utf-8")
    assert "## The training" not in text


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
