"""Faults, and what they cost: kill -9, full disks, read-only folders, two writers at once, damaged files.

    make faults                          everything, under fifteen minutes on two cores
    python tests/faults/faults.py --scale 0.05 kills damage

Prints a table for docs/reliability.md: how often each fault was tried, how often something was lost or wrong,
and how often the message did not name the file. Exits 1 where any of these is not 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # of the fault modules, and of conftest.py
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the processes that are killed

import damage  # noqa: E402
import disks  # noqa: E402
import kills  # noqa: E402
import races  # noqa: E402
import resumes  # noqa: E402

PARTS = {
    "kills": kills.kills,
    "resumes": resumes.resumes,
    "races": races.races,
    "disks": disks.disks,
    "damage": damage.damage,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"Some of {', '.join(PARTS)}; all by default.")
    parser.add_argument("--scale", type=float, default=1.0, help="How many of the tries to make.")
    asked = parser.parse_args()
    began, bad = time.perf_counter(), 0
    print("| Fault | Tried | Lost or wrong | Unclear | |\n| --- | --- | --- | --- | --- |", flush=True)
    for part in asked.parts or PARTS:
        for tally in PARTS[part](asked.scale):
            print(tally.row(), flush=True)
            for sentence in (*tally.lost, *tally.unclear):
                print(f"  {' '.join(sentence.split())[:400]}", file=sys.stderr, flush=True)
            bad += len(tally.lost) + len(tally.unclear)
    print(f"{time.perf_counter() - began:.0f} seconds", file=sys.stderr)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
