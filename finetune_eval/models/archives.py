"""Checks of a saved model before Keras opens it, so that a small file cannot fill the memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_eval import _files
from finetune_eval.models.checkpoint_files import CheckpointFiles

# A model's weights do not compress, and its other members are small. A member may unpack to this much in any
# case, and beyond that to this many times its packed size.
_FREE_BYTES = 64 << 20
_MOST_TIMES = 20
_SEAL, _SEAL_FORMAT = "checksums.json", 1
# What Keras writes; the vocabulary is among the assets.
_MEMBERS = ("config.json", "metadata.json", "model.weights.h5")


def check_archive(path: Path) -> None:
    """Refuse a `.keras` file that is cut, or that unpacks to far more than it holds; nothing is unpacked.

    Raises:
        ValueError: The sentence names the file, the member, and its sizes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(path)!r} is no whole .keras file ({error}); it was cut or damaged: copy it again."
        ) from None
    lost = next((name for name in _MEMBERS if name not in {member.filename for member in members}), None)
    if lost is not None:
        raise ValueError(f"{str(path)!r} is no .keras file of a whole model: it holds no {lost}.")
    for member in members:
        _check_size(path, member.filename, member.file_size, member.compress_size)
    _check_size(path, "everything", sum(member.file_size for member in members), path.stat().st_size)


def _check_size(path: Path, name: str, unpacked: int, packed: int) -> None:
    if unpacked > _FREE_BYTES + _MOST_TIMES * packed:
        raise ValueError(
            f"{str(path)!r} is not opened: {name} in it would unpack from {packed:,} to {unpacked:,} bytes, "
            "which no saved model does."
        )


def read_archive(path: Path) -> Any:
    """Return the model of a `.keras` file, as Keras loads it in its safe mode.

    Raises:
        ValueError: The file is damaged, unpacks to too much, holds code, or weights that are not finite.
    """
    check_archive(path)
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # of Keras, h5py, zlib: anything a damaged file leads to
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} cannot be loaded ({type(error).__name__}: {reason}); it is damaged, or holds "
            "what is not loaded from a file."
        ) from error
    broken = not_finite(model)
    if broken is not None:
        raise ValueError(
            f"{str(path)!r} holds NaN or infinity in {broken}: the file is damaged, or the model diverged "
            "when it was trained; every answer would be NaN."
        )
    return model


def read_weights(files: CheckpointFiles, name: str, load: Callable[[str], Any]) -> None:
    """Let `load` read an HDF5 file of weights.

    Raises:
        FileNotFoundError: There is none of that name.
        ValueError: It is damaged.
    """
    found = files.beginning(name)
    if found is None:
        raise FileNotFoundError(f"`{files.argument}` {files.source!r} has no {name}.")
    try:
        load(str(found[0]))
    except Exception as error:  # of Keras and h5py: anything a damaged file leads to
        raise files.error(name, f"cannot be read ({error}); it is damaged: copy it again.") from error


def seal_preset(folder: Path) -> None:
    """Write the checksums of a preset's files beside them, so that `check_seal` finds damage."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
    sums = {path.relative_to(folder).as_posix(): _files.sha256(path) for path in files}
    _files.write_json(folder / _SEAL, {"sha256": sums}, format=_SEAL_FORMAT)


def check_seal(files: CheckpointFiles) -> None:
    """Refuse a preset of which a file is not as `seal_preset` saw it; one without a seal is let through.

    Raises:
        ValueError: The sentence names the file.
    """
    if files.folder is None or not (files.folder / _SEAL).is_file():
        return
    seal = _files.read_json(files.folder / _SEAL, newest_format=_SEAL_FORMAT, checked_from=_SEAL_FORMAT)
    sums = seal.get("sha256")
    if not isinstance(sums, dict):
        raise files.error(_SEAL, "holds no checksums; remove it.")
    for name, expected in sums.items():
        path = files.folder / name
        if not path.is_file() or _files.sha256(path) != expected:
            files.beginning(name)  # an error that says more, where it is a pointer or a web page
            raise files.error(
                name,
                f"is not the file that {_SEAL} was written with: it is damaged, or was changed. Copy the "
                f"folder again, or remove {_SEAL} if it was changed on purpose.",
            )


def not_finite(model: Any) -> str | None:
    """Return the path of the first weight that holds NaN or infinity; None where all are finite."""
    floating = (weight for weight in model.weights if "float" in weight.dtype)
    broken = (weight for weight in floating if not np.isfinite(keras.ops.convert_to_numpy(weight)).all())
    return next((str(weight.path) for weight in broken), None)
