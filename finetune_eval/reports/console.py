"""What the command line prints: results on stdout, everything about how it goes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


def show(text: str, *, file: TextIO | None = None) -> None:
    """Print a result as it is, on stdout.

    Args:
        text: Any text. A character that the terminal's encoding lacks is printed as "?".
        file: Where to print instead.
    """
    file = sys.stdout if file is None else file
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=file)


def stage(number: int, total: int, name: str, detail: str = "") -> None:
    """Print the heading of a stage on stderr, such as "[2/5] models  all_minilm_l6_v2".

    Args:
        number: The stage's number, from 1.
        total: How many stages there are.
        name: The stage's name.
        detail: What it works on.
    """
    heading = Text(f"[{number}/{total}] {name}", style="bold")
    _stderr().print(heading.append(f"  {detail}" if detail else "", style="not bold"), soft_wrap=True)


def error(problem: BaseException | str) -> None:
    """Print a problem on stderr in one line, without a traceback."""
    said = str(problem) if isinstance(problem, str) or str(problem) else type(problem).__name__
    if isinstance(problem, KeyError) and problem.args:
        said = str(problem.args[0])  # str() of a KeyError is the repr of its message
    line = "".join(c if c.isprintable() else " " for c in said)
    _stderr().print(
        Text("error: ", style="bold red").append(" ".join(line.split()), "not bold default"), soft_wrap=True
    )


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr while the block runs; nothing where stderr is not a terminal.

    Args:
        what: What is being done, such as "training".
        total: The number of steps.

    Yields:
        advance(steps=1, note=""): moves the bar; `note` is shown beside it.
    """
    console = _stderr()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _stderr() -> Console:
    # Made at each call: tests and callers may have put another stream in the place of sys.stderr.
    return Console(stderr=True, highlight=False)
