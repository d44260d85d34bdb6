"""Disks that are full, files that may not grow, and folders that cannot be written: for every writer."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import conftest as tiny
import numpy as np
from common import Tally, command, evaluation, shown

from finetune_eval import DataTrace, Evaluation, TrainingTrace, load_predictions
from finetune_eval.data.ledger import Step
from finetune_eval.evaluation.lockbox import look
from finetune_eval.reports.card import write_card
from finetune_eval.reports.html import report
from finetune_eval.runs import Run

_NOBODY = 65534  # a user who owns nothing


def writers() -> dict[str, Callable[[Path], object]]:
    """Every function that writes, by name; each gets the folder to write into."""
    from finetune_eval import fine_tune

    result, x = evaluation(), tiny.numeric_rows(64)
    trace = TrainingTrace.from_history({"loss": [0.5] * 50})
    manifest = {"status": "complete", "settings": {"epochs": 3}, "padding": "x" * 5000}
    texts, weights = [f"{i} text" for i in range(3000)], {"0": np.random.default_rng(0).random(3000)}
    flow = DataTrace((Step("a", "b", 1, 1, 1, 1),) * 60)

    def train(folder: Path) -> object:
        new = next(
            folder / f"run-{number}" for number in range(99) if not (folder / f"run-{number}").exists()
        )
        return fine_tune(tiny.numeric_classifier(), *x, epochs=1, verbose=False, run_dir=new)

    return {
        "fine_tune": train,
        "Evaluation.save": lambda folder: result.save(folder / "saved"),
        "report": lambda folder: report(result, folder / "report.html", training=trace),
        "write_card": lambda folder: write_card(result, folder / "MODEL_CARD.md", training=trace),
        "DataTrace.save": lambda folder: flow.save(folder / "data.json"),
        "lockbox": lambda folder: [look(result, folder / "looks") for _ in range(60)],
        "manifest.json": lambda folder: Run(folder).write_manifest(manifest),
        "train.parquet": lambda folder: Run(folder).save_training_rows(texts, np.arange(3000), range(3000)),
        "best.npz": lambda folder: Run(folder).save_best(weights),
    }


def attempt(tally: Tally, name: str, write: Callable[[Path], object], folder: Path) -> None:
    """Let a writer fail.

    Its error names the file or folder; what was there stays as it was, and nothing else is left. Where it
    does not fail, for there was room, or because a trained model is returned with a warning, what it wrote
    can be read.
    """
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tally.tries += 1
    done = False
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            write(folder)
        named = [str(each.message) for each in said if "could not be written" in str(each.message)]
        tally.unclear += [f"{name}: {sentence}" for sentence in named if str(folder) not in sentence]
        done = True
    except OSError as error:
        if str(folder) not in str(error):
            tally.unclear.append(f"{name}: {error}")
    except Exception as error:
        tally.unclear.append(f"{name}: {type(error).__name__}: {error}")
    for path, content in before.items():
        now = path.read_bytes() if path.is_file() else b""
        grown = path.suffix == ".jsonl" and now.startswith(content)  # looks, of which some had room
        if not (now == content or grown or (done and "run-" not in str(path))):
            tally.lost.append(f"{name}: {path.name} is not what it was")
    left = [path.name for path in folder.rglob(".*") if path.name not in (".lock",)]
    if left:
        tally.lost.append(f"{name}: leaves {left}")
    if done and (problem := unreadable(folder)):
        tally.lost.append(f"{name}: {problem}")


def unreadable(folder: Path) -> str:
    """Read every file of a folder as a user would; return what could not be."""
    from finetune_eval import load_model

    try:
        for path in folder.rglob("*"):
            if path.name == "evaluation.json":
                Evaluation.load(path.parent)
            elif path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
                return "half a page"
            elif path.name == "manifest.json":
                run = Run(path.parent)
                if run.read_manifest().get("rows") is not None and run.weights is not None:
                    load_model(run.path)
            elif path.name == "data.json":
                DataTrace.load(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def disks(scale: float) -> Iterator[Tally]:
    """Fill the disk under every writer, and take the right to write from it."""
    sizes = [int(size) for size in np.geomspace(10, 100_000, max(2, round(12 * scale)))]
    full = Tally("a full disk (a small tmpfs), every writer over its own old files")
    limited = Tally("a limit on the size of files (`RLIMIT_FSIZE`), every writer over its own old files")
    for size, (name, write) in shown("full disks", [(s, w) for s in sizes for w in writers().items()]):
        with mounted() as folder:
            if folder is None:
                full.note = "skipped: nothing can be mounted here"
            else:
                write(folder)
                fill(folder, size)
                attempt(full, name, write, folder)
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary))
            with limited_files(size):
                attempt(limited, name, write, Path(temporary))
    yield full
    yield limited
    for tally, closed in (
        (Tally("a disk mounted read-only, every writer over its own old files"), read_only),
        (Tally("a folder of another user, every writer over its own old files"), not_mine),
    ):
        for name, write in writers().items():
            with closed(write) as folder:
                if folder is None:
                    tally.note = "skipped: it takes root"
                else:
                    attempt(tally, name, write, folder)
        yield tally
    yield read_where_nothing_can_be_written()


def read_where_nothing_can_be_written() -> Tally:
    """Read a saved evaluation on a disk that is mounted read-only, by each door."""
    tally = Tally("reading a saved evaluation on a disk mounted read-only")
    with read_only(lambda folder: evaluation().save(folder)) as folder:
        if folder is None:
            tally.note = "skipped: it takes root"
            return tally
        for name, read in (
            ("Evaluation.load", lambda: Evaluation.load(folder) == evaluation()),
            ("load_predictions", lambda: load_predictions(folder / "predictions.parquet").n == 60),
            ("evaluate", lambda: command("evaluate", folder)[0] == 0),
            ("compare", lambda: command("compare", folder, folder / "predictions.parquet")[0] == 0),
            ("report", lambda: command("report", folder, "--output", os.devnull)[0] in (0, 1)),
        ):
            tally.tries += 1
            try:
                if not read():
                    tally.lost.append(f"{name}: other numbers, or refused")
            except Exception as error:
                tally.lost.append(f"{name}: {type(error).__name__}: {error}")
    return tally


def fill(folder: Path, free: int) -> None:
    """Leave so many bytes free, in whole pages, on the disk of a folder."""
    with open(folder / "filler", "wb") as file:
        while (room := shutil.disk_usage(folder).free - free) > 4095:
            file.write(b"\0" * min(room // 4096 * 4096, 1 << 20))
            file.flush()


@contextlib.contextmanager
def mounted() -> Iterator[Path | None]:
    """Give a small file system of its own; None where nothing can be mounted."""
    with tempfile.TemporaryDirectory() as temporary:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", temporary]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(temporary)
        finally:
            subprocess.run(["umount", "-l", temporary], check=True)


@contextlib.contextmanager
def read_only(write: Callable[[Path], object]) -> Iterator[Path | None]:
    """Give a disk that `write` has written to, and that is then read-only; None where nothing is mounted."""
    with mounted() as folder:
        if folder is not None:
            write(folder)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


@contextlib.contextmanager
def not_mine(write: Callable[[Path], object]) -> Iterator[Path | None]:
    """Be a user who may only read the folder that `write` has written to."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        write(folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.seteuid(_NOBODY)
        try:
            yield folder
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
