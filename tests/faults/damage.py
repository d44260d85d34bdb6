"""Files that are cut at 20 places and have a bit flipped at 50: refused by name, or the same numbers."""

from __future__ import annotations

import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import conftest as tiny
import numpy as np
from common import Tally, command, shown

from finetune_eval import DataTrace, Evaluation, load_predictions
from finetune_eval.data.ledger import Step
from finetune_eval.evaluation.lockbox import look
from finetune_eval.runs import Run

Readers = dict[str, list[tuple[str, Callable[[], Any]]]]
_ROWS = list(tiny.TEXTS)


def whole_run(folder: Path) -> Run:
    """Make a run with all of its files, those of a checkpoint as a killed training leaves them included."""
    from finetune_eval import evaluate, fine_tune

    x, y = _ROWS * 4, list(tiny.SENTIMENTS) * 4
    with Run.create(folder) as run:
        model = tiny.text_classifier()
        fine_tune(model, x, y, validation_data=(x, y), epochs=2, verbose=False, run_dir=run)
        result = evaluate(model, x[:8], y[:8], n_resamples=100)
        result.save(folder)
        DataTrace((Step("read", "rows.csv", 32, 2, 32, 2, "a note", "0123"),)).save(run.data)
        look(result, folder / "looks")
        look(result, folder / "looks")
    killed = Run(folder / "killed")
    killed.begin_checkpoint(tiny.text_classifier().save)
    trained = {str(place): value for place, value in enumerate(model.get_weights())}
    killed.save_best(trained)
    return run


def said(*arguments: Any) -> str:
    """Return what a command prints; ValueError, with its sentence, where it fails."""
    code, out, err = command(*arguments)
    if code:
        raise ValueError(err)
    return out


def of_run(run: Run) -> Readers:
    """What reads each file of a run, and returns what it read in a form that can be compared."""
    from finetune_eval import load_model

    page = run.path.parent / "page.html"

    def paged() -> str:
        said("report", run.path, "--output", page)
        return page.read_text(encoding="utf-8")

    def weights(folder: Path) -> list[bytes]:
        return [value.tobytes() for value in load_model(folder).get_weights()]

    def rows() -> object:
        texts, labels = run.training_rows()
        return texts, labels.tolist()

    load, show = lambda: Evaluation.load(run.path), lambda: said("evaluate", run.path)  # noqa: E731
    killed = run.path / "killed"
    return {
        "manifest.json": [("read_manifest", run.read_manifest), ("report", paged)],
        "data.json": [("DataTrace.load", lambda: DataTrace.load(run.data)), ("report", paged)],
        "trace.jsonl": [("report", paged)],
        "train.parquet": [("training_rows", rows)],
        "evaluation.json": [("Evaluation.load", load), ("evaluate", show)],
        "predictions.parquet": [
            ("Evaluation.load", load), ("evaluate", show),
            ("load_predictions", lambda: load_predictions(run.predictions, n_resamples=100)),
        ],
        "model/model.keras": [("load_model", lambda: weights(run.path))],
        "killed/checkpoint/model.keras": [("load_model", lambda: weights(killed))],
        "killed/checkpoint/best.npz": [("load_model", lambda: weights(killed))],
    }  # fmt: skip


def folders(folder: Path) -> Iterator[tuple[str, Path, Readers, bool]]:
    """Yield what else is read: its name, its folder, its readers, and whether checksums lie beside it.

    Where others wrote the files there are none: nothing can tell damage from what was meant.
    """
    from finetune_eval import build_model, load_model

    def answers() -> bytes:
        return build_model(str(hub), tiny.LABELS).predict(_ROWS).tobytes()

    hub, preset, alone = tiny.checkpoint(folder / "hub"), folder / "preset", folder / "alone"
    names = ("config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors")
    yield "a Hugging Face folder", hub, {name: [("build_model", answers)] for name in names}, False
    build_model(str(hub), tiny.LABELS).save_to_preset(str(preset))
    files = [str(path.relative_to(preset)) for path in sorted(preset.rglob("*")) if path.is_file()]
    read = [("load_model", lambda: load_model(preset).predict(_ROWS).tobytes())]
    yield "a folder of `save_to_preset`", preset, {name: read for name in files}, True
    (preset / "checksums.json").unlink()
    files.remove("checksums.json")
    yield "a preset folder of another program", preset, {name: read for name in files}, False
    alone.mkdir()
    rows = np.random.default_rng(0).random(40)
    lines = [f"film {row},{'ab'[row % 2]},{p:.4f},{1 - p:.4f}" for row, p in enumerate(rows)]
    (alone / "theirs.csv").write_text("text,label,p_a,p_b\n" + "\n".join(lines) + "\n")
    score = [("load_predictions", lambda: load_predictions(alone / "theirs.csv", n_resamples=100))]
    yield "predictions of another program", alone, {"theirs.csv": score}, False


def damaged(whole: bytes, scale: float) -> Iterator[tuple[str, bytes]]:
    """Yield a file cut at 20 places and with a bit flipped at 50, spread over all of it."""
    for place in np.linspace(0, len(whole) - 1, max(3, round(20 * scale))).astype(int).tolist():
        yield f"cut after {place} of {len(whole)} bytes", whole[:place]
    chance, flips = random.Random(0), max(5, round(50 * scale))
    for turn in range(flips):
        place = min(len(whole) - 1, int(len(whole) * (turn + chance.random()) / flips))
        bit = 1 << chance.randrange(8)
        yield (
            f"byte {place} of {len(whole)} ^ {bit}",
            whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :],
        )


def read_damaged(tally: Tally, path: Path, found: list[tuple[str, Callable[[], Any]]], scale: float) -> None:
    """Damage one file in every way, and have every reader read it."""
    whole = path.read_bytes()
    for reader, read in found:
        right = read()
        for how, content in shown(tally.fault, damaged(whole, scale)):
            tally.tries += 1
            path.write_bytes(content)
            try:
                with warnings.catch_warnings(record=True) as said_so:
                    warnings.simplefilter("always")
                    same = read() == right
                if not same and not any(path.name in str(each.message) for each in said_so):
                    tally.lost.append(f"{reader} of {path.name}: {how}: other numbers")
            except (ValueError, TypeError, OSError) as error:
                words = f"The vocabulary of `backbone` {str(path.parent)!r}"  # its files do not fit
                if not any(name in str(error) for name in (path.name, words)) or "not foreseen" in str(error):
                    tally.unclear.append(f"{reader} of {path.name}: {how}: {type(error).__name__}: {error}")
            except Exception as error:
                tally.unclear.append(f"{reader} of {path.name}: {how}: {type(error).__name__}: {error}")
        path.write_bytes(whole)


def damage(scale: float) -> Iterator[Tally]:
    """Cut and flip every file of a run, of checkpoint folders, and of predictions."""
    with tempfile.TemporaryDirectory() as temporary:
        run = whole_run(Path(temporary) / "run")
        for name, found in of_run(run).items():
            tally = Tally(f"`{name}` cut or flipped".replace("killed/", ""))
            read_damaged(tally, run.path / name, found, scale)
            yield tally
        for what, folder, files, checked in folders(Path(temporary)):
            tally = Tally(f"{what}: each file cut or flipped")
            for name, found in files.items():  # a preset of others has many files, each slow to load
                read_damaged(
                    tally, folder / name, found, 0.3 * scale if len(files) > 4 and not checked else scale
                )
            if not checked:
                # Nobody can know that a weight, a word or a probability is another one than was meant.
                tally.note = f"{len(tally.lost)} read as other numbers: nothing tells what was meant"
                tally.lost.clear()
            yield tally
        shutil.rmtree(run.path)
