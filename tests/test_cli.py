"""The command line, without a model: usage, exit codes, one line for each wrong argument."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune_eval import cli


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


COMMANDS = (
    *("demo", "train", "evaluate", "evaluate-files", "compare", "predict", "leaks", "drift", "report"),
    "trace",
)


def test_help_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"Example: finetune-eval {command}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["evaluat"], 2, "No such command 'evaluat'."),
        (["evaluate"], 2, "Missing argument 'path'."),
        (["demo", "--epochs", "many"], 2, "Invalid value for '--epochs': Input should be a valid integer"),
        (["predict", "nowhere"], 2, "Invalid value for TEXTS: give at least one text, or --file."),
        (
            ["predict", "nowhere", "a text"],
            1,
            "'nowhere' does not exist; pass a run folder or a .keras file.",
        ),
        (["trace", "nowhere", "a"], 1, "'nowhere' does not exist; pass a run folder or a .keras file."),
        (["evaluate", "nowhere"], 1, "'nowhere' does not exist; pass a run folder or a file of predictions."),
        (["report", "nowhere"], 1, "'nowhere' does not exist; pass a run folder or a file of predictions."),
    ],
)
def test_a_wrong_argument_is_one_line(capsys, arguments, code, line):
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert line in err


def test_a_missing_file_is_one_line(capsys, tmp_path):
    code, out, err = run(capsys, "train", str(tmp_path / "no.csv"))
    assert (code, out) == (1, "")
    assert "no.csv" in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")


def test_help_does_not_import_tensorflow():
    code = (
        "import sys; from finetune_eval import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.fixture
def predictions(tmp_path):
    """Saved predictions of two models on the same 60 rows, the second right more often."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 60)
    paths = []
    for name, noise in (("a", 1.5), ("b", 0.5)):
        logit = (2 * truth - 1) + noise * random.normal(size=60)
        p = 1 / (1 + np.exp(-logit))
        lines = ["label,p_bad,p_good"]
        lines += [f"{('bad', 'good')[t]},{1 - q!r},{q!r}" for t, q in zip(truth, p.tolist(), strict=True)]
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(str(path))
    return paths


def test_evaluate_scores_saved_predictions(capsys, predictions):
    code, out, err = run(capsys, "evaluate", predictions[1])
    assert (code, err) == (0, "")
    assert "of 60 rows right" in out
    assert max(map(len, out.splitlines())) <= 80


def test_evaluate_json_is_json(capsys, predictions):
    code, out, _ = run(capsys, "evaluate", predictions[1], "--json")
    assert code == 0
    assert json.loads(out)["n"] == 60


def test_compare_says_which_is_better(capsys, predictions):
    code, out, _ = run(capsys, "compare", *predictions)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_compare_json_is_the_comparison(capsys, predictions):
    code, out, err = run(capsys, "compare", *predictions, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    scores = [json.loads(run(capsys, "evaluate", path, "--json")[1]) for path in predictions]
    assert found["values"] == [score["estimates"]["accuracy"]["value"] for score in scores]
    (pair,) = found["pairs"]
    assert pair["difference"]["value"] == pytest.approx(found["values"][0] - found["values"][1])
    assert found["verdict"] in " ".join(run(capsys, "compare", *predictions)[1].split())


def test_report_writes_a_page(capsys, predictions, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, "report", predictions[0], "--output", str(page))
    assert code == 0
    assert str(page) in out and "<html" in page.read_text(encoding="utf-8")


def test_leaks_finds_the_same_text_on_both_sides(capsys, tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text\none two three four\nfive six seven\n", encoding="utf-8")
    test.write_text("text\nOne  two three FOUR\nnothing alike here\n", encoding="utf-8")
    code, out, _ = run(capsys, "leaks", str(train), str(test))
    assert code == 0
    assert "possible leak" in out.lower()


def test_drift_tells_new_texts_from_old_ones(capsys, tmp_path):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(
        "review\n" + "".join(f"a film about {k} good things\n" for k in range(40)), encoding="utf-8"
    )
    new.write_text(
        "review\n" + "".join(f"a phone with {k} good parts\n" for k in range(40)), encoding="utf-8"
    )
    code, out, _ = run(capsys, "drift", str(old), str(new), "--text", "review", "--json")
    found = json.loads(out)
    assert code == 0 and found["drifted"] and found["p_value"] == 1 / 500 and "phone" in found["new_terms"]
    new.write_text("review\na phone\n", encoding="utf-8")
    code, _, err = run(capsys, "drift", str(old), str(new), "--text", "review")
    assert code == 1 and "error: 'new' must have at least 30 rows to be compared; got 1." in err


def test_leaks_takes_words_for_words_and_no_text_for_none(capsys, tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.tsv"
    train.write_text("text\nNA\na good film\n", encoding="utf-8")
    test.write_text("text\nnull\na bad book\n", encoding="utf-8")
    code, out, _ = run(capsys, "leaks", str(train), str(test), "--json")
    assert (code, json.loads(out)["possible_leaks"]) == (0, [])
    test.write_text('text\tid\n""\t1\na bad book\t2\n', encoding="utf-8")
    code, out, err = run(capsys, "leaks", str(train), str(test))
    assert (code, out) == (1, "")
    assert "has no text in 1 of 2 rows of column 'text' (first: row 0" in err


def test_compare_puts_the_classes_of_files_into_one_order(capsys, predictions, tmp_path):
    swapped = tmp_path / "swapped.csv"
    lines = [line.split(",") for line in Path(predictions[1]).read_text(encoding="utf-8").splitlines()]
    swapped.write_text("".join(f"{a},{c},{b}\n" for a, b, c in lines), encoding="utf-8")
    _, straight, _ = run(capsys, "compare", *predictions)
    code, out, err = run(capsys, "compare", predictions[0], str(swapped))
    assert (code, err) == (0, "")
    assert " ".join(out.replace("swapped", "b").split()) == " ".join(straight.split())


def test_quotes_can_be_ordinary_characters(capsys, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text('text,label\n"a film,x\nb film,y\n', encoding="utf-8")
    code, _, err = run(capsys, "leaks", str(rows), str(rows))
    assert code == 1 and err.endswith("or pass --no-quoted if quotes are ordinary characters.\n")
    code, out, _ = run(capsys, "leaks", str(rows), str(rows), "--no-quoted", "--json")
    assert code == 0 and json.loads(out)["n_test"] == 2


def test_every_command_says_in_a_line_what_it_does(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, "--help")
    lines = out.partition("\nCommands:\n")[2].splitlines()
    assert len(lines) == 13 and all(line.endswith(".") and "..." not in line for line in lines)


def test_without_a_command_the_help_is_printed_as_it_is(capsys):
    code, _, err = run(capsys)
    assert code == 2
    assert "\n  evaluate " in err and not err.startswith("error")


def test_new_rows_need_a_model_and_not_predictions(capsys, predictions):
    code, _, err = run(capsys, "evaluate", predictions[0], "--data", predictions[0])
    assert (code, err) == (1, f"error: {predictions[0]!r} is no model; pass a run folder or a .keras file.\n")


def test_a_file_is_read_as_the_options_say(capsys, predictions, tmp_path):
    rows = [line.split(",") for line in Path(predictions[1]).read_text(encoding="utf-8").splitlines()]
    one = tmp_path / "one.csv"
    one.write_text("\n".join(["label;probability", *(f"{a};{c}" for a, _, c in rows[1:])]), encoding="utf-16")
    options = ["--delimiter", ";", "--encoding", "utf-16"]
    code, _, err = run(capsys, "evaluate", str(one), *options)
    assert code == 1 and "--labels is needed when `y_true` holds class names" in err
    code, out, err = run(capsys, "evaluate", str(one), *options, "--labels", "bad,good", "--json")
    assert (code, err) == (0, "")
    _, plain, _ = run(capsys, "evaluate", predictions[1], "--json")
    assert json.loads(out)["estimates"]["f1"] == json.loads(plain)["estimates"]["f1"]
    _, strict, _ = run(capsys, "evaluate", predictions[1], "--threshold", "0.9", "--json")
    right = [float(c) >= 0.9 for a, _, c in rows[1:] if a == "good"]  # recall by hand
    assert json.loads(strict)["estimates"]["recall"]["value"] == sum(right) / len(right)


def test_answers_without_probabilities(capsys, tmp_path):
    answers, tuned = tmp_path / "llm.csv", tmp_path / "tuned.csv"
    rows = [("good", "good"), ("bad", "Bad"), ("bad", "bad"), ("good", "")] * 10
    answers.write_text("label,predicted\n" + "".join(f"{y},{word}\n" for y, word in rows), encoding="utf-8")
    lines = "".join(f"{y},{0.2 if y == 'good' else 0.8},{0.8 if y == 'good' else 0.2}\n" for y, _ in rows)
    tuned.write_text("label,p_bad,p_good\n" + lines, encoding="utf-8")
    code, out, err = run(capsys, "evaluate", str(answers), "--labels", "bad,good")
    assert (code, err) == (0, "") and out.startswith("20 of 40 rows right: accuracy 0.500,")
    assert "no answer (10) and 'Bad' (10)" in " ".join(out.split())
    code, out, err = run(capsys, "evaluate", str(answers), "--json")
    assert json.loads(out)["no_label"]["counts"] == [10.0, 10.0]
    code, out, err = run(capsys, "evaluate", str(answers), "--metrics", "npv, f2", "--json")
    assert {"npv", "f2"} <= set(json.loads(out)["estimates"])
    code, out, err = run(capsys, "evaluate", str(answers), "--metrics", "f3")
    assert code == 1 and err.startswith("error: --metrics must be one of")
    code, out, err = run(capsys, "compare", str(tuned), str(answers), "--metric", "mcc")
    assert (code, err) == (0, "") and out.startswith("tuned is better than llm: MCC 1.000 against ")
    page = tmp_path / "page.html"
    assert run(capsys, "report", str(answers), "--output", str(page))[0] == 0
    assert "Answers that are no label" in page.read_text(encoding="utf-8")
    code, out, err = run(capsys, "evaluate", str(answers), "--threshold", "0.4")
    assert code == 1 and "--threshold needs probabilities; leave it out, since there are answers only." in err


def test_predictions_of_several_labels_a_row(capsys, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("y_a,y_b,p_a,p_b\n1,0,0.9,0.2\n1,1,0.8,0.3\n0,0,0.1,0.1\n0,1,0.2,0.7\n", encoding="utf-8")
    code, out, err = run(capsys, "evaluate", str(path))
    assert (code, err) == (0, "")
    assert out.startswith("3 of 4 rows right in every label: accuracy 0.750, ")
    from finetune_eval import Evaluation, load_predictions

    result = load_predictions(path)
    result.save(tmp_path / "run")
    assert Evaluation.load(tmp_path / "run") == result
    saved = str(tmp_path / "run" / "predictions.parquet")  # its labels are "a", "a + b", "" and "b"
    code, again, err = run(capsys, "evaluate", saved, "--task", "multilabel")
    assert (code, err, again.splitlines()[0]) == (0, "", out.splitlines()[0])
    page = tmp_path / "page.html"
    assert run(capsys, "report", str(tmp_path / "run"), "--output", str(page))[0] == 0
    assert "right in every label" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ["evaluate", "a.csv", "--threshold", "1.3"],
            1,
            "--threshold must be a finite number above 0 and below",
        ),
        (
            ["evaluate", "a.csv", "--labels", "bad"],
            1,
            "--labels must name at least two classes; got ['bad'].",
        ),
        (["evaluate", "a.csv", "--task", "multi"], 1, "Did you mean 'multilabel'?"),
        (["evaluate", "a.csv", "--frozen"], 2, "needs --data: saved predictions have no backbone."),
        (["evaluate", "a.csv", "--treshold", "0.3"], 2, "No such option: --treshold"),
        (["compare", "a.csv", "b.csv", "--metric", "acc"], 1, "Did you mean 'accuracy'?"),
        (["compare", "a.csv", "a.csv"], 2, "Invalid value for PATHS: the same run or file is there twice."),
        (["compare", "a.csv"], 2, "Invalid value for PATHS: give at least two run folders or files of "),
        (["report", "a.csv", "--output", "."], 1, "'.' is a folder; pass the name of a file."),
        (["evaluate", "a.csv", "--merge-labels"], 2, "needs --data: the labels are read already."),
    ],
)
def test_a_wrong_option_of_saved_predictions_is_one_line(capsys, predictions, arguments, code, line):
    folder = Path(predictions[0]).parent
    named = [str(folder / name) if name.endswith(".csv") else name for name in arguments]
    got, out, err = run(capsys, *named)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert line in err
