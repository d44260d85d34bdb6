"""What the command line prints: results on stdout, everything about how it goes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from finetune_eval import _text


def show(text: str, *, file: TextIO | None = None) -> None:
    r"""Print a result on stdout, without a character that a terminal would obey.

    Args:
        text: Any text. A character that the terminal's encoding lacks is printed as "?".
        file: Where to print instead.

    Example:
        >>> show("good\x1b[31m film")
        good\x1b[31m film
    """
    _text.show(text, file=file)


def show_json(data: Any) -> None:
    """Print JSON data on one line of stdout; what a terminal would obey is written as JSON escapes."""
    plain = json.dumps(data, ensure_ascii=False, default=str)
    show("".join(c if _text.visible(c) == c else json.dumps(c)[1:-1] for c in plain))


def stage(number: int, total: int, name: str, detail: str = "") -> None:
    """Print the heading of a stage on stderr, such as "[2/5] models  all_minilm_l6_v2".

    Args:
        number: The stage's number, from 1.
        total: How many stages there are.
        name: The stage's name.
        detail: What it works on.
    """
    heading = Text(f"[{number}/{total}] {name}", style="bold")
    after = f"  {_text.visible(detail)}" if detail else ""
    _stderr().print(heading.append(after, style="not bold"), soft_wrap=True)


def error(problem: BaseException | str) -> None:
    """Print a problem on stderr in one line, without a traceback."""
    said = problem if isinstance(problem, str) else in_words(problem)
    line = _text.visible(" ".join(said.split()))
    _stderr().print(Text("error: ", style="bold red").append(line, "not bold default"), soft_wrap=True)


def in_words(problem: BaseException) -> str:
    """Return what an exception says; its type where it says nothing."""
    if isinstance(problem, KeyError) and problem.args:
        return str(problem.args[0])  # str() of a KeyError is the repr of its message
    return str(problem) or type(problem).__name__


def warning(sentence: str, *, file: TextIO | None = None) -> None:
    """Print a warning, wrapped, on stderr or elsewhere."""
    lines = _text.fill(_text.visible(sentence), indent="warning: ")
    show(lines, file=sys.stderr if file is None else file)


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
        # The bar takes over what is printed only where both go to the terminal: a file gets what is its own.
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _stderr() -> Console:
    # Made at each call: tests and callers may have put another stream in the place of sys.stderr.
    return Console(stderr=True, highlight=False)
