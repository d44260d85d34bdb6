"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS, _MEMBER_OF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def seen() -> int:
    """Return how many cores this process may run on: those of its affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores() -> int:
    """Return how many cores this process may use: those that it may run on, within its container's quota.

    A quota of one and a half cores counts as two, as the JVM counts it.
    """
    try:
        given = quota(_GROUPS, _MEMBER_OF.read_text(encoding="utf-8"))
    except OSError:  # no Linux
        given = None
    return seen() if given is None else max(1, min(seen(), math.ceil(given)))


def quota(groups: Path, member_of: str) -> float | None:
    """Return how many cores' time the control groups of a process allow; None where they do not say.

    Args:
        groups: Where control groups are mounted, of version 1 or 2.
        member_of: What `/proc/self/cgroup` says: lines of number, controllers and path. Inside a container
            the path may be that of the host, and the container's own group is then the root.

    Reference:
        Linux kernel, Documentation/admin-guide/cgroup-v2.rst (`cpu.max`), scheduler/sched-bwc.rst
        (`cpu.cfs_quota_us`, `cpu.cfs_period_us`).
    """
    found = []
    for line in member_of.splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        root = groups if number == "0" else groups / "cpu"
        group = root / path.strip("/")
        for folder in (group, *group.parents):  # the smallest quota of a group and those it is in
            found += _quotas_of(folder)
            if folder == root:
                break
    return min(found, default=None)


def _quotas_of(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            limit, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
        return [int(limit) / int(period)] if int(limit) > 0 else []
    except (OSError, ValueError):  # no such files, or "max"
        return []
