"""The check `memory`: what one worker of this model takes.

The process is the child that runs the checks, so what it takes before the model is loaded is what any worker takes.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from handlers.checks.finding import Finding, passed, warned
from handlers.checks.subject import Subject
from handlers.loading.memory import available_bytes

__all__ = ["check_memory", "resident_bytes", "tell_bytes"]

_STATUS = Path("/proc/self/status")
_SHARE = 0.5  # of what is free, beyond which two workers would not fit


def check_memory(subject: Subject) -> Finding:
    """Run the largest batch a worker would, and read what the process took at most."""
    largest = subject.profile.exec_batch_sizes[-1]
    subject.run(subject.rows(largest))
    loaded, peak = resident_bytes(), _peak_bytes()
    weights = (subject.folder / subject.card.weights.file).stat().st_size
    before = subject.resident_before
    seen = (
        f"weights {tell_bytes(weights)}; the process {tell_bytes(before)} before, {tell_bytes(loaded)} with the model,"
        f" {tell_bytes(peak)} at most (batches of {largest})"
    )
    numbers = {"weights_bytes": float(weights), "resident_bytes": float(loaded), "peak_bytes": float(peak)}
    if subject.settings.device != "cpu":
        taken = torch.cuda.max_memory_allocated(subject.settings.device)
        seen, numbers = f"{seen}; on the device {tell_bytes(taken)}", numbers | {"device_bytes": float(taken)}
    free = available_bytes()
    if free is not None and peak > _SHARE * (free + loaded):
        change = "serve it with one worker, on a larger machine, or with a smaller limits.max_exec_batch"
        return warned(
            "memory", f"{seen}; {tell_bytes(free + loaded)} are there for all workers", change, numbers=numbers
        )
    return passed("memory", seen, numbers=numbers)


def resident_bytes() -> int:
    """What the process holds in memory now; what it held at most where that is not told."""
    return _read_status("VmRSS:") or _peak_bytes()


def tell_bytes(count: float) -> str:
    """Say a size as people do."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def _peak_bytes() -> int:
    found = _read_status("VmHWM:")
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _read_status(key: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
