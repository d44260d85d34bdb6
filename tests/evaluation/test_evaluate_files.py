"""Files larger than memory: which are read, how a scan goes on, and what a wrong one says."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

from finetune_eval import Evaluation, cli, evaluate_files, evaluate_predictions, load_predictions
from finetune_eval.evaluation import _scanning

LABELS = ("ham", "v1.2")  # a dot in a column's name is no path


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 900)
    p = 1 / (1 + np.exp(-(random.normal(size=900) * 1.5 + 2 * y - 1)))
    names = np.array(LABELS)[y]
    country = random.choice(["DE", "FR"], 900)
    ids = [f"r{i}" for i in range(900)]
    return pd.DataFrame({"id": ids, "label": names, "p_ham": 1 - p, "p_v1.2": p, "country": country})


@pytest.fixture
def folder(tmp_path, frame):
    """The rows in two Parquet files, one of them in small row groups, and a CSV file; two files are none."""
    frame[:400].to_parquet(tmp_path / "a.parquet", row_group_size=100, index=False)
    frame[400:600].to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "inside").mkdir()
    frame[600:].to_parquet(tmp_path / "inside" / "c.parquet", index=False)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.csv").write_text("not a table")
    return tmp_path


def scan(files, **options):
    return evaluate_files(files, **{"n_resamples": 100, "workers": 1, **options})


def test_files_of_all_kinds_add_up_to_the_evaluation_of_all_rows(folder, frame, monkeypatch):
    monkeypatch.setattr(_scanning, "_PART", 150)  # several parts of one file
    expected = evaluate_predictions(
        frame["label"],
        frame[["p_ham", "p_v1.2"]],
        metadata=frame[["country"]],
        ids=frame["id"],
        baselines=False,
        n_resamples=100,
    )
    found = scan(folder, metadata=["country"])
    assert (found.n, found.labels, found.per_class) == (900, LABELS, expected.per_class)
    assert found.slices == expected.slices
    assert found.loss == pytest.approx(expected.loss, rel=1e-14)
    assert found.worst_rows["id"].tolist() == expected.worst_rows["id"].tolist()
    worst = found.worst_rows.iloc[0]
    start = {"a.parquet": 0, "b.csv": 400, "c.parquet": 600}[worst["file"].rpartition("/")[2]]
    assert f"r{start + worst['row']}" == worst["id"]


def test_the_order_of_the_files_and_patterns_change_nothing(folder):
    files = [folder / "inside" / "c.parquet", folder / "b.csv", folder / "a.parquet"]
    expected = scan(folder)
    assert scan(files) == expected
    assert scan([str(folder / "*.*"), str(folder / "inside")]) == expected


def test_two_processes_give_what_one_gives(folder):
    assert scan(folder, workers=2) == scan(folder)


def test_a_dataset_gives_what_its_files_give(folder):
    files = [str(folder / "a.parquet"), str(folder / "inside" / "c.parquet")]
    assert scan(pyarrow.dataset.dataset(files)).estimates == scan(files).estimates


def test_a_scan_goes_on_from_the_parts_that_were_counted(folder, frame, monkeypatch, capsys):
    keep = folder / "_keep"
    frame[600:].assign(label="eggs").to_parquet(folder / "inside" / "c.parquet", index=False)
    with pytest.raises(
        ValueError,
        match=r"c.parquet': `label` has an unknown label 'eggs' in row 0; .* 2 of 3 parts were .* kept in '/",
    ):
        scan(folder, resume_dir=keep)
    assert len(list(keep.iterdir())) == 2
    frame[600:].to_parquet(folder / "inside" / "c.parquet", index=False)
    read = []
    count = _scanning.Part.count
    monkeypatch.setattr(
        _scanning.Part, "count", lambda part, empty: (read.append(part.name), count(part, empty))[1]
    )
    found = scan(folder, resume_dir=keep, progress=True)
    assert read == [str(folder / "inside" / "c.parquet")]
    assert "900 rows, 3 of 3 parts" in capsys.readouterr().err
    for kept in keep.iterdir():
        kept.write_bytes(kept.read_bytes()[:-1])  # damaged: counted again, and said
    assert scan(folder, resume_dir=keep) == found and len(read) == 4
    assert capsys.readouterr().err.count("is counted again: these statistics are damaged") == 3
    scan(folder, resume_dir=keep, threshold=0.4)  # other settings: what was kept does not fit
    assert len(read) == 7


def test_a_process_that_is_ended_is_said(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        ChildProcessError, match=r"was ended from outside \(exit code 1\), as the system does where memory"
    ):
        scan(folder, workers=2)


def test_a_file_that_changes_meanwhile_is_refused(folder, frame, monkeypatch):
    tables = _scanning.Part.tables

    def changing(part):
        yield from tables(part)
        frame.to_csv(folder / "b.csv", index=False)

    monkeypatch.setattr(_scanning.Part, "tables", changing)
    with pytest.raises(ValueError, match=r"b\.csv' (was changed while it was read|has 901 lines)"):
        scan(folder / "b.csv")


# ------------------------------------------------------------------------------------------
# Wrong files
# ------------------------------------------------------------------------------------------


def test_one_bad_cell_in_the_last_file_is_named(folder, frame):
    bad = frame[600:].reset_index(drop=True)
    bad.loc[250, "p_ham"] = np.nan
    bad.to_parquet(folder / "inside" / "c.parquet", index=False)
    with pytest.raises(ValueError) as error:
        scan(folder)
    path = str(folder / "inside" / "c.parquet")
    assert str(error.value) == (
        f"{path!r}: `probabilities` has NaN in row 250, column 0; drop the row or fill it. 2 of 3 parts "
        "were counted already; with `resume_dir` such parts are kept."
    )
    bad["p_ham"] = bad["p_ham"].astype(object)
    bad.loc[250, "p_ham"] = "n.a."
    bad.to_csv(folder / "z.csv", index=False)
    with pytest.raises(
        TypeError, match=r"z\.csv': row 250: `probabilities` must hold real numbers; got 'n\.a\.'"
    ):
        scan(folder / "z.csv")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows.rename(columns={"p_ham": "p_eggs"}), "has other columns p_<class> than '"),
        (lambda rows: rows.drop(columns="p_ham"), "has other columns p_<class> than '"),
        (lambda rows: rows.drop(columns="label"), "needs a column 'label' (or 'y_true', 'target')"),
        (lambda rows: rows.assign(weight=1), "has a column 'weight'. Rows with weights cannot be counted"),
    ],
)
def test_columns_are_checked_before_a_row_is_read(folder, frame, change, sentence, monkeypatch):
    monkeypatch.delattr(_scanning.Part, "tables")
    change(frame[600:]).to_parquet(folder / "inside" / "c.parquet", index=False)
    with pytest.raises(ValueError) as error:
        scan(folder)
    assert str(error.value).startswith(f"{str(folder / 'inside' / 'c.parquet')!r} {sentence}")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty; a header line and at least one row are needed."),
        (
            b"label;p_ham;p_v1.2\nham;1;0\n",
            "has one column, 'label;p_ham;p_v1.2', when split at ','; if its delimi",
        ),
        (
            b"label,p_ham,p_v1.2\nham,1,0\nham,1\n",
            "cannot be read: CSV parse error: Row #3: Expected 3 columns, got",
        ),
        (
            b'label,p_ham,p_v1.2,t\nham,1,0,"a\nham,1,0,b"\n',
            "has 3 lines, blank ones not counted, and 1 row: a quote",
        ),
        (b"label,p_ham,p_v1.2\nh\xe4m,1,0\n", "cannot be read: "),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_named(tmp_path, data, sentence):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        scan(path)
    assert str(error.value).startswith(f"{str(path)!r} {sentence}")


def test_lines_may_end_as_old_macintosh_programs_end_them(tmp_path, frame):
    (tmp_path / "a.csv").write_bytes(frame.to_csv(index=False).replace("\n", "\r").encode())
    assert scan(tmp_path / "a.csv").n == 900


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252"])
def test_a_csv_file_in_another_encoding_is_counted_as_in_utf_8(tmp_path, frame, encoding):
    frame.to_csv(tmp_path / "a.csv", index=False, encoding=encoding)
    found = scan(tmp_path / "a.csv", encoding=encoding)
    assert found.n == 900 and not any("line break" in warning for warning in found.warnings)
    frame.to_csv(tmp_path / "b.csv", index=False)
    assert found.confusion_matrix.tolist() == scan(tmp_path / "b.csv").confusion_matrix.tolist()


@pytest.mark.parametrize("row", [0, 899])  # in what tells the columns, and long after it
def test_a_byte_that_is_not_of_the_encoding_is_said_with_the_file(tmp_path, frame, row, monkeypatch):
    monkeypatch.setattr(_scanning, "_BLOCK", 1024)
    frame.assign(id=np.where(np.arange(900) == row, "\u00e9", "r")).to_csv(
        tmp_path / "a.csv", index=False, encoding="cp1252"
    )
    with pytest.raises(ValueError) as caught:
        scan(tmp_path / "a.csv", encoding="ascii")
    assert type(caught.value) is ValueError  # a process sends the kind and one sentence
    path = re.escape(repr(str(tmp_path / "a.csv")))
    assert re.fullmatch(
        rf"{path} is not written in 'ascii' \(ordinal not in range\(128\)\); pass the right `encoding`\.",
        str(caught.value),
    )


def test_a_damaged_parquet_file_is_named(folder):
    (folder / "a.parquet").write_bytes(b"nonsense" * 10)
    with pytest.raises(
        ValueError, match=r"a\.parquet' cannot be read: Parquet magic bytes not found in footer"
    ):
        scan(folder)


def test_files_without_rows_and_files_that_may_be_cut_off_are_warnings(folder, frame):
    frame[:0].to_parquet(folder / "d.parquet", index=False)
    (folder / "b.csv").write_bytes((folder / "b.csv").read_bytes().rstrip(b"\n"))
    notes = scan(folder).warnings[-2:]
    assert notes[0].startswith(
        "b.csv does not end with a line break; if it was cut off, its last row is wrong."
    )
    assert notes[1].startswith("1 file has no rows: '/")
    with pytest.raises(ValueError, match=r"^There are no rows; at least one is needed\.$"):
        scan(folder / "d.parquet")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ("nowhere.parquet", "`files` 'nowhere.parquet' does not exist, and no file fits it as a pattern."),
        (
            [],
            "`files` must be a file, a folder, a pattern such as 'predictions/*.parquet', a list of these or",
        ),
        ("{folder}/_SUCCESS", "'{folder}/_SUCCESS' must end in .parquet, .csv or .tsv."),
        (
            ["{folder}/b.csv", "{folder}/*.csv"],
            "`files` has '{folder}/b.csv' twice; its rows would count twice.",
        ),
    ],
)
def test_which_files_is_checked(folder, files, sentence):
    given = (
        [file.format(folder=folder) for file in files]
        if isinstance(files, list)
        else files.format(folder=folder)
    )
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as error:
        scan(given)
    assert str(error.value).startswith(sentence.format(folder=folder))


def test_the_command_scores_files_and_its_result_can_be_saved(folder, capsys, tmp_path):
    arguments = ["evaluate-files", str(folder / "a.parquet"), str(folder / "b.csv"), "--workers", "1"]
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--metadata", "country", "--json", "--progress"])
    shown = capsys.readouterr()
    assert end.value.code == 0
    assert json.loads(shown.out)["n"] == 600
    assert "600 rows, 2 of 2 parts" in shown.err
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--metadata", "shop"])
    assert end.value.code == 1
    assert "has no column 'shop', which --metadata names" in capsys.readouterr().err
    found = scan(folder)
    found.save(tmp_path / "saved")
    assert Evaluation.load(tmp_path / "saved") == found


ROWS = "label,p_a,p_é\na,0.7,0.3\né,0.4,0.6\né,0.9,0.1\n"  # two of three are right


def test_encodings(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(ROWS.encode("latin-1"))
    for workers in (1, 2):
        with pytest.raises(
            ValueError, match="rows.csv' is not written in 'utf-8' .*; pass the right `encoding`.$"
        ):
            scan(path, workers=workers)
    for encoding in ("latin-1", "utf-16", "utf-16-le", "utf-8"):
        path.write_bytes(ROWS.encode(encoding))
        found = scan(path, encoding=encoding)
        assert found.accuracy == pytest.approx(2 / 3)
        assert not any("line break" in sentence for sentence in found.warnings)


def test_two_columns_that_may_be_the_truth(tmp_path):
    """What Hugging Face's pipelines call `label` is the answer, and scores 1.000 as the truth."""
    path = tmp_path / "rows.csv"
    path.write_text("label,y_true,p_a,p_b\na,a,0.7,0.3\nb,a,0.4,0.6\n")
    with pytest.raises(
        ValueError, match="rows.csv' has 'label' and 'y_true', and each may be the truth; rename"
    ):
        scan(path)
    assert scan(path, metadata=["y_true"]).accuracy == 1
    with pytest.raises(ValueError, match="each may be the truth: row 1 is 'b' in one and 'a' in the other."):
        load_predictions(path)
    path.write_text("label,y_true,p_a,p_b\na,a,0.7,0.3\nb,b,0.4,0.6\n")
    assert load_predictions(path, baselines=False).accuracy == 1


def test_files_of_a_folder_that_are_not_read_are_named(folder):
    (folder / "d.csv.gz").touch()
    (folder / "readme.txt").touch()
    sentence = "1 file in the folders was not read, being no .parquet, .csv or .tsv: 'd.csv.gz'."
    assert sentence in scan(folder).warnings
    assert sentence not in scan(folder / "b.csv").warnings
