"""What all faults share: the tally, an evaluation to write, and the command line in this process."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune_eval import Evaluation, cli, evaluate_predictions

_SECONDS = 10  # between two lines of progress


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


def shown(fault: str, tries: Iterable[Any]) -> Iterator[Any]:
    """Yield each try; say now and then on stderr how far it has come."""
    tries = list(tries)
    began = last = time.perf_counter()
    for done, each in enumerate(tries):
        if (now := time.perf_counter()) - last > _SECONDS:
            print(f"  {fault}: {done} of {len(tries)}, {now - began:.0f} s", file=sys.stderr, flush=True)
            last = now
        yield each


def evaluation(shift: float = 0.0) -> Evaluation:
    """An evaluation of 60 rows; another shift, another one."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    p = 1 / (1 + np.exp(-(2 * y - 1 + shift + generator.normal(size=60))))
    texts = [f"the film number {row}" for row in range(60)]
    return evaluate_predictions(y, p, labels=["bad", "good"], texts=texts, n_resamples=100)


def command(*arguments: Any) -> tuple[int, str, str]:
    """Run the command line here; return its exit code, and what it wrote to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        try:
            cli.main([*map(str, arguments)])
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("the command line did not exit")
