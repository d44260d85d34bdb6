"""Files of a checkpoint folder: found, read, and refused by name where they are damaged.

Nothing here is unpickled or executed: JSON, lines of text and safetensors are all that is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors
from keras_hub.src.utils.preset_utils import get_file

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# What other programs call their weights; none of these formats is read, and a pickle is never opened.
_OTHER_WEIGHTS = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
    "model.ckpt.index",
    "adapter_model.safetensors",
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
# The names that safetensors gives to types of numbers; bfloat16 is the upper half of a float32.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class CheckpointFiles:
    """The files of one checkpoint: a local folder, or what KerasHub can download.

    Args:
        source: A folder, `hf://owner/name`, `kaggle://…` or the name of a KerasHub preset.
        argument: What the caller's argument is called, for errors.
    """

    def __init__(self, source: str, argument: str = "backbone"):
        self.source, self.argument = source, argument
        self.folder = Path(source) if "://" not in source and Path(source).is_dir() else None

    def error(self, name: str, rule: str) -> ValueError:
        """Return the error that begins with the file's name and the checkpoint's."""
        return ValueError(f"{name} of `{self.argument}` {self.source!r} {rule}")

    def path(self, name: str) -> Path | None:
        """Return where a file lies, downloaded if need be; None where the checkpoint has no such file.

        Raises:
            ValueError: There is something of that name that is no readable file.
            FileNotFoundError: Without a network nobody can tell whether there is such a file.
        """
        if self.folder is None:
            try:
                return Path(get_file(self.source, name))
            except FileNotFoundError as error:
                if _unknown(self.source, name, error):
                    raise
                return None
        place = self.folder / name
        if place.is_symlink() and not place.exists():
            raise self.error(name, f"is a symbolic link to {str(place.readlink())!r}, which does not exist.")
        if place.is_dir():
            raise self.error(name, "is a folder, but it must be a file.")
        return place if place.is_file() else None

    def beginning(self, name: str) -> tuple[Path, bytes] | None:
        """Return a file's place and its first bytes; None where there is no such file.

        Raises:
            ValueError: The file is empty, a Git LFS pointer, or a web page.
        """
        place = self.path(name)
        if place is None:
            return None
        with place.open("rb") as file:
            first = file.read(512)
        if not first:
            raise self.error(name, "is empty; download it again.")
        if first.startswith(_LFS_POINTER):
            raise self.error(
                name,
                "is a Git LFS pointer, not the file itself; run `git lfs pull` in the folder, or download "
                "the file again.",
            )
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP):
            raise self.error(
                name, "is a web page that was saved under this name; download the file itself again."
            )
        return place, first

    def text(self, name: str) -> str | None:
        """Return a UTF-8 file's text, whatever its line breaks; None where there is no such file."""
        found = self.beginning(name)
        if found is None:
            return None
        try:
            return found[0].read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                name, f"is not UTF-8 text (byte {error.start}); it is damaged: download it again."
            ) from None

    def json(self, name: str, kind: Any = dict) -> Any:
        """Return what a JSON file holds; an empty `kind` where there is no such file.

        Raises:
            ValueError: The file is no JSON, or holds something else than `kind`.
        """
        text = self.text(name)
        if text is None:
            return kind()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error(
                name, f"is not valid JSON ({error}); it is damaged or cut: download it again."
            ) from None
        if not isinstance(value, kind):
            wanted = "an object" if kind is dict else "a list"
            raise self.error(name, f"must hold {wanted}; it holds {type(value).__name__}.")
        return value

    def tensors(self) -> Tensors:
        """Return the checkpoint's tensors, not yet read: of model.safetensors, or of its shards.

        Raises:
            FileNotFoundError: There is no safetensors file.
            ValueError: A file is damaged, or the index leads out of the folder.
        """
        if self.beginning(WEIGHTS) is not None:
            return Tensors(self, [WEIGHTS])
        index = self.json(WEIGHTS_INDEX)
        if not index:
            raise FileNotFoundError(self._no_weights())
        names = index.get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise self.error(WEIGHTS_INDEX, "has no `weight_map` from tensors to files.")
        for name in names.values():
            if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                raise self.error(
                    WEIGHTS_INDEX,
                    f"names the file {name!r}; a shard must be a .safetensors file beside the index.",
                )
        shards = Tensors(self, sorted(set(names.values())))
        lost = next((tensor for tensor in names if tensor not in shards), None)
        if lost is not None:
            raise self.error(
                WEIGHTS_INDEX, f"promises the tensor {lost!r} in {names[lost]}, which does not hold it."
            )
        return shards

    def _no_weights(self) -> str:
        known = () if self.folder is None else _OTHER_WEIGHTS  # to look for one online is to download it
        other = next((name for name in known if self.path(name) is not None), None)
        if other is None:
            return f"`backbone` {self.source!r} has no {WEIGHTS}."
        if other == "adapter_model.safetensors":
            return (
                f"`backbone` {self.source!r} holds an adapter (adapter_model.safetensors) and not the model "
                "it adapts; merge them (`merge_and_unload` of the peft package) and pass the merged folder."
            )
        load = {"t": ", from_tf=True", "f": ", from_flax=True"}.get(other[0], "")
        return (
            f"`backbone` {self.source!r} has its weights in {other}, which is never opened here; convert "
            'them where you trust the file: python -c "from transformers import AutoModel; '
            f'AutoModel.from_pretrained({self.source!r}{load}).save_pretrained({self.source!r})".'
        )


def _unknown(source: str, name: str, error: FileNotFoundError) -> bool:
    """Whether a file of the Hugging Face hub is neither cached, nor known not to be there.

    Without a network both are one error. A declared pooling must not be lost because only the weights were
    downloaded.
    """
    if type(error.__cause__).__name__ != "LocalEntryNotFoundError":
        return False
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(source.removeprefix("hf://"), name)
    return found is None  # neither a path nor the mark of a file that does not exist


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies: its file, type, shape, and first byte in the file."""

    file: str
    place: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class Tensors:
    """Tensors of one or more safetensors files, by name; each is read when it is asked for."""

    def __init__(self, files: CheckpointFiles, names: list[str]):
        self.files = files
        self._entries: dict[str, _Entry] = {}
        for name in names:
            found = files.beginning(name)
            if found is None:
                raise files.error(name, "is missing, though the index of the weights names it.")
            self._entries.update(self._header(name, *found))

    def _header(self, name: str, place: Path, first: bytes) -> dict[str, _Entry]:
        try:
            with safetensors.safe_open(place, framework="numpy"):  # checks every offset and size
                pass
        except safetensors.SafetensorError as error:
            raise self.files.error(
                name, f"is not a whole safetensors file ({error}); download it again."
            ) from None
        length = int.from_bytes(first[:8], "little")
        with place.open("rb") as file:
            header = json.loads(file.read(8 + length)[8:])
        header.pop("__metadata__", None)
        return {
            tensor: _Entry(
                name, place, part["dtype"], tuple(part["shape"]), 8 + length + part["data_offsets"][0]
            )
            for tensor, part in header.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def check(self, name: str, shape: tuple[int, ...]) -> _Entry:
        """Return where a tensor lies, whose values are not read.

        Raises:
            ValueError: It has another shape, or is no tensor of floating-point numbers.
        """
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            raise self.files.error(
                entry.file,
                f"holds {name} as {entry.dtype}; only unquantised floating-point weights (F64, F32, F16, "
                "BF16) are read.",
            )
        if entry.shape != shape:
            raise self.files.error(
                entry.file,
                f"holds {name} of shape {entry.shape}, but config.json declares {shape}; they are of "
                "different models, or one of them is damaged.",
            )
        return entry

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32; half precision is widened, which loses nothing.

        Raises:
            ValueError: As for `check`, or one of its values is not finite.
        """
        entry = self.check(name, shape)
        values = np.fromfile(entry.place, _DTYPES[entry.dtype], math.prod(shape), offset=entry.start)
        if entry.dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
            values = values.astype(np.float32, copy=False).reshape(shape)
        if not np.isfinite(values).all():
            raise self.files.error(
                entry.file,
                f"holds NaN or infinity in {name}; the file is damaged, or the model diverged when it was "
                "trained.",
            )
        return values
