"""The faults of `make faults`, a few of each: whole files, or a sentence that names the file."""

import os
import sys
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")

PATHS = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]


@pytest.fixture(scope="module", autouse=True)
def modules():
    """Let the fault modules be found, here and in the processes that are killed."""
    before = os.environ.get("PYTHONPATH")
    sys.path[:0] = PATHS
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    yield
    for path in PATHS:
        sys.path.remove(path)
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def cost(tallies):
    """Return the tries of each fault, after asserting that they cost nothing."""
    tallies = list(tallies)
    assert [(each.fault, each.lost, each.unclear) for each in tallies if each.lost or each.unclear] == []
    return [each.tries for each in tallies]


def test_writers_that_are_killed(monkeypatch):
    import kills

    names = ("`Evaluation.save` over an old one", "a look at the test rows", "`fine_tune`")
    monkeypatch.setattr(kills, "KILLS", {name: kills.KILLS[name] for name in names})
    assert cost(kills.kills(0.05)) == [3, 2, 2]


@pytest.mark.slow
def test_disks_that_are_full_or_closed(monkeypatch):
    import disks

    quick = {
        name: write for name, write in disks.writers().items() if name != "fine_tune"
    }  # has its own tests
    monkeypatch.setattr(disks, "writers", lambda: quick)
    assert cost(disks.disks(0.25))[1] == 3 * len(quick)


@pytest.mark.slow
def test_files_that_are_damaged(monkeypatch):
    import damage

    monkeypatch.setattr(damage, "folders", lambda folder: ())  # tests/models damages these
    tries = cost(damage.damage(0.1))
    assert len(tries) == 9 and min(tries) >= 8
