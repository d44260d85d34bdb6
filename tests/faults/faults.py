"""Faults, and what they cost: kill -9, full disks, read-only folders, damaged files.

    make faults                          everything, about half an hour on two cores
    python tests/faults/faults.py --scale 0.05 kills damage

Prints a table for docs/reliability.md: how often each fault was tried, how often something was lost or wrong,
and how often the message did not name the file. Exits 1 where any of these is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import conftest as tiny  # noqa: E402
import numpy as np  # noqa: E402

from finetune_eval import DataTrace, Evaluation, TrainingTrace, evaluate_predictions, load_predictions  # noqa: E402
from finetune_eval.data.ledger import Step  # noqa: E402
from finetune_eval.evaluation.lockbox import look  # noqa: E402
from finetune_eval.reports.card import write_card  # noqa: E402
from finetune_eval.reports.html import report  # noqa: E402
from finetune_eval.runs import Run  # noqa: E402


@dataclass
class Tally:
    """What came of one fault."""

    fault: str
    tries: int = 0
    lost: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    note: str = ""

    def row(self) -> str:
        return f"| {self.fault} | {self.tries:,} | {len(self.lost)} | {len(self.unclear)} | {self.note} |"


def evaluation(shift: float = 0.0) -> Evaluation:
    """An evaluation of 60 rows; another shift, another one."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    p = 1 / (1 + np.exp(-(2 * y - 1 + shift + generator.normal(size=60))))
    texts = [f"the film number {row}" for row in range(60)]
    return evaluate_predictions(y, p, labels=["bad", "good"], texts=texts, n_resamples=100)


# --- kill -9 ------------------------------------------------------------------------------


def child_save(folder: Path) -> Iterator[None]:
    pair = [evaluation(), evaluation(0.5)]
    yield
    for turn in range(300):
        pair[turn % 2].save(folder)


def check_save(folder: Path, said: list[str]) -> str:
    return "" if Evaluation.load(folder) in (evaluation(), evaluation(0.5)) else "a mixture was loaded"


def child_report(folder: Path) -> Iterator[None]:
    result = evaluation()
    report(result, folder / "report.html")  # matplotlib's first time is long
    yield
    for _ in range(10):
        report(result, folder / "report.html")
        write_card(result, folder / "MODEL_CARD.md")
        DataTrace((Step("read", "rows.csv", 9, 2, 9, 2),)).save(folder / "data.json")


def check_report(folder: Path, said: list[str]) -> str:
    page, card, data = (folder / name for name in ("report.html", "MODEL_CARD.md", "data.json"))
    if not page.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        return "half a page"
    if card.exists() and "## Caveats" not in card.read_text(encoding="utf-8"):
        return "half a card"
    return "" if not data.exists() or len(DataTrace.load(data)) == 1 else "half a trace"


def child_lockbox(folder: Path) -> Iterator[None]:
    result = evaluation()
    yield
    for _ in range(1000):
        print(look(result, folder).count, flush=True)


def check_lockbox(folder: Path, said: list[str]) -> str:
    told = max((int(line) for line in said if line.isdigit()), default=0)
    count = look(evaluation(), folder).count
    return "" if told + 1 <= count <= told + 2 else f"{told} looks were told of, {count - 1} are there"


def child_training(folder: Path) -> Iterator[None]:
    from finetune_eval import fine_tune

    x, y = tiny.numeric_rows(400)
    model = tiny.numeric_classifier()
    yield
    fine_tune(
        model,
        x,
        y,
        epochs=30,
        validation_data=tiny.numeric_rows(80, seed=1),
        verbose=False,
        run_dir=folder / "run",
    )


def check_training(folder: Path, said: list[str], rows: object = None) -> str:
    from finetune_eval import load_model

    rows = tiny.numeric_rows(3)[0] if rows is None else rows

    run = Run(folder / "run")
    if not run.manifest.exists():
        with Run.create(run.path):  # nothing had begun: the folder can be used
            return ""
    done = len(TrainingTrace.load(run.trace).epochs) if run.trace.exists() else 0
    status = run.read_manifest()["status"]
    if status not in ("running", "complete") or run.in_use():
        return f"status {status}, in use: {run.in_use()}"
    try:
        with Run.create(run.path):
            return "the folder was given to another run"
    except FileExistsError as error:
        if ("complete" if status == "complete" else "its process was killed") not in str(error):
            return str(error)
    if any(path.name.startswith(".") for path in run.path.rglob("*")):
        return "unfinished files are left"  # the claim above removes them
    if done > 1 and not np.isfinite(load_model(run.path).predict(rows)).all():
        return "weights are damaged"
    return "" if done < 2 or run.weights is not None else f"no weights after {done} epochs"


def child_train(folder: Path) -> Iterator[None]:
    from finetune_eval import build_model, cli  # noqa: F401  TensorFlow's start is no moment of interest

    tiny.checkpoint(folder / "checkpoint")
    lines = [f"the {('good', 'bad')[i % 2]} film {random.Random(i).random()},{i % 2}" for i in range(200)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    os.chdir(folder)
    yield
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        cli.main(["train", "rows.csv", "--model", "checkpoint", "--epochs", "4", "--run-dir", "run"])


def check_train(folder: Path, said: list[str]) -> str:
    run = Run(folder / "run")
    problem = check_training(folder, said, list(tiny.TEXTS))
    if run.evaluation.exists() or (run.path / ".pending").exists():
        Evaluation.load(run.path)
        if not run.model.exists():
            return "an evaluation without its model"
    if run.report.exists() and not run.report.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        return "half a page"
    return problem


KILLS: dict[str, tuple[Callable, Callable, int, bool]] = {
    "Evaluation.save over an old one": (child_save, check_save, 60, True),
    "report, write_card, DataTrace.save": (child_report, check_report, 40, False),
    "a look at the test rows": (child_lockbox, check_lockbox, 40, False),
    "fine_tune": (child_training, check_training, 50, False),
    "finetune-eval train": (child_train, check_train, 30, False),
}


def kills(scale: float) -> Iterator[Tally]:
    """Kill writers at random moments, and look at what they leave."""
    chance = random.Random(0)
    for name, (child, check, tries, old) in KILLS.items():
        tally, seconds = Tally(f"kill -9 of {name}"), 0.0
        for turn in range(max(2, round(tries * scale)) + 1):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                if old:
                    evaluation().save(folder)
                arguments = [sys.executable, __file__, "--child", child.__name__, temporary]
                process = subprocess.Popen(
                    arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                assert process.stdout is not None
                while process.stdout.readline().strip() != "ready":
                    assert process.poll() is None, f"{name} did not start"
                began = time.perf_counter()
                if turn == 0:  # how long it takes when nobody kills it
                    process.communicate()
                    seconds = time.perf_counter() - began
                    continue
                time.sleep(chance.uniform(0, seconds))
                process.send_signal(signal.SIGKILL)
                said = process.communicate()[0].splitlines()
                tally.tries += 1
                try:
                    problem = check(folder, said)
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
                if problem:
                    tally.lost.append(problem)
        yield tally


# --- disks --------------------------------------------------------------------------------


def writers() -> dict[str, Callable[[Path], object]]:
    """Every function that writes, by name; each gets the folder to write into."""
    from finetune_eval import fine_tune

    result, x = evaluation(), tiny.numeric_rows(64)
    trace = TrainingTrace.from_history({"loss": [0.5] * 50})
    manifest = {"status": "complete", "settings": {"epochs": 3}, "padding": "x" * 5000}

    def train(folder: Path) -> object:
        return fine_tune(tiny.numeric_classifier(), *x, epochs=1, verbose=False, run_dir=folder / "run")

    return {
        "fine_tune": train,
        "Evaluation.save": lambda folder: result.save(folder / "saved"),
        "report": lambda folder: report(result, folder / "report.html", training=trace),
        "write_card": lambda folder: write_card(result, folder / "MODEL_CARD.md", training=trace),
        "DataTrace.save": lambda folder: DataTrace((Step("a", "b", 1, 1, 1, 1),) * 60).save(
            folder / "data.json"
        ),
        "lockbox": lambda folder: [look(result, folder / "looks") for _ in range(60)],
        "manifest.json": lambda folder: Run(folder).write_manifest(manifest),
        "train.parquet": lambda folder: Run(folder).save_training_rows(
            [f"{i} text" for i in range(3000)], range(3000)
        ),
        "best.npz": lambda folder: Run(folder).save_best({"0": np.random.default_rng(0).random(3000)}),
    }


def attempt(tally: Tally, name: str, write: Callable[[Path], object], folder: Path) -> None:
    """Let a writer fail; the error names a file or folder, what was there stays, nothing else is left."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tally.tries += 1
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            write(folder)
        named = [str(each.message) for each in said if "could not be written" in str(each.message)]
        tally.unclear += [f"{name}: {sentence}" for sentence in named if str(folder) not in sentence]
        return  # there was room, or what failed was a warning
    except OSError as error:
        if str(folder) not in str(error):
            tally.unclear.append(f"{name}: {error}")
    except Exception as error:
        tally.unclear.append(f"{name}: {type(error).__name__}: {error}")
    for path, content in before.items():
        if not path.is_file() or not path.read_bytes().startswith(content):
            tally.lost.append(f"{name}: {path.name} is not what it was")
    left = [path.name for path in folder.rglob(".*") if path.name not in (".lock",)]
    if left:
        tally.lost.append(f"{name}: leaves {left}")


def disks(scale: float) -> Iterator[Tally]:
    """Fill the disk under every writer, and take the right to write from it."""
    sizes = [int(size) for size in np.geomspace(10, 100_000, max(2, round(12 * scale)))]
    full = Tally("a full disk (a small tmpfs), every writer over its own old files")
    limited = Tally("a limit on the size of files (RLIMIT_FSIZE), every writer over its own old files")
    for size in sizes:
        for name, write in writers().items():
            with mounted("size=8m") as folder:
                if folder is None:
                    full.note = "skipped: nothing can be mounted here"
                else:
                    write(folder / "old" if name == "fine_tune" else folder)
                    fill(folder, size)
                    attempt(full, name, write, folder)
            with tempfile.TemporaryDirectory() as temporary:
                write(Path(temporary) / "old" if name == "fine_tune" else Path(temporary))
                with limited_files(size):
                    attempt(limited, name, write, Path(temporary))
    yield full
    yield limited
    closed = Tally("a folder that cannot be written, every writer")
    for name, write in writers().items():
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(mounted("ro"))
            if folder is None and os.geteuid() == 0:
                closed.note = "skipped: nothing can be mounted here, and root may write everywhere"
                continue
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                folder.chmod(0o555)
                stack.callback(folder.chmod, 0o755)
            attempt(closed, name, write, folder)
    yield closed


def fill(folder: Path, free: int) -> None:
    """Leave so many bytes free, in whole pages, on the disk of a folder."""
    with open(folder / "filler", "wb") as file:
        while (room := shutil.disk_usage(folder).free - free) > 4095:
            file.write(b"\0" * min(room // 4096 * 4096, 1 << 20))
            file.flush()


@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path | None]:
    """Give a small or a read-only file system of its own; None where nothing can be mounted."""
    with tempfile.TemporaryDirectory() as temporary:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", temporary]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(temporary)
        finally:
            subprocess.run(["umount", "-l", temporary], check=True)


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# --- damaged files ------------------------------------------------------------------------


def whole_run(folder: Path) -> Run:
    """Make a run with all of its files."""
    from finetune_eval import evaluate, fine_tune

    x, y = list(tiny.TEXTS) * 4, list(tiny.SENTIMENTS) * 4
    with Run.create(folder) as run:
        model = tiny.text_classifier()
        fine_tune(model, x, y, validation_data=(x, y), epochs=2, verbose=False, run_dir=run)
        result = evaluate(model, x[:8], y[:8], n_resamples=100)
        result.save(folder)
        DataTrace((Step("read", "rows.csv", 32, 2, 32, 2, "a note", "0123"),)).save(run.data)
    return run


def readers(run: Run) -> dict[str, list[tuple[str, Callable[[], object]]]]:
    """What reads each file of a run, and returns what it read in a form that can be compared."""
    from finetune_eval import cli, load_model

    def command(*arguments: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main([*arguments])
            except SystemExit as stop:
                if stop.code:
                    raise ValueError(err.getvalue()) from None
        return out.getvalue()

    def page() -> str:
        command("report", str(run.path), "--output", str(run.path.parent / "page.html"))
        return (run.path.parent / "page.html").read_text(encoding="utf-8")

    def weights() -> list[bytes]:
        return [value.tobytes() for value in load_model(run.path).get_weights()]

    def rows() -> object:
        texts, labels = run.training_rows()
        return texts, labels.tolist()

    load, show = lambda: Evaluation.load(run.path), lambda: command("evaluate", str(run.path))  # noqa: E731
    return {
        "manifest.json": [("read_manifest", run.read_manifest), ("report", page)],
        "data.json": [("DataTrace.load", lambda: DataTrace.load(run.data)), ("report", page)],
        "trace.jsonl": [("report", page)],
        "train.parquet": [("training_rows", rows)],
        "evaluation.json": [("Evaluation.load", load), ("evaluate", show)],
        "predictions.parquet": [
            ("Evaluation.load", load), ("evaluate", show),
            ("load_predictions", lambda: load_predictions(run.predictions, n_resamples=100)),
        ],
        "model/model.keras": [("load_model", weights)],
    }  # fmt: skip


def damaged(whole: bytes, scale: float) -> Iterator[tuple[str, bytes]]:
    """Yield a file cut at 20 places and with a bit flipped at 50, spread over all of it."""
    for place in np.linspace(0, len(whole) - 1, max(3, round(20 * scale))).astype(int).tolist():
        yield f"cut after {place} of {len(whole)} bytes", whole[:place]
    chance = random.Random(0)
    for turn in range(max(5, round(50 * scale))):
        place = min(len(whole) - 1, int(len(whole) * (turn + chance.random()) / max(5, round(50 * scale))))
        bit = 1 << chance.randrange(8)
        yield (
            f"byte {place} of {len(whole)} ^ {bit}",
            whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :],
        )


def damage(scale: float) -> Iterator[Tally]:
    """Cut and flip every file of a run: refused by name, or the same numbers."""
    with tempfile.TemporaryDirectory() as temporary:
        run = whole_run(Path(temporary) / "run")
        for name, found in readers(run).items():
            path, tally = run.path / name, Tally(f"{name} cut or flipped")
            whole = path.read_bytes()
            for reader, read in found:
                right = read()
                for how, content in damaged(whole, scale):
                    tally.tries += 1
                    path.write_bytes(content)
                    try:
                        if read() != right:
                            tally.lost.append(f"{reader}: {how}: other numbers")
                    except (ValueError, TypeError, OSError) as error:
                        if path.name not in str(error) or "not foreseen" in str(error):
                            tally.unclear.append(f"{reader}: {how}: {type(error).__name__}: {error}")
                    except Exception as error:
                        tally.unclear.append(f"{reader}: {how}: {type(error).__name__}: {error}")
                path.write_bytes(whole)
            yield tally


PARTS = {"kills": kills, "disks": disks, "damage": damage}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"Some of {', '.join(PARTS)}; all by default.")
    parser.add_argument("--scale", type=float, default=1.0, help="How many of the tries to make.")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child = globals()[asked.child[0]](Path(asked.child[1]))
        next(child)
        print("ready", flush=True)
        next(child, None)
        return 0
    bad = 0
    print("| Fault | Tried | Lost or wrong | Unclear | |\n| --- | --- | --- | --- | --- |", flush=True)
    for part in asked.parts or PARTS:
        for tally in PARTS[part](asked.scale):
            print(tally.row(), flush=True)
            for sentence in (*tally.lost, *tally.unclear):
                print(f"  {' '.join(sentence.split())[:400]}", file=sys.stderr, flush=True)
            bad += len(tally.lost) + len(tally.unclear)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
