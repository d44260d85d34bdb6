import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.reports.html import report
from finetune_eval.traces.training import TrainingTrace

HOSTILE, BREAKOUT = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'  # as in conftest.py
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed where it should be."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def write(path, *args, **kwargs):
    return Page(report(*args, path, **kwargs).read_text(encoding="utf-8"))


@pytest.fixture
def everything(tmp_path, binary, training, data, prediction):
    path = tmp_path / "report.html"
    report(binary, path, training=training, data=data, prediction=prediction)
    return path.read_text(encoding="utf-8")


def test_sections_come_in_the_order_of_importance(everything):
    assert re.findall("<h2>(.*?)</h2>", everything) == [
        "Can it be trusted?",
        "The rows",
        "How good",
        "Each class",
        "Do the probabilities mean what they say?",
        "Where it is most wrong",
        "What these numbers do not cover",
        "The way of the data",
        "The training",
        "One prediction, step by step",
    ]


def test_page_asks_for_nothing_and_runs_nothing(everything):
    page = Page(everything)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"https?://(?!www\.w3\.org)", everything)
    assert not re.search(r"@import|url\((?!#|&)", everything)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,"))


def test_texts_of_users_stay_texts(everything):
    page = Page(everything)
    assert "img" not in page.tags
    for shown in (
        f"row 0 {HOSTILE} & {BREAKOUT}",  # a row of the largest loss
        f"read: reviews{HOSTILE}.csv",  # a step of the data
        BREAKOUT,  # its note
        f"good {HOSTILE}",  # the traced text
    ):
        assert shown in page.words


def test_hostile_labels_stay_labels(tmp_path, hostile):
    page = write(tmp_path / "r.html", hostile)
    assert not {"script", "img"} & set(page.tags)
    for label in hostile.labels:
        assert label in page.words


def test_ids_are_unique_and_every_reference_has_its_target(everything):
    ids = [value for name, value in Page(everything).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", everything)) <= set(ids)
    assert set(re.findall(r'href="#([^"]*)"', everything)) <= set(ids)


def test_numbers_are_those_of_the_evaluation(everything, binary):
    words = Page(everything).words
    # 80 of 100: Wilson 95 % is 0.7111 to 0.8666 (Wilson 1927, worked from the formula with z = 1.959964).
    assert words.count("0.800 0.711 to 0.867") >= 1
    assert "80 of 100 rows right: accuracy 0.800, 95 % interval 0.711 to 0.867." in words
    assert "Always answering 'negative' would give 0.500: the whole interval is above that." in words
    for estimate in binary.estimates.values():
        assert f"{estimate.value:.3f} {estimate.low:.3f} to {estimate.high:.3f}" in words
    assert "negative 50 (50.0 %), positive 50 (50.0 %)." in words
    assert "negative 40 10 positive 10 40" in words  # the confusion matrix
    assert binary.rows_hash in words
    # Said .1 and .9, happened .2 and .8: an error of .1, more than chance would show.
    assert "Miscalibrated: calibration error 0.100; perfect probabilities would show" in words


def test_wrong_rows_are_listed_and_right_ones_are_not(everything):
    rows = re.findall(r'<td class="text">row (\d+)', everything)
    assert len(rows) == 10
    assert all(int(row) % 5 == 0 for row in rows)


def test_warnings_are_in_the_trust_block(tmp_path):
    few = evaluate_predictions([0, 1, 1], [0.2, 0.9, 0.4], labels=["ham", "spam"], n_resamples=200)
    assert few.warnings
    page = write(tmp_path / "r.html", few)
    trusted = page.words.split("Can it be trusted?")[1].split("The rows")[0]
    for warning in few.warnings:
        assert warning in trusted
    assert "raised no warning" not in trusted


def test_comparison_is_in_the_verdict_and_has_its_section(tmp_path, binary):
    y = binary.predictions["label"].to_numpy()
    other = evaluate_predictions(
        y,
        np.full(100, 0.4),
        labels=binary.labels,
        texts=binary.predictions["text"].tolist(),
        n_resamples=200,
    )
    comparison = compare(binary, other)
    words = write(tmp_path / "r.html", binary, comparison=comparison).words
    verdict = " ".join(comparison.verdict.split())
    assert words.count(verdict) == 2
    assert "Against another model" in words


def test_many_classes_many_epochs_and_missing_metrics(tmp_path):
    rng = np.random.default_rng(0)
    labels = [f"class {k}" for k in range(15)]
    result = evaluate_predictions(
        np.arange(150) % 15, rng.dirichlet(np.ones(15), 150), labels=labels, n_resamples=200
    )
    trace = TrainingTrace.from_history({"loss": [float("nan"), 0.5], "val_f1": [0.1, float("nan")]})
    page = write(tmp_path / "r.html", result, training=trace)
    assert page.tags.count("svg") >= 2
    assert "nan" in page.words


@pytest.mark.parametrize("right", [0, 1])
def test_one_row(tmp_path, right):
    result = evaluate_predictions([right], [[0.3, 0.7]], labels=["a", "b"], n_resamples=200)
    words = write(tmp_path / "r.html", result).words
    assert f"{right} of 1 rows right" in words
    assert ("Where it is most wrong" in words) == (right == 0)


def test_weighted_rows_and_a_threshold(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    result = evaluate_predictions(
        y,
        np.clip(y * 0.4 + rng.random(60) * 0.6, 0, 1),
        labels=["no", "yes"],
        sample_weight=rng.random(60) + 0.5,
        threshold=0.3,
        n_resamples=200,
    )
    words = write(tmp_path / "r.html", result).words
    assert "weighted accuracy" in words
    assert "“yes” is predicted from a probability of 0.3 on." in words
    assert "Do the probabilities mean" not in words  # its intervals are of rows that count the same


def test_several_labels_a_row(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (50, 3))
    result = evaluate_predictions(
        y, rng.random((50, 3)), labels=["x", "y", "z"], task="multilabel", n_resamples=200
    )
    words = write(tmp_path / "r.html", result).words
    assert "several of which a row can have" in words
    assert "Confusion matrix" not in words
    assert "share of rows that are right in every label" in words


def test_same_input_gives_the_same_bytes(tmp_path, binary, training):
    pages = [report(binary, tmp_path / name, training=training).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_file_is_replaced_whole_or_not_at_all(tmp_path, binary):
    class Broken:
        verdict = "A is better."

        def __str__(self):
            raise RuntimeError("no")

    path = tmp_path / "deep" / "report.html"
    assert report(binary, path) == path
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        report(binary, path, comparison=Broken())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_reporting_imports_no_tensorflow_and_no_pyplot():
    code = (
        "import sys, finetune_eval.reports.html, finetune_eval.reports.card, finetune_eval.reports.console;"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
