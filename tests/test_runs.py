"""One owner of a run folder at a time, and one sentence about what is in it."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from finetune_eval import _files
from finetune_eval.runs import Run, claimed, safe_name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed(folder, *, done=2, epochs=4, status="running", weights=True):
    """Leave in `folder` what a run leaves that ends after `done` epochs."""
    with Run.create(folder) as run:
        run.write_manifest({"status": status, "settings": {"epochs": epochs}})
        for epoch in range(done):
            _files.append_line(run.trace, {"epoch": epoch + 1})
        if weights:
            run.save_best({"0": np.ones(3, "float32")})
    return run


def test_a_new_folder_is_made_with_its_parents_and_owned(tmp_path):
    with Run.create(tmp_path / "runs" / "a") as run:
        assert run.path.is_dir() and run.in_use()
        run.write_manifest({"status": "running"})
    assert not run.in_use() and names(run.path) == ["manifest.json"]


def test_a_folder_in_which_nothing_began_is_removed_again(tmp_path):
    with pytest.raises(ValueError), Run.create(tmp_path / "runs" / "a"):
        raise ValueError("the rows are bad")
    assert names(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with Run.create(tmp_path / "mine"):
        pass
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == []


CUT = "holds a run that was cut short: its process was killed"
KEPT = "its weights are kept, and `load_model` reads them"


@pytest.mark.parametrize(
    ("changes", "story"),
    [
        ({}, f"{CUT} in epoch 3 of 4; {KEPT}"),
        ({"weights": False, "done": 0}, f"{CUT} in epoch 1 of 4; no weights were kept"),
        ({"done": 4}, f"{CUT} after the last of 4 epochs; {KEPT}"),
        ({"status": "interrupted"}, f"holds a run that was interrupted in epoch 3 of 4; {KEPT}"),
        ({"status": "diverged", "weights": False},
         "holds a run that diverged in epoch 3 of 4; no weights were kept"),
        ({"status": "complete"}, "holds a run whose training is complete"),
    ],
)  # fmt: skip
def test_a_run_that_is_there_is_refused_with_what_became_of_it(tmp_path, changes, story):
    run = killed(tmp_path / "a", **changes)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert run.account() == story
    with pytest.raises(FileExistsError) as error, Run.create(run.path):
        pass
    assert str(error.value) == (
        f"`run_dir` {str(run.path)!r} {story}; pass a new folder, or remove it first."
    )
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_manifest_that_was_cut_or_is_none_of_ours(tmp_path):
    run = killed(tmp_path / "a")
    run.manifest.write_bytes(run.manifest.read_bytes()[:-9])
    with pytest.raises(FileExistsError, match="holds a run whose manifest.json cannot be read; pass a new"):
        with Run.create(run.path):
            pass
    with pytest.raises(ValueError, match=r"manifest.json' is damaged or was cut"):
        run.read_manifest()
    run.manifest.write_text(json.dumps({"status": "interrupted"}))  # as older versions wrote it
    assert run.account().startswith("holds a run that was interrupted; its weights are kept")


@pytest.mark.parametrize("name", ["trace.jsonl", "data.json", "train.parquet", "model", "report.html"])
def test_files_of_a_run_without_a_manifest_are_not_mixed_with_new_ones(tmp_path, name):
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(FileExistsError, match=f"has a {name} but no manifest.json: it is not a whole run"):
        with Run.create(tmp_path):
            pass
    assert (tmp_path / name).read_text() == "somebody's"


def test_a_link_to_somewhere_else_is_refused_too(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trace.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="has a trace.jsonl but no manifest.json"):
        with Run.create(tmp_path / "run"):
            pass
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "run" / "trace.jsonl").unlink()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="cannot be written"), Run.create(tmp_path / "run"):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_what_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(FileExistsError, match="file' is a file; pass a folder"),
        Run.create(tmp_path / "file"),
    ):
        pass
    with pytest.raises(
        OSError, match=r"`run_dir` '.*run' cannot be written \(Not a directory\); pass another"
    ):
        with Run.create(tmp_path / "file" / "run"):
            pass
    with pytest.raises(ValueError, match=r"^`run_dir` must be a path; '.*\.\.\. is too long a name\.$"):
        with Run.create(tmp_path / ("a" * 5000)):
            pass
    for path, error in (("", ValueError), ("a\0b", ValueError), ("\ud800", ValueError), (b"a", TypeError)):
        with pytest.raises(error, match="`run_dir` must be a path; got"), Run.create(path):
            pass


def test_a_name_that_the_program_chose_moves_on_to_the_next_free_one(tmp_path):
    killed(tmp_path / "reviews")
    (tmp_path / "reviews-2").mkdir()
    (tmp_path / "reviews-2" / "notes.txt").write_text("mine")
    with (
        Run.create(tmp_path / "reviews", or_next_free=True) as third,
        Run.create(tmp_path / "reviews", or_next_free=True) as fourth,
    ):
        assert (third.path.name, fourth.path.name) == ("reviews-3", "reviews-4")
    assert names(tmp_path) == ["reviews", "reviews-2"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [("..", "run"), ("", "run"), (".hidden", "hidden"), ("../../etc", "-..-etc"), ("é a", "é a")],
)
def test_the_name_of_a_file_is_no_path(name, safe):
    assert safe_name(name) == safe and len((os.path.join("runs", safe)).split(os.sep)) == 2


OWNER = textwrap.dedent(
    """
    import sys, time
    from finetune_eval.runs import Run
    try:
        with Run.create(sys.argv[1]) as run:
            run.write_manifest({"status": "running"})
            print("mine", flush=True)
            time.sleep(float(sys.argv[2]))
            run.write_manifest({"status": "complete"})
    except FileExistsError as error:
        print(error)
    """
)


def owner(folder, seconds):
    command = [sys.executable, "-c", OWNER, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_processes_that_want_one_folder_exactly_one_gets_it(tmp_path):
    for turn in range(3):
        folder = tmp_path / str(turn)
        said = sorted(process.communicate()[0] for process in [owner(folder, 0.5) for _ in range(4)])
        assert said[-1] == "mine\n"
        for line in said[:-1]:
            assert line.startswith(f"`run_dir` {str(folder)!r} ")
            assert (
                "is being written by another process" in line
                or "holds a run whose training is complete" in line
            )
        assert Run(folder).read_manifest()["status"] == "complete"


def test_a_killed_owner_owns_nothing_and_its_unfinished_files_go(tmp_path):
    run = Run(tmp_path / "run")
    with owner(run.path, 60) as process:
        assert process.stdout.readline() == "mine\n"
        assert run.in_use() and run.account() == "holds a run that another process is still training"
        with pytest.raises(FileExistsError, match="is being written by another process; pass another folder"):
            with run.own():
                pass
        process.send_signal(signal.SIGKILL)
    assert not run.in_use() and "its process was killed" in run.account()
    run.checkpoint.mkdir()
    run.model.parent.mkdir()
    left = [
        run.path / ".1-2-3.writing",
        run.model.parent / ".1-2-3.writing.keras",
        run.checkpoint / ".4.writing.npz",
    ]
    for path in left:
        path.write_text("half")
    with run.own():
        assert not any(path.exists() for path in left)
    assert names(run.path) == ["checkpoint", "manifest.json", "model"]


def test_an_argument_run_dir_is_a_path_a_run_or_nothing(tmp_path):
    with claimed(None) as run:
        assert run is None
    with Run.create(tmp_path / "run") as mine, claimed(mine) as run:
        assert run is mine
    with claimed(tmp_path / "run") as run:
        assert run.in_use()


def test_training_rows_come_back_or_are_refused(tmp_path):
    with Run.create(tmp_path / "run") as run:
        digest = run.save_training_rows(["a film", "नहीं"], np.array([0, 1]), ["0117", "b"])
        run.write_manifest({"status": "complete", "files": {"train.parquet": digest}})
    texts, labels = run.training_rows()
    assert (texts, labels.tolist()) == (["a film", "नहीं"], ["0117", "b"])
    whole = run.train.read_bytes()
    for damaged in (whole[:100], whole[:50] + b"\xff" + whole[51:], b""):
        run.train.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train.parquet' is damaged or was changed"):
            run.training_rows()
    run.manifest.unlink()  # nothing is left to hold it against
    with pytest.raises(ValueError, match=r"train.parquet' is damaged: it cannot be read as Parquet"):
        run.training_rows()


def test_best_weights_come_back_or_are_refused(tmp_path):
    run = killed(tmp_path / "run", weights=False)
    given = {"0": np.arange(6.0).reshape(2, 3), "2": np.float32(3)}
    run.save_best(given)
    back = run.read_best()
    assert (
        all(np.array_equal(back[name], value) for name, value in given.items())
        and back.keys() == given.keys()
    )
    path = run.weights
    whole = path.read_bytes()
    for damaged in (whole[:200], whole[:140] + bytes([whole[140] ^ 1]) + whole[141:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"best.npz' is damaged: it cannot be read as arrays"):
            run.read_best()


def test_a_disk_without_room_is_said_before_training(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 250_000_000})
    monkeypatch.setattr("finetune_eval.runs.shutil.disk_usage", lambda path: usage)
    run = Run(tmp_path)
    run.check_room(80_000_000)
    with pytest.raises(
        OSError, match=r"is on a disk with 250.0 MB free; this model needs 273.0 MB. Make room"
    ):
        run.check_room(91_000_000)
