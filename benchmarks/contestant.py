"""How a contestant of speed.py is run: one job, one line of JSON."""

import json
import sys
import time
from pathlib import Path

START = time.perf_counter()


def main(find):
    """Run the contestant that the command line names on the job it names; `find` turns a name into one."""
    with open(sys.argv[2], encoding="utf-8") as file:
        found = find(sys.argv[1])(json.load(file))
    found["seconds"] = time.perf_counter() - START
    # Not `ru_maxrss`: that begins with what the process that started this one had in memory.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps(found))
