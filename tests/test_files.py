"""Files are whole or absent, files that belong together appear together, and damage is named."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from finetune_eval import _files


@dataclass(frozen=True)
class Record:
    name: str
    values: tuple[float, ...]
    table: np.ndarray
    rest: dict[str, float | None]


def test_a_record_comes_back_to_the_last_bit(tmp_path):
    record = Record(
        "नहीं", (0.1, float("nan"), float("-inf")), np.arange(4.0).reshape(2, 2) / 3, {"a": None, "b": 1e-300}
    )
    _files.write_json(tmp_path / "r.json", _files.to_json(record), format=2)
    back = _files.from_json(Record, _files.read_json(tmp_path / "r.json", newest_format=2))
    assert back.name == record.name and back.rest == record.rest
    assert np.array_equal(back.table, record.table) and back.values[0] == 0.1
    assert np.isnan(back.values[1]) and back.values[2] == float("-inf")


def test_every_cut_and_every_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "r.json"
    data = {"accuracy": 0.785, "labels": ["negative", "positive"], "counts": [[84, 16], [27, 73]]}
    _files.write_json(path, data, format=2)
    whole = path.read_bytes()
    for damaged in [
        *(whole[:end] for end in range(len(whole) - 1)),
        *(
            whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :]
            for i in range(len(whole))
            for bit in range(8)
        ),
    ]:
        path.write_bytes(damaged)
        try:
            assert _files.read_json(path, newest_format=2, checked_from=2) == data
        except ValueError as error:
            assert "r.json" in str(error)


def test_what_is_no_record_is_refused_by_name(tmp_path):
    path = tmp_path / "r.json"
    for text, sentence in [
        ("[1, 2]", "its JSON is a list, not an object"),
        ("null", "its JSON is a NoneType, not an object"),
        ('{"format": 3, "a": 1}', "was written by a newer finetune-eval; upgrade to read it"),
        ('{"format": 2, "a": 1}', "its format number or its checksum is gone"),
        ('{"format": "2"}', "its format number or its checksum is gone"),
        ("[" * 100_000, "is damaged or was cut"),
        ("<!DOCTYPE html>", "is damaged or was cut"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence) as error:
            _files.read_json(path, newest_format=2, checked_from=2)
        assert str(path) in str(error.value)
    path.write_text('{"format": 1, "a": 1}')  # an older version wrote no checksum
    assert _files.read_json(path, newest_format=2, checked_from=2) == {"a": 1}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f.txt"
    _files.write_text(path, "old")

    def fails(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"f\.txt' could not be written \(No space left on device\)\.$"):
        _files.write(path, fails)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f.txt"]


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    inside = tmp_path / "file" / "f.txt"
    for path, sentence in (
        (tmp_path / "folder", f"{str(tmp_path / 'folder')!r} is a folder; pass the name of a file."),
        (
            inside,
            f"{str(inside)!r} could not be written: {str(tmp_path / 'file')!r} is no folder, but a file.",
        ),
    ):
        with pytest.raises(OSError, match=f"^{re.escape(sentence)}$"):
            _files.write_text(path, "text")
    if sys.platform == "linux":
        with pytest.raises(OSError, match=r"mem' could not be read \(Input/output error\)\.$"):
            _files.read(Path("/proc/self/mem"))


def test_the_longest_name_that_the_file_system_takes(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    _files.write_text(path, "{}")
    assert path.read_text() == "{}"


def test_files_that_belong_together_change_together(tmp_path):
    def pair(text):
        return {name: lambda p, t=text: p.write_text(t) for name in ("a", "b")}

    _files.write_together(tmp_path, pair("1"))

    def fails(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="could not be written"):
        _files.write_together(tmp_path, pair("2") | {"b": fails})
    with _files.together(tmp_path) as path:
        assert path("a").read_text() == path("b").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_writer_killed_at_any_moment_leaves_a_pair(tmp_path):
    """kill -9 at each system call of interest: before, at and after the rename that counts."""
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from finetune_eval import _files
        folder, stop = Path(sys.argv[1]), int(sys.argv[2])
        calls = 0
        def counting(real):
            def call(*args, **kwargs):
                global calls
                calls += 1
                if calls == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)
            return call
        for name in ("replace", "rename", "fsync", "open", "rmdir", "mkdir"):
            setattr(os, name, counting(getattr(os, name)))
        _files.write_together(folder, {n: lambda p: p.write_text("new") for n in ("a", "b")})
        print(calls)
        """
    )
    seen, stop = set(), 0
    while True:
        stop += 1
        folder = tmp_path / str(stop)
        _files.write_together(folder, {n: lambda p: p.write_text("old") for n in ("a", "b")})
        run = subprocess.run([sys.executable, "-c", code, folder, str(stop)], capture_output=True)
        with _files.together(folder) as path:
            pair = path("a").read_text(), path("b").read_text()
        assert pair[0] == pair[1]
        _files.write_together(
            folder, {"c": lambda p: p.write_text("next")}
        )  # and the folder can be used again
        assert (folder / "a").read_text() == (folder / "b").read_text() == pair[0]
        _files.remove_leftovers(folder)
        assert sorted(os.listdir(folder)) == ["a", "b", "c"]
        seen.add(pair[0])
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
    assert seen == {"old", "new"} and stop > 10


def test_one_owner_at_a_time(tmp_path):
    with _files.locked(tmp_path), pytest.raises(BlockingIOError), _files.locked(tmp_path, wait=False):
        pass
    with _files.locked(tmp_path, shared=True), _files.locked(tmp_path, shared=True, wait=False):
        pass


def test_lines(tmp_path):
    path = tmp_path / "t.jsonl"
    for epoch in (1, 2):
        _files.append_line(path, {"epoch": epoch, "loss": 0.1 / 3})
    assert _files.read_lines(path) == [{"epoch": 1, "loss": 0.1 / 3}, {"epoch": 2, "loss": 0.1 / 3}]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])  # killed while the second line was written
    assert [line["epoch"] for line in _files.read_lines(path)] == [1]
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 2]) + whole[i + 1 :])
        try:
            assert [line["epoch"] for line in _files.read_lines(path)] in ([1], [1, 2])
        except ValueError as error:
            assert "t.jsonl" in str(error) and "line" in str(error)
    (tmp_path / "other.jsonl").write_text(json.dumps({"epoch": 1}) + "\n")  # older versions wrote no checksum
    assert _files.read_lines(tmp_path / "other.jsonl") == [{"epoch": 1}]


def test_lines_are_not_appended_to_what_a_link_points_at(tmp_path):
    (tmp_path / "secret").write_text("")
    (tmp_path / "t.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        _files.append_line(tmp_path / "t.jsonl", {"epoch": 1})
    assert (tmp_path / "secret").read_text() == ""
