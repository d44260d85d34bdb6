"""Which processes train together, and what is refused before anything slow; see test_distributed.py."""

import json
import re

import keras
import pytest

import finetune_eval as fe
from finetune_eval.training import watch
from finetune_eval.training.processes import _of_launcher

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="of the backend JAX")
elsewhere = pytest.mark.skipif(keras.backend.backend() == "jax", reason="of the other backends")


def refused(sentence):
    return pytest.raises(ValueError, match=f"^{re.escape(sentence)}$")


@pytest.mark.parametrize(
    ("variables", "known"),
    [
        # What Kubeflow's JAXJob sets in the third of four pods.
        (
            {"COORDINATOR_ADDRESS": "job-worker-0", "COORDINATOR_PORT": "6666", "NUM_PROCESSES": "4",
             "PROCESS_ID": "2"},
            ("job-worker-0:6666", 4, 2),
        ),
        # mpirun -x JAX_COORDINATOR_ADDRESS=…: Open MPI, MPICH.
        (
            {"JAX_COORDINATOR_ADDRESS": "node1:7777", "OMPI_COMM_WORLD_SIZE": "2",
             "OMPI_COMM_WORLD_RANK": "1"},
            ("node1:7777", 2, 1),
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "node1:7777", "PMI_SIZE": "2", "PMI_RANK": "0"},
            ("node1:7777", 2, 0),
        ),
        # Keras takes all addresses; JAX needs the first.
        (
            {"KERAS_DISTRIBUTION_JOB_ADDRESSES": "a:1,b:2", "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
             "KERAS_DISTRIBUTION_PROCESS_ID": "1"},
            ("a:1", 2, 1),
        ),
        ({"PROCESS_ID": "2", "NUM_PROCESSES": "4"}, (None, None, None)),  # no address: JAX looks further
    ],
)  # fmt: skip
def test_what_launchers_tell_a_process(variables, known):
    assert _of_launcher(variables) == known


@elsewhere
def test_another_backend_is_refused(numeric_scorer, tiny):
    backend = keras.backend.backend()
    with refused(
        "`distribution` 'data_parallel' works on JAX; set KERAS_BACKEND=jax before the program starts (it is "
        f"{backend!r}). On TensorFlow, build and train the model inside "
        "`tf.distribute.MirroredStrategy().scope()`."
    ):
        fe.fine_tune(numeric_scorer, *tiny.numeric_rows(9), distribution="data_parallel")
    with refused(
        "Several processes can train one model on JAX only; set KERAS_BACKEND=jax before the program starts "
        f"(it is {backend!r})."
    ):
        fe.initialize_distributed("localhost:1", 2, 0)


def test_an_unknown_distribution_is_refused(numeric_scorer, tiny):
    with refused(
        "`distribution` must be one of 'data_parallel', 'model_parallel'; got 'data'. Did you mean "
        "'data_parallel'?"
    ):
        fe.fine_tune(numeric_scorer, *tiny.numeric_rows(9), distribution="data")


@on_jax
def test_a_model_without_a_layout_is_refused(scorer, tiny):
    with refused(
        "`distribution` 'model_parallel' needs a KerasHub backbone with `get_layout_map`, such as Gemma or "
        "Llama; BertBackbone has none. Use 'data_parallel', for which the model has to fit one device."
    ):
        fe.fine_tune(scorer, tiny.texts, tiny.sentiments, distribution="model_parallel")


@on_jax
def test_processes_that_are_not_connected_are_refused(numeric_scorer, tiny, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-4]")
    with refused(
        "4 processes were started (SLURM_NTASKS), and they are not connected: call "
        "`finetune_eval.initialize_distributed()` in each, before `build_model`."
    ):
        fe.fine_tune(numeric_scorer, *tiny.numeric_rows(9), distribution="data_parallel")


class Service:
    """JAX's key-value store, in a dictionary."""

    def __init__(self, **said):
        self.said = {
            f"finetune_eval/process/{name.strip('p')}": json.dumps(value) for name, value in said.items()
        }

    def key_value_dir_get(self, key):
        return list(self.said.items())


@pytest.mark.parametrize(
    ("status", "done", "how"),
    [
        ("alive", 0, None),
        ("failed", 0, "failed (OSError: full)"),
        ("ended", 0, "has ended"),  # its program ended, and this process waits for it in a step
        ("ended", 1, None),  # it has done what this process is still writing down
        ("failed", 1, None),
    ],
)
def test_a_process_is_missed_until_it_has_done_its_part(status, done, how):
    own = watch._Watch(Service(p1=[5, status, "OSError: full", done]), place=0, count=2)
    expected = None if how is None else f"Process 1 of 2 (counted from 0) {how}. {watch._AFTER}"
    assert own.problem() == expected


def test_a_process_is_taken_for_dead_after_30_seconds_or_after_10_where_a_sum_failed(monkeypatch):
    now = 100.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)
    own = watch._Watch(Service(p0=[5, "alive", "", 0]), place=1, count=2)
    assert own.others() == {0: ("alive", "", 0)}
    now = 129.0
    assert own.problem() is None
    own.failed = True
    assert own.others() == {0: ("silent", "", 0)}
    own.failed, now = False, 131.0
    assert own.problem() == (
        "Process 0 of 2 (counted from 0) is silent: it was killed, or its machine is gone. " + watch._AFTER
    )
    own.client.said["finetune_eval/process/0"] = json.dumps([6, "alive", "", 0])
    assert own.problem() is None
