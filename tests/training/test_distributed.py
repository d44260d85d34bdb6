"""On JAX two devices, and two processes, train the model that one device trains.

Each group of processes runs a program of its own: how many devices and processes JAX has is settled when it
starts. Products and sums are split by rows, so that float32 rounds them otherwise: weights are equal to 1e-5.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.training.states import States

# Some tests train in this process, too; that JAX is installed does not make it the backend here.
if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("`make test-jax` installs JAX and runs this", allow_module_level=True)

PROGRAM = Path(__file__).with_name("distributed.py")
SECONDS = 600  # after which the processes of a program are killed; each takes 7 to 25 seconds of CPU
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Started:
    """Processes of the program, which are killed where they take too long."""

    def __init__(self, folder, mode, processes, seconds=SECONDS):
        address = f"127.0.0.1:{free_port()}"
        self.folder = folder
        flags = f"{CHEAP} --xla_force_host_platform_device_count={2 // processes}"
        path = os.pathsep.join([str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.processes = [
            subprocess.Popen(
                [sys.executable, PROGRAM, folder, mode, str(place), address if processes > 1 else ""],
                env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3",
                     "PYTHONPATH": path},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for place in range(processes)
        ]  # fmt: skip
        self.seconds, self.until = seconds, time.monotonic() + seconds

    def end(self):
        """Return (stdout, stderr) of each process once all have ended; fail where they take too long."""
        try:
            return [each.communicate(timeout=self.until - time.monotonic()) for each in self.processes]
        except subprocess.TimeoutExpired:
            for each in self.processes:
                each.kill()
            said = [each.communicate() for each in self.processes]
            pytest.fail(f"The processes had not ended after {self.seconds} seconds, and were killed: {said}")
        finally:
            for each in self.processes:
                each.kill()

    def found(self):
        """Return of each process what it found and the arrays it left."""
        said = self.end()
        assert [each.returncode for each in self.processes] == [0] * len(said), said[0][1][-3000:]
        found = []
        for place, (out, _) in enumerate(said):
            known = json.loads((self.folder / f"{place}.json").read_text())
            for name, values in known.items():
                with np.load(self.folder / f"{name}-{place}.npz") as arrays:
                    values["arrays"] = dict(arrays)
            found.append({"said": out, **known})
        return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one device finds, two devices of one process, and each of two processes; by way and rows."""
    (alone,) = Started(tmp_path_factory.mktemp("alone"), "alone", 1).found()
    processes = Started(tmp_path_factory.mktemp("together"), "together", 2).found()
    ways = {"one": alone, "two devices": alone, "process 0": processes[0], "process 1": processes[1]}
    return {
        way: {
            key.split()[1]: values
            for key, values in known.items()
            if key.startswith("one " if way == "one" else ("several ", "shared "))
        }
        | ({} if way == "two devices" else {"said": known["said"]})
        for way, known in ways.items()
    }


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(np.array(a), np.array(b), rtol=0, atol=tolerance)


SEVERAL = pytest.mark.parametrize("way", ["two devices", "process 0", "process 1"])
ROWS = pytest.mark.parametrize("rows", ["numbers", "texts"])


def same_weights(several, one):
    assert one.keys() == several.keys()
    for name, values in one.items():
        # What is added to all keys changes no softmax: the exact gradient of their biases is 0, and Adam,
        # which divides a gradient by its size, makes whole steps of its rounding.
        if not name.endswith("key/bias"):
            close(several[name], values)
    moved = max(float(abs(values).max()) for values in one.values())
    assert moved > 0.1  # the tolerance means something


def test_two_processes_give_the_model_and_the_evaluation_of_one(tmp_path, monkeypatch):
    # The one test of two processes in .ci/run. The pytest process is the one of the title.
    started = Started(tmp_path, "few", 2, seconds=240)
    monkeypatch.syspath_prepend(PROGRAM.parents[1])
    program = runpy.run_path(str(PROGRAM))
    one, arrays = program["trained"](program["few_texts"], None, program["Steps"]())
    first, second = (each["several few_texts"] for each in started.found())
    for several in (first, second):
        same_weights(several["arrays"], arrays)
        assert len(several["steps"]) == 2 * 3
        close(several["steps"], one["steps"])
        assert several["confusion"] == one["confusion"] and several["scores"] == one["scores"]
        assert several["distribution"] == "data_parallel, 2 devices in 2 processes"
    for name, values in first["arrays"].items():
        np.testing.assert_array_equal(second["arrays"][name], values)


@SEVERAL
@ROWS
def test_weights_and_losses_are_those_of_one_device(found, way, rows):
    one, several = found["one"][rows], found[way][rows]
    same_weights(several["arrays"], one["arrays"])
    assert len(one["steps"]) == {"numbers": 3 * 5, "texts": 5}[rows]
    close(several["steps"], one["steps"])


@SEVERAL
@ROWS
def test_epochs_and_evaluations_are_those_of_one_device(found, way, rows):
    one, several = found["one"][rows], found[way][rows]
    for a, b in zip(one["epochs"], several["epochs"], strict=True):
        assert b == pytest.approx(a, abs=1e-5)
        assert all(b[name] == a[name] for name in a if "loss" not in name and "accuracy" not in name)
    assert several["confusion"] == one["confusion"]
    close(several["keras evaluate"], one["keras evaluate"])
    close(several["loss"], one["loss"])


def test_one_process_writes_and_prints(found):
    wrote = {way: known["numbers"]["wrote"] for way, known in found.items()}
    assert wrote == {"one": True, "two devices": True, "process 0": True, "process 1": False}
    assert ["valid" in found[way]["said"] for way in ("process 0", "process 1")] == [True, False]
    assert {way: known["numbers"]["distribution"] for way, known in found.items()} == {
        "one": None, "two devices": "data_parallel, 2 devices in 1 process",
        "process 0": "data_parallel, 2 devices in 2 processes",
        "process 1": "data_parallel, 2 devices in 2 processes",
    }  # fmt: skip


def test_devices_share_the_weights_of_a_model_with_a_layout(found):
    one, shared = found["one"]["llama"], found["two devices"]["llama"]
    for name, values in one["arrays"].items():
        close(shared["arrays"][name], values)
    # The layouts of `LlamaBackbone.get_layout_map`: a device has half of each, and of its moments.
    halves = {name: parts for name, parts in shared["parts"].items() if parts[0] != parts[1]}
    layer = "transformer_layer_0/feedforward_gate_dense/kernel"
    assert halves[layer] == [[8, 16], [8, 8]]
    assert halves["token_embedding/embeddings"] == [[20, 8], [10, 8]]
    assert sum("gate_dense" in name for name in halves) == 3
    assert all(whole == part for whole, part in one["parts"].values())


AFTER = (
    "None can go on alone, so this process ends too. Start all of them again; with a run folder and "
    "`resume=True` the training goes on at its last checkpoint."
)


def ended(started, ending):
    """Return what the other process said last, which must have ended within 60 seconds of the first."""
    started.processes[ending].wait(timeout=SECONDS)
    since = time.monotonic()
    said = started.end()
    assert time.monotonic() - since < 60
    assert started.processes[1 - ending].returncode == 1
    return said[1 - ending][1].strip().splitlines()[-1]


def goes_on_to_the_bit(folder, found):
    """Assert that two processes go on with a run of two, and give what they give without a break."""
    for place, known in enumerate(Started(folder, "resumed", 2).found()):
        whole = found[f"process {place}"]["numbers"]
        known = known["several numbers"]
        assert known["steps"] == whole["steps"]
        for name, values in whole["arrays"].items():
            np.testing.assert_array_equal(known["arrays"][name], values)


def until(happens, processes):
    """Wait for something that processes do; fail where one of them ends before."""
    ends = time.monotonic() + SECONDS
    while not happens():
        assert all(each.poll() is None for each in processes) and time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module")
def commands(tiny, tmp_path_factory):
    """The weights that two processes of `train --hosts` leave without a break, and what begins two."""
    home = tmp_path_factory.mktemp("home")
    tiny.checkpoint(home / "checkpoint")
    rows = [
        f"the {('good', 'bad')[row % 2]} film number {row},{('pos', 'neg')[row % 2]}" for row in range(60)
    ]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")

    @contextlib.contextmanager
    def begin(folder, *more):
        for name in ("checkpoint", "rows.csv"):
            if not (folder / name).exists():
                (folder / name).symlink_to(home / name)
        words = [
            "train",
            "rows.csv",
            "--model",
            "checkpoint",
            "--test",
            "0",
            "--hosts",
            "--run-dir",
            "run",
            *more,
        ]
        flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": CHEAP, "TF_CPP_MIN_LOG_LEVEL": "3"}
        place = {
            "COORDINATOR_ADDRESS": "127.0.0.1",
            "COORDINATOR_PORT": str(free_port()),
            "NUM_PROCESSES": "2",
        }
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "finetune_eval.cli", *words], cwd=folder, text=True,
                env={**os.environ, **flags, **place, "PROCESS_ID": str(number)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for number in range(2)
        ]  # fmt: skip
        try:
            yield processes
        finally:
            for each in processes:
                each.kill()

    with begin(home, "--epochs", "60") as processes:
        said = [each.communicate(timeout=SECONDS) for each in processes]
        assert [each.returncode for each in processes] == [0, 0], said
    return fe.load_model(home / "run").get_weights(), begin


def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on(found, tmp_path):
    started = Started(tmp_path, "killed1", 2)
    assert ended(started, 1) == (
        "error: Process 1 of 2 (counted from 0) is silent: it was killed, or its machine is gone. " + AFTER
    )
    assert started.processes[1].returncode == -signal.SIGKILL
    assert fe.load_model(tmp_path / "run") is not None  # the best epoch before
    goes_on_to_the_bit(tmp_path, found)


def test_ctrl_c_in_one_process_has_all_stop_after_the_same_step_which_is_saved(found, tmp_path):
    said = (told := Started(tmp_path, "told1", 2)).end()
    assert [each.returncode for each in told.processes] == [1, 1], said
    run = str(tmp_path / "run")
    last = [each[1].strip().splitlines()[-1] for each in said]
    notes = [f"`finetune_eval.resume({run!r})` goes on."]
    assert last == [f"stopped: {notes}", "stopped: None"]
    state = States(tmp_path / "run" / "checkpoint").newest()
    assert 5 * state.epoch + state.step >= 8  # the signal came in the eighth step of 15, 5 in an epoch
    assert state.epoch * 5 + state.step == len(state.callbacks["Steps 1"])
    assert fe.runs.Run(run).read_manifest()["status"] == "interrupted"
    goes_on_to_the_bit(tmp_path, found)


@pytest.mark.slow
@pytest.mark.parametrize("told", [[0], [1], [0, 1]], ids=["first", "second", "both"])
def test_sigterm_to_the_command_line_is_saved_by_all_processes_and_goes_on(commands, tmp_path, told):
    whole, begin = commands
    with begin(tmp_path, "--epochs", "60") as processes:
        until(lambda: (tmp_path / "run" / "checkpoint" / "best.npz").is_file(), processes)
        for place in told:
            processes[place].send_signal(signal.SIGTERM)
        said = [each.communicate(timeout=SECONDS) for each in processes]
    assert [each.returncode for each in processes] == [128 + signal.SIGTERM] * 2, said
    line = said[0][1].strip().splitlines()[-1]
    assert line.startswith("error: interrupted; 'run' holds a run that was interrupted in epoch"), line
    again = "finetune-eval train rows.csv"
    assert (
        f"Go on, in every process: {again}" in line and "--hosts --run-dir run --epochs 60 --resume" in line
    )
    with begin(tmp_path, "--epochs", "60", "--resume") as processes:
        said = [each.communicate(timeout=SECONDS) for each in processes]
    assert [each.returncode for each in processes] == [0, 0], said
    assert "goes on in epoch" in said[0][0]
    for one, other in zip(fe.load_model(tmp_path / "run").get_weights(), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_first_process_that_is_killed_ends_the_other(tmp_path):
    started = Started(tmp_path, "killed0", 2)
    assert ended(started, 0) == (
        "error: JAX ended this process, as it does where process 0 of 2 (counted from 0) has ended. " + AFTER
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_a_process_that_raises_ends_the_other(tmp_path, place):
    started = Started(tmp_path, f"raises{place}", 2)
    assert ended(started, place) == (
        f"error: Process {place} of 2 (counted from 0) failed (RuntimeError: the disk is on fire). " + AFTER
    )
