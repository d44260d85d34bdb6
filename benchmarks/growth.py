"""How cost grows with rows and with their length, and text that does not fit in memory.

    python benchmarks/growth.py

An exponent of 1 is proportional. Each is the slope of log seconds on log size, by least squares.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

import finetune_eval as fe

ROWS = (100, 200, 400, 800)
LENGTHS = (32, 64, 128, 256, 512)
STREAMED, STEPS = 1_000_000, 50


def exponent(sizes, seconds):
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def clock(run, repeats=3):
    run()  # graphs are traced
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def texts(rows, tokens):
    """Random common words, each one token, so that a text has exactly `tokens` with its start and end."""
    words = np.array("the a film of and is it in that this good bad story very with for time".split())
    random = np.random.default_rng(0)
    return [" ".join(random.choice(words, tokens - 2)) for _ in range(rows)]


def growth(length):
    model = fe.build_model("all_minilm_l6_v2", 2, sequence_length=length)
    return model, lambda x: model.fit(x, [0, 1] * (len(x) // 2), batch_size=16, verbose=0)


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def stream():
    """Train 50 steps on a pipeline of a million rows that are made as they are asked for."""
    import tensorflow as tf

    model = fe.build_model("all_minilm_l6_v2", 2, sequence_length=64)
    some = texts(1000, 27)

    def rows():
        for i in range(STREAMED):
            yield f"{some[i % 1000]} {i}", i % 2

    signature = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32))
    pipeline = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(16)
    model.fit(pipeline, steps_per_epoch=STEPS, epochs=1, verbose=0)
    trained = peak_gb()
    began = time.perf_counter()
    encoded = model.encode([text for text, _ in rows()])
    seconds = time.perf_counter() - began
    return {
        "streamed_steps": STEPS, "peak_gb_streamed": trained, "rows_tokenised": len(encoded),
        "tokenise_seconds": seconds, "peak_gb_tokenised": peak_gb(),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("build/growth.json"))
    arguments = parser.parse_args()
    record = stream()  # first: the peak is of the whole process
    print(json.dumps(record))
    model, fit = growth(64)
    x = texts(max(ROWS), 28)
    for name, run in (("training", fit), ("prediction", model.predict)):
        seconds = [clock(lambda n=n, run=run: run(x[:n])) for n in ROWS]
        record[f"{name}, rows"] = {
            "sizes": ROWS, "seconds": seconds, "exponent": exponent(ROWS, seconds),
        }  # fmt: skip
        print(name, "rows", ROWS, np.round(seconds, 2), f"exponent {exponent(ROWS, seconds):.2f}")
    model, fit = growth(512)
    for name, run in (("training", fit), ("prediction", model.predict)):
        seconds = [clock(lambda n=n, run=run: run(texts(32, n)), repeats=2) for n in LENGTHS]
        record[f"{name}, tokens a row"] = {
            "sizes": LENGTHS, "seconds": seconds, "exponent": exponent(LENGTHS, seconds),
        }  # fmt: skip
        print(name, "tokens", LENGTHS, np.round(seconds, 2), f"exponent {exponent(LENGTHS, seconds):.2f}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
