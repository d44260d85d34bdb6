"""A run on disk: where each file of a run folder is, who may write it, and what became of the run.

```
runs/NAME/
  manifest.json       settings, versions, hashes, and the status: running, complete, interrupted or diverged
  data.json           what happened to the rows before they were learned from
  train.parquet       the training texts and labels, to look for them in test rows
  trace.jsonl         one line an epoch, written as the epoch ends
  checkpoint/         while training: the model as it began, its rows, its best epoch so far, checkpoints
  model/model.keras   the trained model
  evaluation.json     predictions.parquet       one evaluation; each names the other's checksum
  report.html         MODEL_CARD.md
```

One process owns a run folder at a time: it holds the lock of `.lock`, which the system frees however the
process ends. A manifest that says "running" while nobody holds the lock is of a run that was killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune_eval import _checks, _files, _pairs

_FORMAT = 1  # of manifest.json; the first with a checksum
_STORIES = {
    "interrupted": "was interrupted",
    "diverged": "diverged",
    "running": "was cut short: its process was killed",
}


class Run:
    """The files of a run folder. `Run.create` and `Run.own` give one that this process may write to.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.manifest = self.path / "manifest.json"
        self.data = self.path / "data.json"
        self.train = self.path / "train.parquet"
        self.trace = self.path / "trace.jsonl"
        self.checkpoint = self.path / "checkpoint"
        self.model = self.path / "model" / "model.keras"
        self.evaluation = self.path / "evaluation.json"
        self.predictions = self.path / "predictions.parquet"
        self.report = self.path / "report.html"
        self.card = self.path / "MODEL_CARD.md"
        self.notes: dict[str, Any] = {}  # what who resumes the run needs to know besides
        self._lock = self.path / ".lock"
        self.recorded: dict[str, Any] = {}  # what every manifest of this run says beside what it is given

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # --- who may write ---------------------------------------------------------

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: str | os.PathLike[str], *, or_next_free: bool = False) -> Iterator[Run]:
        """Make a run folder, and own it until the context ends.

        A folder that was made here is removed again where no manifest was written: nothing had begun.

        Args:
            path: The folder; it may exist, without any file of a run in it.
            or_next_free: Whether to take NAME-2, NAME-3, ... where NAME is taken.

        Raises:
            FileExistsError: There is a run in it, or another process is writing one; the sentence says
                what became of that run.
            OSError: It cannot be written.
        """
        first = _checks.path("run_dir", path)
        with contextlib.ExitStack() as held:
            for number in itertools.count(1):
                run = cls(first if number == 1 else first.with_name(f"{first.name}-{number}"))
                try:
                    run._claim(held, alone=or_next_free)
                    break
                except FileExistsError:
                    if not or_next_free:
                        raise
            yield run

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Own the folder of a run that exists, so that no other process writes to it meanwhile.

        Raises:
            FileExistsError: Another process is writing to it.
        """
        with contextlib.ExitStack() as held:
            self._hold(held, f"{str(self.path)!r}")
            yield

    def _claim(self, held: contextlib.ExitStack, *, alone: bool) -> None:
        """Hold the lock of a folder that is new, or has no file of a run (with `alone`: no file) in it."""
        shown = f"`run_dir` {str(self.path)!r}"
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise FileExistsError(f"{shown} is a file; pass a folder.")
        attempt = contextlib.ExitStack()
        with attempt:
            try:
                attempt.callback(_remove_empty, [self.path, *self.path.parents], _missing(self.path))
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(shown, error) from None
            self._hold(attempt, shown)
            if os.path.lexists(self.manifest):
                what = "pass a new folder, or remove it first."
                if self._can_go_on():
                    what = "pass `resume=True` to go on with it, or a new folder, or remove it first."
                raise FileExistsError(f"{shown} {self.account(owned=True)}; {what}")
            found = sorted({path.name for path in self.path.iterdir()} - {self._lock.name})
            ours = [name for name in found if name in self._names()]
            if ours:
                raise FileExistsError(
                    f"{shown} has a {ours[0]} but no manifest.json: it is not a whole run, and nothing in it "
                    "is overwritten. Pass a new folder, or remove it first."
                )
            if alone and found:
                raise FileExistsError(f"{shown} is not empty.")
            held.push(attempt.pop_all())

    def _hold(self, held: contextlib.ExitStack, shown: str) -> None:
        try:
            held.enter_context(_files.held_alone(self._lock))
        except BlockingIOError:
            raise FileExistsError(
                f"{shown} is being written by another process; pass another folder, or wait until it ends."
            ) from None
        except OSError as error:
            raise _unwritable(shown, error) from None
        for folder in (self.path, self.model.parent, self.checkpoint):
            _files.remove_leftovers(folder)

    def _names(self) -> set[str]:
        paths = [value for value in vars(self).values() if isinstance(value, Path) and value != self.path]
        return {path.relative_to(self.path).parts[0] for path in paths}

    def in_use(self) -> bool:
        """Whether a process is writing to the folder."""
        try:
            with _files.locked(self._lock, shared=True, wait=False):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _can_go_on(self) -> bool:
        try:
            manifest = self.read_manifest()
        except (OSError, ValueError):
            return False
        return "resume" in manifest and manifest.get("status") in ("running", "interrupted")

    # --- what became of it -----------------------------------------------------

    def account(self, *, owned: bool = False) -> str:
        """Return what the folder holds, as the rest of a sentence that begins with its name.

        Args:
            owned: Whether this process owns the folder, so that nobody else can be training in it.
        """
        try:
            manifest = self.read_manifest()
        except (OSError, ValueError):
            return "holds a run whose manifest.json cannot be read"
        status = manifest.get("status")
        if status == "complete":
            return "holds a run whose training is complete"
        if status == "running" and not owned and self.in_use():
            return "holds a run that another process is still training"
        return f"holds a run that {_STORIES.get(str(status), 'is not whole')}{self._progress(manifest)}"

    def _progress(self, manifest: Mapping[str, Any]) -> str:
        try:
            done = len(_files.read_lines(self.trace))
        except (OSError, ValueError):
            done = 0
        settings = manifest.get("settings")
        epochs = settings.get("epochs") if isinstance(settings, dict) else None
        where = ""
        if isinstance(epochs, int):
            where = (
                f" in epoch {done + 1} of {epochs}"
                if done < epochs
                else f" after the last of {epochs} epochs"
            )
        if self.weights is None:
            return f"{where}; no weights were kept"
        return f"{where}; its weights are kept, and `load_model` reads them"

    @property
    def weights(self) -> Path | None:
        """The file that holds the trained weights: the model's, or that of the best epoch of a killed run."""
        return next((path for path in (self.model, self.checkpoint / "best.npz") if path.is_file()), None)

    # --- what it holds ---------------------------------------------------------

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write `manifest.json`, and into it what is in `recorded`."""
        _files.write_json(self.manifest, _files.to_json({**manifest, **self.recorded}), format=_FORMAT)

    def read_manifest(self) -> dict[str, Any]:
        """Read `manifest.json`.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is damaged.
        """
        return _files.read_json(self.manifest, newest_format=_FORMAT, checked_from=_FORMAT)

    def save_training_rows(self, texts: Any, y: np.ndarray, labels: Sequence[str]) -> str:
        """Write the training rows to `train.parquet`; return its checksum.

        Args:
            texts: (n,) texts, or (n, 2) texts of pairs, which are joined.
            y: (n,) places of their classes: the column "label" has the names. Multilabel: (n, K) zeros and
                ones, a column "y_<name>" each, as files of predictions have them.
            labels: The names of the classes.
        """
        import pandas as pd

        rows = pd.DataFrame({"text": list(_pairs.one_text(np.asarray(texts, dtype=object)))})
        if y.ndim == 1:
            rows["label"] = np.asarray(labels, dtype=object)[y]
        else:
            rows[[f"y_{name}" for name in labels]] = y
        _files.write(self.train, lambda file: _files.write_table(file, rows))
        return _files.sha256(self.train)

    def training_rows(self) -> tuple[list[str], Any]:
        """Return the training texts and the names of their classes.

        Multilabel: instead of the names a DataFrame of zeros and ones, a column a label.

        Raises:
            FileNotFoundError: The run kept none.
            ValueError: The file is damaged, or not the one that the run wrote.
        """
        shown = repr(str(self.train))
        if not self.train.is_file():
            raise FileNotFoundError(f"{shown} does not exist.")
        known = self.read_manifest().get("files", {}) if self.manifest.is_file() else {}
        if known.get(self.train.name, digest := _files.sha256(self.train)) != digest:
            raise ValueError(
                f"{shown} is damaged or was changed: it is not the file that its run wrote. "
                "Restore it from a copy."
            )
        import pandas as pd

        try:
            frame = pd.read_parquet(self.train)
        except (OSError, ValueError) as error:  # pyarrow's errors are both
            raise ValueError(f"{shown} is damaged: it cannot be read as Parquet ({error}).") from None
        several = frame.filter(regex="^y_")
        for column in ("text",) if several.columns.size else ("text", "label"):
            if column not in frame:
                raise ValueError(
                    f"{shown} needs the columns 'text' and 'label'; it has "
                    f"{', '.join(map(repr, map(str, frame.columns)))}."
                )
        texts = frame["text"].tolist()
        if several.columns.size:
            return texts, several.rename(columns=lambda name: name.removeprefix("y_"))
        return texts, frame["label"].to_numpy()

    def save_model(self, save: Callable[[Path], Any]) -> None:
        """Let `save` (as `model.save`) write `model/model.keras`, whole or not at all."""
        _files.write(self.model, save)

    def begin_checkpoint(self, save: Callable[[Path], Any]) -> None:
        """Let `save` write the model as it begins: its structure, and the weights that stay as they are."""
        _files.write(self.checkpoint / "model.keras", save)

    def save_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Write all weights with which the model begins, where a saved model has them otherwise."""
        arrays = {str(place): weight for place, weight in enumerate(weights)}
        _files.write(self.checkpoint / "weights.npz", lambda file: write_arrays(file, arrays))

    def read_weights(self) -> list[np.ndarray]:
        """Read what `save_weights` wrote."""
        arrays = read_arrays(self.checkpoint / "weights.npz")
        return [arrays[str(place)] for place in range(len(arrays))]

    def save_best(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the weights of the best epoch so far into the checkpoint, in place of those before."""
        _files.write(self.checkpoint / "best.npz", lambda file: write_arrays(file, weights))

    def read_best(self) -> dict[str, np.ndarray]:
        """Read what `save_best` wrote."""
        return read_arrays(self.checkpoint / "best.npz")

    def save_rows(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the rows that train and validate into the checkpoint, for who resumes the run."""
        _files.write(self.checkpoint / "rows.npz", lambda file: write_arrays(file, arrays))

    def read_rows(self) -> dict[str, np.ndarray]:
        """Read what `save_rows` wrote."""
        return read_arrays(self.checkpoint / "rows.npz")

    def abandon(self) -> None:
        """Remove what was written before a training that then could not begin."""
        self.end_checkpoint()
        for path in (self.train, self.manifest):
            path.unlink(missing_ok=True)

    def end_checkpoint(self) -> None:
        """Remove the checkpoint: the model is written."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def check_room(self, bytes_of_weights: int) -> None:
        """Raise OSError where the disk has no room for the files that training writes."""
        # The model as it begins, the weights of the best epoch, and the model at the end.
        needed = 3 * bytes_of_weights
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"`run_dir` {str(self.path)!r} is on a disk with {_size(free)} free; this model needs "
                f"{_size(needed)}. Make room, or pass another folder."
            )


@contextlib.contextmanager
def claimed(run_dir: str | os.PathLike[str] | Run | None, *, again: bool = False) -> Iterator[Run | None]:
    """Give the run of an argument `run_dir`: a new one, owned meanwhile; an owned one as it is; or None.

    Args:
        run_dir: The argument.
        again: Whether a run that is there already is taken, too.
    """
    if run_dir is None or isinstance(run_dir, Run):
        yield run_dir
        return
    known = Run(_checks.path("run_dir", run_dir))
    if again and known.manifest.is_file():
        with known.own():
            yield known
        return
    with Run.create(run_dir) as run:
        yield run


def safe_name(text: str) -> str:
    """Return a text as the name of a folder: no path, nothing hidden, never empty.

    Example:
        >>> safe_name("reviews"), safe_name(".."), safe_name("a/b")
        ('reviews', 'run', 'a-b')
    """
    return text.replace(os.sep, "-").replace("\0", "").strip().lstrip(".") or "run"


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `.npz`; for the `fill` of `_files.write`."""
    with open(file, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]  # NumPy types no names of arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises:
        ValueError: The file is not there or damaged; the sentence names it.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile's, zlib's and NumPy's errors have nothing in common
        raise ValueError(f"{str(path)!r} is damaged: it cannot be read as arrays ({error}).") from None


def _missing(path: Path) -> set[Path]:
    return {folder for folder in (path, *path.parents) if not folder.exists()}


def _remove_empty(folders: list[Path], made: set[Path]) -> None:
    """Remove the folders that were made here, innermost first, as far as nothing is in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            if folder in made:
                folder.rmdir()


def _unwritable(shown: str, error: OSError) -> OSError:
    return type(error)(f"{shown} cannot be written ({error.strerror or error}); pass another folder.")


def _size(amount: int) -> str:
    return f"{amount / 1e6:,.1f} MB"


__all__ = ["Run", "claimed", "safe_name"]
