"""The faults of `make faults`, a few of each: whole files, or a sentence that names the file."""

import importlib.util
import sys
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", Path(__file__).parent / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def cost(tallies):
    """Return the tries of each fault, after asserting that they cost nothing."""
    tallies = list(tallies)
    assert [(each.fault, each.lost, each.unclear) for each in tallies if each.lost or each.unclear] == []
    return [each.tries for each in tallies]


def test_writers_that_are_killed(faults, monkeypatch):
    quick = ("Evaluation.save over an old one", "a look at the test rows")
    monkeypatch.setattr(faults, "KILLS", {name: faults.KILLS[name] for name in quick})
    assert cost(faults.kills(0.05)) == [3, 2]


def test_disks_that_are_full_or_closed(faults, monkeypatch):
    quick = {
        name: write for name, write in faults.writers().items() if name != "fine_tune"
    }  # has tests of its own
    monkeypatch.setattr(faults, "writers", lambda: quick)
    assert cost(faults.disks(0.25))[1] == 3 * len(quick)


def test_files_that_are_damaged(faults):
    tries = cost(faults.damage(0.1))
    assert len(tries) == 7 and min(tries) >= 8
