"""Run each command that the README shows after a `$`, but for `make …` and `pip …`: .ci/run runs make."""

import pathlib
import re
import subprocess
import sys

readme = pathlib.Path("README.md").read_text(encoding="utf-8")
commands = [line[2:] for line in re.findall(r"^\$ .*$", readme, flags=re.M)]
if not commands:
    sys.exit("README.md shows no command after a $")
for command in commands:
    if command.startswith(("make ", "git ", "cd ", "pip ")):
        continue
    print(f"== {command}", flush=True)
    subprocess.run(
        command, shell=True, check=True, executable="/bin/bash", env={"PATH": ".venv/bin:/usr/bin:/bin"}
    )
