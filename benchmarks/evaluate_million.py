"""Score 1,000,000 rows of 10 classes with everything on that needs no text; print time and memory.

Target: 30 seconds and 4 GB. Run: python benchmarks/evaluate_million.py [rows] [classes]
"""

import resource
import sys
import time

import numpy as np

from finetune_eval.evaluation.evaluate import evaluate_predictions

ROWS, CLASSES = (int(word) for word in (sys.argv[1:] + ["1000000", "10"][len(sys.argv) - 1 :]))


def main() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, ROWS)
    p = random.normal(size=(ROWS, CLASSES)).astype(np.float32)
    p[np.arange(ROWS), y] += 1
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    metadata = {
        "source": np.array(["press", "blog", "forum"])[random.integers(0, 3, ROWS)],
        "age": random.random(ROWS),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = evaluate_predictions(y, p, metadata=metadata)
    seconds = time.perf_counter() - start
    text = str(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(text.splitlines()[0])
    print(
        f"{ROWS:,} rows x {CLASSES} classes: {seconds:.1f} s, peak {peak / 2**20:.2f} GB "
        f"(of which {before / 2**20:.2f} GB were there before)"
    )


if __name__ == "__main__":
    main()
