"""The folder of a study: what each training gave, so that a study that was cut short goes on."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _files

_FORMAT = 1  # of study.json and of the files of the trainings
_SETTINGS = "study.json"
_HASHED = (
    "rows",
    "groups",
    "learner",
    "sample_weight",
)  # settings of which there are hashes only: nobody wants to read those


class Store:
    """The folder of a study, or none: then nothing is written.

    Args:
        folder: The folder, or None.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return self.folder is not None and (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        """Return where a file is."""
        assert self.folder is not None
        return self.folder / name

    def read(self, name: str) -> dict[str, Any]:
        """Read a record; see `_files.read_json` for what is refused."""
        return _files.read_json(self.path(name), newest_format=_FORMAT, checked_from=_FORMAT)

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a record, whole or not at all."""
        if self.folder is not None:
            _files.write_json(self.path(name), record, format=_FORMAT)

    def save_model(self, name: str, model: Any) -> None:
        """Write a Keras model, whole or not at all."""
        if self.folder is not None:
            _files.write(self.path(name), model.save)


@contextlib.contextmanager
def opened(run_dir: Any, settings: Mapping[str, Any], *, kind: str) -> Iterator[Store]:
    """Open the folder of a study, and keep other processes out of it.

    Args:
        run_dir: The folder, made if it is not there; None for none.
        settings: What every training of the study rests on, as JSON data.
        kind: What the study is called.

    Raises:
        ValueError: The folder holds a study of other settings; the sentence says which.
        FileExistsError: Another process is writing to it, or it holds something else.
        OSError: It cannot be written.
    """
    if run_dir is None:
        yield Store(None)
        return
    folder = _checks.path("run_dir", run_dir)
    shown = f"`run_dir` {str(folder)!r}"
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{shown} is a file; pass a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_files.held_alone(folder / ".lock"))
        except BlockingIOError:
            raise FileExistsError(f"{shown} is being written by another process; wait for it.") from None
        store, wanted = Store(folder), {"kind": kind, **settings}
        if store.has(_SETTINGS):
            _check_settings(shown, store.read(_SETTINGS), wanted)
        elif any(path.name != ".lock" for path in folder.iterdir()):
            raise FileExistsError(f"{shown} holds other files, and no {kind}; pass a new folder.")
        else:
            store.write(_SETTINGS, wanted)
        _files.remove_leftovers(folder)
        yield store


def _check_settings(shown: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if known.get(name) != value:
            what = f"was {known.get(name)!r} and is {value!r} now"
            if name in _HASHED:
                what = "are others" if name.endswith("s") else "is another"
            raise ValueError(
                f"{shown} holds a {known.get('kind', 'study')} of other settings: `{name}` {what}. Pass what "
                "it was begun with to go on with it, or a new folder."
            )


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON data, exact to the bit."""
    values = np.ascontiguousarray(array, dtype="<f8")
    return {"shape": list(values.shape), "float64": base64.b64encode(values.tobytes()).decode()}


def unpacked(data: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the array that `packed` made into JSON data."""
    values = np.frombuffer(base64.b64decode(data["float64"]), dtype="<f8")
    return values.reshape(data["shape"]).astype(np.float64)
