"""How many CPUs this process may really use: what the machine has, less what the system keeps from it."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs to keep busy, 1 or more: those that are allowed, and no more than OMP_NUM_THREADS wishes."""
    allowed, wished = allowed_cpus(root), os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(allowed, int(wished))) if wished.isdecimal() else allowed


def allowed_cpus(root: Path = Path("/")) -> int:
    """CPUs that the system lets this process keep busy, 1 or more: affinity, or the cgroup's quota (v1 and v2) if less.

    In a container a library that counts the machine's cores starts a thread for each, and the quota then stops
    all of them for most of the time. root: where /proc and /sys are mounted.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return max(1, int(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> list[float]:
    """CPUs that each cgroup around this process may use; those without a limit are left out."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, inner = line.split(":", 2)
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        place = mount / inner.strip("/")
        # A quota binds all groups below it. In a container the inner path may not exist; its root does.
        for folder in (place, *place.parents):
            if (quota := _quota(folder)) is not None:
                found.append(quota)
            if folder == mount:
                break
    return found


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
