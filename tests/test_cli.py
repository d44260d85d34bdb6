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


COMMANDS = ("demo", "train", "evaluate", "compare", "predict", "leaks", "report", "trace")


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
        (["predict", "nowhere"], 2, "Invalid value: give at least one text, or --file."),
        (
            ["predict", "nowhere", "a text"],
            1,
            "'nowhere' does not exist; pass a run folder or a .keras file.",
        ),
        (["trace", "nowhere", "a"], 1, "'nowhere' does not exist; pass a run folder or a .keras file."),
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
    assert "of 60 right" in out
    assert max(map(len, out.splitlines())) <= 80


def test_evaluate_json_is_json(capsys, predictions):
    code, out, _ = run(capsys, "evaluate", predictions[1], "--json")
    assert code == 0
    assert json.loads(out)["n"] == 60


def test_compare_says_which_is_better(capsys, predictions):
    code, out, _ = run(capsys, "compare", *predictions)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


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


def test_without_a_command_the_help_is_printed_as_it_is(capsys):
    code, _, err = run(capsys)
    assert code == 2
    assert "\n  evaluate " in err and not err.startswith("error")


def test_new_rows_need_a_model_and_not_predictions(capsys, predictions):
    code, _, err = run(capsys, "evaluate", predictions[0], "--data", predictions[0])
    assert (code, err) == (1, f"error: {predictions[0]!r} is no model; pass a run folder or a .keras file.\n")
