"""Several processes that write to one place at once."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Tally, evaluation, shown

from finetune_eval import Evaluation
from finetune_eval.evaluation.lockbox import look
from finetune_eval.runs import Run


def _saves(folder: Path, shift: float) -> None:
    result = evaluation(shift)
    while True:
        result.save(folder)


def _looks(folder: Path, times: int) -> None:
    result = evaluation()
    for _ in range(times):
        look(result, folder)


def _claims(folder: Path, told: multiprocessing.Queue) -> None:
    try:
        with Run.create(folder) as run:
            run.write_manifest({"status": "complete"})
            told.put("")
    except FileExistsError as error:
        told.put(str(error))


def races(scale: float) -> Iterator[Tally]:
    """Let processes write at once, and count what is mixed, lost, or given to two."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["kills", "races"])
    with tempfile.TemporaryDirectory() as temporary:
        folder, known = Path(temporary), (evaluation(), evaluation(0.5))
        known[0].save(folder)
        tally = Tally("an evaluation is loaded while two processes save others there")
        savers = [server.Process(target=_saves, args=(folder, shift)) for shift in (0.0, 0.5)]
        for process in savers:
            process.start()
        try:
            for _ in shown(tally.fault, range(max(20, round(500 * scale)))):
                tally.tries += 1
                if Evaluation.load(folder) not in known:
                    tally.lost.append("a mixture was loaded")
        finally:
            for process in savers:
                process.kill()
                process.join()
        yield tally
    with tempfile.TemporaryDirectory() as temporary:
        each = max(20, round(250 * scale))
        lookers = [server.Process(target=_looks, args=(Path(temporary), each)) for _ in range(4)]
        for process in lookers:
            process.start()
        for process in lookers:
            process.join()
        tally, count = Tally("four processes look at the same test rows", 4 * each), 4 * each + 1
        if (found := look(evaluation(), temporary).count) != count:
            tally.lost.append(f"{found} of {count} looks are there")
        yield tally
    tally = Tally("four processes want one new run folder")
    for _ in shown(tally.fault, range(max(3, round(20 * scale)))):
        with tempfile.TemporaryDirectory() as temporary:
            told, folder = server.Queue(), Path(temporary) / "run"
            claims = [server.Process(target=_claims, args=(folder, told)) for _ in range(4)]
            for process in claims:
                process.start()
            answers = [told.get() for _ in claims]
            for process in claims:
                process.join()
            tally.tries += 1
            if answers.count("") != 1:
                tally.lost.append(f"{answers.count('')} processes own the folder")
            tally.unclear += [each for each in answers if each and str(folder) not in each]
    yield tally
