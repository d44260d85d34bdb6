"""resume: the command that began a run is run once more, on what is left of the run."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_eval.commands import options
from finetune_eval.commands.loading import quiet_tensorflow
from finetune_eval.reports import console
from finetune_eval.runs import Run


@dataclass(frozen=True)
class Given:
    """The command line.

    Attributes:
        arguments: Its words.
        again: Runs a command line inside this one.
        resumes: The run that it goes on with, whatever its words say; None for a new one.
    """

    arguments: Sequence[str] = ()
    again: Callable[[Sequence[str]], Any] | None = None
    resumes: Path | None = None


GIVEN: ContextVar[Given] = ContextVar("given")


def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run that was killed or interrupted.")],
    as_json: options.Json = False,
) -> None:
    """Go on with a training that was cut short.

    It ends as if it had not been, to the bit, and is evaluated where the command that began it would have.

    Example: finetune-eval resume runs/reviews
    """
    begun = Run(run)
    if not begun.manifest.is_file():
        raise FileNotFoundError(f"{str(run)!r} is no run folder: it has no manifest.json.")
    manifest = begun.read_manifest()
    command = manifest.get("resume", {}).get("command")
    if command is not None:
        _repeat(command, run, as_json)
        return
    with quiet_tensorflow():
        from finetune_eval.training import resume as training
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):
            trained = training.resume(run)
        console.show_json({"run_dir": str(run), "epochs": len(trained.trace.epochs)})
        return
    training.resume(run)
    if manifest.get("status") != "complete":
        console.show(f"To judge the model: finetune-eval evaluate {run} --data FILE")


def _repeat(command: dict[str, Any], run: Path, as_json: bool) -> None:
    """Run the command that began a run once more, in the folder it was given in, on that run."""
    folder = Path(command["folder"])
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{str(run)!r} was begun in the folder {str(folder)!r}, which is not there now; its file of rows "
            "is looked for from there."
        )
    given, resumes = GIVEN.get(Given()), run if folder.resolve() == Path.cwd() else run.resolve()
    assert given.again is not None
    arguments = command["arguments"]
    token = GIVEN.set(dataclasses.replace(given, arguments=arguments, resumes=resumes))
    try:
        with contextlib.chdir(folder):
            given.again([*arguments, *(["--json"] if as_json else [])])
    finally:
        GIVEN.reset(token)


def ended(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a run that has ended, without the command that would go on with it."""
    noted = {name: value for name, value in manifest["resume"].items() if name != "command"}
    return {**manifest, "resume": noted}
