import dataclasses
import errno
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from finetune_eval.evaluation.comparison import compare, minimum_detectable_difference
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.slices import possible_label_errors
from finetune_eval.evaluation.thresholds import choose_threshold
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
        "Against simple models on the same rows",
        "What these rows could show",
        "Do the probabilities mean what they say?",
        "Where it is weak",
        "How to read these numbers",
        "Where the rows came from",
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
    assert "Always answering 'negative' would be right on 50 of 100 (0.500): the whole interval is" in words
    for estimate in binary.estimates.values():
        assert f"{estimate.value:.3f} {estimate.low:.3f} to {estimate.high:.3f}" in words
    assert "100 rows, 2 classes: 50 'negative' (50.0 %), 50 'positive' (50.0 %)." in words
    assert "negative 40 10 positive 10 40" in words  # the confusion matrix
    assert binary.rows_hash in words
    # Said .1 and .9, happened .2 and .8: an error of .1, more than chance would show.
    assert "Over-confident: the probabilities are too near 0 and 1 (p = 0.0" in words
    assert "Calibration error (mean gap to what came true) 0.100; perfect probabilities would show" in words


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
    assert "No check found a problem" not in trusted


def section(page, heading, following):
    return page.words.split(f"{heading} ")[1].split(following)[0]


def test_what_is_doubtful_stands_beside_the_verdict(tmp_path, doubtful, binary):
    page = write(tmp_path / "r.html", doubtful)
    assert (
        "Read with care: 2 of the rows may be in the training rows too; it is the best of 2 models on these "
        "rows, which is optimistic if it was chosen for that."
    ) in page.words.split("Can it be trusted?")[0]
    assert "Read with care" not in write(tmp_path / "r.html", binary).words


def test_leaks_have_examples_and_the_scores_without(tmp_path, doubtful):
    page = write(tmp_path / "r.html", doubtful)
    trusted = section(page, "Can it be trusted?", "The rows")
    assert (
        "Possible leak: 2 of 120 test rows match one of 100 training rows (1 exact, 1 normalised; texts"
        in trusted
    )
    # 96 of 120, and 94 of 118 without the two, which are right: 0.7966.
    assert "all 120 rows the other 118 accuracy 0.800" in trusted
    assert re.search(r"accuracy 0\.800 0\.\d+ to 0\.\d+ 0\.797 0\.\d+ to", trusted)
    exact, normalised = doubtful.predictions["text"][:2]
    assert f"exact test row 0 {exact} train row 0 {exact}" in trusted
    assert f"normalised test row 1 {normalised} train row 1 {normalised.upper()}" in trusted
    assert not {"script", "img"} & set(page.tags)


def test_looks_are_counted_and_optimistic_when_so(tmp_path, doubtful):
    trusted = section(write(tmp_path / "r.html", doubtful), "Can it be trusted?", "The rows")
    assert doubtful.looks.optimistic
    # Best of two: 0.56419 standard errors (Harter 1961) of sqrt(.8 * .2 / 120) = .03651, so 2.06 points, were
    # their errors independent. One errs in 60 rows, the other in 24 of these: phi = (.2 - .5 * .2) / sqrt(.5
    # * .5 * .2 * .8) = .5, so 2.06 * sqrt(.5) = 1.46; measured on 30 parts, phi is off by about .14.
    assert doubtful.looks.luck == pytest.approx(0.0146, rel=0.35)
    assert "were looked at 2 times" in trusted
    assert (
        "its accuracy is optimistic. If the 2 models were equally good, the best of them would look about "
        f"{100 * doubtful.looks.luck:.1f} points too good by luck (their errors correlate by" in trusted
    )


def test_nothing_found_is_said_and_is_no_warning(tmp_path):
    options = {"labels": ["no", "yes"], "texts": ["a fine film", "two dull hours", "so so", "never again"]}
    clean = evaluate_predictions(
        [1, 0, 1, 0] * 1,
        [0.9, 0.2, 0.6, 0.1],
        train=(["what a waste", "a joy from start to end"], [0, 1]),
        lockbox=tmp_path / "lockbox",
        n_resamples=200,
        **options,
    )
    source = report(clean, tmp_path / "r.html").read_text(encoding="utf-8")
    warned = re.search('<ul class="warnings">.*?</ul>', source, re.DOTALL).group()
    trusted = section(Page(source), "Can it be trusted?", "The rows")
    for sentence in (
        "No possible leak found: 4 test rows match none of 2 training rows (texts match from a "
        "similarity of 0.8 on; a paraphrase "
        "would not be noticed).",
        "First recorded look at these test rows.",
    ):
        assert sentence in trusted and sentence not in warned
    assert "With and without" not in trusted


def test_duplicates_and_contradictions_are_in_the_trust_block(tmp_path):
    twice = evaluate_predictions(
        [0, 1, 1], [0.2, 0.9, 0.4], labels=["no", "yes"], texts=["same", "same", "other"], n_resamples=200
    )
    trusted = section(write(tmp_path / "r.html", twice), "Can it be trusted?", "The rows")
    assert "1 of 3 rows repeats the text of another row" in trusted
    assert "1 of the repeated texts stands there with different labels" in trusted


def test_simple_models_are_compared(tmp_path, doubtful):
    words = section(
        write(tmp_path / "r.html", doubtful), "Against simple models on the same rows", "What these rows"
    )
    # 96 of 120 against 60 of 120.
    assert re.search(r"the majority class 0\.500 0\.\d+ to 0\.\d+ \+30\.0 points", words)
    assert "TF-IDF + logistic regression" in words
    for baseline in doubtful.baselines:
        assert baseline.verdict in words


def test_detectable_difference(tmp_path, doubtful):
    # 24 of 120 rows are wrong: disagreement .2.
    points = 100 * minimum_detectable_difference(0.2, 120)
    words = section(write(tmp_path / "r.html", doubtful), "What these rows could show", "Do the prob")
    assert f"Another model that is about {points:.1f} points better or worse in accuracy is told" in words
    assert "these 120 rows with 80 % probability (if the two disagree on 20 % of the rows)" in words


def test_calibration_is_that_of_the_evaluation_with_its_parts(tmp_path, doubtful):
    words = section(write(tmp_path / "r.html", doubtful), "what they say?", "Where it is weak")
    assert doubtful.calibration.verdict in words
    # Each row is off by .1 (right) or .9 (wrong): .8 * .01 + .2 * .81 = .170.
    # Said .9, true .8: .1 ** 2 = .010.
    assert "Brier score 0.170 = reliability 0.010" in words


def test_threshold_says_where_it_was_chosen(tmp_path):
    chosen = choose_threshold([0, 0, 1, 1], [0.2, 0.3, 0.6, 0.9])  # half-way between .3 and .6
    result = evaluate_predictions(
        [0, 1] * 5, [0.1, 0.5] * 5, labels=["no", "yes"], threshold=chosen, n_resamples=200
    )
    words = write(tmp_path / "r.html", result).words
    assert "The threshold 'yes' is predicted from a probability of 0.45 on, chosen for f1 on 4 rows." in words


def test_weak_parts_are_marked_and_small_ones_grey(tmp_path, doubtful):
    source = report(doubtful, tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(source)
    words = section(page, "Parts of the rows", "The surest mistakes")
    # 16 of 40 right, and 80 of the 80 others.
    assert re.search(
        re.escape(f"{BREAKOUT} source{BREAKOUT} weak 40 0.400 ") + r"0\.\d+ to 0\.\d+ 1\.000", words
    )
    assert f"{HOSTILE} size few 10 1.000" in words
    grey = re.findall(r'<tr class="faded">.*?</tr>', source, re.DOTALL)
    assert len(grey) == sum(part.small for part in doubtful.slices if part.column != "word" or part.weak)
    assert not {"script", "img"} & set(page.tags)


def test_possible_label_errors_among_the_mistakes(tmp_path, doubtful, hostile):
    # Every wrong row has .9 for the other class, more than the mean of .8 * .9 + .2 * .1 = .74: all 24.
    words = write(tmp_path / "r.html", doubtful).words
    assert (
        "Confident learning lists 24 of all rows as possible label errors; all of these are among them."
        in words
    )
    assert f"{HOSTILE} " in section(write(tmp_path / "r.html", doubtful), "The surest mistakes", "What these")

    suspects = set(possible_label_errors(hostile, n=90)["id"])
    wrong = hostile.predictions.query("label != prediction").nlargest(10, "loss")
    marks = int(wrong["id"].isin(suspects).sum())
    source = report(hostile, tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"lists {len(suspects)} of all rows" in " ".join(source.split())
    assert source.count('<small class="suspect">') == (marks if marks < 10 else 0)


def test_classes_taken_for_each_other(tmp_path, binary):
    # Of 30 rows of a class 6 go to the next one; of c to a none.
    y = np.repeat([0, 1, 2], 30)
    guess = np.where((np.arange(90) % 5 == 0) & (y < 2), y + 1, y)
    p = np.full((90, 3), 0.1)
    p[np.arange(90), guess] = 0.8
    result = evaluate_predictions(y, p, labels=["a", BREAKOUT, "c"], n_resamples=200)
    words = section(write(tmp_path / "r.html", result), "Classes taken for each other", "The surest")
    assert f"a {BREAKOUT} 6 0.200" in words
    assert f"{BREAKOUT} c 6 0.200" in words
    assert words.count(" 0.200 ") == 2
    assert (
        "Classes taken for" not in write(tmp_path / "r.html", binary).words
    )  # two classes: the matrix says it


def test_seeds_have_their_section(tmp_path, plain, seeds):
    words = write(tmp_path / "r.html", plain, seeds=seeds).words
    assert "Other seeds Accuracy of 3 seeds: mean 0.8200 [0.7700, 0.8700]" in words
    assert "Every run: 0.8000, 0.8200, 0.8400." in words


def test_what_is_not_known_has_no_section(tmp_path, plain):
    source = report(plain, tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", source) == [
        "Can it be trusted?",
        "The rows",
        "How good",
        "Each class",
        "What these rows could show",
        "Do the probabilities mean what they say?",
        "How to read these numbers",
    ]


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
    assert verdict in words.split("Can it be trusted?")[0]
    section = words.split("Against another model ")[1].split("Against simple models")[0]
    assert "A 0.8000 B 0.5000" in section
    assert "A against B: better +30.0 points" in section
    assert comparison.pairs[0].difference.method in section
    assert all(note in section for note in comparison.notes)


def test_three_models_and_the_declared_metric(tmp_path, doubtful):
    y = doubtful.predictions["label"].to_numpy()
    texts = doubtful.predictions["text"].tolist()
    others = [
        evaluate_predictions(y, p, labels=["no", "yes"], texts=texts, baselines=False, n_resamples=200)
        for p in (np.full(120, 0.4), np.linspace(0.01, 0.99, 120))
    ]
    comparison = compare(doubtful, *others, metric="loss", names=("a", HOSTILE, "c"), n_resamples=200)
    page = write(tmp_path / "r.html", doubtful, comparison=comparison)
    assert "script" not in page.tags
    section = page.words.split("Against another model ")[1].split("Against simple models")[0]
    assert "p after Holm" in section
    for names in (f"a against {HOSTILE}", "a against c", f"{HOSTILE} against c"):
        assert names in section
    assert " points" not in section  # a loss is not a share
    # The declared metric comes first.
    assert page.words.split("How good ")[1].startswith(
        "metric value, 95 % interval method of the interval log-loss"
    )


def test_many_classes_many_epochs_and_missing_metrics(tmp_path):
    rng = np.random.default_rng(0)
    labels = [f"class {k}" for k in range(15)]
    result = evaluate_predictions(
        np.arange(150) % 15, rng.dirichlet(np.ones(15), 150), labels=labels, n_resamples=200
    )
    trace = TrainingTrace.from_history({"loss": [float("nan"), 0.5], "val_f1": [0.1, float("nan")]})
    first = dataclasses.replace(trace.epochs[0], val_f1_interval=(0.04, 0.21))
    trace = dataclasses.replace(trace, epochs=(first, trace.epochs[1]))
    page = write(tmp_path / "r.html", result, training=trace)
    assert page.tags.count("svg") >= 2
    assert "nan" in page.words
    assert "valid 0.1000 [0.040, 0.210]" in page.words
    assert "Brackets hold the 95 % interval of the F1 on the validation rows." in page.words


@pytest.mark.parametrize("right", [0, 1])
def test_one_row(tmp_path, right):
    result = evaluate_predictions([right], [[0.3, 0.7]], labels=["a", "b"], n_resamples=200)
    words = write(tmp_path / "r.html", result).words
    assert f"{right} of 1 row right" in words
    assert ("The surest mistakes" in words) == (right == 0)


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
    assert "'yes' is predicted from a probability of 0.3 on. It is honest only if" in words
    assert "Do the probabilities mean" in words


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
    assert "Always answering" not in words
    assert "What these rows could show" not in words


def test_same_input_gives_the_same_bytes(tmp_path, binary, training):
    pages = [report(binary, tmp_path / name, training=training).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("stage", ["finetune_eval.reports.html._render", "finetune_eval._files._flush"])
def test_file_is_replaced_whole_or_not_at_all(tmp_path, binary, monkeypatch, stage):
    def fails(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "deep" / "report.html"
    assert report(binary, path) == path
    before = path.read_bytes()
    monkeypatch.setattr(stage, fails)
    with pytest.raises(OSError, match="No space left on device"):
        report(binary, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_reporting_imports_no_tensorflow_and_no_pyplot():
    code = (
        "import sys, finetune_eval.reports.html, finetune_eval.reports.card, finetune_eval.reports.console;"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_detectable_difference_of_a_model_without_errors(tmp_path):
    y = np.arange(500) % 2
    result = evaluate_predictions(
        y, np.where(y == 1, 0.9, 0.1), labels=["no", "yes"], baselines=False, n_resamples=200
    )
    # As if one row of the 500 were wrong; but a difference of 1.6 points takes a disagreement of as much.
    points = 100 * minimum_detectable_difference(1 / 500, 500)
    words = write(tmp_path / "r.html", result).words
    assert f"about {points:.1f} points worse in accuracy" in words
    assert f"disagree on {points:.1f} % of the rows" in words
