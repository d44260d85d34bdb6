"""Print what importing the library for training costs: seconds of CPU, and resident memory.

KERAS_BACKEND=jax python benchmarks/imports.py                 # as this environment is
KERAS_BACKEND=jax python benchmarks/imports.py --no-tensorflow # as if TensorFlow were not installed
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource, sys
if {without}:
    sys.modules["tensorflow"] = None
import finetune_eval as fe
fe.build_model, fe.fine_tune, fe.evaluate
used = resource.getrusage(resource.RUSAGE_SELF)
lines = open("/proc/self/smaps_rollup").read().splitlines()
sizes = {{line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines[1:]}}
private = sizes["Private_Clean"] + sizes["Private_Dirty"]
print(f"{{used.ru_utime + used.ru_stime:.1f}} s of CPU, {{sizes['Rss']}} MB resident, {{private}} MB private")
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--no-tensorflow", action="store_true")
    without = parser.parse_args().no_tensorflow
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1]), **os.environ}
    for _ in range(2):  # the first reads the files from the disk
        subprocess.run([sys.executable, "-c", PROGRAM.format(without=without)], check=True, env=environment)


if __name__ == "__main__":
    main()
