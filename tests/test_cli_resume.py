"""finetune-eval resume: what a killed command left is finished as it would have been."""

import json
import os
import shutil

import keras
import pytest

from finetune_eval import Evaluation, cli, fine_tune
from finetune_eval.runs import Run

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")


def command(*arguments):
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code


@pytest.fixture(scope="module")
def home(tiny, tmp_path_factory):
    """A folder with a checkpoint, rows, the arguments of `train`, and a run without a break."""
    folder = tmp_path_factory.mktemp("home")
    tiny.checkpoint(folder / "checkpoint")
    lines = [
        f"the {('good', 'bad')[row % 2]} film number {row},{('pos', 'neg')[row % 2]}" for row in range(60)
    ]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    arguments = ["train", "rows.csv", "--model", "checkpoint", "--epochs", "2", "--learning-rate", "0.01"]
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert command(*arguments, "--run-dir", "whole") == 0
    finally:
        os.chdir(before)
    return folder, arguments


@pytest.fixture
def broken(home, tmp_path, monkeypatch, capsys):
    """Another folder with all that, and a run that was interrupted in its training."""
    shutil.copytree(home[0], tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")

    def cut_short(*args, **kwargs):
        class Cut(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    raise KeyboardInterrupt

        kwargs["callbacks"] = [kwargs["callbacks"], Cut()]
        return fine_tune(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr("finetune_eval.training.fine_tune.fine_tune", cut_short)
        assert command(*home[1], "--run-dir", "broken") == 130
    assert "Go on: finetune-eval resume broken." in capsys.readouterr().err.splitlines()[-1]
    manifest = Run("broken").read_manifest()
    manifest["resume"]["callbacks"] = []  # those of a command alone
    Run("broken").write_manifest(manifest)
    return tmp_path / "home"


def outcome(folder):
    result, run = Evaluation.load(folder), Run(folder)
    losses = [json.loads(line)["metrics"] for line in run.trace.read_text().splitlines()]
    return result.predictions.to_dict("list"), losses, sorted(path.name for path in folder.iterdir())


def test_resume_needs_nothing_but_the_run(home, broken, capsys):
    assert command("resume", "broken") == 0
    out = capsys.readouterr().out
    assert "'broken' goes on from its first step." in out and "test accuracy" in out
    assert outcome(broken / "broken") == outcome(broken / "whole")
    assert str(broken) not in (broken / "broken" / "manifest.json").read_text()  # runs are shared
    assert command("resume", "broken") == 0
    assert (
        capsys.readouterr().out == "'broken' is complete, trained for 2 epochs: there is nothing to resume.\n"
    )


@pytest.mark.slow
def test_resume_from_elsewhere_and_as_json(home, broken, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert command("resume", "home/broken", "--json") == 0
    assert json.loads(capsys.readouterr().out)["run_dir"] == str(tmp_path / "home" / "broken")
    assert outcome(broken / "broken") == outcome(broken / "whole")


def test_a_run_that_was_trained_and_not_evaluated_is_evaluated(home, broken, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "save", fails)
        assert command("train", *home[1][1:], "--run-dir", "broken", "--resume") == 1
    assert Run("broken").read_manifest()["status"] == "complete"
    assert command("resume", "broken") == 0
    assert outcome(broken / "broken") == outcome(broken / "whole")


def test_other_rows_are_refused(broken, capsys):
    text = (broken / "rows.csv").read_text()
    (broken / "rows.csv").write_text(text.replace("number", "nummer"))
    capsys.readouterr()
    assert command("resume", "broken") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: 'broken' was begun with other training rows than are read now; restore the file that it was "
        "begun with."
    )


def test_a_run_of_python_is_resumed_too(tiny, tmp_path, monkeypatch, capsys):
    x, y = tiny.numeric_rows(24)
    monkeypatch.chdir(tmp_path)
    fine_tune(tiny.numeric_classifier(), x, y, epochs=1, run_dir="r", verbose=False)
    run = Run("r")
    assert command("resume", run.path) == 0
    assert capsys.readouterr().out == "'r' is complete, trained for 1 epoch: there is nothing to resume.\n"


def test_what_is_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("resume", "r") == 1
    assert capsys.readouterr().err == "error: 'r' is no run folder: it has no manifest.json.\n"
    assert command("train", "rows.csv", "--resume") == 2
    assert "needs --run-dir, the folder of the run." in capsys.readouterr().err
