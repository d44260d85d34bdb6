import html

import numpy as np
import pytest
from rich.cells import cell_len

from finetune_eval.evaluation.evaluate import evaluate_predictions


def many_labels(n=200):
    random = np.random.default_rng(5)
    labels = ["a rather long name", "名前" * 9, "\x1b[31mred", "short", "\u202eevil"]
    return evaluate_predictions(
        random.integers(0, 5, n), random.dirichlet([1] * 5, n), labels=labels,
        texts=[f"text {i} of many" for i in range(n)], metadata={"product": ["x", "y"] * (n // 2)},
    )  # fmt: skip


@pytest.mark.parametrize("columns", [40, 60, 72, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = str(many_labels())
    # Below 60 columns the tables of scores stay as wide as their numbers are.
    assert max(map(cell_len, shown.split("\n"))) <= max(60, min(columns, 80))
    assert "\x1b" not in shown and "\u202e" not in shown


def test_a_notebook_shows_the_text_and_a_console_one_line():
    result = many_labels()
    assert repr(result).startswith("<Evaluation of 200 rows, 5 classes: accuracy 0.")
    assert len(repr(result)) < 200
    assert result._repr_html_() == f"<pre>{html.escape(str(result))}</pre>"
