"""The command line: parse, call, print. Results go to stdout, how it goes to stderr."""

from finetune_eval.cli.main import main

__all__ = ["main"]
