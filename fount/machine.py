"""What this process may use of its machine: processor cores, memory and file descriptors.

Affinity and control groups limit the first two, in containers usually far below what the machine has. Linux's /proc and
control groups are read; on other systems cores are counted without limits, and memory is unknown.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["available_bytes", "raise_descriptor_limit", "usable_cores"]

_ROOT = Path("/")
_MAX_DESCRIPTORS = 1 << 16  # some programs, as child processes, go through all that they may have


def usable_cores(root: Path = _ROOT) -> int:
    """Count the cores this process may use, by its affinity and the quota of its control group; at least 1.

    Args:
        root: the folder with `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota(root / "sys/fs/cgroup")
    return max(1, cores if quota is None else min(cores, int(quota)))


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files and connections to what it may be, and return it."""
    import resource  # which Windows lacks, where models are trained as well

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= highest:
        return _MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):  # macOS names no hard limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        return highest
    return soft


def available_bytes(root: Path = _ROOT) -> int | None:
    """Read how much memory this process can still use: free memory of the machine and of its control group.

    Args:
        root: the folder with `proc` and `sys`.

    Returns:
        Bytes, the smaller of both; None when neither can be read.
    """
    machine = _read_pairs(root / "proc/meminfo").get("MemAvailable:")
    limits = [None if machine is None else machine * 1024, _available_in_group(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _read_quota(group: Path) -> float | None:
    """Read the cores' worth of time that a control group, version 2 or 1, may use; None for no limit."""
    text = _read_text(group / "cpu.max")
    if text is None:
        text = f"{_read_text(group / 'cpu/cpu.cfs_quota_us')} {_read_text(group / 'cpu/cpu.cfs_period_us')}"
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _available_in_group(root: Path) -> int | None:
    """Read the control group, version 2 or 1; the page cache can be reclaimed, so it counts as free."""
    group = root / "sys/fs/cgroup"
    for folder, limit, used, cached in (
        (group, "memory.max", "memory.current", "inactive_file"),
        (group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _read_number(folder / limit), _read_number(folder / used)
        if most is not None and now is not None:
            return max(0, most - now + _read_pairs(folder / "memory.stat").get(cached, 0))
    return None


def _read_number(file: Path) -> int | None:
    text = _read_text(file)
    return int(text) if text is not None and text.isdigit() else None  # "max" means no limit


def _read_pairs(file: Path) -> dict[str, int]:
    lines = [line.split() for line in (_read_text(file) or "").splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()}


def _read_text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
