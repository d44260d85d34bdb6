"""Evaluation of files that may be larger than memory, on all cores of one machine."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_eval import _checks, _files, _labels
from finetune_eval._cores import cores
from finetune_eval._text import counted
from finetune_eval.evaluation import _scanning
from finetune_eval.evaluation._options import Asked, checked_options
from finetune_eval.evaluation._reading import column_names
from finetune_eval.evaluation._scanning import Part
from finetune_eval.evaluation.large import LargeEvaluation, Statistics
from finetune_eval.evaluation.thresholds import Threshold

_FORMAT = 1  # of the kept statistics: it changes where the same rows are counted in another way


def evaluate_files(
    files: Any,
    *,
    labels: Sequence[str] | None = None,
    workers: int | None = None,
    threshold: float | Threshold | None = None,
    metadata: Sequence[str] = (),
    average: str = "auto",
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    resume_dir: str | Path | None = None,
    progress: bool | None = None,
) -> LargeEvaluation:
    """Score files of predictions that may be larger than memory.

    The columns are those of `load_predictions`: `label` (or `y_true`, `target`), and `p_<class>` for each
    class or `probability` (or `score`, `p`) of the second of two; `id` is used where it is there. Every
    file's columns are checked before a row is read. Rows are counted a part at a time, by several processes;
    the memory that this takes depends on the classes and not on the rows.

    Counts, accuracy, precision, recall, F1 and the like are those of `evaluate_predictions` on the same rows,
    intervals included. Log-loss and Brier score are the same but for rounding. ROC-AUC, PR-AUC and
    calibration are made of histograms, and `.method` says within which limits the exact area lies. Weights,
    groups, several labels a row and answers without probabilities are refused.

    Args:
        files: A .parquet, .csv or .tsv file, a folder of such files (with the folders in it), a pattern such
            as "predictions/*.parquet", a list of these, or a `pyarrow.dataset.Dataset`.
        labels: The K class names in the order of their places; None: those of the first file's columns
            `p_<class>`.
        workers: How many processes count; None: one for each core that this process may use, by its affinity
            and the quota of its container.
        threshold: As for `evaluate_predictions`.
        metadata: Names of columns of the files in whose values weak parts of the rows are looked for.
        average: As for `evaluate_predictions`.
        metrics: As for `evaluate_predictions`.
        confidence: As for `evaluate_predictions`.
        n_resamples: As for `evaluate_predictions`.
        seed: As for `evaluate_predictions`.
        delimiter: Of CSV files; None is a tab for .tsv and a comma otherwise.
        encoding: Of CSV files.
        resume_dir: A folder in which the statistics of each part are kept as soon as it is counted. Another
            call with the same folder reads them in place of the rows, as long as the file has the same path,
            size and time of change. None: nothing is written.
        progress: Whether to show on stderr how far it is; None: where stderr is a terminal.

    Returns:
        The evaluation. It keeps the worst twenty rows only: `predictions`, and what is made of them, say so.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file cannot be read, lacks a column or has a wrong row; the sentence names the file and
            the row, counted from 0 without the header.
        ChildProcessError: A process that counted was ended from outside.
    """
    column_names(metadata)
    names = None if labels is None else _labels.class_names(labels)
    asked = Asked(
        threshold=threshold,
        average=average,
        metrics=metrics,
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
    )
    checked_options(1, names, asked)
    _checked_reading(delimiter, encoding)
    at_once = cores() if workers is None else _checks.positive_int("workers", workers)
    folder = None if resume_dir is None else _checks.path("resume_dir", resume_dir)
    parts, names, notes = _scanning.parts_of(
        files, names, tuple(metadata), delimiter=delimiter, encoding=encoding
    )
    total = Statistics(names, threshold=threshold, metadata=metadata)
    checked_options(1, names, asked)
    shown = sys.stderr.isatty() if progress is None else _checks.flag("progress", progress)
    if any(part.fragment is not None and not part.identity for part in parts):
        at_once = 1  # rows in this process's memory are in no other
    _Scan(total, parts, folder, _Progress(parts, shown)).run(min(at_once, max(len(parts), 1)))
    result = total.finish(
        average=average, metrics=metrics, confidence=confidence, n_resamples=n_resamples, seed=seed
    )
    return dataclasses.replace(result, warnings=(*result.warnings, *notes))


def _checked_reading(delimiter: Any, encoding: Any) -> None:
    ascii_characters = set(map(chr, range(128))) - set('"\r\n\0')
    if delimiter is not None and not (isinstance(delimiter, str) and delimiter in ascii_characters):
        raise ValueError(f"`delimiter` must be one ASCII character; got {delimiter!r}.")
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(
            f"`encoding` must be one that Python knows, such as 'utf-8' or 'cp1252'; got {encoding!r}."
        ) from None


def _with_note(error: Exception, note: str) -> Exception:
    return type(error)(f"{error}{note}") if note else error


class _Progress:
    """One line on stderr: rows and parts that are counted, and how fast."""

    def __init__(self, parts: Sequence[Part], shown: bool) -> None:
        sizes = [part.rows for part in parts]
        self._rows = None if None in sizes else sum(size or 0 for size in sizes)
        self._parts, self._shown, self._start = len(parts), shown, time.monotonic()

    def say(self, rows: int, parts: int, counted_now: int) -> None:
        if not self._shown:
            return
        of = "" if self._rows is None else f" of {self._rows:,}"
        speed = counted_now / max(time.monotonic() - self._start, 1e-9)
        line = f"{rows:,}{of} rows, {parts:,} of {counted(self._parts, 'part')}, {speed:,.0f} rows a second"
        print(f"\r{line}", end="\n" if parts == self._parts else "", file=sys.stderr, flush=True)


class _Scan:
    """Counts parts, several at once, and adds them up as they come."""

    def __init__(
        self, total: Statistics, parts: list[Part], folder: Path | None, progress: _Progress
    ) -> None:
        self._total, self._folder, self._progress = total, folder, progress
        self._empty = total.empty()
        self._parts = parts
        self._left = iter(parts)
        self._lock = threading.Lock()
        self._done = self._fresh = 0
        self._error: Exception | None = None
        self._workers: list[_Worker] = []

    def run(self, workers: int) -> None:
        """Count all parts; the first error ends it, and what was counted stays in the folder."""
        if workers == 1:
            self._work(lambda part: part.count(self._empty).to_bytes())
        else:
            threads = [threading.Thread(target=self._with_process) for _ in range(workers)]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException:  # Ctrl-C: no thread takes another part
                self._error = self._error or RuntimeError("interrupted")
                for worker in self._workers:
                    worker.kill()
                raise
        if self._error is not None:
            raise _with_note(self._error, self._kept())

    def _kept(self) -> str:
        """Return what becomes of the parts that were counted before an error; nothing if there are none."""
        if not self._done:
            return ""
        parts = (
            f"{self._done:,} of {counted(len(self._parts), 'part')} {'was' if self._done == 1 else 'were'}"
        )
        if self._folder is None:
            return f" {parts} counted already; with `resume_dir` such parts are kept."
        return f" {parts} counted and {'is' if self._done == 1 else 'are'} kept in {str(self._folder)!r}."

    def _with_process(self) -> None:
        try:
            with _Worker() as worker:
                self._workers.append(worker)
                self._work(lambda part: worker.count(self._empty, part))
        except Exception as error:
            self._error = self._error or error

    def _work(self, count: Any) -> None:
        while self._error is None and (part := self._next()) is not None:
            try:
                self._take(part, count)
            except Exception as error:
                self._error = self._error or error

    def _next(self) -> Part | None:
        with self._lock:
            return next(self._left, None)

    def _take(self, part: Part, count: Any) -> None:
        """Add a part: what is kept of it, or what is counted now."""
        kept = self._place(part)
        if kept is not None and kept.is_file():
            try:
                return self._add(_files.read(kept), part, fresh=False)
            except ValueError as error:
                print(f"{str(kept)!r} is counted again: {error}.", file=sys.stderr)
        data = count(part)
        if kept is not None:
            _files.write(kept, lambda path: path.write_bytes(data))
        self._add(data, part, fresh=True)

    def _add(self, data: bytes, part: Part, *, fresh: bool) -> None:
        with self._lock:
            before = self._total.n
            self._total.add_bytes(data, source=part.name)
            self._done += 1
            self._fresh += (self._total.n - before) * fresh
            self._progress.say(self._total.n, self._done, self._fresh)

    def _place(self, part: Part) -> Path | None:
        """Return where the statistics of a part are kept; its name is a hash of all that they depend on."""
        if self._folder is None or not part.identity:
            return None
        key = [_FORMAT, part.identity, part.columns, part.delimiter, part.encoding, self._empty.settings()]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        return self._folder / f"{name}.statistics"


class _Worker:
    """A process of this Python that counts parts; it needs no `if __name__ == "__main__"` in a script."""

    def __enter__(self) -> _Worker:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", _scanning.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._process.communicate()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()

    def count(self, empty: Statistics, part: Part) -> bytes:
        """Return the bytes of the statistics of a part."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _scanning.send(self._process.stdin, pickle.dumps((empty, part)))
            answer = _scanning.receive(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            code = self._process.wait()
            raise ChildProcessError(
                f"A process that counted rows of {part.name!r} was ended from outside (exit code {code}), as "
                "the system does where memory runs out; pass fewer `workers`."
            )
        if answer[:1] == b"E":
            kind, sentence = pickle.loads(answer[1:])
            raise kind(sentence)
        return answer[1:]
