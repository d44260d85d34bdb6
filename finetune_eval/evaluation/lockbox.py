"""A count of how often a test set was looked at, and whether it may have chosen the model.

Every look is a line in a file that all processes append to. Only hashes, scores and counts of rows are
written: no text, and no result of a single row. Nothing is counted unless it is asked for:
`evaluate(..., lockbox=True)`.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_eval import _files
from finetune_eval.evaluation.power import normal_quantile
from finetune_eval.evaluation.records import Looks
from finetune_eval.evaluation.seeds import expected_best_of

if TYPE_CHECKING:
    from finetune_eval.evaluation._result import Evaluation

__all__ = ["Looks", "home", "look"]

_FILE = "looks.jsonl"
_PARTS_OF_A_LOOK = (b'"model": "', b'"accuracy": ', b'"time": "')
_DIGITS = 4  # of the probabilities that tell models apart: the same model on other hardware stays the same
# The rows are put at random into so many parts, and the wrong ones of each part are counted. That is enough
# to measure how the errors of two models correlate (to about .1), and keeps no row's own result.
_MOST_PARTS = 128
_FEWEST_PARTS = 16
_ROWS_OF_A_PART = 4


def home() -> Path:
    """Return where looks are kept: the folder FINETUNE_EVAL_HOME, or ~/.cache/finetune_eval.

    Raises:
        OSError: The user has no home folder.
    """
    if named := os.environ.get("FINETUNE_EVAL_HOME"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "finetune_eval"
    except RuntimeError:  # a user that the system does not know, as in some containers
        raise FileNotFoundError(errno.ENOENT, "this user has no home folder") from None


def look(evaluation: Evaluation, folder: str | Path | None = None) -> Looks:
    """Record a look at the rows of an evaluation, and say how many there were.

    A result is called optimistic where the test set may have chosen the model: several different models
    were scored on the same rows, and this one has the highest accuracy of them.

    Args:
        evaluation: Its rows must be known by their texts or ids: labels alone do not tell test sets apart.
        folder: Where looks are kept; None: `home()`. Made if it is not there.

    Returns:
        The looks so far, this one included.

    Raises:
        ValueError: The rows have neither texts nor ids.
        OSError: The folder cannot be written.

    Reference:
        Roelofs et al. 2019, NeurIPS: re-used test sets seldom mislead much, so this warns, no more.
    """
    rows, model = _rows_key(evaluation), _model_key(evaluation)
    accuracy = evaluation.accuracy
    mine = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
        "model": model,
        "n": evaluation.n,
        "accuracy": accuracy,
        "loss": evaluation.loss if evaluation.has_probabilities else None,
        "wrong": _wrong_by_part(evaluation),
    }
    path = (home() if folder is None else Path(folder)) / _FILE
    count, first, latest = _append(path, _files.to_json(mine))
    others = [entry["accuracy"] for name, entry in latest.items() if name != model]
    correlation = _correlation([entry.get("wrong") for entry in latest.values()])
    return Looks(
        rows=rows,
        count=count,
        models=len(latest),
        best=all(accuracy > other for other in others),
        first=first,
        luck=_luck(len(latest), correlation, evaluation),
        correlation=correlation,
    )


def not_counted(error: OSError) -> str:
    """Return the warning of an evaluation that was not counted, without a path: results are shared."""
    return (
        "This look at the test rows was not counted: the folder of looks (FINETUNE_EVAL_HOME, or "
        f"~/.cache/finetune_eval) cannot be written ({error.strerror or error})."
    )


def _luck(models: int, correlation: float | None, evaluation: Evaluation) -> float:
    """Return the expected best of k equal models, in accuracy: k-th order statistic times standard error.

    What the models' errors have in common moves all of them alike and favours none: the part that can is
    sqrt(1 - correlation).
    """
    estimate = evaluation.estimates["accuracy"]
    error = (estimate.high - estimate.low) / (2 * normal_quantile(0.5 + estimate.confidence / 2))
    return expected_best_of(models) * error * math.sqrt(1 - (correlation or 0.0))


def _wrong_by_part(evaluation: Evaluation) -> list[int] | None:
    """Count the wrong rows in each of some random parts of the rows; None where these would be too small.

    A row belongs to the same part whatever the order of the rows, and whichever model is scored.
    """
    frame = evaluation.predictions
    parts = min(_MOST_PARTS, len(frame) // _ROWS_OF_A_PART)
    if parts < _FEWEST_PARTS:
        return None
    names = frame["text_hash" if "text_hash" in frame else "id"]
    digests = b"".join(hashlib.sha256(str(name).encode()).digest()[:8] for name in names)
    place = np.empty(len(frame), dtype=np.int64)
    place[np.argsort(np.frombuffer(digests, dtype="<u8"), kind="stable")] = np.arange(len(frame)) % parts
    wrong = frame["label"].to_numpy() != frame["prediction"].to_numpy()
    return [int(count) for count in np.bincount(place, weights=wrong, minlength=parts)]


def _correlation(wrong: Sequence[Any]) -> float | None:
    """Return how the models' errors correlate, on average over those pairs of which it is known.

    Errors added up over random parts of equally many rows correlate as the errors of the rows do.
    """
    known = [counts for counts in wrong if isinstance(counts, list) and len(counts) >= _FEWEST_PARTS]
    tables = [np.asarray(counts, dtype=np.float64) for counts in known if len(counts) == len(known[-1])]
    varying = [table for table in tables if np.isfinite(table).all() and np.ptp(table) > 0]
    if len(varying) < 2:
        return None
    pairs = np.asarray(np.corrcoef(varying))[np.triu_indices(len(varying), 1)]
    return float(np.clip(pairs.mean(), 0.0, 1.0))


def _rows_key(evaluation: Evaluation) -> str:
    frame = evaluation.predictions
    if "text_hash" in frame:
        names = frame["text_hash"]
    elif evaluation.identified:
        return evaluation.rows_hash
    else:
        raise ValueError(
            "`lockbox` needs `texts` or `ids`: rows known by their labels alone cannot be told from others."
        )
    lines = sorted(f"{name}\t{label}" for name, label in zip(names, frame["label"], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _model_key(evaluation: Evaluation) -> str:
    frame = evaluation.predictions
    order = (
        np.argsort(frame["text_hash"].to_numpy(dtype=str), kind="stable")
        if "text_hash" in frame
        else slice(None)
    )
    if not evaluation.has_probabilities:
        answers = frame["prediction"].to_numpy(dtype=object)[order].tolist()
        return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]
    columns = [f"p_{label}" for label in evaluation.labels]
    p = np.round(frame[columns].to_numpy(dtype=np.float64)[order], _DIGITS) + 0.0
    return hashlib.sha256(np.ascontiguousarray(p).tobytes()).hexdigest()[:16]


def _append(path: Path, entry: dict[str, Any]) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Append a look, and return what the file says of the same rows.

    Writers in other processes wait for each other, none is lost. A line that names these rows, a model and a
    score but does not fit its checksum counts as a look, of a model that is not known. Lines of other rows
    are passed over unread: a million cost a tenth of a second.

    Returns:
        How many looks there were, when the first one was, and the last one of each model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with _files.locked(path):
            line = _files.json_line(entry).encode()
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer died half-way through a line: that line is lost, not this one
            if os.write(handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
            with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as file:
                return _past_looks(file, entry["rows"])
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def _past_looks(file: mmap.mmap, rows: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Return the number of looks at these rows, the time of the first, and the last one of each model."""
    key, count, first, last = json.dumps({"rows": rows})[1:-1].encode(), 0, "", {}
    end = 0
    while (at := file.find(key, end)) >= 0:
        start, end = file.rfind(b"\n", 0, at) + 1, file.find(b"\n", at)
        places = [file.find(part, start, end) for part in _PARTS_OF_A_LOOK]
        if min(places) < 0:
            continue
        if not first and (record := _look_of_line(file[start:end])) is not None:
            first = record["time"]
        last[file[places[0] : end].split(b'"', 4)[3]] = start, end
        count += 1
    looks = [_look_of_line(file[start:end]) for start, end in last.values()]
    return count, first, {look["model"]: look for look in looks if look is not None}


def _look_of_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of the file as a look; None where it is damaged, or of another program."""
    record = _files.record_of_line(line)
    if record is None:
        return None
    number = type(record.get("accuracy")) in (int, float)
    return record if number and all(type(record.get(n)) is str for n in ("time", "rows", "model")) else None
