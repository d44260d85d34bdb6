"""Run each command that the README shows after a `$`, but for `make …`, which .ci/run runs itself."""

import pathlib
import re
import subprocess
import sys

readme = pathlib.Path("README.md").read_text(encoding="utf-8")
commands = [line[2:] for line in re.findall(r"^\$ .*$", readme, flags=re.M)]
if not commands:
    sys.exit("README.md shows no command after a $")
for command in commands:
    if command.startswith(("make ", "git ", "cd ")):
        continue
    print(f"== {command}", flush=True)
    subprocess.run(command, shell=True, check=True, env={"PATH": ".venv/bin:/usr/bin:/bin"})
