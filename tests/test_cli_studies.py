"""The commands that train several times: on a tiny checkpoint, in this process."""

import hashlib
import json

import keras
import pytest

from finetune_eval import cli

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")


def command(*arguments):
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code


@pytest.fixture(scope="module")
def rows(tiny, tmp_path_factory):
    """A folder with a tiny checkpoint and a file of 48 texts."""
    here = tmp_path_factory.mktemp("rows")
    tiny.checkpoint(here / "checkpoint")
    lines = ["review,stars,author"]
    for row in range(48):
        text = f"the {('good', 'bad')[row % 2]} film {hashlib.md5(str(row).encode()).hexdigest()}"
        lines.append(f"{text},{('up', 'down')[row % 2]},{row // 4}")
    (here / "reviews.csv").write_text("\n".join(lines) + "\n")
    return here


def arguments(rows, name):
    return [
        name, rows / "reviews.csv", "--text", "review", "--label", "stars", "--model", rows / "checkpoint",
        "--epochs", "1", "--freeze", "--repeats", "2",
    ]  # fmt: skip


def test_cross_evaluate(rows, tmp_path, capsys):
    given = [*arguments(rows, "cross-evaluate"), "--folds", "3", "--group", "author", "--run-dir", tmp_path]
    assert command(*given) == 0
    out, err = capsys.readouterr()
    assert "48 rows, 3 folds, 2 times" in out and "this recipe" in out
    assert err.count("rows trained") == 6
    assert command(*given, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["folds"]) == 6
    assert data["settings"]["recipe"] == "plain" and data["settings"]["epochs"] == 1
    assert data["estimates"]["accuracy"]["models"]["low"] <= data["estimates"]["accuracy"]["value"]
    assert command(*given, "--seed", "1") == 1
    assert "holds a cross-evaluation of other settings" in capsys.readouterr().err


def test_learning_curve(rows, capsys):
    assert command(*arguments(rows, "learning-curve"), "--goal", "0.99", "--json") == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert [point["n_train"] for point in data["points"]] == [5, 10, 19, 38]
    assert data["sentence"].startswith("48 → 96 labels")
    assert len(data["rows_for_goal"]) == 3
    assert data["settings"]["recipe"] == "plain" and data["settings"]["epochs"] == 1
    assert err.count("rows trained") == 8


@pytest.mark.parametrize("name", ["cross-evaluate", "learning-curve"])
def test_the_settings_of_train_reach_the_trainings_of_a_study(rows, monkeypatch, name):
    asked = {}

    def stop(learner, x, y, *, recipe, **others):
        asked.update(recipe)
        raise ValueError("stopped")

    study = name.replace("-", "_")
    monkeypatch.setattr(f"finetune_eval.studies.{study}.{study}", stop)
    given = [
        *("--recipe", "careful", "--batch-size", "8", "--learning-rate", "0.01", "--schedule", "linear"),
        *("--warmup", "0", "--strategy", "full", "--layer-decay", "0.9", "--average-last", "0.5"),
        *("--class-weight", "balanced", "--seed", "3"),
    ]
    assert command(*arguments(rows, name), *given) == 1
    assert asked == {
        "recipe": "careful", "epochs": 1, "batch_size": 8, "learning_rate": 0.01, "schedule": "linear",
        "warmup": 0.0, "strategy": "full", "layer_decay": 0.9, "average_last": 0.5,
        "class_weight": "balanced",
    }  # fmt: skip


def test_wrong_usage(rows, capsys):
    assert command(*arguments(rows, "cross-evaluate"), "--folds", "1") == 1
    assert "--folds must be at least 2; got 1." in capsys.readouterr().err
    assert command(*arguments(rows, "learning-curve"), "--recipe", "carefull") == 1
    assert "--recipe must be one of 'plain', 'careful'; got 'carefull'." in capsys.readouterr().err
    assert command(*arguments(rows, "cross-evaluate"), "--recipe", "ensemble") == 1
    # A call in Python has no flags of the command line in it.
    assert "`fe.cross_evaluate(build, x, y, folds=5, keep_models=True).ensemble()`" in capsys.readouterr().err
