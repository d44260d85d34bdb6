"""Time and memory of evaluations larger than memory, against `evaluate_predictions` on the same rows.

    python benchmarks/large.py --rows 10000000 --classes 2 --in-memory

Synthetic Parquet files (a label and float32 probabilities, 10,000,000 rows a file) are made in a temporary
folder and removed. Each measurement is a process of its own. Memory is the largest sum, over this process
and its workers, of their proportional set sizes, in which a page that several processes share counts once; it
is read every fifth of a second (Linux).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

A_FILE = 10_000_000
AT_ONCE = 1_000_000


def make(folder, rows, classes):
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    names = [f"c{k}" for k in range(classes)]
    for number, start in enumerate(range(0, rows, A_FILE)):
        writer = None
        for begin in range(start, min(start + A_FILE, rows), AT_ONCE):
            n = min(AT_ONCE, rows - begin)
            y = random.integers(0, classes, n)
            odds = random.normal(size=(n, classes)).astype(np.float32) * 1.5
            odds[np.arange(n), y] += 1.5
            p = np.exp(odds - odds.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            label = pa.DictionaryArray.from_arrays(pa.array(y.astype(np.int32)), names)
            columns = {f"p_{name}": pa.array(p[:, k]) for k, name in enumerate(names)}
            table = pa.table({"label": label, **columns})
            writer = writer or pq.ParquetWriter(folder / f"{number:03}.parquet", table.schema)
            writer.write_table(table)
        writer.close()


def measure(way, folder, classes, workers):
    labels = [f"c{k}" for k in range(classes)]
    start = time.monotonic()
    if way == "files":
        from finetune_eval import evaluate_files

        result = evaluate_files(folder, labels=labels, workers=workers)
    else:
        import pyarrow.parquet as pq

        from finetune_eval import evaluate_predictions

        table = pq.read_table(folder)
        y = table.column("label").combine_chunks().indices.to_numpy()
        p = np.column_stack([table.column(f"p_{label}").to_numpy() for label in labels])
        del table
        result = evaluate_predictions(y, p, labels=labels)
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(
        json.dumps(
            {
                "way": way,
                "rows": result.n,
                "classes": classes,
                "seconds": round(time.monotonic() - start, 1),
                "cpu_seconds": round(cpu, 1),
                "accuracy": str(result["accuracy"]),
                "roc_auc": [result["roc_auc"].value, result["roc_auc"].low, result["roc_auc"].high],
                "method": result["roc_auc"].method,
                "loss": result.loss,
            }
        ),
        flush=True,
    )


def proportional_set(pid):
    """Megabytes of a process and of those that it started."""
    try:
        children = [
            one for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()
        ]
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return int(rollup.partition("Pss:")[2].split()[0]) / 1024 + sum(map(proportional_set, children))


def watched(command):
    """Run a command, and print the most memory that it took."""
    process = subprocess.Popen(command)
    most = 0
    while process.poll() is None:
        most = max(most, proportional_set(process.pid))
        time.sleep(0.2)
    print(f"most memory: {most:,.0f} MB (exit code {process.returncode})", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--in-memory", action="store_true", help="Measure `evaluate_predictions`, too.")
    parser.add_argument("--measure", nargs=2, help="For the processes that this one starts: way and folder.")
    given = parser.parse_args()
    if given.measure:
        return measure(given.measure[0], Path(given.measure[1]), given.classes, given.workers)
    with tempfile.TemporaryDirectory() as folder:
        child = [sys.executable, __file__, "--classes", str(given.classes), "--workers", str(given.workers)]
        make(Path(folder), given.rows, given.classes)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(
            f"{given.rows:,} rows of {given.classes} classes in {size / 1e6:,.0f} MB of Parquet", flush=True
        )
        for way in ["files", *(["in memory"] if given.in_memory else [])]:
            watched([*child, "--measure", way, folder])
    return None


if __name__ == "__main__":
    main()
