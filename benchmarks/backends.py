"""Print what epochs of fine-tuning the embedded MiniLM cost on the backend in use: seconds of CPU and clock.

    python benchmarks/backends.py
    KERAS_BACKEND=torch python benchmarks/backends.py

The first epoch holds what a backend does once: tracing or compiling. On a busy machine read the CPU.
"""

import time

import numpy as np

import finetune_eval as fe

import keras  # isort: skip  # after the library, which decides how TensorFlow computes

WORDS = "a good bad film the was very not plot cast warm dull long short loud calm and but of in".split()
ROWS, EPOCHS = 64, 3


class Seconds(keras.callbacks.Callback):
    """Prints what each epoch took."""

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        cpu, clock = time.process_time() - self.began[0], time.perf_counter() - self.began[1]
        print(f"epoch {epoch + 1}: {cpu:.1f} s of CPU, {clock:.1f} s, loss {logs['loss']:.4f}", flush=True)


def main():
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(15, 40))) for _ in range(ROWS)]
    labels = [int(text.count("good") > text.count("bad")) for text in texts]
    model = fe.build_model("all_minilm_l6_v2", ["bad", "good"])
    settings = {"batch_size": 16, "precision": "float32", "verbose": False, "callbacks": [Seconds()]}
    fe.fine_tune(model, texts, labels, epochs=EPOCHS, **settings)


if __name__ == "__main__":
    main()
