"""The command line: it calls a command, and says what failed in one line, with an exit code.

Results go to stdout, progress, warnings and errors to stderr.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from finetune_eval.commands import models, results, resuming, studies, training
from finetune_eval.reports import console

_FORESEEN = (OSError, ValueError, TypeError, ImportError, FloatingPointError)
# What the library calls by another name than the command line does.
_ALIASES = {
    "backbone": "model",
    "new_rows": "new",
    "goal": "threshold_for",
    "source": "data",
    "validation x": "text",
    "validation y": "label",
    "validation_data=(x, y)": "validation",
}


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune a pre-trained Keras model, and know honestly how good it became.",
)


def _version(asked: bool) -> None:
    if asked:
        from finetune_eval import __version__

        console.show(f"finetune-eval {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _command in (
    training.demo, training.train, resuming.resume, results.evaluate, results.evaluate_files,
    results.compare, studies.cross_evaluate, studies.learning_curve, models.predict, results.leaks,
    results.drift, results.report, models.trace,
):  # fmt: skip
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("default", module=r"finetune_eval\b")
        warnings.showwarning = lambda said, *rest, **more: console.warning(_as_flags(str(said), given))
        sys.exit(_run(given))


def _run(arguments: list[str]) -> int:
    try:
        resuming.GIVEN.set(resuming.Given(arguments, _again))
        code = _again(arguments)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        return _failed(problem, arguments)
    if code == 130:
        console.error("interrupted")
    return int(code or 0)


def _again(arguments: Sequence[str]) -> Any:
    return app(args=arguments, standalone_mode=False, prog_name="finetune-eval")


def _failed(problem: Exception, arguments: list[str]) -> int:
    """Print a failure in one line, and return the exit code."""
    if type(problem).__name__ == "NoArgsIsHelpError":  # its message is the help
        print(problem, file=sys.stderr)
        return 2
    if hasattr(problem, "format_message"):  # click's own: wrong usage
        console.error(problem.format_message())
        return 2
    if isinstance(problem, _FORESEEN):
        console.error(_as_flags(console.in_words(problem), arguments))
        return 1
    if os.environ.get("FINETUNE_EVAL_TRACEBACK"):
        raise problem
    console.error(
        f"{type(problem).__name__}: {console.in_words(problem)} (This failure was not foreseen; run again "
        "with FINETUNE_EVAL_TRACEBACK=1 to see where it is.)"
    )
    return 1


def _as_flags(sentence: str, arguments: list[str]) -> str:
    """Name the options of the command line where a sentence names arguments of the library."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    command = next((commands[word] for word in arguments if word in commands), None)
    flags = {parameter.name: parameter for parameter in getattr(command, "params", ())}

    def flag(name: str) -> str | None:
        name = _ALIASES.get(name, name)
        parameter = flags.get(name)
        if parameter is None:
            return None
        return str(parameter.opts[0]) if parameter.param_type_name == "option" else repr(name)

    def alone(match: re.Match[str]) -> str:
        return flag(match[1]) or match[0]

    def with_value(match: re.Match[str]) -> str:
        name = flag(match[1])
        if name is None:
            return match[0]
        if match[2] == "False" and (off := flags[match[1]].secondary_opts):
            return str(off[0])
        return name if match[2] == "True" else f"{name} {match[2]}"

    sentence = re.sub(r"`([^`]+)`", alone, sentence)
    parts = re.split(r"(`[^`]*\([^`]*`)", sentence)  # a call in Python, which is every second part, stays one
    parts[::2] = [
        re.sub(r"(?<![\w-])([a-z_]+)=('[^']*'|\"[^\"]*\"|[\w.]*\w)(?: to load_dataset)?", with_value, part)
        for part in parts[::2]
    ]
    return "".join(parts)


if __name__ == "__main__":
    main()
