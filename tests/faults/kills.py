"""kill -9 at random moments of writing, training and evaluating, and a look at what is left."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import conftest as tiny
import numpy as np
from common import Tally, command, evaluation, shown

from finetune_eval import DataTrace, Evaluation, TrainingTrace
from finetune_eval.data.ledger import Step
from finetune_eval.evaluation.lockbox import look
from finetune_eval.reports.card import write_card
from finetune_eval.reports.html import report
from finetune_eval.runs import Run

# Each child prepares itself until its first `yield`, then writes until it is killed. Each check returns what
# is wrong with what is left, or an empty text.


def child_save(folder: Path) -> Iterator[None]:
    pair = [evaluation(), evaluation(0.5)]
    pair[0].save(folder)
    yield
    for turn in range(60):
        pair[(turn + 1) % 2].save(folder)


def check_save(folder: Path, said: list[str]) -> str:
    return "" if Evaluation.load(folder) in (evaluation(), evaluation(0.5)) else "a mixture was loaded"


def child_report(folder: Path) -> Iterator[None]:
    result = evaluation()
    report(result, folder / "report.html")  # matplotlib's first time is long
    yield
    for _ in range(5):
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
    for _ in range(100):
        print(look(result, folder).count, flush=True)


def check_lockbox(folder: Path, said: list[str]) -> str:
    told = max((int(line) for line in said if line.isdigit()), default=0)
    count = look(evaluation(), folder).count
    return "" if told + 1 <= count <= told + 2 else f"{told} looks were told of, {count - 1} are there"


def digest(model: Any) -> str:
    return hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest()


def child_training(folder: Path) -> Iterator[None]:
    import keras

    from finetune_eval import fine_tune

    class Tell(keras.callbacks.Callback):
        """Print the weights of each epoch before anything of it can be on the disk."""

        def on_test_begin(self, logs: Any = None) -> None:
            print(digest(self.model), flush=True)

    x, y = tiny.numeric_rows(400)
    model, held_out = tiny.numeric_classifier(), tiny.numeric_rows(80, seed=1)
    yield
    fine_tune(
        model, x, y, epochs=12, validation_data=held_out, verbose=False, callbacks=Tell(),
        run_dir=folder / "run",
    )  # fmt: skip


def check_training(folder: Path, said: list[str]) -> str:
    from finetune_eval import load_model

    problem = check_run(folder)
    run = Run(folder / "run")
    if problem or run.weights is None:
        return problem
    # The weights on the disk are those of an epoch that was the best one so far, to the last bit.
    found = digest(load_model(run.path))
    if found not in said:
        return "the weights are of no epoch"
    losses = [record.metrics["val_loss"] for record in TrainingTrace.load(run.trace).epochs]
    epoch = said.index(found)
    return "" if not losses[:epoch] or epoch >= len(losses) or losses[epoch] <= min(losses[:epoch]) else (
        f"the weights are of epoch {epoch + 1}, which was never the best"
    )  # fmt: skip


def check_run(folder: Path) -> str:
    """Look at the run folder of a training that was killed."""
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
    if any(path.name.startswith(".") and path.name != ".pending" for path in run.path.rglob("*")):
        return "unfinished files are left"  # the claim above removes them
    return "" if done < 2 or run.weights is not None else f"no weights after {done} epochs"


def child_train(folder: Path) -> Iterator[None]:
    from finetune_eval import build_model, cli  # noqa: F401  TensorFlow's start is no moment of interest

    tiny.checkpoint(folder / "checkpoint")
    lines = [f"the {('good', 'bad')[i % 2]} film {random.Random(i).random()},{i % 2}" for i in range(200)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    os.chdir(folder)
    os.environ["FINETUNE_EVAL_HOME"] = str(folder / "looks")
    yield
    arguments = [
        "train",
        "rows.csv",
        "--model",
        "checkpoint",
        "--epochs",
        "3",
        "--lockbox",
        "--run-dir",
        "run",
    ]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        cli.main(arguments)


def check_train(folder: Path, said: list[str]) -> str:
    from finetune_eval import load_model

    run, problem = Run(folder / "run"), check_run(folder)
    if problem or not run.manifest.exists():
        return problem
    if run.weights is not None and not np.isfinite(load_model(run.path).predict(list(tiny.TEXTS))).all():
        return "weights are damaged"
    evaluated = run.evaluation.exists() or (run.path / ".pending").exists()
    if evaluated and not run.model.exists():
        return "an evaluation without its model"
    if run.report.exists() and not run.report.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        return "half a page"
    # What a user does next works, or says in one line why it does not.
    for arguments in (["evaluate", run.path], ["report", run.path], ["trace", run.path, "a good film"]):
        code, _, err = command(*arguments)
        works = run.weights is not None if arguments[0] == "trace" else evaluated
        sentence = err.splitlines()[-1] if err else ""
        if code != (0 if works else 1) or "not foreseen" in err or not (works or str(run.path) in sentence):
            return f"{arguments[0]} exits {code}: {err}"
    return ""


KILLS: dict[str, tuple[Callable, Callable, int]] = {
    "`Evaluation.save` over an old one": (child_save, check_save, 60),
    "`report`, `write_card`, `DataTrace.save` over old ones": (child_report, check_report, 40),
    "a look at the test rows": (child_lockbox, check_lockbox, 40),
    "`fine_tune`": (child_training, check_training, 50),
    "`finetune-eval train --lockbox`": (child_train, check_train, 30),
}


def kills(scale: float, table: dict[str, tuple[Callable, Callable, int]] | None = None) -> Iterator[Tally]:
    """Kill writers at random moments, spread over all of the time that they take."""
    chance = random.Random(0)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["kills", "finetune_eval.models.build", "finetune_eval.training.fine_tune"])
    for name, (child, check, tries) in (KILLS if table is None else table).items():
        tries = max(2, round(tries * scale))
        tally, seconds = Tally(f"`kill -9` of {name}"), 0.0
        # How long it takes when nobody kills it, and then a kill in each of as many parts of that time.
        for turn in shown(tally.fault, range(tries + 1)):
            with tempfile.TemporaryDirectory() as temporary:
                said, (ready, far) = Path(temporary) / "said", server.Pipe()
                folder = Path(temporary) / "folder"
                folder.mkdir()
                process = server.Process(target=_run, args=(child, folder, said, far))
                process.start()
                far.close()
                ready.recv()  # EOFError: the child failed before it was ready
                began = time.perf_counter()
                if turn:
                    time.sleep(seconds * (turn - 1 + chance.random()) / tries)
                    process.kill()
                process.join()
                if not turn:
                    assert process.exitcode == 0, f"{name} failed without being killed"
                    seconds = time.perf_counter() - began
                    continue
                tally.tries += 1
                try:
                    problem = check(folder, said.read_text().splitlines())
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
                if problem:
                    tally.lost.append(problem)
        tally.note = f"over the {seconds:.1f} s it takes"
        yield tally


def _run(child: Callable, folder: Path, said: Path, ready: Any) -> None:
    """Be the process that is killed; what it prints outlives it in a file."""
    sys.stdout = open(said, "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    writing = child(folder)
    next(writing)
    ready.send(None)
    next(writing, None)
