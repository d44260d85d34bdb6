"""What SECURITY.md promises and no other file of tests shows.

Elsewhere: bombs, cut files and Lambda layers in tests/models/test_archives.py; pickles, indexes that lead out
of a folder and `auto_map` in tests/models/test_checkpoint_files.py and test_declared.py; what is printed, and
what a run tells of its machine, in tests/test_cli_training.py; the page and the card in tests/reports; links
in a run folder in tests/test_runs.py; who may read the looks in tests/evaluation/test_lockbox.py.
"""

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import finetune_eval as fe
from finetune_eval import _files
from finetune_eval.runs import Run

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")
SOURCES = sorted(Path(fe.__file__).parent.rglob("*.py"))
RAN = "/tmp/finetune-eval-ran-code-of-a-file"


@pytest.fixture(autouse=True)
def nothing_ran():
    yield
    assert not os.path.exists(RAN)


@pytest.fixture
def result():
    return fe.evaluate_predictions(
        [0, 1, 0, 1], [0.1, 0.8, 0.4, 0.7], labels=["bad", "good"], texts=list("abcd"), n_resamples=100
    )


class Unpickled:
    def __reduce__(self):
        return (os.mkdir, (RAN,))


# --- models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member", ["../escaped.txt", "/tmp/finetune-eval-escaped.txt", "assets/../../escaped.txt"]
)
def test_a_member_of_a_saved_model_that_leads_out_of_it_is_not_written(tiny, tmp_path, member):
    place = tmp_path / "deep" / "model.keras"
    place.parent.mkdir()
    tiny.text_classifier().save(place)
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr(member, "escaped")
    before = set(tmp_path.rglob("*"))
    try:
        fe.load_model(place)
    except ValueError as error:
        assert "model.keras" in str(error)
    assert set(tmp_path.rglob("*")) == before and not os.path.exists("/tmp/finetune-eval-escaped.txt")


LAMBDA = {
    "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
    "config": {"name": "lambda", "function": {
        "class_name": "__lambda__", "config": {"code": "4wAAAAAAAAAA", "defaults": None, "closure": None}}},
}  # fmt: skip


@pytest.mark.parametrize(
    "part",
    [
        LAMBDA,
        *(
            {"module": module, "class_name": name, "registered_name": name, "config": {"name": RAN}}
            for module, name in (("os", "mkdir"), ("subprocess", "Popen"), ("builtins", "exec"))
        ),
    ],
    ids=lambda part: part["class_name"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_code_in_a_preset_is_not_run(tiny, tmp_path, part, whole):
    preset = tmp_path / "preset"
    tiny.text_classifier().save_to_preset(str(preset))
    (preset / "checksums.json").unlink()
    task = json.loads((preset / "task.json").read_text())
    task["config"]["backbone"] = part
    (preset / "task.json").write_text(json.dumps(part if whole else task))
    with pytest.raises(ValueError, match=r"^task.json of `path` '.*preset' makes no model \("):
        fe.load_model(preset)


def test_checksums_of_a_preset_do_not_lead_out_of_it(tiny, tmp_path):
    preset = tmp_path / "preset"
    tiny.text_classifier().save_to_preset(str(preset))
    _files.write_json(preset / "checksums.json", {"sha256": {"../../../etc/hostname": "0"}}, format=1)
    with pytest.raises(ValueError, match=r"^\.\./\.\./\.\./etc/hostname of `path` '.*' is not the file that"):
        fe.load_model(preset)


def test_weights_of_a_killed_run_are_never_unpickled(tiny, tmp_path):
    run = Run(tmp_path)
    run.begin_checkpoint(tiny.numeric_classifier().save)
    np.savez(run.checkpoint / "best.npz", **{"0": np.array([Unpickled()], dtype=object)})
    with pytest.raises(ValueError, match=r"best.npz' is damaged: it cannot be read as arrays"):
        fe.load_model(tmp_path)


def test_nothing_in_the_library_unpickles_or_evaluates_text():
    words = re.compile(
        r"\b(pickle|dill|marshal|yaml|joblib\.load)\b|allow_pickle=True|\beval\(|\bexec\(|os\.system|shell=True"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if words.search(line) and not line.lstrip().startswith(("#", '"""', ">>>"))
    ]
    # What `evaluate_files` and its own workers say to each other, over a pipe that nobody else holds.
    found = [line for line in found if not re.match(r"(_scanning|files).py: .*pickle", line)]
    assert [line for line in found if "import" in line or "(" in line] == []


# --- runs of others -----------------------------------------------------------------------


def test_a_small_record_does_not_ask_for_gigabytes(tmp_path, result):
    result.save(tmp_path)
    data = _files.read_json(tmp_path / "evaluation.json", newest_format=9)
    data["confusion_matrix"] = {"dtype": "S1000000000", "values": [["a"] * 2] * 2}
    _files.write_json(tmp_path / "evaluation.json", data, format=2)
    with pytest.raises(
        ValueError, match=r"evaluation.json' is no evaluation of this library \('S1000000000' is"
    ):
        fe.Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5_000_000, b"\xff\xfe", b"null"]
)
def test_json_made_to_break_a_reader_is_refused(tmp_path, result, content):
    result.save(tmp_path)
    (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"evaluation.json' is (damaged|no record)"):
        fe.Evaluation.load(tmp_path)


@pytest.mark.parametrize("name", ["evaluation.json", "predictions.parquet", "report.html", "MODEL_CARD.md"])
def test_a_link_in_a_folder_is_replaced_and_never_written_through(tmp_path, result, name):
    mine, folder = tmp_path / "mine", tmp_path / "shared"
    mine.write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(mine)
    result.save(folder)
    fe.report(result, folder / "report.html")
    fe.write_card(result, folder / "MODEL_CARD.md")
    assert mine.read_text() == "mine" and not (folder / name).is_symlink()


def test_files_behind_a_link_are_not_moved_into_a_shared_folder(tmp_path, result):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("mine")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".pending").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match=r"shared' could not be written"):
        result.save(tmp_path / "shared")
    assert (tmp_path / "private" / "key").read_text() == "mine"
    assert not (tmp_path / "shared" / "key").exists()


# --- what is written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["---\nlicense: mit\n---\n", "...\n---\ntags: [a]", "\n---\na: !!python/object:b\n"]
)
def test_a_name_makes_no_front_matter_of_a_card(tmp_path, result, name):
    lines = fe.write_card(result, tmp_path / "card.md", name=name).read_text("utf-8").splitlines()
    assert lines[0].startswith("# ") and not {"---", "..."} & {line.strip() for line in lines}


def test_no_spreadsheet_is_ever_written():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert not re.search(r"to_csv\(|to_excel\(|csv\.writer|DictWriter", text)


def test_a_text_that_a_spreadsheet_would_run_stays_a_text(tmp_path):
    texts = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(1)", "-2+3"]
    result = fe.evaluate_predictions(
        [0, 1] * 2, [0.1, 0.8] * 2, labels=["=a", "+b"], texts=texts, n_resamples=100
    )
    result.save(tmp_path)
    assert pd.read_parquet(tmp_path / "predictions.parquet")["text"].tolist() == texts


def test_the_command_line_opens_no_connection(tiny, tmp_path):
    """Training, evaluating and reporting work in a process in which every connection is an error."""
    tiny.checkpoint(tmp_path / "checkpoint")
    rows = [f"{('good', 'bad')[row % 2]} film {row},{row % 2}" for row in range(60)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    code = (
        "import socket, sys\n"
        "def refuse(*arguments, **more): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.socket.bind = socket.create_connection = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from finetune_eval import cli\n"
        "cli.main(['train', 'rows.csv', '--model', 'checkpoint', '--epochs', '1', '--run-dir', 'r'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "a connection" not in done.stderr and (tmp_path / "r" / "report.html").is_file()
    assert socket.socket.connect  # of this process, untouched
