"""How many cores a process may use: its affinity, and the quota of the control groups that it is in."""

import os

import pytest

from finetune_eval import _cores

# What `/proc/self/cgroup` says on a machine with version 1, and on one with version 2.
FIRST = "4:memory:/job\n2:cpu,cpuacct:/job\n1:name=systemd:/other\n"
SECOND = "0::/slice/job\n"


def written(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("member_of", "files", "expected"),
    [
        (SECOND, {"slice/job/cpu.max": "150000 100000\n"}, 1.5),
        (SECOND, {"slice/job/cpu.max": "max 100000\n"}, None),
        (SECOND, {"slice/job/cpu.max": "400000 100000\n", "slice/cpu.max": "100000 50000\n"}, 2.0),
        (SECOND, {"cpu.max": "300000 100000\n"}, 3.0),  # the path is that of the host
        (FIRST, {"cpu/job/cpu.cfs_quota_us": "50000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 0.5),
        (FIRST, {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, None),
        (FIRST, {"memory/job/cpu.max": "100000 100000\n"}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
    ],
)
def test_the_smallest_quota_of_the_groups_counts(tmp_path, member_of, files, expected):
    assert _cores.quota(written(tmp_path, files), member_of) == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(8, None, 8), (8, "250000 100000", 3), (2, "800000 100000", 2), (4, "10000 100000", 1)],
)
def test_cores_are_those_of_the_affinity_within_the_quota(tmp_path, monkeypatch, affinity, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    (tmp_path / "cgroup").write_text(SECOND)
    monkeypatch.setattr(_cores, "_MEMBER_OF", tmp_path / "cgroup")
    monkeypatch.setattr(_cores, "_GROUPS", written(tmp_path, {"cpu.max": quota} if quota else {}))
    assert _cores.cores() == expected


def test_without_control_groups_the_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(_cores, "_MEMBER_OF", tmp_path / "none")
    assert _cores.cores() == len(os.sched_getaffinity(0))
